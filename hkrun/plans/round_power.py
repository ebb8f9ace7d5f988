"""What a study whose seeds come in rounds can decide, and with how many, told before it runs."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from hkrun.plans.plans import Plan
from hkrun.plans.power import Power
from hkrun.plans.rounds import LEAST

EFFECTS = (1.0, 1.5)  # true differences, in standard deviations of the paired differences
# Above so many seeds it takes too long to find with how many the power of all seeds at once is kept.
_MOST_SEARCHED = 40
# Shares of equal cells that are shown to be equal: enough to count on it, and too few to speak of.
_OFTEN, _SELDOM = 0.5, 0.005


@dataclass(frozen=True, kw_only=True)
class RoundsForecast:
    """What rounds do on average, by simulation, at the first step of Holm's correction.

    Attributes:
        most: Seeds of each cell at most.
        comparisons: Cells that are set against the reference.
        mean_seeds: Mean number of seeds until the difference is shown, by its true size in standard
            deviations of the paired differences.
        margin_pp: Margin of equivalence in percentage points; None where the search space sets none.
        sd_pp: Standard deviation of the paired differences in percentage points; None where it is not known.
        margin_sd: Margin of equivalence in standard deviations; None without a margin or a known spread.
        equal_seeds: Mean number of seeds of equal cells; `most` but for chance without a margin.
        equal_shown: Share of equal cells that are shown to be equivalent.
        equal_needed: Of how many seeds made at once 80 % of equal cells are shown to be; None where that is
            more than anyone makes, or not known.
        about_s2: Whether S2 is asked for.
        s2_factor: Within which factor S2 is asked to be equal; None where it is not, or S2 is not asked for.
        s2_seeds: Mean number of seeds of equal S2; None where their spread is not known.
        s2_shown: Share of equal S2 that are shown to be; None likewise.
        fixed_effect: The true difference that `most` seeds made at once find in 80 % of studies.
        power: In how many these rounds find it.
        seeds_for_power: Of how many seeds at most rounds would find it in 80 % too; None where that is not
            looked for.
    """

    most: int
    comparisons: int
    mean_seeds: Mapping[float, float]
    margin_pp: float | None
    sd_pp: float | None
    margin_sd: float | None
    equal_seeds: float
    equal_shown: float
    equal_needed: int | None
    about_s2: bool
    s2_factor: float | None
    s2_seeds: float | None
    s2_shown: float | None
    fixed_effect: float
    power: float
    seeds_for_power: int | None

    def document(self) -> dict[str, object]:
        """What `--json` prints."""
        return {**dataclasses.asdict(self), "mean_seeds": {f"{d:g}": n for d, n in self.mean_seeds.items()}}


def foresee_rounds(plan: Plan, power: Power | None, *, measure: str) -> RoundsForecast:
    """What the rounds of a plan do.

    Args:
        plan: With rounds.
        power: Knows the spreads over seeds, where these are known.
        measure: What the question is about, "error" or "stability".
    """
    import numpy as np

    from hkrun import stats
    from hkrun.stats.sequential import Forecast, forecast

    sweep, most = plan.sweep, len(plan.sweep.seeds)
    comparisons = max(1, len(plan.distinct_cells) - 1)
    level = stats.LEVEL / comparisons
    margin_pp = sweep.margin if sweep.asks_equivalence else None
    sd_pp = None if power is None else power.sd_pp
    margin_sd = None if margin_pp is None or sd_pp is None else margin_pp / sd_pp
    factor = sweep.s2_factor if measure == "stability" else None
    s2_sd = None if power is None else power.s2_sd

    def simulate(effect: float, most: int = most, margin_sd: float | None = None) -> Forecast:
        return forecast(
            effect,
            stats.plan_looks(most),
            generator=np.random.default_rng(1),
            margin_sd=margin_sd,
            level=level,
        )

    fixed = stats.detectable_effect(most, level=level)
    equal = simulate(0.0, margin_sd=margin_sd)
    equal_s2 = None if factor is None or s2_sd is None else simulate(0.0, margin_sd=math.log(factor) / s2_sd)
    found = simulate(fixed).different
    larger = range(most, 2 * most, LEAST) if most <= _MOST_SEARCHED else ()
    enough = (number for number in larger if simulate(fixed, number).different >= stats.POWER)
    return RoundsForecast(
        most=most,
        comparisons=comparisons,
        mean_seeds={effect: simulate(effect).pairs for effect in EFFECTS},
        margin_pp=margin_pp,
        sd_pp=sd_pp,
        margin_sd=margin_sd,
        equal_seeds=equal.pairs,
        equal_shown=equal.equivalent,
        equal_needed=None
        if margin_sd is None
        else stats.pairs_for_equivalence(0.0, 1.0, margin=margin_sd, level=level),
        about_s2=measure == "stability",
        s2_factor=factor,
        s2_seeds=None if equal_s2 is None else equal_s2.pairs,
        s2_shown=None if equal_s2 is None else equal_s2.equivalent,
        fixed_effect=fixed,
        power=found,
        seeds_for_power=next(enough, None),
    )


def describe_rounds(known: RoundsForecast) -> list[str]:
    """The same in sentences, a line each."""
    means = " and ".join(f"{number:.0f} for {effect:g} sd" for effect, number in known.mean_seeds.items())
    kept = "" if known.seeds_for_power is None else f"; --max-seeds {known.seeds_for_power} keeps the 80 %"
    rounds = (
        f"Rounds: of {known.most} seeds at most a cell takes on average, by its difference from the "
        f"reference in sd of paired differences, {means}"
    )
    power = (
        f"Power: of differences that {known.most} seeds at once find in 80 % ({known.fixed_effect:.2f} sd), "
        f"rounds of as many find {100 * known.power:.0f} %{kept}"
    )
    equal_s2 = [f"Equal S2: {_describe_equal_s2(known)}"] if known.about_s2 else []
    return [rounds, f"Equality: {_describe_equal(known)}", *equal_s2, power]


def _describe_equal(known: RoundsForecast) -> str:
    """What becomes of cells that do not differ; where nothing can be shown of them, why."""
    take_all = f"cells that do not differ take all {known.most}"
    if known.margin_pp is None:
        return f"{take_all}, for no margin is set: [analysis] margin"
    if known.margin_sd is None:
        return (
            f"{take_all} or fewer: how many show them equal within the margin of {known.margin_pp:g} points "
            "is not known, for no spread of paired differences is"
        )
    spread = (
        f"the margin of {known.margin_pp:g} points, where paired differences have an sd of {known.sd_pp:.2g}"
    )
    if known.equal_shown >= _OFTEN:
        return (
            f"cells that do not differ take {known.equal_seeds:.0f}, and {100 * known.equal_shown:.0f} % of "
            f"them are shown to be equal within {spread}"
        )
    needed = "more seeds than anyone makes" if known.equal_needed is None else f"{known.equal_needed:,} seeds"
    shown = f"in {100 * known.equal_shown:.0f} %" if known.equal_shown >= _SELDOM else "hardly ever"
    return (
        f"{take_all}, which {shown} show them equal within {spread}: at once that takes {needed}, in rounds "
        "more"
    )


def _describe_equal_s2(known: RoundsForecast) -> str:
    """The same of cells that are equally steady."""
    if known.s2_factor is None:
        return f"cells that are as steady take all {known.most}, for no factor is set: [analysis] s2_factor"
    if known.s2_seeds is None or known.s2_shown is None:
        return f"how many show it within a factor of {known.s2_factor:g} is not known, for its spread is not"
    return (
        f"cells that are as steady take {known.s2_seeds:.0f}, and {100 * known.s2_shown:.0f} % of them are "
        f"shown to be so within a factor of {known.s2_factor:g}"
    )
