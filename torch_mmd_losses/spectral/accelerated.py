"""Spectral normalisation by locally optimal iteration, as a rule once for each change of the weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torch_mmd_losses import autograd, checks
from torch_mmd_losses.spectral import normalisation, singular_vectors
from torch_mmd_losses.spectral.parametrization import SpectralNorm, at_least_float32
from torch_mmd_losses.spectral.schedule import IterationSchedule

CHEAP_LAYER_SIZE = 2**22
"""Multiplications in `A v`, at stride 1, up to which an iteration costs little beside those of large layers.

The first and the last layer of a discriminator are of this kind, and the first is slow to converge.
"""

CHEAP_LAYER_ITERATIONS = 2
"""Iterations of such layers for one of others."""


class AcceleratedSpectralNorm(SpectralNorm):
    """The same norm, found in fewer iterations that are needed less often.

    The state has two more vectors: `u`, the direction of `A v` for the weight at which `v` was found, and `direction`,
    that of the last step. A forward in training takes `sigma = |<u, A v>|`, from its gradient `G` in the weight as
    `|<G, W>|`. That is `|A v|` after an iteration, its derivative included; for any other weight it is not more, so
    still a lower bound. Second derivatives are those of `|A v|`.
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
        """Return `scale * weight / sigma`: by the gradient, if this is what a forward in training reads."""
        if not (self._training_read_pending and autograd.plain_autograd(weight)):
            return super().normalise(weight)
        self._training_read_pending = False
        sigma = partial(singular_vectors.norm_along, self.operator)
        with checks.full_precision(weight.device):
            return normalisation.normalise_by_gradient(
                weight, self.precise_scale(), self._sigma_gradient(weight), self.eps, sigma
            )

    def initialise(self, weight: Tensor, shape: Sequence[int]) -> None:
        """Set the vectors for a weight of which nothing is known yet."""
        super().initialise(weight, shape)
        with torch.no_grad(), torch.inference_mode(False), checks.full_precision(weight.device):
            self.u = singular_vectors.left_singular_vector(self.operator, at_least_float32(weight.detach()), self.v)
            self.direction = torch.zeros_like(self.v)
        self._reset()
        self._schedule.record_weight(weight)

    def before_forward(self, weight: Tensor, x: Tensor, training: bool) -> None:
        """Move the vectors, if that is due in this forward, or make them if it is the first."""
        super().before_forward(weight, x, training)
        if training and not torch.compiler.is_compiling():
            self._training_read_pending = True

    def iterate(self, weight: Tensor) -> None:
        """Move the vectors by the iterations of one training forward, unless it is spared."""
        if not self._schedule.must_iterate(weight):
            return
        precise = at_least_float32(weight.detach())
        v, direction = self.v.to(precise.dtype), self.direction.to(precise.dtype)
        u, v, direction = singular_vectors.locally_optimal_iteration(
            self.operator, precise, v, direction, self._iterations(weight)
        )
        if not self.u.numel():  # not in the checkpoint that was loaded
            self.u = torch.empty_like(u)
        self.u.copy_(u)
        self.v.copy_(v)
        self.direction.copy_(direction)

    def get_extra_state(self) -> Tensor:
        """Return when the next iteration is due: with the vectors, all that a resumed run needs to go on alike."""
        return torch.tensor(self._schedule.forwards_to_skip(), device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Take up a schedule where it was stored."""
        self._schedule = IterationSchedule(int(state))

    def _iterations(self, weight: Tensor) -> int:
        pixels = math.prod(self.v.shape[-self.spatial_dims :]) if self.spatial_dims else 1  # a matrix is applied once
        return self.n_power_iterations * (CHEAP_LAYER_ITERATIONS if weight.numel() * pixels <= CHEAP_LAYER_SIZE else 1)

    def _reset(self) -> None:
        self._schedule = IterationSchedule()
        self._training_read_pending = False
        self._cached_gradient: tuple[tuple[int, int], normalisation.SigmaGradient] | None = None

    def _sigma_gradient(self, weight: Tensor) -> normalisation.SigmaGradient:
        """Return the gradient of `<u, A v>` for unit vectors `u` and `v`, kept until they move."""
        versions = self.u._version, self.v._version
        if self._cached_gradient is None or self._cached_gradient[0] != versions:
            with torch.no_grad(), torch.inference_mode(False):
                u, v = self.u.to(weight.dtype), self.v.to(weight.dtype, copy=True)
                lengths = torch.linalg.vector_norm(u) * torch.linalg.vector_norm(v)  # averaged vectors are shorter
                gradient = self.operator.weight_gradient(u / lengths.clamp_min(self.eps), v, weight.detach())
                self._cached_gradient = versions, normalisation.SigmaGradient(gradient, v)
        return self._cached_gradient[1]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AcceleratedSpectralNorm:
        super()._apply(fn, recurse)
        self._cached_gradient = None
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        self._reset()
        if prefix + "v" in state_dict:  # also by one of method="pico", which has nothing else
            v = state_dict[prefix + "v"]
            for name, vector in (("u", v.new_empty(0)), ("direction", torch.zeros_like(v))):
                state_dict.setdefault(prefix + name, vector)
            state_dict.setdefault(prefix + "_extra_state", torch.tensor(0, device="cpu"))
        super()._load_from_state_dict(state_dict, prefix, *args)
