"""How many seeds would decide a claim: from the interval of the measured effect, not from its point alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hkrun import stats
from hkrun.report.comparison import Comparison
from hkrun.report.monitoring import PairedLooks
from hkrun.report.verdict import PowerForecast

# With fewer there is no forecast: at four seeds, the interval of d_z = 1 is -0.3 to 2.2.
LEAST_SEEDS = 5
TOO_FEW = "too few seeds to say"
WINDOW = "more seeds do not make S more precise, a longer window does"

Number = int | None


@dataclass(frozen=True, kw_only=True)
class _Levels:
    """At which p, over all looks, a comparison supports its claim, and at which it opposes it."""

    support: float
    oppose: float

    def to_come(self, looks: PairedLooks, *, two_sided: bool = True) -> "_Levels":
        """The same of a further look alone."""
        return _Levels(
            support=looks.level_to_come(self.support, two_sided=two_sided),
            oppose=looks.level_to_come(self.oppose),
        )


@dataclass(frozen=True, kw_only=True)
class _Outlook:
    """How many seeds would decide one comparison, at the ends of the interval of its effect.

    Attributes:
        support: For the claim: at the end where that takes fewest, and at the other; None where that end does
            not support it, or not with `stats.MOST_PAIRS`.
        oppose: Against it, likewise.
    """

    support: tuple[Number, Number]
    oppose: tuple[Number, Number]


def foresee(
    comparisons: Sequence[Comparison], *, num_claims: int, num_tests: int, complete: bool
) -> PowerForecast | None:
    """The seeds that would decide an undecided claim, at the level of the first step of Holm's correction.

    It is what a further look would ask for, and the seeds are more than have not decided it so far.

    A claim is reproduced where its last comparison supports it, and contradicted where one opposes it.

    Args:
        comparisons: Those of the claim that there are.
        num_claims: In the family: what support of a claim is corrected for.
        num_tests: In the family, of all of its claims: what a contradiction is corrected for.
        complete: Whether none of the claim's comparisons is missing.

    Returns:
        The forecast; None where all there are support the claim, and some are missing.
    """
    levels = _Levels(support=stats.LEVEL / num_claims, oppose=stats.LEVEL / num_tests)
    open_ones = [comparison for comparison in comparisons if not comparison.supports]
    if not open_ones:
        return None
    if any(comparison.measure == "stability" for comparison in open_ones):
        return _without_number(WINDOW)
    if min(comparison.n for comparison in open_ones) < LEAST_SEEDS:
        return _without_number(TOO_FEW)
    outlooks = [_look_at(comparison, levels) for comparison in open_ones]
    supports = [_last([outlook.support[end] for outlook in outlooks]) if complete else None for end in (0, 1)]
    opposes = [_first([outlook.oppose[end] for outlook in outlooks]) for end in (0, 1)]
    outcome, most = "", None
    if opposes[1] is not None:
        outcome, most = "contradicted", opposes[1]
    elif supports[1] is not None:
        outcome, most = "reproduced", supports[1]
    return PowerForecast(
        fewest=_first([supports[0], opposes[0]]),
        most=most,
        limit=stats.MOST_PAIRS,
        outcome=outcome,
    )


def _without_number(reason: str) -> PowerForecast:
    return PowerForecast(fewest=None, most=None, limit=stats.MOST_PAIRS, outcome="", reason=reason)


def _look_at(comparison: Comparison, levels: _Levels) -> _Outlook:
    """The outlook of one comparison: no fewer seeds than it has and one, for those have not decided it."""
    look_at = _look_at_ratio if comparison.measure == "s2" else _look_at_error
    outlook = look_at(comparison, levels.to_come(comparison.looks, two_sided=comparison.margin is None))

    def more(numbers: tuple[Number, Number]) -> tuple[Number, Number]:
        first, last = (None if number is None else max(number, comparison.n + 1) for number in numbers)
        return first, last

    return _Outlook(support=more(outlook.support), oppose=more(outlook.oppose))


def _look_at_error(comparison: Comparison, levels: _Levels) -> _Outlook:
    if comparison.effect is None:  # the differences do not vary, so they have no interval
        return _Outlook(support=(None, None), oppose=(None, None))
    if comparison.margin is None:
        low, high = comparison.effect.ci95
        return _Outlook(
            support=(_below(low, levels.support), _below(high, levels.support)),
            oppose=(_below(-high, levels.oppose), _below(-low, levels.oppose)),
        )
    differences = np.array(comparison.by_seed)
    sd, margin = float(differences.std(ddof=1)), comparison.margin
    interval = stats.summarise_errors(differences).ci95
    assert interval is not None  # where an effect has a size
    if comparison.measure == "no worse":
        low, high = interval
        return _Outlook(
            support=(
                _below((low - margin) / sd, 2 * levels.support),
                _below((high - margin) / sd, 2 * levels.support),
            ),
            oppose=(_below((margin - high) / sd, levels.oppose), _below((margin - low) / sd, levels.oppose)),
        )
    far = max(map(abs, interval))
    near = 0.0 if interval[0] <= 0 <= interval[1] else min(map(abs, interval))
    within, beyond = (
        stats.pairs_for_equivalence(size, sd, margin=margin, level=levels.support) for size in (near, far)
    )
    return _Outlook(
        support=(within, beyond),
        oppose=(_below((margin - far) / sd, levels.oppose), _below((margin - near) / sd, levels.oppose)),
    )


def _look_at_ratio(comparison: Comparison, levels: _Levels) -> _Outlook:
    """By the t test of the log-ratio, whose spread over seeds follows from its interval."""
    if comparison.ci95 is None:
        return _Outlook(support=(None, None), oppose=(None, None))
    low, high = map(math.log, comparison.ci95)
    sd = stats.spread_behind((low, high), n=comparison.n, level=comparison.looks.level())
    return _Outlook(
        support=(_below(low / sd, levels.support), _below(high / sd, levels.support)),
        oppose=(_below(-high / sd, levels.oppose), _below(-low / sd, levels.oppose)),
    )


def _below(d_z: float, level: float) -> Number:
    """The seeds that show an effect below 0; None for one above."""
    return stats.pairs_for_difference(d_z, level=level) if d_z < 0 else None


def _first(numbers: Sequence[Number]) -> Number:
    return min((number for number in numbers if number is not None), default=None)


def _last(numbers: Sequence[Number]) -> Number:
    known = [number for number in numbers if number is not None]
    return max(known) if len(known) == len(numbers) else None
