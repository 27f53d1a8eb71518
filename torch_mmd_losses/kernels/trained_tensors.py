"""The tensors that a kernel is trained through, in any module or closure, found by evaluating the kernel.

Hand-written passes give such tensors to autograd as inputs, and differentiate the kernel with respect to stand-ins.
Derivatives are then partial derivatives, even if one tensor was computed from another, and hooks of a tensor run once,
when its gradient is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from torch_mmd_losses.kernels.contract import checked_values
from torch_mmd_losses.kernels.summands import RadialSummand, Summand


class UnknownTensorError(Exception):
    """A kernel depends on a tensor that was not found by :func:`trained_tensors`."""


def trained_tensors(summand: Summand, like: Tensor) -> tuple[Tensor, ...] | None:
    """Return the tensors, other than scores, that require gradients and that kernel values are computed from.

    These are the tensors that operations of PyTorch get from outside: parameters, other leaves, and tensors computed
    before the call, such as the output of a network. The result is None if a custom autograd function uses such
    tensors, because they cannot all be found then.

    Args:
        summand: the kernel.
        like: scores, whose dtype, device and dimension the kernel expects.
    """
    kernel: Any = summand.kernel
    with torch.enable_grad():
        if isinstance(summand, RadialSummand):
            scores = [like.new_ones(1, 1).requires_grad_()]
            function: Callable[..., object] = kernel.from_sq_dist
        else:
            scores = [like.new_ones(1, like.shape[1]).requires_grad_() for _ in range(2)]
            function = kernel.forward
        recorder = _Recorder(scores)
        with recorder:
            values = function(*[tensor.clone() for tensor in scores])
    found = tuple(recorder.outside.values())
    values = checked_values(type(kernel).__name__, values, (1, 1), like.device)
    # A tensor from outside that depends on the scores was computed by a function that the recorder cannot see.
    if any(leaf is tensor for outside in found for leaf in _leaves(outside) for tensor in scores):
        return None
    with torch.enable_grad(), replaced(found, stand_ins := stand_ins_of(found)):
        values = checked_values(
            type(kernel).__name__, function(*[tensor.clone() for tensor in scores]), (1, 1), like.device
        )
    return found if depends_only_on(values, [*scores, *stand_ins]) else None


def stand_ins_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return leaves with the same values that require gradients."""
    return [tensor.detach().requires_grad_() for tensor in tensors]


def replaced(tensors: Sequence[Tensor], stand_ins: Sequence[Tensor]) -> AbstractContextManager[object]:
    """Return a context in which each operation of PyTorch uses the stand-ins instead of the tensors."""
    return _Replacer(tensors, stand_ins) if tensors else nullcontext()


def depends_only_on(values: Tensor, leaves: Sequence[Tensor]) -> bool:
    """Return whether all leaves of the graph of `values` are among the given ones."""
    known = {id(leaf) for leaf in leaves}
    return all(id(leaf) in known for leaf in _leaves(values))


class _Recorder(TorchFunctionMode):
    """Records the tensors that require gradients and come into operations from outside."""

    def __init__(self, scores: Sequence[Tensor]) -> None:
        super().__init__()
        self.outside: dict[int, Tensor] = {}
        self.inside = {id(tensor): tensor for tensor in scores}  # keeps them alive, so that no id is used twice

    def __torch_function__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        for tensor in _tensors((*args, *kwargs.values())):
            if tensor.requires_grad and id(tensor) not in self.inside:
                self.outside[id(tensor)] = tensor
        result = func(*args, **kwargs)
        for tensor in _tensors((result,)):
            # In-place operations and properties, such as `.data` of a leaf, may return a tensor from outside.
            if id(tensor) not in self.outside:
                self.inside[id(tensor)] = tensor
        return result


class _Replacer(TorchFunctionMode):
    def __init__(self, tensors: Sequence[Tensor], stand_ins: Sequence[Tensor]) -> None:
        super().__init__()
        self.stand_ins = {id(tensor): stand_in for tensor, stand_in in zip(tensors, stand_ins, strict=True)}

    def __torch_function__(self, func: Any, types: object, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        replaced = [self._replaced(argument) for argument in args]
        return func(*replaced, **{name: self._replaced(value) for name, value in (kwargs or {}).items()})

    def _replaced(self, argument: Any) -> Any:  # noqa: ANN401
        if isinstance(argument, Tensor):
            return self.stand_ins.get(id(argument), argument)
        if type(argument) in (list, tuple):
            return type(argument)(map(self._replaced, argument))
        return argument


def _tensors(arguments: Iterable[object]) -> Iterator[Tensor]:
    for argument in arguments:
        if isinstance(argument, Tensor):
            yield argument
        elif type(argument) in (list, tuple):
            yield from _tensors(argument)  # type: ignore[arg-type]


def _leaves(values: Tensor) -> Iterator[Tensor]:
    """Yield the leaves of a graph that require gradients."""
    if values.grad_fn is None:
        if values.requires_grad:
            yield values
        return
    nodes: list[Any] = [values.grad_fn]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node.name() == "torch::autograd::AccumulateGrad":
            yield node.variable
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
