"""Whether runs of a cell diverge more or less often than those of the reference: an outcome of its own."""

from collections.abc import Iterator
from dataclasses import dataclass

from hkrun import stats
from hkrun.counting import count
from hkrun.report.summary import CellSummary, Summary


@dataclass(frozen=True, kw_only=True)
class RateComparison:
    """How many runs of a cell diverged, and of the reference, on seeds that ended in both.

    Attributes:
        cell: Name of the cell.
        reference: Name of the reference.
        diverged: How many of its runs did.
        reference_diverged: How many of the reference's.
        n: Number of seeds that finished or diverged in both.
        p_holm: Two-sided p of the exact paired test, corrected over all cells that are compared.
        tests: How many these are.
    """

    cell: str
    reference: str
    diverged: int
    reference_diverged: int
    n: int
    p_holm: float
    tests: int


def compare_divergence(summary: Summary) -> tuple[RateComparison, ...]:
    """The cells where runs of either side diverged, each against the reference, as a family of tests.

    A cell in which nothing diverged counts in the family where the reference lost runs; runs that were
    stopped early or failed for another reason are no data.
    """
    reference = next((cell for cell in summary.cells if cell.name == summary.sweep.reference), None)
    if reference is None:
        return ()
    others = [cell for cell in summary.cells if cell.cell_id != reference.cell_id]
    p_values = {cell.cell_id: _test(cell, reference) for cell in others}
    corrected = dict(zip(p_values, stats.holm(list(p_values.values())), strict=True))
    return tuple(
        RateComparison(
            cell=cell.name,
            reference=reference.name,
            diverged=len(ours),
            reference_diverged=len(theirs),
            n=len(_ended(cell) & _ended(reference)),
            p_holm=corrected[cell.cell_id],
            tests=len(p_values),
        )
        for cell in others
        for ours, theirs in [_diverged(cell, reference)]
        if ours or theirs
    )


def write_divergence(summary: Summary) -> Iterator[str]:
    """What these tests show, in sentences: of those that tell two rates apart, and of the others in one."""
    found = compare_divergence(summary)
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


def _test(cell: CellSummary, reference: CellSummary) -> float:
    return stats.compare_rates(*_diverged(cell, reference))


def _diverged(cell: CellSummary, reference: CellSummary) -> tuple[set[int], set[int]]:
    """The seeds that diverged in each, of those that ended in both."""
    both = _ended(cell) & _ended(reference)
    return {*cell.diverged} & both, {*reference.diverged} & both


def _ended(cell: CellSummary) -> set[int]:
    return {*cell.seeds, *cell.diverged}
