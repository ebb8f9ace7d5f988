"""A real short sweep as a person sees it: in a terminal, without one, and from beside."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from hkrun.store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

SWEEP = ["sweep", "stability", "teacher.epochs=8", "--epochs", "6", "--name", "short", "--yes"]
FOLDER = "sweeps/short-digits"


def environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HKRUN_", "RAY_"))}
    kept.pop("MLFLOW_TRACKING_URI", None)
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm", "COLUMNS": "80"}


def hkrun(*arguments, **streams):
    command = [sys.executable, "-m", "hkrun", *arguments]
    return subprocess.Popen(command, env=environment(), **streams)


def in_order(text, *words):
    """Whether all of these are there, each first seen after the one before."""
    places = [text.find(word) for word in words]
    assert -1 not in places, dict(zip(words, places, strict=True))
    assert places == sorted(places), dict(zip(words, places, strict=True))


def read_terminal(controller, process):
    """All that a process writes to its terminal."""
    written = b""
    while True:
        try:
            found = os.read(controller, 1 << 16)
        except OSError:  # so Linux tells that the other end is closed
            break
        if not found:
            break
        written += found
    assert process.wait(120) == 0, written[-400:].decode(errors="replace")
    return written.decode()


@pytest.mark.timeout(600)
def test_a_sweep_tells_its_phases_in_a_terminal_in_lines_and_to_one_who_watches(tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    place = ["--store", str(tmp_path / "store")]
    with hkrun(*SWEEP, "--seeds", "1", *place, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        deadline = time.monotonic() + 120.0
        while not (tmp_path / "store" / FOLDER / "plan.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        with hkrun("status", "short", "--watch", "1", *place, stdout=subprocess.PIPE, text=True) as watcher:
            shown = read_terminal(controller, process)
            watched, _ = watcher.communicate(timeout=120)
    os.close(controller)
    # Four pictures a second: what takes less may not be on any.
    in_order(shown, "Starting Ray", "Starting processes", "Writing the report", "4/4 runs done, after")
    assert "about" in shown
    assert watcher.returncode == 0
    lines = watched.splitlines()
    assert lines[-1] == "short on digits: done, 4 runs"
    assert "short on digits: done, 4/4 runs done, 24/24 epochs, 100 %" in lines[-2]
    assert any("starting" in line and "about" in line for line in lines)
    assert not any("101 %" in line for line in (shown, *lines))
    assert open_store(tmp_path / "store").holder(FOLDER) is None

    with hkrun(
        *SWEEP, "--seeds", "2", *place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    in_order(
        told,
        "Checking data and machine ...",
        "Planning ...",
        "4 of 8 runs to train, 2 at a time, 4 are there already, about",
        "Starting Ray ... about",
        "Starting processes ... about",
        "Loading data ... about",
        "Training ... about",
        "Stopping Ray ... about",
        "Writing the report ... about",
        "Bringing MLflow up to date ... about",
        "8/8 runs done, after",
    )
    assert "\x1b" not in told
