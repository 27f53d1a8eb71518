"""Which runs a sweep is made of, each with a name that says its settings."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweeps.grids import RATES, Grid, Study, Value

PAIR = ("lr-discriminator", "lr-generator")
"""The options of a pair of learning rates."""

Settings = dict[str, str]
"""Values by option, as they stand on a command line."""

Group = tuple[tuple[str, str], ...]
"""The settings of runs that differ in their learning rates and seed only."""

Pair = tuple[str, str]
"""Learning rates of D and of G."""


@dataclass(frozen=True)
class Run:
    """One training, told by the values of all options that the sweep decides."""

    settings: Settings

    @property
    def name(self) -> str:
        """The name of the run's folder, the same in every sweep with these settings."""
        return ",".join(f"{option}={value}" for option, value in self.settings.items())

    @property
    def options(self) -> list[str]:
        """The settings as options of the training script."""
        return [f"--{option}={value}" for option, value in self.settings.items()]

    @property
    def group(self) -> Group:
        """The settings but the learning rates and the seed."""
        return tuple(item for item in self.settings.items() if item[0] not in (*PAIR, "seed"))

    @property
    def pair(self) -> Pair:
        """The learning rates."""
        return self.settings[PAIR[0]], self.settings[PAIR[1]]

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.settings["seed"])


def text(value: Value) -> str:
    """Return one and the same text for all ways to write a number; other text stays as it is.

    Raises:
        ValueError: if the text cannot stand in the name of a folder.
    """
    try:
        number = float(value)
    except ValueError:
        if not value or set(str(value)) & set("/\\,=") or str(value).startswith("-"):
            raise ValueError(f"expected a number or a plain word, got {value!r}") from None
        return str(value)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else str(number)


def plan(
    study: Study,
    *,
    vary: Grid | None = None,
    pairs: Iterable[tuple[Value, Value]] | Mapping[Group, Pair] | None = None,
    seeds: Sequence[int] = (0,),
) -> list[Run]:
    """Return the runs of a study, seed after seed.

    Args:
        study: what to run.
        vary: options with the values to take in place of those of the study, or beside its options; without any
            value, the option is left to the script.
        pairs: learning rates of D and of G for all settings, or those of each; by default the paper's 16. Settings
            without any are left out.
        seeds: seeds that everything is run with.
    """
    runs: dict[str, Run] = {}
    for seed, settings in itertools.product(seeds, _settings(study, vary or {})):
        group = tuple(settings.items())
        if isinstance(pairs, Mapping):
            chosen = [pairs[group]] if group in pairs else []
        else:
            chosen = [(text(d), text(g)) for d, g in pairs or itertools.product(RATES, repeat=2)]
        for pair in chosen:
            run = Run({**settings, **dict(zip(PAIR, pair, strict=True)), "seed": str(seed)})
            runs.setdefault(run.name, run)
    return list(runs.values())


def share(runs: Sequence[Run], index: int, of: int) -> Sequence[Run]:
    """Return every `of`-th run from the one of an index on, so that all shares together are all runs, each once."""
    return runs[index::of]


def _settings(study: Study, vary: Grid) -> Iterable[Settings]:
    for grid in study.grids:
        # Sorted, so that names do not depend on the order in which somebody thought of the options.
        varied = {option: values for option, values in {**grid, **dict(sorted(vary.items()))}.items() if values}
        for values in itertools.product(*varied.values()):
            yield {option: text(value) for option, value in zip(varied, values, strict=True)}
