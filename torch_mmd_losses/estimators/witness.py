"""The witness function of MMD, the implicit critic of an MMD GAN."""

from __future__ import annotations

from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.pairs.kernel_products import kernel_products, signed_samples


def witness(points: Tensor, real: Tensor, fake: Tensor, kernel: Kernel) -> Tensor:
    r"""Evaluate the witness function of MMD, the implicit critic of an MMD GAN, at given points.

    .. math:: f(t) = E\,k(x, t) - E\,k(y, t)

    for points :math:`t`, such as scores of given samples, real scores :math:`x` and fake scores :math:`y`. Divided by
    :math:`\mathrm{MMD}`, :math:`f` would be the optimal critic of Eq. 1. The gradient penalty of MMD GANs applies to
    :math:`f` without this division.

    Memory grows with the numbers of samples, not with the number of pairs. Under `torch.compile` and in transforms of
    `torch.func`, and for kernels with trained parameters, there is a matrix of all pairs instead. If you need only the
    gradients at the points, :func:`witness_gradient` saves a second pass.

    Args:
        points: points `(p, d)` in any floating-point dtype; `(p,)` and `(p, ...)` are flattened from dim 1.
        real: scores `(m, d)`, likewise.
        fake: scores `(n, d)`, likewise.
        kernel: any kernel. The bounds of an :class:`RBFBKernel` are ignored.

    Returns:
        Values `(p,)` of either sign, float64 for float64 scores and float32 for all others. Differentiable twice with
        respect to all arguments.

    Raises:
        TypeError: if an argument is not a tensor, or `kernel` is not a :class:`Kernel`.
        ValueError: if scores are empty or not floating-point, or differ in dimension, dtype or device.

    Example:
        >>> real, fake = torch.tensor([0.0, 1.0]), torch.tensor([3.0])
        >>> witness(torch.tensor([0.5, 3.0]), real=real, fake=fake, kernel=RBFKernel())
        tensor([ 0.8386, -0.9268])

    References:
        Arbel et al. (2018), Eq. 1 and Appendix C.
    """
    check_kernel(kernel)
    points, real_scores = checks.same_space("points", points, "real", real)
    _, fake_scores = checks.same_space("real", real, "fake", fake)
    samples, weights = signed_samples(real_scores, fake_scores)
    found = kernel_products(points.unsqueeze(0), samples.unsqueeze(0), weights.view(1, -1, 1), kernel)
    return found.view(-1).to(points.dtype)
