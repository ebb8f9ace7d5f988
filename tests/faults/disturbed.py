"""A sweep of the command line in a folder of its own, to be killed, stopped and started again."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from processes import find_processes, inherited_environment

from hkrun.store import Store, open_store

HERE = Path(__file__).parent
SEEDS, EPOCHS = 4, 10
SPACE = f"""
title = "A sweep that is disturbed"
question = "Does it end as if it had not been?"
dataset = "failures:digits"
seeds = {SEEDS}
reference = "L_b"
[analysis]
window = 3
[base]
teacher.network = "preact-8-w4"
teacher.epochs = 4
student.network = "preact-8-w4"
student.epochs = {EPOCHS}
augment.padding = 1
augment.flip = false
[[cells]]
name = "L_b"
loss.lambda_2 = 0.0
loss.lambda_3 = 0.0
[[cells]]
name = "all"
"""
COMMAND = ("sweep", "space.toml", "--pack", "2", "--yes")
GROUPS = ("sweep", "space.toml", "--workers", "2", "--seeds", "1", "--yes")
ACTOR, TRAIN_WORKER = "ray::ImplicitFunc", "RayTrainWorker"  # in the titles of Ray's processes


class SweepFolder:
    """Where one sweep is run again and again until it is done.

    Attributes:
        command: The arguments of hkrun.
        environment: What its processes have in their environment.
        log: What the runs of the command wrote to stdout and stderr.
    """

    def __init__(self, folder: Path, *command: str, **environment: str) -> None:
        self.folder, self.command = folder, command or COMMAND
        folder.mkdir(exist_ok=True)
        (folder / "failures").mkdir()
        (folder / "space.toml").write_text(SPACE, encoding="utf-8")
        shutil.copy(HERE / "failures.py", folder)
        self.mark = uuid.uuid4().hex
        self.temporary = Path(tempfile.mkdtemp(prefix="hk", dir="/tmp"))  # short enough for Ray's sockets
        self.environment = inherited_environment()
        self.environment |= {
            "HKRUN_TEST_MARK": self.mark,
            "TMPDIR": str(self.temporary),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.environment |= environment
        self.log = folder / "output.txt"
        self.process: subprocess.Popen[bytes] | None = None
        self._in_shared_memory = _shared_memory()

    @property
    def store(self) -> Store:
        return open_store(self.folder / "hkrun-store", create=False)

    def plant(self, what: str, whose: object, epoch: int, often: str = "once") -> Path:
        """Lets something go wrong; see `failures`."""
        fault = self.folder / "failures" / f"{what}-{whose}-{epoch}-{often}"
        fault.touch()
        return fault

    def start(self) -> None:
        """Starts the command, in a process group of its own as in a terminal."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hkrun", *self.command],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, *, timeout_s: float = 400) -> int:
        """The exit code of the command; everything that it started is gone then."""
        assert self.process is not None
        code = self.process.wait(timeout_s)
        left = self.left_behind(patience_s=20)
        assert not left, f"left behind: {left}\n{self.output()}"
        return code

    def run(self, disturb: "Callable[[SweepFolder], None]" = lambda sweep: None) -> int:
        """Runs the command once, with something that is done to it meanwhile."""
        self.start()
        try:
            disturb(self)
            return self.wait()
        finally:
            self.end()

    def end(self) -> None:
        """Leaves no process, however a test ends."""
        for pid in self.family():
            _signal(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(60)

    def signal(self, pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            _signal(pid, number)

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def family(self, title: str = "") -> list[int]:
        """The living processes of the sweep whose title has a word in it."""
        found = []
        for process in find_processes(self.mark, self.temporary):
            with suppress(OSError):  # it has ended
                if title.encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
        return sorted(found)

    def wait_until(self, condition: Callable[[], object], *, timeout_s: float = 120) -> None:
        """Waits for something that the running command brings about."""
        deadline = time.monotonic() + timeout_s
        assert self.process is not None
        while not condition():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.05)

    def is_training(self) -> bool:
        """Whether some run has a checkpoint."""
        return any((self.folder / "hkrun-store").glob("cells/*/seeds/*/checkpoints/*.pt"))

    def left_behind(self, *, patience_s: float) -> list[str]:
        """Processes, temporary files and shared memory that are still there after some patience."""
        deadline = time.monotonic() + patience_s
        while True:
            left = [str(pid) for pid in self.family()] + [str(path) for path in self.temporary.iterdir()]
            left += sorted(_shared_memory() - self._in_shared_memory)
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.2)


def send(
    number: signal.Signals, title: str, choose: Callable[[list[int]], int]
) -> Callable[[SweepFolder], None]:
    """What sends a signal to one of the sweep's processes with a title; to none where there is none."""

    def disturb(sweep: SweepFolder) -> None:
        processes = sweep.family(title)
        if processes:
            _signal(choose(processes), number)

    return disturb


def kill_driver(sweep: SweepFolder) -> None:
    assert sweep.process is not None
    sweep.process.kill()


def kill_group(sweep: SweepFolder) -> None:
    """The driver and all of Ray's processes at once, but not the cleanup."""
    assert sweep.process is not None
    try:
        os.killpg(sweep.process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _shared_memory() -> set[str]:
    """What Ray, torch and Python may have left; other programs of the machine have names of their own."""
    folder = Path("/dev/shm")
    names = folder.iterdir() if folder.is_dir() else ()
    return {str(path) for path in names if path.name.startswith(("plasma", "ray", "torch", "psm_", "sem."))}
