"""Raw logs: all that is known of a finished run, as a small file of JSON-lines that goes into the repository.

The kinds of lines are `run` (settings, outcome, configuration), `training` (a line of its log) and `evaluation`
(metrics and provenance of a checkpoint).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dcgan.atomic import write_text
from dcgan.reading import DamagedFileError, has, read_json, read_lines
from dcgan.record import read_log
from sweeps.folders import Folder, Status

Line = dict[str, Any]

NEEDED: dict[str, dict[str, type]] = {
    "run": {"settings": dict, "status": str},
    "training": {"iteration": int},
    "evaluation": {"iteration": int, "metrics": dict},
}
"""The kinds of lines, and what each has at least."""

KINDS = tuple(NEEDED)

ORIGIN = ("checkpoint", "images", "extractor", "seed", "versions", "machine", "date", "command")
"""What a raw log keeps of the provenance of an evaluation."""


def lines(folder: Folder) -> Iterator[Line]:
    """Return the lines of a run that has come to its end."""
    outcome, description = folder.outcome(), folder.description()
    assert outcome is not None
    assert description is not None
    yield {
        "kind": "run",
        **description,
        "status": outcome.status.value,
        "message": outcome.message,
        "iteration": outcome.iteration,
        "configuration": read_json(folder.path / "configuration.json"),
    }
    for line in read_log(folder.path / "log.jsonl"):
        yield {"kind": "training", **_rounded(line)}
    evaluations = sorted((folder.path / "evaluations").glob("*.json"))
    for path in evaluations:
        result = read_json(path, metrics=dict, provenance=dict, class_shares=dict)
        origin = result["provenance"]
        yield {
            "kind": "evaluation",
            "iteration": origin["checkpoint"]["iteration"],
            "metrics": result["metrics"],
            "class_shares": result["class_shares"]["measured"],
            # That of the others is the same but for the checkpoint.
            **({"provenance": {name: origin[name] for name in ORIGIN}} if path == evaluations[-1] else {}),
        }


def export(folder: Folder, to: Path, *, evaluation: str) -> bool:
    """Write the raw log of a run if it is through and not written yet; return whether it was.

    Args:
        folder: the folder of the run.
        to: the folder of raw logs.
        evaluation: the options by which it has to be evaluated, unless it diverged.
    """
    outcome, path = folder.outcome(), to / f"{folder.path.name}.jsonl"
    if outcome is None or path.exists():
        return False
    if outcome.status is Status.DIVERGED or (outcome.status is Status.FINISHED and outcome.evaluated == evaluation):
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines(folder)))
        return True
    return False


def read(path: Path) -> dict[str, list[Line]]:
    """Return the lines of a raw log by their kinds.

    Raises:
        DamagedFileError: if a line is damaged or missing.
    """
    found: dict[str, list[Line]] = {kind: [] for kind in KINDS}
    for number, line in enumerate(read_lines(path, kind=str), 1):
        kind = line.pop("kind")
        if kind not in NEEDED or not has(line, NEEDED[kind]):
            raise DamagedFileError(
                f"{path}, line {number}: expected the entries of a line of a kind, got {kind}: {line}"
            )
        found[kind].append(line)
    if len(found["run"]) != 1 or (found["run"][0]["status"] != Status.DIVERGED.value and not found["evaluation"]):
        raise DamagedFileError(f"{path}: expected one run, with evaluations unless it diverged; lines are missing")
    return found


def _rounded(value: Any) -> Any:  # noqa: ANN401
    """Return numbers with the six digits that float32 has."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value
