"""Power analysis: how many runs would decide what few left open, were the measured figures true."""

from collections.abc import Callable

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike

from hkrun.stats.errors import LEVEL
from hkrun.stats.permutations import Floats, smallest_runs
from hkrun.stats.stability import compare_stability, last_epochs

POWER = 0.8
MOST_PAIRS = 10_000
_STUDIES = 100
_PERMUTATIONS = 199  # of each simulated study: p in steps of 0.005
_MULTIPLES = (2, 4, 8)  # of the measured number of runs


def paired_power(d_z: float, *, pairs: int, level: float = LEVEL) -> float:
    """Probability that a two-sided paired t test finds a difference.

    The sign-flip test that hkrun uses has nearly the power of the t test on normal differences.

    Args:
        d_z: True mean of the differences over their true standard deviation.
        pairs: At least 2.
        level: Two-sided.
    """
    degrees, noncentrality = pairs - 1, abs(d_z) * np.sqrt(pairs)
    critical = scipy.stats.t.ppf(1 - level / 2, degrees)
    found = scipy.stats.nct.sf(critical, degrees, noncentrality)
    wrong = 1 - scipy.stats.nct.sf(-critical, degrees, noncentrality)  # cdf gives NaN far out
    return float(found + wrong)


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
    """
    degrees, root = pairs - 1, np.sqrt(pairs) / sd
    critical = scipy.stats.t.ppf(1 - level, degrees)
    above, below = (
        scipy.stats.nct.sf(critical, degrees, root * distance)
        for distance in (margin + difference, margin - difference)
    )
    return max(0.0, float(above + below - 1))


def pairs_for_equivalence(difference: float, sd: float, *, margin: float, level: float = LEVEL) -> int | None:
    """The fewest pairs with which two one-sided tests show equivalence with the probability `POWER`.

    Returns:
        The number; None above `MOST_PAIRS` or where the difference is not within the margin.
    """
    if abs(difference) >= margin:
        return None
    return _fewest(
        lambda pairs: equivalence_power(difference, sd, margin=margin, pairs=pairs, level=level) >= POWER,
        least=2,
    )


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


def stability_power(
    error_pct: ArrayLike,
    reference_pct: ArrayLike,
    *,
    runs: int,
    window: int,
    ddof: int = 0,
    level: float = LEVEL,
    studies: int = _STUDIES,
    generator: np.random.Generator,
) -> float:
    """Share of simulated studies with `runs` pairs of runs whose S are told apart as they were measured.

    The simulated runs are normal, with the means and covariances over epochs and between the two
    configurations that the measured pairs have. Repeating measured runs would not do: their range never
    exceeds the measured one.

    Args:
        error_pct: Test error in percent, shape [measured runs, epochs], complete.
        reference_pct: The same of the other configuration, row for row with the same seeds.
        runs: Pairs of runs in each simulated study.
        window: Number of last epochs that S is taken over.
        ddof: Delta degrees of freedom of S.
        level: Two-sided level of each study's permutation test.
        studies: Number of studies.
        generator: Draws runs and permutations.

    Raises:
        ValueError: As `compare_stability`.
    """
    pair = [last_epochs(errors, window=window, ddof=ddof) for errors in (error_pct, reference_pct)]
    measured = np.concatenate(pair, axis=1)
    mean = measured.mean(axis=0)
    root = (measured - mean) / np.sqrt(len(measured) - 1)
    if len(root) > root.shape[1]:
        root = np.linalg.qr(root, mode="r")  # the same covariance from fewer numbers
    signs = _sign(pair[0], pair[1], ddof)
    found = 0
    for _ in range(studies):
        drawn: Floats = mean + generator.standard_normal((runs, len(root))) @ root
        first, second = drawn[:, :window], drawn[:, window:]
        if _sign(first, second, ddof) != signs:
            continue
        result = compare_stability(
            first, second, window=window, ddof=ddof, permutations=_PERMUTATIONS, generator=generator
        )
        found += result.p <= level
    return found / studies


def _sign(first: Floats, second: Floats, ddof: int) -> bool:
    one, other = (np.ptp(errors, axis=0).var(ddof=ddof) for errors in (first, second))
    return bool(one > other)


def runs_for_stability(
    error_pct: ArrayLike,
    reference_pct: ArrayLike,
    *,
    window: int,
    ddof: int = 0,
    level: float = LEVEL,
    generator: np.random.Generator,
) -> int | None:
    """The first of `tried_runs` that tells two S apart often enough.

    Returns:
        The number of pairs of runs; None where the largest does not either.

    Raises:
        ValueError: As `compare_stability`.
    """
    tried = tried_runs(len(np.asarray(error_pct)))

    def is_enough(runs: int) -> bool:
        share = stability_power(
            error_pct,
            reference_pct,
            runs=runs,
            window=window,
            ddof=ddof,
            level=level,
            generator=generator,
        )
        return share >= POWER

    if not tried or not is_enough(tried[-1]):
        return None
    return next((runs for runs in tried[:-1] if is_enough(runs)), tried[-1])


def tried_runs(pairs: int) -> tuple[int, ...]:
    """How many runs are simulated from measured ones: 2, 4 and 8 times as many, `MOST_PAIRS` at most."""
    return tuple(multiple * pairs for multiple in _MULTIPLES if multiple * pairs <= MOST_PAIRS)
