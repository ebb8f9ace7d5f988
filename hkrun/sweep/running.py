"""A study from its plan to its report."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hkrun.errors import EXIT_DONE, EXIT_RUNS_FAILED, TrainingError
from hkrun.plans import (
    AUTO,
    LimitWarning,
    Plan,
    StoppedRun,
    Workers,
    load_executions,
    load_stopped,
    make_plan,
    record_look,
    record_look_of_before,
    save_plan,
    save_stopped,
)
from hkrun.records import Record
from hkrun.spaces import Sweep
from hkrun.stopwatch import Stopwatch
from hkrun.store import Store
from hkrun.sweep.announcing import AnnouncingObserver
from hkrun.sweep.machine import log_folder_of
from hkrun.sweep.pack_sizes import AUTO as MEASURED_PACKS
from hkrun.sweep.planning import recheck
from hkrun.sweep.progress import Phase
from hkrun.sweep.rounds import RoundsOutcome, end_rounds
from hkrun.sweep.study import Study
from hkrun.sweep.task_submission import Observer, TaskObserver, leave_out_diverged, list_tasks
from hkrun.sweep.time_accounting import TimeAccounting

if TYPE_CHECKING:
    from hkrun.cluster import TaskResult
    from hkrun.report import Summary
    from hkrun.tracking import Links, Mirror, Mirrored
    from hkrun.trial import Task

logger = logging.getLogger("hkrun")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a sweep came to.

    Attributes:
        report: Where each file of the report is, by name.
        links: Where MLflow shows it; None where MLflow could not be brought up to date.
        problems: Tasks that have no outcome, a line each.
        left_out: What a search or a scheduler left out, in a sentence; empty without.
        limits: Which cells too large a step was to lose, as far as that was known beforehand.
        exit_code: 0, or 5 where runs failed or diverged.
        rounds: What they came to, where seeds came in rounds.
    """

    summary: "Summary"
    plan: Plan
    report: Mapping[str, str]
    links: "Links | None"
    problems: tuple[str, ...]
    log_folder: Path
    left_out: str
    limits: tuple[LimitWarning, ...]
    exit_code: int
    rounds: RoundsOutcome | None = None


def run_study(study: Study, observer: Observer, stopwatch: Stopwatch | None = None) -> Outcome:
    """Runs what a study lacks, mirrors it to MLflow and writes the report. What is up to date is left alone.

    Args:
        study: What `resolve` has returned, its store made and its inputs checked.
        observer: Told how it goes.
        stopwatch: One that runs since the command began, for the account of its time; else it begins here.

    Raises:
        ResourceError: The machine is another one by now, and nothing fits. Nothing was started.
        DataError: The data set is missing or damaged. All runs are stopped, and those that are finished are
            kept; likewise for StoreError.
        StoreError: The store cannot be used, or another driver runs this sweep.
        InputError: MLFLOW_TRACKING_URI cannot be used.
        TrainingError: No teacher could be trained.
        Interrupted: The user stopped it.
    """
    from hkrun.tracking import Mirror

    sweep, store, options = study.sweep, study.opened, study.options
    stopwatch = stopwatch or Stopwatch("planning")
    mirror = Mirror(sweep, store, warn=logger.warning, world_size=options.workers.world_size)
    at_once = 1 if study.machine is None else study.machine.tasks_at_once(study.spans)
    accounting = TimeAccounting(sweep, store, slots=at_once, stopwatch=stopwatch)
    training = Training()
    limits = study.limits
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    observer = AnnouncingObserver(observer, store, folder)
    with mirror, store.hold(folder), accounting:
        if study.machine is not None and not options.shortcuts.select:
            observer.entered(Phase.MEASURING if options.pack == MEASURED_PACKS else Phase.PLANNING)
        study = recheck(study)
        until_decided = options.shortcuts.until_decided
        record_look_of_before(store, sweep)
        save_plan(
            store,
            sweep,
            workers=options.workers,
            sizes=study.plan.sizes,
            until_decided=until_decided,
        )
        accounting.enter("ray")
        if study.plan.num_to_run:
            training = _train(study, observer, mirror, accounting)
        accounting.begin_report()
        observer.entered(Phase.REPORT)
        rounds = end_rounds(study) if until_decided else None
        summary, report = _write_report(sweep, store, options.workers)
        record_look(store, sweep)
        accounting.enter("mlflow")
        observer.entered(Phase.MLFLOW)
        links = mirror.finish(summaries=_summary_metrics(summary), files=_report_files(store, sweep, report))
    summary = dataclasses.replace(summary, executions=load_executions(store, sweep))  # now to their ends
    unwell = training.problems or any(cell.failed or cell.diverged for cell in summary.cells)
    return Outcome(
        summary=summary,
        plan=study.plan,
        report=report,
        links=links,
        problems=training.problems,
        log_folder=log_folder_of(store),
        left_out=_describe_left_out(study, training) if options.shortcuts.select else "",
        rounds=rounds,
        limits=limits,
        exit_code=EXIT_RUNS_FAILED if unwell else EXIT_DONE,
    )


def train_teacher(study: Study, observer: Observer) -> None:
    """Trains the teacher of a study that `resolve_teacher` returned; see `run_study`."""
    _train(study, observer)


@dataclass(frozen=True)
class Training:
    """What came of the tasks.

    Attributes:
        problems: What has no outcome and why, a line each.
        without_outcome: The runs, by cell_id and seed, that were begun and came to nothing.
    """

    problems: tuple[str, ...] = ()
    without_outcome: frozenset[tuple[str, int]] = frozenset()


def _train(
    study: Study,
    observer: Observer,
    mirror: "Mirror | None" = None,
    accounting: TimeAccounting | None = None,
) -> Training:
    """Trains a plan's runs, each once its teacher is trained; those that use none need not wait.

    Runs that a shortcut ends early are marked in the store.
    """
    from hkrun.cluster import run_tasks

    study, known = leave_out_diverged(study)
    remains = bool(study.plan.packs or study.plan.teachers)
    if known and (study.options.fail_fast or not (remains or study.plan.num_done)):
        raise TrainingError("\n".join(known))
    if not remains:
        return Training(tuple(known))
    observer.plan_made(study.plan, slots=study.on.tasks_at_once(study.spans))
    work = list_tasks(study)
    watcher = TaskObserver(work.tasks, study, observer, mirror, accounting)
    results = run_tasks(work, watcher)
    ended = [(task, result) for task, result in zip(work.tasks, results, strict=True) if task.seeds]
    _mark_stopped(study, ended)
    for result in results:
        if error := result.common_error:
            raise error
    problems = (*known, *watcher.problems)
    if problems and not any(result.begun for _, result in ended):
        raise TrainingError("\n".join(problems))
    failed = (
        (task.cell_id, seed) for task, result in ended if result.error is not None for seed in task.seeds
    )
    return Training(problems, frozenset(failed))


def _mark_stopped(study: Study, ended: "Sequence[tuple[Task, TaskResult]]") -> None:
    stopped = [
        StoppedRun(
            cell_id=task.cell_id,
            seed=task.seeds[0],
            epoch=int(str(outcome["epochs"])),
            error_pct=outcome["error_last_pct"],  # type: ignore[arg-type]
        )
        for task, result in ended
        for outcome in result.outcomes or ()
        if outcome["status"] == "stopped"
    ]
    if stopped:
        save_stopped(study.opened, study.sweep, stopped)


def mirror_sweep(
    sweep: Sweep, store: Store, *, workers: Workers = AUTO, every: int | None = None
) -> "Mirrored":
    """Brings MLflow up to date with a sweep, from the store alone; doing it again adds nothing.

    `every`: all curves, at every so-manieth epoch; see `hkrun.tracking.sync`.

    Raises:
        StoreError: MLflow or the store cannot be reached.
    """
    from hkrun.tracking import check_listens, resolve_uri, sync

    check_listens(resolve_uri(store))  # before a report is made for a server that is away
    summaries, files, records = _renew_report(sweep, store, workers)
    return sync(
        sweep,
        store,
        summaries=summaries,
        files=files,
        records=records,
        world_size=workers.world_size,
        every=every,
    )


def _renew_report(
    sweep: Sweep, store: Store, workers: Workers
) -> tuple[dict[str, dict[str, float | None]], dict[str, bytes], dict[str, tuple[Record, ...]]]:
    """The figures of every cell for MLflow, the report's files and its records; curves, 50 MB, are let go."""
    summary, report = _write_report(sweep, store, workers)
    records = {cell.cell_id: cell.records for cell in summary.cells}
    return _summary_metrics(summary), _report_files(store, sweep, report), records


def _write_report(sweep: Sweep, store: Store, workers: Workers) -> "tuple[Summary, dict[str, str]]":
    """Reads the results and renews the report's files; see `preload_report`."""
    from hkrun.report import drawing_ahead, summarise
    from hkrun.report.documents import renew_report

    with drawing_ahead(sweep, store):
        summary = summarise(sweep, store, world_size=workers.world_size)
        return summary, renew_report(summary, store)


def _describe_left_out(study: Study, training: Training) -> str:
    """How many runs shortcuts left out; not those that failed, or whose teacher did."""
    plan = make_plan(study.sweep, study.store, workers=study.options.workers)
    untaught = {teacher.teacher_id for teacher in plan.teachers}
    with_record = {(cell.cell_id, seed) for cell in plan.cells for seed in cell.records}
    left_out = {(pack.cell_id, pack.seeds[0]) for pack in plan.packs if pack.without_teachers(untaught).seeds}
    left_out -= with_record | training.without_outcome
    if not left_out:
        return ""
    stopped = left_out & {(run.cell_id, run.seed) for run in load_stopped(study.opened, plan.sweep)}
    counts = f"Runs left out: {len(left_out)}, of which {len(stopped)} were stopped early"
    return f"{counts}; they are in no statistics."


def _summary_metrics(summary: "Summary") -> dict[str, dict[str, float | None]]:
    """What MLflow shows of a cell on its parent run."""
    return {
        cell.cell_id: {
            "error_last": cell.error_last.mean if cell.error_last else None,
            "error_best": cell.error_best.mean if cell.error_best else None,
            "stability": cell.stability.s if cell.stability else None,
            "s2": cell.pair_stability.s2 if cell.pair_stability else None,
            "mean_range": cell.stability.mean_range if cell.stability else None,
        }
        for cell in summary.cells
    }


def _report_files(store: Store, sweep: Sweep, report: Mapping[str, str]) -> dict[str, bytes]:
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    return {name: store.read(folder, name) for name in report}
