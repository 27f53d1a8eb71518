"""What an iteration costs with each loss, and how much of it is the loss."""

from __future__ import annotations

from pathlib import Path

from sweeps.summary import NONE, markdown

from studies import timing


def table(raw: Path) -> str:
    """Return the table."""
    rows = [
        [
            ", ".join([settings[0][1], *(f"{option} {value}" for option, value in settings[1:])]),
            f"{cost.milliseconds:.1f}",
            NONE if cost.share_of_loss is None else f"{100 * cost.share_of_loss:.1f} %",
        ]
        for settings, cost in timing.costs(raw).items()
    ]
    return markdown(["loss", "CPU ms an iteration", "share of the loss"], rows or [[NONE] * 3])
