"""Spectral normalisation as a parametrization, with the power iteration of the papers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_mmd_losses import checks
from torch_mmd_losses.spectral import normalisation, operators, singular_vectors
from torch_mmd_losses.spectral.read_only import protect

UNKNOWN_INPUT_SIZE = (
    "the norm of a convolution depends on its input size: run a forward pass through the layer first, or wrap it with "
    "input_size= (and initialise weights before conv_spectral_norm)"
)


class SpectralNorm(nn.Module):
    """The parametrization `weight -> scale * weight / sigma(weight)`.

    Its state is `v`, the current right singular vector, empty as long as the layer's input size is not known. `v` only
    moves in :meth:`before_forward`; reading the weight evaluates `sigma = |A v|` for the weight as it is now.
    """

    v: Tensor

    def __init__(
        self,
        operator: operators.LinearOperator,
        *,
        spatial_dims: int,
        n_power_iterations: int,
        scale: float | nn.Parameter,
        eps: float,
    ) -> None:
        super().__init__()
        self.operator = operator
        self.spatial_dims = spatial_dims
        self.n_power_iterations = n_power_iterations
        self.scale = scale
        self.eps = eps
        self.register_buffer("v", torch.empty(0))

    def forward(self, weight: Tensor) -> Tensor:
        normalised = self.normalise(at_least_float32(weight))
        return protect(normalised.to(weight.dtype))

    def normalise(self, weight: Tensor) -> Tensor:
        """Return `scale * weight / sigma` for a weight in float32 or float64."""
        return normalisation.normalise(weight, self.precise_scale(), self.sigma(weight), self.eps)

    def precise_scale(self) -> Tensor | float:
        """Return the factor, at least in float32 if it is learned."""
        return at_least_float32(self.scale) if isinstance(self.scale, Tensor) else self.scale

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Take an assigned weight as the new trained weight; the old singular vector says nothing about it."""
        if self.v.numel():
            self.initialise(weight, self.v.shape)
        return weight

    def sigma(self, weight: Tensor) -> Tensor:
        """Return the norm of the layer along `v`, differentiable in the weight, at least in float32."""
        if not self.v.numel():
            raise RuntimeError(
                f"weight: expected a layer that has seen an input, got one that has not; {UNKNOWN_INPUT_SIZE}"
            )
        with checks.full_precision(weight.device):
            precise = at_least_float32(weight)
            # A copy, since v moves in place while the graph of an earlier forward may still need it.
            return singular_vectors.norm_along(self.operator, precise, self.v.to(precise.dtype, copy=True))

    def initialise(self, weight: Tensor, shape: Sequence[int]) -> None:
        """Set `v` for a weight of which nothing is known yet."""
        with torch.no_grad(), torch.inference_mode(False), checks.full_precision(weight.device):
            precise = at_least_float32(weight.detach())
            self.v = singular_vectors.top_singular_vector(self.operator, precise, shape)

    def before_forward(self, weight: Tensor, x: Tensor, training: bool) -> None:
        """Move `v` by the power iterations of one training forward, or make it if this is the first forward."""
        if not self.v.numel():
            if self.spatial_dims and x.dim() not in (self.spatial_dims + 1, self.spatial_dims + 2):
                raise ValueError(
                    f"input: expected {self.spatial_dims} spatial dimensions after (batch and) channels, "
                    f"got shape {tuple(x.shape)}"
                )
            self.initialise(weight, self.operator.vector_shape(x.shape[x.dim() - self.spatial_dims :]))
        elif training:
            with torch.no_grad(), torch.inference_mode(False), checks.full_precision(weight.device):
                self.iterate(weight)

    def iterate(self, weight: Tensor) -> None:
        """Move `v` by the power iterations of one training forward."""
        precise = at_least_float32(weight.detach())
        v = self.v.to(precise.dtype)
        self.v.copy_(singular_vectors.power_iteration(self.operator, precise, v, self.n_power_iterations))

    def extra_repr(self) -> str:
        scale = "learned" if isinstance(self.scale, Tensor) else self.scale
        return f"domain={tuple(self.v.shape) or None}, n_power_iterations={self.n_power_iterations}, scale={scale}"

    def _named_vectors(self) -> list[tuple[str, Tensor]]:
        return list(self.named_buffers(recurse=False))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SpectralNorm:
        was_meta = self.v.is_meta
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # A module cast to half precision keeps iterating in float32; one that leaves the meta device starts anew.
        anew = was_meta and not self.v.is_meta
        for name, vector in self._named_vectors():
            setattr(self, name, vector.new_empty(0) if anew else at_least_float32(vector))
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        v = state_dict.get(prefix + "v", self.v)
        if v.numel() and not self.operator.accepts(v.shape):
            args[-1].append(
                f"{prefix}v: expected the singular vector of a layer like this one, and of the same method of "
                f'conv_spectral_norm (the vectors of "matrix" have another shape), got shape {tuple(v.shape)}'
            )
            return
        # The size of v is part of the state: a fresh model that never ran takes it from the checkpoint. A checkpoint
        # without it brings another weight, about which the old vector says nothing.
        for name, vector in self._named_vectors():
            stored = state_dict.get(prefix + name, vector.new_empty(0))
            if stored.shape != vector.shape:
                setattr(self, name, torch.empty_like(stored, device=vector.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
        for name, vector in self._named_vectors():
            setattr(self, name, vector.clone())  # with assign=True it would be the checkpoint's own, and move in place


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float64 if it is, else in float32."""
    return x if x.dtype == torch.float64 else x.float()
