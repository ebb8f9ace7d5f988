"""Sees when the raylet or the GCS of a cluster of this machine has ended.

Ray itself ends the driver then, up to a minute later and without a message.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NAMES = {"raylet": "raylet", "gcs_server": "GCS"}
LOOK_EVERY_S = 0.5


class CoreProcesses:
    """The raylet and the GCS among this process's children."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}  # by the process's id

    def _find(self) -> None:
        """Looks for those that are not known yet."""
        if len(self._names) == len(NAMES):
            return
        for process in Path("/proc").glob("[0-9]*"):
            try:
                name, _, rest = (process / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue  # it has ended
            if name in NAMES and int(rest.split()[1]) == os.getpid():
                self._names[int(process.name)] = NAMES[name]

    def find_loss(self) -> str:
        """Which of them has ended, and how; empty while both run."""
        self._find()
        for pid, name in self._names.items():
            try:
                # WNOWAIT: Ray waits for it too.
                ending = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return f"Ray's {name} on this machine has ended"
            if ending is not None:
                code = ending.si_status if ending.si_code == os.CLD_EXITED else -ending.si_status
                return f"Ray's {name} on this machine has ended ({describe_end(code)})"
        return ""

    @contextmanager
    def watched(self, on_loss: Callable[[str], None]) -> Iterator[None]:
        """Calls a function, in a thread, once one of them has ended while the block runs."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(LOOK_EVERY_S):
                if why := self.find_loss():
                    on_loss(why)
                    return

        thread = threading.Thread(target=watch, name="hkrun-core-processes", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def describe_end(code: int | None) -> str:
    """How a process ended, by its return code as `subprocess` has it."""
    if code is None:
        return "still running"
    return f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
