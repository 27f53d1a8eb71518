"""The tensor type of normalised weights, which raises an error on in-place changes.

Reading a parametrized weight creates a new tensor. After wrapping, `nn.init.normal_(layer.weight)` would therefore fill
a temporary tensor and have no effect on the layer. The weights of layers wrapped by :func:`conv_spectral_norm` raise an
error instead.
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
    """A normalised weight that cannot be changed in place. Results computed from it are plain tensors."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call `func` on plain tensors, or raise an error if it would change a normalised weight."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        written = (args[:1] or tuple(kwargs.values())) if _writes_in_place(name) else (kwargs.get("out"),)
        if _is_protected(written):
            raise RuntimeError(_MESSAGE.format(name=name))
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            return protect(result) if _shares_memory(result, args) else result


def protect(weight: Tensor) -> Tensor:
    """Return `weight` as a tensor that raises an error on in-place changes and shares its memory and gradient.

    Under `torch.compile`, `torch.export` and function transforms, `weight` is returned unchanged, because users cannot
    reach the temporary tensor there.
    """
    traced = torch.compiler.is_compiling() or type(weight) is not Tensor
    if traced or torch._C._functorch.is_functorch_wrapped_tensor(weight):
        return weight
    return weight.as_subclass(NormalisedWeight)


def _writes_in_place(name: str) -> bool:
    """Whether the function of this name changes its first argument in place."""
    in_place = name.endswith("_") and not name.endswith("__") and name not in _HARMLESS
    return in_place or name in _WRITING_METHODS


def _is_protected(value: object) -> bool:
    """Whether `value` is a normalised weight or a list or tuple that contains one."""
    if isinstance(value, (list, tuple)):
        return any(map(_is_protected, value))
    return isinstance(value, NormalisedWeight)


def _shares_memory(result: object, args: tuple[Any, ...]) -> bool:
    """Whether `result` shares the memory of the normalised weight it was made from, as `.data` and `.detach()` do."""
    if type(result) is not Tensor or not args or type(args[0]) is not NormalisedWeight:
        return False
    if torch._C._functorch.is_functorch_wrapped_tensor(result):
        return False
    return bool(result.untyped_storage()._cdata == args[0].untyped_storage()._cdata)
