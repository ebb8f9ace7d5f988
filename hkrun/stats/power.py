"""Power analysis: how many runs would decide what few left open, were the measured figures true."""

import math
from collections.abc import Callable

from hkrun.stats.errors import LEVEL
from hkrun.stats.memory import remembered
from hkrun.stats.noncentral import noncentral_share, upper_quantile
from hkrun.stats.permutations import smallest_runs

POWER = 0.8
MOST_PAIRS = 10_000


def paired_power(d_z: float, *, pairs: int, level: float = LEVEL) -> float:
    """Probability that a two-sided paired t test finds a difference.

    The sign-flip test that hkrun uses has nearly the power of the t test on normal differences.

    Args:
        d_z: True mean of the differences over their true standard deviation; may be infinite.
        pairs: At least 2.
        level: Two-sided.

    Raises:
        ValueError: Fewer than two pairs, a size that is not a number, or a level outside 0 to 1.
    """
    return sum(_one_sided_powers(abs(d_z), -abs(d_z), pairs=pairs, level=level / 2))


@remembered()
def pairs_for_difference(d_z: float, *, level: float = LEVEL) -> int | None:
    """The fewest pairs with which a two-sided paired test finds a difference with the probability `POWER`.

    Args:
        d_z: True mean of the differences over their true standard deviation.
        level: Two-sided level of the test; that of the first step of Holm's correction, LEVEL over the number
            of tests, is safe for every step.

    Returns:
        The number, and never fewer than a permutation test needs; None above `MOST_PAIRS`.
    """
    return _fewest(
        lambda pairs: paired_power(d_z, pairs=pairs, level=level) >= POWER, least=smallest_runs(level)
    )


def equivalence_power(
    difference: float, sd: float, *, margin: float, pairs: int, level: float = LEVEL
) -> float:
    """Probability that two one-sided t tests show equivalence; a lower bound, exact where it is high.

    Args:
        difference: True mean difference.
        sd: True standard deviation of the differences, above 0.
        margin: Above 0.
        pairs: At least 2.
        level: Of each one-sided test.

    Raises:
        ValueError: Fewer than two pairs, a figure that is not a number, or a level outside 0 to 0.5.
    """
    sizes = (margin + difference) / sd, (margin - difference) / sd
    return max(0.0, sum(_one_sided_powers(*sizes, pairs=pairs, level=level)) - 1)


def _one_sided_powers(*sizes: float, pairs: int, level: float) -> list[float]:
    """For each true d_z, the probability that a one-sided paired t test finds a difference."""
    if pairs < 2:
        raise ValueError(f"a paired t test needs at least 2 pairs, not {pairs}")
    if any(map(math.isnan, sizes)):
        raise ValueError("the size of the difference is not a number, so no power can be told")
    critical, root = upper_quantile(level, pairs - 1), math.sqrt(pairs)
    return [1 - noncentral_share(critical, pairs - 1, root * size) for size in sizes]


@remembered()
def pairs_for_equivalence(
    difference: float, sd: float, *, margin: float, level: float = LEVEL, tests: int = 1
) -> int | None:
    """The fewest pairs with which two one-sided tests show equivalence with the probability `POWER`.

    Args:
        difference: True mean difference.
        sd: True standard deviation of the differences, above 0.
        margin: Above 0.
        level: Of each one-sided test.
        tests: Of how many such differences all are to be shown equivalent.

    Returns:
        The number; None above `MOST_PAIRS` or where the difference is not within the margin.
    """
    if abs(difference) >= margin:
        return None
    needed = _power_of_each(tests)
    return _fewest(
        lambda pairs: equivalence_power(difference, sd, margin=margin, pairs=pairs, level=level) >= needed,
        least=2,
    )


def _power_of_each(tests: int) -> float:
    """The power of each of several tests that all succeed with the probability `POWER` at least.

    By Boole's inequality, whatever they have in common.
    """
    return 1 - (1 - POWER) / tests


def detectable_effect(pairs: int, *, level: float = LEVEL) -> float:
    """The smallest true d_z that a two-sided paired test finds with the probability `POWER`.

    Args:
        pairs: At least 2.
        level: Two-sided level of the test.

    Raises:
        ValueError: Fewer than two pairs, or a level outside 0 to 1.
    """
    return _smallest(lambda d_z: paired_power(d_z, pairs=pairs, level=level))


def detectable_margin(pairs: int, *, level: float = LEVEL, tests: int = 1) -> float:
    """The smallest margin within which two one-sided tests show equal errors equivalent, as often as `POWER`.

    Args:
        pairs: At least 2.
        level: Of each one-sided test.
        tests: How many pairs of errors are to be shown equivalent, all of them.

    Returns:
        The margin in standard deviations of the differences.

    Raises:
        ValueError: Fewer than two pairs, or a level outside 0 to 0.5.
    """
    return _smallest(
        lambda margin: equivalence_power(0.0, 1.0, margin=margin, pairs=pairs, level=level),
        needed=_power_of_each(tests),
    )


def _smallest(power: Callable[[float], float], *, needed: float = POWER) -> float:
    """Where a power that grows with a size reaches what is needed, to 12 digits."""
    low, high = 0.0, 1.0
    while power(high) < needed:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= needed else (middle, high)
    return high


def _fewest(is_enough: Callable[[int], bool], *, least: int) -> int | None:
    """The smallest number that is enough, where every larger one is too; None above `MOST_PAIRS`."""
    low, high = least - 1, least
    while not is_enough(high):
        if high >= MOST_PAIRS:
            return None
        low, high = high, min(2 * high, MOST_PAIRS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
