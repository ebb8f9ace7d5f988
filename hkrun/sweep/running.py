"""A sweep from its plan to its report."""

import dataclasses
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hkrun.config import teacher_id
from hkrun.errors import EXIT_DONE, EXIT_RUNS_FAILED
from hkrun.plan import (
    AUTO,
    NO_SHORTCUTS,
    Plan,
    Shortcuts,
    Workers,
    check_elastic,
    kept_sizes,
    load_executions,
    load_stopped,
    make_plan,
    save_plan,
)
from hkrun.spaces import Sweep, describe_duplicates
from hkrun.stopwatch import Stopwatch
from hkrun.store import Store, TeacherRecord
from hkrun.sweep.checks import DataCheck, check_cluster, check_data, fix_content, foresee_data
from hkrun.sweep.machine import find_machine, log_folder_of, spans_of
from hkrun.sweep.pack_sizes import check_packs, expect_sizes, find_sizes
from hkrun.sweep.task_submission import Observer, TaskSubmission
from hkrun.sweep.time_accounting import TimeAccounting

if TYPE_CHECKING:
    from hkrun.report import Summary
    from hkrun.tracking import Links

logger = logging.getLogger("hkrun")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a sweep came to.

    Attributes:
        summary: The results.
        plan: What had to run at the beginning.
        report: Where each file of the report is, by name.
        links: Where MLflow shows it; None where MLflow could not be brought up to date.
        problems: Tasks that have no outcome, a line each.
        log_folder: Where Ray's and the tasks' output is.
        left_out: What the shortcuts left out, in a sentence; empty without shortcuts.
        exit_code: 0, or 5 where runs failed or diverged.
    """

    summary: "Summary"
    plan: Plan
    report: Mapping[str, str]
    links: "Links | None"
    problems: tuple[str, ...]
    log_folder: Path
    left_out: str
    exit_code: int


def plan_sweep(
    sweep: Sweep,
    store: Store | None,
    *,
    data_dir: Path | str | None,
    workers: Workers = AUTO,
    pack: int | str | None = None,
    shortcuts: Shortcuts | None = None,
    dry: bool = True,
) -> Plan:
    """Plans a sweep on this machine, or on the cluster that RAY_ADDRESS names.

    Nothing is written or fetched: with `pack` "auto", sizes are what was measured before. What `run_sweep`
    refuses before it starts is refused here, but for what only shows when it is done: a download, what the
    nodes of a cluster see, the store's lock. A warning names cells that differ in nothing but keys without an
    effect.

    Args:
        sweep: What is wanted.
        store: What it has is not run again; None where there is none yet.
        data_dir: Where data sets lie that are not embedded.
        workers: How many processes train one run together.
        pack: How many runs train together; see `hkrun.sweep.pack_sizes.find_sizes`. With shortcuts, one.
        shortcuts: How to make fewer runs, if so.
        dry: Whether that is all. Else `run_sweep` follows, and its checks of the data are left to it.

    Raises:
        ResourceError: A run or a teacher does not fit, or not so many together.
        InputError: The number of workers may not follow what there is; a batch is larger than the data set,
            or smaller than the number of workers; a network or a teacher's file of the user's own cannot be
            used; or MLFLOW_TRACKING_URI cannot.
        DataError: The data set cannot be read, and is none that is fetched.
        StoreError: The store cannot be read.
    """
    from hkrun.tracking import given_uri

    check_elastic(workers, {named.name: named.cell for named in sweep.cells})
    sweep = fix_content(sweep, data_dir)
    for line in describe_duplicates(sweep):
        logger.warning("%s", line)
    given_uri()  # refuses one that cannot be used
    shortcuts = shortcuts or NO_SHORTCUTS
    plan = make_plan(sweep, store, workers=workers, shortcuts=shortcuts)
    if not plan.num_to_run:
        # No need to wait for PyTorch and Ray, who know the machine.
        return dataclasses.replace(plan, sizes=kept_sizes(store, sweep) if store is not None else {})
    machine = find_machine(store, per_gpu=workers.per_gpu)
    machine.check(spans_of(sweep, workers))
    data = foresee_data(sweep, data_dir=data_dir, workers=workers) if dry else DataCheck()
    sizes: Mapping[str, int] = {}
    notes: tuple[str, ...] = ()
    if shortcuts == NO_SHORTCUTS:
        check_packs(sweep, pack=pack, workers=workers, machine=machine, side=data.side)
        sizes, notes = expect_sizes(sweep, store, pack=pack, workers=workers, machine=machine)
    plan = make_plan(
        sweep,
        store,
        workers=workers,
        slots=machine.slots,
        group_slots=machine.group_slots,
        sizes=sizes,
        shortcuts=shortcuts,
        seen=plan,
    )
    return dataclasses.replace(plan, sizes=sizes, notes=notes)


def run_sweep(
    sweep: Sweep,
    store: Store,
    *,
    data_dir: Path | str | None,
    workers: Workers = AUTO,
    fail_fast: bool,
    observer: Observer,
    pack: int | str | None = None,
    shortcuts: Shortcuts | None = None,
    data: DataCheck | None = None,
    stopwatch: Stopwatch | None = None,
) -> Outcome:
    """Runs what a sweep lacks, mirrors it to MLflow and writes the report. What is up to date is left alone.

    Args:
        sweep: What is wanted.
        store: Where records go; what it has is not run again.
        data_dir: Where data sets lie that are not embedded.
        workers: How many processes train one run together.
        fail_fast: Whether the first failed run stops the others.
        observer: Who is told how it goes.
        pack: How many runs train together; see `hkrun.sweep.pack_sizes.find_sizes`. With shortcuts, one.
        shortcuts: How to make fewer runs, if so.
        data: What `check_data` returned, where it and `check_cluster` were called.
        stopwatch: One that runs since the command began, for the account of its time; else it begins here.

    Raises:
        ResourceError: A run or a teacher does not fit, or not so many together. Nothing was started or
            written, as with the next two.
        DataError: The data set is missing or damaged. If that shows only in training, all runs are stopped,
            and those that are finished are kept; likewise for StoreError.
        InputError: A batch is larger than the data set, or smaller than the number of workers; that number
            may not follow what there is; or MLFLOW_TRACKING_URI cannot be used.
        StoreError: The store cannot be used, or another driver runs this sweep.
        TrainingError: No teacher could be trained.
        Interrupted: The user stopped it.
    """
    from hkrun.tracking import Mirror

    stopwatch = stopwatch or Stopwatch("planning")
    check_elastic(workers, {named.name: named.cell for named in sweep.cells})
    sweep = fix_content(sweep, data_dir)
    shortcuts = shortcuts or NO_SHORTCUTS
    log_folder = log_folder_of(store)
    mirror = Mirror(sweep, store, warn=logger.warning, world_size=workers.world_size)
    machine, at_once = None, 1
    to_run = make_plan(sweep, store, workers=workers, shortcuts=shortcuts).num_to_run
    if to_run:
        machine = find_machine(store, per_gpu=workers.per_gpu)
        machine.check(spans_of(sweep, workers))
        at_once = machine.tasks_at_once(spans_of(sweep, workers))
        if data is None:
            check_cluster(sweep, store_uri=store.uri, data_dir=data_dir)
            data = check_data(sweep, data_dir=data_dir, workers=workers)
        if shortcuts == NO_SHORTCUTS:
            check_packs(sweep, pack=pack, workers=workers, machine=machine, side=data.side)
    account = TimeAccounting(sweep, store, slots=at_once, stopwatch=stopwatch)
    with mirror, store.hold(store.sweep_folder(sweep.name, sweep.dataset)), account:
        sizes = dict(kept_sizes(store, sweep))
        if machine is not None and shortcuts == NO_SHORTCUTS:
            observer.entered("Planning")
            sizes = find_sizes(sweep, store, pack=pack, workers=workers, machine=machine, data_dir=data_dir)
        plan = make_plan(
            sweep,
            store,
            workers=workers,
            slots=machine.slots if machine is not None else 1,
            group_slots=machine.group_slots if machine is not None else 1,
            sizes=sizes if shortcuts == NO_SHORTCUTS else None,
            shortcuts=shortcuts,
        )
        if plan.num_to_run:
            observer.plan_made(plan, slots=at_once)
        save_plan(store, sweep, workers=workers, sizes=sizes)
        submission = TaskSubmission(
            store,
            data_dir=data_dir,
            workers=workers,
            machine=machine,
            fail_fast=fail_fast,
            observer=observer,
            account=account,
        )
        account.enter("ray")
        problems = submission.train(plan, mirror, shortcuts) if plan.num_to_run else []
        account.save()
        account.enter("report")
        observer.entered("Writing the report")
        summary, report = _write_report(sweep, store, workers)
        account.enter("mlflow")
        observer.entered("Bringing MLflow up to date")
        links = mirror.finish(summaries=_summary_metrics(summary), files=_report_files(store, sweep, report))
    summary = dataclasses.replace(summary, executions=load_executions(store, sweep))  # now to their ends
    unwell = problems or any(cell.failed or cell.diverged for cell in summary.cells)
    return Outcome(
        summary=summary,
        plan=plan,
        report=report,
        links=links,
        problems=tuple(problems),
        log_folder=log_folder,
        left_out=_describe_left_out(
            make_plan(sweep, store, workers=workers), store, failed=submission.without_outcome
        )
        if shortcuts != NO_SHORTCUTS
        else "",
        exit_code=EXIT_RUNS_FAILED if unwell else EXIT_DONE,
    )


def train_teacher(
    sweep: Sweep,
    store: Store,
    *,
    data_dir: Path | str | None,
    workers: Workers = AUTO,
    observer: Observer,
    data: DataCheck | None = None,
) -> TeacherRecord:
    """Trains the teacher of a sweep's first cell, unless the store has it; see `run_sweep`.

    Raises:
        ResourceError: It does not fit.
        DataError: The data set is missing or damaged.
        InputError: A batch is larger than it, or has no image for some worker.
        StoreError: The store cannot be used.
        TrainingError: It failed or diverged.
        Interrupted: The user stopped it.
    """
    cell = fix_content(sweep, data_dir).cells[0].cell
    identity = teacher_id(cell)
    if store.whole_teacher(identity) is None:
        if data is None:
            check_cluster(sweep, store_uri=store.uri, data_dir=data_dir)
            check_data(sweep, data_dir=data_dir, workers=workers)
        machine = find_machine(store, per_gpu=workers.per_gpu)
        machine.check([workers.of_teacher(cell)])
        submission = TaskSubmission(
            store, data_dir=data_dir, workers=workers, machine=machine, fail_fast=True, observer=observer
        )
        submission.train_teacher(identity, cell)
    record = store.teacher(identity)
    assert record is not None, "a task that ended well leaves its record"
    return record


def mirror_sweep(sweep: Sweep, store: Store, *, workers: Workers = AUTO) -> "Links":
    """Brings MLflow up to date with a sweep, from the store alone; doing it again adds nothing.

    Raises:
        StoreError: MLflow or the store cannot be reached.
    """
    from hkrun.tracking import sync

    summary, report = _write_report(sweep, store, workers)
    return sync(
        sweep,
        store,
        summaries=_summary_metrics(summary),
        files=_report_files(store, sweep, report),
        world_size=workers.world_size,
    )


def _write_report(sweep: Sweep, store: Store, workers: Workers) -> "tuple[Summary, dict[str, str]]":
    """Reads the results and renews the report's files; see `preload_report`."""
    from hkrun.report import summarise
    from hkrun.report.renewal import renew_report

    summary = summarise(sweep, store, world_size=workers.world_size)
    return summary, renew_report(summary, store)


def _describe_left_out(plan: Plan, store: Store, *, failed: Collection[tuple[str, int]]) -> str:
    """How many runs shortcuts left out; not those that failed, or whose teacher did.

    Args:
        plan: What remains.
        store: Knows which runs were stopped early.
        failed: Runs that failed without a record, by cell_id and seed.
    """
    untaught = {teacher.teacher_id for teacher in plan.teachers}
    with_record = {(cell.cell_id, seed) for cell in plan.cells for seed in cell.records}
    left_out = {
        (pack.cell_id, pack.seeds[0])
        for pack in plan.packs
        if not (pack.cell.uses_teacher and teacher_id(pack.cell) in untaught)
    }
    left_out -= with_record.union(failed)
    if not left_out:
        return ""
    stopped = left_out & {(run.cell_id, run.seed) for run in load_stopped(store, plan.sweep)}
    counts = f"Runs left out: {len(left_out)}, of which {len(stopped)} were stopped early"
    return f"{counts}; they are in no statistics."


def _summary_metrics(summary: "Summary") -> dict[str, dict[str, float | None]]:
    """What MLflow shows of a cell on its parent run."""
    return {
        cell.cell_id: {
            "error_last": cell.error_last.mean if cell.error_last else None,
            "error_best": cell.error_best.mean if cell.error_best else None,
            "stability": cell.stability.s if cell.stability else None,
            "mean_range": cell.stability.mean_range if cell.stability else None,
        }
        for cell in summary.cells
    }


def _report_files(store: Store, sweep: Sweep, report: Mapping[str, str]) -> dict[str, bytes]:
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    return {name: store.read(folder, name) for name in report}
