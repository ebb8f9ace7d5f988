"""What a study can decide, told before it runs: the differences that its seeds find in 80 % of studies."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hkrun.counting import count
from hkrun.plans.plans import Plan, PlannedCell

# Of fewer seeds that two cells share, the spread of their differences is not taken.
LEAST_SEEDS = 5
PAIRED_SD, S2_SD = "paired_difference_sd_pp", "s2_log_ratio_sd"  # in a recipe's evidence


@dataclass(frozen=True, kw_only=True)
class Power:
    """What a study's seeds decide with a probability of 80 %, at the first step of Holm's correction.

    A study with axes asks whether all of its cells are equivalent to the reference: each at 5 %, without a
    correction, for all must be, and all together with that probability.

    Attributes:
        seeds: Of each cell.
        comparisons: Cells that are set against the reference.
        sd_pp: Standard deviation of paired differences of the error, in percentage points.
        basis: Where that is from.
        difference_pp: The smallest true difference of the error that is found; None where a permutation test
            of so few seeds finds none, however large.
        needed_seeds: How many that test needs at least.
        margin_pp: The smallest margin within which equal errors are shown to be equivalent: those of one
            cell and the reference, or of all where the search space asks for equivalence.
        asked_margin_pp: The margin of the search space, where it asks for equivalence; else None.
        asked_margin_seeds: How many seeds that would take; None where it takes more than anyone makes, or is
            not asked for.
        s2_ratio: The smallest true ratio of two S2 that is found; None where its spread is not known.
        s2_factor: The smallest factor within which equal S2 of one cell and the reference are shown to be so;
            None likewise.
        s2_sd: That spread: standard deviation over seeds of the log-ratio of two S2, times the root of their
            number.
    """

    seeds: int
    comparisons: int
    sd_pp: float
    basis: str
    difference_pp: float | None
    needed_seeds: int
    margin_pp: float
    asked_margin_pp: float | None
    asked_margin_seeds: int | None
    s2_ratio: float | None
    s2_factor: float | None
    s2_sd: float | None


def foresee_power(plan: Plan) -> Power | None:
    """What a plan's seeds decide; None without a reference, without a known spread, and with one seed."""
    from hkrun import stats  # SciPy, which those who only read a plan do without

    sweep = plan.sweep
    reference = next((cell for cell in plan.cells if cell.name == sweep.reference), None)
    if reference is None:
        return None
    others = {cell.cell_id: cell for cell in plan.cells if cell.cell_id != reference.cell_id}
    seeds = len(sweep.seeds)
    spread = _find_spread(reference, list(others.values()), plan) if others and seeds > 1 else None
    if spread is None:
        return None
    (sd, basis), level = spread, stats.LEVEL / len(others)
    d_z, needed = stats.detectable_effect(seeds, level=level), stats.smallest_runs(level)
    s2_sd = _evidence(plan, reference, S2_SD)
    asked = sweep.margin if any(named.point for named in sweep.cells) else None
    equal = stats.detectable_margin(seeds, level=level)
    margin = equal if asked is None else stats.detectable_margin(seeds, tests=len(others))
    return Power(
        seeds=seeds,
        comparisons=len(others),
        sd_pp=sd,
        basis=basis,
        difference_pp=d_z * sd if seeds >= needed else None,
        needed_seeds=needed,
        margin_pp=margin * sd,
        asked_margin_pp=asked,
        asked_margin_seeds=None
        if asked is None
        else stats.pairs_for_equivalence(0.0, sd, margin=asked, tests=len(others)),
        s2_ratio=None if s2_sd is None else math.exp(d_z * s2_sd),
        s2_factor=None if s2_sd is None else math.exp(equal * s2_sd),
        s2_sd=s2_sd,
    )


def describe_power(power: Power) -> str:
    """The same in a sentence."""
    if power.difference_pp is None:
        found = f"no difference of errors, however large (that needs {power.needed_seeds} seeds)"
    else:
        found = f"a difference of {power.difference_pp:.2f} points"
    s2 = "" if power.s2_ratio is None else f" and an S2 {_round(power.s2_ratio)} times the reference's"
    asked = ""
    if power.asked_margin_pp is not None and power.margin_pp > power.asked_margin_pp:
        number = power.asked_margin_seeds
        needs = "more seeds than anyone makes" if number is None else f"{number:,} seeds"
        asked = f"; its margin of {power.asked_margin_pp:g} points needs {needs}"
    shown = "equal errors to be so" if power.asked_margin_pp is None else "errors that are all equal to be so"
    if power.s2_factor is not None and power.asked_margin_pp is None:
        asked = f" and equal S2 within a factor of {_round(power.s2_factor)}"
    seeds, comparisons = count(power.seeds, "seed"), count(power.comparisons, "comparison")
    return (
        f"Power (80 %): {seeds} and {comparisons} find {found}{s2}, and show {shown} within "
        f"{power.margin_pp:.2f} points{asked} (sd of paired differences {power.sd_pp:.2f}: {power.basis})"
    )


def _round(ratio: float) -> str:
    return f"{float(f'{ratio:.2g}'):,g}"


def _find_spread(
    reference: PlannedCell, others: Sequence[PlannedCell], plan: Plan
) -> tuple[float, str] | None:
    """The standard deviation of paired differences: of stored runs, else of the recipe."""
    found = list(_stored_spreads(reference, others))
    if found:
        return statistics.median(found), "stored runs"
    value = _evidence(plan, reference, PAIRED_SD)
    recipe = plan.sweep.recipe
    return (
        None if value is None else (value, f"recipe {recipe.dataset}, {recipe.evidence[PAIRED_SD]['label']}")
    )


def _stored_spreads(reference: PlannedCell, others: Sequence[PlannedCell]) -> Iterator[float]:
    base = _errors(reference)
    for cell in others:
        differences = [error - base[seed] for seed, error in _errors(cell).items() if seed in base]
        if len(differences) >= LEAST_SEEDS and (sd := statistics.stdev(differences)) > 0:
            yield sd


def _errors(cell: PlannedCell) -> dict[int, float]:
    """The last errors of the finished runs in percent, by seed."""
    return {
        seed: record.error_last_pct
        for seed, record in cell.records.items()
        if record.status == "finished" and record.error_last_pct is not None
    }


def _evidence(plan: Plan, reference: PlannedCell, name: str) -> float | None:
    """A figure of the recipe, where the reference's student is the recipe's."""
    recipe = plan.sweep.recipe
    value = recipe.evidence.get(name, {}).get("value")
    cell = reference.cell
    alike = (cell.student, cell.augment) == (recipe.cell.student, recipe.cell.augment)
    return float(value) if alike and isinstance(value, int | float) else None
