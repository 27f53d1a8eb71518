"""Penalties on the gradients and outputs of critics, and the witness function of MMD."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_mmd_losses import checks, random_numbers
from torch_mmd_losses.devices import moved
from torch_mmd_losses.losses.input_gradients import squared_gradient_norms
from torch_mmd_losses.precision import total_dtype


def gradient_penalty(scores: Tensor, inputs: Tensor, *, target: float = 1.0) -> Tensor:
    r"""Return a penalty on the gradient of a critic, to be added to the discriminator's loss with a weight.

    .. math:: E\,(\lVert \nabla f(x) \rVert - target)^2

    for the values :math:`f(x)` of a critic at samples :math:`x`. The norm is taken over the whole gradient of a sample,
    with all channels and pixels. With several values per sample, it is the Frobenius norm of all their gradients.

    ==============================  =================================================================  ========
    penalty                         `scores`                                                           `target`
    ==============================  =================================================================  ========
    WGAN-GP                         `D(points)`                                                        1
    MMD-GAN-GP                      `witness(D(points), real=D(real), fake=D(fake), kernel=kernel)`    1
    zero-centred, R1                `D(real)`                                                          0
    ==============================  =================================================================  ========

    Here, `points` are `interpolation_points(real, fake)` or any other samples. Pass the samples at which the gradient
    is penalised, `points` or `real`, as `inputs`.

    Each value may depend on its own sample only, so the discriminator must not contain BatchNorm. Where the gradient
    vanishes, the derivative of the norm is set to zero, which avoids NaN. The discriminator must not be compiled, since
    PyTorch does not differentiate compiled code twice.

    Args:
        scores: values of the critic, `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim
            1. Each of the `d` values takes one backward pass.
        inputs: the samples `(m, ...)`, in any floating-point dtype. This must be the tensor that was passed to the
            critic. It must require gradients, and `scores` must be a differentiable function of it.
        target: the norm that the gradient should have, >= 0.

    Returns:
        A scalar, float64 for float64 scores and float32 for all others. Never negative.

    Raises:
        TypeError: if `scores` or `inputs` is not a tensor, or `target` is not a real number.
        ValueError: if `target` is negative or not finite; if `scores` is empty or not floating-point; if `inputs` is
            not floating-point, does not require gradients, or differs from `scores` in the number of samples; if
            `scores` does not depend on `inputs`.

    Example:
        >>> D = torch.nn.Linear(2, 1)
        >>> real, fake = torch.randn(8, 2), torch.randn(8, 2)
        >>> points = interpolation_points(real, fake)
        >>> penalty = gradient_penalty(D(points), inputs=points)
        >>> torch.testing.assert_close(penalty, (D.weight.norm() - 1) ** 2)

    References:
        Gulrajani et al. (2017), Eq. 3; Binkowski et al. (2018); Mescheder et al. (2018), Section 4.
    """
    target_norm = checks.finite_number("target", target)
    if target_norm < 0:
        raise ValueError(f"target: expected a number >= 0, got {checks.described(target)}")
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        matrix = checks.scores("scores", scores)
    squares = squared_gradient_norms("scores", matrix, inputs, create_graph=create_graph)
    if target_norm:
        positive = squares != 0  # NaN is not zero
        norms = torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)
        squares = (norms - target_norm).square()
    return squares.mean(dtype=total_dtype(squares.device)).to(matrix.dtype)


def interpolation_points(real: Tensor, fake: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Return random points on the lines between real and fake samples, for :func:`gradient_penalty`.

    Each line connects a real sample :math:`x_i` with the fake sample :math:`y_i` of the same index:

    .. math:: \hat x_i = u_i x_i + (1 - u_i) y_i, \qquad u_i \sim U(0, 1)

    Args:
        real: real samples, `(m, ...)`.
        fake: fake samples, of the same shape, dtype and device.
        generator: source of the random numbers. None is PyTorch's default generator for the device of the samples; a
            generator on the CPU gives the same numbers on every device.

    Returns:
        The points, of the same shape. They are a leaf tensor that requires gradients: pass them to the discriminator,
        and to :func:`gradient_penalty` as `inputs`.

    Raises:
        TypeError: if samples are not tensors, or `generator` is not a :class:`torch.Generator`.
        ValueError: if samples are empty, zero-dimensional, not floating-point or of 8 bits, or differ in shape, dtype
            or device.

    Example:
        >>> points = interpolation_points(torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8))
        >>> points.shape, points.requires_grad
        (torch.Size([4, 3, 8, 8]), True)

    References:
        Gulrajani et al. (2017), Section 4.
    """
    checks.random_generator(generator)
    for name, samples in (("real", real), ("fake", fake)):
        if not checks.dense(name, samples, "samples").numel() or samples.dim() == 0:
            raise ValueError(
                f"{name}: expected samples of shape (m, ...) with at least one entry, got shape {tuple(samples.shape)}"
            )
        if samples.dtype.itemsize == 1:
            raise ValueError(
                f"{name}: expected samples of at least 16 bits, got {samples.dtype}, in which PyTorch does not compute"
            )
    for attribute in ("shape", "dtype", "device"):
        checks.same(attribute, "real", real, "fake", fake)
    device = real.device if generator is None else generator.device
    u = moved(random_numbers.uniform((len(real),), real.dtype, device, generator), real.device)
    u = u.reshape(-1, *[1] * (real.dim() - 1))
    return (u * real.detach() + (1 - u) * fake.detach()).requires_grad_()


def l2_penalty(*outputs: Tensor) -> Tensor:
    r"""Return an L2 penalty on the outputs of a critic, to be added to the discriminator's loss with a weight.

    .. math:: \sum_o E\,o^2

    The sum runs over the given tensors :math:`o`, and the mean runs over all samples and all entries of each tensor.
    Pass the real and the fake scores and, as the authors do, the outputs of other layers too.

    Args:
        outputs: at least one tensor `(m, ...)` in any floating-point dtype; all on one device.

    Returns:
        A scalar, float64 if one of the tensors is float64, and float32 otherwise. Never negative.

    Raises:
        TypeError: if there is no argument, or an argument is not a tensor.
        ValueError: if a tensor is empty or not floating-point, or if the tensors are on several devices.

    Example:
        >>> l2_penalty(torch.tensor([1.0, 3.0]), torch.tensor([2.0]))
        tensor(9.)

    References:
        Binkowski et al. (2018), footnote 19.
    """
    if not outputs:
        raise TypeError("outputs: expected at least one tensor, got none")
    matrices = [checks.scores(f"outputs[{i}]", output) for i, output in enumerate(outputs)]
    for i, matrix in enumerate(matrices):
        checks.same("device", "outputs[0]", matrices[0], f"outputs[{i}]", matrix)
    return torch.stack([matrix.square().mean() for matrix in matrices]).sum()
