"""The base class of the losses: kernel, estimator, and the choice between the batch of one or of all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from torch_mmd_losses import checks
from torch_mmd_losses.hand_written_gradients import eager_only, in_function_transform
from torch_mmd_losses.kernels.base import Kernel, check_kernel
from torch_mmd_losses.kernels.hyperparameters import LoadedAsAWhole
from torch_mmd_losses.losses import first_calls
from torch_mmd_losses.losses.remembered import Remembered
from torch_mmd_losses.pairs.batch import LOCAL
from torch_mmd_losses.pairs.distributed import GlobalBatch, refuse
from torch_mmd_losses.pairs.objective import GENERATOR, Objective
from torch_mmd_losses.pairs.objective_values import objective_values
from torch_mmd_losses.pairs.terms import mean_values
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.results import Terms
from torch_mmd_losses.types import ESTIMATORS, Bounds, Estimator


class BatchLoss(LoadedAsAWhole):
    """Base class of losses that are computed on a batch of real and fake scores.

    Options are checked whenever they are assigned, in the constructor and later.
    """

    def __init__(
        self, kernel: Kernel, *, estimator: Estimator, global_batch: bool, tile_size: int | None, remember_real: bool
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.estimator = estimator
        self.global_batch = global_batch
        self.tile_size = tile_size
        self.remember_real = remember_real
        self._remembered = Remembered()
        self._first_calls = first_calls.FirstCalls()

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, self._checked(name, value))

    def _checked(self, name: str, value: Any) -> Any:  # noqa: ANN401
        """Return the value of an option in its own type, or raise if it is wrong."""
        if name == "kernel":
            check_kernel(value)
        elif name == "estimator":
            checks.one_of("estimator", value, ESTIMATORS)
        elif name == "tile_size":
            return checks.tile_size(value)
        elif name in ("global_batch", "remember_real"):
            return checks.flag(name, value)
        return value

    def _refuse_positional(self, scores: tuple[object, ...], keywords: str) -> None:
        """Raise if `forward` got scores by position, as in `criterion(output, label)`."""
        if scores:
            names, count = keywords.replace("=...", ""), len(scores)
            raise TypeError(
                f"{names}: expected scores by keyword, loss({keywords}), which is the generator's loss, got {count} "
                f"positional argument{'s' if count > 1 else ''}: {', '.join(map(checks.described, scores))}. Write "
                f"loss.discriminator({keywords}) for the discriminator and loss.generator({keywords}) for the "
                "generator; there are no labels"
            )

    def _losses(self, real: Tensor, fake: Tensor, *objectives: Objective) -> tuple[Tensor, ...]:
        losses: tuple[Tensor, ...] = self._on_batch(
            objective_values, real, fake, objectives=objectives, tile_size=self.tile_size
        )
        if not torch.compiler.is_compiling() and (self._first_calls.losses or self._first_calls.discriminator):
            self._examine(real, fake, of_discriminator=objectives != (GENERATOR,))
        return losses

    @torch.no_grad()
    def _terms(self, real: Tensor, fake: Tensor, bounds: Bounds) -> Terms:
        terms = Terms(*self._on_batch(mean_values, real, fake, bounds=bounds, tile_size=self.tile_size))
        if not torch.compiler.is_compiling() and self._first_calls.terms:
            self._first_calls.terms -= 1
            self._warn_of_scores(real)
            real, fake = checks.same_space("real", real, "fake", fake)
            first_calls.warn_of_saturation(type(self).__name__, self.kernel, real, fake, terms.saturated)
        return terms

    def _examine(self, real: Tensor, fake: Tensor, *, of_discriminator: bool) -> None:
        """Warn of mistakes in the first calls. Only the scores of this process are examined."""
        name, calls = type(self).__name__, self._first_calls
        if of_discriminator and calls.discriminator and torch.is_grad_enabled() and not in_function_transform():
            calls.discriminator -= 1
            if not first_calls.is_discriminator(self.kernel):
                first_calls.warn_of_constant_scores(name, calls, real, fake)
        if not calls.losses:
            return
        calls.losses -= 1
        self._warn_of_scores(real)
        if of_discriminator:  # a generator without a discriminator may end in a sigmoid or a softmax
            first_calls.warn_of_probabilities(name, real)
        real, fake = checks.same_space("real", real, "fake", fake)
        first_calls.warn_of_dead_loss(name, self.kernel, real, fake)

    def _warn_of_scores(self, real: Tensor) -> None:
        """Warn of scores of a shape that is almost surely a mistake for this loss."""

    def _remember(self, real: Tensor, scale: Tensor | None = None) -> None:
        """Remember the real scores of a discriminator's loss, and the scale, for the generator's loss."""
        if self.remember_real and torch.is_grad_enabled():
            if in_function_transform():
                raise RuntimeError(
                    "remember_real: expected a call outside of function transforms such as torch.func.grad, got one "
                    "inside, whose scores do not outlive it"
                )
            self._remembered.real = real.detach()
            self._remembered.scale = None if scale is None else scale.detach()
            self._remembered.note_network(real)

    def _recalled(self, fake: Tensor | None) -> Tensor:
        """Return the remembered real scores, or raise. Warn if they are not those of the fake scores' discriminator."""
        if not self.remember_real:
            name = type(self).__name__
            raise TypeError(
                f"real: expected a tensor of scores, got NoneType; {name}(remember_real=True) takes the real scores "
                "of the last discriminator's loss"
            )
        self._check_fake(fake)
        if self._remembered.real is None:
            raise RuntimeError(
                "real: expected real scores, or an earlier call of discriminator or both with gradients enabled, got "
                "neither (copies and pickles remember nothing)"
            )
        if isinstance(fake, Tensor) and not torch.compiler.is_compiling():
            first_calls.warn_of_another_discriminator(type(self).__name__, self._remembered.networks, fake)
        return self._remembered.real

    def _check_fake(self, fake: Tensor | None) -> None:
        if fake is None:
            raise TypeError("fake: expected a tensor of scores, got NoneType; fake scores by keyword are fake=...")

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
