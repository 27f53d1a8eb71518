"""Collect the results of runs into tables of Markdown, with the authors' published numbers beside them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dcgan.atomic import write_text
from evaluation.results import read_all
from evaluation.table import tables


def main(arguments: Sequence[str] | None = None) -> str:
    """Do what the command line says, and return the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs, or files of results")
    parser.add_argument("--out", type=Path, help="file to write, instead of printing")
    options = parser.parse_args(arguments)
    try:
        text = tables({run.as_posix(): read_all(run) for run in options.runs})
    except ValueError as error:
        parser.error(str(error))
    if options.out is None:
        print(text, end="")
    else:
        write_text(options.out, text)
    return text


if __name__ == "__main__":
    main()
