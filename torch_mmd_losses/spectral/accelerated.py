"""Spectral normalisation with a faster iteration, which usually runs once for each change of the weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses import autograd
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.spectral import normalisation, singular_vectors
from torch_mmd_losses.spectral.parametrization import SpectralNorm, at_least_float32
from torch_mmd_losses.spectral.schedule import IterationSchedule

CHEAP_LAYER_SIZE = 2**22
"""Multiplications in `A v` at stride 1, up to which an iteration costs little compared with those of large layers.

The first and the last layer of a discriminator are of this kind, and the first is slow to converge.
"""

CHEAP_LAYER_ITERATIONS = 2
"""Iterations of a cheap layer for each iteration of a larger layer."""


class AcceleratedSpectralNorm(SpectralNorm):
    """Spectral normalisation by locally optimal iteration, in the forward passes that an `IterationSchedule` selects.

    The state has two vectors in addition to `v`. The left singular vector `u` is the direction of `A v` for the weight
    at which `v` was found. The vector `direction` is the direction of the last step.

    A forward pass in training mode uses `sigma = |<u, A v>|`. It is computed as `|<G, W>|` from the gradient `G` of
    `<u, A v>` with respect to the weight `W`. Directly after an iteration, this sigma and its derivative are those of
    `|A v|`. For any other weight it is at most `|A v|`, hence still a lower bound. Second derivatives are always those
    of `|A v|`.
    """

    u: Tensor
    direction: Tensor
    _training_read_pending: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.register_buffer("u", torch.empty(0))
        self.register_buffer("direction", torch.empty(0))
        self._reset()

    def normalise(self, weight: Tensor) -> Tensor:
        """Return `scale * weight / sigma`, with `sigma = |<G, W>|` for the first read of a training forward pass."""
        if not (self._training_read_pending and autograd.reverse_mode_only(weight)):
            return super().normalise(weight)
        self._training_read_pending = False
        sigma = partial(singular_vectors.norm_along, self.operator)
        with full_precision(weight.device):
            return normalisation.normalise_by_gradient(
                weight, self.precise_scale(), self._sigma_gradient(weight), self.eps, sigma
            )

    def initialise(self, weight: Tensor, shape: Sequence[int]) -> None:
        """Compute `v` and `u` for a new weight, and restart the schedule."""
        super().initialise(weight, shape)
        with torch.no_grad(), torch.inference_mode(False), full_precision(weight.device):
            self.u = singular_vectors.left_singular_vector(self.operator, at_least_float32(weight.detach()), self.v)
            self.direction = torch.zeros_like(self.v)
        self._reset()
        self._schedule.record_weight(weight)

    def before_forward(self, weight: Tensor, x: Tensor, training: bool) -> None:
        """Compute the vectors in the first forward pass, and iterate in later passes in training mode if it is due."""
        super().before_forward(weight, x, training)
        if training and not torch.compiler.is_compiling():
            self._training_read_pending = True

    def iterate(self, weight: Tensor) -> None:
        """Update the vectors in place by the iterations of one forward pass, unless the schedule skips the pass."""
        if not self._schedule.must_iterate(weight):
            return
        precise = at_least_float32(weight.detach())
        v, direction = self.v.to(precise.dtype), self.direction.to(precise.dtype)
        u, v, direction = singular_vectors.locally_optimal_iteration(
            self.operator, precise, v, direction, self._iterations(weight)
        )
        if not self.u.numel():  # after loading a checkpoint without u
            self.u = torch.empty_like(u)
        self.u.copy_(u)
        self.v.copy_(v)
        self.direction.copy_(direction)

    def get_extra_state(self) -> Tensor:
        """Return the state of the schedule, which a resumed run needs for the same results as an uninterrupted one."""
        return torch.tensor(self._schedule.forwards_to_skip(), device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the schedule from its stored state."""
        self._schedule = IterationSchedule(int(state))

    def _iterations(self, weight: Tensor) -> int:
        pixels = math.prod(self.v.shape[-self.spatial_dims :]) if self.spatial_dims else 1  # a matrix is applied once
        return self.n_power_iterations * (CHEAP_LAYER_ITERATIONS if weight.numel() * pixels <= CHEAP_LAYER_SIZE else 1)

    def _reset(self) -> None:
        self._schedule = IterationSchedule()
        self._training_read_pending = False
        self._cached_gradient: tuple[tuple[int, int], normalisation.SigmaGradient] | None = None

    def _sigma_gradient(self, weight: Tensor) -> normalisation.SigmaGradient:
        """Return the gradient of `<u, A v>` for unit vectors `u` and `v`, cached until they change."""
        versions = self.u._version, self.v._version
        if self._cached_gradient is None or self._cached_gradient[0] != versions:
            with torch.no_grad(), torch.inference_mode(False):
                u, v = self.u.to(weight.dtype), self.v.to(weight.dtype, copy=True)
                # The vectors in an average of several states are shorter than one.
                lengths = torch.linalg.vector_norm(u) * torch.linalg.vector_norm(v)
                gradient = self.operator.weight_gradient(u / lengths.clamp_min(self.eps), v, weight.detach())
                self._cached_gradient = versions, normalisation.SigmaGradient(gradient, v)
        return self._cached_gradient[1]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AcceleratedSpectralNorm:
        super()._apply(fn, recurse)
        self._cached_gradient = None
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        self._reset()
        if prefix + "v" in state_dict:  # a checkpoint of method="pico" has no more than v
            v = state_dict[prefix + "v"]
            for name, vector in (("u", v.new_empty(0)), ("direction", torch.zeros_like(v))):
                state_dict.setdefault(prefix + name, vector)
            state_dict.setdefault(prefix + "_extra_state", torch.tensor(0, device="cpu"))
        super()._load_from_state_dict(state_dict, prefix, *args)
