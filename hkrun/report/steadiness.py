"""What a study about steadiness answers: which cells S2 shows to be steadier than its reference."""

from collections.abc import Iterator

from hkrun.report.summary import Summary
from hkrun.report.wording import conclude_ratios, join, take_ratios


def write_steadiness(summary: Summary) -> Iterator[str]:
    """What stands before the smallest S: S is a range, which seldom decides, and S2 is of all pairs of runs.

    Where nothing is shown to be steadier that is said first, for the smallest of several S is no verdict.
    """
    by_s = any(best.told for best in summary.best if best.measure == "stability")
    ratios = take_ratios(summary)
    if not ratios:
        if summary.best and not by_s:
            yield "No configuration is shown to be steadier than another."
        return
    reference = summary.label(ratios[0].reference)
    withheld = [found for found in ratios if found.reservation]
    open_ = [found for found in ratios if not found.reservation and not found.steadiness]
    if not any(found.steadiness == "steadier" for found in ratios):
        by_s = by_s or any(item.supports for item in summary.stability_comparisons)
        first = "By S2, no configuration" if by_s else "No configuration"
        others = "the other cell" if len(ratios) == 1 else "any other cell"
        none = f": neither S2 nor S tells {others} from it" if len(open_) == len(ratios) and not by_s else ""
        yield f"{first} is shown to be steadier than {reference}{none}."
    yield from conclude_ratios(summary)
    undecided = [found for found in open_ if not found.verdict]
    if undecided and len(undecided) < len(ratios):
        names = join([summary.label(found.cell) for found in undecided])
        yield f"By S2, no difference from {reference} is shown for {names}."
    for reason in dict.fromkeys(found.reservation for found in withheld):
        names = join([summary.label(found.cell) for found in withheld if found.reservation == reason])
        yield f"By S2, the verdict on {names} against {reference} is withheld: {reason}."
