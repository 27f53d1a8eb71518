"""Code that all benchmarks share: options, fair timing, records on disk, tables and targets.

A question is a module whose docstring starts with the question. It has two functions:

* `measure(options: Options) -> list[Record]` does the work. A record is a flat dictionary that JSON can hold.
* `table(records: list[Record]) -> str` makes a Markdown table of it.

and may have two more:

* `targets(records: list[Record]) -> list[Target]` compares the records with the promises of the library.
* `draw(records: list[Record], figure: Figure) -> None` draws them.

To add one, write the module, end it with `main(sys.modules[__name__])`, and name it in `run_all.QUESTIONS`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any, NamedTuple

import torch

import torch_mmd_losses

RESULTS = Path(__file__).parent / "results"
QUICK_RESULTS = Path(__file__).parents[2] / "build" / "benchmarks"
PACKAGES = ("numpy", "geomloss", "alibi-detect", "pytorch-adapt", "pytorch-metric-learning", "sbi")

TURN = 0.002
"""Seconds of one turn of a candidate, if one call takes less."""

KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**35), "MALLOC_TRIM_THRESHOLD_": str(2**35)}
"""Tells glibc's allocator, which reads its variables once, before Python starts, to keep freed memory."""

Record = dict[str, Any]

Size = tuple[int, int]
"""The number of samples of each group, and the dimension of the scores."""


class Options(NamedTuple):
    """The options of every question.

    `seconds` is about how long to time each line of a table, `up_to` leaves out larger samples, `quick` asks for sizes
    that take no time and say nothing, and `largest` for the one run that takes minutes.
    """

    seconds: float = 5.0
    seed: int = 0
    up_to: int | None = None
    quick: bool = False
    largest: bool = False

    def flags(self) -> list[str]:
        """Return them as words of a command."""
        numbers = [f"--seconds {self.seconds:g}", f"--seed {self.seed}"]
        if self.up_to is not None:
            numbers.append(f"--up-to {self.up_to}")
        return numbers + [f"--{name}" for name in ("quick", "largest") if getattr(self, name)]

    def sizes(self, all_of_them: Iterable[Size], quick: Iterable[Size]) -> list[Size]:
        """Return the sizes `(n, d)` to measure."""
        return list(quick) if self.quick else [(n, d) for n, d in all_of_them if n <= (self.up_to or n)]


class Target(NamedTuple):
    """A promise: `measured` is at most `limit`, or at least if `least` is set; None if it was not measured."""

    what: str
    limit: float
    measured: float | None
    least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the promise is kept."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.least else self.measured <= self.limit


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of a call in this process, without the time of other processes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def medians(candidates: Mapping[str, Callable[[], object]], seconds: float, least: int = 3) -> dict[str, float]:
    """Return the median CPU seconds of each candidate.

    The candidates take turns, round after round, for about `seconds` in total and at least `least` times, so a
    temporary slowdown of the machine affects all of them. A turn is one call, or as many calls as take about `TURN`,
    since the clock and the change of work take time, too. The first calls, which fill caches and determine the number
    of calls and rounds, are not counted.
    """
    once = {name: cpu_seconds(work) for name, work in candidates.items()}
    calls = dict.fromkeys(candidates, 1)
    if sum(once.values()) < 1:
        calls = {name: _calls_in_a_turn(work) for name, work in candidates.items()}
        once = {name: cpu_seconds(_repeated(work, calls[name])) for name, work in candidates.items()}
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(max(least, int(seconds / max(sum(once.values()), 1e-6)))):
        for name, work in candidates.items():
            times[name].append(cpu_seconds(_repeated(work, calls[name])) / calls[name])
    return {name: median(values) for name, values in times.items()}


def _calls_in_a_turn(work: Callable[[], object]) -> int:
    """Return how many calls in a row take about `TURN`: a call after other work can take several times as long."""
    calls, taken = 1, cpu_seconds(work)
    while taken < TURN:
        calls *= 2
        taken = cpu_seconds(_repeated(work, calls))
    return max(1, int(calls * TURN / max(taken, 1e-6)))


def _repeated(work: Callable[[], object], calls: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(calls):
            work()

    return run


def keep_freed_memory() -> None:
    """Restart this process with an allocator that keeps freed memory, unless it has one.

    Otherwise glibc returns large blocks to the system, and the times include page faults.
    """
    if sys.platform == "linux" and any(name not in os.environ for name in KEPT):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **KEPT})


def environment(*, kept: bool) -> dict[str, str]:
    """Return that of a new process whose allocator keeps freed memory, or else is as users have it."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    return {**plain, **KEPT} if kept else plain


def printed_by(script: str, *arguments: object) -> Any:  # noqa: ANN401
    """Return the JSON output of a benchmark for `--one ARGUMENTS`, in a new process with the default allocator."""
    command = [sys.executable, script, "--one", json.dumps(arguments)]
    finished = subprocess.run(command, env=environment(kept=False), stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(finished.stdout)


def progress(*what: object) -> None:
    """Print the current measurement to the error stream, apart from the tables."""
    print(" ", *what, file=sys.stderr, flush=True)


def machine() -> Record:
    """Return the processor, the system and the versions that a measurement depends on."""
    found = {
        "torch-mmd-losses": torch_mmd_losses.__version__,
        "Python": platform.python_version(),
        "torch": torch.__version__,
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": found,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def ask(question: ModuleType, options: Options, folder: Path) -> list[Record]:
    """Measure, and write a file of JSON lines into `folder`: how it was measured, then the records."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    records: list[Record] = question.measure(options)
    run = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "command": " ".join(["python", f"examples/benchmarks/{name_of(question)}.py", *options.flags()]),
        **machine(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(line) + "\n" for line in (run, *records)]
    (folder / f"{name_of(question)}.jsonl").write_text("".join(lines), encoding="utf-8")
    return records


def read(question: ModuleType, folder: Path) -> tuple[Record, list[Record]] | None:
    """Return how a question was last measured, and the records; None if it was not."""
    path = folder / f"{name_of(question)}.jsonl"
    if not path.exists():
        return None
    run, *records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return run, records


def name_of(question: ModuleType) -> str:
    """Return the name of the file, also if it is the script that was started."""
    return Path(str(question.__file__)).stem


def title(question: ModuleType) -> str:
    """Return the question."""
    return str(question.__doc__).splitlines()[0]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def reader(description: str) -> argparse.ArgumentParser:
    """Return a parser of the options that all scripts have."""
    default = Options()
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=default.seconds, help="about how long to time each line")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--up-to", type=int, metavar="SAMPLES", help="leave out work with more samples in a group")
    parser.add_argument("--quick", action="store_true", help="sizes that take no time and say nothing")
    parser.add_argument("--largest", action="store_true", help="also (100000, 64), which takes minutes")
    parser.add_argument("--results", type=Path, help="where to write the records (default: results)")
    return parser


def options_of(arguments: argparse.Namespace) -> Options:
    """Return the options that were read."""
    chosen = Options(*(getattr(arguments, name) for name in Options._fields))
    return chosen._replace(seconds=0.0) if chosen.quick else chosen


def folder_of(arguments: argparse.Namespace) -> Path:
    """Return where to write the records: those of a quick run say nothing and are kept apart."""
    default = QUICK_RESULTS if arguments.quick else RESULTS
    return arguments.results or default


def main(question: ModuleType) -> None:
    """Ask one question from the command line and print the table."""
    keep_freed_memory()
    arguments = reader(str(question.__doc__)).parse_args()
    print(question.table(ask(question, options_of(arguments), folder_of(arguments))))
