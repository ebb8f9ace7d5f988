"""What every download needs: a server that falls silent is given up, and log files get no progress bar."""

import contextlib
import io
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

_TIMEOUT_S = 60.0  # for the server to send anything at all


def default_directory() -> Path:
    """Where downloads go when the user names no directory: the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "hkrun"


@contextlib.contextmanager
def patient_sockets() -> Iterator[None]:
    """Lets connections time out, which by default they never do: a silent server would hang the sweep."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def quiet_unless_terminal() -> contextlib.AbstractContextManager[object]:
    """Keeps torchvision's progress bar off log files."""
    return contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())


def reason(error: Exception) -> str:
    """The error in one line."""
    return " ".join(str(error).split()) or type(error).__name__
