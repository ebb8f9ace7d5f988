"""How often chance alone shows a difference at any of several looks at runs that still come in.

Let X be paired differences without a true one: independent, normal, of mean 0 and of any variance. Student's
t of the first n of them is that of their direction r = sum(X) / sqrt(sum(X^2)), which lies in -sqrt(n) ..
sqrt(n): t = r sqrt((n - 1) / (n - r^2)). The direction does not depend on the length sqrt(sum(X^2)), so the
directions at the looks are a Markov chain in one dimension. Of the next k differences count their sum and the
squares of what is left without it. With the latter, the length becomes that times 1 / sqrt(u), where u is of
the distribution Beta(n / 2, (k - 1) / 2), and 1 for k = 1. The sum over that new length is sqrt(k) times a t
value of f = n + k - 1 degrees of freedom over sqrt(f), whatever came before:

    r' = (r sqrt(u) + sqrt(k) w) / sqrt(1 + w^2),    w = tan(phi) ~ t_f / sqrt(f),
       = sqrt(k + s^2) sin(phi + arctan(s / sqrt(k))),    s = r sqrt(u).

The probability of crossing a boundary at some look is therefore an integral that is taken backwards, look by
look, as Armitage, McPherson and Rowe (1969) took it for a known variance: no simulation, and no large-sample
approximation of the t values. It takes as long for five thousand pairs as for fifty.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
import scipy

from hkrun.stats.errors import LEVEL
from hkrun.stats.memory import remembered
from hkrun.stats.permutations import Floats

_GRID = 401  # directions at which a probability is known; a cubic spline runs between them
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_TAIL = 1e-13  # of the steps that are left out
_TINY = 1e-100  # a p at which the square of t is no number any more
# Between these logarithms of p, closest where p is near 1, that over all looks is interpolated.
_SMALLEST = 1e-5
_LOGS = np.log(_SMALLEST) * np.linspace(1.0, 0.0, 17) ** 2


def any_look_p(nominal: float, looks: Sequence[int], *, two_sided: bool = True) -> float:
    """Probability that p of a paired t test is as small at any of several looks, with no true difference.

    It is `nominal` itself for one look, and at most the number of looks times as much.

    Args:
        nominal: The p, in 0..1, the same at every look (Pocock 1977).
        looks: After how many pairs there is a look, at least 2 each, in rising order.
        two_sided: Whether p is of both directions, else of the mean being above 0.

    Raises:
        ValueError: A p outside 0..1, no look, or looks that do not rise from 2.
    """
    counts = tuple(looks)
    if not 0 <= nominal <= 1:
        raise ValueError(f"p is {nominal}; it lies in 0..1")
    if not counts or counts[0] < 2 or any(later <= one for one, later in itertools.pairwise(counts)):
        raise ValueError(f"looks are {list(counts)}; numbers of pairs are needed that rise from 2")
    return _any_look_p((float(nominal),) * len(counts), counts, two_sided)


def error_of_stages(stages: Sequence[Sequence[int]]) -> float:
    """Share of studies without a difference that show one at some look, where more looks came unplanned.

    Exact, as `any_look_p`.

    Args:
        stages: The looks that each stage of a study allowed for, those before it too: its tests were of 5 %
            over these alone. Each has the looks of the one before, and more.
    """
    levels: dict[int, float] = {}
    for stage in stages:
        levels |= dict.fromkeys(set(stage) - set(levels), nominal_level(tuple(stage)))
    looks = tuple(sorted(levels))
    return _p_of_levels([levels[look] for look in looks], looks)


@remembered()
def _p_of_levels(levels: Sequence[float], looks: Sequence[int]) -> float:
    return _any_look_p(tuple(levels), tuple(looks), True)


def p_over_looks(nominal: float, looks: Sequence[int], *, two_sided: bool = True) -> float:
    """`any_look_p` for many p of the same looks: interpolated from a few of them, which are kept.

    The logarithm is interpolated by that of the nominal p, monotonically, from four neighbouring ones
    (Fritsch and Butland 1984). It is right to about a thousandth, below p = 0.001 to a hundredth, and below
    1e-5 exact.
    """
    if len(looks) < 2 or not _SMALLEST <= nominal < 1:
        return any_look_p(nominal, looks, two_sided=two_sided)
    log = math.log(nominal)
    after = int(np.searchsorted(_LOGS, log, side="right"))
    near = _LOGS[max(0, after - 2) : after + 2]
    found = [math.log(any_look_p(float(np.exp(one)), looks, two_sided=two_sided)) for one in near]
    return float(np.exp(scipy.interpolate.PchipInterpolator(near, found)(log)))


@remembered()
@functools.lru_cache(maxsize=4096)
def nominal_level(looks: tuple[int, ...], *, level: float = LEVEL, two_sided: bool = True) -> float:
    """The p that every look asks for, so that chance crosses it at any of them with the probability `level`.

    Args:
        looks: As of `any_look_p`.
        level: Above 0, below 1.
        two_sided: Likewise.
    """
    if len(looks) == 1:
        return level

    def excess(log_nominal: float) -> float:
        return math.log(any_look_p(math.exp(log_nominal), looks, two_sided=two_sided) / level)

    least, most = np.log(level / len(looks)), np.log(level)
    return float(np.exp(scipy.optimize.brentq(excess, least, most, xtol=1e-6)))


@functools.lru_cache(maxsize=4096)
def _any_look_p(levels: tuple[float, ...], looks: tuple[int, ...], two_sided: bool) -> float:
    """Probability that at some look p is up to the level of that look."""
    if len(looks) == 1 or max(levels) in (0.0, 1.0):
        return max(levels)
    if max(levels) < _TINY:  # Boole's bound, and the boundary would be no number
        return math.fsum(levels)
    boundaries = [_boundary(look, level, two_sided) for look, level in zip(looks, levels, strict=True)]
    later: scipy.interpolate.CubicSpline | None = None
    for place in range(len(looks) - 2, -1, -1):
        pairs, boundary = looks[place], boundaries[place]
        # Where the look has not crossed.
        low, high = -boundary if two_sided else -float(np.sqrt(pairs)), boundary
        more = looks[place + 1] - pairs
        longer = _grid(min(low, 0.0), max(high, 0.0), pairs)
        crossing = scipy.interpolate.CubicSpline(
            longer, _crossing(longer, pairs, more, boundaries[place + 1], later, two_sided)
        )
        directions = _grid(low, high, pairs)
        later = scipy.interpolate.CubicSpline(directions, _over_lengths(crossing, directions, pairs, more))
    assert later is not None
    # The first look: its angle, the arcsine of r over its largest value, has the density cos^(pairs - 2).
    pairs = looks[0]
    angles = [float(np.arcsin(end / np.sqrt(pairs))) for end in (later.x[0], later.x[-1])]
    nodes, weights = _quadrature(np.array(angles[:1]), np.array(angles[1:]), split=16)
    density = _cosine_density(nodes, pairs - 2)
    crossed_later = later(np.sqrt(pairs) * np.sin(nodes))
    probability = levels[0] + float((weights * density * crossed_later).sum())
    # Boole's bounds are closer than the spline where the p is tiny.
    return min(max(*levels, probability), math.fsum(levels), 1.0)


def _boundary(pairs: int, nominal: float, two_sided: bool) -> float:
    """The direction from which on a look crosses."""
    t = -float(scipy.special.stdtrit(pairs - 1, nominal / 2 if two_sided else nominal))
    return t * float(np.sqrt(pairs / (pairs - 1 + t * t)))


def _grid(low: float, high: float, pairs: int) -> Floats:
    """Directions at which a probability is computed: equal angles apart, as it is steepest near +-sqrt(n)."""
    whole = math.sqrt(pairs)
    first, last = (math.asin(max(-1.0, min(end / whole, 1.0))) for end in (low, high))
    directions: Floats = whole * np.sin(np.linspace(first, last, _GRID))
    return directions


def _over_lengths(
    crossing: "scipy.interpolate.CubicSpline", directions: Floats, pairs: int, more: int
) -> Floats:
    """Mean of a function of the direction over the longer length, over that length's distribution.

    Args:
        crossing: Of s.
        directions: Those of the first `pairs`, r.
        pairs: How many those are, n.
        more: How many follow, k.

    Returns:
        [directions].
    """
    if more == 1:
        found: Floats = crossing(directions)
        return found
    # sqrt(u) = cos(angle) of density cos^(n - 1) sin^(k - 2), both powers whole: smooth, as u's own is not.
    half, rest = pairs / 2, (more - 1) / 2
    least, most = (scipy.special.betaincinv(*shape, _TAIL) for shape in ((rest, half), (half, rest)))
    ends = np.arccos(np.sqrt([1 - least, most]))
    angles, weights = _quadrature(ends[:1], ends[1:], split=2)
    logs = (pairs - 1) * np.log(np.cos(angles)) + (more - 2) * np.log(np.sin(angles))
    weights = weights * np.exp(logs - logs.max())
    mean: Floats = (crossing(directions[:, None] * np.cos(angles)) * weights).sum(axis=1) / weights.sum()
    return mean


def _crossing(
    longer: Floats,
    pairs: int,
    more: int,
    boundary: float,
    later: "scipy.interpolate.CubicSpline | None",
    two_sided: bool,
) -> Floats:
    """Probability of crossing at the next look or later, by s: [longer].

    Args:
        longer: The s, the sum of the first pairs over the longer length.
        pairs: How many those are, n.
        more: How many follow until the next look, k.
        boundary: Of the next look.
        later: The same probability at that look, by its direction; None at the last one.
        two_sided: Whether it is crossed below, too.
    """
    freedom = pairs + more - 1
    turn = np.arctan(longer / np.sqrt(more))  # an angle phi of the step leads to a sine of phi + turn
    reach = np.sqrt(more + longer**2)
    steepest = float(np.arctan(-scipy.special.stdtrit(freedom, _TAIL) / np.sqrt(freedom)))
    above = np.arcsin(np.clip(boundary / reach, -1.0, 1.0))
    # Crossing above: phi + turn within above .. pi - above; below, where that counts, mirrored.
    probability = _share(above - turn, np.pi - above - turn, freedom)
    if two_sided:
        probability += _share(above - np.pi - turn, -above - turn, freedom)
    if later is None:
        return probability
    whole = np.full_like(turn, np.inf)
    pieces = (
        [(-whole, above - np.pi - turn), (-above - turn, above - turn), (np.pi - above - turn, whole)]
        if two_sided
        else [(-whole, above - turn), (np.pi - above - turn, whole)]
    )
    for low, high in pieces:
        first, last = np.clip(low, -steepest, steepest), np.clip(high, -steepest, steepest)
        some = last > first
        if not some.any():
            continue
        nodes, weights = _quadrature(first[some], last[some])
        density = _cosine_density(nodes, freedom - 1)
        ends = reach[some, None] * np.sin(nodes + turn[some, None])
        probability[some] += (weights * density * later(ends)).sum(axis=1)
    return probability


def _cosine_density(angles: Floats, power: int) -> Floats:
    """The density over -pi/2 .. pi/2 proportional to cos^power: t values are tangents of such angles."""
    half = scipy.special.gammaln((power + 1) / 2) - scipy.special.gammaln(power / 2 + 1)
    whole = math.sqrt(math.pi) * math.exp(half)
    density: Floats = np.cos(angles) ** power / whole
    return density


def _share(low: Floats, high: Floats, pairs: int) -> Floats:
    """Probability that the angle of the next step lies between two, row by row."""
    limit = np.pi / 2
    beyond_low, beyond_high = (
        scipy.special.stdtr(pairs, -np.sqrt(pairs) * np.tan(np.clip(end, -limit, limit)))
        for end in (low, high)
    )
    share: Floats = np.maximum(0.0, beyond_low - beyond_high)
    return share


def _quadrature(low: Floats, high: Floats, split: int = 1) -> tuple[Floats, Floats]:
    """Gauss-Legendre nodes and weights of each interval, in so many parts: [intervals, split * nodes]."""
    cuts = low[:, None] + (high - low)[:, None] * np.arange(split + 1) / split
    half = (cuts[:, 1:] - cuts[:, :-1]) / 2
    middle = (cuts[:, 1:] + cuts[:, :-1]) / 2
    nodes = middle[..., None] + half[..., None] * _NODES
    weights = half[..., None] * _WEIGHTS
    return nodes.reshape(len(low), -1), weights.reshape(len(low), -1)
