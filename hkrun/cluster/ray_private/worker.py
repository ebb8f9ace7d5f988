"""How a process for tasks begins where processes import in turn (`preload`). A program of its own.

Ray's raylet gives the first task to the process that comes first, so that one is to import first: they come
in turn, too. The raylet runs this in place of Ray's `setup_worker.py`, which makes the environment of a task
that asks for one; where none is asked for, Ray runs the worker's own program at once, which this becomes.
"""

import argparse
import fcntl
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path

TURN_VARIABLE = "HKRUN_TURN"  # the open file that keeps others from coming
PATIENCE_S, PAUSE_S = 10.0, 0.02


def main() -> None:
    """Becomes the worker's program that it is given, or Ray's that makes environments."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--language")
    parser.add_argument("--serialized-runtime-env-context", dest="environment", default="{}")
    worker, *arguments = sys.argv[1:]
    own, others = parser.parse_known_args(arguments)
    if own.language != "PYTHON" or any(json.loads(own.environment).values()):
        become(str(Path(worker).with_name("setup_worker.py")), worker, *arguments)
    kinds = {word.partition("=")[2] for word in others if word.startswith("--worker-type=")}
    if kinds <= {"WORKER"} and finds_own_hkrun():  # other kinds of workers import nothing ahead
        os.environ[TURN_VARIABLE] = str(take_turn())
    become(worker, *others)


def become(program: str, *arguments: str) -> None:
    """Runs another program of Python's in this process."""
    os.execv(sys.executable, [sys.executable, program, *arguments])  # noqa: S606 - no shell


def finds_own_hkrun() -> bool:
    """Whether Python finds the hkrun that this file is of, whose `preload` ends the turn."""
    spec = importlib.util.find_spec("hkrun")
    return (
        spec is not None
        and spec.origin is not None
        and Path(__file__).is_relative_to(Path(spec.origin).parent)
    )


def take_turn() -> int:
    """Waits, but not for ever, until no other process is on its way; returns an open file that tells them."""
    descriptor = os.open(Path(tempfile.gettempdir(), "turn.lock"), os.O_CREAT | os.O_WRONLY, mode=0o600)
    os.set_inheritable(descriptor, True)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(PAUSE_S)
    return descriptor


if __name__ == "__main__":
    main()
