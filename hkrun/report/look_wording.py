"""When verdicts were read, and what that means for them, in sentences."""

from collections.abc import Iterator

from hkrun.counting import count, list_names
from hkrun.report.comparison import Comparison, Ratio
from hkrun.report.questions import describe_open, open_questions
from hkrun.report.summary import Summary

_MOST_LOOKS = 5  # that a sentence names


def describe_seeds(found: Comparison | Ratio) -> str:
    """Of how many seeds a comparison is; of a sequential study when they decided it."""
    after = found.decided_after
    if after is None:
        return count(found.n, "seed")
    return f"decided after {after} of at most {count(found.looks.counts[-1], 'seed')}"


def describe_looks(summary: Summary) -> str:
    """That verdicts were read before, or at every seed, in a sentence or two; empty where they were not."""
    looks = summary.monitoring.looks
    if len(looks) < 2:
        return ""
    if summary.monitoring.sequential:
        return (
            f"Seeds come until it is decided, {looks[-1]} at most: p and intervals hold at every look. "
            f"{describe_open(open_questions(summary))}{_describe_spared(summary)}"
        )
    if summary.monitoring.lost:
        return "Earlier looks are not known: p and intervals allow for one after every seed from the 6th on."
    how_many = "both" if len(looks) == 2 else f"all {len(looks)}"
    return f"Looked at {_name_looks(looks)}: p and intervals are corrected for {how_many} looks."


def _describe_spared(summary: Summary) -> str:
    """Which cells ended before the others, and what their differences are of; empty where none did."""
    ended = [
        f"{cell.label} after {len(cell.seeds)} of {count(len(summary.sweep.seeds), 'seed')}"
        for cell in {cell.cell_id: cell for cell in reversed(summary.cells)}.values()
        if cell.spared
    ][::-1]
    if not ended:
        return ""
    unequal = len({len(cell.seeds) for cell in summary.cells}) > 1
    which = (
        "; a difference is of the seeds that both cells have, and not that of their means" if unequal else ""
    )
    return f" Ended early, since all about them is decided: {list_names(ended)}{which}."


def explain_looks(summary: Summary) -> str:
    """How tests and intervals of comparisons allow for several looks; empty where there was one."""
    looks = summary.monitoring.looks
    if len(looks) < 2:
        return ""
    if summary.monitoring.sequential:
        return (
            f"Sequential study: comparisons may end at any number of seeds from {looks[0]} to {looks[-1]}. "
            "p is of t values at all these looks (Pocock 1977), and intervals of differences and ratios "
            "are 95 % confidence sequences, which hold at every look at once. What stops early leans away "
            "from no effect: differences and ratios of such comparisons are likely too large. Intervals of "
            "single cells (mean, S, S2, standard deviation) assume a number of seeds that was fixed ahead. "
            "Here the data decided it, so they cover less often than they say."
        )
    were = "may have been" if summary.monitoring.lost else "were"
    return (
        f"Verdicts {were} read at {_name_looks(looks)}: p of comparisons is the probability that chance "
        "shows so small a one at any of these looks, before Holm's correction, and intervals of differences "
        "and ratios are as much wider. Those of single cells are of one look."
    )


def conclude_equivalences(summary: Summary) -> Iterator[str]:
    """Which cells of a sequential study have the reference's error within the search space's margin."""
    shown = {item.test for item in summary.comparisons if item.significant}
    for item in {item.test: item for item in reversed(summary.equivalences)}.values():
        if item.supports and item.test not in shown:
            yield (
                f"{summary.label(item.cell)} has the test error of {summary.label(item.reference)} within "
                f"{item.margin:g} pp (p = {item.p_holm:.2g}, {describe_seeds(item)})."
            )


def _name_looks(looks: tuple[int, ...]) -> str:
    if len(looks) > _MOST_LOOKS:
        return f"{len(looks)} numbers of seeds from {looks[0]} to {looks[-1]}"
    return f"{list_names([str(look) for look in looks])} seeds"
