"""What a run says while it goes: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Any

SHOWN = ("loss_discriminator", "loss_generator", "k_rr", "k_rf", "k_ff", "images_per_second", "iterations_per_second")
"""Numbers of the log that are shown."""


class Progress:
    """Says how far a run is.

    Args:
        first: iterations that were done before.
        last: iterations to be done in all.
        quiet: say nothing.
    """

    def __init__(self, first: int, last: int, *, quiet: bool) -> None:
        self._last = last
        self._plain = not quiet and not sys.stderr.isatty()
        self._bar: Any = None
        if not quiet and not self._plain:
            from tqdm import tqdm

            self._bar = tqdm(total=last, initial=first, unit="step", dynamic_ncols=True)

    def advance(self) -> None:
        """Count an iteration."""
        if self._bar is not None:
            self._bar.update()

    def show(self, line: dict[str, Any]) -> None:
        """Show a line of the log."""
        numbers = {name: f"{line[name]:.4g}" for name in SHOWN if name in line}
        if self._bar is not None:
            self._bar.set_postfix(numbers)
        elif self._plain:
            listed = ", ".join(f"{name} {number}" for name, number in numbers.items())
            print(f"iteration {line['iteration']:,} of {self._last:,}: {listed}", flush=True)

    def close(self) -> None:
        """Leave the terminal in order."""
        if self._bar is not None:
            self._bar.close()
