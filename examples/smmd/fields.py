"""Frozen records of settings: checks by what :func:`dcgan.configuration.option` says of a field, and JSON.

Like the functions of :mod:`dcgan.configuration`, but for any dataclass.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from typing import Any, TypeVar

Record = TypeVar("Record")


def check(record: object) -> None:
    """Check all fields of a dataclass whose fields are made by `option`.

    Raises:
        TypeError: if a value is of another type than its field.
        ValueError: if a value is out of range.
    """
    hints = typing.get_type_hints(type(record))
    for field in dataclasses.fields(record):  # type: ignore[arg-type]
        kind, optional = _plain(hints[field.name])
        value = getattr(record, field.name)
        if value is not None or not optional:
            _check_type(field.name, value, kind)
            _check_range(field, value)


def _plain(hint: Any) -> tuple[type, bool]:  # noqa: ANN401
    """Return the type of a field's values, and whether it may be None."""
    if isinstance(hint, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None)), True
    return hint, False


def _check_type(name: str, value: object, kind: type) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
        raise TypeError(f"{name}: expected {kind.__name__}, got {value!r}")


def _check_range(field: dataclasses.Field[Any], value: object) -> None:
    limits = field.metadata
    if limits["choices"] and value not in limits["choices"]:
        raise ValueError(f"{field.name}: expected one of {', '.join(map(str, limits['choices']))}; got {value!r}")
    if isinstance(value, int | float):
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
