"""Ray's driver: a process that starts or joins a cluster, does one call in it and sends the result.

The supervisor starts it and reads its messages; its stdout and stderr are `ray.log`. It ends with the call.
"""

import faulthandler
import logging
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from types import FrameType

from hkrun.cluster.driver.calls import Call, Observer
from hkrun.cluster.driver.runtime import LOG_FORMAT, joined_cluster, own_cluster
from hkrun.errors import EXIT_INTERRUPTED, HkrunError, Interrupted

Send = Callable[..., None]


def serve(connection: Connection) -> None:
    """Does the call that comes from the supervisor, and ends the process."""
    faulthandler.enable()
    call: Call = connection.recv()
    signals = _Signals()
    threading.Thread(target=_end_with_supervisor, args=(connection,), daemon=True).start()
    lock = threading.Lock()

    def send(*message: object) -> None:
        with lock:
            connection.send(message)

    _set_up_logging(send, call.log_level)
    try:
        with ExitStack() as stack:
            if call.own is not None:
                cluster = own_cluster(call.own, call.folder, fail=lambda error: _fail(send, error))
            else:
                assert call.address is not None, "the cluster is its own or has an address"
                cluster = joined_cluster(call.address, call.requests, call.folder)
            running = stack.enter_context(cluster)
            signals.raise_interrupt()  # again: ray.init takes SIGTERM for itself
            try:
                # Before the cluster is left: nothing that happens then can take the result away.
                function, arguments = pickle.loads(call.work)  # noqa: S301 - the supervisor's
                send("done", function(running, RemoteObserver(send), **arguments))
            finally:
                signals.ignore()
    except BaseException as error:  # the supervisor must know of any
        send("raised", _portable(error), traceback.format_exc())
    # Threads of Ray's that miss their cluster at the interpreter's end would abort the process.
    sys.stdout.flush()
    os._exit(0)


class RemoteObserver:
    """Sends the supervisor whatever an `hkrun.cluster.driver.calls.Observer` is told."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def __getattr__(self, method: str) -> Callable[..., None]:
        if method not in vars(Observer):
            raise AttributeError(method)
        return lambda *arguments: self._send("told", method, arguments)


class _Signals:
    """SIGINT and SIGTERM: the first raises KeyboardInterrupt, the others do nothing."""

    def __init__(self) -> None:
        self._is_over = False
        self.raise_interrupt()

    def raise_interrupt(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def ignore(self) -> None:
        self._is_over = True

    def _take(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if not self._is_over:
            self._is_over = True
            raise KeyboardInterrupt(signal.Signals(number).name)


def _end_with_supervisor(connection: Connection) -> None:
    """Ends this process when the supervisor has ended, or has what it wanted."""
    try:
        connection.recv()
    finally:
        os._exit(EXIT_INTERRUPTED)


def _fail(send: Send, error: HkrunError) -> None:
    """Ends this process, from any thread, and says why."""
    send("raised", error, "".join(traceback.format_stack()))
    os._exit(error.exit_code)


def _portable(error: BaseException) -> Exception:
    """The exception itself where every process knows it, else one with its words."""
    if isinstance(error, HkrunError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(f"the driver was stopped by {error}; what is finished is kept")
    return HkrunError(f"{type(error).__name__}: {error}")


class _Forwarder(logging.Handler):
    """Sends hkrun's own log records to the supervisor."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send("logged", record.name, record.levelno, self.format(record))


def _set_up_logging(send: Send, level: int) -> None:
    """Sends hkrun's log records to the supervisor, and those of this package to `ray.log`."""
    logging.raiseExceptions = False  # the store reports a full disk
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    of_ray = logging.getLogger("hkrun.cluster")
    of_ray.addHandler(handler)
    of_ray.setLevel(logging.INFO)
    of_ray.propagate = False
    logging.getLogger("hkrun").addHandler(_Forwarder(send))
    logging.getLogger("hkrun").setLevel(level)
