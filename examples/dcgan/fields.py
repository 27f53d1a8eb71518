"""Frozen records of settings: what may be in their fields, whether two of them agree, and JSON."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

Record = TypeVar("Record")


def option(
    default: Any,  # noqa: ANN401
    meaning: str,
    *,
    choices: Sequence[object] = (),
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    free: bool = False,
) -> Any:  # noqa: ANN401
    """Describe a field: its default, what it means, what it may be, and whether a resumed run may change it."""
    limits = {"choices": tuple(choices), "least": least, "above": above, "below": below}
    return dataclasses.field(default=default, metadata={"help": meaning, "free": free, **limits})


def check(record: object) -> None:
    """Check all fields of a dataclass whose fields are made by `option`.

    Raises:
        TypeError: if a value is of another type than its field.
        ValueError: if a value is out of range.
    """
    for field in dataclasses.fields(record):  # type: ignore[arg-type]
        check_field(type(record), field, getattr(record, field.name))


def check_field(record: type, field: dataclasses.Field[Any], value: object) -> None:
    """Raise if a field of a dataclass cannot have a value: `TypeError` for its type, `ValueError` for its range."""
    kind, optional = field_type(record, field)
    if value is not None or not optional:
        _check_type(field.name, value, kind)
        _check_range(field, value)


def field_type(record: type, field: dataclasses.Field[Any]) -> tuple[type, bool]:
    """Return the type of the values of a dataclass's field, and whether it may be None."""
    hint = _hints(record)[field.name]
    if isinstance(hint, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None)), True
    return hint, False


@functools.cache
def _hints(record: type) -> dict[str, Any]:
    """Return the types of all fields, whose annotations are text that takes a while to evaluate."""
    return typing.get_type_hints(record)


def _check_type(name: str, value: object, kind: type) -> None:
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):  # which Python takes for a number
        raise TypeError(f"{name}: expected {kind.__name__}, got {value!r}")


def _check_range(field: dataclasses.Field[Any], value: object) -> None:
    limits = field.metadata
    if limits["choices"] and value not in limits["choices"]:
        raise ValueError(f"{field.name}: expected one of {', '.join(map(str, limits['choices']))}; got {value!r}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{field.name}: expected a finite number, got {value}")
        for sign, limit, fits in (
            (">=", limits["least"], value >= limits["least"]),
            (">", limits["above"], value > limits["above"]),
            ("<", limits["below"], value < limits["below"]),
        ):
            if not fits:
                raise ValueError(f"{field.name}: expected a number {sign} {limit}, got {value}")


def to_json(record: object) -> str:
    """Return a dataclass as indented JSON."""
    return json.dumps(dataclasses.asdict(record), indent=2)  # type: ignore[call-overload]


def from_settings(kind: type[Record], settings: object) -> Record:
    """Return the dataclass of a dictionary of its fields; what is missing has its default.

    Raises:
        TypeError: if a value is of the wrong type.
        ValueError: if it is no dictionary, a setting is unknown, or a value is out of range.
    """
    if not isinstance(settings, dict):
        raise ValueError(f"configuration: expected the settings by name, got {settings!r}")
    unknown = settings.keys() - {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise ValueError(f"configuration: unknown settings {', '.join(sorted(map(repr, unknown)))}")
    return kind(**settings)


def changes(before: object, after: object) -> list[str]:
    """Describe the settings that differ and that a resumed run may not change unless it is forced to."""
    return [
        f"{field.name} was {getattr(before, field.name)!r} and is {getattr(after, field.name)!r}"
        for field in dataclasses.fields(after)  # type: ignore[arg-type]
        if not field.metadata["free"] and getattr(before, field.name) != getattr(after, field.name)
    ]
