"""Penalties on critics: on the length of their gradient and on the size of what they put out."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.distances import Pairs, Sample
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.kernels.summands import sum_of_gram_matrices
from torch_mmd_losses.losses.input_gradients import squared_gradient_norms
from torch_mmd_losses.precision import full_precision, total_dtype


def gradient_penalty(scores: Tensor, inputs: Tensor, *, target: float = 1.0) -> Tensor:
    r"""Return the penalty on the gradient of a critic, to be added to the discriminator's loss with a weight.

    .. math:: E\,(\lVert \nabla f(x) \rVert - target)^2

    for the values :math:`f(x)` that a critic puts out at samples :math:`x`. The norm is that of the whole gradient of a
    sample, over channels and pixels; with several values per sample it is the Frobenius norm of all their gradients.

    ==============================  =================================================================  ========
    penalty                         `scores`                                                           `target`
    ==============================  =================================================================  ========
    WGAN-GP                         `D(points)`                                                        1
    MMD-GAN-GP                      `witness(D(points), real=D(real), fake=D(fake), kernel=kernel)`    1
    zero-centred, R1                `D(real)`                                                          0
    ==============================  =================================================================  ========

    with `points = interpolation_points(real, fake)`, or any others, which are `inputs`. Each value may depend on its
    own sample only, so no BatchNorm in the discriminator. Where the gradient vanishes, the derivative of the norm is
    taken as zero, so that nothing becomes NaN. The discriminator must not be compiled, since PyTorch does not
    differentiate compiled code twice.

    Args:
        scores: the values, `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1. Each
            of the `d` takes a backward pass.
        inputs: the samples, `(m, ...)` in any floating-point dtype, as the critic saw them; they require gradients, and
            `scores` is a differentiable function of them.
        target: the length that the gradient should have, >= 0.

    Returns:
        A scalar, float64 for float64 scores and float32 for all others; never negative.

    Raises:
        TypeError: if `scores` or `inputs` is no tensor or `target` no real number.
        ValueError: if `target` is negative or not finite; if `scores` is empty or not floating-point; if `inputs` is
            not floating-point, does not require gradients, has another number of samples than `scores` or is not what
            `scores` depends on.

    Example:
        >>> D = torch.nn.Linear(2, 1)
        >>> real, fake = torch.randn(8, 2), torch.randn(8, 2)
        >>> points = interpolation_points(real, fake)
        >>> penalty = gradient_penalty(D(points), inputs=points)
        >>> torch.testing.assert_close(penalty, (D.weight.norm() - 1) ** 2)

    References:
        Gulrajani et al. (2017), Eq. 3; Binkowski et al. (2018); Mescheder et al. (2018), Section 4.
    """
    length = checks.finite_number("target", target)
    if length < 0:
        raise ValueError(f"target: expected a number >= 0, got {target!r}")
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        matrix = checks.scores("scores", scores)
    squares = squared_gradient_norms("scores", matrix, inputs, create_graph=create_graph)
    if length:
        positive = squares > 0
        norms = torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)
        squares = (norms - length).square()
    return squares.mean(dtype=total_dtype(squares.device)).to(matrix.dtype)


def witness(scores: Tensor, real: Tensor, fake: Tensor, kernel: Kernel) -> Tensor:
    r"""Return the witness function of MMD, the critic that an MMD GAN stands for, at some samples.

    .. math:: f(t) = E\,k(x, t) - E\,k(y, t)

    for the scores :math:`t` of these samples, real scores :math:`x` and fake scores :math:`y`. Divided by
    :math:`\mathrm{MMD}` it would be the optimal critic of Eq. 1; the penalty of MMD GANs is on :math:`f` as it is.

    Args:
        scores: scores of the samples at which to evaluate it, `(p, d)` in any floating-point dtype; `(p,)` and
            `(p, ...)` are flattened.
        real: scores of real samples, `(m, d)`, likewise.
        fake: scores of fake samples, `(n, d)`, likewise.
        kernel: the kernel; a bounded one is taken without its bounds.

    Returns:
        Values `(p,)` of either sign, float64 for float64 scores and float32 for all others. Differentiable twice with
        respect to all arguments.

    Raises:
        TypeError: if scores are no tensors or `kernel` is no :class:`Kernel`.
        ValueError: if scores are empty or not floating-point, or differ in dimension, dtype or device.

    Example:
        >>> real, fake = torch.tensor([0.0, 1.0]), torch.tensor([3.0])
        >>> witness(torch.tensor([0.5, 3.0]), real=real, fake=fake, kernel=RBFKernel())
        tensor([ 0.8386, -0.9268])

    References:
        Arbel et al. (2018), Eq. 1 and Appendix C.
    """
    check_kernel(kernel)
    at, left = checks.same_space("scores", scores, "real", real)
    _, right = checks.same_space("real", real, "fake", fake)
    with full_precision(at.device):
        points, summands = Sample(at), kernel._summands()
        pairs = (Pairs(points, Sample(x), distinct=False, same=False) for x in (left, right))
        grams = (sum_of_gram_matrices(summands, each) for each in pairs)
        to_real, to_fake = (gram.mean(1, dtype=total_dtype(at.device)) for gram in grams)
        return (to_real - to_fake).to(at.dtype)


def interpolation_points(real: Tensor, fake: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Return a random point on the line between each real and each fake sample, for :func:`gradient_penalty`.

    .. math:: \hat x_i = u_i x_i + (1 - u_i) y_i, \qquad u_i \sim U(0, 1)

    Args:
        real: real samples, `(m, ...)`.
        fake: fake samples, of the same shape, dtype and device.
        generator: where the random numbers come from; None is PyTorch's default generator of the samples' device. One
            on the CPU gives the same numbers for every device.

    Returns:
        The points, of the same shape; a leaf that requires gradients, for the discriminator and for `inputs`.

    Raises:
        TypeError: if samples are no tensors or `generator` is no :class:`torch.Generator`.
        ValueError: if samples are not floating-point, have no dimension, or differ in shape, dtype or device.

    Example:
        >>> points = interpolation_points(torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8))
        >>> points.shape, points.requires_grad
        (torch.Size([4, 3, 8, 8]), True)

    References:
        Gulrajani et al. (2017), Section 4.
    """
    checks.random_generator(generator)
    for name, samples in (("real", real), ("fake", fake)):
        if not isinstance(samples, Tensor):
            raise TypeError(f"{name}: expected a tensor of samples, got {type(samples).__name__}")
        if not samples.is_floating_point() or samples.dim() == 0:
            raise ValueError(
                f"{name}: expected floating-point samples of shape (m, ...), got {samples.dtype} of shape "
                f"{tuple(samples.shape)}"
            )
    for what in ("shape", "dtype", "device"):
        if getattr(real, what) != getattr(fake, what):
            raise ValueError(
                f"real, fake: expected the same {what}, got {getattr(real, what)} and {getattr(fake, what)}"
            )
    place = real.device if generator is None else generator.device
    u = torch.rand(len(real), generator=generator, dtype=real.dtype, device=place).to(real.device, non_blocking=True)
    u = u.reshape(-1, *[1] * (real.dim() - 1))
    return (u * real.detach() + (1 - u) * fake.detach()).requires_grad_()


def l2_penalty(*outputs: Tensor) -> Tensor:
    r"""Return the L2 penalty on what a critic puts out, to be added to the discriminator's loss with a weight.

    .. math:: \sum_o E\,o^2

    over the tensors :math:`o`, with the mean over all samples and all entries of each. Pass the real and the fake
    scores and, as the authors do, the outputs of other layers too.

    Args:
        outputs: at least one tensor `(m, ...)` in any floating-point dtype; all on one device.

    Returns:
        A scalar, float64 if a tensor has that dtype and float32 otherwise; never negative.

    Raises:
        TypeError: if there is no argument, or one that is no tensor.
        ValueError: if a tensor is empty or not floating-point.

    Example:
        >>> l2_penalty(torch.tensor([1.0, 3.0]), torch.tensor([2.0]))
        tensor(9.)

    References:
        Binkowski et al. (2018), footnote 19.
    """
    if not outputs:
        raise TypeError("outputs: expected at least one tensor, got none")
    return torch.stack([checks.scores("outputs", output).square().mean() for output in outputs]).sum()
