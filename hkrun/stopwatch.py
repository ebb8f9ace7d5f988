"""Where time goes: one clock, divided among named parts."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Divides the time since it was made among parts. Always one of them runs, so they sum to all of it.

    `part` runs at first.
    """

    def __init__(self, part: str, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._part = clock, part
        self._began_s = self._since_s = clock()
        self._seconds: dict[str, float] = {}

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._began_s

    def enter(self, part: str) -> None:
        """From now on this part runs."""
        now = self._clock()
        self._seconds[self._part] = self._seconds.get(self._part, 0.0) + now - self._since_s
        self._part, self._since_s = part, now

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        """This part runs during the block, afterwards again what ran before."""
        before = self._part
        self.enter(part)
        try:
            yield
        finally:
            self.enter(before)

    def read(self) -> dict[str, float]:
        """Seconds so far by part, in the order in which the parts were first left."""
        self.enter(self._part)
        return dict(self._seconds)
