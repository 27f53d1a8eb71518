"""Modules with numbers that are checked when assigned and stored in the state dict."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from torch_mmd_losses import checks

_EXTRA_STATE = "_extra_state"

_Value = TypeVar("_Value")

TRAINABLE_RANGE = (1e-9, 1e9)
"""The range of hyper-parameters at the start of training. Their squares fit into float32 with room on both sides."""


class LoadedAsAWhole(nn.Module):
    """A module that does not change if loading its state fails. PyTorch's modules keep the part before the error."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401
        """Load a state, or raise and change nothing, see :meth:`torch.nn.Module.load_state_dict`."""
        # With `assign`, tensors are replaced, not changed.
        before = self.state_dict(keep_vars=True) if assign else copy.deepcopy(self.state_dict())
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except Exception:
            super().load_state_dict(before, assign=assign)
            raise


class Hyperparameters(LoadedAsAWhole):
    """A module whose hyper-parameters are Python floats, exact in every precision.

    A subclass lists their names in `_hyperparameters` and assigns them in `__init__`, each a number or a tuple of
    numbers. Later assignments are checked like the first assignment.

    A subclass that calls :meth:`_make_trainable` at the end of `__init__` can be trained instead. The parameters are
    then the logarithms, `log_sigma` for `sigma`, and `sigma` is a tensor that is computed from its logarithm.
    """

    _hyperparameters: tuple[str, ...] = ()
    _trained: tuple[str, ...] = ()

    @property
    def _trainable(self) -> bool:
        return bool(self._trained)

    def _make_trainable(self, trainable: bool, *names: str) -> None:
        """Replace hyper-parameters, by default all, by trained parameters, their logarithms, if `trainable`."""
        if not checks.flag("trainable", trainable):
            return
        for name, numbers in self._numbers():
            if names and name not in names:
                continue
            value = self._within_trainable_range(name, self.__dict__.pop(name))
            logarithms = torch.tensor(numbers, dtype=torch.float64, device="cpu").log()
            initial = logarithms if isinstance(value, tuple) else logarithms[0]
            # On the default device and in the default dtype, as the parameters of other modules, except half precision.
            dtype = _at_least_float32(torch.get_default_dtype())
            self.register_parameter(_log(name), nn.Parameter(torch.empty(initial.shape, dtype=dtype).copy_(initial)))
        self._trained = names or self._hyperparameters

    def _logarithms(self) -> list[Tensor]:
        """Return the parameters of a trained kernel, in the order of its hyper-parameters."""
        return [getattr(self, _log(name)) for name in self._trained]

    def _as_numbers(self) -> SimpleNamespace:
        """Return the hyper-parameters of a trained kernel as numbers, which the host reads."""
        values = {name: getattr(self, name).detach().tolist() for name in self._trained}
        trained = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return SimpleNamespace(**trained, **{name: getattr(self, name) for name in self._fixed()})

    def _within_trainable_range(self, name: str, value: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if isinstance(value, tuple):
            return tuple(
                checks.hyperparameter(f"{name}[{i}]", number, TRAINABLE_RANGE) for i, number in enumerate(value)
            )
        return checks.hyperparameter(name, value, TRAINABLE_RANGE)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in vars(cls).get("_hyperparameters", ()):
            setattr(cls, name, _Trained(name))

    def __setattr__(self, name: str, value: object) -> None:
        if name in self._hyperparameters and (name in self._trained or name in self.__dict__):
            # A tensor is refused too: if it was meant to be trained, it would get no gradient.
            value = _hinted(self._converted, name, value)
            if name in self._trained:
                self._set_trained(name, value)
                return
            self._check(dict(self._numbers()) | {name: value if isinstance(value, tuple) else (value,)})
        super().__setattr__(name, value)  # type: ignore[arg-type]

    @torch.no_grad()
    def _set_trained(self, name: str, value: float | tuple[float, ...]) -> None:
        """Write a number into its parameter, which stays the same object for the optimiser."""
        parameter = getattr(self, _log(name))
        new = torch.tensor(self._within_trainable_range(name, value), dtype=torch.float64, device="cpu").log()
        if new.shape != parameter.shape:
            raise ValueError(f"{name}: expected {len(parameter)} numbers, as before, got {len(new)}")
        parameter.copy_(new)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Hyperparameters:
        # Also the tensors of a network in a kernel, which takes scores in float32. A parameter in half precision would
        # lose small steps, and its gradient, a difference of sums over pairs, most of its digits.
        def precise(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            return tensor.to(found.device) if is_less_precise(found, tensor) else found

        return super()._apply(precise, recurse)  # type: ignore[no-untyped-call]

    def get_extra_state(self) -> Tensor:
        """Return a checksum of the hyper-parameters' names, then their numbers, in float64, for `state_dict`."""
        numbers = [number for _, values in self._numbers() for number in values]
        return torch.tensor([self._checksum(), *numbers], dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the hyper-parameters from the result of :meth:`get_extra_state`, for `load_state_dict`.

        Raises:
            TypeError: if the state is not a tensor.
            ValueError: if the state belongs to a kernel with different hyper-parameters or a different number of
                values, or if a value is out of range.
        """
        for name, value in self._loaded(state).items():
            super().__setattr__(name, value)  # type: ignore[arg-type]

    def _loaded(self, state: object) -> dict[str, float | tuple[float, ...]]:
        """Return the hyper-parameters in a state, or raise."""
        if not isinstance(state, Tensor):
            raise TypeError(f"state of {type(self).__name__}: expected a tensor, got {checks.described(state)}")
        if state.is_meta:
            raise ValueError(f"state of {type(self).__name__}: expected numbers, got a tensor on the meta device")
        wanted = self._numbers()
        checksum, *numbers = state.flatten().tolist() or [None]
        if self._trainable and len(numbers) > sum(len(values) for _, values in wanted):
            raise ValueError(
                f"state of {type(self).__name__}: expected one that was saved with trainable=True, got one of fixed "
                "hyper-parameters; assign these to a kernel with trainable=True"
            )
        if checksum != self._checksum() or len(numbers) != sum(len(values) for _, values in wanted):
            rounded = "" if state.dtype == torch.float64 else f" that were rounded to {state.dtype}"
            raise ValueError(
                f"state of {type(self).__name__}: expected {[name for name, _ in wanted]} with "
                f"{[len(values) for _, values in wanted]} numbers, got {len(numbers)} numbers{rounded} or another "
                "kernel's state"
            )
        remaining = iter(numbers)
        loaded: dict[str, float | tuple[float, ...]] = {}
        for name, old in wanted:
            found = tuple(next(remaining) for _ in old)
            several = isinstance(getattr(self, name), tuple)
            loaded[name] = self._converted(name, found if several else self._stored(name, found[0]))
        self._check({name: value if isinstance(value, tuple) else (value,) for name, value in loaded.items()})
        return loaded

    def _stored(self, name: str, number: float) -> float:
        """Return a number as it was before it was stored as a float."""
        return number

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:  # noqa: ANN401
        # PyTorch loads module by module. All states of a sum are checked before the first one changes anything.
        for path, module in self.named_modules(prefix=prefix.removesuffix("."), remove_duplicate=False):
            state = state_dict.get(f"{path}.{_EXTRA_STATE}" if path else _EXTRA_STATE)
            if isinstance(module, Hyperparameters) and state is not None:
                module._loaded(state)
        # As in :meth:`_apply`. PyTorch passes the same dictionary, a copy of the user's, to all modules of a kernel.
        for name, tensor in self.state_dict(prefix=prefix).items():
            found = state_dict.get(name)
            if isinstance(found, Tensor) and isinstance(tensor, Tensor) and is_less_precise(found, tensor):
                state_dict[name] = found.detach().to(tensor.dtype)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        """Return the hyper-parameters, for `repr`."""
        shown = [f"{name}={_shown(getattr(self, name))}" for name in self._hyperparameters]
        return ", ".join([*shown, "trainable=True"] if self._trainable else shown)

    def _numbers(self) -> list[tuple[str, tuple[float, ...]]]:
        """Return the name and the numbers of each hyper-parameter that is not trained."""
        pairs = ((name, getattr(self, name)) for name in self._fixed())
        return [(name, value if isinstance(value, tuple) else (value,)) for name, value in pairs]

    def _fixed(self) -> tuple[str, ...]:
        return tuple(name for name in self._hyperparameters if name not in self._trained)

    def _checksum(self) -> float:
        return float(zlib.crc32(",".join(self._fixed()).encode()))

    def _converted(self, name: str, value: object) -> float | tuple[float, ...]:
        """Return a new value of a hyper-parameter, a number or a tuple as before, or raise."""
        old = getattr(self, name)
        several = isinstance(old, tuple) or (isinstance(old, Tensor) and old.dim() > 0)
        return checks.hyperparameters(name, value) if several else checks.hyperparameter(name, value)

    def _check(self, values: dict[str, tuple[float, ...]]) -> None:
        """Raise if the hyper-parameters contradict each other."""


class _Trained:
    """The value of a trained hyper-parameter. A number is an attribute of the instance, which takes precedence."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, kernel: Any, owner: type) -> Any:  # noqa: ANN401
        if kernel is None:
            return self
        if self.name not in kernel._trained:
            raise AttributeError(self.name)
        logarithm = getattr(kernel, _log(self.name))
        return logarithm.to(_at_least_float32(logarithm.dtype)).exp()


def number(name: str, value: object) -> float:
    """Return a hyper-parameter that can be trained, see :func:`torch_mmd_losses.checks.hyperparameter`."""
    return _hinted(checks.hyperparameter, name, value)


def numbers(name: str, values: object) -> tuple[float, ...]:
    """Return several of them, see :func:`torch_mmd_losses.checks.hyperparameters`."""
    return _hinted(checks.hyperparameters, name, values)


def _hinted(check: Callable[[str, object], _Value], name: str, value: object) -> _Value:
    """Return `check(name, value)`; if a tensor was refused, explain how to pass a constant, and how to train."""
    try:
        return check(name, value)
    except TypeError as error:
        parts = value if isinstance(value, (list, tuple)) else (value,)
        if not any(isinstance(part, Tensor) for part in parts):
            raise
        raise TypeError(
            f"{error}; for a constant, such as the bandwidth of a batch, call .item() or .tolist(); to train a kernel "
            "that has the option trainable, pass numbers and trainable=True; for other kernels, write a subclass of "
            "Kernel with parameters"
        ) from None


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def is_less_precise(found: Tensor, tensor: Tensor) -> bool:
    """Return whether a tensor in float32 or float64 was converted to half precision."""
    precise = (torch.float32, torch.float64)
    return tensor.dtype in precise and found.is_floating_point() and found.dtype not in precise


def _log(name: str) -> str:
    return f"log_{name}"


def _shown(value: object) -> object:
    """Return a hyper-parameter for `repr`, to six digits if it is a tensor."""
    if not isinstance(value, Tensor):
        return value
    if type(value) is not Tensor or value.is_meta:  # a fake tensor has no value either
        return "..."
    rounded = [float(f"{number:.6g}") for number in value.detach().flatten().tolist()]
    return tuple(rounded) if value.dim() else rounded[0]
