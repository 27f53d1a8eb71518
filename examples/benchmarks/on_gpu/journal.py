"""Records as JSON lines, each written to the disk immediately."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Record = dict[str, Any]

CHANNEL = "GPU_BENCHMARK_RECORDS"
"""The environment variable that tells a process the number of the pipe to write records into."""


class Journal:
    """A new file of records.

    Args:
        path: the file.

    Raises:
        FileExistsError: if it is there, since its records may be the only ones that there are.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)
        self.path = path

    def write(self, record: Record) -> None:
        """Write a record to the disk."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read(path: Path) -> list[Record]:
    """Return the records of a file; a last line that was cut off is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def emit(record: Record) -> None:
    """Send a record to the process that started this one, or print it if this one was started by hand."""
    line = json.dumps(record) + "\n"
    channel = os.environ.get(CHANNEL)
    if channel is None:
        print(line, end="", flush=True)
    else:
        os.write(int(channel), line.encode())
