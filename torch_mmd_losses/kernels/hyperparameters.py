"""Modules with numbers that are checked when assigned and stored in the state dict."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn

from torch_mmd_losses import checks


class Hyperparameters(nn.Module):
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
        return torch.tensor([self._checksum(), *numbers], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the hyper-parameters from the result of :meth:`get_extra_state`, for `load_state_dict`.

        Raises:
            ValueError: if the state belongs to a kernel with other hyper-parameters, or with another number of values,
                or if a value is out of range.
        """
        wanted = self._numbers()
        checksum, *numbers = state.tolist()
        if checksum != self._checksum() or len(numbers) != sum(len(values) for _, values in wanted):
            raise ValueError(
                f"state of {type(self).__name__}: expected {[name for name, _ in wanted]} with "
                f"{[len(values) for _, values in wanted]} numbers, got {len(numbers)} numbers or another kernel's state"
            )
        remaining = iter(numbers)
        loaded = {name: tuple(checks.positive_number(name, next(remaining)) for _ in old) for name, old in wanted}
        self._check(loaded)
        for name, new in loaded.items():
            super().__setattr__(name, new if isinstance(getattr(self, name), tuple) else new[0])  # type: ignore[arg-type]

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
        return checks.positive_numbers(name, value) if several else checks.positive_number(name, value)

    def _check(self, values: dict[str, tuple[float, ...]]) -> None:
        """Raise if the hyper-parameters contradict each other."""
