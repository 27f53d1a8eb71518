"""The command line of the sweep: what to run, how, where, and which part of it."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from sweeps.grids import STUDIES
from sweeps.plan import PAIR, text

EXAMPLES = Path(__file__).parents[1]

METRICS = ("fid", "kid_mean")
"""Metrics by which a pair of learning rates can be the best; lower is better."""

OWN = ("out", "resume", "device", "seed", "dry-run", *PAIR)
"""Options of the training script that the sweep gives."""

EPILOG = """
What follows -- goes to the training script as it is:
  sweep.py run table1 --out runs/table1 -- --data-root data --iterations 50000
Exit status: 0 if all runs are finished or diverged, 1 if some failed, 2 if this cannot be done, 3 if other processes
have some of them, more than 128 after a signal.
"""


def read(description: str, arguments: Sequence[str]) -> argparse.Namespace:
    """Return what a command line says, or explain errors and exit with status 2."""
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    parser = _parser(description)
    options = parser.parse_args(words[:end])
    options.train = words[end + 1 :]
    options.refuse = parser.error
    given = {word.removeprefix("--").partition("=")[0] for word in options.train if word.startswith("--")}
    varied = {option for grid in STUDIES[options.study].grids for option in grid} | {
        option for option, _ in getattr(options, "vary", [])
    }
    if decided := given & {*OWN, *varied}:
        parser.error(f"--{min(decided)} after -- is given by the sweep; see --vary, --pairs, --seeds and --devices")
    return options


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="train what is not done yet", allow_abbrev=False)
    listed = actions.add_parser("list", help="list the runs, and how far they are", allow_abbrev=False)
    collect = actions.add_parser("collect", help="write tables and a figure of what there is", allow_abbrev=False)
    for action in (run, listed, collect):
        action.add_argument(
            "study", choices=STUDIES, help="; ".join(f"{name}: {study.meaning}" for name, study in STUDIES.items())
        )
        action.add_argument("--out", type=Path, required=True, help="folder of the sweep")
        action.add_argument("--metric", choices=METRICS, default=METRICS[0], help="what is best (%(default)s)")
        action.add_argument(
            "--evaluations", default="*.json", metavar="PATTERN", help="which evaluations of a run count (%(default)s)"
        )
    for action in (run, listed):
        _add_plan(action)
        _add_ways(action)  # a list needs none of them, but takes the same words
    collect.add_argument("--limit", type=float, metavar="VALUE", help="where the vertical axis of the figure ends")
    return parser


def _add_plan(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which runs")
    group.add_argument("--losses", type=_values, metavar="LOSS,...", help="in place of the study's")
    group.add_argument(
        "--vary",
        type=_varied,
        action="append",
        metavar="OPTION=VALUE,...",
        default=[],
        help="values of a training option in place of the study's, or of one more; none leave it out; may be repeated",
    )
    group.add_argument(
        "--pairs",
        type=_pairs,
        metavar="D/G,...|best",
        help="learning rates (the paper's 16 pairs); best: of each setting the pair that is best with its first seed",
    )
    group.add_argument("--seeds", type=_seeds, metavar="SEED,...", default=[0], help="(0)")
    group.add_argument("--index", type=_natural, metavar="I", help="do the I-th share, counted from 0")
    group.add_argument("--of", type=_positive, metavar="N", help="of N shares: for the array jobs of a scheduler")


def _add_ways(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how and where")
    group.add_argument("--script", type=_script, default="dcgan_cifar10", metavar="NAME|PATH", help="(%(default)s)")
    group.add_argument("--jobs", type=_positive, metavar="N", help="runs side by side (one on each device)")
    group.add_argument(
        "--devices", type=_words, metavar="DEVICE,...", default=[None], help="such as cuda:0,cuda:1 or cpu"
    )
    group.add_argument("--threads", type=_positive, metavar="N", help="of each run on a CPU (1 with --devices cpu)")
    group.add_argument(
        "--evaluate", type=_command, metavar="OPTIONS", help="evaluate finished runs with these options, one string"
    )
    group.add_argument(
        "--evaluator", type=_script, default=EXAMPLES / "evaluate.py", metavar="NAME|PATH", help="(evaluate)"
    )
    group.add_argument("--retry", action="store_true", help="try runs again that diverged")


def _words(words: str) -> list[str]:
    found = words.split(",")
    if not all(found) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"expected different values with commas between them, got {words!r}")
    return found


def _values(words: str) -> tuple[str, ...]:
    try:
        return tuple(map(text, _words(words)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _varied(words: str) -> tuple[str, tuple[str, ...]]:
    option, _, values = words.partition("=")
    if not re.fullmatch(r"[a-z][a-z-]*=.*", words) or option in OWN:
        raise argparse.ArgumentTypeError(f"expected OPTION=VALUE,... of an option that is free, got {words!r}")
    return option, _values(values) if values else ()


def _pairs(words: str) -> list[tuple[str, str]] | str:
    if words == "best":
        return words
    found = [re.fullmatch(r"([^/]+)/([^/]+)", word) for word in _words(words)]
    if not all(found):
        raise argparse.ArgumentTypeError(f"expected best, or pairs such as 5e-4/2e-4, got {words!r}")
    return [(pair[1], pair[2]) for pair in found if pair]


def _seeds(words: str) -> list[int]:
    return [_natural(word) for word in _words(words)]


def _natural(word: str) -> int:
    if not word.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number >= 0, got {word!r}")
    return int(word)


def _positive(word: str) -> int:
    if _natural(word) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number > 0, got {word!r}")
    return int(word)


def _script(word: str) -> Path:
    path = Path(word) if word.endswith(".py") else EXAMPLES / f"{word}.py"
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no {path}")
    return path


def _command(words: str) -> str:
    try:
        return shlex.join(shlex.split(words))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error} in {words!r}") from None
