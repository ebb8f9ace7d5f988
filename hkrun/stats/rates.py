"""How often something happens to the runs of two configurations, on runs that are paired by seed."""

import functools
from collections.abc import Collection, Sequence

import numpy as np
import scipy

_ROUNDING = 1e-9  # p values that differ by less are equal


def compare_rates(first: Collection[int], second: Collection[int]) -> float:
    """The exact paired test of equal rates (McNemar 1947, with the binomial distribution).

    Only seeds count to which it happened in one of the two configurations and not in the other: without a
    difference each is as likely in either.

    Args:
        first: The seeds to which it happened in one configuration, of those that both ran.
        second: The same of the other.

    Returns:
        Two-sided p; 1 where no seed counts.
    """
    more, fewer = len({*first} - {*second}), len({*second} - {*first})
    if more + fewer == 0:
        return 1.0
    return float(scipy.stats.binomtest(more, more + fewer, 0.5).pvalue)


def any_look_rates_p(nominal: float, looks: Sequence[int]) -> float:
    """Probability that p of `compare_rates` is as small at any of several looks, at equal rates.

    It is exact whatever the rates are, for it is that of the seeds that count: which of the two it happened
    in is a toss of a coin for each of them, so their difference is a random walk.

    Args:
        nominal: The p, in 0..1, the same at every look.
        looks: How many seeds count at each look.

    Raises:
        ValueError: A p outside 0..1.
    """
    if not 0 <= nominal <= 1:
        raise ValueError(f"p is {nominal}; it lies in 0..1")
    return _any_look_rates_p(float(nominal), tuple(sorted({look for look in looks if look > 0})))


@functools.lru_cache(maxsize=1024)
def _any_look_rates_p(nominal: float, looks: tuple[int, ...]) -> float:
    if not looks or nominal == 1:
        return nominal
    # Probability of each number of heads, in all and without having crossed.
    crossed, all_, open_ = 0.0, np.ones(1), np.ones(1)
    for tosses in range(1, looks[-1] + 1):
        all_, open_ = ((np.append(some, 0.0) + np.append(0.0, some)) / 2 for some in (all_, open_))
        if tosses in looks:
            below = np.cumsum(all_)
            tail = np.minimum(below, below[::-1])
            crosses = 2 * tail <= nominal * (1 + _ROUNDING)
            crossed += float(open_[crosses].sum())
            open_[crosses] = 0.0
    return min(crossed, 1.0)
