"""How often something happens to the runs of two configurations, on runs that are paired by seed."""

from collections.abc import Collection

import scipy


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
