"""Where a process of Ray writes what a task prints."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STDOUT, STDERR = 1, 2


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Appends all that this process writes to stdout and stderr, libraries in C included, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    saved = os.dup(STDOUT), os.dup(STDERR)
    with path.open("ab") as file:
        os.dup2(file.fileno(), STDOUT)
        os.dup2(file.fileno(), STDERR)
    try:
        yield
    finally:
        _flush()
        for copy, original in zip(saved, (STDOUT, STDERR), strict=True):
            os.dup2(copy, original)
            os.close(copy)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
