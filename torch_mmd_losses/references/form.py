"""The base class of the three forms in which a reference keeps its samples."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses.devices import moved
from torch_mmd_losses.hand_written_gradients import eager_only, in_function_transform, kept_tensors
from torch_mmd_losses.kernels.base import Kernel
from torch_mmd_losses.kernels.hyperparameters import LoadedAsAWhole, is_less_precise
from torch_mmd_losses.pairs.batch import Batch
from torch_mmd_losses.pairs.objective import Objective, Weights
from torch_mmd_losses.pairs.objective_values import objective_values
from torch_mmd_losses.precision import full_precision, total_dtype
from torch_mmd_losses.references import deregularised
from torch_mmd_losses.references.batches import Rows, ones_like_rows
from torch_mmd_losses.references.kernel_values import values_within
from torch_mmd_losses.types import Estimator

WITHIN_FAKE = Objective(Weights(real=0.0, cross=0.0, fake=1.0), "none")
"""The mean kernel value of fake pairs."""


CANCELLED = 1e-12
"""Absolute value of the sum of the weights, relative to the sum of absolute values, up to which it counts as zero."""


ROWS = ("like", "rows", "landmarks", "chosen")
"""Names of the buffers in the dtype in which rows were given. The others are sums over rows, and frequencies."""


class Form(LoadedAsAWhole, ABC):
    """Sums over the rows of a reference, in float64, from which all its results follow.

    Weights are stored as given, and results are divided by their sum, so that batches can be added.

    Attributes:
        like: an empty tensor `(0, d)` in the dtype of the rows.
        weight: sum of the weights.
        sizes: sum of their absolute values.
        squares: sum of their squares.
        diagonal: sum of `w_i^2 k(r_i, r_i)`.
        within: sum of `w_i w_j k(r_i, r_j)` over all pairs; NaN until it is first needed.
        divided: whether this is the part of one of several processes.
        has_pairs: whether pairs of different rows have a sum of weights above zero.
    """

    like: Tensor
    weight: Tensor
    sizes: Tensor
    squares: Tensor
    diagonal: Tensor
    within: Tensor

    def __init__(self, kernel: Kernel, like: Tensor) -> None:
        super().__init__()
        self.kernel = kernel
        self.register_buffer("like", like[:0].clone())
        zero = torch.zeros((), dtype=total_dtype(like.device), device=like.device)
        for name in ("weight", "sizes", "squares", "diagonal"):
            self.register_buffer(name, zero.clone())
        self.register_buffer("within", zero.clone().fill_(math.nan))
        self.divided = False
        self._regularised: deregularised.Factor | None = None
        self.has_pairs = self._is_ready = self._knows_within = False

    # Methods that each form defines

    @abstractmethod
    def add(self, rows: Rows) -> None:
        """Add rows to the sums of the form. The sums must not change before all additions are computed."""

    @abstractmethod
    def attraction(self, points: Tensor) -> Tensor:
        """Return the mean kernel values `(p,)` of points with the rows, in :func:`total_dtype`."""

    @abstractmethod
    def sums(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return `attraction` and the mean `(p, d)` of `k(p, r) r` over the rows."""

    @abstractmethod
    def sum_within(self) -> Tensor:
        """Return the sum of `w_i w_j k(r_i, r_j)` over all pairs."""

    @abstractmethod
    def error_bound(self, fake: Tensor) -> Tensor:
        """Return a bound on the error of the mean of `attraction` over the fake samples."""

    @abstractmethod
    def regularised_on(self, device: torch.device, lambda_: float) -> deregularised.Factor:
        """Return the factor for the deregularised MMD, on a device, or raise."""

    @abstractmethod
    def examples(self) -> Tensor:
        """Return some rows, or similar rows, to examine the kernel."""

    @abstractmethod
    def share(self, rank: int, world: int) -> Form:
        """Return the part of one process, whose means add up to those of the whole over all processes."""

    # Methods that all forms share

    def include(self, rows: Rows) -> None:
        """Add rows, with the sums that all forms keep. If this fails, as a user's kernel may, nothing changes."""
        weights = ones_like_rows(rows.scores) if rows.weights is None else rows.weights
        there = self.weight.device
        weight, sizes = self.weight + weights.sum().to(there), self.sizes + weights.abs().sum().to(there)
        if rows.weights is not None and bool(weight.abs() <= CANCELLED * sizes):
            raise ValueError(
                f"weights: expected weights whose sum is not zero, got {float(weight):g} as the sum of weights whose "
                f"absolute values add up to {float(sizes):g}"
            )
        squares = self.squares + weights.square().sum().to(there)
        diagonal = self.diagonal + (weights.square() @ values_within(self.kernel, rows.scores)).to(there)
        self.add(rows)
        self.weight, self.sizes, self.squares, self.diagonal = weight, sizes, squares, diagonal
        self.within.fill_(math.nan)
        self._regularised = None
        self._is_ready = self._knows_within = False

    def ready(self) -> None:
        """Compute the numbers that follow from the sums, unless they are up to date."""
        if not self._is_ready:
            self._prepare_if_needed()

    @eager_only
    @kept_tensors()
    def _prepare_if_needed(self) -> None:
        self.has_pairs = bool(self.weight**2 > self.squares)
        self.prepare()
        self._is_ready = True

    def prepare(self) -> None:
        """Compute the numbers that follow from the sums."""

    def mean_within(self, estimator: Estimator) -> Tensor:
        """Return the mean kernel value of two rows, computed when it is first needed."""
        if not self._knows_within:
            self._find_within()
        if estimator == "biased":
            return self.within / self.weight**2
        return (self.within - self.diagonal) / (self.weight**2 - self.squares)

    @eager_only
    @kept_tensors()
    def _find_within(self) -> None:
        if in_function_transform():
            raise RuntimeError(
                "self_term: expected a call outside of function transforms such as torch.func.grad before the first "
                "one inside, got none; read reference.self_term once"
            )
        self.ready()
        if bool(self.within.isnan()):
            with full_precision(self.within.device):
                self.within.copy_(self.sum_within())
        self._knows_within = True

    def regularised(self, lambda_: float, device: torch.device) -> deregularised.Factor:
        """Return the factor for the deregularised MMD, computed again if the number or the device has changed."""
        kept = self._regularised
        if kept is None or kept.lambda_ != lambda_ or kept.basis.device != device:
            kept = self._find_regularised(lambda_, device)
        return kept

    @eager_only
    @kept_tensors()
    def _find_regularised(self, lambda_: float, device: torch.device) -> deregularised.Factor:
        if in_function_transform():
            raise RuntimeError(
                "lambda_: expected a call outside of function transforms such as torch.func.grad before the first one "
                f"inside with the same number, got none with {lambda_:g}"
            )
        if bool((self.squares > 0) & (self.weight.abs() < self.sizes * (1 - CANCELLED))):
            raise ValueError(
                "weights: expected weights >= 0 for drmmd2, whose covariance needs them, got weights of both signs"
            )
        self._regularised = None  # frees memory for the next one
        with full_precision(device):
            self._regularised = self.regularised_on(device, lambda_)
        return self._regularised

    def repulsion(self, fake: Tensor, estimator: Estimator, batch: Batch) -> Tensor:
        """Return the mean kernel value of two fake samples."""
        (value,) = objective_values(self.kernel, stand_in(fake), fake, estimator, objectives=[WITHIN_FAKE], batch=batch)
        return value

    def mmd2(self, fake: Tensor, estimator: Estimator, batch: Batch) -> Tensor:
        """Return MMD^2, in :func:`total_dtype`."""
        repulsion = self.repulsion(fake, estimator, batch)
        attraction = batch.mean(self.attraction(fake), 1)
        return moved(self.mean_within(estimator), fake.device) + repulsion - 2 * attraction

    def _left_out(self) -> dict[int, None]:
        """Return the memo of `copy.deepcopy` that leaves out the factor, which shards do not need."""
        return {id(self._regularised): None}

    # Buffers keep their dtype, and take the sizes of a state that is loaded.

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Form:
        for module in self.children() if recurse else ():
            module._apply(fn)
        for name, kept in self.named_buffers(recurse=False):
            device = fn(torch.empty(0, device=kept.device)).device
            dtype = total_dtype(device) if kept.dtype == torch.float64 else kept.dtype
            if dtype == kept.dtype and fn(kept.new_empty(0)).dtype == dtype:
                self._buffers[name] = fn(kept)
            else:
                self._buffers[name] = kept.to(device, dtype)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:  # noqa: ANN401
        loaded = {
            name: (kept, state_dict[prefix + name])
            for name, kept in self.named_buffers(recurse=False)
            if isinstance(state_dict.get(prefix + name), Tensor)
        }
        for name, (kept, found) in loaded.items():  # before anything changes
            if name not in ROWS and is_less_precise(found, kept):
                raise ValueError(
                    f"state of MMDReference: expected sums in {kept.dtype}, got {name!r} in {found.dtype}, which "
                    "rounds them; only rows may be in half precision"
                )
        for name, (kept, found) in loaded.items():
            dtype = found.dtype if name in ROWS else kept.dtype
            state_dict[prefix + name] = found.to(dtype)
            with kept_tensors():
                self._buffers[name] = torch.empty(found.shape, dtype=dtype, device=kept.device)
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        self._regularised = None
        self._is_ready = self._knows_within = False


def stand_in(fake: Tensor) -> Tensor:
    """Return two rows in place of real scores, which do not enter the mean over fake pairs."""
    return fake[:1].detach().expand(2, -1)
