"""Tables of the records of a run on a GPU, even if it was stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from common import markdown

Record = dict[str, Any]


def tables(records: list[Record]) -> str:
    """Return all tables, and a list of failed or missing parts."""
    by_part: dict[str, list[Record]] = {}
    for record in records:
        by_part.setdefault(record["part"], []).append(record)
    sections = [conditions(by_part), outcome(by_part)]
    for part, (title, table) in TABLES.items():
        found = table([record for record in by_part.get(part, []) if "ended" not in record])
        if found:
            sections.append(f"### {title}\n\n{found}")
    return "\n\n".join(section for section in [*sections, failures(records)] if section) + "\n"


def conditions(by_part: dict[str, list[Record]]) -> str:
    """Return where, when and with what the records were made."""
    (run, *_), facts = by_part["run"], next(iter(by_part.get("device", [])), {})
    where = facts.get("device", "an unknown device")
    versions = ", ".join(f"{name} {number}" for name, number in facts.get("versions", {}).items())
    toolkit = ", ".join(f"{key} {facts[key]}" for key in ("CUDA", "HIP", "cuDNN", "triton") if facts.get(key))
    rehearsal = " **A rehearsal: its numbers say nothing.**" if run["rehearsal"] else ""
    return f"`{run['command']}` on {where}, {run['date']}; {versions}; {toolkit or 'no CUDA'}.{rehearsal}"


def outcome(by_part: dict[str, list[Record]]) -> str:
    """Return a line for each part: how it ended."""
    rows = []
    for part, records in by_part.items():
        if part not in ("run", "end"):
            end = next((record for record in records if "ended" in record), None)
            rows.append(
                [
                    part,
                    str(sum("ended" not in record for record in records)),
                    "" if end is None else f"{end['seconds']:.0f}",
                    "was interrupted" if end is None else end["ended"].splitlines()[0][:100],
                ]
            )
    return markdown(["part", "records", "[s]", "ended"], rows)


def of_losses(records: list[Record]) -> str:
    """Return a line for each size, kernel and loss, compared with plain autograd."""
    plain = {_place(r): r for r in records if r.get("candidate") == "plain" and "seconds" in r}
    rows = []
    for r in records:
        if "seconds" in r:
            beside = plain.get(_place(r))
            rows.append(
                [
                    f"{r['n']}, {r['d']}",
                    r["kernel"],
                    r["candidate"],
                    f"{r['seconds'] * 1e3:.3g}",
                    "" if beside is None else f"{r['seconds'] / beside['seconds']:.2f}",
                    _megabytes(r.get("bytes")),
                    *(_number(r.get(key)) for key in ("kernels", "copies")),
                    waits(r),
                ]
            )
    header = ["samples, d", "kernel", "loss", "[ms]", "/ plain", "extra [MB]", "kernels", "copies", "waits"]
    return markdown(header, rows) if rows else ""


def _place(record: Record) -> tuple[object, ...]:
    return record.get("n"), record.get("d"), record.get("kernel")


def waits(record: Record) -> str:
    """Return how often the host waits for the GPU in a call, as the driver and as PyTorch say; the most counts."""
    found = [record[key] for key in ("waits", "reported") if record.get(key) is not None]
    return str(max(found)) if found else ""


def of_large(records: list[Record]) -> str:
    """Return the times of large samples, and the errors of their values."""
    exact = [r for r in records if "in_float64" in r]
    lines = [
        f"MMD^2 of {r['n']} samples with d = {r['d']}: {r['value']:.6g} in float32, {r['in_float64']:.6g} in float64."
        for r in exact
    ]
    return "\n\n".join(filter(None, [of_losses(records), *lines]))


def of_steps(records: list[Record]) -> str:
    """Return whole steps, then the shares of their parts."""
    rows = [
        [r["precision"], r["what"], f"{r['seconds'] * 1e3:.3g}", f"{r['images'] / r['seconds']:.0f}", *_counted(r)]
        for r in records
        if "seconds" in r and "what" in r
    ]
    parts = [markdown(["precision", "step", "[ms]", "images / s", "kernels", "waits"], rows)] if rows else []
    shares = [r for r in records if "part_of_step" in r and "seconds" in r]
    names = list(dict.fromkeys(r["precision"] for r in shares))
    table = {(r["precision"], r["part_of_step"]): r["seconds"] for r in shares}
    whole = {r["precision"]: r["seconds"] for r in records if "`conv`" in str(r.get("what")) and "seconds" in r}
    rows = [
        [part, *(_share(table.get((name, part)), whole.get(name)) for name in names)]
        for part in dict.fromkeys(r["part_of_step"] for r in shares)
    ]
    if rows:
        parts.append(markdown(["part, done alone: [ms], share of the step", *names], rows))
    return "\n\n".join(parts)


def _share(seconds: float | None, whole: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1e3:.3g}" + ("" if whole is None else f", {seconds / whole:.1%}")


def _counted(record: Record) -> list[str]:
    return [_number(record.get("kernels")), waits(record)]


def of_tests(records: list[Record]) -> str:
    """Return how many tests passed, and those that did not."""
    count = Counter(r["outcome"] for r in records if "outcome" in r)
    lines = [", ".join(f"{number} {kind}" for kind, number in count.items())] if count else []
    lines += [f"- {r['test']}: {r['outcome']}" for r in records if r.get("outcome") in ("failed", "not collected")]
    return "\n".join(lines)


def failures(records: list[Record]) -> str:
    """Return all errors."""
    lines = []
    for r in records:
        what = ", ".join(str(r[key]) for key in ("n", "d", "kernel", "precision", "what", "candidate") if key in r)
        if "error" in r:
            lines.append(f"- {r['part']}: {what}: {r['error']}")
        if str(r.get("ended", "in full")) != "in full":
            lines.append(f"- {r['part']}: {r['ended']}")
        if "stopped" in r:
            lines.append(f"- the run was stopped by {r['stopped']}")
    return "\n".join(["### What failed", "", *lines]) if lines else ""


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.3g}"


def _number(count: int | None) -> str:
    return "" if count is None else str(count)


TABLES: dict[str, tuple[str, Callable[[list[Record]], str]]] = {
    "losses": ("Losses with their gradients", of_losses),
    "large": ("Large samples", of_large),
    "training step": ("A step of the CIFAR-10 experiment", of_steps),
    "tests": ("Tests of the package", of_tests),
    "compiled losses": ("Compiled losses", of_losses),
    "tests of training": ("Tests of the training scripts", of_tests),
    "compiled step": ("The step with compiled networks", of_steps),
}
