"""Tests and intervals that hold at every look at runs that still come in, in the order of their seeds.

The design is Pocock's (1977): every look asks for the same nominal p, so small that chance alone reaches it
at any of the looks that the plan allows with 5 %. `hkrun.stats.looks` takes that probability exactly for
normal differences. A look after every pair is allowed for, so any coarser series of looks, and any rule of
stopping, keeps the level too. p of a comparison is the probability that chance shows as small a nominal p at
any look of the whole plan: it may be read, and corrected by Holm, at any time. All of that is of one mean:
where it drifts as pairs come in, looks may contradict each other, and then nothing is to be concluded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from hkrun.stats.errors import LEVEL, Interval, finite_vector, largest_p
from hkrun.stats.looks import nominal_level, p_over_looks
from hkrun.stats.memory import remembered
from hkrun.stats.permutations import Floats

FIRST_LOOK = 6  # fewer pairs cannot reach 5 % by their signs alone
# A difference that varies by less than this share of its size only does so by rounding.
_ROUNDING = 1e-12
_STUDIES = 10_000  # of a simulation


@dataclass(frozen=True, kw_only=True)
class SequentialDifference:
    """A mean paired difference, told at every look.

    Attributes:
        difference: Mean of all differences so far, in their unit.
        ci95: All values that no look so far rejected at 5 %, of all looks together: with 95 % the true mean
            is in it at every look at once. None before the first look, or where looks contradict each other.
        p: Two-sided, of no difference, over all looks of the plan; 1 before the first look.
        drifts: Whether looks contradict each other, so that the pairs are not of one mean: no value is in the
            intervals of all, or a look at which a difference stood points another way than the last one.
        n: Number of pairs so far.
    """

    difference: float
    ci95: Interval | None
    p: float
    drifts: bool
    n: int


@dataclass(frozen=True, kw_only=True)
class SequentialEquivalence:
    """How a mean paired difference lies to a margin, told at every look.

    Attributes:
        margin: The margin, in the unit of the differences.
        difference: Mean of all differences so far.
        ci90: As that of `SequentialDifference`, at 5 % on each side.
        p_below: One-sided p of the mean being at or above the margin.
        p: Of the two one-sided tests together: small where the mean is within both margins.
        p_not_below: One-sided p of the mean being at or below the margin: small where it is above.
        p_beyond: Two-sided p of lying within the margins: small where it is beyond one of them.
        drifts: Whether looks contradict each other, so that the pairs are not of one mean: no value is in the
            intervals of all. Early looks may then exclude one margin and late ones the other, and p be small.
        n: Number of pairs so far.
    """

    margin: float
    difference: float
    ci90: Interval | None
    p_below: float
    p: float
    p_not_below: float
    p_beyond: float
    drifts: bool
    n: int


def plan_looks(most: int) -> tuple[int, ...]:
    """The looks of a plan of so many pairs at most: after every pair from the first look on.

    Raises:
        ValueError: Fewer pairs than the first look needs.
    """
    if most < FIRST_LOOK:
        raise ValueError(f"{most} pairs at most; the first look is at {FIRST_LOOK}")
    return tuple(range(FIRST_LOOK, most + 1))


def sequential_p(
    nominal: Callable[[int], float], looks: Sequence[int], *, pairs: int, two_sided: bool = True
) -> float:
    """P of a test over all looks of a plan, from its p at each of those that were.

    The plan's error is exact for the t test of normal differences; it is that of other tests as far as their
    estimates gain information pair by pair likewise.

    Args:
        nominal: P of the first so many pairs.
        looks: After how many pairs the plan allows a look.
        pairs: How many there are by now.
        two_sided: Whether p is of both directions.

    Returns:
        The p; 1 before the first look.

    Raises:
        ValueError: More pairs than the plan has.
    """
    return _over_looks([nominal(look) for look in _taken(looks, pairs)], looks, two_sided=two_sided)


def largest_p_by_look(
    bounds: ArrayLike, looks: Sequence[int], *, generator: np.random.Generator
) -> tuple[float, ...]:
    """The largest p of a mean difference at each look so far, of pairs of which some are unknown.

    A look at known pairs alone is of Student's t, as in `sequential_difference`; one at pairs of which some
    are unknown has the largest p of sign flips that there may be, see `hkrun.stats.errors.largest_p`, for t
    values have no such bound. So what was decided before the first unknown pair stands.

    Args:
        bounds: The lowest and the highest value of each difference, equal where it is known, in the order in
            which the pairs came in, shape [pairs, 2].
        looks: After how many pairs the plan allows a look, at least 2 each, in rising order.
        generator: Draws the sign flips where not all are taken.

    Returns:
        P over all looks of the plan, as known at each of those that were: it never rises.

    Raises:
        ValueError: More pairs than the plan has, or bounds of another shape.
    """
    ends = np.asarray(bounds, dtype=np.float64)
    if ends.ndim != 2 or ends.shape[1] != 2:
        raise ValueError(f"bounds have shape {ends.shape}; a lowest and a highest value each are needed")
    known, nominal = ends[:, 0] == ends[:, 1], []
    for look in _taken(looks, len(ends)):
        certain, first = known[:look], ends[:look]
        if certain.all():
            above = _one_sided(first[:, 0], [look], 0.0)[0]
            nominal.append(2 * min(above, 1 - above))
        elif certain.any():
            nominal.append(largest_p(first[certain, 0], first[~certain], generator=generator))
        else:
            nominal.append(1.0)
    return tuple(_over_looks(nominal[: look + 1], looks, two_sided=True) for look in range(len(nominal)))


def sequential_difference(differences: ArrayLike, looks: Sequence[int]) -> SequentialDifference:
    """Compares paired runs at every look of a plan: Student's t of the first pairs each.

    Args:
        differences: One per pair, in the order in which they came in, shape [pairs].
        looks: After how many pairs the plan allows a look, at least 2 each, in rising order.

    Raises:
        ValueError: More pairs than the plan has, no difference, or one that is not finite.
    """
    values = finite_vector(differences)
    taken = _taken(looks, len(values))
    p_values = [2 * min(p, 1 - p) for p in _one_sided(values, taken, 0.0)]
    intervals = confidence_sequence(values, looks)
    means = [float(values[:look].mean()) for look in taken]
    return SequentialDifference(
        difference=float(values.mean()),
        ci95=_last(intervals),
        p=_over_looks(p_values, looks, two_sided=True),
        drifts=_is_empty(intervals) or _directions_differ(means, p_values, looks),
        n=len(values),
    )


def _directions_differ(effects: Sequence[float], p_values: Sequence[float], looks: Sequence[int]) -> bool:
    """Whether a look at which an effect stood at 5 % points another way than the last look, or than another.

    Args:
        effects: One per look so far, 0 where there is none.
        p_values: Two-sided nominal p of each.
        looks: After how many pairs the plan allows a look.
    """
    nominal = nominal_level(tuple(looks))
    stood = {np.sign(effect) for effect, p in zip(effects, p_values, strict=True) if p <= nominal}
    return bool(stood) and len((stood | {np.sign(effects[-1])}) - {0}) > 1


def confidence_sequence(
    differences: ArrayLike, looks: Sequence[int], *, two_sided: bool = True
) -> tuple[Interval | None, ...]:
    """The values of the mean that no look so far rejects, look by look: each interval lies in the one before.

    Args:
        differences: One per pair, in the order in which they came in, shape [pairs].
        looks: After how many pairs the plan allows a look, at least 2 each, in rising order.
        two_sided: Whether both sides together err at 5 %, as `SequentialDifference.ci95`, else each does, as
            `SequentialEquivalence.ci90`.

    Raises:
        ValueError: As `sequential_difference`.
    """
    values = finite_vector(differences)
    nominal = nominal_level(tuple(looks), two_sided=two_sided) / (2 if two_sided else 1)
    low, high = -np.inf, np.inf
    found: list[Interval | None] = []
    for look in _taken(looks, len(values)):
        mean, error = _mean_and_error(values[:look])
        if error > 0:  # values that do not vary tell nothing
            half = -float(scipy.special.stdtrit(look - 1, nominal)) * error
            low, high = max(low, mean - half), min(high, mean + half)
        found.append((low, high) if -np.inf < low <= high else None)
    return tuple(found)


def sequential_equivalence(
    differences: ArrayLike, looks: Sequence[int], *, margin: float
) -> SequentialEquivalence:
    """Tests at every look of a plan how a mean paired difference lies to a margin: one-sided t tests.

    Args:
        differences: One per pair, in the order in which they came in, shape [pairs].
        looks: After how many pairs the plan allows a look, at least 2 each, in rising order.
        margin: Above 0, in the unit of the differences.

    Raises:
        ValueError: More pairs than the plan has, no difference, one that is not finite, or a margin that is
            not positive.
    """
    values = finite_vector(differences)
    if not margin > 0:
        raise ValueError(f"the margin is {margin}; it must be above 0")
    taken = _taken(looks, len(values))

    def one_sided(p_values: list[float]) -> float:
        return _over_looks(p_values, looks, two_sided=False)

    p_above = one_sided(_one_sided(values, taken, -margin))
    p_below = one_sided(_one_sided(-values, taken, -margin))
    p_beyond_high = one_sided(_one_sided(values, taken, margin))
    p_beyond_low = one_sided(_one_sided(-values, taken, margin))
    intervals = confidence_sequence(values, looks, two_sided=False)
    return SequentialEquivalence(
        margin=margin,
        difference=float(values.mean()),
        ci90=_last(intervals),
        p_below=p_below,
        p=max(p_above, p_below),
        p_not_below=p_beyond_high,
        p_beyond=min(1.0, 2 * min(p_beyond_high, p_beyond_low)),
        drifts=_is_empty(intervals),
        n=len(values),
    )


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a plan does on average, by simulation.

    Attributes:
        pairs: Mean number of pairs until it is decided, or the plan is at its end.
        decided: Share of studies that are decided within the plan.
        different: Share that show a difference.
        equivalent: Share that show equivalence.
    """

    pairs: float
    decided: float
    different: float
    equivalent: float


def forecast(
    d_z: float,
    looks: Sequence[int],
    *,
    generator: np.random.Generator,
    margin_sd: float | None = None,
    level: float = LEVEL,
) -> Forecast:
    """How long a plan of looks takes, and what it finds, on normal differences.

    Args:
        d_z: True mean of the differences over their standard deviation.
        looks: After how many pairs there is a look.
        generator: Draws 10,000 studies.
        margin_sd: Margin of equivalence over that standard deviation; None where none is asked for.
        level: Of the difference, and of each one-sided test of equivalence.
    """
    counts = np.arange(1, looks[-1] + 1)
    taken = np.asarray(looks) - 1
    values = generator.standard_normal((_STUDIES, looks[-1])) + d_z
    sums = np.cumsum(values, axis=1)
    variances = (np.cumsum(values**2, axis=1) - sums**2 / counts)[:, taken] / taken
    means, errors = (sums / counts)[:, taken], np.sqrt(variances / (taken + 1))
    quantile = scipy.stats.t.isf(nominal_level(tuple(looks), level=level) / 2, taken)
    different = np.abs(means) >= quantile * errors
    equivalent = np.zeros_like(different)
    if margin_sd is not None:
        one_sided = scipy.stats.t.isf(nominal_level(tuple(looks), level=level, two_sided=False), taken)
        within = (margin_sd - side * means >= one_sided * errors for side in (1, -1))
        equivalent = np.logical_and(*(np.logical_or.accumulate(side, axis=1) for side in within))
    decided = different | equivalent
    ends = np.where(decided.any(axis=1), decided.argmax(axis=1), len(looks) - 1)
    rows = np.arange(_STUDIES)
    return Forecast(
        pairs=float(np.asarray(looks)[ends].mean()),
        decided=float(decided[rows, ends].mean()),
        different=float(different[rows, ends].mean()),
        equivalent=float((equivalent & ~different)[rows, ends].mean()),
    )


def _taken(looks: Sequence[int], pairs: int) -> list[int]:
    """The looks that were, by now."""
    if pairs > looks[-1]:
        raise ValueError(f"{pairs} pairs, but the plan has {looks[-1]} at most")
    return [look for look in looks if look <= pairs]


def _over_looks(p_values: Sequence[float], looks: Sequence[int], *, two_sided: bool) -> float:
    if not p_values:
        return 1.0
    return p_over_looks(min(p_values), looks, two_sided=two_sided)


@remembered()
def level_over_looks(level: float, looks: Sequence[int], *, two_sided: bool = True) -> float:
    """The nominal p whose p over all looks is `level`: `nominal_level`, interpolated, for many levels.

    Args:
        level: Above 0, below 1.
        looks: After how many pairs there is a look, at least 2 each, in rising order.
        two_sided: Whether p is of both directions.
    """

    def excess(log_nominal: float) -> float:
        return float(np.log(p_over_looks(float(np.exp(log_nominal)), looks, two_sided=two_sided) / level))

    # By Boole's inequality one between these; a hundredth wider, for what is interpolated.
    least, most = np.log(0.99 * level / len(looks)), min(np.log(1.01 * level), 0.0)
    return float(np.exp(scipy.optimize.brentq(excess, least, most, xtol=1e-6)))


def _one_sided(values: Floats, looks: Sequence[int], null: float) -> list[float]:
    """P of the mean being at or below `null`, of the first values of each look.

    Values that do not vary tell by their signs alone: chance has them all on this side with 2^-n.
    """
    p_values = []
    for look in looks:
        mean, error = _mean_and_error(values[:look] - null)
        if error > 0:
            p_values.append(float(scipy.special.stdtr(look - 1, -mean / error)))
        elif abs(mean) <= _ROUNDING:
            p_values.append(0.5)
        else:
            p_values.append(0.5**look if mean > 0 else 1 - 0.5**look)
    return p_values


def _last(intervals: Sequence[Interval | None]) -> Interval | None:
    return intervals[-1] if intervals else None


def _is_empty(intervals: Sequence[Interval | None]) -> bool:
    """Whether there were values that no look had rejected, and are none any more."""
    return bool(intervals) and intervals[-1] is None and any(intervals)


def _mean_and_error(values: Floats) -> tuple[float, float]:
    """Mean and its standard error, which is 0 where values only vary by rounding."""
    mean, error = float(values.mean()), float(values.std(ddof=1)) / float(np.sqrt(len(values)))
    return mean, error if error > _ROUNDING * max(1.0, abs(mean)) else 0.0
