"""A tensor that refuses in-place changes.

Reading a parametrized weight makes a new tensor, so `nn.init.normal_(layer.weight)` after wrapping would fill a
temporary and be lost without a word. The weights handed out by :func:`conv_spectral_norm` raise instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

_HARMLESS = {"requires_grad_"}
_WRITING_METHODS = {"__set__", "__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__"}
_MESSAGE = (
    "{name}: expected a tensor that can be changed in place, got a normalised weight, which is computed from the "
    "trained weight; assign a tensor (layer.weight = tensor), or initialise the weight before conv_spectral_norm"
)


class NormalisedWeight(Tensor):
    """A weight as a layer uses it: everything that is computed from it is a plain tensor, changing it is an error."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call `func` on plain tensors, unless it would change a normalised weight."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        written = (args[:1] or tuple(kwargs.values())) if _writes(name) else (kwargs.get("out"),)
        if _is_protected(written):
            raise RuntimeError(_MESSAGE.format(name=name))
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            return protect(result) if _alias(result, args) else result


def protect(weight: Tensor) -> Tensor:
    """Return `weight`, sharing its memory and its gradient, as a tensor that refuses in-place changes.

    Under `torch.compile`, `torch.export` and function transforms it is returned as it is: there is no temporary there
    that a user could reach.
    """
    traced = torch.compiler.is_compiling() or type(weight) is not Tensor
    if traced or torch._C._functorch.is_functorch_wrapped_tensor(weight):
        return weight
    return weight.as_subclass(NormalisedWeight)


def _writes(name: str) -> bool:
    in_place = name.endswith("_") and not name.endswith("__") and name not in _HARMLESS
    return in_place or name in _WRITING_METHODS


def _is_protected(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_is_protected, value))
    return isinstance(value, NormalisedWeight)


def _alias(result: object, args: tuple[Any, ...]) -> bool:
    """Whether `result` is a view of the normalised weight it was made from (as `.data`, `.detach()`, `.view()`)."""
    if type(result) is not Tensor or not args or type(args[0]) is not NormalisedWeight:
        return False
    if torch._C._functorch.is_functorch_wrapped_tensor(result):
        return False
    return bool(result.untyped_storage()._cdata == args[0].untyped_storage()._cdata)
