"""The gradient of the witness function, the velocity of an MMD flow."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_mmd_losses import checks, usage_warnings
from torch_mmd_losses.hand_written_gradients import is_differentiated, reverse_mode_only
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.pairs.blind_kernels import EXAMINED, UNDERFLOW, warn_of_one_value
from torch_mmd_losses.pairs.kernel_products import kernel_gradients, signed_samples


def witness_gradient(points: Tensor, *, real: Tensor, fake: Tensor, kernel: Kernel) -> Tensor:
    r"""Return the gradient of the witness function of MMD at given points.

    .. math:: \nabla f(t) = E\,\nabla_t k(x, t) - E\,\nabla_t k(y, t)

    for points :math:`t`, real samples :math:`x` and fake samples :math:`y`; :func:`witness` is :math:`f`. The gradient
    points from fake to real samples, so `fake + step * witness_gradient(fake, ...)` is a step of the flow that
    minimises MMD. At the :math:`n` fake samples it is :math:`-n / 2` times the gradient of `mmd2(..., "biased")` with
    respect to them. The points may differ from the samples: at samples with added noise, it gives the flow of Arbel et
    al. with noise injection.

    Gradients are computed in one pass, without the values, in memory that grows with the numbers of points and samples,
    not with the number of pairs. Under `torch.compile` and in transforms of `torch.func`, and for kernels with trained
    parameters, there is a matrix of all pairs instead.

    Args:
        points: points `(p, d)` in any floating-point dtype; `(p,)` and `(p, ...)` are flattened from dim 1.
        real: samples `(m, d)`, likewise.
        fake: samples `(n, d)`, likewise.
        kernel: any kernel. The bounds of an :class:`RBFBKernel` are ignored.

    Returns:
        Vectors `(p, d)`, float64 for float64 points and float32 for all others. Differentiable once with respect to all
        tensors, and more often in transforms of `torch.func`.

    Raises:
        NotImplementedError: in the backward pass of a second derivative outside `torch.func`.
        TypeError: if an argument is not a tensor, or `kernel` is not a :class:`Kernel`.
        ValueError: if samples are empty or not floating-point, or differ in dimension, dtype or device.

    Warns:
        UsageWarning: if all kernel values of the first 256 points and real samples are zero, or all are
            :math:`k(a, a)`, so that the gradients are zero or those of rounding. Only the first call from each place
            in the code is examined.

    Example:
        >>> real, fake = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0]])
        >>> witness_gradient(fake, real=real, fake=fake, kernel=RBFKernel())
        tensor([[-0.1520]])

    References:
        Arbel et al. (2019), Eq. 3 and Section 4, whose witness is the negative of this one.
    """
    check_kernel(kernel)
    rows, real_rows = checks.same_space("points", points, "real", real)
    _, fake_rows = checks.same_space("real", real, "fake", fake)
    at_fake = _are_equal(rows, fake_rows)
    if at_fake:  # first, so that points and samples of equal index are the same
        samples, weights = signed_samples(fake_rows, real_rows)
        weights = -weights
    else:
        samples, weights = signed_samples(real_rows, fake_rows)
    found = kernel_gradients(
        rows.unsqueeze(0), samples.unsqueeze(0), weights.unsqueeze(0), kernel, same=at_fake or points is real
    )
    if usage_warnings.is_first_call_from_place():
        warn_of_one_value("witness_gradient", [kernel], real_rows[:EXAMINED], rows[:EXAMINED], smallest=UNDERFLOW)
    return found.squeeze(0)


def _are_equal(a: Tensor, b: Tensor) -> bool:
    """Return whether tensors have the same entries, and the same derivatives where some are wanted."""
    return a is b or (a.is_cpu and reverse_mode_only(a, b) and not is_differentiated(a, b) and torch.equal(a, b))
