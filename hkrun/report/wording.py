"""Numbers as people read them, and what a summary says in sentences: warnings and findings."""

import re
import statistics
from collections.abc import Iterable, Iterator, Sequence

from hkrun import stats
from hkrun.config import teachers_id
from hkrun.plan import OVERHEADS, find_weight_key, stability_limit
from hkrun.report.comparing import drop_epochs, write_window
from hkrun.report.summary import CellSummary, Comparison, Summary, Teacher, TrainedTeacher

# Two S with at most this ratio are what RANKING speaks of.
CLOSE_RATIO = 1.25
# Above this error on its own training images, a teacher is taken not to have converged.
UNCONVERGED_PCT = 10.0
MOST_NAMES = 4  # in a sentence
OUTCOMES = ("reproduced", "contradicted", "undecided")  # of claims that are judged
RANKING = (
    "Simulated at the magnitudes of the paper's table 5, S of twenty runs varies by 20-25 % from one "
    "repetition to the next, so differences of 10-20 % cannot be told apart"
)


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
    """A mean with the half-width of its interval, in percentage points."""
    number = f"{mean:+z.2f}" if signed else f"{mean:.2f}"
    return number if ends is None else f"{number} ± {(ends[1] - ends[0]) / 2:.2f}"


def seeds(numbers: Iterable[int]) -> str:
    """Seeds in short: 0-3, 7."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" if b > a + 1 else f"{a}, {b}" for a, b in spans)


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 run, 20 runs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


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
    """For which teachers intervals and p values hold; empty where no cell has one."""
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


def write_warnings(summary: Summary) -> Iterator[str]:
    """What a reader must know before believing the numbers."""
    for cell in summary.cells:
        yield from _warn_of_runs(cell, len(summary.sweep.seeds))
    for teacher in summary.teachers:
        yield from _warn_of_teacher(teacher, several=len(summary.teachers) > 1)
        yield from _warn_of_students(teacher, summary.cells)
    if len(summary.teachers) > 1:
        yield (
            f"The cells were distilled from {len(summary.teachers)} teachers of different configurations: "
            "the differences between cells hold the teachers' too."
        )
    yield from _warn_of_seeds(summary)
    yield from _warn_of_stability(summary)


def _warn_of_seeds(summary: Summary) -> Iterator[str]:
    """Says where no difference could be significant, however large."""
    compared = _take_once(summary.comparisons, summary)
    most = max((comparison.n for comparison in compared), default=0)
    needed = stats.smallest_runs(stats.LEVEL / len(compared)) if compared else 0
    if 0 < most < needed:
        yield (
            f"With {count(most, 'seed')} no difference in error can be significant, however large, after "
            f"Holm's correction over {count(len(compared), 'comparison')}: a permutation test needs {needed} "
            "seeds."
        )


def _warn_of_runs(cell: CellSummary, num_seeds: int) -> Iterator[str]:
    parts = [
        f"{count(len(numbers), 'run')} {what} ({_name_seeds(numbers)})"
        for what, numbers in (
            ("failed", cell.failed),
            ("diverged", cell.diverged),
            ("without a teacher, which diverged", cell.untaught),
            ("missing", cell.missing),
        )
        if numbers
    ]
    if parts:
        selected = (
            ", selected by their outcome: its S is not ranked, its error is called equivalent to no other, "
            "and lower or higher only where that holds whatever errors, from 0 to 100 %, the lost "
            "runs had had."
        )
        yield (
            f"{cell.name}: {', '.join(parts)}; its figures are those of the {len(cell.seeds)} of {num_seeds} "
            f"runs that finished{selected if cell.lost and cell.seeds else '.'}"
        )
    if cell.diverged:
        weighed = [
            find_weight_key(cell.cell, stage, name)[0]
            for stage, weights in enumerate(cell.cell.stage_weights)
            for name, weight in weights.items()
            if weight > 1
        ]
        keys = dict.fromkeys([*weighed, "student.learning_rate"])
        limit = min(stability_limit(cell.cell, stage) for stage in range(len(cell.cell.stage_epochs)))
        yield (
            f"{cell.name}: the weighted loss became steeper than the step bears, a curvature of {limit:.3g}. "
            f"Lower {' or '.join(keys)}; --check in place of the runs finds a value that holds."
        )
    if cell.selection:
        yield (
            f"{cell.name}: selected on test error: {count(len(cell.stopped), 'run')} of {cell.name} "
            f"{'was' if len(cell.stopped) == 1 else 'were'} stopped early ({_name_seeds(cell.stopped)}). The "
            "mean of the others is likely too low, so there is no interval, test, S or verdict of them; the "
            "sweep without --scheduler makes the runs that are missing."
        )
    alarms: dict[str, list[tuple[int, str]]] = {}
    for record in cell.records:
        for alarm in record.alarms:
            alarms.setdefault(re.sub(r"\d+(\.\d+)?", "#", alarm), []).append((record.seed, alarm))
    for found in alarms.values():
        more = "" if len(found) == 1 else f" (seed {found[0][0]})"
        yield f"{cell.name}, {_name_seeds([seed for seed, _ in found])}: {found[0][1]}{more}."


def _name_seeds(numbers: Sequence[int]) -> str:
    return f"seed{'' if len(numbers) == 1 else 's'} {seeds(numbers)}"


def _warn_of_teacher(teacher: Teacher, *, several: bool) -> Iterator[str]:
    for trained in teacher.trained:
        named = several or teacher.several
        name = f"The teacher {trained.teacher_id}" if named else "The teacher"
        if trained.record is None:
            if trained.hash is not None:
                yield f"{name} of these runs is no longer in the store: its error is unknown."
        elif (train_pct := trained.record.train_error_pct) > UNCONVERGED_PCT:
            yield (
                f"{name} did not converge: {train_pct:.1f} % error on its own training images. A lower "
                "teacher.learning_rate, more teacher.epochs or teacher.warmup_epochs = 5 may help."
            )
    error = teacher.error
    if error is not None and teacher.to_beat is not None and error.mean >= teacher.to_beat[0]:
        alone_pct, source = teacher.to_beat
        name = f"The teacher {teacher.identity}" if several else "The teacher"
        subject = "The mean of the teachers" if teacher.several else name
        yield (
            f"{subject} ({error.mean:.2f} % test error) is not better than the student trained alone "
            f"({alone_pct:.2f} %, {source}): there is nothing to distil, and the cells cannot show what "
            "distillation does."
        )


def _warn_of_students(teacher: Teacher, cells: Iterable[CellSummary]) -> Iterator[str]:
    """Names the cells that are worse than no distillation at all, their whole interval above it."""
    if teacher.alone_pct is None:
        return
    worse = [
        cell.name
        for cell in cells
        if cell.cell.uses_teacher
        and teachers_id(cell.cell) == teacher.identity
        and cell.error_last is not None
        and cell.error_last.ci95 is not None
        and cell.error_last.ci95[0] > teacher.alone_pct
    ]
    if worse:
        yield (
            f"The error of {join(worse)} is above that of the student trained alone "
            f"({teacher.alone_pct:.2f} %, {teacher.alone_source}), and so is its 95 % interval: this sweep "
            "compares its cells with each other, and does not show that distillation helps."
        )


def _warn_of_stability(summary: Summary) -> Iterator[str]:
    for reason in dict.fromkeys(cell.undefined for cell in summary.cells if cell.undefined):
        names = [cell.name for cell in summary.cells if cell.undefined == reason]
        yield f"S is undefined for {join(names)}: {reason}."
    ranked = [cell for cell in summary.cells if cell.stability]
    if len({len(cell.seeds) for cell in ranked}) > 1:
        numbers = ", ".join(f"{len(cell.seeds)} for {cell.name}" for cell in ranked)
        yield (
            "Do not compare the S of the table with each other: they are of different numbers of runs "
            f"({numbers}), and the range grows with that number. The tests compare S on the seeds that both "
            "cells finished."
        )
    windows = {write_window(cell.cell, summary.sweep.window): cell.name for cell in reversed(ranked)}
    if len(windows) > 1:
        examples = ", ".join(f"{window} of {name}" for window, name in reversed(windows.items()))
        yield (
            "Do not compare the S of the table with each other: they are over different epochs "
            f"({examples}). The tests compare S over the same epochs alone."
        )
    yield from _warn_of_drops(ranked, summary.sweep.window)
    obstacles: dict[str, list[str]] = {}
    for comparison in summary.stability_comparisons:
        if comparison.obstacle:
            obstacles.setdefault(comparison.obstacle, []).append(comparison.cell)
    if obstacles:
        reasons = [f"{join(names)}: {obstacle}" for obstacle, names in obstacles.items()]
        if len(reasons) > MOST_NAMES:
            reserved = sum(bool(comparison.reservation) for comparison in summary.stability_comparisons)
            others = sum(map(len, obstacles.values())) - reserved
            reasons = [f"{others} cells: these runs cannot tell them apart"] if others else []
            reasons += (
                [f"{reserved} cells: runs without a result, or other epochs in the window"]
                if reserved
                else []
            )
        reference = summary.sweep.reference
        why = "; ".join(reasons)
        yield f"S cannot be ranked against that of {reference}. {why}.{_explain_ranking(summary)}"


def _warn_of_drops(cells: Iterable[CellSummary], window: int) -> Iterator[str]:
    """Names the cells within whose window the learning rate drops."""
    names: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for cell in cells:
        student = cell.cell.student
        # A drop before the first epoch of the window leaves all of the window at the lower rate.
        within = tuple(epoch for epoch in drop_epochs(cell.cell) if epoch > student.epochs - window)
        if within:
            names.setdefault((student.epochs, within), []).append(cell.name)
    for (epochs, within), found in names.items():
        several = len(within) > 1
        after = f"{'epochs' if several else 'epoch'} {' and '.join(map(str, within))}"
        yield (
            f"The window of S (epochs {epochs - window + 1} to {epochs}) of {join(found)} contains "
            f"{f'{len(within)} learning-rate drops' if several else 'a learning-rate drop'} (after {after}): "
            f"S holds {'those steps' if several else 'that step'} too, not the steadiness at one rate alone. "
            "More epochs, or a shorter window ([analysis] of the search space), begin it after the last drop."
        )


def _explain_ranking(summary: Summary) -> str:
    """What S of twenty runs can tell, where some S that cannot be ranked are as close as that."""
    values = [
        sorted((comparison.value, comparison.reference_value))
        for comparison in summary.stability_comparisons
        if comparison.obstacle and not comparison.reservation
    ]
    return f" {RANKING}." if any(high <= CLOSE_RATIO * low for low, high in values) else ""


def write_findings(summary: Summary) -> Iterator[str]:
    """The answer in a few sentences: what the tests decide, and what they leave open."""
    if not any(cell.seeds for cell in summary.cells):
        yield "No run has finished yet."
        return
    yield from _conclude(
        _take_once(summary.comparisons, summary), "test error", ("a lower test error", "a higher test error")
    )
    yield from _conclude(
        _take_once(summary.stability_comparisons, summary),
        "stability",
        ("a steadier convergence", "a less steady convergence"),
    )
    yield from _count_verdicts(summary)


def _take_once(comparisons: Iterable[Comparison], summary: Summary) -> list[Comparison]:
    """Each configuration's comparison once, though several names may stand for it."""
    ids = {cell.name: cell.cell_id for cell in summary.cells}
    first: dict[str, Comparison] = {}
    for comparison in comparisons:
        first.setdefault(ids[comparison.cell], comparison)
    return list(first.values())


def _count_verdicts(summary: Summary) -> Iterator[str]:
    outcomes = [verdict.outcome for verdict in summary.verdicts if verdict.outcome in OUTCOMES]
    if outcomes:
        yield (
            f"Of {count(len(outcomes), 'claim')} of the paper that this sweep can judge on "
            f"{summary.sweep.dataset}: {count_outcomes(outcomes)}."
        )


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
                f"({change}, p {equals(comparison.p_holm)}, {count(comparison.n, 'seed')}{whatever})."
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
        yield f"In {subject}, no difference from {join([undecided[0].reference])} is shown for {names}."
