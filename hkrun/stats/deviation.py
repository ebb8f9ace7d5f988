"""How far runs of one configuration end apart: their standard deviation over seeds, and the ratio of two."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hkrun.stats.errors import LEVEL, Interval, finite_vector
from hkrun.stats.jackknife import FEW_RUNS, LeaveOneOut, RatioComparison, compare_ratio, log_interval
from hkrun.stats.permutations import Floats

# What is to be said of a verdict of fewer than `FEW_RUNS` (docs/statistics.md).
DEVIATION_OF_FEW = (
    f"with fewer than {FEW_RUNS} runs the test of standard deviations calls equal ones different in up to "
    "10 % instead of 5 where errors are skewed"
)
# A value that is off the mean by less than this share of it only is so by rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """Standard deviation over the runs of one configuration.

    Attributes:
        sd: With ddof = 1, in the unit of the values; None with one run.
        n: Number of runs.
        ci95: 95 % interval, which does not take the values for normal; None with fewer than three runs, and
            where all but one are equal.
    """

    sd: float | None
    n: int
    ci95: Interval | None


def analyse_deviation(values: ArrayLike) -> Deviation:
    """The standard deviation of the runs' errors with its interval, by the jackknife of its logarithm.

    Args:
        values: One error per run, shape [runs].

    Raises:
        ValueError: No value, or one that is not finite.
    """
    errors = finite_vector(values)
    if len(errors) < 2:
        return Deviation(sd=None, n=len(errors), ci95=None)
    figure = _leave_one_out(errors)
    return Deviation(sd=figure.whole, n=len(errors), ci95=log_interval(figure))


def compare_deviation(
    values: ArrayLike, reference_values: ArrayLike, *, paired: bool = True, level: float = LEVEL
) -> RatioComparison:
    """Tests whether two configurations have the same standard deviation over runs.

    Args:
        values: One error per run, shape [runs].
        reference_values: The same of the reference.
        paired: Whether both have the same seeds, value for value.
        level: What the interval leaves out in all.

    Raises:
        ValueError: Fewer than two values, one that is not finite, or paired lengths that differ.
    """
    first, second = finite_vector(values), finite_vector(reference_values)
    if min(len(first), len(second)) < 2:
        raise ValueError("1 run: a standard deviation needs at least 2")
    return compare_ratio(_leave_one_out(first), _leave_one_out(second), paired=paired, level=level)


def _leave_one_out(values: Floats) -> LeaveOneOut:
    """The standard deviation (ddof 1) with and without each value."""
    n = len(values)
    centred = values - values.mean()
    centred[np.abs(centred) <= _ROUNDING * np.abs(values).max()] = 0.0
    squares = float(centred @ centred)
    if n < 3:
        return LeaveOneOut(whole=float(np.sqrt(squares / (n - 1))), without=np.full(n, np.nan))
    # Without one value the mean moves too, so the sum of squares falls by n / (n - 1) of its square.
    without = np.maximum(squares - centred**2 * n / (n - 1), 0.0)
    without[without <= _ROUNDING * squares] = 0.0
    return LeaveOneOut(whole=float(np.sqrt(squares / (n - 1))), without=np.sqrt(without / (n - 2)))
