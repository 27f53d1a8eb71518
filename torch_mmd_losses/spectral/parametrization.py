"""Spectral normalisation as a parametrization of the weight, with plain power iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_mmd_losses import checks
from torch_mmd_losses.hand_written_gradients import kept_tensors
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.spectral import compiled, iteration, normalisation, operators, singular_vectors
from torch_mmd_losses.spectral.fingerprint import NO_FINGERPRINT
from torch_mmd_losses.spectral.iteration import at_least_float32
from torch_mmd_losses.spectral.read_only import protect
from torch_mmd_losses.spectral.sharding import whole

UNKNOWN_INPUT_SIZE = (
    "run a forward pass through the layer first, since the norm of a convolution depends on its input size, or wrap it "
    "with example_input= or input_size="
)


class SpectralNorm(nn.Module):
    """The parametrization `weight -> scale * weight / sigma(weight)`.

    The state is the right singular vector `v`, which is empty until the input size of the layer is known, and the
    fingerprint of the weight for which `v` was last updated. For a convolution with groups, `v` holds a unit vector for
    each group, and the group with the largest `|A v|` counts. Only :meth:`before_forward` iterates, once for each
    change of the weight. All forward passes at one weight therefore use the same `v`, also those that activation
    checkpointing repeats. Reading the weight evaluates `sigma = |A v|` for the current weight.

    A change is recognised by the value of the weight, because PyTorch's version counter misses changes by fused
    optimisers, sharded optimisers and writes to `.data`, and copies do not keep it.
    """

    v: Tensor
    fingerprint: Tensor
    output_padding: Tensor

    def __init__(
        self,
        operator: operators.LinearOperator,
        *,
        weight: Tensor,
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
        self._weight_shape = weight.shape
        self._weight_like = weight.detach().new_empty(0)
        self._default_operator = operator
        self.register_buffer("v", torch.empty(0, device=weight.device))
        self.register_buffer("fingerprint", torch.full((), NO_FINGERPRINT, device=weight.device))
        if isinstance(operator, operators.ConvolutionOperator) and operator.transposed:
            self.register_buffer("output_padding", _on(weight.device, operator.output_padding))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the normalised weight in the dtype of the trained weight, protected from in-place changes."""
        weight = whole(weight)
        normalised = self.normalise(at_least_float32(weight))
        return protect(normalised.to(weight.dtype))

    def normalise(self, weight: Tensor) -> Tensor:
        """Return `scale * weight / sigma` for a weight in float32 or float64."""
        if self.has_input_size and compiled.calls_operators():
            return compiled.normalise(self.operator, weight, self.v, self.precise_scale(), self.eps)
        return normalisation.normalise(weight, self.precise_scale(), self.sigma(weight), self.eps)

    def precise_scale(self) -> Tensor | float:
        """Return the factor `scale`, at least in float32 if it is learned."""
        return at_least_float32(self.scale) if isinstance(self.scale, Tensor) else self.scale

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return an assigned weight as the new trained weight, and restart the iteration for it."""
        if not isinstance(weight, Tensor):
            got = checks.described(weight)
            raise TypeError(f"weight: expected a tensor to assign, got {got} of type {type(weight).__name__}")
        like = self._weight_like
        if weight.shape != self._weight_shape or weight.dtype != like.dtype:
            raise ValueError(
                f"weight: expected a tensor of shape {tuple(self._weight_shape)} and {like.dtype} to assign, got "
                f"{tuple(weight.shape)} and {weight.dtype}"
            )
        if weight.device != like.device or weight.layout is not torch.strided:
            raise ValueError(
                f"weight: expected a dense tensor on {like.device} to assign, got one on {weight.device} with the "
                f"layout {weight.layout}"
            )
        if self.has_input_size:
            self.initialise(weight, self.v.shape)
        return weight

    @property
    def has_input_size(self) -> bool:
        """Whether the input size of the layer is known, so that sigma is defined."""
        return self.v.numel() > 0

    def sigma(self, weight: Tensor) -> Tensor:
        """Return the estimate `sigma = |A v|`, differentiable in the weight, at least in float32."""
        if not self.has_input_size:
            raise RuntimeError(
                "weight: expected a layer that has seen an input, got one that has not. To initialise the weight, do "
                f"so before conv_spectral_norm; to use it, {UNKNOWN_INPUT_SIZE}"
            )
        with full_precision(weight.device):
            precise = at_least_float32(weight)
            # A copy, since v changes in place while the graph of an earlier forward pass may still need the old values.
            return singular_vectors.norm_along(self.operator, precise, self.v.to(precise.dtype, copy=True))

    def initialise(self, weight: Tensor, shape: Sequence[int]) -> None:
        """Compute the vectors for a new weight, by Lanczos iteration from a fixed start vector."""
        first_vectors = compiled.first_vectors if compiled.calls_operators() else iteration.first_vectors
        with torch.no_grad(), torch.inference_mode(False):
            self.take(first_vectors(self.operator, weight.detach(), shape))

    def before_forward(self, weight: Tensor, x: Tensor, training: bool, output_padding: Sequence[int] | None) -> None:
        """Compute the vectors in the first forward pass, and iterate in training mode if the weight has changed.

        Args:
            weight: the trained weight.
            x: the input of the layer, which fixes the input size if it is not known yet.
            training: whether the layer is in training mode.
            output_padding: the output padding of this forward pass of a transposed convolution, used in the first pass
                only; None means that of the layer.
        """
        weight = whole(weight)
        if not self.has_input_size:
            self._learn_input_size(weight, x, output_padding)
        elif training and not _in_backward():
            follow = compiled.follow if compiled.calls_operators() else iteration.follow
            with torch.no_grad(), torch.inference_mode(False):
                vectors, steps = self.iterated(weight)
                follow(self.operator, weight.detach(), self.fingerprint, vectors, steps)

    def take(self, first: iteration.FirstVectors) -> None:
        """Replace the state by that of a new weight."""
        self.v, self.fingerprint = first.v, first.fingerprint

    def iterated(self, _weight: Tensor) -> tuple[list[Tensor], int]:
        """Return the vectors that the iteration changes, and the number of iterations for one change of the weight."""
        return [self.v], self.n_power_iterations

    def forget_input_size(self) -> None:
        """Return to the state before the first forward pass."""
        for name, vector in self.vectors():
            setattr(self, name, vector.new_empty(0))
        self.set_output_padding(None)

    def vectors(self) -> list[tuple[str, Tensor]]:
        """Return the singular vectors and similar vectors of the iteration, with their names."""
        return [(name, buffer) for name, buffer in self.named_buffers(recurse=False) if buffer.is_floating_point()]

    def _learn_input_size(self, weight: Tensor, x: Tensor, output_padding: Sequence[int] | None) -> None:
        dims = self.spatial_dims
        if dims and x.dim() not in (dims + 1, dims + 2):
            raise ValueError(
                f"input: expected {dims} spatial dimensions after (batch and) channels, got shape {tuple(x.shape)}"
            )
        size = x.shape[x.dim() - dims :]
        if 0 in size:
            raise ValueError(f"input: expected spatial dimensions of at least one pixel, got shape {tuple(x.shape)}")
        shape = self.operator.vector_shape(size)
        if dims and x.shape[-dims - 1] != shape[0]:
            raise ValueError(f"input: expected {shape[0]} channels, got shape {tuple(x.shape)}")
        self.set_output_padding(output_padding)
        self.initialise(weight, shape)

    def set_output_padding(self, padding: Sequence[int] | None) -> None:
        """Set the output padding of a transposed convolution, or return to the default. Other layers have none."""
        if "output_padding" in self._buffers:
            default: operators.ConvolutionOperator = self._default_operator  # type: ignore[assignment]
            self.operator = default if padding is None else default._replace(output_padding=list(padding))
            with torch.inference_mode(False):
                self.output_padding = _on(self.output_padding.device, self.operator.output_padding)

    def extra_repr(self) -> str:
        """Return the shape of `v` and the options for the printed form of the layer."""
        scale = "learned" if isinstance(self.scale, Tensor) else self.scale
        return f"domain={tuple(self.v.shape) or None}, n_power_iterations={self.n_power_iterations}, scale={scale}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SpectralNorm:
        was_meta = self.v.is_meta
        shapes = {name: vector.shape for name, vector in self.vectors()}
        for name, vector in self.vectors():
            setattr(self, name, vector.flatten())  # memory formats for images do not apply to vectors
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._weight_like = fn(self._weight_like)
        # The vectors stay in float32 if the module is cast to half precision. They are recomputed if the module leaves
        # the meta device.
        for name, shape in shapes.items():
            setattr(self, name, at_least_float32(getattr(self, name)).view(shape))
        if was_meta and not self.v.is_meta:
            self.forget_input_size()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401
        v = state_dict.get(prefix + "v", self.v)
        if v.numel() and not self.operator.accepts(v.shape):
            args[-1].append(
                f"{prefix}v: expected the singular vector of a layer like this one, and of the same method of "
                f'conv_spectral_norm (the vectors of "matrix" have another shape), got shape {tuple(v.shape)}'
            )
            return
        if prefix + "v" in state_dict:
            self.complete_state(state_dict, prefix)
        # The size of v is part of the state, so a fresh model that never ran takes it from the checkpoint. A checkpoint
        # without v brings a new weight, for which the old vector is useless.
        for name, vector in self.vectors():
            stored = state_dict.get(prefix + name, vector.new_empty(0))
            if stored.shape != vector.shape:
                with kept_tensors():
                    setattr(self, name, torch.empty_like(stored, device=vector.device))
        super()._load_from_state_dict(state_dict, prefix, *args)
        with kept_tensors():
            for name, buffer in self.named_buffers(recurse=False):
                copy = buffer.clone()  # assign=True would share it with the checkpoint
                setattr(self, name, at_least_float32(copy) if copy.is_floating_point() else copy)
        padding = state_dict.get(prefix + "output_padding")
        self.set_output_padding(None if padding is None or padding.is_meta else padding.tolist())

    def complete_state(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Complete a state of an earlier version or of another method."""
        state_dict.pop(prefix + "_extra_state", None)  # of method="conv" in earlier versions
        state_dict.setdefault(prefix + "fingerprint", torch.tensor(NO_FINGERPRINT, device="cpu"))
        if "output_padding" in self._buffers:
            default: operators.ConvolutionOperator = self._default_operator  # type: ignore[assignment]
            padding = torch.tensor(default.output_padding, device="cpu")
            state_dict.setdefault(prefix + "output_padding", padding)


def _on(device: torch.device, numbers: Sequence[int]) -> Tensor:
    """Return numbers as a tensor on a device, without making the host wait for it."""
    return torch.tensor(numbers, device="cpu").to(device, non_blocking=True)


def _in_backward() -> bool:
    """Whether a backward pass is running, in which activation checkpointing repeats forward passes."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
