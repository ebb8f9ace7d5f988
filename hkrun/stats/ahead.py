"""Statistics that will be asked for, computed by two processes on two cores.

They are remembered: whoever then asks has them at once, and nothing depends on their being there. NumPy
computes outside of Python's lock, but in steps so small that threads would wait for each other.
"""

import contextlib
import gc
import os
import select
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from hkrun.stats.memory import Memory, find_memory

_TICKET = 2  # bytes that stand for a question
_MOST_QUESTIONS = 32_768  # whose tickets a pipe holds
_PATIENCE_S = 60.0  # for the last question of the second process, which takes a second


def ask_ahead(questions: Sequence[Callable[[], object]]) -> None:
    """Calls these, some of them in a second process, for what they ask of statistics.

    Nothing is done but within `remembering` a memory that wants it, nor where no core is free, for then two
    would wait for each other, nor where other threads run: a lock that one of them holds would be closed in
    the second process for ever. Where that process fails or takes too long, what it was to tell is computed
    when it is asked for.

    Args:
        questions: They compute and nothing else: no file, no store. Those that take longest come first.
    """
    memory = find_memory()
    if memory is None or not memory.asks_ahead or len(questions) < 2:
        return
    cores = len(os.sched_getaffinity(0))
    if cores < 2 or os.getloadavg()[0] >= cores or threading.active_count() > 1:
        return
    tickets, filled = os.pipe()
    for place in range(min(len(questions), _MOST_QUESTIONS)):  # who reads the ticket of a question calls it
        os.write(filled, place.to_bytes(_TICKET))
    os.close(filled)
    answers, told = os.pipe()
    second = _fork()
    if second == 0:
        _answer(questions, tickets, told, memory)
    os.close(told)
    try:
        if second is not None:
            _call_in_turn(questions, tickets)
            with contextlib.suppress(ValueError):  # it ended before it had told all
                memory.load(_read(answers))
    finally:
        os.close(tickets)
        os.close(answers)
        if second is not None:
            os.kill(second, signal.SIGKILL)
            os.waitpid(second, 0)


def _fork() -> int | None:
    """The second process, 0 within it; None where the system gives none."""
    with warnings.catch_warnings():  # Python 3.12 warns of any thread: those of OpenBLAS mind forks
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return os.fork()
        except OSError:
            return None


def _read(answers: int) -> str:
    """What the second process tells; nothing where it takes too long."""
    ready, _, _ = select.select([answers], [], [], _PATIENCE_S)
    with open(answers, "rb", closefd=False) as text:
        return text.read().decode() if ready else ""


def _call_in_turn(questions: Sequence[Callable[[], object]], tickets: int) -> None:
    while ticket := os.read(tickets, _TICKET):
        questions[int.from_bytes(ticket)]()


def _answer(questions: Sequence[Callable[[], object]], tickets: int, told: int, memory: Memory) -> NoReturn:
    """What the second process does: it tells what it has come to remember."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the first one ends it
        gc.disable()  # which would copy the memory that both share
        known = set(memory.given)
        _call_in_turn(questions, tickets)
        with open(told, "wb") as text:
            text.write(memory.dump(besides=known).encode())
    finally:
        os._exit(0)
