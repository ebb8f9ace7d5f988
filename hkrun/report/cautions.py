"""What a reader must know of a study before believing its numbers, in sentences."""

import re
import statistics
from collections.abc import Iterable, Iterator

from hkrun import stats
from hkrun.config import teachers_id
from hkrun.counting import list_names, name_seeds
from hkrun.plans import find_weight_key, stability_limit
from hkrun.report.comparing import drop_epochs, write_window
from hkrun.report.open_comparisons import find_seeds_lacking
from hkrun.report.summary import CellSummary, Summary, Teacher
from hkrun.report.wording import MOST_NAMES, count, digits, equals, join

# Above this error on its own training images, a teacher is taken not to have converged.
UNCONVERGED_PCT = 10.0


def write_warnings(summary: Summary) -> Iterator[str]:
    """What a reader must know before believing the numbers."""
    yield from _warn_of_looks(summary)
    for cell in summary.cells:
        yield from _warn_of_runs(cell, len(summary.sweep.seeds))
    yield from _warn_of_divergence(summary.cells)
    for teacher in summary.teachers:
        yield from _warn_of_teacher(teacher, several=len(summary.teachers) > 1)
        yield from _warn_of_students(teacher, summary.cells)
    if len(summary.teachers) > 1:
        yield (
            f"The cells were distilled from {len(summary.teachers)} teachers of different configurations: "
            "the differences between cells hold the teachers' too."
        )
    yield from _warn_of_seeds(summary)
    yield from _warn_of_margin(summary)
    yield from _warn_of_stability(summary)
    yield from _warn_of_ratios(summary)


def _warn_of_looks(summary: Summary) -> Iterator[str]:
    """Says that p allows for looks of which nothing is known."""
    if summary.monitoring.lost:
        yield (
            f"At how many seeds this study was looked at is not known: {summary.monitoring.lost}. Its p and "
            "intervals of comparisons allow for a look after every seed from the sixth on; a copy of the "
            "study's folder from before brings the looks back that were."
        )


def _warn_of_seeds(summary: Summary) -> Iterator[str]:
    """Says where no difference could be significant, however large."""
    lacking = find_seeds_lacking(summary)
    if lacking is not None:
        most, tests, needed = lacking
        yield (
            f"With {count(most, 'seed')} no difference in error can be significant, however large, after "
            f"Holm's correction over {count(tests, 'comparison')}: a permutation test needs {needed} seeds."
        )


def _warn_of_margin(summary: Summary) -> Iterator[str]:
    """Says where the seeds are too few to show errors that are all equal along its axes to be so."""
    points = (point.comparison for scan in summary.scans for point in scan.points)
    tests = {comparison.test: comparison for comparison in points if comparison is not None}
    spreads = [
        statistics.stdev(comparison.by_seed) for comparison in tests.values() if not comparison.reservation
    ]
    sd = statistics.median(spreads) if spreads else 0.0
    if sd == 0:
        return
    most = max(comparison.n for comparison in tests.values())
    margin, shown = summary.sweep.margin, sd * stats.detectable_margin(most, tests=len(tests))
    if shown > margin:
        needed = stats.pairs_for_equivalence(0.0, sd, margin=margin, tests=len(tests))
        that_takes = "more seeds than anyone makes" if needed is None else f"{needed:,} seeds"
        yield (
            f"{count(most, 'seed')} are too few for the margin of {margin:g} pp: were all errors equal, "
            f"{100 * stats.POWER:.0f} % of such studies would show it within {shown:.2f} pp, and within the "
            f"margin with {that_takes} (sd of paired differences {sd:.2f})."
        )


def _warn_of_runs(cell: CellSummary, num_seeds: int) -> Iterator[str]:
    parts = [
        f"{count(len(numbers), 'run')} {what} ({name_seeds(numbers)})"
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
        figures = (
            f"its figures are those of the {len(cell.seeds)} of {num_seeds} runs that finished"
            f"{selected if cell.lost else '.'}"
            if cell.seeds
            else "none finished, so it has no figures."
        )
        yield f"{cell.label}: {', '.join(parts)}; {figures}"
    if cell.selection:
        yield (
            f"{cell.label}: selected on test error: {count(len(cell.stopped), 'run')} of {cell.label} "
            f"{'was' if len(cell.stopped) == 1 else 'were'} stopped early ({name_seeds(cell.stopped)}). The "
            "mean of the others is likely too low, so there is no interval, test, S or verdict of them; the "
            "sweep without --scheduler makes the runs that are missing."
        )
    alarms: dict[str, list[tuple[int, str]]] = {}
    for record in cell.records:
        for alarm in record.alarms:
            alarms.setdefault(re.sub(r"\d+(\.\d+)?", "#", alarm), []).append((record.seed, alarm))
    for found in alarms.values():
        more = "" if len(found) == 1 else f" (seed {found[0][0]})"
        yield f"{cell.label}, {name_seeds([seed for seed, _ in found])}: {found[0][1]}{more}."


def _warn_of_divergence(cells: Iterable[CellSummary]) -> Iterator[str]:
    """Says why runs diverged and which keys to lower, once for all cells of which the same holds."""
    groups: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if cell.diverged:
            weighed = [
                find_weight_key(cell.cell, stage, name)[0]
                for stage, weights in enumerate(cell.cell.stage_weights)
                for name, weight in weights.items()
                if weight > 1
            ]
            keys = dict.fromkeys([*weighed, "student.learning_rate"])
            limit = min(stability_limit(cell.cell, stage) for stage in range(len(cell.cell.stage_epochs)))
            groups.setdefault((f"{limit:.3g}", " or ".join(keys)), []).append(cell.label)
    for (limit_text, keys_text), names in groups.items():
        yield (
            f"{join(names)}: the weighted loss became steeper than the step bears, a curvature of "
            f"{limit_text}. Lower {keys_text}; --check in place of the runs finds a value that holds."
        )


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
        cell.label
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
        names = [cell.label for cell in summary.cells if cell.undefined == reason]
        yield f"S is undefined for {join(names)}: {reason}."
    ranked = [cell for cell in summary.cells if cell.stability]
    by_number: dict[int, list[str]] = {}
    for cell in ranked:
        by_number.setdefault(len(cell.seeds), []).append(cell.label)
    if len(by_number) > 1:
        examples = ", ".join(f"{number} for {join(names)}" for number, names in by_number.items())
        yield (
            "Do not compare the S of the table with each other: they are of different numbers of runs "
            f"({examples}), and the range grows with that number. The tests compare S on the seeds that both "
            "cells finished."
        )
    windows = {write_window(cell.cell, summary.sweep.window): cell.label for cell in reversed(ranked)}
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
            obstacles.setdefault(comparison.obstacle, []).append(summary.label(comparison.cell))
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
        reference = summary.label(summary.sweep.reference or "")
        why = "; ".join(reasons)
        yield f"S cannot be ranked against that of {reference}. {why}.{_explain_ranking(summary)}"


def _warn_of_ratios(summary: Summary) -> Iterator[str]:
    """Says how far a verdict on S2 or on a standard deviation over seeds holds that few runs gave."""
    for ratios, doubt in (
        (summary.s2_ratios, stats.S2_OF_FEW),
        (summary.deviation_ratios, stats.DEVIATION_OF_FEW),
    ):
        few = [ratio for ratio in ratios if ratio.significant and ratio.n < stats.FEW_RUNS]
        if few:
            names = join([summary.label(ratio.cell) for ratio in few])
            yield f"{names}: {doubt}."


def _warn_of_drops(cells: Iterable[CellSummary], window: int) -> Iterator[str]:
    """Names the cells within whose window the learning rate drops."""
    names: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for cell in cells:
        student = cell.cell.student
        # A drop before the first epoch of the window leaves all of the window at the lower rate.
        within = tuple(epoch for epoch in drop_epochs(cell.cell) if epoch > student.epochs - window)
        if within:
            names.setdefault((student.epochs, within), []).append(cell.label)
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
    """What would make S more precise where these runs cannot rank it, and what S2 says of the same cells."""
    undecided = {
        comparison.cell
        for comparison in summary.stability_comparisons
        if comparison.obstacle and not comparison.reservation
    }
    made_of = sorted(
        {cell.stability.extreme_runs for cell in summary.cells if cell.name in undecided and cell.stability}
    )
    if not made_of:
        return ""
    few = str(made_of[0]) if len(made_of) == 1 else f"{made_of[0]} to {made_of[-1]}"
    apart = [ratio for ratio in summary.s2_ratios if ratio.cell in undecided and ratio.steadiness]
    found = [
        f"shows {summary.label(ratio.cell)} to be {ratio.steadiness} ({digits(ratio.ratio or 0.0)} times, "
        f"p {equals(ratio.p_holm)})"
        for ratio in apart
    ]
    if len(found) > MOST_NAMES:
        found = [f"tells {len(found)} cells apart from it"]
    return (
        f" S is made of the {few} runs that are ever the best or the worst: more seeds do not make it more "
        "precise, a longer window does. S2, which is of all pairs of runs, "
        f"{list_names(found) if found else 'tells none of these cells apart from it'}."
    )
