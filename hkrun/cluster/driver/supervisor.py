"""Starts Ray's driver as a child of the command, and returns its result.

Ray ends a process that has joined a cluster from C++, with exit status 1 and without an exception, when one
of its threads touches Ray after `ray.shutdown()`, and when its raylet or GCS is gone (seen in 2.60). In the
command's own process that would lose the result. So the driver is a child (`process`), and the command never
imports Ray. `cleanup` ends the child and all that it started, however the call ends.
"""

import logging
import os
import pickle
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import FrameType
from typing import Any

import hkrun
from hkrun.cluster.driver import cleanup, start_driver
from hkrun.cluster.driver.calls import Call, Observer, OwnCluster
from hkrun.cluster.driver.core_processes import describe_end
from hkrun.cluster.driver.runtime import worker_variables
from hkrun.cluster.nodes.address import find_address
from hkrun.cluster.nodes.resources import Node, Request, check_fit, count_processes, local_node
from hkrun.cluster.ray_private import (
    OWN_SETTINGS,
    PRELOAD_FROM_VARIABLE,
    PRELOAD_SETTINGS,
    SETTINGS,
)
from hkrun.cluster.redirect import open_log
from hkrun.errors import ClusterLostError, HkrunError

logger = logging.getLogger("hkrun")

# Ray puts Unix sockets under its folder, whose paths may have 107 bytes; it adds up to 75 of them.
LONGEST_TEMPORARY_FOLDER = 28

# A driver that is told to stop leaves a joined cluster within a second; one that does not is killed.
LEAVE_WITHIN_S = 15.0

LOG_NAME = "ray.log"


class DriverTraceback(Exception):  # noqa: N818 - the cause of an error
    """Where in the driver an exception was raised."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def call_driver(
    work: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    log_folder: Path,
    requests: Sequence[Request] = (),
    observer: Observer | None = None,
) -> Any:
    """Calls a function in a process that has joined the cluster of `find_address`, or started one.

    Ray's output goes to `ray.log` in the log folder. Where the call fails, the logs of a cluster of this
    machine are kept below `ray/` beside it.

    Args:
        work: Called as `work(running, observer, **arguments)`; must be importable by other processes.
        arguments: Pickled.
        log_folder: Where the logs go.
        requests: What the tasks need, each kind once. A cluster of this machine gets no more CPUs than those
            can use.
        observer: Its methods are called here. What they raise is logged and forgotten, except a closed pipe.

    Returns:
        What the function returned.

    Raises:
        ResourceError: A request does not fit, or the cluster cannot be reached. Nothing was started.
        ClusterLostError: The cluster is gone, or the driver has ended without a word.
        KeyboardInterrupt: SIGINT, or SIGTERM; no process is left.
    """
    own = None
    address = find_address()
    if address is None:
        node = local_node(gpus=any(request.device == "cuda" for request in requests))
        check_fit(requests, [node], place="this machine")
        in_groups = any(request.in_groups for request in requests)
        cpus = node.cpus if in_groups else _useful_cpus(node, requests)
        own = OwnCluster(node=node, cpus=cpus, in_groups=in_groups)
    with _interruptible() as ignore_signals, _cluster_folder() as folder:
        call = Call(
            work=pickle.dumps((work, arguments)),
            own=own,
            address=address,
            requests=tuple(requests),
            folder=folder,
            log_level=logging.getLogger("hkrun").getEffectiveLevel(),
        )
        driver = _Driver(call, log_folder / LOG_NAME)
        try:
            value = driver.listen(observer)
        except Exception as error:
            kept = _keep_logs(folder, log_folder)
            if kept is None and isinstance(error, ClusterLostError):
                kept = log_folder / LOG_NAME  # of a joined cluster there is only the driver's log
            if kept is not None and isinstance(error, HkrunError):
                raise type(error)(f"{error.message}; Ray's logs are in {kept}") from error
            raise
        finally:
            ignore_signals()  # an impatient second Ctrl-C must not leave processes behind
            driver.end(orderly=own is None)
    return value


class _Driver:
    """The child process and its messages."""

    def __init__(self, call: Call, log_file: Path) -> None:
        self._messages: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._connection, theirs = Pipe()
        log = open_log(log_file)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", start_driver.__file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_driver_environment(call),
            )
        finally:
            os.close(log)
            theirs.close()
        with suppress(OSError):  # it has ended already; `listen` sees it
            # `python -m` and notebooks have more paths than the environment says.
            self._connection.send(sys.path)
            self._connection.send(call)
        threading.Thread(target=self._read, args=(self._connection,), daemon=True).start()

    def listen(self, observer: Observer | None) -> Any:
        """Passes its messages on until it is done; returns its result."""
        while (message := self._messages.get()) is not None:
            match message:
                case ("told", method, arguments):
                    _tell(observer, method, arguments)
                case ("logged", name, level, text):
                    logging.getLogger(name).log(level, "%s", text)
                case ("done", value):
                    return value
                case ("raised", error, told):
                    raise error from DriverTraceback(told)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVE_WITHIN_S)
        raise ClusterLostError(f"Ray ended its driver ({describe_end(self._process.returncode)})")

    def end(self, *, orderly: bool) -> None:
        """Ends the child; orderly, after it has left its cluster."""
        if orderly and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LEAVE_WITHIN_S)
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _read(self, connection: Connection) -> None:
        with suppress(Exception):  # the end of the stream, also in the middle of a message
            while True:
                self._messages.put(connection.recv())
        self._messages.put(None)


def _tell(observer: Observer | None, method: str, arguments: Sequence[Any]) -> None:
    try:
        getattr(observer, method)(*arguments)
    except BrokenPipeError:
        raise
    except Exception as error:
        logger.warning("the observer of the tasks failed in %s: %r", method, error)
        logger.info("", exc_info=True)  # shown with -v


def _useful_cpus(node: Node, requests: Sequence[Request]) -> int:
    """The CPUs that tasks of one process each can use together."""
    used = [
        request.threads * min(request.num_tasks, count_processes(request, [node])) for request in requests
    ]
    return max([1, *used])


# glibc hands freed memory back to the system, and every tensor of a megabyte begins with page faults, a third
# of the time of evaluating a pack on digits (benchmarks/README.md). Processes keep up to a gigabyte instead.
MEMORY_SETTINGS = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(10**9))


def _driver_environment(call: Call) -> dict[str, str]:
    """The environment of the driver, and of each process of a cluster of this machine."""
    threads = max((request.threads for request in call.requests), default=1)
    # Ray ends its processes too quickly for them to remove their temporary files, so those lie here.
    named = {cleanup.VARIABLE: call.folder.name, "TMPDIR": str(call.folder), **worker_variables()}
    defaults = SETTINGS | MEMORY_SETTINGS
    if call.own is not None:
        named |= OWN_SETTINGS | {PRELOAD_FROM_VARIABLE: str(Path(hkrun.__file__).parent)}
        defaults |= {} if call.own.in_groups else PRELOAD_SETTINGS
    return defaults | dict(os.environ) | named | {"OMP_NUM_THREADS": str(threads)}


@contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """Lets SIGINT and SIGTERM raise KeyboardInterrupt, until the function that it yields is called.

    Does nothing outside the main thread, which alone gets signals.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    usable = threading.current_thread() is threading.main_thread()

    def take(handler: Callable[[int, FrameType | None], None]) -> None:
        for number in numbers if usable else ():
            signal.signal(number, handler)

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = [(number, signal.getsignal(number)) for number in numbers]
    take(interrupt)
    try:
        yield lambda: take(lambda *_: None)
    finally:
        for number, handler in before if usable else ():
            if handler is not None:  # one that Python has not set, and cannot set again
                signal.signal(number, handler)


@contextmanager
def _cluster_folder() -> Iterator[Path]:
    """A folder that `cleanup` removes, with its processes, when the block ends or this process dies."""
    folder = _make_folder()
    process = subprocess.Popen(  # -I -S: it needs the standard library alone, and starts in 20 ms
        [sys.executable, "-I", "-S", cleanup.__file__, folder.name, str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # a signal to our group is not for it
    )
    try:
        yield folder
    finally:
        process.communicate()


def _make_folder() -> Path:
    """A new folder for Ray's sockets and logs, with a path short enough for a socket."""
    base = tempfile.gettempdir()
    short = len(base) <= LONGEST_TEMPORARY_FOLDER
    return Path(tempfile.mkdtemp(prefix="hkrun-", dir=base if short else "/tmp"))  # noqa: S108


def _keep_logs(folder: Path, log_folder: Path) -> Path | None:
    """Copies the logs of Ray's processes out of the cluster's folder; None where that is not possible."""
    with suppress(OSError, shutil.Error):
        session = (folder / "session_latest").resolve(strict=True)
        kept = log_folder / "ray" / session.name
        shutil.copytree(session / "logs", kept, dirs_exist_ok=True)
        return kept
    return None
