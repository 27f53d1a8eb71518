r"""Feature maps :math:`\psi` whose inner products stand for a kernel, and sums over all divisions in linear time.

For the kernel :math:`k(a, b) = \langle \psi(a), \psi(b) \rangle`, the sum over the pairs of real samples is the squared
norm of the sum of their features, without the pairs of a sample with itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.kernels import spectral_measure
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.pairs.reach import is_readable
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.two_sample.division_sums import GramSums

FeatureMap = Callable[[Tensor], Tensor]
"""Maps scores `(n, d)` to features `(n, M)`, each row by itself."""

AT_ONCE = 2048
"""Number of samples whose features are computed at once."""


def nystrom(kernel: Kernel, landmarks: Tensor) -> FeatureMap:
    r"""Return :math:`\psi(x) = K_{ZZ}^{-1/2} k(Z, x)` for landmarks `Z` `(M, d)`.

    Directions in which the kernel values of the landmarks are rounding errors are left out.
    """
    gram = kernel(landmarks, landmarks).double()
    if not bool(gram.isfinite().all()):
        return lambda scores: scores.new_full((len(scores), 1), torch.nan)
    eigenvalues, vectors = torch.linalg.eigh((gram + gram.T) / 2)
    noise = len(landmarks) * torch.finfo(landmarks.dtype).eps * eigenvalues.abs().amax()
    if bool(eigenvalues[0] < -noise):
        raise ValueError(
            "kernel: expected a positive definite kernel for features='nystrom', got one whose values at the landmarks "
            f"have the eigenvalue {float(eigenvalues[0]):g}"
        )
    kept = eigenvalues > noise
    whitening = vectors[:, kept] / eigenvalues[kept].sqrt()
    return lambda scores: kernel(scores, landmarks).double() @ whitening


def fourier(kernel: Kernel, count: int, like: Tensor, generator: torch.Generator | None) -> FeatureMap:
    """Return the cosines and sines of random frequencies, `count` features in all, scaled by the root of `k(0)`."""
    mixture = [part for summand in kernel._summands() for part in spectral_measure.components(summand)]
    # In float64, since phases of scores far from the others would lose digits.
    omega = spectral_measure.draw(mixture, count // 2, like.shape[1], like.device, generator)
    height = (sum(part.weight for part in mixture) / len(omega)) ** 0.5
    centre = like.mean(0, dtype=omega.dtype)  # inner products do not change under translation

    def features(scores: Tensor) -> Tensor:
        phases = (scores.to(omega.dtype) - centre) @ omega.T
        return torch.cat([phases.cos(), phases.sin()], 1).mul_(height)

    return features


def checked(function: FeatureMap) -> FeatureMap:
    """Return the function of a user with a check of its results."""

    def features(scores: Tensor) -> Tensor:
        found = checks.dense("features", function(scores), "features")
        if found.dim() != 2 or len(found) != len(scores):
            raise ValueError(
                f"features: expected features of shape ({len(scores)}, M) for scores {tuple(scores.shape)}, got "
                f"{tuple(found.shape)}"
            )
        if found.device != scores.device:
            raise ValueError(
                f"features: expected features on the device of the scores, {scores.device}, got {found.device}"
            )
        if is_readable(found):
            checks.finite("features", found, "features")
        return found

    return features


def feature_sums(maps: Sequence[FeatureMap], pooled: Tensor, labels: Tensor) -> GramSums:
    """Return the sums for each row of `labels` `(B + 1, N)` and the kernel of each map, in :func:`total_dtype`."""
    sums = [_of_moments(_moments_of_all(features, pooled, labels)) for features in maps]
    return GramSums(*(torch.stack(parts) for parts in zip(*sums, strict=True)))


class _Moments(NamedTuple):
    """Sums over samples with features `(M,)`, whose squared norms are `own`."""

    real: Tensor
    """The features of the real samples of each division, `(B + 1, M)`."""
    real_own: Tensor
    """`own` of the real samples of each division, `(B + 1,)`."""
    all: Tensor
    """The features, `(M,)`."""
    products: Tensor
    """The products of two features, `(M, M)`."""
    weighted: Tensor
    """`own` times the features, `(M,)`."""
    own: Tensor
    """`own`, a scalar."""
    own_squares: Tensor
    """The squares of `own`, a scalar."""


def _moments(features: Tensor, masks: Tensor) -> _Moments:
    dtype = total_dtype(features.device)
    values, chosen = features.to(dtype), masks.to(dtype)
    own = values.square().sum(1)
    return _Moments(
        chosen @ values, chosen @ own, values.sum(0), values.T @ values, own @ values, own.sum(), own.dot(own)
    )


def _moments_of_all(features: FeatureMap, pooled: Tensor, labels: Tensor) -> _Moments:
    parts = zip(pooled.split(AT_ONCE), labels.split(AT_ONCE, 1), strict=True)
    remaining = (_moments(features(scores), masks) for scores, masks in parts)
    total = next(remaining)
    for part in remaining:
        for whole, addend in zip(total, part, strict=True):
            whole.add_(addend)
    return total


def _of_moments(moments: _Moments) -> GramSums:
    """Return the sums over all pairs of two samples, from which the pairs of a sample with itself are subtracted."""
    real, real_own, every, products, weighted, own, own_squares = moments
    return GramSums(
        real_pairs=real.square().sum(1) - real_own,
        pairs_with_real=real @ every - real_own,
        all_pairs=every.dot(every) - own,
        row_squares=every @ products @ every - 2 * weighted.dot(every) + own_squares,
        squares=products.square().sum() - own_squares,
    )
