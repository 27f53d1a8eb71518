"""Spectral normalisation with a faster iteration and a hand-written gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_mmd_losses import hand_written_gradients
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.spectral import normalisation, singular_vectors
from torch_mmd_losses.spectral.fingerprint import NO_FINGERPRINT
from torch_mmd_losses.spectral.iteration import FirstVectors
from torch_mmd_losses.spectral.parametrization import SpectralNorm

CHEAP_LAYER_SIZE = 2**22
"""Multiplications in `A v` at stride 1, up to which an iteration costs little compared with those of large layers.

The first and the last layer of a discriminator are of this kind, and the first is slow to converge.
"""

CHEAP_LAYER_ITERATIONS = 2
"""Iterations of a cheap layer for each iteration of a larger layer."""


class _CachedGradient(NamedTuple):
    """The gradient of sigma, and the vectors that it was computed from."""

    found: normalisation.SigmaGradient
    u: Tensor
    v: Tensor
    u_version: int
    v_version: int

    def belongs_to(self, u: Tensor, v: Tensor) -> bool:
        """Whether these are the vectors, unchanged. If a change is overlooked, sigma is still a lower bound."""
        return u is self.u and v is self.v and (u._version, v._version) == (self.u_version, self.v_version)


class AcceleratedSpectralNorm(SpectralNorm):
    """Spectral normalisation by locally optimal iteration.

    The state has two vectors in addition to `v`. The left singular vector `u` is the direction of `A v` for the weight
    at which `v` was found. The vector `direction` is the direction of the last step.

    A forward pass in training mode uses `sigma = |<u, A v>|`. It is computed as `|<G, W>|` from the gradient `G` of
    `<u, A v>` with respect to the weight `W`. The vectors are those of this weight, so this sigma and its derivative
    are those of `|A v|`. Second derivatives are always those of `|A v|`.
    """

    u: Tensor
    direction: Tensor
    _training_read_pending: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.register_buffer("u", torch.empty_like(self.v))
        self.register_buffer("direction", torch.empty_like(self.v))
        self._reset()

    def normalise(self, weight: Tensor) -> Tensor:
        """Return `scale * weight / sigma`, with `sigma = |<G, W>|` for the first read of a training forward pass."""
        if not (self._training_read_pending and hand_written_gradients.reverse_mode_only(weight)):
            return super().normalise(weight)
        self._training_read_pending = False
        sigma = partial(singular_vectors.norm_along, self.operator)
        with full_precision(weight.device):
            return normalisation.normalise_by_gradient(
                weight, self.precise_scale(), self._sigma_gradient(weight), self.eps, sigma
            )

    def initialise(self, weight: Tensor, shape: Sequence[int]) -> None:
        """Compute the vectors for a new weight, by Lanczos iteration from a fixed start vector."""
        super().initialise(weight, shape)
        self._reset()

    def before_forward(self, weight: Tensor, x: Tensor, training: bool, output_padding: Sequence[int] | None) -> None:
        """Compute the vectors in the first forward pass, and iterate in training mode if the weight has changed."""
        super().before_forward(weight, x, training, output_padding)
        if training and not torch.compiler.is_compiling():
            self._training_read_pending = True

    def take(self, first: FirstVectors) -> None:
        """Replace the state by that of a new weight."""
        super().take(first)
        self.u, self.direction = first.u, torch.zeros_like(first.v)

    def iterated(self, weight: Tensor) -> tuple[list[Tensor], int]:
        """Return the vectors that the iteration changes, and the number of iterations for one change of the weight."""
        if not self.u.numel():  # after loading a checkpoint without u
            self.u = torch.empty_like(self.operator.apply(self.v, weight.detach().to(self.v.dtype)))
        pixels = math.prod(self.v.shape[-self.spatial_dims :]) if self.spatial_dims else 1  # a matrix is applied once
        is_cheap = weight.numel() * pixels <= CHEAP_LAYER_SIZE
        steps = self.n_power_iterations * (CHEAP_LAYER_ITERATIONS if is_cheap else 1)
        return [self.u, self.v, self.direction], steps

    def complete_state(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Complete a state of an earlier version or of another method."""
        v = state_dict[prefix + "v"]
        if prefix + "u" not in state_dict:  # method="pico" has no more than v
            state_dict[prefix + "u"], state_dict[prefix + "direction"] = v.new_empty(0), torch.zeros_like(v)
            state_dict[prefix + "fingerprint"] = torch.tensor(NO_FINGERPRINT, device="cpu")
        super().complete_state(state_dict, prefix)

    def _reset(self) -> None:
        self._training_read_pending = False
        self._cached: _CachedGradient | None = None

    def _sigma_gradient(self, weight: Tensor) -> normalisation.SigmaGradient:
        """Return the gradient of `<u, A v>` for unit vectors `u` and `v`, cached until they change."""
        if self._cached is None or not self._cached.belongs_to(self.u, self.v):
            with torch.no_grad(), torch.inference_mode(False):
                u, v = self.u.to(weight.dtype), self.v.to(weight.dtype, copy=True)
                groups, values = self.operator.groups, weight.detach()
                left, right = (singular_vectors.by_group(vector, groups) for vector in (u, v))
                # The vectors in an average of several states are shorter than one.
                lengths = torch.linalg.vector_norm(left, dim=1) * torch.linalg.vector_norm(right, dim=1)
                u = (left / lengths.clamp_min(torch.finfo(u.dtype).tiny).unsqueeze(1)).view(u.shape)
                gradient = self.operator.weight_gradient(u, v, values)
                if groups > 1:  # only the largest group counts
                    rows = singular_vectors.by_group(gradient, groups)
                    norms = (rows * singular_vectors.by_group(values, groups)).sum(1).abs()
                    is_largest = torch.arange(groups, device=norms.device) == norms.argmax()
                    gradient = torch.where(is_largest.unsqueeze(1), rows, 0).view(gradient.shape)
                found = normalisation.SigmaGradient(gradient, v)
                self._cached = _CachedGradient(found, self.u, self.v, self.u._version, self.v._version)
        return self._cached.found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AcceleratedSpectralNorm:
        super()._apply(fn, recurse)
        self._cached = None
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        self._reset()
        super()._load_from_state_dict(state_dict, prefix, *args)
