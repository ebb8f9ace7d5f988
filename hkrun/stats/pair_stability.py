"""S2: eq. (10) of HKSANC for two runs, averaged over all pairs of runs.

S of eq. (10) looks at the largest and the smallest run of each epoch alone: it estimates something else for
each number of runs, and more of them do not make it more precise. S2 is the mean of eq. (10) over pairs of
runs, a U-statistic (Hoeffding 1948): its expectation does not depend on how many runs there are, and its
standard error falls with the root of their number.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hkrun.stats.errors import LEVEL, Interval
from hkrun.stats.jackknife import (
    FEW_RUNS,
    LeaveOneOut,
    RatioComparison,
    RatioEquivalence,
    compare_ratio,
    equate_ratio,
    log_interval,
)
from hkrun.stats.memory import remembered
from hkrun.stats.pair_sums import Circle, sum_variances
from hkrun.stats.permutations import Floats
from hkrun.stats.stability import last_epochs

# What is to be said of a verdict of fewer than `FEW_RUNS` (docs/statistics.md).
S2_OF_FEW = (
    f"with fewer than {FEW_RUNS} runs the test of S2 calls equal ones different in up to 8 % instead of 5 "
    "where a few runs of one cell are far noisier than its others"
)


@dataclass(frozen=True, kw_only=True)
class PairStability:
    """S2 of one configuration.

    Attributes:
        s2: In (percentage points) squared, with `ddof`.
        ddof: Delta degrees of freedom of the variance over epochs.
        window: Number of last epochs that counted.
        runs: Number of runs. S2 of different numbers of runs estimate the same.
        pairs: Number of pairs of runs that it is a mean over.
        ci95: 95 % interval; None with two runs, or where runs are equal but for a constant.
    """

    s2: float
    ddof: int
    window: int
    runs: int
    pairs: int
    ci95: Interval | None


def analyse_pair_stability(error_pct: ArrayLike, *, window: int = 100, ddof: int = 0) -> PairStability:
    """S2, the mean over pairs of runs of the variance over epochs of their distance, with its interval.

    Args:
        error_pct: Test error in percent, shape [runs, epochs], complete.
        window: Number of last epochs that count.
        ddof: Delta degrees of freedom of the variance, 0 or 1.

    Raises:
        ValueError: As `hkrun.stats.stability`.
    """
    errors = last_epochs(error_pct, window=window, ddof=ddof)
    figure, pairs = _leave_one_out(errors, ddof)
    return PairStability(
        s2=figure.whole, ddof=ddof, window=window, runs=len(errors), pairs=pairs, ci95=log_interval(figure)
    )


def compare_pair_stability(
    error_pct: ArrayLike,
    reference_pct: ArrayLike,
    *,
    window: int = 100,
    ddof: int = 0,
    paired: bool = True,
    level: float = LEVEL,
) -> RatioComparison:
    """Tests whether two configurations have the same S2.

    A permutation of labels within seeds, studentised or not, holds its level no better where the runs of one
    configuration are unequal: it is of equal distributions, not of equal S2 (docs/statistics.md).

    Args:
        error_pct: Test error in percent, shape [runs, epochs], complete.
        reference_pct: The same of the other configuration.
        window: Number of last epochs that count.
        ddof: Delta degrees of freedom of the variance, 0 or 1.
        paired: Whether both have the same seeds, row for row.
        level: What the interval leaves out in all.

    Returns:
        S2 over that of the reference: below 1 where the first is steadier.

    Raises:
        ValueError: As `hkrun.stats.stability`, or paired numbers of runs that differ.
    """
    first, second = (_figure(errors, window, ddof) for errors in (error_pct, reference_pct))
    return compare_ratio(first, second, paired=paired, level=level)


def equate_pair_stability(
    error_pct: ArrayLike,
    reference_pct: ArrayLike,
    *,
    factor: float,
    window: int = 100,
    ddof: int = 0,
    level: float = LEVEL,
) -> RatioEquivalence:
    """Tests whether two configurations have the same S2 within a factor, on the same seeds, row for row.

    Args:
        error_pct: Test error in percent, shape [runs, epochs], complete.
        reference_pct: The same of the other configuration.
        factor: Above 1: S2 over that of the reference may lie between 1 / factor and factor.
        window: Number of last epochs that count.
        ddof: Delta degrees of freedom of the variance, 0 or 1.
        level: What the interval leaves out on each side.

    Raises:
        ValueError: As `hkrun.stats.stability`, a factor of 1 or less, or numbers of runs that differ.
    """
    first, second = (_figure(errors, window, ddof) for errors in (error_pct, reference_pct))
    return equate_ratio(first, second, factor=factor, level=level)


def _figure(error_pct: ArrayLike, window: int, ddof: int) -> LeaveOneOut:
    return _leave_one_out(last_epochs(error_pct, window=window, ddof=ddof), ddof)[0]


@remembered(LeaveOneOut)
def _leave_one_out(errors: Floats, ddof: int) -> tuple[LeaveOneOut, int]:
    """S2 with and without each run, and the number of pairs it is taken over."""
    runs, window = errors.shape
    circle = Circle(runs, window)
    sums = sum_variances(errors, circle, ddof)
    pairs = runs * circle.partners // 2
    total = sums.sum() / 2
    rest = pairs - circle.partners
    without = (total - sums) / rest if rest > 0 else np.full(runs, np.nan)
    return LeaveOneOut(whole=float(total / pairs), without=without), pairs
