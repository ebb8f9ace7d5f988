"""Where a function crosses zero, without SciPy's optimisers: a report would load 20 MB for this alone."""

import math
from collections.abc import Callable

_TOLERANCE = 1e-13  # of the distance between two ends: far below what is printed
_MOST_STEPS = 2000  # halving all numbers of float64 down to the tolerance takes 1,070


def find_root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a continuous function is 0, by inverse quadratic interpolation and bisection (Chandrupatla 1997).

    Args:
        function: Of one sign at `low` and of the other at `high`, or 0 at one of them, which is returned.
        low: One end.
        high: The other.

    Raises:
        ValueError: The ends are not of two signs, a value is NaN, or there is no root after 2,000 steps.
    """
    one, other = low, high
    at_one, at_other = function(one), function(other)
    for end, at_end in ((one, at_one), (other, at_other)):
        if at_end == 0:
            return end
    if not (at_one < 0 < at_other or at_other < 0 < at_one):
        raise ValueError(f"no root between {low:g} and {high:g}: the values are {at_one:g} and {at_other:g}")
    share = 0.5
    for _ in range(_MOST_STEPS):
        new = one + share * (other - one)
        at_new = function(new)
        if math.isnan(at_new):
            raise ValueError(f"no root between {low:g} and {high:g}: the value at {new:g} is NaN")
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
    raise ValueError(f"no root between {low:g} and {high:g} after {_MOST_STEPS} steps")
