"""Sends stdout and stderr of a process to a file.

What cannot be written is dropped: the store reports a full disk.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STDOUT, STDERR = 1, 2


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Appends stdout and stderr of this process, those of C libraries included, to a file."""
    _flush()
    saved = os.dup(STDOUT), os.dup(STDERR)
    descriptor = open_log(path)
    os.dup2(descriptor, STDOUT)
    os.dup2(descriptor, STDERR)
    os.close(descriptor)
    try:
        yield
    finally:
        _flush()
        for copy, original in zip(saved, (STDOUT, STDERR), strict=True):
            os.dup2(copy, original)
            os.close(copy)


def open_log(path: Path) -> int:
    """A descriptor that appends to a file; /dev/null where the file cannot be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
