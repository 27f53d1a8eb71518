"""Operators of PyTorch that `torch.compile` calls without tracing them.

The compiler would trace, fuse and compile hundreds of small operations for each layer. As operators, the iteration of a
layer is one node of the graph, the normalisation is one, and its gradient is one.

`torch.export` and function transforms see the operations themselves: an exported program has to run without this
library, and operators of a library have no rules for forward-mode derivatives and `vmap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import get_dynamic_layer_stack_depth
from torch.autograd import forward_ad

from torch_mmd_losses.hand_written_gradients import differentiable_gradients
from torch_mmd_losses.precision import full_precision
from torch_mmd_losses.spectral import iteration, normalisation, singular_vectors
from torch_mmd_losses.spectral.iteration import FirstVectors, at_least_float32
from torch_mmd_losses.spectral.operators import LinearOperator, operator_from_integers

_IS_SUPPORTED = torch.__version__ >= "2.13"
"""Whether the compiler can ask for function transforms. Earlier versions see the operations themselves."""

# Inductor may pass weights in the memory format that it chose for the convolution.
_OPTIONS: Any = {"tags": torch.Tag.flexible_layout} if _IS_SUPPORTED else {}


def calls_operators() -> bool:
    """Whether `torch.compile` is tracing the caller, and neither `torch.export` nor a function transform is."""
    return (
        _IS_SUPPORTED
        and torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
        and get_dynamic_layer_stack_depth() == 0
        and forward_ad._current_level < 0
    )


def first_vectors(operator: LinearOperator, weight: Tensor, shape: Sequence[int]) -> FirstVectors:
    """Call :func:`iteration.first_vectors` as an operator."""
    return FirstVectors(*_first_vectors(weight, operator.integers(), shape))


def follow(
    operator: LinearOperator, weight: Tensor, fingerprint: Tensor, vectors: Sequence[Tensor], steps: int
) -> None:
    """Call :func:`iteration.follow` as an operator."""
    _follow(weight, fingerprint, vectors, operator.integers(), steps)


def normalise(operator: LinearOperator, weight: Tensor, v: Tensor, scale: Tensor | float, eps: float) -> Tensor:
    """Call :func:`normalisation.normalise` as an operator, with `sigma = |A v| / |v|`."""
    if isinstance(scale, Tensor):
        return _normalise(weight, v, operator.integers(), 1.0, eps)[0] * scale
    return _normalise(weight, v, operator.integers(), scale, eps)[0]


@torch.library.custom_op(
    "torch_mmd_losses::first_singular_vectors",
    mutates_args=(),
    schema="(Tensor weight, SymInt[] operator, SymInt[] shape) -> (Tensor, Tensor, Tensor)",
    **_OPTIONS,
)
def _first_vectors(weight: Tensor, operator: Sequence[int], shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    u, v, fingerprint = iteration.first_vectors(operator_from_integers(operator), weight.contiguous(), shape)
    return u.contiguous(), v.contiguous(), fingerprint


@_first_vectors.register_fake
def _(weight: Tensor, operator: Sequence[int], shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    precise = at_least_float32(weight)
    v = precise.new_empty(shape)
    u = precise.new_empty(operator_from_integers(operator).apply(v, precise).shape)
    return u, v, precise.new_empty((), dtype=torch.int64)


@torch.library.custom_op(
    "torch_mmd_losses::follow_weight",
    mutates_args=("fingerprint", "vectors"),
    schema="(Tensor weight, Tensor(a!) fingerprint, Tensor(b!)[] vectors, SymInt[] operator, SymInt steps) -> ()",
    **_OPTIONS,
)
def _follow(
    weight: Tensor, fingerprint: Tensor, vectors: Sequence[Tensor], operator: Sequence[int], steps: int
) -> None:
    iteration.follow(operator_from_integers(operator), weight.contiguous(), fingerprint, vectors, steps)


@_follow.register_fake
def _(*_: object) -> None:
    """Change nothing, since no new tensor is returned."""


@torch.library.custom_op(
    "torch_mmd_losses::normalise_weight",
    mutates_args=(),
    schema="(Tensor weight, Tensor v, SymInt[] operator, float scale, float eps) -> (Tensor, Tensor, Tensor, Tensor)",
    **_OPTIONS,
)
def _normalise(
    weight: Tensor, v: Tensor, operator: Sequence[int], scale: float, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the normalised weight, and for its gradient sigma, `A v` and `v`, which later forward passes change."""
    with full_precision(weight.device):
        v = v.to(weight.dtype, copy=True).contiguous()
        linear = operator_from_integers(operator)
        image, v = singular_vectors.in_largest_group(linear.apply(v, weight).contiguous(), v, linear.groups)
        sigma = singular_vectors.norm_ratio(image, v)
        return normalisation.normalise(weight, scale, sigma, eps), sigma, image, v


@_normalise.register_fake
def _(
    weight: Tensor, v: Tensor, operator: Sequence[int], _scale: float, _eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    image = operator_from_integers(operator).apply(v.to(weight.dtype), weight)
    return torch.empty_like(weight), weight.new_empty(()), weight.new_empty(image.shape), weight.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: ANN401
    weight, _, *ctx.options = inputs
    ctx.save_for_backward(weight, *output[1:])


def _backward(ctx: Any, grad_output: Tensor, *_: object) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    weight, sigma, image, v = ctx.saved_tensors
    integers, scale, eps = ctx.options
    if not torch.is_grad_enabled():
        grad_weight = _normalise_backward(grad_output, weight, sigma, image, v, integers, scale, eps)
        return grad_weight, None, None, None, None
    # For second derivatives, which only backends without a compiled backward pass can compute.
    operator = operator_from_integers(integers)

    def again(weight: Tensor) -> tuple[Tensor]:
        return (normalisation.normalise(weight, scale, singular_vectors.norm_along(operator, weight, v), eps),)

    return *differentiable_gradients(again, (weight,), (grad_output,)), None, None, None, None


_normalise.register_autograd(_backward, setup_context=_save)


@torch.library.custom_op(
    "torch_mmd_losses::normalise_weight_backward",
    mutates_args=(),
    schema=(
        "(Tensor grad_output, Tensor weight, Tensor sigma, Tensor image, Tensor v, SymInt[] operator, float scale, "
        "float eps) -> Tensor"
    ),
    **_OPTIONS,
)
def _normalise_backward(
    grad_output: Tensor,
    weight: Tensor,
    sigma: Tensor,
    image: Tensor,
    v: Tensor,
    operator: Sequence[int],
    scale: float,
    eps: float,
) -> Tensor:
    with full_precision(weight.device):
        usable = sigma > eps
        u = singular_vectors.unit_vector(image, fallback=torch.zeros_like(image))
        gradient = operator_from_integers(operator).weight_gradient(u, v / torch.linalg.vector_norm(v), weight)
        along = torch.where(usable, normalisation.dot(grad_output, weight) / sigma, 0)
        return normalisation.gradient_by_weight(grad_output, gradient, scale / torch.where(usable, sigma, 1), along)


@_normalise_backward.register_fake
def _(grad_output: Tensor, *_: object) -> Tensor:
    return torch.empty_like(grad_output)
