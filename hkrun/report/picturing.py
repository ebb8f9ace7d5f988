"""Takes the pictures of a report: a second process does while this one computes, and this one helps it."""

import contextlib
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import TYPE_CHECKING

import hkrun

if TYPE_CHECKING:
    from hkrun.figures import Order, Picture

_PROGRAM = Path(hkrun.__file__).parent / "figures" / "start_serving.py"
_PATIENCE_S = 20  # for a picture, which takes a second
# Pictures that are left to the second process: to load Matplotlib here takes as long, and 50 MB.
_FEW = 4

log = logging.getLogger("hkrun")
_second: ContextVar["_SecondProcess | None"] = ContextVar("second", default=None)


class Pictures:
    """The pictures of a report, taken as soon as they are ordered; `taking_pictures` makes one."""

    def __init__(self, second: "_SecondProcess | None") -> None:
        self._second = second
        self._orders: list[Order] = []
        self._places: list[int] = []  # of those that are wanted, among all orders
        self._waiting: deque[int] = deque()
        self._taken: dict[int, Picture] = {}

    def order(self, orders: "Sequence[Order]") -> None:
        """Says which pictures are wanted; the second process begins with the last.

        Those that were wanted before and are wanted again are not taken anew, and the others are dropped.
        """
        before = {_describe(self._orders[place]): place for place in self._places}
        self._places = []
        for order in orders:
            place = before.pop(_describe(order), None) if before else None
            if place is None:
                place = len(self._orders)
                self._orders.append(order)
                self._waiting.append(place)
            self._places.append(place)
        for place in before.values():
            with contextlib.suppress(ValueError):  # the second process has come to it
                self._waiting.remove(place)
        if self._second is not None:
            self._second.begin(self._orders, self._waiting, self._taken)

    def collect(self) -> "list[Picture]":
        """The pictures in the order of their orders; helps the second process with all but a few."""
        while len(self._waiting) > (_FEW if self._second is not None else 0):
            try:
                place = self._waiting.pop()
            except IndexError:  # the second process has taken the last ones
                break
            self._taken[place] = self._orders[place].take()
        if self._second is not None:
            self._second.wait()
        # What fails in the second process or brings a warning there does so here, where it is told.
        return [
            self._taken[place] if place in self._taken else self._orders[place].take()
            for place in self._places
        ]

    def drop(self) -> None:
        """Leaves those untaken that wait: the second process ends with the one that it is at."""
        self._waiting.clear()


def _describe(order: "Order") -> object:
    """What is equal for two orders of the same picture."""
    try:
        return pickle.dumps(order)
    except (AttributeError, TypeError, pickle.PicklingError):  # it cannot be sent, and equals no other
        return object()


def order_ahead(orders: "Callable[[], Sequence[Order]]") -> None:
    """Has the second process, where one is there, begin with pictures that the next report will likely want.

    `taking_pictures` goes on with them.
    """
    if (second := _second.get()) is not None:
        second.ahead = Pictures(second)
        second.ahead.order(orders())


@contextlib.contextmanager
def taking_pictures() -> Iterator[Pictures]:
    """Pictures that a second process helps to take, where there is a second core; it ends with the block.

    Within `second_process` it is that one.
    """
    with second_process():
        second = _second.get()
        pictures = second.take_over() if second is not None else Pictures(None)
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
        self._given = 0  # answers
        self.ahead: Pictures | None = None

    def take_over(self) -> Pictures:
        """Those that were ordered ahead; else new ones."""
        pictures, self.ahead = self.ahead, None
        return pictures or Pictures(self)

    def begin(self, orders: "Sequence[Order]", waiting: deque[int], taken: "dict[int, Picture]") -> None:
        """Has it take what is waiting, the last first, until nothing is."""
        arguments = (self._thread, orders, waiting, taken)
        self._thread = threading.Thread(target=self._pass_on, args=arguments, daemon=True)
        self._thread.start()

    def _pass_on(
        self,
        before: threading.Thread | None,
        orders: "Sequence[Order]",
        waiting: deque[int],
        taken: "dict[int, Picture]",
    ) -> None:
        # What was ordered ahead, or a report that failed, may have it at a picture: of two threads on the
        # connection each could read the other's.
        if before is not None:
            before.join()
        try:
            while True:
                place = waiting.pop()
                self._connection.send(orders[place])
                picture = self._connection.recv()
                self._given += 1
                if picture is not None:
                    taken[place] = picture
        except IndexError:
            return
        except Exception as error:  # it has ended, or an order cannot be sent
            log.info("the second process that draws figures is gone: %r", error)

    def wait(self) -> None:
        """Waits for the pictures that are left to it, if any; ends it where one takes too long."""
        while self._thread is not None and self._thread.is_alive():
            given = self._given
            self._thread.join(_PATIENCE_S)
            if self._thread.is_alive() and self._given == given:
                self._process.kill()
                self._thread.join()  # which reads the end of the stream

    def end(self) -> None:
        """Ends it, whatever it does."""
        self._process.kill()
        self._process.wait()
        if self._thread is not None:
            self._thread.join()  # which reads the end of the stream
        self._connection.close()
