"""What a sequential study asks, and what of it is decided: cells that no open question needs may stop."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hkrun import stats
from hkrun.counting import count
from hkrun.report.comparing import OVER, lost_in_common
from hkrun.report.comparison import Comparison, RateComparison, Ratio
from hkrun.report.summary import CellSummary, Summary
from hkrun.report.verdict import Verdict

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

    They are whether each cell has the reference's error, which a difference decides, or equivalence where the
    search space sets a margin; whether it has the reference's S2 where the study is about stability; in a
    sequential study whether runs diverge as often, where any did; and the paper's claims on error and on S2.
    S decides nothing, for more seeds do not make it more precise.
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
            yield _ask(
                f"S2 of {against}",
                [cell, reference],
                decided=_decide_ratio(steadiness.get(cell.name)),
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


def _decide_ratio(ratio: Ratio | None) -> str:
    if ratio is None or ratio.ratio is None or not ratio.significant:
        return ""
    return "steadier" if ratio.ratio < 1 else "less steady"


def _ask_of_claims(summary: Summary) -> Iterator[Question]:
    cells = {cell.name: cell for cell in summary.cells}
    for verdict in summary.all_verdicts:
        if verdict.claim.judged_on == "S":
            continue
        needed = {name: cells[name] for name in _find_names(verdict, summary) if name in cells}
        if needed:
            undecided = [item for item in verdict.comparisons if not (item.supports or item.opposes)]
            yield _ask(
                f"“{verdict.claim.statement}”" + (" on S2" if verdict.claim.judged_on == "S2" else ""),
                list(needed.values()),
                decided=verdict.outcome if verdict.outcome in ("reproduced", "contradicted") else "",
                lost=all(item.out_of_reach for item in undecided),
            )


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
