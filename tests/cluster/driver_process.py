"""A driver in a process of its own, to be signalled and killed."""

import os
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

import fake_tasks
from processes import find_processes


class Driver:
    """A Python process that runs tasks on a cluster of its own, and everything that it starts."""

    def __init__(self, folder: Path, *does: str, python_path: Path | None = None) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.temporary = Path(tempfile.mkdtemp(dir="/tmp"))  # short enough for Ray's sockets
        env["PYTHONPATH"] = fake_tasks.python_path()  # where workers find the fake tasks
        if python_path is not None:
            env["PYTHONPATH"] = os.pathsep.join([str(python_path), env["PYTHONPATH"]])
        env |= {"HKRUN_TEST_MARK": self.mark, "TMPDIR": str(self.temporary)}
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fake_driver.py"), folder, *does],
            env=env,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a group of its own, as a command has in a terminal
        )

    def family(self) -> list[str]:
        """The command lines of all living processes that it started, itself included."""
        found = []
        for process in find_processes(self.mark, self.temporary):
            with suppress(OSError):  # it has ended
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
        return found

    def find(self, title: str) -> list[int]:
        """The ids of those whose command line has words in it."""
        found = []
        for process in find_processes(self.mark, self.temporary):
            with suppress(OSError):
                if title in (process / "cmdline").read_bytes().replace(b"\0", b" ").decode():
                    found.append(int(process.name))
        return found

    def wait_for(self, path: Path, *, timeout_s: float = 240) -> None:
        """Waits until a file is there."""
        deadline = time.monotonic() + timeout_s
        while not path.exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"no {path} after {timeout_s} s"
            time.sleep(0.2)

    def left_behind(self, *, patience_s: float) -> list[str]:
        """The processes and temporary files that are still there after some seconds of patience."""
        deadline = time.monotonic() + patience_s
        while (
            left := self.family() + list(map(str, self.temporary.iterdir()))
        ) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left
