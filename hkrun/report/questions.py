"""What a sequential study asks, and what of it is decided: cells that no open question needs may stop."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hkrun import stats
from hkrun.counting import count
from hkrun.report.comparing import OVER, lost_in_common
from hkrun.report.comparison import Comparison, RateComparison
from hkrun.report.monitoring import margin_over_looks
from hkrun.report.summary import CellSummary, Summary
from hkrun.report.verdict import Verdict
from hkrun.spaces import Sweep

_MOST_NAMED = 4  # open questions that a sentence names
_WITHHELD = "withheld: no seed can decide it beside the runs that diverged"


@dataclass(frozen=True, kw_only=True)
class Question:
    """Something that a study asks.

    Attributes:
        text: What, in a few words that stay the same from look to look.
        cells: Which cells it needs, by cell_id.
        decided: The answer in a few words; empty where there is none.
        withheld: Why no seed will decide it: runs that diverged; empty where one may.
        n: Number of seeds that all these cells have by now.
    """

    text: str
    cells: tuple[str, ...]
    decided: str
    withheld: str = ""
    n: int

    @property
    def open(self) -> bool:
        """Whether more seeds may decide it."""
        return not self.decided and not self.withheld


def open_questions(summary: Summary) -> tuple[Question, ...]:
    """All questions of a study, decided or not; none where it has neither a reference nor claims to judge.

    They are whether each cell has the reference's error, which a difference decides, or equivalence where
    the search space sets a margin; where the study is about stability, whether it has the reference's S2,
    which a difference decides, or equality within the factor that the search space sets; in a sequential
    study whether runs diverge as often, where any did; and the paper's claims on error and on S2, which a
    verdict decides, or that all that they compare is equal likewise, as far as the study has all of their
    cells. S decides nothing, for more seeds do not make it more precise.
    """
    return (*_ask_of_cells(summary), *_ask_of_claims(summary))


def describe_open(questions: Sequence[Question]) -> str:
    """How many are decided, and which are not, in a sentence."""
    open_ = [question.text for question in questions if question.open]
    withheld = sum(bool(question.withheld) for question in questions)
    done = f"{len(questions) - len(open_) - withheld} of {count(len(questions), 'question')} decided"
    if withheld:
        done += f", {withheld} withheld for runs that diverged, which more seeds do not change"
    if not open_:
        return f"{done}."
    named = "; ".join(open_[:_MOST_NAMED])
    more = f" and {len(open_) - _MOST_NAMED} more" if len(open_) > _MOST_NAMED else ""
    return f"{done}; open: {named}{more}."


def only_divergence_withholds(questions: Sequence[Question]) -> bool:
    """Whether all that is not decided is withheld for runs that diverged, whatever seeds come."""
    return any(question.withheld for question in questions) and not any(item.open for item in questions)


def _ask_of_cells(summary: Summary) -> Iterator[Question]:
    reference = next((cell for cell in summary.cells if cell.name == summary.sweep.reference), None)
    if reference is None:
        return
    others = {cell.cell_id: cell for cell in reversed(summary.cells) if cell.cell_id != reference.cell_id}
    steadiness = {ratio.cell: ratio for ratio in summary.s2_ratios}
    within = {comparison.cell: comparison for comparison in summary.equivalences}
    for cell in reversed(others.values()):
        against = f"{cell.label} against {reference.label}"
        difference = summary.find_comparison(cell.name)
        yield _ask(
            f"error of {against}",
            [cell, reference],
            decided=_decide_error(difference, within.get(cell.name)),
            lost=difference is None or difference.out_of_reach,
        )
        if summary.measure == "stability":
            ratio = steadiness.get(cell.name)
            yield _ask(
                f"S2 of {against}",
                [cell, reference],
                decided="" if ratio is None else ratio.verdict,
                lost=lost_in_common(cell, reference),
            )
        rates = next((item for item in summary.divergence if item.cell == cell.name), None)
        if rates is not None and summary.monitoring.sequential:
            yield _ask(
                f"divergence of {against}",
                [cell, reference],
                decided=_decide_rates(rates),
                lost=rates.out_of_reach,
            )


def _ask(text: str, cells: Sequence[CellSummary], *, decided: str, lost: bool) -> Question:
    """A question, withheld where what is `lost` by divergence keeps all further seeds from deciding it.

    Failed runs are made again, and of fewer seeds than the first look nothing is foreseen.
    """
    ended = set.intersection(*({*cell.seeds, *cell.diverged} for cell in cells))
    final = len(ended) >= stats.FIRST_LOOK and not any(cell.failed for cell in cells)
    diverged = any(ended & {*cell.diverged} for cell in cells)
    return Question(
        text=text,
        cells=tuple(dict.fromkeys(cell.cell_id for cell in cells)),
        decided=decided,
        withheld=_WITHHELD if lost and final and diverged and not decided else "",
        n=_count_common(cells),
    )


def _decide_rates(rates: RateComparison) -> str:
    if rates.p_holm > stats.LEVEL:
        return ""
    return "diverges more often" if rates.diverged > rates.reference_diverged else "diverges less often"


def _decide_error(difference: Comparison | None, equivalence: Comparison | None) -> str:
    if difference is not None and difference.significant:
        return "lower" if difference.difference < 0 else "higher"
    if equivalence is not None and equivalence.supports:
        return f"within {equivalence.margin:g} pp"
    return ""


def _ask_of_claims(summary: Summary) -> Iterator[Question]:
    cells = {cell.name: cell for cell in summary.cells}
    verdicts = [
        verdict
        for verdict in summary.all_verdicts
        if verdict.claim.judged_on != "S" and _has_all(verdict, cells)
    ]
    # What equality each claim shows is a table of tests of its own.
    equal = stats.holm([_p_of_equality(verdict, summary.sweep) for verdict in verdicts])
    for verdict, p in zip(verdicts, equal, strict=True):
        needed = {name: cells[name] for name in _find_names(verdict, summary) if name in cells}
        if needed:
            undecided = [item for item in verdict.comparisons if not (item.supports or item.opposes)]
            yield _ask(
                f"“{verdict.claim.statement}”" + (" on S2" if verdict.claim.judged_on == "S2" else ""),
                list(needed.values()),
                decided=_decide_claim(verdict, p, summary.sweep),
                lost=all(item.out_of_reach for item in undecided),
            )


def _decide_claim(verdict: Verdict, p_equal: float, sweep: Sweep) -> str:
    if verdict.outcome in ("reproduced", "contradicted"):
        return verdict.outcome
    if p_equal > stats.LEVEL:
        return ""
    of_s2 = verdict.claim.judged_on == "S2"
    return f"equal within {f'a factor of {sweep.s2_factor:g}' if of_s2 else f'{sweep.margin:g} pp'}"


def _p_of_equality(verdict: Verdict, sweep: Sweep) -> float:
    """P of all that a claim compares being equal within the margin or factor: all must be, so the largest.

    Where the search space does not ask for that, or something has no such test, it is 1.
    """
    return max((_p_within(comparison, sweep) for comparison in verdict.comparisons), default=1.0)


def _p_within(comparison: Comparison, sweep: Sweep) -> float:
    if comparison.within is not None:
        return comparison.within.p
    testable = comparison.measure == "error" and not comparison.reservation and len(comparison.by_seed) > 1
    if not (testable and sweep.asks_equivalence):
        return 1.0
    differences = np.array(comparison.by_seed)
    tested = margin_over_looks(differences, comparison.looks, margin=sweep.margin, one_sided=False)
    return 1.0 if tested.drift else tested.p


def _has_all(verdict: Verdict, cells: Collection[str]) -> bool:
    """Whether every pair of a claim is of cells of the study, or compared already, as one with a teacher is.

    Without one of its pairs a claim is never reproduced, so no seed of the others would decide it.
    """
    absent = {*verdict.claim.pairs} & {*verdict.missing}
    return all(name in cells for pair in absent for side in pair for name in side.split(OVER))


def _find_names(verdict: Verdict, summary: Summary) -> Iterator[str]:
    """The cells that a claim is about: its rows, or all points of the curves over its keys."""
    for pair in (*verdict.claim.pairs, *((item.cell, item.reference) for item in verdict.comparisons)):
        for side in pair:
            yield from side.split(OVER)
    for scan in summary.scans:
        if verdict.claim.kind == "equivalence" and scan.keys[0] in verdict.claim.keys and len(scan.keys) == 1:
            yield from (point.cell.name for point in scan.points)


def _count_common(cells: Sequence[CellSummary]) -> int:
    return len(set.intersection(*({*cell.seeds} for cell in cells)))
