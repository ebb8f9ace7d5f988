"""Sums over pairs of runs of how their distance varies over epochs: what S2 is made of.

Errors are shares of test images nearly always, and so whole numbers of one step. Of whole numbers such sums
are exact, and quick: |a - b| is 2 max(a, b) - a - b, and squares add up without looking at pairs. Of other
errors each pair's variance is taken by itself, for a difference of large sums would round.
"""

import numpy as np
from numpy.typing import NDArray

from hkrun.stats.permutations import Floats

Whole = NDArray[np.int64]

# Of runs so many that all pairs would be more numbers than this, each meets equally many others.
_MOST_DIFFERENCES = 150_000_000
_BLOCK = 32_768  # numbers at a time, which stay in a core's cache
# Percentage points: a difference that varies by less only does so by rounding.
_ROUNDING_PCT = 1e-12
_WHOLE = 1e-9  # of a step: what is farther from a whole number of them is none


class Circle:
    """Which runs meet: each all others, or of many the nearest on either side of it in a circle of all.

    Attributes:
        distances: Each meets those that are no farther along the circle.
        half: To the opposite run, where each meets all others of an even number; else 0.
        partners: How many each meets.
    """

    def __init__(self, runs: int, window: int) -> None:
        most = (runs - 1) // 2
        self.distances = min(most, max(1, _MOST_DIFFERENCES // (runs * window)))
        self.half = runs // 2 if self.distances == most and runs % 2 == 0 else 0
        self.partners = 2 * self.distances + (self.half > 0)

    def sum_partners(self, values: Whole) -> Whole:
        """The sum over each run's partners: [runs, ...] -> the same."""
        reach = self.distances
        nearest = np.concatenate([values[len(values) - reach :], values, values[:reach]])
        sums = np.concatenate([np.zeros_like(values[:1]), nearest.cumsum(axis=0)])
        found: Whole = sums[2 * reach + 1 :] - sums[: len(values)] - values
        return found + np.roll(values, self.half, axis=0) if self.half else found


def sum_variances(errors: Floats, circle: Circle, ddof: int) -> Floats:
    """For each run, the sum over its partners of the variance of their distance over epochs.

    What varies by rounding alone does not vary.

    Args:
        errors: Test errors in percent, shape [runs, window].
        circle: Which runs meet, of as many runs and epochs.
        ddof: Delta degrees of freedom of the variance, 0 or 1.

    Returns:
        In (percentage points) squared, shape [runs].
    """
    steps = _count_steps(errors, circle)
    if steps is None:
        return _sum_each(errors, circle, ddof)
    counts, step = steps
    window = errors.shape[1]
    sums: Floats = _sum_whole(counts, circle) * (step**2 / (window * (window - ddof)))
    return sums


def _count_steps(errors: Floats, circle: Circle) -> tuple[Whole, float] | None:
    """Errors as whole numbers of a step, from the smallest error on, and the step; None where they are none.

    None, too, where the sums of squares could exceed 64 bits.
    """
    values = np.unique(errors)
    gaps = np.diff(values)
    gaps = gaps[gaps > _ROUNDING_PCT]
    if not len(gaps):
        return None
    reach = float(values[-1] - values[0])
    largest = round(reach / float(gaps.min()))
    step = reach / largest
    if circle.partners * (largest * errors.shape[1]) ** 2 >= 2**62:
        return None
    counts = (errors - values[0]) / step
    whole = np.rint(counts)
    return (whole.astype(np.int64), step) if (np.abs(counts - whole) < _WHOLE).all() else None


def _sum_whole(counts: Whole, circle: Circle) -> Whole:
    """The sum over a run's partners, and over epochs, of (d - mean d)^2 times the window: d is |a - b|."""
    runs, window = counts.shape
    totals = counts.sum(axis=1)
    # The sums of one pair fit the type, and few bits are quick: [window, runs] adds up along runs.
    by_epoch = np.ascontiguousarray(counts.T, dtype=np.min_scalar_type(int(counts.max()) * window))
    around = np.concatenate([by_epoch, by_epoch[:, : max(circle.distances, circle.half)]], axis=1)
    larger = np.empty_like(by_epoch)

    def square_distances(along: int) -> Whole:
        """The squared sum over epochs of |a - b|, for each run and the one so far along: [runs]."""
        np.maximum(by_epoch, around[:, along : along + runs], out=larger)
        both = totals + np.roll(totals, -along)
        found: Whole = (2 * larger.sum(axis=0, dtype=larger.dtype).astype(np.int64) - both) ** 2
        return found

    squared = np.zeros(runs, dtype=np.int64)
    for along in range(1, circle.distances + 1):
        found = square_distances(along)
        squared += found + np.roll(found, along)
    if circle.half:
        squared += square_distances(circle.half)
    norms = (counts**2).sum(axis=1)
    products = np.einsum("re,re->r", counts, circle.sum_partners(counts))
    squares = circle.partners * norms + circle.sum_partners(norms) - 2 * products
    sums: Whole = window * squares - squared
    return sums


def _sum_each(errors: Floats, circle: Circle, ddof: int) -> Floats:
    """As `sum_variances`, pair by pair."""
    runs = len(errors)
    sums = np.zeros(runs)
    around = np.concatenate([errors, errors[: circle.distances + 1]])
    for along in range(1, circle.distances + 1):
        variances = _variances(errors, around[along : along + runs], ddof)
        sums += variances + np.roll(variances, along)
    if circle.half:
        variances = _variances(errors[: circle.half], errors[circle.half :], ddof)
        sums += np.concatenate([variances, variances])
    return sums


def _variances(errors: Floats, others: Floats, ddof: int) -> Floats:
    """Variance over epochs of the distance of two runs, row by row: [pairs, window] twice -> [pairs]."""
    variances = np.empty(len(errors))
    step = max(1, _BLOCK // errors.shape[1])
    block = np.empty((min(step, len(errors)), errors.shape[1]))
    for first in range(0, len(errors), step):
        part = slice(first, first + step)
        distances = block[: len(errors[part])]
        np.subtract(errors[part], others[part], out=distances)
        np.abs(distances, out=distances)
        distances -= distances.mean(axis=1, keepdims=True)
        np.einsum("pe,pe->p", distances, distances, out=variances[part])
    variances /= errors.shape[1] - ddof
    variances[variances < _ROUNDING_PCT**2] = 0.0
    return variances
