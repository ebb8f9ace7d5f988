"""Where a function crosses zero, without SciPy's optimisers: a report would load 20 MB for this alone."""

from collections.abc import Callable

_TOLERANCE = 1e-13  # of the distance between two ends: far below what is printed


def find_root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a continuous function is 0, by inverse quadratic interpolation and bisection (Chandrupatla 1997).

    Args:
        function: Of one sign at `low` and of the other at `high`.
        low: One end.
        high: The other.

    Raises:
        ValueError: Both ends have the same sign.
    """
    one, other = low, high
    at_one, at_other = function(one), function(other)
    if at_one * at_other > 0:
        raise ValueError(f"no root between {low:g} and {high:g}: the values are {at_one:g} and {at_other:g}")
    share = 0.5
    while True:
        new = one + share * (other - one)
        at_new = function(new)
        if (at_new > 0) == (at_one > 0):
            last, at_last = one, at_one
        else:
            last, other, at_last, at_other = other, one, at_other, at_one
        one, at_one = new, at_new
        best, at_best = min((one, at_one), (other, at_other), key=lambda end: abs(end[1]))
        least = (_TOLERANCE * max(1.0, abs(best))) / abs(other - one)
        if least > 0.5 or at_best == 0:
            return best
        place = (one - other) / (last - other)
        rise = (at_one - at_other) / (at_last - at_other)
        if rise**2 < place and (1 - rise) ** 2 < 1 - place:  # else the parabola leaves the two ends
            share = at_one / (at_other - at_one) * at_last / (at_other - at_last)
            far = (last - one) / (other - one)
            share += far * at_one / (at_last - at_one) * at_other / (at_last - at_other)
        else:
            share = 0.5
        share = min(1 - least, max(least, share))
