"""What a study answers first: its best cell, how sure that is, and the command to go on with."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from hkrun import stats
from hkrun.report import comparing
from hkrun.report.comparison import Comparison
from hkrun.report.divergence import tell_rates
from hkrun.report.families import Families
from hkrun.report.look_wording import describe_looks, describe_seeds
from hkrun.report.monitoring import MORE_SEEDS
from hkrun.report.open_comparisons import explain_interval, find_seeds_lacking
from hkrun.report.steadiness import write_steadiness
from hkrun.report.summary import Best, CellSummary, Summary
from hkrun.report.verdict import Verdict
from hkrun.report.wording import count, digits, equals, family_size, join, plus_minus, take_once
from hkrun.spaces import STUDY_FAMILY, Sweep

_WORTH = 5  # times the seeds there are: of more, nobody is told


def find_best(
    measure: str,
    cells: Sequence[CellSummary],
    comparisons: Sequence[Comparison],
    sweep: Sweep,
    families: Families,
) -> Best | None:
    """The cell with the lowest error or S, and the cells that it is told from.

    In the running are the cells whose runs all have a result, with as many seeds as any of them has; of a
    sequential study, where cells end at different numbers, all of them, S on the seeds that they share.
    Whether the best differs from the reference is what `comparisons`, the sweep's own, say. Against the
    others it is tested as one of all pairs of them, for it was chosen by their results.

    Returns:
        The best; None where fewer than two cells are in the running.
    """
    distinct = list({cell.cell_id: cell for cell in reversed(cells)}.values())[::-1]
    whole = [cell for cell in distinct if cell.seeds and not cell.lost and not cell.selection]
    most = max((len(cell.seeds) for cell in whole), default=0)
    sequential = any(cell.monitoring.sequential for cell in whole)
    enough = [cell for cell in whole if sequential or len(cell.seeds) == most]
    common = set.intersection(*({*cell.seeds} for cell in enough)) if enough else set()
    values = {
        cell.cell_id: value
        for cell in enough
        if (value := _find_value(cell, measure, common, sweep)) is not None
    }
    running = [cell for cell in enough if cell.cell_id in values]
    if len(running) < 2:
        return None
    best = min(running, key=lambda cell: values[cell.cell_id])
    known = {comparison.test: comparison for comparison in comparisons}
    planned: list[tuple[CellSummary, Comparison]] = []
    chosen: list[tuple[CellSummary, Comparison]] = []
    for cell in running:
        found = None if cell is best else _compare(measure, best, cell, sweep)
        if found is not None:
            (planned if found.test in known else chosen).append((cell, known.get(found.test, found)))
    untested: list[CellSummary] = []
    if sweep.family == STUDY_FAMILY:
        # All pairs beside all tables would leave no test a p that is small enough.
        untested, chosen = [cell for cell, _ in chosen], []
    rivals = len(running) - any(cell.name == sweep.reference for cell in running)
    pairs = rivals * (rivals - 1) // 2
    tests = {(measure, *comparison.test): comparison.p for _, comparison in chosen}
    if chosen:  # Pairs without the best count as if they showed nothing, which makes no p smaller.
        tests |= {(measure, "any pair", str(number)): 1.0 for number in range(len(chosen), pairs)}
    corrected = families.correct(tests)
    told = [cell for cell, comparison in planned if comparison.significant]
    told += [cell for cell, item in chosen if corrected[measure, *item.test] <= stats.LEVEL]
    return Best(
        measure=measure,
        cell=best.name,
        value=values[best.cell_id],
        num_running=len(running),
        num_pairs=len(tests) if chosen else 0,
        told=tuple(cell.name for cell in running if cell in told),
        untold=tuple(cell.name for cell in running if cell not in (best, *told, *untested)),
        untested=tuple(cell.name for cell in untested),
        left_out=tuple(cell.name for cell in distinct if cell not in running),
    )


def _find_value(cell: CellSummary, measure: str, common: Collection[int], sweep: Sweep) -> float | None:
    """The mean error of all seeds, or S of those that all cells share, for it grows with their number."""
    if measure != "stability":
        return cell.error_last.mean if cell.error_last else None
    if cell.stability is None or len(common) == len(cell.seeds):
        return cell.stability.s if cell.stability else None
    if len(common) < 2:
        return None
    shared = cell.error_pct[[cell.seeds.index(seed) for seed in sorted(common)]]
    return stats.stability(shared, window=sweep.window, ddof=sweep.ddof)


def _compare(measure: str, cell: CellSummary, other: CellSummary, sweep: Sweep) -> Comparison | None:
    if measure == "stability":
        return comparing.compare_stability(cell, other, sweep)
    return comparing.compare_errors(comparing.cell_side(cell), comparing.cell_side(other))


def write_answer(summary: Summary) -> Iterator[str]:
    """Which runs diverged, the best cell by what is asked, and what the runs do not tell it from.

    A study about steadiness opens with what S2 shows, which a small S by itself does not.
    """
    if rates := tell_rates(summary):
        yield rates
    if summary.measure == "stability":
        yield from write_steadiness(summary)
    for best in summary.best:
        yield f"{_describe_best(best, summary)} {_describe_others(best, summary)}".strip()
    if looks := describe_looks(summary):
        yield looks


def _describe_best(best: Best, summary: Summary) -> str:
    label, steady = summary.label(best.cell), best.measure == "stability"
    figure = f"{digits(best.value)} pp²" if steady else f"{best.value:.2f} %"
    if steady and len({len(cell.seeds) for cell in summary.cells if cell.stability}) > 1:
        figure += " on the seeds that all share" if summary.monitoring.sequential else ""
    first = "Smallest S" if steady else "Best" if summary.measure == "error" else "Lowest error"
    start = f"{first}: {label} ({figure})"
    reference = summary.sweep.reference
    if reference is None:
        return f"{start}."
    comparison = summary.find_comparison(best.cell, measure=best.measure)
    if comparison is None:
        cell = next(cell for cell in summary.cells if cell.name == best.cell)
        same = summary.describe_uncompared(cell) in ("reference", "same cell")
        return f"{start}, the reference." if same else f"{start}, not compared with the reference."
    against = f"the reference, {summary.label(reference)}"
    if comparison.withheld:
        return f"{start}; the verdict against {against}, is withheld: {comparison.reservation}."
    size = (
        f"S {digits(comparison.value)} against {digits(comparison.reference_value)}"
        if steady
        else f"{plus_minus(comparison.difference, comparison.ci95, signed=True)} pp"
    )
    shown = "" if comparison.significant else ": no difference is shown"
    if shown and comparison.within_pp is not None:
        shown += f", within {comparison.within_pp:.2f} pp (90 %)"
    tests = family_size(summary, len(take_once(summary.comparisons, summary)))
    if why := explain_interval(comparison, tests=tests):
        shown += f"; {why}"
    when = f", {describe_seeds(comparison)}" if comparison.decided_after else ""
    return f"{start}, p {equals(comparison.p_holm)} against {against} ({size}{when}){shown}."


def _describe_others(best: Best, summary: Summary) -> str:
    """How far the best of many is to be believed."""
    told, untold, untested = (
        join([summary.label(name) for name in names]) for names in (best.told, best.untold, best.untested)
    )
    others, tests = best.num_running - 1, "Tests of S" if best.measure == "stability" else "These seeds"
    all_others = "the other cell" if others == 1 else f"each of the {others} others"
    sentences = []
    if best.told and others > 1:  # one that is told from none is not called better
        sentences.append(f"As the lowest of {best.num_running} it is likely too low.")
    if len(best.told) == others:
        sentences.append(f"It is told from {all_others}.")
    elif len(best.untold) == others:
        sentences.append(f"{tests} tell it from none of the {others} others." if others > 1 else "")
    elif told and untold:
        sentences.append(f"{tests} tell it from {told}, and not from {untold}.")
    elif told or untold:
        sentences.append(
            f"{tests} tell it from {told}." if told else f"{tests} do not tell it from {untold}."
        )
    if untested:
        sentences.append(f"It is not tested against {untested}, which the family of all tests leaves out.")
    sentences.append(_explain_untold(best, summary))
    if best.left_out:
        left_out = join([summary.label(name) for name in best.left_out])
        sentences.append(f"Not in the running, for want of runs with a result: {left_out}.")
    return " ".join(filter(None, sentences))


def _explain_untold(best: Best, summary: Summary) -> str:
    """Says where no test could have told the best from the others; empty where one could.

    Where none could tell any cell from the reference, a warning says that, and more.
    """
    if summary.monitoring.sequential or find_seeds_lacking(summary) is not None:
        return ""
    seeds = next(len(cell.seeds) for cell in summary.cells if cell.name == best.cell)
    needed = stats.smallest_runs(stats.LEVEL / best.num_pairs) if best.num_pairs else 0
    if seeds >= needed:
        return ""
    cells = "two cells" if summary.sweep.reference is None else "two cells other than the reference"
    over = f", after Holm's correction over {best.num_pairs} pairs" if best.num_pairs > 1 else ""
    return (
        f"With {count(seeds, 'seed')} no {cells} can be told apart, however large their difference{over}: a "
        f"permutation test needs {needed} seeds."
    )


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """What to do next.

    Attributes:
        seeds: How many seeds each cell is to have; None where runs that are planned come first.
        reason: What for.
    """

    seeds: int | None
    reason: str


def find_next_step(summary: Summary) -> NextStep:
    """What tells most: the runs that are missing, the seeds that would decide a claim, or ten more."""
    missing = sum(
        len({*cell.missing, *cell.failed}) for cell in {c.cell_id: c for c in summary.cells}.values()
    )
    if missing:
        return NextStep(seeds=None, reason=f"makes the {count(missing, 'run')} without a result")
    now = len(summary.sweep.seeds)
    num_tests = len(take_once(summary.comparisons, summary)) or _count_pairs(summary)
    num_tests = family_size(summary, num_tests) if num_tests else 0
    level = stats.LEVEL / max(1, num_tests)
    needed = stats.smallest_runs(level)
    if num_tests and now < needed:
        return NextStep(seeds=needed, reason=f"{needed} seeds are the fewest that can show a difference")
    such = f"in {100 * stats.POWER:.0f} % of such studies, were the effect at the weak end of its interval"
    wanted = {
        forecast.most: f"{forecast.most} seeds would decide “{verdict.claim.statement}” {_on(verdict)}{such}"
        for verdict in reversed(summary.all_verdicts)
        if (forecast := verdict.forecast) is not None and forecast.most is not None
    }
    worth = [number for number in wanted if now < number <= _WORTH * now]
    if worth:
        return NextStep(seeds=min(worth), reason=wanted[min(worth)])
    return NextStep(seeds=now + MORE_SEEDS, reason="ten more seeds per cell; nothing is repeated")


def _on(verdict: Verdict) -> str:
    return "on S2 " if verdict.claim.judged_on == "S2" else ""


def _count_pairs(summary: Summary) -> int:
    """How many pairs there are of the cells that the best is one of, where no reference is compared with."""
    return max((best.num_running * (best.num_running - 1) // 2 for best in summary.best), default=0)
