"""Curves of many runs, reduced to their mean and range while they are read one after another."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]

LATE = 10  # the last tenth of the epochs is what stands in tables


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure of several runs over their epochs.

    Attributes:
        mean: Over the runs that have a value, shape [epochs]; NaN where none has.
        low: The smallest of any run, likewise.
        high: The largest of any run, likewise.
        late: Each run's mean over the last tenth of the epochs, shape [runs]; NaN where it has none.
    """

    mean: Curve
    low: Curve
    high: Curve
    late: Curve


class SpreadSum:
    """Adds curves up to a spread; what it holds does not grow with their number but for a figure per run.

    Args:
        epochs: Length of each curve.
    """

    def __init__(self, epochs: int) -> None:
        self._sum, self._number = np.zeros(epochs), np.zeros(epochs)
        self._low, self._high = np.full(epochs, np.nan), np.full(epochs, np.nan)
        self._late: list[float] = []

    def add(self, curve: Curve) -> None:
        """Adds a run's, shape [epochs]; what is NaN does not count."""
        known = np.isfinite(curve)
        self._sum[known] += curve[known]
        self._number += known
        self._low, self._high = np.fmin(self._low, curve), np.fmax(self._high, curve)
        late = curve[-max(1, len(curve) // LATE) :]
        values = late[np.isfinite(late)]
        self._late.append(float(values.mean()) if len(values) else np.nan)

    def add_all(self, curves: Curve) -> None:
        """Adds those of several runs, shape [runs, epochs]: the very numbers that one after another gives."""
        if not np.isfinite(curves).all():
            for curve in curves:
                self.add(curve)
            return
        for curve in curves:  # in order: a sum of many rows at once may take another
            self._sum += curve
        self._number += len(curves)
        self._low = np.fmin(self._low, np.fmin.reduce(curves, axis=0))
        self._high = np.fmax(self._high, np.fmax.reduce(curves, axis=0))
        self._late += curves[:, -max(1, curves.shape[1] // LATE) :].mean(axis=1).tolist()

    def read(self) -> Spread:
        """What was added so far."""
        mean = np.full(len(self._sum), np.nan)
        np.divide(self._sum, self._number, out=mean, where=self._number > 0)
        return Spread(mean=mean, low=self._low, high=self._high, late=np.array(self._late))


def spread_of(curves: Iterable[Curve], *, epochs: int) -> Spread:
    """The spread of curves of so many epochs."""
    total = SpreadSum(epochs)
    for curve in curves:
        total.add(curve)
    return total.read()
