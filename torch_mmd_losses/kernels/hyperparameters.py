"""Modules with numbers that are checked when assigned and stored in the state dict."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torch_mmd_losses import checks

_EXTRA_STATE = "_extra_state"


class LoadedAsAWhole(nn.Module):
    """A module that stays as it was if its state cannot be loaded. PyTorch's modules keep the part before the error."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:  # noqa: ANN401
        """Load a state, or raise and change nothing, see :meth:`torch.nn.Module.load_state_dict`."""
        before = copy.deepcopy(self.state_dict())
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except Exception:
            super().load_state_dict(before)
            raise


class Hyperparameters(LoadedAsAWhole):
    """A module whose hyper-parameters are Python floats, exact in every precision.

    A subclass lists their names in `_hyperparameters` and assigns them in `__init__`, each a number or a tuple of
    numbers. Later assignments are checked like the first assignment.
    """

    _hyperparameters: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> None:
        if name in self._hyperparameters and name in self.__dict__:
            # A tensor is refused too: if it was meant to be trained, it would get no gradient.
            value = self._converted(name, value)
            self._check(dict(self._numbers()) | {name: value if isinstance(value, tuple) else (value,)})
        super().__setattr__(name, value)  # type: ignore[arg-type]

    def get_extra_state(self) -> Tensor:
        """Return a checksum of the hyper-parameters' names, then their numbers, in float64, for `state_dict`."""
        numbers = [number for _, values in self._numbers() for number in values]
        return torch.tensor([self._checksum(), *numbers], dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the hyper-parameters from the result of :meth:`get_extra_state`, for `load_state_dict`.

        Raises:
            TypeError: if the state is not a tensor.
            ValueError: if the state belongs to a kernel with other hyper-parameters, or with another number of values,
                or if a value is out of range.
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
        if checksum != self._checksum() or len(numbers) != sum(len(values) for _, values in wanted):
            raise ValueError(
                f"state of {type(self).__name__}: expected {[name for name, _ in wanted]} with "
                f"{[len(values) for _, values in wanted]} numbers, got {len(numbers)} numbers or another kernel's state"
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

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:  # noqa: ANN401
        # PyTorch loads module by module. All states of a sum are checked before the first one changes anything.
        for path, module in self.named_modules(prefix=prefix.removesuffix("."), remove_duplicate=False):
            state = state_dict.get(f"{path}.{_EXTRA_STATE}" if path else _EXTRA_STATE)
            if isinstance(module, Hyperparameters) and state is not None:
                module._loaded(state)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def extra_repr(self) -> str:
        """Return the hyper-parameters, for `repr`."""
        return ", ".join(f"{name}={getattr(self, name)}" for name in self._hyperparameters)

    def _numbers(self) -> list[tuple[str, tuple[float, ...]]]:
        """Return the name and the numbers of each hyper-parameter."""
        pairs = ((name, getattr(self, name)) for name in self._hyperparameters)
        return [(name, value if isinstance(value, tuple) else (value,)) for name, value in pairs]

    def _checksum(self) -> float:
        return float(zlib.crc32(",".join(self._hyperparameters).encode()))

    def _converted(self, name: str, value: object) -> float | tuple[float, ...]:
        """Return a new value of a hyper-parameter, a number or a tuple as before, or raise."""
        several = isinstance(getattr(self, name), tuple)
        return checks.hyperparameters(name, value) if several else checks.hyperparameter(name, value)

    def _check(self, values: dict[str, tuple[float, ...]]) -> None:
        """Raise if the hyper-parameters contradict each other."""
