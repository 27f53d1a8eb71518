"""Ask all questions and write the tables and pictures of docs/benchmarks.md: `make benchmarks`.

    python examples/benchmarks/run_all.py              # everything; keep the machine idle
    python examples/benchmarks/run_all.py --only peers # one question; the others keep their last records
    python examples/benchmarks/run_all.py --only       # no question: draw and write the page again
    python examples/benchmarks/run_all.py --quick      # see that everything still runs, and write nothing into docs

Records go to examples/benchmarks/results as JSON lines, pictures to docs/_static. The page is replaced below its mark.
`common` describes the parts of a question.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import compile_time
import counts
import estimator_error
import floor
import global_batch
import loss_time
import memory
import modern
import peers
import reference_forms
import roofline
import spectral_norm_error
import spectral_norm_time
import threads
import trained_kernels
import training_step
import two_sample_power
import two_sample_time
import variance_levels
from common import Record, Target, ask, folder_of, keep_freed_memory, markdown, name_of, options_of, read, reader, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTIONS: tuple[ModuleType, ...] = (
    loss_time,
    peers,
    floor,
    memory,
    trained_kernels,
    counts,
    threads,
    global_batch,
    estimator_error,
    reference_forms,
    spectral_norm_time,
    spectral_norm_error,
    compile_time,
    training_step,
    roofline,
    two_sample_power,
    two_sample_time,
    variance_levels,
    modern,
)

DOCS = Path(__file__).parents[2] / "docs"
MARK = "<!-- The tables are written by examples/benchmarks/run_all.py. -->\n"
END = "<!-- Their end. -->\n"


def conditions(run: Record, cores: str = "one") -> str:
    """Return the command, the machine, the date and the versions of records."""
    versions = ", ".join(f"{package} {version}" for package, version in run["versions"].items())
    return (
        f"`{run['command']}` on {cores} of {run['cores']} cores of {run['processor']} ({run['system']}), "
        f"{run['date']}; {versions}."
    )


def section(question: ModuleType, run: Record, records: list[Record], picture: Path | None) -> str:
    """Return the part of the page on one question."""
    parts = [f"## {title(question)}"]
    if picture is not None:
        parts.append(f"![{title(question)}](_static/{picture.name})")
    return "\n\n".join([*parts, question.table(records), conditions(run, getattr(question, "CORES", "one"))])


def table_of_targets(found: Sequence[Target]) -> str:
    """Return a line for each target, those that are not met in bold."""
    words = {None: "not measured", True: "yes", False: "**no**"}
    rows = []
    for target in found:
        bound = f"{'≥' if target.least else '≤'} {target.limit:g}"
        rows.append(
            [target.what, bound, "" if target.measured is None else f"{target.measured:.3g}", words[target.met]]
        )
    return markdown(["what", "target", "measured", "met"], rows)


def draw(question: ModuleType, records: list[Record], folder: Path) -> Path | None:
    """Draw a question that can be drawn, and return the picture's file."""
    if not hasattr(question, "draw"):
        return None
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(8, 3.6), dpi=100, layout="constrained")
    question.draw(records, figure)
    path = folder / f"benchmark-{name_of(question).replace('_', '-')}.png"
    figure.savefig(path, metadata={"Software": None})
    return path


def page(results: Path, docs: Path) -> str:
    """Draw the pictures and return the part of the page between its marks."""
    folder = docs / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Target] = []
    sections = []
    for question in QUESTIONS:
        last = read(question, results)
        if last is not None:
            sections.append(section(question, *last, draw(question, last[1], folder)))
        if hasattr(question, "targets"):
            found += question.targets(last[1] if last else [])
    return "\n\n".join(["## Targets", table_of_targets(found), *sections]) + "\n"


def write(results: Path, docs: Path) -> None:
    """Replace the part of the page between its marks, or start a page."""
    path = docs / "benchmarks.md"
    head, _, rest = (path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks\n\n").partition(MARK)
    path.write_text(f"{head}{MARK}\n{page(results, docs)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = reader(str(__doc__))
    names = [name_of(question) for question in QUESTIONS]
    parser.add_argument("--only", nargs="*", choices=names, metavar="QUESTION", help=f"some of {', '.join(names)}")
    parser.add_argument("--docs", type=Path, help="where the page is (default: docs; --quick: with the records)")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Ask, then write."""
    read_words = arguments(words)
    results = folder_of(read_words)
    for question in QUESTIONS:
        if read_words.only is None or name_of(question) in read_words.only:
            print(f"\n{title(question)}", flush=True)
            print(question.table(ask(question, options_of(read_words), results)), flush=True)
    write(results, read_words.docs or (results if read_words.quick else DOCS))


if __name__ == "__main__":
    keep_freed_memory()
    main()
