"""Linear-time MMD^2 of very large samples by random Fourier features, with a bound on the error."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import checks, hand_written_gradients, usage_warnings
from torch_mmd_losses.distances import centred
from torch_mmd_losses.kernels import spectral_measure
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.kernels.inner_product import LinearKernel
from torch_mmd_losses.pairs.blind_kernels import EXAMINED, warn_of_one_value
from torch_mmd_losses.pairs.linear_products import without_linear
from torch_mmd_losses.pairs.objective import GENERATOR, MMD2, groups_of_pairs
from torch_mmd_losses.pairs.objective_values import objective_values
from torch_mmd_losses.precision import full_precision, total_dtype
from torch_mmd_losses.types import Estimator

AT_ONCE = 2**18
"""Features of one chunk of frequencies: 1 MB in float32, which stays in the second-level cache of a core."""

FAR = 50.0
"""Largest distance of a coordinate from the centre, in units of the smallest length scale of the kernel, up to which
phases are computed in float32."""

LEAST = 8
"""Minimal number of frequencies in a chunk: matrix products with fewer columns are slow."""


def mmd2_fourier(
    real: Tensor,
    fake: Tensor,
    kernel: Kernel,
    *,
    frequencies: int,
    generator: torch.Generator | None = None,
    estimator: Estimator = "unbiased",
) -> Tensor:
    r"""Approximate :func:`mmd2` of very large samples by random Fourier features.

    A positive definite kernel of :math:`a - b` is :math:`k(0)` times the characteristic function of random frequencies
    :math:`\omega`, so that :math:`k(a, b) = k(0)\, E \cos(\langle\omega, a - b\rangle)`. This function replaces the
    expectation by the mean over :math:`F` independent frequencies. The summands of a kernel share the frequencies in
    proportion to their :math:`k(0)`. For the biased estimator the result is

    .. math::

        \frac{k(0)}{F} \sum_{f=1}^{F} \lvert \varphi_x(\omega_f) - \varphi_y(\omega_f) \rvert^2, \qquad
        \varphi_x(\omega) = \frac{1}{m} \sum_{i=1}^{m} e^{\mathrm{i} \langle \omega, x_i \rangle}.

    The other estimators leave out the same pairs as in :func:`mmd2`. Given the scores, the result is an unbiased
    estimate of the value of :func:`mmd2`, and its gradient is an unbiased estimate of the gradient of :func:`mmd2`.
    Hoeffding's inequality bounds the error:

    .. math::

        P\bigl(\lvert error \rvert \ge \varepsilon\bigr)
            \le 2 \exp\Bigl(-\frac{2 F \varepsilon^2}{k(0)^2 r^2}\Bigr), \qquad
        r = 4 + \begin{cases}
            0 & \text{biased} \\
            \frac{1}{m - 1} + \frac{1}{n - 1} & \text{unbiased} \\
            \frac{4}{n - 1} & \text{u\_statistic}
        \end{cases}

    For the biased estimator the variance given the scores is also at most :math:`4 k(0) \mathrm{MMD}_b^2 / F`, which is
    far less if the distributions are close. The :doc:`theory page </theory>` derives both bounds.

    Each call draws new frequencies. To repeat them, pass a generator with the same seed. `torch.compile` does not
    support generators, so leave `generator` None in compiled code. With PyTorch 2.6, `torch.compile` does not support
    kernels with random length scales (rational quadratic, inverse multiquadric, Laplace, Matern) in this function.

    The frequencies of a Laplace kernel, and of a Matern kernel of order 1/2, have no mean. The value is estimated as
    for other kernels, but the gradient is not: its error does not shrink with more frequencies. For order 3/2 the
    second derivatives are affected in the same way.

    Time is :math:`O((m + n) F d)`. Memory, gradients included, is :math:`O((m + n + F) d)`. For second derivatives,
    under `torch.compile` and in function transforms, it is :math:`O((m + n) F)`.

    Args:
        real: scores `(m, d)` in any floating-point dtype; `(m,)` and `(m, ...)` are flattened from dim 1.
        fake: scores `(n, d)`, likewise.
        kernel: :class:`RBFKernel`, :class:`RBFMix`, :class:`RBFBKernel` (its bounds are ignored),
            :class:`RationalQuadraticKernel`, :class:`RationalQuadraticMix`, :class:`InverseMultiquadricKernel`,
            :class:`LaplaceKernel` without a floor, :class:`MaternKernel`, or sums and multiples of them. A
            :class:`LinearKernel` in such a sum is computed exactly.
        frequencies: number of frequencies, :math:`F`. Each gives two features, a cosine and a sine.
        generator: source of the random numbers. None is PyTorch's default generator for the device of the scores; a
            generator on the CPU gives the same numbers on every device.
        estimator: the pairs to average over, see :func:`mmd2`.

    Returns:
        A scalar, float64 for float64 scores and float32 for all others. Differentiable twice with respect to both
        arguments. May be negative, but not with `estimator="biased"`.

    Raises:
        TypeError: if scores are not tensors, `kernel` is not a :class:`Kernel` or its spectral measure is unknown,
            `frequencies` is not an integer or `generator` is not a :class:`torch.Generator`.
        ValueError: if `frequencies` is below 1, or for the reasons of :func:`mmd2`.

    Warns:
        UsageWarning: if all kernel values of the first 256 real and fake samples are zero, or all are :math:`k(a, a)`,
            as in :func:`mmd2`. Only the first call from each place in the code is examined.

    Example:
        >>> real, fake = torch.randn(10_000, 2), torch.randn(10_000, 2) + 0.5
        >>> kernel = RationalQuadraticKernel(alpha=1.0)
        >>> generator = torch.Generator().manual_seed(0)
        >>> value = mmd2_fourier(real, fake, kernel, frequencies=1000, generator=generator)
        >>> bool((value - mmd2(real, fake, kernel)).abs() < 0.05)
        True

    References:
        Rahimi and Recht (2007); Hoeffding (1963), Theorem 2.
    """
    check_kernel(kernel)
    count = checks.whole_number("frequencies", frequencies, least=1)
    checks.random_generator(generator)
    real, fake = checks.same_space("real", real, "fake", fake)
    checks.sample_sizes(real.shape[0], fake.shape[0], estimator)
    others, factor = without_linear(kernel._summands())
    for summand in others:
        if spectral_measure.is_trained(summand):
            raise TypeError(
                f"kernel: expected fixed hyper-parameters, from which frequencies are drawn, got {summand.kernel!r}; "
                "train a kernel with mmd2 or mmd2_blocks"
            )
        if not spectral_measure.is_known(summand):
            raise TypeError(
                "kernel: expected an RBFKernel, RBFMix, RBFBKernel, RationalQuadraticKernel, RationalQuadraticMix, "
                "InverseMultiquadricKernel, LaplaceKernel without a floor, MaternKernel or LinearKernel, or sums and "
                f"multiples of them, got {type(summand.kernel).__name__}, whose spectral measure is unknown"
            )
    values = []
    if factor is not None:
        with full_precision(real.device):
            (value,) = objective_values(LinearKernel(), real, fake, estimator, objectives=[GENERATOR])
        values.append(factor * value)
    if others:
        mixture = [component for summand in others for component in spectral_measure.components(summand)]
        smallest = min(component.sigma for component in mixture)
        with full_precision(real.device):
            # MMD^2 does not change under translation, and around a common centre phases are small.
            x, y = (scores.unsqueeze(0) for scores in _around_centre(real, fake, smallest))
            omega = spectral_measure.draw(mixture, count, real.shape[1], real.device, generator).to(x.dtype)
            peak = sum(component.weight for component in mixture)
            differentiable = partial(_by_autograd, omega, estimator)
            if hand_written_gradients.reverse_mode_only(real, fake):
                mean = hand_written_gradients.batched_values(
                    x, y, partial(_in_pieces, omega, estimator), differentiable
                )
            else:
                mean = differentiable(x, y)
            values.append((peak * mean[0]).to(real.dtype))
    if usage_warnings.is_first_call_from_place():
        warn_of_one_value("mmd2_fourier", [kernel], real[:EXAMINED], fake[:EXAMINED])
    return torch.stack(values).sum()


def _around_centre(real: Tensor, fake: Tensor, length: float) -> tuple[Tensor, Tensor]:
    """Return scores around their centre; on a CPU in float64 if some are so far away that phases would lose digits."""
    x, y = centred(real, fake)
    if x.dtype == torch.float32 and x.is_cpu and hand_written_gradients.reverse_mode_only(real, fake):
        with torch.no_grad():
            largest = max(float(scores.abs().amax()) for scores in (x, y))
        if not largest <= FAR * length:
            return centred(real.double(), fake.double())
    return x, y


class _Weights(NamedTuple):
    """The weights of products of two waves in MMD^2, by the group of the pair.

    With `aligned`, cross products of equal index are left out. If the pairs of a sample with itself are left out,
    `constant` is subtracted for them, since their squared cosine and sine add up to one.
    """

    real: float
    cross: float
    fake: float
    aligned: bool
    constant: float


def _weights(m: int, n: int, estimator: Estimator) -> _Weights:
    groups = groups_of_pairs(m, n, estimator)
    real, cross, fake = (weight / group.pairs for weight, group in zip(MMD2, groups, strict=True))
    return _Weights(real, cross, fake, groups[1].distinct, m * real + n * fake if groups[0].distinct else 0.0)


class _Waves:
    """Cosines and sines `(F, m)` of the phases of one sample, and their sums `(F,)` in :func:`total_dtype`."""

    def __init__(self, omega: Tensor, scores: Tensor) -> None:
        phases = omega @ scores.T
        self.cos, self.sin = phases.cos(), phases.sin()
        dtype = total_dtype(scores.device)
        self.cos_sum, self.sin_sum = self.cos.sum(1, dtype=dtype), self.sin.sum(1, dtype=dtype)


def _total(x: _Waves, y: _Waves, weights: _Weights) -> Tensor:
    """Return the sum of MMD^2 over frequencies, each with the kernel `cos`, in :func:`total_dtype`."""
    real, cross, fake, aligned, constant = weights
    within_x, within_y = x.cos_sum.square() + x.sin_sum.square(), y.cos_sum.square() + y.sin_sum.square()
    between = x.cos_sum * y.cos_sum + x.sin_sum * y.sin_sum
    if aligned:
        between = between - (x.cos * y.cos + x.sin * y.sin).sum(1, dtype=between.dtype)
    return (real * within_x + cross * between + fake * within_y - constant).sum()


def _by_autograd(omega: Tensor, estimator: Estimator, real: Tensor, fake: Tensor) -> Tensor:
    x, y = _Waves(omega, real[0]), _Waves(omega, fake[0])
    return _total(x, y, _weights(real.shape[1], fake.shape[1], estimator)).unsqueeze(0) / omega.shape[0]


def _in_pieces(omega: Tensor, estimator: Estimator, real: Tensor, fake: Tensor, gradients: bool) -> tuple[Tensor, ...]:
    """Return MMD^2 `(1,)` and, if `gradients`, its gradients, chunk by chunk of frequencies."""
    m, n, count = real.shape[1], fake.shape[1], omega.shape[0]
    weights = _weights(m, n, estimator)
    value = torch.zeros(1, dtype=total_dtype(real.device), device=real.device)
    towards = tuple(torch.zeros_like(scores) for scores in (real, fake)) if gradients else ()
    for piece in omega.split(max(LEAST, AT_ONCE // (m + n))):
        x, y = _Waves(piece, real[0]), _Waves(piece, fake[0])
        value += _total(x, y, weights) / count
        if gradients:
            for gradient, pull in zip(towards, _pulls(x, y, weights), strict=True):
                gradient[0].addmm_(pull.T, piece, alpha=1 / count)
    return value, *towards


def _pulls(x: _Waves, y: _Waves, weights: _Weights) -> tuple[Tensor, Tensor]:
    """Return the derivatives `(F, m)` and `(F, n)` of :func:`_total` with respect to the phases."""
    to_x = _pull(x, y, weights.real, weights.cross)
    to_y = _pull(y, x, weights.fake, weights.cross)
    if weights.aligned:
        turn = (x.sin * y.cos - x.cos * y.sin).mul_(weights.cross)
        to_x += turn
        to_y -= turn
    return to_x, to_y


def _pull(waves: _Waves, others: _Waves, within: float, cross: float) -> Tensor:
    cos = (2 * within * waves.cos_sum + cross * others.cos_sum).to(waves.cos.dtype).unsqueeze(1)
    sin = (2 * within * waves.sin_sum + cross * others.sin_sum).to(waves.cos.dtype).unsqueeze(1)
    return (waves.cos * sin).addcmul_(waves.sin, cos, value=-1)
