"""Results as files of JSON, one for each evaluation, that never replace another unless told so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dcgan.atomic import write_text
from dcgan.reading import DamagedFileError, read_json

from evaluation.comparison import Comparison
from evaluation.features import Features

FOLDER = "evaluations"
"""Where in a run its results are."""

Result = dict[str, Any]
"""`metrics` by name, and `provenance`."""


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise `FileExistsError` if there is a result that may not be replaced."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another --out, or --overwrite to replace it")


def write(path: Path, result: Result) -> None:
    """Write a result, complete or not at all; a number that is not finite raises `ValueError`."""
    write_text(path, json.dumps(result, indent=2, allow_nan=False) + "\n")


def read_all(run: Path) -> list[Result]:
    """Return the results of a run in the order of their names; of a file, that result.

    Raises:
        ValueError: if a file is no result.
    """
    return [_read(path) for path in ([run] if run.is_file() else sorted((run / FOLDER).glob("*.json")))]


def name(comparison: Comparison, features: Features, count: int) -> str:
    """Return the name of the file of a result: what distinguishes it from others of the same run."""
    seed = f"-seed-{comparison.real.seed}" if comparison.real.seed else ""
    return f"{comparison.label}-{features.name}-{comparison.real.split}-{count}{seed}.json"


def _read(path: Path) -> Result:
    try:
        return read_json(path, metrics=dict, provenance=dict)
    except DamagedFileError as error:
        raise ValueError(f"{path} is no result of examples/evaluate.py: {error}") from error
