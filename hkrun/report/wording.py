"""Numbers as people read them, and what a study found, in sentences."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from hkrun.counting import count as count
from hkrun.counting import list_names
from hkrun.counting import seeds as seeds
from hkrun.plans import OVERHEADS
from hkrun.report.comparison import Comparison, Ratio
from hkrun.report.look_wording import conclude_equivalences, describe_seeds
from hkrun.report.summary import Summary, Teacher, TrainedTeacher
from hkrun.report.verdict import Verdict
from hkrun.spaces import STUDY_FAMILY

_ROUNDING = 1e-4  # percentage points between a mean and the middle of its interval, of figures kept in JSON
MOST_NAMES = 4  # in a sentence
OUTCOMES = ("reproduced", "contradicted", "undecided")  # of claims that are judged


def digits(value: float) -> str:
    """S or another positive figure with two significant digits: 0.041, 0.0025, 1.3, 12."""
    if value == 0:
        return "0"
    text = f"{value:.1e}"
    exponent = int(text.partition("e")[2])
    return f"{value:.{max(0, 1 - exponent)}f}" if exponent >= -5 else text


def interval(ends: tuple[float, float] | None) -> str:
    """An interval of S; empty where there is none."""
    return f"[{digits(ends[0])}, {digits(ends[1])}]" if ends else ""


def p_value(p: float) -> str:
    """A p value: 0.032, or <0.001."""
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def equals(p: float) -> str:
    """A p value after the letter: = 0.032, or < 0.001."""
    return "< 0.001" if p < 0.001 else f"= {p_value(p)}"


def plus_minus(mean: float, ends: tuple[float, float] | None, *, signed: bool = False) -> str:
    """A mean with the half-width of its interval, in percentage points; with its ends where it was cut."""
    number = f"{mean:+z.2f}" if signed else f"{mean:.2f}"
    if ends is None:
        return number
    if abs(sum(ends) / 2 - mean) > _ROUNDING:
        return f"{number} [{ends[0]:.2f}, {ends[1]:.2f}]"
    return f"{number} ± {(ends[1] - ends[0]) / 2:.2f}"


def describe_s2(comparison: Comparison) -> str:
    """Two S2 and their ratio: S2 0.010 against 0.020 (0.50 times [0.30, 0.83])."""
    values = f"S2 {digits(comparison.value)} against {digits(comparison.reference_value)}"
    if comparison.ratio is None:
        return values
    return f"{values} ({f'{digits(comparison.ratio)} times {interval(comparison.ci95)}'.strip()})"


def count_outcomes(outcomes: Sequence[str]) -> str:
    """How many judged claims had which outcome: 2 reproduced, 1 undecided; empty for none."""
    return ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in OUTCOMES if outcome in outcomes)


def duration(seconds: float) -> str:
    """Seconds as 42 s, 9.5 min, 3.2 h or 1.5 d."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}" if name == "s" else f"{seconds / unit:.1f} {name}"
    return f"{seconds / 86_400:.1f} d"


def first_line(traceback: str | None) -> str:
    """What went wrong: the first line of a traceback that is not about where."""
    lines = (traceback or "").strip().splitlines()
    telling = [
        line for line in lines if line[:1].strip() and not line.startswith("Traceback (most recent call")
    ]
    return telling[0] if telling else "no traceback was kept"


def join(names: Sequence[str]) -> str:
    """Names in a sentence, or how many where they are too many to read."""
    if len(names) > MOST_NAMES:
        return f"{len(names)} cells"
    return list_names(names)


def describe_teacher(teacher: Teacher) -> str:
    """A teacher, how good it is, and how good its student is alone."""
    text = _describe_teachers(teacher) if teacher.several else _describe_one_teacher(teacher.trained[0])
    if teacher.alone_pct is not None:
        text += f" Its student trained alone: {teacher.alone_pct:.2f} % ({teacher.alone_source})"
        if teacher.plateau_pct is not None:
            text += f"; with epochs until more no longer help: {teacher.plateau_pct:.2f} %"
        text += "."
    return text


def _describe_one_teacher(teacher: TrainedTeacher) -> str:
    record = teacher.record
    if record is None:
        return f"Teacher {teacher.teacher_id} is not in the store."
    return (
        f"Teacher {teacher.teacher_id} ({record.config.get('teacher.network', 'network unknown')}): "
        f"{record.error_pct:.2f} % test error, {record.train_error_pct:.2f} % on its training images."
    )


def _describe_teachers(teacher: Teacher) -> str:
    """Several teachers: how many, and their errors as mean and spread."""
    records, error = teacher.records, teacher.error
    each = "one per seed" if teacher.students == 1 else f"each with {teacher.students} seeds"
    if error is None:
        return f"{count(len(teacher.trained), 'teacher')}, {each}: none is in the store."
    there = "" if len(records) == len(teacher.trained) else f" of {len(teacher.trained)}"
    errors = [record.error_pct for record in records]
    spread = "" if error.sd is None else f" (sd {error.sd:.2f}, from {min(errors):.2f} to {max(errors):.2f})"
    train_pct = statistics.fmean(record.train_error_pct for record in records)
    return (
        f"{len(records)}{there} teachers ({records[0].config.get('teacher.network', 'network unknown')}), "
        f"{each}: {plus_minus(error.mean, error.ci95)} % test error{spread}, {train_pct:.2f} % on their "
        "training images."
    )


def describe_scope(summary: Summary) -> str:
    """For which teachers and test images intervals and p values hold; empty where neither is known."""
    return " ".join(filter(None, (_describe_teachers_scope(summary), _describe_test_set(summary))))


def find_test_set(summary: Summary) -> tuple[int, float, float] | None:
    """The number of test images, an error in percent, and its binomial standard error in percentage points.

    The error is the reference's, else that of the first cell that has one; None where either is not known.
    """
    cells = sorted(summary.cells, key=lambda cell: cell.name != summary.sweep.reference)
    error_pct = next((cell.error_last.mean for cell in cells if cell.error_last), None)
    if summary.quantum_pct is None or error_pct is None:
        return None
    return (
        round(100 / summary.quantum_pct),
        error_pct,
        math.sqrt(error_pct * (100 - error_pct) * summary.quantum_pct / 100),
    )


def _describe_test_set(summary: Summary) -> str:
    found = find_test_set(summary)
    if found is None:
        return ""
    images, error_pct, error_of_it = found
    return (
        f"Intervals and p hold for these {images:,} test images alone: on others, an error of "
        f"{error_pct:.2f} % would differ by {error_of_it:.2f} pp (binomial standard error)."
    )


def describe_family(summary: Summary) -> str:
    """What the correction of p values covers; empty where there is nothing to correct."""
    if summary.sweep.family == STUDY_FAMILY and summary.num_tests:
        return (
            f"Holm's correction is over all {summary.num_tests} tests of the study: with nothing true, some "
            "verdict is wrong in 5 % of studies at most."
        )
    if summary.num_tables < 2:
        return ""
    return (
        f"Holm's correction keeps wrong verdicts to 5 % of studies in each of {summary.num_tables} tables of "
        "tests, not across them; --family all keeps them so over all tables."
    )


def family_size(summary: Summary, tests: int) -> int:
    """How many tests the first step of Holm's correction is over in a table with so many."""
    return summary.num_tests if summary.sweep.family == STUDY_FAMILY else tests


def _describe_teachers_scope(summary: Summary) -> str:
    numbers = {teacher.students for teacher in summary.teachers}
    if not numbers:
        return ""
    if numbers == {0}:
        return "All seeds of a cell learned from one teacher: intervals and p hold for that teacher alone."
    if numbers == {1}:
        return (
            "Each seed learned from a teacher of its own: intervals and p hold for teachers as for students."
        )
    return (
        "Some seeds of a cell share a teacher, and are not independent: intervals and p hold for these "
        "teachers alone."
    )


def describe_teachers(summary: Summary) -> str:
    """How many teachers there are, and for which seeds; empty where no cell has one."""
    number = count(sum(len(teacher.trained) for teacher in summary.teachers), "teacher")
    match {teacher.students for teacher in summary.teachers}:
        case found if not found:
            return ""
        case found if found == {0}:
            return f"one for all seeds of a cell, {number} in all"
        case found if found == {1}:
            return f"one for each seed, {number} in all"
    return f"one for some seeds of a cell, {number} in all"


def describe_time(summary: Summary) -> str:
    """How long the executions took, and how much of that was neither training nor a teacher table."""
    parts = summary.slot_seconds
    total = sum(parts.values())
    overhead = sum(parts.get(part, 0.0) for part in OVERHEADS)
    wall_s = sum(execution.wall_s for execution in summary.executions)
    return (
        f"Time: {duration(wall_s)} in {count(len(summary.executions), 'execution')}; "
        f"overhead {share(overhead, total)} of the wall clock, idle slots {share(parts['idle'], total)}."
    )


def share(part: float, total: float) -> str:
    """A share in percent, with one decimal."""
    return f"{100 * part / total:.1f} %"


def write_findings(summary: Summary) -> Iterator[str]:
    """The answer in a few sentences: what the tests decide, and what they leave open."""
    if not any(cell.seeds for cell in summary.cells):
        yield "No run has finished yet."
        return
    errors = ("test error", ("a lower test error", "a higher test error"))
    steadiness = ("stability", ("a steadier convergence", "a less steady convergence"))
    found = [(summary.comparisons, *errors), (summary.stability_comparisons, *steadiness)]
    for comparisons, subject, directions in found if summary.measure == "error" else reversed(found):
        yield from _conclude(_labelled(comparisons, summary), subject, directions)
        if comparisons is summary.comparisons:
            yield from conclude_equivalences(summary)
        if comparisons is summary.stability_comparisons and summary.measure == "error":
            yield from conclude_ratios(summary)  # where the question is about them, the answer has them
    yield from _count_verdicts(summary)


def take_once(comparisons: Iterable[Comparison], summary: Summary) -> list[Comparison]:
    """Each configuration's comparison once, though several names may stand for it."""
    ids = {cell.name: cell.cell_id for cell in summary.cells}
    first: dict[str, Comparison] = {}
    for comparison in comparisons:
        first.setdefault(ids[comparison.cell], comparison)
    return list(first.values())


def _labelled(comparisons: Iterable[Comparison], summary: Summary) -> list[Comparison]:
    """Each configuration's comparison once, its sides called as sentences call them."""
    return [
        replace(item, cell=summary.label(item.cell), reference=summary.label(item.reference))
        for item in take_once(comparisons, summary)
    ]


def find_outcomes(verdicts: Iterable[Verdict]) -> list[str]:
    """What came of the claims that are judged."""
    return [verdict.outcome for verdict in verdicts if verdict.outcome in OUTCOMES]


def count_on_s2(summary: Summary) -> str:
    """What came of the claims about S on S2, apart from those as published; empty without any."""
    outcomes = find_outcomes(summary.s2_verdicts)
    if not outcomes:
        return ""
    of_s = "that about S" if len(outcomes) == 1 else f"the {len(outcomes)} about S"
    return f"On S2, which the paper does not have, {of_s}: {count_outcomes(outcomes)}."


def _count_verdicts(summary: Summary) -> Iterator[str]:
    outcomes = find_outcomes(summary.verdicts)
    if outcomes:
        yield (
            f"Of {count(len(outcomes), 'claim')} of the paper that this sweep can judge on "
            f"{summary.sweep.dataset}: {count_outcomes(outcomes)}. {count_on_s2(summary)}".strip()
        )
    family = describe_family(summary)
    if family:
        yield family


def _conclude(comparisons: Sequence[Comparison], subject: str, directions: tuple[str, str]) -> Iterator[str]:
    for comparison in comparisons:
        if comparison.significant:
            direction = directions[0] if comparison.difference < 0 else directions[1]
            change = (
                f"by {abs(comparison.difference):.2f} pp"
                if comparison.measure == "error"
                else f"S {digits(comparison.value)} against {digits(comparison.reference_value)}"
            )
            whatever = (
                f"; whatever those without a result had reached: {comparison.reservation}"
                if comparison.reservation
                else ""
            )
            yield (
                f"{join([comparison.cell])} has {direction} than {join([comparison.reference])} "
                f"({change}, p {equals(comparison.p_holm)}, {describe_seeds(comparison)}{whatever})."
            )
    for reservation in dict.fromkeys(item.reservation for item in comparisons if item.withheld):
        found = [item.cell for item in comparisons if item.withheld and item.reservation == reservation]
        yield (
            f"In {subject}, the verdict on {join(found)} against {join([comparisons[0].reference])} is "
            f"withheld: {reservation}."
        )
    undecided = [item for item in comparisons if not item.significant and not item.withheld]
    if undecided:
        names = join([comparison.cell for comparison in undecided])
        reference, within = join([undecided[0].reference]), _tell_margins(undecided)
        looks = undecided[0].looks
        numbers = sorted({item.n for item in undecided})
        told = " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))
        open_ = f" (open at {told} of {count(looks.counts[-1], 'seed')})" if looks.sequential else ""
        yield f"In {subject}, no difference from {reference} is shown for {names}{open_}{within}."


def _tell_margins(undecided: Sequence[Comparison]) -> str:
    """Which differences are excluded all the same; empty where none is."""
    margins = [f"{margin:.2f}" for item in undecided if (margin := item.within_pp) is not None]
    if len(margins) < len(undecided):
        return ""
    if len(margins) > MOST_NAMES:
        ordered = sorted(margins, key=float)
        margins = [f"{ordered[0]} to {ordered[-1]}"]
    each = ", each" if len(undecided) > 1 else ""
    return f": within {join(margins)} pp (90 %{each})"


def conclude_ratios(summary: Summary) -> Iterator[str]:
    """What S2 tells apart, with direction and size, or shows to be equal within the space's factor.

    Cells that are shown to be equal share a sentence; the table has the interval of each.
    """
    equal = []
    for found in take_ratios(summary):
        if found.ratio is None or not found.verdict:
            continue
        if not found.steadiness:
            equal.append(found)
            continue
        cell, reference = (join([summary.label(name)]) for name in (found.cell, found.reference))
        size = f"{digits(found.ratio)} times {interval(found.ci95)}".strip()
        p = f"p {equals(found.p_holm)}, {describe_seeds(found)}"
        yield f"By S2, {cell} is {found.steadiness} than {reference} ({size}, {p})."
    if equal:
        yield _conclude_equal(equal, summary)


def _conclude_equal(equal: Sequence[Ratio], summary: Summary) -> str:
    """That these cells are as steady as their reference, with the range of their ratios and the largest p."""
    several, one = len(equal) > 1, equal[0]
    names = join([summary.label(found.cell) for found in equal])
    ratios = [found.ratio for found in equal if found.ratio is not None]
    size = " to ".join(dict.fromkeys(digits(end) for end in (min(ratios), max(ratios)))) + " times"
    largest = max(found.within.p_holm for found in equal if found.within is not None)
    seeds = dict.fromkeys(describe_seeds(found) for found in equal)
    told = [
        size if several else f"{size} {interval(one.ci95)}".strip(),
        f"p {equals(largest)}" + (" or less" if several and equals(largest).startswith("=") else ""),
        *(seeds if len(seeds) == 1 else ()),
    ]
    are, reference = "are" if several else "is", summary.label(one.reference)
    return f"By S2, {names} {are} as steady as {reference} {one.within} ({', '.join(told)})."


def take_ratios(summary: Summary) -> list[Ratio]:
    """Each configuration's S2 over that of the reference once, though several names may stand for it."""
    first: dict[tuple[str, ...], Ratio] = {}
    for found in summary.s2_ratios:
        first.setdefault(found.test, found)
    return list(first.values())
