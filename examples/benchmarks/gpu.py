"""How fast are the losses and a training step on a GPU, and do the tests for GPUs pass?

    python examples/benchmarks/gpu.py               # on a GPU, at most 8 minutes, without a network
    python examples/benchmarks/gpu.py --rehearse    # a small rehearsal on a CPU, whose numbers are meaningless
    python examples/benchmarks/gpu.py --table FILE  # the tables of existing records

Needs PyTorch 2.11 or newer, and pytest and hypothesis for the tests. geomloss is included if it is installed. Only the
first visible GPU is used. The parts are:

* device: its description, and whether it works;
* losses: times and memory of losses with their gradients, compared with plain autograd and geomloss; the number of
  launched kernels, and how often the host waits for the GPU, which should be never;
* large: `mmd2` for (8192, 1024) and (65536, 256);
* training step: the CIFAR-10 experiment of Wang et al. in float32 without and with TF32, and in bfloat16, with the
  shares of its parts;
* tests: those marked `gpu` of the package;
* compiled losses: compiled plain autograd and compiled `mmd2`, compared with both without compilation;
* tests of training: those marked `gpu` of the training scripts;
* compiled step: the training step with compiled networks.

Each part is a separate process with a share of the time; time that it does not use goes to the later parts. A part that
fails, or does not finish in time, is recorded, and the next part begins. Each record is written to the disk
immediately: a run that is stopped, by any signal, keeps its records, and `--table` shows them.

Times are medians over turns of the candidates in a line, after a warm-up, measured by events of the GPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from common import QUICK_RESULTS, RESULTS, progress
from on_gpu import journal, supervision
from on_gpu.tables import tables

Record = dict[str, Any]

ROOT = Path(__file__).parents[2]
LEAST_TORCH = (2, 11)
BEGIN = "GPU_BENCHMARK_BEGIN"
"""The environment variable that tells a part when it was started, by the clock of :func:`time.monotonic`."""
BUDGET = 480.0
RESERVE = 0.03
"""The share of the budget that is kept for starting and for the tables."""

REHEARSED = "not compile and not float16 and not bfloat16 and not 600 and not options1 and not hinge and not iterations"
"""The tests of a rehearsal: those left out have the same code, or take long on a CPU."""

SHARES = {
    "device": 20,
    "losses": 85,
    "large": 50,
    "training step": 75,
    "tests": 60,
    "compiled losses": 55,
    "tests of training": 60,
    "compiled step": 75,
}
"""The parts in their order, with their shares of the time. The most informative parts for their time come first."""


def parts(seconds: float, begin: float) -> Iterator[tuple[str, float]]:
    """Yield each part when it is its turn, with the seconds that it may take: none can eat the time of later ones."""
    usable, later = seconds * (1 - RESERVE), sum(SHARES.values())
    for name, share in SHARES.items():
        later -= share
        yield name, begin + usable - time.monotonic() - usable * later / sum(SHARES.values())


def command(part: str, seconds: float, *, rehearsal: bool) -> list[str]:
    """Return the words of the process that does a part."""
    if part.startswith("tests"):
        chosen = ["-k", REHEARSED] if rehearsal else []
        options = ["-m", "gpu", "--quiet", "--tb=short", "-p", "on_gpu.report", "-p", "no:cacheprovider", *chosen]
        return [sys.executable, "-m", "pytest", *options, *test_files(part)]
    small = ["--rehearse"] if rehearsal else []
    return [sys.executable, str(Path(__file__)), "--part", part, "--budget", f"{seconds:.1f}", *small]


def test_files(part: str) -> list[str]:
    """Return the files with tests marked `gpu`, of the training scripts or of the package: others are not read."""
    files = [path.relative_to(ROOT) for path in sorted((ROOT / "tests").rglob("test_*.py")) if _has_gpu_tests(path)]
    of_scripts = part == "tests of training"
    return [str(path) for path in files if (path.parts[1] in ("examples", "foreign")) == of_scripts]


def _has_gpu_tests(path: Path) -> bool:
    return "pytest.mark.gpu" in path.read_text(encoding="utf-8")


def variables(*, rehearsal: bool, cache: Path) -> dict[str, str]:
    """Return the environment of the parts: one GPU, and compilers that write their output into a folder of this run."""
    found = dict(os.environ)
    first, _, _ = found.get("CUDA_VISIBLE_DEVICES", "0").partition(",")
    paths = [str(ROOT), str(Path(__file__).parent), found.get("PYTHONPATH", "")]
    found |= {
        "CUDA_VISIBLE_DEVICES": "" if rehearsal else first,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
    }
    if rehearsal:
        found |= {"GPU_TESTS_ON": "cpu", "OMP_NUM_THREADS": "1"}
    return found


def run(path: Path, seconds: float, begin: float, *, rehearsal: bool) -> int:
    """Do all parts, print the tables, and return the status of this process."""
    records = journal.Journal(path)
    words = " ".join(["python", "examples/benchmarks/gpu.py", *sys.argv[1:]])
    now = datetime.now(timezone.utc)
    records.write({"part": "run", "command": words, "date": now.strftime("%Y-%m-%d"), "rehearsal": rehearsal})
    cache = Path(tempfile.mkdtemp(prefix="gpu-benchmark-"))
    status = 0
    supervision.raise_when_told_to_stop()
    try:
        for part, share in parts(seconds, begin):
            _do(part, share, records, variables(rehearsal=rehearsal, cache=cache), rehearsal=rehearsal)
    except supervision.Stopped as stopped:
        records.write({"part": "end", "stopped": str(stopped)})
        status = 128 + stopped.number
    supervision.ignore_signals()
    shutil.rmtree(cache, ignore_errors=True)
    print(tables(journal.read(path)), flush=True)
    progress(f"records: {path}; output of the parts: {path.with_suffix('.log')}")
    return status


def _do(part: str, share: float, records: journal.Journal, environment: dict[str, str], *, rehearsal: bool) -> None:
    """Do a part, and record how it ended."""
    progress(f"{part}, at most {share:.0f} s")
    start = time.monotonic()
    error = supervision.run(
        command(part, share, rehearsal=rehearsal),
        {**environment, BEGIN: str(start)},
        share,
        lambda record: records.write({"part": part, **record}),
        records.path.with_suffix(".log"),
        ROOT,
    )
    records.write({"part": part, "ended": error or "in full", "seconds": round(time.monotonic() - start, 1)})


def do_part(name: str, seconds: float, begin: float, *, rehearsal: bool) -> None:
    """Do a part in this process."""
    import torch
    from on_gpu.loss_parts import WORK, Task

    if name not in WORK:  # the imports of the others take seconds
        from on_gpu.step_parts import WORK
    torch.manual_seed(0)
    if rehearsal:
        torch.set_num_threads(1)
    WORK[name](Task(torch.device("cpu" if rehearsal else "cuda"), rehearsal, seconds, begin))


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="do everything on a CPU, very small")
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="SECONDS", help="for everything (default: 480)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a new file for the records, .jsonl")
    parser.add_argument("--table", type=Path, metavar="FILE", help="only show the tables of these records")
    parser.add_argument("--part", choices=SHARES, help="do one part in this process and print its records")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line, and return the status of this process."""
    chosen = arguments(words)
    begin = float(os.environ.get(BEGIN, time.monotonic()))
    if chosen.table is not None:
        print(tables(journal.read(chosen.table)))
        return 0
    if chosen.part is not None:
        do_part(chosen.part, chosen.budget, begin, rehearsal=chosen.rehearse)
        return 0
    if not chosen.rehearse and (complaint := _unfit()):
        print(complaint, file=sys.stderr)
        return 2
    name = f"gpu-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}.jsonl"
    path = chosen.out or (QUICK_RESULTS if chosen.rehearse else RESULTS) / name
    return run(path, chosen.budget, begin, rehearsal=chosen.rehearse)


def _unfit() -> str | None:
    """Return why nothing can be measured here."""
    import torch

    if not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} sees no GPU. To try everything on a CPU: gpu.py --rehearse"
    if tuple(map(int, torch.__version__.split(".")[:2])) < LEAST_TORCH:
        progress(f"PyTorch {torch.__version__} is older than supported; missing functions will be recorded")
    return None


if __name__ == "__main__":
    sys.exit(main())
