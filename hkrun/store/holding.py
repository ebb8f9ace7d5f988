"""One driver per folder of a local store: the operating system's lock, and who has it."""

import contextlib
import fcntl
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from hkrun.errors import StoreError
from hkrun.redaction import redact
from hkrun.store.files import explained

LOCK_FILE = "driver.lock"


@contextlib.contextmanager
def hold_folder(place: Path) -> Iterator[None]:
    """Keeps other drivers out of a folder until the block or the process ends; the folder is made if missing.

    Raises:
        StoreError: Another driver holds it; the message says which.
    """
    with explained("hold", place):
        place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(
                f"{place} is held by {_holder(descriptor)}; wait for it or stop it, then run again"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _own_name().encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _own_name() -> str:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": since,
        "command": shlex.join(redact(word) for word in sys.argv),
    }
    return json.dumps(holder)


def _holder(descriptor: int) -> str:
    """Who wrote the lock file, in words."""
    try:
        holder = json.loads(os.pread(descriptor, 65536, 0))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']} ({holder['command']})"
    except (ValueError, KeyError, TypeError):
        return "another driver"  # it took the lock this very moment and has not written its name yet
