"""Spectral normalisation as a parametrization of the weight, with plain power iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.spectral import normalisation, operators, singular_vectors
from torch_mmd_losses.spectral.read_only import protect

UNKNOWN_INPUT_SIZE = (
    "the norm of a convolution depends on its input size: run a forward pass through the layer first, or wrap it with "
    "input_size= (and initialise weights before conv_spectral_norm)"
)


class SpectralNorm(nn.Module):
    """The parametrization `weight -> scale * weight / sigma(weight)`.

    The state is the right singular vector `v`, which is empty until the input size of the layer is known. Only
    :meth:`before_forward` iterates. Reading the weight evaluates `sigma = |A v|` for the current weight.
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
        """Return the normalised weight in the dtype of the trained weight, protected from in-place changes."""
        normalised = self.normalise(at_least_float32(weight))
        return protect(normalised.to(weight.dtype))

    def normalise(self, weight: Tensor) -> Tensor:
        """Return `scale * weight / sigma` for a weight in float32 or float64."""
        return normalisation.normalise(weight, self.precise_scale(), self.sigma(weight), self.eps)

    def precise_scale(self) -> Tensor | float:
        """Return the factor `scale`, at least in float32 if it is learned."""
        return at_least_float32(self.scale) if isinstance(self.scale, Tensor) else self.scale

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return an assigned weight as the new trained weight, and restart the iteration for it."""
        if self.v.numel():
            self.initialise(weight, self.v.shape)
        return weight

    def sigma(self, weight: Tensor) -> Tensor:
        """Return the estimate `sigma = |A v|`, differentiable in the weight, at least in float32."""
        if not self.v.numel():
            raise RuntimeError(
                f"weight: expected a layer that has seen an input, got one that has not; {UNKNOWN_INPUT_SIZE}"
            )
        with full_precision(weight.device):
            precise = at_least_float32(weight)
            # A copy, since v changes in place while the graph of an earlier forward pass may still need the old values.
            return singular_vectors.norm_along(self.operator, precise, self.v.to(precise.dtype, copy=True))

    def initialise(self, weight: Tensor, shape: Sequence[int]) -> None:
        """Compute `v` for a new weight, by Lanczos iteration from a fixed start vector."""
        with torch.no_grad(), torch.inference_mode(False), full_precision(weight.device):
            precise = at_least_float32(weight.detach())
            self.v = singular_vectors.top_singular_vector(self.operator, precise, shape)

    def before_forward(self, weight: Tensor, x: Tensor, training: bool) -> None:
        """Compute `v` in the first forward pass, and iterate in every later pass in training mode."""
        if not self.v.numel():
            if self.spatial_dims and x.dim() not in (self.spatial_dims + 1, self.spatial_dims + 2):
                raise ValueError(
                    f"input: expected {self.spatial_dims} spatial dimensions after (batch and) channels, "
                    f"got shape {tuple(x.shape)}"
                )
            self.initialise(weight, self.operator.vector_shape(x.shape[x.dim() - self.spatial_dims :]))
        elif training:
            with torch.no_grad(), torch.inference_mode(False), full_precision(weight.device):
                self.iterate(weight)

    def iterate(self, weight: Tensor) -> None:
        """Update `v` in place by the power iterations of one forward pass."""
        precise = at_least_float32(weight.detach())
        v = self.v.to(precise.dtype)
        self.v.copy_(singular_vectors.power_iteration(self.operator, precise, v, self.n_power_iterations))

    def extra_repr(self) -> str:
        """Return the shape of `v` and the options for the printed form of the layer."""
        scale = "learned" if isinstance(self.scale, Tensor) else self.scale
        return f"domain={tuple(self.v.shape) or None}, n_power_iterations={self.n_power_iterations}, scale={scale}"

    def _named_vectors(self) -> list[tuple[str, Tensor]]:
        return list(self.named_buffers(recurse=False))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SpectralNorm:
        was_meta = self.v.is_meta
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # The vectors stay in float32 if the module is cast to half precision. They are computed anew if the module
        # leaves the meta device.
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
        # The size of v is part of the state, so a fresh model that never ran takes it from the checkpoint. A checkpoint
        # without v brings a new weight, for which the old vector is useless.
        for name, vector in self._named_vectors():
            stored = state_dict.get(prefix + name, vector.new_empty(0))
            if stored.shape != vector.shape:
                setattr(self, name, torch.empty_like(stored, device=vector.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
        for name, vector in self._named_vectors():
            setattr(self, name, vector.clone())  # assign=True would share it with the checkpoint


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32, or unchanged if it is in float64."""
    return x if x.dtype == torch.float64 else x.float()
