"""Takes the pictures of a report in two processes: this one, and a second that it starts beside it."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import TYPE_CHECKING

import hkrun

if TYPE_CHECKING:  # who starts the second process has not imported Matplotlib yet: both do it at a time
    from hkrun.figures import Order, Picture

_PROGRAM = Path(hkrun.__file__).parent / "figures" / "start_serving.py"
_PATIENCE_S = 20  # for a picture, which takes a second

log = logging.getLogger("hkrun")
_second: ContextVar["_SecondProcess | None"] = ContextVar("second", default=None)


class Pictures:
    """The pictures of a report, taken as soon as they are ordered; `taking_pictures` makes one."""

    def __init__(self, second: "_SecondProcess | None") -> None:
        self._second = second
        self._orders: Sequence[Order] = ()
        self._waiting: deque[int] = deque()
        self._taken: dict[int, Picture] = {}

    def order(self, orders: "Sequence[Order]") -> None:
        """Says which pictures are wanted; the second process begins with the last."""
        self._orders = orders
        self._waiting.extend(range(len(orders)))
        if self._second is not None:
            self._second.begin(orders, self._waiting, self._taken)

    def collect(self) -> "list[Picture]":
        """The pictures in the order of their orders; takes those that the second process has not come to."""
        while True:
            try:
                place = self._waiting.pop()
            except IndexError:  # the second process may have taken the last one
                break
            self._taken[place] = self._orders[place].take()
        if self._second is not None:
            self._second.wait()
        # What fails in the second process or brings a warning there does so here, where it is told.
        return [
            self._taken[place] if place in self._taken else order.take()
            for place, order in enumerate(self._orders)
        ]

    def drop(self) -> None:
        """Leaves those untaken that wait: the second process ends with the one that it is at."""
        self._waiting.clear()


@contextlib.contextmanager
def taking_pictures() -> Iterator[Pictures]:
    """Pictures that a second process helps to take, where there is a second core; it ends with the block.

    Within `second_process` it is that one.
    """
    with second_process():
        pictures = Pictures(_second.get())
        try:
            yield pictures
        finally:
            pictures.drop()


@contextlib.contextmanager
def second_process() -> Iterator[None]:
    """Starts the second process now, so that it is ready for `taking_pictures` within the block."""
    if _second.get() is not None:
        yield
        return
    second = None
    if count_cores() > 1:
        try:
            second = _SecondProcess()
        except OSError as error:
            log.info("figures are drawn without a second process: %s", error)
    token = _second.set(second)
    try:
        yield
    finally:
        _second.reset(token)
        if second is not None:
            second.end()


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


class _SecondProcess:
    """A process that takes pictures. Whatever becomes of it, those that it does not give are taken here."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_PROGRAM), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Figures need no algebra, for which each thread would have memory of its own.
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for us, who end it
            )
        except OSError:
            self._connection.close()
            raise
        finally:
            theirs.close()
        with contextlib.suppress(OSError):  # it has ended already; who orders pictures sees it
            # `python -m` and notebooks have more paths than the environment says.
            self._connection.send(sys.path)
        self._thread: threading.Thread | None = None

    def begin(self, orders: "Sequence[Order]", waiting: deque[int], taken: "dict[int, Picture]") -> None:
        """Has it take what is waiting, the last first, until nothing is."""
        # A report that failed has left it at a picture: of two threads on the connection each could read the
        # other's. It is waited for here and not where that report ends, which may be by Ctrl-C.
        self.wait()
        self._thread = threading.Thread(target=self._pass_on, args=(orders, waiting, taken), daemon=True)
        self._thread.start()

    def _pass_on(self, orders: "Sequence[Order]", waiting: deque[int], taken: "dict[int, Picture]") -> None:
        try:
            while True:
                place = waiting.pop()
                self._connection.send(orders[place])
                picture = self._connection.recv()
                if picture is not None:
                    taken[place] = picture
        except IndexError:
            return
        except Exception as error:  # it has ended, or an order cannot be sent
            log.info("the second process that draws figures is gone: %r", error)

    def wait(self) -> None:
        """Waits for the picture that it is at, if any; ends it where that takes too long."""
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)
            if self._thread.is_alive():
                self._process.kill()
                self._thread.join()  # which reads the end of the stream

    def end(self) -> None:
        """Ends it, whatever it does."""
        self._process.kill()
        self._process.wait()
        if self._thread is not None:
            self._thread.join()  # which reads the end of the stream
        self._connection.close()
