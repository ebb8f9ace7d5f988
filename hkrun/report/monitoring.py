"""At which numbers of seeds a study's verdicts are read, and what that leaves of p and of intervals."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hkrun import stats
from hkrun.plans import Looks
from hkrun.stats import Floats

Interval = tuple[float, float]
_LEAST_PAIRS = 2  # of a t test
MORE_SEEDS = 10  # that a study without a plan is told to make
_DRIFT = "the differences drift with the seeds: looks at fewer of them contradict later ones"


@dataclass(frozen=True, kw_only=True)
class PairedLooks:
    """After how many pairs of runs a comparison was looked at, or may be.

    Attributes:
        counts: Numbers of pairs, in rising order, at least two each: those so far, the present one last, or
            of a sequential study all that its plan allows. Empty where there are too few pairs for a test.
        sequential: Whether the study has such a plan: its tests are of all looks so far, else of the present
            one alone.
    """

    counts: tuple[int, ...] = ()
    sequential: bool = False

    def correct(self, p: float, *, two_sided: bool = True) -> float:
        """The probability that chance shows so small a p at any of the looks."""
        return stats.p_over_looks(p, self.counts, two_sided=two_sided) if len(self.counts) > 1 else p

    def until(self, pairs: int) -> tuple[int, ...]:
        """The looks that were with so many pairs."""
        return tuple(count for count in self.counts if count <= pairs)

    def decided_after(self, p_by_look: Sequence[float], p: float, p_holm: float) -> int | None:
        """The pairs after which p stood at 5 %, corrected by as much as it is now; None where it does not."""
        if p_holm > stats.LEVEL:
            return None
        needed = stats.LEVEL * p / p_holm if p_holm > 0 else stats.LEVEL
        told = zip(self.counts, p_by_look, strict=False)
        return next((look for look, found in told if found <= needed), None)

    def level(self, *, two_sided: bool = True, level: float = stats.LEVEL) -> float:
        """The p that each look asks for, so that all together err at this level."""
        return stats.nominal_level(self.counts, level=level, two_sided=two_sided) if self.counts else level

    def level_to_come(self, level: float, *, two_sided: bool = True) -> float:
        """The p that a further look asks for, so that all together err at this level.

        Of a sequential study it is that of its plan. Else the further look is taken to be at twice as many
        pairs: a second look at 5 % asks for 0.029 there, for 0.031 at half as many again, never below 0.025.
        """
        if not self.counts:
            return level
        counts = self.counts if self.sequential else (*self.counts, 2 * self.counts[-1])
        return stats.level_over_looks(level, counts, two_sided=two_sided)


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """When a study's verdicts are read.

    Attributes:
        seeds: All of the study, in their order.
        looks: Numbers of seeds, in rising order: those at which a sweep ended, the present one last, or of a
            sequential study all that its plan allows. Empty where no study is known of.
        sequential: Whether seeds come in rounds until all is decided.
        lost: As of `Looks`.
    """

    seeds: tuple[int, ...] = ()
    looks: tuple[int, ...] = ()
    sequential: bool = False
    lost: str = ""

    def order(self, seeds: Collection[int]) -> list[int]:
        """Seeds as they come in: those of a sequential study as it has them, else by their numbers."""
        return [seed for seed in self.seeds if seed in seeds] if self.sequential else sorted(seeds)

    def of_pairs(self, seeds: Collection[int]) -> PairedLooks:
        """The looks at a comparison over these common seeds."""
        if self.sequential:
            return PairedLooks(counts=self.looks, sequential=True)
        paired = {len({*self.seeds[:look]} & {*seeds}) for look in self.looks[:-1]}
        counts = sorted({*paired, len(seeds)}) if self.looks else []
        return PairedLooks(counts=tuple(count for count in counts if count >= _LEAST_PAIRS))


ONE_LOOK, UNMONITORED = PairedLooks(), Monitoring()


def monitor(looks: Looks, seeds: Sequence[int]) -> Monitoring:
    """The looks that count in a study that has come to these seeds."""
    plan = looks.plan_of(len(seeds))
    counts = looks.at(len(seeds)) if plan is None else stats.plan_looks(plan.most)
    return Monitoring(seeds=tuple(seeds), looks=counts, sequential=plan is not None, lost=looks.lost)


# --- tests over all looks -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Tested:
    """What a test says over all looks.

    Attributes:
        p: Of what is tested.
        p_against: Of a test of equivalence: of its contrary; else 1.
        ci: The interval of the same looks; None where there is none.
        p_nominal: `p` of the present look alone; None of a sequential study, whose p is of all looks.
        p_by_look: Of a sequential study, what `p` was at each look so far.
        out_of_reach: Whether lost runs keep all seeds that a plan has left, or ten more, from deciding it.
        drift: Of a sequential study, that looks contradict each other, as a sentence's part; else empty.
    """

    p: float
    p_against: float = 1.0
    ci: Interval | None
    p_nominal: float | None
    p_by_look: tuple[float, ...] = ()
    out_of_reach: bool = False
    drift: str = ""


def difference_over_looks(differences: Floats, looks: PairedLooks, generator: np.random.Generator) -> Tested:
    """Of no mean difference: by sign flips, in a sequential study by t values; with a 95 % interval.

    Args:
        differences: One per pair, in the order of the seeds.
        looks: At them.
        generator: Draws the sign flips.
    """
    if looks.sequential:
        told = [
            stats.sequential_difference(differences[:look], looks.counts)
            for look in (*looks.until(len(differences)), len(differences))
        ]
        p_by_look = tuple(found.p for found in told[:-1])
        return Tested(
            p=told[-1].p,
            ci=told[-1].ci95,
            p_nominal=None,
            p_by_look=p_by_look,
            drift=_DRIFT if told[-1].drifts else "",
        )
    found = stats.paired_difference(
        differences, np.zeros_like(differences), generator=generator, level=looks.level()
    )
    return Tested(p=looks.correct(found.p), ci=found.ci95, p_nominal=found.p)


def bounded_over_looks(bounds: Floats, looks: PairedLooks, generator: np.random.Generator) -> Tested:
    """Of no mean difference where pairs were lost: the largest p that there may be; without an interval.

    Args:
        bounds: Lowest and highest difference of each pair, equal where it is known, [pairs, 2], in the order
            of the seeds.
        looks: At them.
        generator: Draws the sign flips.
    """
    if looks.sequential:
        p_by_look = stats.largest_p_by_look(bounds, looks.counts, generator=generator)
        return Tested(
            p=p_by_look[-1] if p_by_look else 1.0,
            ci=None,
            p_nominal=None,
            p_by_look=p_by_look,
            out_of_reach=_is_out_of_reach(bounds, looks.counts[-1]),
        )
    known = bounds[:, 0] == bounds[:, 1]
    p = stats.largest_p(bounds[known, 0], bounds[~known], generator=generator)
    out_of_reach = _is_out_of_reach(bounds, len(bounds) + MORE_SEEDS)
    return Tested(p=looks.correct(p), ci=None, p_nominal=None, out_of_reach=out_of_reach)


def _is_out_of_reach(bounds: Floats, most: int) -> bool:
    """Whether the worst case of the lost pairs turns the sign with so many pairs in all, too.

    What is to come counts as the known pairs are on average: a forecast, by which seeds are spared, no test.
    """
    if len(bounds) < stats.FIRST_LOOK:
        return False
    known = bounds[:, 0] == bounds[:, 1]
    if not known.any():
        return True
    mean = float(bounds[known, 0].mean())
    to_come = most - len(bounds)
    lost = bounds[~known].max(axis=1) if mean < 0 else bounds[~known].min(axis=1)
    return bool(np.sign(mean) * (mean * (int(known.sum()) + to_come) + lost.sum()) <= 0)


def margin_over_looks(differences: Floats, looks: PairedLooks, *, margin: float, one_sided: bool) -> Tested:
    """Of equivalence within a margin, or of being no worse by it, by one-sided t tests; with a 90 % interval.

    Args:
        differences: One per pair, two at least, in the order of the seeds.
        looks: At them.
        margin: Above 0.
        one_sided: Whether only the upper margin counts.
    """
    if looks.sequential:
        told = stats.sequential_equivalence(differences, looks.counts, margin=margin)
        p = (told.p_below, told.p_not_below) if one_sided else (told.p, told.p_beyond)
        drift = _DRIFT if told.drifts else ""
        return Tested(p=p[0], p_against=p[1], ci=told.ci90, p_nominal=None, drift=drift)
    found = stats.equivalence(differences, margin=margin, level=looks.level(two_sided=False))

    def correct(p: float) -> float:
        return looks.correct(p, two_sided=False)

    if one_sided:
        p_against, nominal = correct(1 - found.p_below), found.p_below
    else:
        p_against, nominal = min(1.0, 2 * correct(min(1 - found.p_above, 1 - found.p_below))), found.p
    return Tested(p=correct(nominal), p_against=p_against, ci=found.ci90, p_nominal=nominal)


def ratio_over_looks(
    compare: Callable[[int, float], stats.RatioComparison], pairs: int, looks: PairedLooks
) -> Tested | None:
    """Of a ratio of 1; with a 95 % interval.

    Args:
        compare: The ratio of the first so many pairs, and an interval that leaves out so much.
        pairs: How many there are.
        looks: At them.

    Returns:
        What it says; None where these pairs allow for no test.
    """
    level = looks.level()
    now = compare(pairs, level)
    if now.p is None:
        return None
    if not looks.sequential:
        return Tested(p=looks.correct(now.p), ci=now.ci95, p_nominal=now.p)
    found = {look: compare(look, level) for look in looks.until(pairs)}

    def nominal(look: int) -> float:
        p = found[look].p
        return 1.0 if p is None else p

    p_by_look = [stats.sequential_p(nominal, looks.counts, pairs=look) for look in looks.until(pairs)]
    return Tested(
        p=p_by_look[-1] if p_by_look else 1.0,
        ci=_common_interval([one.ci95 for one in found.values()]),
        p_nominal=None,
        p_by_look=tuple(p_by_look),
    )


def factor_over_looks(
    equate: Callable[[int, float], stats.RatioEquivalence], pairs: int, looks: PairedLooks
) -> Tested | None:
    """Of a ratio within a factor, by two one-sided tests; with a 90 % interval.

    Args:
        equate: The tests of the first so many pairs, and an interval that leaves out so much on each side.
        pairs: How many there are.
        looks: At them.

    Returns:
        What they say; None where these pairs allow for no test.
    """
    level = looks.level(two_sided=False)
    now = equate(pairs, level)
    if now.p_above is None or now.p_below is None:
        return None
    if not looks.sequential:
        p = max(now.p_above, now.p_below)
        return Tested(p=looks.correct(p, two_sided=False), ci=now.ci90, p_nominal=p)
    found = {look: equate(look, level) for look in looks.until(pairs)}
    sides = [{look: getattr(one, side) for look, one in found.items()} for side in ("p_above", "p_below")]
    return Tested(
        p=max(_one_sided_over_looks(p_by_look, looks, pairs) for p_by_look in sides),
        ci=_common_interval([one.ci90 for one in found.values()]),
        p_nominal=None,
    )


def _one_sided_over_looks(p_by_look: Mapping[int, float | None], looks: PairedLooks, pairs: int) -> float:
    def nominal(look: int) -> float:
        p = p_by_look[look]
        return 1.0 if p is None else p

    return stats.sequential_p(nominal, looks.counts, pairs=pairs, two_sided=False)


def _common_interval(intervals: Sequence[Interval | None]) -> Interval | None:
    """What all intervals have in common; None where that is nothing, or there is none."""
    ends = [interval for interval in intervals if interval is not None]
    low, high = max((end[0] for end in ends), default=np.inf), min((end[1] for end in ends), default=-np.inf)
    return (low, high) if low <= high else None


def margin_interval(differences: Sequence[float], looks: PairedLooks) -> Interval | None:
    """The 90 % interval of a mean difference, which tells within which margins it is shown to lie."""
    if looks.sequential:
        found = stats.confidence_sequence(differences, looks.counts, two_sided=False)
        return found[-1] if found else None
    if len(differences) < _LEAST_PAIRS:
        return None
    return stats.equivalence(differences, margin=1.0, level=looks.level(two_sided=False)).ci90
