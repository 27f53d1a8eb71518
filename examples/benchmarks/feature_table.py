"""Which features do other libraries with MMD have, and what do they compute?

Each answer in the tables of docs/comparison.md comes from running the library: `compared/probes.py` has the questions,
`compared/libraries.py` the calls, and `compared/elsewhere.py` the features that this library does not have.

    python examples/benchmarks/feature_table.py                # ask all that is installed, and write the page
    python examples/benchmarks/feature_table.py --only losses  # one table anew; the others keep their last records
    python examples/benchmarks/feature_table.py --only         # no table: write the page from the last records

Most of the libraries are in the environment of `make paper-test`. The others are hyppo, POT and KeOps:

    make .venv-paper/done
    .venv-paper/bin/python -m pip install hyppo pot pykeops

A library that is not installed keeps its column, which says "not checked".
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from common import RESULTS, Record, machine, markdown, progress
from compared import in_processes, kernels
from compared.elsewhere import ELSEWHERE
from compared.libraries import LIBRARIES, Library
from compared.probes import LARGE, LOSS, METRIC, TEST, Answer, Probe, megabytes, megabytes_here, quiet

PAGE = Path(__file__).parents[2] / "docs" / "comparison.md"
BEGIN, END = "<!-- written by examples/benchmarks/feature_table.py: {} -->", "<!-- its end -->"

JOINT = "several processes: exact gradient of the joint batch"
MEMORY = f"MB for value and gradient, {LARGE[0]:,} + {LARGE[0]:,} samples"
VALUE_MEMORY = f"MB for the value, {LARGE[0]:,} + {LARGE[0]:,} samples"
KEOPS = "the same with KeOps"
BATCHES = "metric object that is given batches"
SHARED = "several processes share its state"


NOT_CHECKED = "not checked"


class Table(NamedTuple):
    """Libraries, and what they are asked."""

    libraries: tuple[str, ...]
    probes: dict[str, Probe]
    of_name: dict[str, Callable[[str], Answer | str]]
    """Probes that start processes and get the name of the library."""


def _megabytes(name: str) -> float:
    return megabytes(name, Path(__file__))


def _megabytes_with_keops(name: str) -> Answer | str:
    with_keops = f"{name}, KeOps"
    if with_keops not in LIBRARIES:
        return None
    return _megabytes(with_keops) if find_spec("pykeops") else NOT_CHECKED


TABLES = {
    "losses": Table(
        ("this library", "geomloss", "pytorch-adapt", "sbi", "alibi-detect"),
        LOSS,
        {JOINT: in_processes.has_loss_of_joint_batch, MEMORY: _megabytes, KEOPS: _megabytes_with_keops},
    ),
    "metrics": Table(
        ("this library, KID", "torchmetrics", "torch-fidelity", "PyTorch-Ignite"),
        METRIC,
        {BATCHES: in_processes.accumulates, SHARED: in_processes.shares_its_state, VALUE_MEMORY: _megabytes},
    ),
    "tests": Table(("this library", "alibi-detect", "hyppo", "TorchDrift"), TEST, {}),
}

WORDS = {True: "yes", False: "no", None: "-"}


def installed(name: str) -> tuple[Library | None, str]:
    """Return a library and its version, or why it cannot be asked."""
    try:
        library = LIBRARIES[name]()
        return library, library.version
    except (ImportError, PackageNotFoundError) as problem:
        return None, f"{type(problem).__name__}: {problem}"


def ask(table: str, names: Sequence[str] | None = None) -> Iterator[Record]:
    """Run the probes of a table on each of its libraries."""
    libraries, probes, of_name = TABLES[table]
    for name in libraries:
        if names and name not in names:
            continue
        library, found = installed(name)
        place = {"table": table, "library": name}
        if library is None:
            yield {**place, "why": found}
            continue
        for feature, probe in probes.items():
            progress(name, feature)
            answer, error = quiet(partial(probe, library))
            yield {**place, "version": found, "feature": feature, "answer": answer, "error": error}
        for feature, probe_of_name in of_name.items():
            progress(name, feature)
            answer, error = quiet(partial(probe_of_name, name))
            yield {**place, "version": found, "feature": feature, "answer": answer, "error": error}


def ask_kernels() -> Iterator[Record]:
    """Find out which kernels each library has, and in which formula its bandwidth stands."""
    for name, offers in kernels.OFFERS.items():
        progress(name, "kernels")
        place = {"table": "kernels", "library": name}
        try:
            offer = offers()
        except ImportError as problem:
            yield {**place, "why": str(problem)}
            continue
        formula = kernels.formula(offer)
        yield {**place, "kernels": kernels.kernels(offer), "parameter": offer.parameter, "formula": formula}


def ask_elsewhere() -> Iterator[Record]:
    """Run the calls that other libraries have."""
    for feature, library, package, shows in ELSEWHERE:
        progress(library, feature)
        place = {"table": "elsewhere", "library": library, "feature": feature}
        try:
            installed_version = version(package)
        except PackageNotFoundError as problem:
            yield {**place, "why": str(problem)}
            continue
        answer, error = quiet(shows)
        if error.startswith(ModuleNotFoundError.__name__):
            yield {**place, "why": error}
        else:
            yield {**place, "version": installed_version, "answer": answer, "error": error}


def measure(tables: Sequence[str], last: Sequence[Record]) -> list[Record]:
    """Return how the records were made, then records of some tables anew, and the last ones of the other tables."""
    torch.set_num_threads(1)
    asked: dict[str, Callable[[], Iterator[Record]]] = {table: partial(ask, table) for table in TABLES}
    asked |= {"kernels": ask_kernels, "elsewhere": ask_elsewhere}
    run = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "command": "python examples/benchmarks/feature_table.py",
        **machine(),
    }
    records = [run]
    for table, question in asked.items():
        records += question() if table in tables else [r for r in last if r["table"] == table]
    return records


def in_words(answer: Answer | str) -> str:
    """Return an answer as the cell of a table."""
    if isinstance(answer, str):
        return answer
    return WORDS[answer] if answer is None or isinstance(answer, bool) else f"{answer:,.0f}"


def features(table: str, records: Sequence[Record]) -> str:
    """Return a table with a row for each feature and a column for each library."""
    libraries, probes, of_name = TABLES[table]
    found = {
        (r["library"], r["feature"]): in_words(r["answer"]) for r in records if r["table"] == table and "why" not in r
    }
    rows = [
        [feature, *(found.get((library, feature), NOT_CHECKED) for library in libraries)]
        for feature in [*probes, *of_name]
    ]
    return "\n\n".join([markdown(["", *libraries], rows), *errors(table, records)])


def errors(table: str, records: Sequence[Record]) -> list[str]:
    """Return a list of the errors that libraries raised."""
    raised = [r for r in records if r["table"] == table and r.get("error")]
    lines = [f"- {r['library']}, {r['feature']}: `{r['error']}`" for r in raised]
    return ["Errors:\n\n" + "\n".join(lines)] if lines else []


def offered(records: Sequence[Record]) -> str:
    """Return a table of the kernels of each library, and of the formula of its bandwidth."""
    rows = []
    for r in records:
        if r["table"] == "kernels" and "why" in r:
            rows.append([r["library"], NOT_CHECKED, ""])
        elif r["table"] == "kernels":
            formula = f"`{r['parameter']}` = s in `{r['formula']}`" if r["formula"] else "-"
            rows.append([r["library"], ", ".join(r["kernels"]), formula])
    return markdown(["library", "kernels", "bandwidth"], rows)


def elsewhere(records: Sequence[Record]) -> str:
    """Return a table of the features that this library does not have, and who has them."""
    rows = []
    for feature in dict.fromkeys(entry.feature for entry in ELSEWHERE):
        cells = []
        for r in records:
            if r["table"] == "elsewhere" and r["feature"] == feature:
                answer = NOT_CHECKED if "why" in r else in_words(r["answer"])
                cells.append(r["library"] if answer == "yes" else f"{r['library']}: {answer}")
        rows.append([feature, ", ".join(cells)])
    return markdown(["feature", "library"], rows)


def versions(run: Record, records: Sequence[Record]) -> str:
    """Return when, where and with what the records were made."""
    found = {r["library"]: r["version"] for r in records if "version" in r and r["library"] != "this library, KID"}
    listed = ", ".join(f"{library} {number}" for library, number in found.items())
    return (
        f"`{run['command']}`, {run['date']}, {run['processor']} ({run['system']}), Python {run['versions']['Python']}, "
        f"torch {run['versions']['torch']}: {listed}."
    )


def written(page: str, run: Record, records: Sequence[Record]) -> str:
    """Return the page with its marked parts made anew."""
    parts = {table: features(table, records) for table in TABLES}
    parts |= {"kernels": offered(records), "elsewhere": elsewhere(records), "versions": versions(run, records)}
    for name, text in parts.items():
        before, begin, rest = page.partition(BEGIN.format(name))
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise LookupError(f"{PAGE.name}: expected the marks of the part {name!r}")
        page = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    return page


def read(path: Path) -> list[Record]:
    """Return the last records, after one that says how they were made, or only an empty one if there are none."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else ["{}"]
    return [json.loads(line) for line in lines]


def main(words: Sequence[str] | None = None) -> None:
    """Ask, keep the records and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = (*TABLES, "kernels", "elsewhere")
    parser.add_argument("--only", nargs="*", choices=names, default=names, metavar="TABLE", help=", ".join(names))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.one:
        print(json.dumps(megabytes_here(arguments.one)))
        return
    path = RESULTS / "feature_table.jsonl"
    run, *records = read(path)
    if arguments.only:
        run, *records = measure(arguments.only, records)
        path.write_text("".join(json.dumps(record) + "\n" for record in (run, *records)), encoding="utf-8")
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), run, records), encoding="utf-8")


if __name__ == "__main__":
    main()
