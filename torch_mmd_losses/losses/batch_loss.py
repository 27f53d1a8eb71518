"""The base class of the losses: kernel, estimator, and the choice between the batch of one or of all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from torch_mmd_losses import checks
from torch_mmd_losses.hand_written_gradients import eager_only
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.pairs.batch import LOCAL
from torch_mmd_losses.pairs.distributed import GlobalBatch, refuse
from torch_mmd_losses.pairs.objective import Objective
from torch_mmd_losses.pairs.objective_values import objective_values
from torch_mmd_losses.pairs.terms import mean_values
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.results import Terms
from torch_mmd_losses.types import ESTIMATORS, Bounds, Estimator


class BatchLoss(nn.Module):
    """Base class of losses that are computed on a batch of real and fake scores."""

    def __init__(self, kernel: Kernel, *, estimator: Estimator, global_batch: bool, tile_size: int | None) -> None:
        super().__init__()
        check_kernel(kernel)
        checks.one_of("estimator", estimator, ESTIMATORS)
        self.kernel = kernel
        self.estimator: Estimator = estimator
        self.global_batch = checks.flag("global_batch", global_batch)
        self.tile_size = checks.tile_size(tile_size)

    def _losses(self, real: Tensor, fake: Tensor, *objectives: Objective) -> tuple[Tensor, ...]:
        return self._on_batch(objective_values, real, fake, objectives=objectives, tile_size=self.tile_size)

    @torch.no_grad()
    def _terms(self, real: Tensor, fake: Tensor, bounds: Bounds) -> Terms:
        return Terms(*self._on_batch(mean_values, real, fake, bounds=bounds, tile_size=self.tile_size))

    def _on_batch(self, compute: Callable[..., Any], real: Tensor, fake: Tensor, **options: Any) -> Any:  # noqa: ANN401
        """Return `compute(kernel, real, fake, estimator, batch=...)` for checked scores."""
        if self._is_global():
            return self._on_global_batch(compute, real, fake, **options)
        real, fake = checks.same_space("real", real, "fake", fake)
        checks.sample_sizes(real.shape[0], fake.shape[0], self.estimator)
        with full_precision(real.device):
            return compute(self.kernel, real, fake, self.estimator, batch=LOCAL, **options)

    @eager_only
    def _on_global_batch(self, compute: Callable[..., Any], real: Tensor, fake: Tensor, **options: Any) -> Any:  # noqa: ANN401
        with self._announced_errors(real, fake):
            real, fake = checks.same_space("real", real, "fake", fake)
            checks.with_values({"real": real, "fake": fake}, "which the processes exchange")
        with full_precision(real.device):
            return compute(self.kernel, real, fake, self.estimator, batch=GlobalBatch(real, fake), **options)

    @contextmanager
    def _announced_errors(self, real: object, fake: object) -> Iterator[None]:
        """Tell the other processes about any error in the block, since they would wait for these scores forever."""
        try:
            yield
        except Exception:
            if self._is_global():
                refuse((real, fake))
            raise

    def _is_global(self) -> bool:
        return self.global_batch and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
