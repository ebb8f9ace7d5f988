"""How long epochs take, as was expected and as is seen, and how long tasks that wait for a slot."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# What was expected counts as much as so many seconds of what is seen: the first reports move it gently.
EXPECTED_COUNTS_S = 5.0
# Of each kind of task, what is seen in so many seconds of its processes decides; older fades.
MEMORY_S = 600.0
# Beyond so many tasks that wait, their order no longer matters.
_MOST_IN_ORDER = 500


@dataclass
class _Seen:
    seconds: float = 0.0
    epochs: float = 0.0


class Pace:
    """Seconds of an epoch, by the kind of task: its cell, or its teacher.

    Args:
        expected: What they were before anything ran; None where nothing was known.
    """

    def __init__(self, expected: Mapping[str, float | None]) -> None:
        self._expected = dict(expected)
        self._seen: dict[str, _Seen] = {}
        self._known: dict[str, float | None] = {}  # what follows, until more is seen
        self._slower: float | None = None  # likewise

    def observe(self, key: str, seconds: float, epochs: int) -> None:
        """Epochs have taken so long."""
        self._known.clear()
        self._slower = None
        seen = self._seen.setdefault(key, _Seen())
        seen.seconds += seconds
        seen.epochs += epochs
        if seen.seconds > MEMORY_S:
            seen.epochs *= MEMORY_S / seen.seconds
            seen.seconds = MEMORY_S

    def epoch_s(self, key: str) -> float | None:
        """Seconds of an epoch of a kind; None where neither it nor any other is known.

        Of one that was not seen it is what was expected, by as much longer as those that were seen took
        longer; where nothing was expected, it is the mean of the others.
        """
        if key not in self._known:
            self._known[key] = self._epoch_s(key)
        return self._known[key]

    def _epoch_s(self, key: str) -> float | None:
        seen, expected = self._seen.get(key, _Seen()), self._expected.get(key)
        before = expected * self._slowdown() if expected else self._mean()
        if before is None:
            return seen.seconds / seen.epochs if seen.epochs else None
        return (EXPECTED_COUNTS_S + seen.seconds) / (EXPECTED_COUNTS_S / before + seen.epochs)

    def _slowdown(self) -> float:
        """By how much longer epochs take than was expected."""
        if self._slower is not None:
            return self._slower
        known = [(seen, self._expected.get(key)) for key, seen in self._seen.items()]
        taken_s = sum(seen.seconds for seen, expected in known if expected)
        expected_s = sum(seen.epochs * expected for seen, expected in known if expected)
        self._slower = (EXPECTED_COUNTS_S + taken_s) / (EXPECTED_COUNTS_S + expected_s)
        return self._slower

    def _mean(self) -> float | None:
        """Seconds of an epoch over all that was seen, else over all that was expected."""
        if epochs := sum(seen.epochs for seen in self._seen.values()):
            return sum(seen.seconds for seen in self._seen.values()) / epochs
        known = [expected for expected in self._expected.values() if expected]
        return sum(known) / len(known) if known else None


def makespan(running: Iterable[float], waiting: Sequence[float], *, slots: int, share: float = 1.0) -> float:
    """Seconds until tasks are over of which each that waits takes the next slot that is free.

    Args:
        running: What is left of those that have a slot.
        waiting: What those take that wait, in their order.
        slots: How many run at a time.
        share: Of those that wait, how much is made at all; the others are passed over, whichever they are.
    """
    free = sorted(running)
    if share < 1.0 or len(waiting) > _MOST_IN_ORDER:
        work = (sum(free) + share * sum(waiting)) / slots
        return max([work, *free[-1:]])
    free = [0.0] * (slots - len(free)) + free
    for seconds in waiting:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)
