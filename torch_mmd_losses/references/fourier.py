"""A reference that keeps the means of random Fourier features."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from torch_mmd_losses.devices import moved
from torch_mmd_losses.kernels import spectral_measure
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.pairs.batch import Batch
from torch_mmd_losses.precision import total_dtype
from torch_mmd_losses.references import deregularised
from torch_mmd_losses.references.batches import Rows
from torch_mmd_losses.references.form import Form
from torch_mmd_losses.references.kernel_values import chunks
from torch_mmd_losses.references.row_sums import mean_of_rows
from torch_mmd_losses.types import Estimator

AT_ONCE = 2**22
"""Features of rows that are computed at once: 32 MB in float64."""


def _mixture_of(kernel: Kernel) -> list[spectral_measure.Component]:
    """Return the components of a kernel, or raise if the spectral measure of a part of it is unknown."""
    summands = kernel._summands()
    for summand in summands:
        if not spectral_measure.is_known(summand):
            raise TypeError(
                "kernel: expected kernels with a known spectral measure for kind='fourier', such as RBFKernel, RBFMix, "
                f"RationalQuadraticMix, their sums and multiples, got {type(summand.kernel).__name__}"
            )
    return [component for summand in summands for component in spectral_measure.components(summand)]


class Waves(Form):
    r"""Frequencies :math:`\omega_f`, and the sums of the waves of the rows, cosines first, and of waves times rows.

    Args:
        kernel: the kernel.
        first: the first rows, around whose mean phases are computed.
        frequencies: number of frequencies.
        generator: source of the frequencies.
    """

    omega: Tensor
    centre: Tensor
    waves: Tensor
    moments: Tensor

    def __init__(self, kernel: Kernel, first: Tensor, *, frequencies: int, generator: torch.Generator | None) -> None:
        super().__init__(kernel, first)
        mixture = _mixture_of(kernel)
        self.peak = sum(component.weight for component in mixture)
        wide = first.to(total_dtype(first.device))
        self.register_buffer(
            "omega", spectral_measure.draw(mixture, frequencies, first.shape[1], first.device, generator)
        )
        self.register_buffer("centre", wide.mean(0))
        self.register_buffer("waves", wide.new_zeros(2 * frequencies))
        self.register_buffer("moments", wide.new_zeros(2 * frequencies, first.shape[1]))

    def _waves_of(self, points: Tensor) -> Tensor:
        """Return cosines and sines `(p, 2 F)` of the phases, in :func:`total_dtype`."""
        wide = points.to(total_dtype(points.device)) - moved(self.centre, points.device)
        phases = wide @ moved(self.omega, points.device).T
        return torch.cat([phases.cos(), phases.sin()], 1)

    def _mean_of_features(self, products: Tensor) -> Tensor:
        return products * (self.peak / len(self.omega))

    def add(self, rows: Rows) -> None:
        """Add the waves of the rows to the sums."""
        total, moments = self.waves.clone(), self.moments.clone()
        for part, own in chunks(rows.scores, rows.weights, self.omega, size=max(1, AT_ONCE // len(self.waves))):
            waves = self._waves_of(part) * own.unsqueeze(1)
            total += waves.sum(0)
            moments += waves.T @ part
        self.waves, self.moments = total, moments

    def examples(self) -> Tensor:
        """Return the mean of the first rows."""
        return self.centre.unsqueeze(0)

    def attraction(self, points: Tensor) -> Tensor:
        """Return the approximate mean kernel values."""
        return self._mean_of_features(self._waves_of(points) @ self._mean_waves(points))

    def _mean_waves(self, like: Tensor) -> Tensor:
        return moved(self.waves / self.weight, like.device)

    def sums(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the approximate means of `k(p, r)` and `k(p, r) r`."""
        waves = self._waves_of(points)
        moments = moved(self.moments / self.weight, points.device)
        return self._mean_of_features(waves @ self._mean_waves(points)), self._mean_of_features(waves @ moments)

    def sum_within(self) -> Tensor:
        """Return the sum over all pairs, with the same frequencies as everything else."""
        return self._mean_of_features(self.waves.square().sum())

    def mmd2(self, fake: Tensor, estimator: Estimator, batch: Batch) -> Tensor:
        """Return MMD^2 from the difference of the mean waves, which is not negative for the biased estimator."""
        of_fake, count = mean_of_rows(self._waves_of(fake), batch)
        biased = self._mean_of_features((of_fake - self._mean_waves(fake)).square().sum())
        if estimator == "biased":
            return biased
        within = self._mean_of_features(of_fake.square().sum())
        rows = self.mean_within("unbiased") - self.mean_within("biased")
        return biased + (within - self.peak) / (count - 1) + moved(rows, fake.device)

    def error_bound(self, fake: Tensor) -> Tensor:
        """Raise: no bound holds for a generator that is trained with the frequencies."""
        raise TypeError(
            "kind: expected 'exact' or 'nystrom' for error_bound, got 'fourier'. Bounds on the error of random "
            "features hold for samples that do not depend on the frequencies, and a generator that is trained with "
            "them does. Compare with mmd2(real, fake, kernel) on some rows instead"
        )

    def regularised_on(self, device: torch.device, lambda_: float) -> deregularised.Factor:
        """Raise: there are no points whose kernel functions span those of the rows."""
        raise TypeError("kind: expected 'exact' or 'nystrom' for drmmd2, got 'fourier'")

    def share(self, rank: int, world: int) -> Waves:
        """Return a copy: each process keeps all frequencies."""
        return copy.deepcopy(self, self._left_out())
