"""Sheets of samples among the raw logs: the last one of each loss at its best pair, of the first seed."""

from __future__ import annotations

from pathlib import Path

from dcgan.atomic import replacing
from sweeps.plan import Run

from studies import protocol, results


def path(raw: Path, run: Run) -> Path:
    """Return where the sheet of a run is kept."""
    return raw / "sheets" / f"{run.name}.png"


def chosen(raw: Path) -> dict[str, Run]:
    """Return the run of which each loss shows samples, for the losses whose best pair is known."""
    best = results.best_pairs(raw)
    return {loss: protocol.run_of(protocol.setting(loss), pair, protocol.SEEDS[0]) for loss, pair in best.items()}


def export(out: Path, raw: Path) -> list[Run]:
    """Copy the sheets that are not there yet from the folder of the runs, and return the runs that they are of."""
    copied = []
    for run in chosen(raw).values():
        source, target = out / run.name / "samples" / f"iteration-{protocol.ITERATIONS:08d}.png", path(raw, run)
        # Whoever has only the raw logs of others has no sheets to copy.
        if source.exists() and not target.exists():
            with replacing(target) as partial:
                partial.write_bytes(source.read_bytes())
            copied.append(run)
    return copied
