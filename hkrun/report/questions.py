"""What a sequential study asks, and what of it is decided: cells that no open question needs may stop."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hkrun.counting import count
from hkrun.report.comparing import OVER
from hkrun.report.comparison import Comparison, Ratio
from hkrun.report.summary import CellSummary, Summary
from hkrun.report.verdict import Verdict

_MOST_NAMED = 4  # open questions that a sentence names


@dataclass(frozen=True, kw_only=True)
class Question:
    """Something that a study asks.

    Attributes:
        text: What, in a few words that stay the same from look to look.
        cells: Which cells it needs, by cell_id.
        decided: The answer in a few words; empty while it is open.
        n: Number of seeds that all these cells have by now.
    """

    text: str
    cells: tuple[str, ...]
    decided: str
    n: int


def open_questions(summary: Summary) -> tuple[Question, ...]:
    """All questions of a study, decided or not; none where it has neither a reference nor claims to judge.

    They are whether each cell has the reference's error, which a difference decides, or equivalence where the
    search space sets a margin; whether it has the reference's S2 where the study is about stability; and the
    paper's claims on error and on S2. S decides nothing, for more seeds do not make it more precise.
    """
    return (*_ask_of_cells(summary), *_ask_of_claims(summary))


def describe_open(questions: Sequence[Question]) -> str:
    """How many are decided, and which are not, in a sentence."""
    open_ = [question.text for question in questions if not question.decided]
    done = f"{len(questions) - len(open_)} of {count(len(questions), 'question')} decided"
    if not open_:
        return f"{done}."
    named = "; ".join(open_[:_MOST_NAMED])
    more = f" and {len(open_) - _MOST_NAMED} more" if len(open_) > _MOST_NAMED else ""
    return f"{done}; open: {named}{more}."


def _ask_of_cells(summary: Summary) -> Iterator[Question]:
    reference = next((cell for cell in summary.cells if cell.name == summary.sweep.reference), None)
    if reference is None:
        return
    others = {cell.cell_id: cell for cell in reversed(summary.cells) if cell.cell_id != reference.cell_id}
    steadiness = {ratio.cell: ratio for ratio in summary.s2_ratios}
    within = {comparison.cell: comparison for comparison in summary.equivalences}
    for cell in reversed(others.values()):
        needs, common = (cell.cell_id, reference.cell_id), _count_common([cell, reference])
        against = f"{cell.label} against {reference.label}"
        yield Question(
            text=f"error of {against}",
            cells=needs,
            decided=_decide_error(summary.find_comparison(cell.name), within.get(cell.name)),
            n=common,
        )
        if summary.measure == "stability":
            decided = _decide_ratio(steadiness.get(cell.name))
            yield Question(text=f"S2 of {against}", cells=needs, decided=decided, n=common)


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
            yield Question(
                text=f"“{verdict.claim.statement}”" + (" on S2" if verdict.claim.judged_on == "S2" else ""),
                cells=tuple(dict.fromkeys(cell.cell_id for cell in needed.values())),
                decided=verdict.outcome if verdict.outcome in ("reproduced", "contradicted") else "",
                n=_count_common(list(needed.values())),
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
