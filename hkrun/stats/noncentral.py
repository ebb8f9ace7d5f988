"""The noncentral t distribution for power, without the parts of SciPy that take a plan half a second to load.

A value is (z + noncentrality) / spread: z is standard normal, degrees * spread^2 chi-square of so many
degrees of freedom. So a share is a mean over the spread of normal shares, here over equally far logarithms of
it, where the trapezoidal sum of a smooth function that vanishes at both ends is exact to rounding.
"""

import functools
import math
import statistics
from collections.abc import Callable

import numpy as np
import scipy

from hkrun.stats.permutations import Floats

_DEEPEST = -45.0  # logarithm of the weights that are left out, over the largest one's
# Over which steps the sum is exact, of the distance over which the weights and the normal shares rise.
_STEP_OF_WEIGHTS, _STEP_OF_SHARES = 0.15, 0.75
_MOST_POINTS = 50_000
# Midpoints of equal shares of a distribution: what an integral over it is a mean over.
_RANKS = (np.arange(20_000) + 0.5) / 20_000


def noncentral_share(t: float, degrees: float, noncentrality: float) -> float:
    """The share of a noncentral t distribution that is at most `t`, to 1e-12.

    Where normal shares rise too steeply for the sum, it is the mean over equal shares of the spread.

    Args:
        t: Finite.
        degrees: Degrees of freedom, above 0.
        noncentrality: May be infinite.
    """
    if math.isinf(noncentrality):
        return float(noncentrality < 0)
    points = _count_points(degrees, noncentrality)
    if points > _MOST_POINTS:
        spreads = np.sqrt(2 * scipy.special.gammaincinv(degrees / 2, _RANKS) / degrees)
        return float(scipy.special.ndtr(t * spreads - noncentrality).mean())
    weights, spreads = _weights(degrees, points)
    root = math.sqrt(2)
    return math.fsum(
        weight * math.erfc((noncentrality - t * spread) / root) / 2
        for weight, spread in zip(weights.tolist(), spreads.tolist(), strict=True)
    )


def share_by_noncentrality(t: float, degrees: float, *, most: float) -> Callable[[float], float]:
    """`noncentral_share` of one t as a function of the noncentrality, for a search.

    All at once, by SciPy's normal shares, which a plan would wait for.

    Args:
        t: The value.
        degrees: Its degrees of freedom.
        most: What the noncentrality is at most, in size; finite and above 0.
    """
    # The next power of two: searches with as many degrees of freedom share their weights.
    points = _count_points(degrees, 2.0 ** math.ceil(math.log2(most)))
    if points > _MOST_POINTS:
        spreads = np.sqrt(2 * scipy.special.gammaincinv(degrees / 2, _RANKS) / degrees)
        weights = np.full(len(spreads), 1 / len(spreads))
    else:
        weights, spreads = _weights(degrees, points)
    return lambda noncentrality: float(weights @ scipy.special.ndtr(t * spreads - noncentrality))


@functools.lru_cache(maxsize=64)
def upper_quantile(share: float, degrees: float) -> float:
    """Where the share of central t values that lie above is this, below a half.

    By Newton's method from the normal distribution's, which is too small: above 0 the share is convex in t,
    so that every step falls short of the root.

    Raises:
        ValueError: A share that is not between 0 and a half.
    """
    if not 0 < share < 0.5:
        raise ValueError(f"the share above a quantile is {share}; it must be between 0 and 0.5")
    weights, spreads = _weights(degrees, _count_points(degrees, 0.0))
    points, root = list(zip(weights.tolist(), spreads.tolist(), strict=True)), math.sqrt(2)
    t = -statistics.NormalDist().inv_cdf(share)
    while True:
        above = math.fsum(weight * math.erfc(t * spread / root) / 2 for weight, spread in points)
        density = math.fsum(weight * spread * math.exp(-((t * spread) ** 2) / 2) for weight, spread in points)
        step = (above - share) * math.sqrt(2 * math.pi) / density
        t += step
        if step <= 1e-14 * t:
            return t


def _count_points(degrees: float, noncentrality: float) -> int:
    """How many points the sum needs; not counted far above `_MOST_POINTS`, where it is not taken."""
    low, high = _reach(degrees)
    steepest = math.hypot(math.sqrt(2 * degrees) / _STEP_OF_WEIGHTS, noncentrality / _STEP_OF_SHARES)
    return math.ceil(min((high - low) * steepest, _MOST_POINTS + 1))


@functools.lru_cache(maxsize=8)
def _weights(degrees: float, points: int) -> tuple[Floats, Floats]:
    """Weights that add up to 1, and the spread of each, shapes [points + 1]."""
    low, high = _reach(degrees)
    places = np.linspace(low, high, points + 1)
    weights = np.exp(_log_weight(places, degrees))
    return weights / weights.sum(), np.exp(places)


def _log_weight(place: Floats | float, degrees: float) -> Floats:
    """Logarithm of the density of the spread's logarithm, over that at its peak, 0."""
    return degrees * (place - np.expm1(2 * place) / 2)


@functools.lru_cache(maxsize=8)
def _reach(degrees: float) -> tuple[float, float]:
    """Between which logarithms of the spread the weights are."""
    ends = []
    for side in (-1, 1):
        end = side / math.sqrt(2 * degrees)
        while _log_weight(end, degrees) > _DEEPEST:
            end *= 1.2
        ends.append(end)
    return ends[0], ends[1]
