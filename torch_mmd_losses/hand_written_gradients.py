"""When hand-written gradients may be used, and how autograd takes over from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._C._functorch import (
    get_dynamic_layer_stack_depth,
    is_functorch_wrapped_tensor,
    is_legacy_batchedtensor,
    peek_interpreter_stack,
)
from torch.autograd import forward_ad

from torch_mmd_losses.precision import full_precision

Function = TypeVar("Function", bound=Callable[..., Any])

_COMPILER_SEES_TRANSFORMS = torch.__version__ >= "2.13"
"""Whether the compiler can ask for function transforms."""
_TRANSFORMS_SEE_INFERENCE_MODE = torch.__version__ >= "2.12"
"""Whether function transforms record in inference mode. Before, they give derivatives of zero there."""


def eager_only(function: Function) -> Function:
    """Keep `torch.compile` out of a function and of everything that it calls.

    :func:`torch.compiler.disable` does the same, but it imports the whole compiler when the function is defined. This
    decorator imports the compiler when the function is first called.
    """
    return torch._disable_dynamo(function)  # type: ignore[attr-defined, return-value]


@contextmanager
def kept_tensors() -> Iterator[None]:
    """Compute tensors that a module keeps: without a graph, and for training even if this happens in inference mode.

    Tensors that are made in inference mode cannot be used by autograd or changed in place later.
    """
    with torch.inference_mode(False), torch.no_grad():  # the first one enables gradients
        yield


def where_transforms_record(function: Function) -> Function:
    """Let a function that applies a transform of `torch.func` leave inference mode, unless transforms record there."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if _TRANSFORMS_SEE_INFERENCE_MODE or not torch.is_inference_mode_enabled():
            return function(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():  # the first one enables gradients
            return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def reverse_mode_only(*tensors: Tensor) -> bool:
    """Return whether only plain reverse-mode autograd needs to trace operations on these tensors.

    If so, hand-written gradients may be used. The compiler, function transforms, forward-mode derivatives and
    subclasses of tensors must see the operations themselves.
    """
    return (
        not torch.compiler.is_compiling()
        and all([type(tensor) is Tensor or type(tensor) is nn.Parameter for tensor in tensors])  # noqa: C419 (faster)
        and peek_interpreter_stack() is None
        and forward_ad._current_level < 0
    )


def is_differentiated(*tensors: Tensor) -> bool:
    """Return whether derivatives with respect to these tensors may be wanted, in reverse or in forward mode.

    Tensors that carry forward-mode derivatives need not require gradients, also under :func:`torch.no_grad`.
    """
    if torch.is_grad_enabled() and any([tensor.requires_grad for tensor in tensors]):  # noqa: C419 (faster)
        return True
    is_unknown = torch.compiler.is_compiling() and not _COMPILER_SEES_TRANSFORMS
    return is_unknown or get_dynamic_layer_stack_depth() > 0 or forward_ad._current_level >= 0


def in_function_transform() -> bool:
    """Return whether a transform of `torch.func` is active. Under the compiler, this is not known."""
    return not torch.compiler.is_compiling() and peek_interpreter_stack() is not None


class GradientByHand(torch.autograd.Function):
    """Base class of functions whose gradient is written by hand, for one incoming gradient.

    PyTorch may also pass a batch of gradients as one tensor. Backward passes of plain operations return the right
    batch of results. Others are refused, because a batch does not show whether it requires gradients.
    """

    takes_batches = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.backward = staticmethod(_checked(cls.backward, cls.takes_batches))  # type: ignore[method-assign]


def _checked(backward: Function, takes_batches: bool) -> Function:
    @wraps(backward)
    def checked(ctx: Any, *outer: Tensor | None) -> Any:  # noqa: ANN401
        is_batch = any(map(_is_batch, outer))
        cause = None
        if takes_batches or not is_batch:
            try:
                return backward(ctx, *outer)
            except RuntimeError as error:
                if not is_batch:
                    raise
                cause = error
        raise RuntimeError(
            "vectorize, is_grads_batched: expected one gradient at a time in the backward pass of a function of "
            "torch_mmd_losses, got a batch of them; use torch.func.jacrev or torch.func.hessian, or vectorize=False"
        ) from cause

    return checked  # type: ignore[return-value]


def _is_batch(outer: Tensor | None) -> bool:
    return outer is not None and (is_legacy_batchedtensor(outer) or is_functorch_wrapped_tensor(outer))


def with_graph(values: Tensor, *inputs: Tensor, may_lead_elsewhere: bool = False) -> Tensor:
    """Return values as a function of the inputs. If the values have no graph, they get one, with gradients of zero.

    The values of a kernel that is constant in steps, for example, have no graph, or only one that leads to the kernel's
    parameters.

    Args:
        values: the values.
        inputs: tensors of which some may require gradients.
        may_lead_elsewhere: whether the graph of the values may lead to other tensors only, and not to the inputs.
    """
    if not torch.is_grad_enabled() or (values.requires_grad and not may_lead_elsewhere):
        return values
    for tensor in inputs:
        if tensor.requires_grad:
            # The sum of nothing: zero, also if entries are infinite. Its derivatives of all orders have a graph.
            values = values + tensor.flatten()[:0].exp().sum()
    return values


def differentiable_gradients(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], outer: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of `sum(outer * function(*inputs))` as differentiable functions of the inputs and `outer`.

    This function is for the backward pass of a hand-written gradient that is itself differentiated. The gradient is
    then computed by operations that autograd can follow.

    The function is differentiated with respect to views of its inputs. These derivatives are partial derivatives, even
    if one input was computed from another or is the same tensor. Autograd itself then applies the chain rule to the
    inputs. Hooks of an input do not run until its gradient is complete.

    Args:
        function: returns one tensor for each tensor in `outer`, and is differentiable twice.
        inputs: the arguments of `function`. The result is None for inputs that do not require gradients.
        outer: the incoming gradients, which are converted to the dtypes of the values.
    """
    with torch.enable_grad(), full_precision(inputs[0].device):
        views = [tensor.view_as(tensor) for tensor in inputs]
        values = function(*views)
        pairs = [(value, factor.to(value.dtype)) for value, factor in zip(values, outer, strict=True)]
        pairs = [pair for pair in pairs if pair[0].requires_grad]  # the others are constants
        wanted = [view for view in views if view.requires_grad]
        gradients: Sequence[Tensor | None] = [None] * len(wanted)
        if pairs:
            gradients = torch.autograd.grad(
                [value for value, _ in pairs],
                wanted,
                [factor for _, factor in pairs],
                create_graph=True,
                allow_unused=True,
            )
        found = iter(
            [
                with_graph(torch.zeros_like(view) if gradient is None else gradient, *views)
                for view, gradient in zip(wanted, gradients, strict=True)
            ]
        )
    return tuple(next(found) if view.requires_grad else None for view in views)


ValuesAndGradients = Callable[[Tensor, Tensor, bool], tuple[Tensor, ...]]
"""Returns values `(b,)` and, if the last argument is true, the gradients `(b, m, d)` and `(b, n, d)` of their sum."""


def batched_values(
    real: Tensor, fake: Tensor, compute: ValuesAndGradients, differentiable: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return the values `(b,)` of `compute` for independent batches, and let autograd use the gradients of `compute`.

    Args:
        real: `(b, m, d)`; value `i` is a function of `real[i]` and `fake[i]` alone.
        fake: `(b, n, d)`.
        compute: returns the values, and their gradients without a second pass.
        differentiable: returns the same values by operations that autograd can follow, for second derivatives.
    """
    return _BatchedValues.apply(real, fake, compute, differentiable)  # type: ignore[no-untyped-call]


class _BatchedValues(GradientByHand):
    takes_batches = True

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        real: Tensor,
        fake: Tensor,
        compute: ValuesAndGradients,
        differentiable: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        ctx.differentiable = differentiable
        values, *gradients = compute(real, fake, any(ctx.needs_input_grad))
        ctx.save_for_backward(real, fake, *gradients)
        return values

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        real, fake, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled():
            again = differentiable_gradients(lambda *sets: (ctx.differentiable(*sets),), (real, fake), (outer,))
            return *again, None, None
        factor = outer.view(-1, 1, 1)
        pulls = [factor.to(gradient.dtype) * gradient for gradient in gradients]
        wanted = ctx.needs_input_grad[:2]
        return *(pull if want else None for pull, want in zip(pulls, wanted, strict=True)), None, None
