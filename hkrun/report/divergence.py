"""Whether runs of a cell diverge more or less often than those of the reference: an outcome of its own."""

from collections.abc import Iterator, Sequence

from hkrun import stats
from hkrun.counting import count
from hkrun.report.comparing import identify_test
from hkrun.report.comparison import RateComparison
from hkrun.report.families import Families, Test
from hkrun.report.summary import CellSummary, Summary
from hkrun.report.wording import equals

_MOST_TOLD = 3  # cells of which the first lines say how often they diverged


def compare_divergence(
    cells: Sequence[CellSummary], reference: CellSummary | None, families: Families
) -> tuple[RateComparison, ...]:
    """The cells where runs of either side diverged, each against the reference, as a table of tests.

    A cell in which nothing diverged counts in the table where the reference lost runs; runs that were
    stopped early or failed for another reason are no data.
    """
    if reference is None:
        return ()
    others = [cell for cell in cells if cell.cell_id != reference.cell_id]
    tests = {identify_rates(cell, reference): compare_rates(cell, reference) for cell in others}
    if not any(cell.diverged for cell in (*others, reference)):
        return ()
    corrected = families.correct(tests)
    return tuple(
        RateComparison(
            cell=cell.name,
            reference=reference.name,
            diverged=len(ours),
            reference_diverged=len(theirs),
            n=len(_ended(cell) & _ended(reference)),
            p_holm=corrected[identify_rates(cell, reference)],
            tests=families.size(len(tests)),
            out_of_reach=_is_out_of_reach(cell, reference),
        )
        for cell in others
        for ours, theirs in [find_diverged(cell, reference)]
        if ours or theirs
    )


def write_divergence(summary: Summary) -> Iterator[str]:
    """What these tests show, in sentences: of those that tell two rates apart, and of the others in one."""
    found = summary.divergence
    if not found:
        return
    reference, number = summary.label(found[0].reference), count(found[0].tests, "comparison")
    test = f"exact paired test, Holm's correction over {number}"
    apart = [_tell(item, summary) for item in found if item.p_holm <= stats.LEVEL]
    if apart:
        yield f"Divergence is not as frequent as that of {reference}: {'; '.join(apart)} ({test})."
    alike = [_tell(item, summary) for item in found if item.p_holm > stats.LEVEL]
    if alike:
        yield f"How often runs diverge cannot be told from {reference}: {'; '.join(alike)} ({test})."


def _tell(item: RateComparison, summary: Summary) -> str:
    return (
        f"{item.diverged} of {item.n} runs of {summary.label(item.cell)} against {item.reference_diverged} "
        f"(p = {item.p_holm:.2g})"
    )


def identify_rates(cell: CellSummary, other: CellSummary) -> Test:
    """What the test of two rates is called among all tests of a study."""
    return ("divergence", *identify_test(cell.cell_id, other.cell_id))


def compare_rates(cell: CellSummary, other: CellSummary) -> float:
    """P of both diverging as often, over all looks of the study.

    Looks are counted in the seeds that diverged in one of the two alone. A sequential study has one after
    each of these; as many may still come as its plan has seeds left.
    """
    ours, theirs = find_diverged(cell, other)
    monitoring, ended = cell.monitoring, _ended(cell) & _ended(other)
    apart = monitoring.order(ours ^ theirs)
    if monitoring.sequential:
        firsts = [{*apart[: place + 1]} for place in range(len(apart))]
        nominal = min((stats.compare_rates(ours & first, theirs & first) for first in firsts), default=1.0)
        looks = range(1, len(apart) + monitoring.looks[-1] - len(ended) + 1)
        return stats.any_look_rates_p(nominal, looks)
    before = [len({*apart} & {*monitoring.seeds[:look]}) for look in monitoring.looks[:-1]]
    return stats.any_look_rates_p(stats.compare_rates(ours, theirs), [*before, len(apart)])


def _is_out_of_reach(cell: CellSummary, other: CellSummary) -> bool:
    """Whether the rates so far, were they those of all seeds of a plan, would not be told apart."""
    ended = len(_ended(cell) & _ended(other))
    if not cell.monitoring.sequential or ended < stats.FIRST_LOOK:
        return False
    ours, theirs = find_diverged(cell, other)
    share = cell.monitoring.looks[-1] / ended
    more, fewer = (round(share * len(apart)) for apart in (ours - theirs, theirs - ours))
    nominal = stats.compare_rates(range(more), range(-fewer, 0))
    return stats.any_look_rates_p(nominal, range(1, more + fewer + 1)) > stats.LEVEL


def tell_rates(summary: Summary) -> str:
    """How many runs of each cell diverged, in a sentence; empty where none did."""
    told = [
        f"{item.diverged} of {count(item.n, 'run')} of {summary.label(item.cell)} diverged "
        f"({item.reference_diverged} of {item.n} of {summary.label(item.reference)}), p {equals(item.p_holm)}"
        for item in summary.divergence
    ]
    more = [f"{len(told) - _MOST_TOLD} more cells"] if len(told) > _MOST_TOLD else []
    return f"{'; '.join([*told[:_MOST_TOLD], *more])}." if told else ""


def find_diverged(cell: CellSummary, other: CellSummary) -> tuple[set[int], set[int]]:
    """The seeds that diverged in each, of those that ended in both."""
    both = _ended(cell) & _ended(other)
    return {*cell.diverged} & both, {*other.diverged} & both


def _ended(cell: CellSummary) -> set[int]:
    return {*cell.seeds, *cell.diverged}
