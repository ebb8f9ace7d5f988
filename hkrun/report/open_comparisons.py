"""Why comparisons stay open: too few seeds for any verdict, or a test that sees less than its interval."""

from collections.abc import Iterable, Iterator

from hkrun import stats
from hkrun.report.comparison import Comparison
from hkrun.report.summary import Summary
from hkrun.report.wording import equals, family_size, join, take_once


def find_seeds_lacking(summary: Summary) -> tuple[int, int, int] | None:
    """The seeds, the tests and the seeds that these need, where no error can be told from the reference's.

    None where one can, where nothing is compared with a reference, and of a sequential study, whose tests are
    of t values.
    """
    compared = take_once(summary.comparisons, summary)
    if summary.monitoring.sequential or not compared:
        return None
    most, tests = max(comparison.n for comparison in compared), family_size(summary, len(compared))
    needed = stats.smallest_runs(compared[0].looks.level(level=stats.LEVEL / tests))
    return (most, tests, needed) if most < needed else None


def explain_interval(comparison: Comparison, *, tests: int) -> str:
    """Why no difference is shown though the interval excludes 0, as a sentence's part; else empty.

    Args:
        comparison: Of errors.
        tests: How many its p is corrected over.
    """
    ends = comparison.ci95
    if ends is None or ends[0] <= 0 <= ends[1] or comparison.significant or comparison.withheld:
        return ""
    if comparison.p > stats.LEVEL:
        return f"the interval is of a t test, and the permutation test has p {equals(comparison.p)}"
    return f"the interval is of one comparison alone, and p is corrected over {tests}"


def explain_intervals(named: Iterable[tuple[str, Comparison]], *, tests: int) -> Iterator[str]:
    """The same of all comparisons of a table, by the names of their rows, a sentence for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, comparison in named:
        if why := explain_interval(comparison, tests=tests):
            reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        yield f"{join(names)}: no difference is shown though the interval excludes 0, for {why}."


def explain_table(summary: Summary) -> list[str]:
    """The same of the errors beside the reference's, but for the best cell, of which the answer says it."""
    compared = take_once(summary.comparisons, summary)
    best = {found.cell for found in summary.best if found.measure == "error"}
    named = [(summary.label(item.cell), item) for item in compared if item.cell not in best]
    return list(explain_intervals(named, tests=family_size(summary, len(compared))))
