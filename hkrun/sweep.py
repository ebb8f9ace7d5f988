"""One sweep from plan to report: the one place that brings plan, cluster, tracking and report together."""

import dataclasses
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hkrun.config import Cell, teacher_id
from hkrun.errors import EXIT_DONE, EXIT_RUNS_FAILED, InputError, TrainingError
from hkrun.parts import check_source, is_own
from hkrun.plan import Plan, StoppedRun, leave_out_stopped, make_plan, save_plan, save_stopped
from hkrun.report import Summary, summarise
from hkrun.report.renewal import renew_report
from hkrun.spaces import Sweep, with_content
from hkrun.store import Store, TeacherRecord

if TYPE_CHECKING:
    from hkrun.cluster import TaskResult
    from hkrun.data import Dataset, StreamedDataset
    from hkrun.tracking import Links, Mirror
    from hkrun.trial import Task

logger = logging.getLogger("hkrun")

# One thread per process, whatever the machine: as many runs as cores use them better than threads would, and
# the number of threads decides the last bits of a result.
THREADS = 1


class Observer(Protocol):
    """Who watches a sweep; called in the driver, one call at a time."""

    def plan_made(self, plan: Plan, *, slots: int) -> None:
        """What will run, and how many tasks at a time."""

    def entered(self, stage: str) -> None:
        """What happens from now on, in words."""

    def started(self, task: "Task") -> None:
        """A task has got its process."""

    def progressed(self, task: "Task", progress: Mapping[str, object]) -> None:
        """A task is this far: seed, epoch, epochs, error_pct."""

    def ended(self, task: "Task", outcomes: Sequence[Mapping[str, object]]) -> None:
        """A task is over; its outcomes are those of `hkrun.trial.run_task`."""

    def failed(self, task: "Task", message: str) -> None:
        """A task has no outcome, and why."""


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

    summary: Summary
    plan: Plan
    report: Mapping[str, str]
    links: "Links | None"
    problems: tuple[str, ...]
    log_folder: Path
    left_out: str
    exit_code: int


@dataclass(frozen=True, kw_only=True)
class Shortcuts:
    """Ways to make fewer runs than a search space with axes has. The others can be made later.

    Attributes:
        search: Whether Optuna chooses the runs, instead of all.
        budget: With `search`: how many runs there are to be on the axes; None for one per point.
        stop_early: Whether ASHA ends runs that fall behind.
    """

    search: bool = False
    budget: int | None = None
    stop_early: bool = False


def plan_sweep(sweep: Sweep, store: Store | None, *, data_dir: Path | str | None, workers: int) -> Plan:
    """Plans a sweep on this machine, or on the cluster that RAY_ADDRESS names. Nothing is written.

    Raises:
        ResourceError: Not one run fits.
        DataError: The content of a `folder` data set cannot be read.
        StoreError: The store cannot be read.
    """
    sweep = _fix_content(sweep, data_dir)
    plan = make_plan(sweep, store, workers=workers)
    if not plan.packs:
        return plan  # and no need to wait for PyTorch and Ray, who know the machine
    return make_plan(sweep, store, workers=workers, slots=_find_slots(workers, _log_folder(store)))


def run_sweep(
    sweep: Sweep,
    store: Store,
    *,
    data_dir: Path | str | None,
    workers: int,
    fail_fast: bool,
    observer: Observer,
    shortcuts: Shortcuts | None = None,
) -> Outcome:
    """Runs what a sweep lacks, mirrors it to MLflow and writes the report. What is up to date is left alone.

    Args:
        sweep: What is wanted.
        store: Where records go; what it has is not run again.
        data_dir: Where data sets lie that are not embedded.
        workers: Processes that train one run together.
        fail_fast: Whether the first failed run stops the others.
        observer: Who is told how it goes.
        shortcuts: How to make fewer runs, if so.

    Raises:
        ResourceError: Not one run fits. Nothing was started or written, as with the next two.
        DataError: The data set is missing or damaged.
        InputError: A batch is larger than the data set, or smaller than the number of workers; or
            MLFLOW_TRACKING_URI cannot be used.
        StoreError: The store cannot be used, or another driver runs this sweep.
        TrainingError: No teacher could be trained.
        Interrupted: The user stopped it.
    """
    from hkrun.tracking import Mirror

    sweep = _fix_content(sweep, data_dir)
    log_folder = _log_folder(store)
    mirror = Mirror(sweep, store, warn=logger.warning, world_size=workers)
    slots = 1
    if make_plan(sweep, store, workers=workers).packs:
        slots = _find_slots(workers, log_folder)
        check_data(sweep, data_dir=data_dir, workers=workers)
    with store.hold(store.sweep_folder(sweep.name, sweep.dataset)):
        plan = make_plan(sweep, store, workers=workers, slots=slots)
        if shortcuts is not None and shortcuts.stop_early:
            plan = leave_out_stopped(plan, store)
        if plan.packs:
            observer.plan_made(plan, slots=slots)
        save_plan(store, sweep, workers=workers)
        crew = _Crew(store, data_dir=data_dir, workers=workers, fail_fast=fail_fast, observer=observer)
        problems = crew.train(plan, mirror, shortcuts or Shortcuts()) if plan.packs else []
        observer.entered("Writing the report")
        summary = summarise(sweep, store, world_size=workers)
        report = renew_report(summary, store)
        observer.entered("Bringing MLflow up to date")
        links = mirror.finish(summaries=_summary_metrics(summary), files=_report_files(store, sweep, report))
    unwell = problems or any(cell.failed or cell.diverged for cell in summary.cells)
    return Outcome(
        summary=summary,
        plan=plan,
        report=report,
        links=links,
        problems=tuple(problems),
        log_folder=log_folder,
        left_out=_describe_left_out(sweep, store, workers) if shortcuts is not None else "",
        exit_code=EXIT_RUNS_FAILED if unwell else EXIT_DONE,
    )


def train_teacher(
    sweep: Sweep, store: Store, *, data_dir: Path | str | None, workers: int, observer: Observer
) -> TeacherRecord:
    """Trains the teacher of a sweep's first cell, unless the store has it.

    Raises:
        ResourceError: It does not fit.
        DataError: The data set is missing or damaged.
        InputError: A batch is larger than it, or has no image for some worker.
        StoreError: The store cannot be used.
        TrainingError: It failed or diverged.
        Interrupted: The user stopped it.
    """
    cell = _fix_content(sweep, data_dir).cells[0].cell
    identity = teacher_id(cell)
    if store.whole_teacher(identity) is None:
        check_data(sweep, data_dir=data_dir, workers=workers)
        crew = _Crew(store, data_dir=data_dir, workers=workers, fail_fast=True, observer=observer)
        crew.train_teacher(identity, cell)
    record = store.teacher(identity)
    assert record is not None, "a task that ended well leaves its record"
    return record


def check_data(sweep: Sweep, *, data_dir: Path | str | None, workers: int) -> None:
    """Finds or fetches a sweep's data set, before anything is written and many processes ask for it at once.

    Networks of the user's own are tried on it, and files of teachers' weights loaded.

    Raises:
        DataError: It is missing or damaged.
        InputError: A batch is larger than it, or has no image for some worker; an own network does not do
            what it must; a `teacher.file` does not fit its network.
    """
    from hkrun.data import load_dataset

    dataset = load_dataset(sweep.dataset, data_dir=data_dir)
    cells = [named.cell for named in sweep.cells]
    _try_own_networks(cells, dataset)
    _try_teacher_files(cells, dataset)
    num_images = len(dataset.train)
    sizes = {("student.batch_size", cell.student.batch_size) for cell in cells}
    sizes |= {("teacher.batch_size", cell.teacher.batch_size) for cell in cells if cell.uses_teacher}
    problems = [
        f"{key}: {size} does not fit: allowed are {workers} (one image per worker) "
        f"to {num_images} (the training images of {sweep.dataset})"
        for key, size in sorted(sizes)
        if not workers <= size <= num_images
    ]
    if problems:
        raise InputError("\n".join(problems))


class _Crew:
    """Sends tasks to the cluster, and tells observer and mirror what becomes of them."""

    def __init__(
        self,
        store: Store,
        *,
        data_dir: Path | str | None,
        workers: int,
        fail_fast: bool,
        observer: Observer,
    ) -> None:
        self._store, self._data_dir, self._workers = store, data_dir, workers
        self._fail_fast, self._observer = fail_fast, observer
        self._log_folder = _log_folder(store)

    def train(self, plan: Plan, mirror: "Mirror", shortcuts: Shortcuts) -> list[str]:
        """Trains a plan's runs, each once its teacher is trained; those that use none need not wait.

        Runs that a shortcut ends early are marked in the store.

        Returns:
            What has no outcome and why, a line each.

        Raises:
            TrainingError: Every run needs a teacher that could not be trained.
        """
        plan, known = _leave_out_diverged(plan, self._store)
        if not plan.packs or (known and self._fail_fast):
            raise TrainingError("\n".join(known))
        teachers = [self._task(teacher.cell, teacher.teacher_id, ()) for teacher in plan.teachers]
        runs = [self._task(pack.cell, pack.cell_id, pack.seeds) for pack in plan.packs]
        places = {task.cell_id: index for index, task in enumerate(teachers)}
        needs = {
            index: places[teacher_id(task.cell)]
            for index, task in enumerate(runs, start=len(teachers))
            if task.cell.uses_teacher and teacher_id(task.cell) in places
        }
        options: dict[str, Any] = {}
        if shortcuts.search:
            from hkrun.cluster import make_search

            options["search"] = make_search(plan, first_run=len(teachers), budget=shortcuts.budget)
        if shortcuts.stop_early:
            from hkrun.cluster import EarlyStopping

            compared = frozenset(range(len(teachers), len(teachers) + len(runs)))
            epochs = max(sum(task.cell.stage_epochs) for task in runs)
            options["early_stopping"] = EarlyStopping(compared, epochs=epochs)
        results, problems = self._run([*teachers, *runs], mirror=mirror, needs=needs, **options)
        self._mark_stopped(plan, runs, results[len(teachers) :])
        if problems and not any(result.begun for result in results[len(teachers) :]):
            raise TrainingError("\n".join([*known, *problems]))
        return [*known, *problems]

    def _mark_stopped(self, plan: Plan, runs: "Sequence[Task]", results: "Sequence[TaskResult]") -> None:
        stopped = [
            StoppedRun(
                cell_id=task.cell_id,
                seed=task.seeds[0],
                epoch=int(str(outcome["epochs"])),
                error_pct=outcome["error_last_pct"],  # type: ignore[arg-type]
            )
            for task, result in zip(runs, results, strict=True)
            for outcome in result.outcomes or ()
            if outcome["status"] == "stopped"
        ]
        if stopped:
            save_stopped(self._store, plan.sweep, stopped)

    def train_teacher(self, identity: str, cell: Cell) -> None:
        """Trains one teacher.

        Raises:
            TrainingError: It failed or diverged.
        """
        if known := _describe_divergence(self._store, identity):
            raise TrainingError(known)
        _, problems = self._run([self._task(cell, identity, ())], mirror=None, needs={})
        if problems:
            raise TrainingError("\n".join(problems))

    def _task(self, cell: Cell, identity: str, seeds: tuple[int, ...]) -> "Task":
        from hkrun.trial import Task

        return Task(
            cell=cell,
            cell_id=identity,
            seeds=seeds,
            store=self._store.uri,
            data_dir=_absolute(self._data_dir),
            threads=THREADS,
            device=_find_device(),
            world_size=self._workers,
        )

    def _run(
        self, tasks: "Sequence[Task]", *, mirror: "Mirror | None", needs: Mapping[int, int], **options: Any
    ) -> "tuple[list[TaskResult], list[str]]":
        from hkrun.cluster import run_tasks

        watch = _Watch(tasks, self._observer, mirror, self._store)
        results = run_tasks(
            tasks,
            workers=self._workers,
            observer=watch,
            fail_fast=self._fail_fast,
            log_folder=self._log_folder,
            needs=needs,
            **options,
        )
        return results, watch.problems


class _Watch:
    """Translates task numbers for the sweep's observer, and passes finished runs on to MLflow."""

    def __init__(
        self, tasks: "Sequence[Task]", observer: Observer, mirror: "Mirror | None", store: Store
    ) -> None:
        self._tasks, self._observer, self._mirror, self._store = tasks, observer, mirror, store
        self._teachers_left = sum(not task.seeds for task in tasks)
        self.problems: list[str] = []
        self._enter_stage()

    def started(self, index: int) -> None:
        self._observer.started(self._tasks[index])

    def progress(self, index: int, progress: Mapping[str, object]) -> None:
        self._observer.progressed(self._tasks[index], progress)

    def done(self, index: int, outcomes: Sequence[Mapping[str, object]]) -> None:
        task = self._tasks[index]
        if not task.seeds:
            if divergence := _describe_divergence(self._store, task.cell_id):
                self.problems.append(divergence)
        elif self._mirror is not None:
            for outcome in outcomes:
                if outcome["status"] != "stopped":  # which has no record
                    self._mirror.run_done(task.cell_id, int(str(outcome["seed"])))
        self._observer.ended(task, outcomes)
        self._teacher_over(task)

    def failed(self, index: int, message: str) -> None:
        task = self._tasks[index]
        self.problems.append(f"{task.name}: {message}")
        self._observer.failed(task, message)
        self._teacher_over(task)

    def _teacher_over(self, task: "Task") -> None:
        if not task.seeds:
            self._teachers_left -= 1
            if not self._teachers_left:
                self._enter_stage()

    def _enter_stage(self) -> None:
        what = {0: "Training", 1: "Training the teacher"}.get(self._teachers_left, "Training the teachers")
        self._observer.entered(what)


def _describe_left_out(sweep: Sweep, store: Store, workers: int) -> str:
    plan = make_plan(sweep, store, workers=workers)
    num_stopped = plan.num_to_run - leave_out_stopped(plan, store).num_to_run
    if not plan.num_to_run:
        return ""
    counts = f"Runs left out: {plan.num_to_run}, of which {num_stopped} were stopped early"
    return f"{counts}; they are in no statistics."


def _absolute(data_dir: Path | str | None) -> str | None:
    """The place of the data as every process names it: an absolute path, or a URI."""
    return str(data_dir.absolute()) if isinstance(data_dir, Path) else data_dir


def _leave_out_diverged(plan: Plan, store: Store) -> tuple[Plan, list[str]]:
    """The plan without teachers that are known to diverge and what needs them; a line for each of those."""
    told = {
        teacher.teacher_id: line
        for teacher in plan.teachers
        if (line := _describe_divergence(store, teacher.teacher_id))
    }
    teachers = [teacher for teacher in plan.teachers if teacher.teacher_id not in told]
    packs = [pack for pack in plan.packs if not (pack.cell.uses_teacher and teacher_id(pack.cell) in told)]
    return dataclasses.replace(plan, teachers=tuple(teachers), packs=tuple(packs)), list(told.values())


def _describe_divergence(store: Store, identity: str) -> str:
    """What is known of a teacher that diverged, and what to do about it; empty where none did."""
    teacher = store.diverged_teacher(identity)
    if teacher is None:
        return ""
    return (
        f"teacher {identity} diverged ({teacher.message}), so no run can learn from it; "
        "try a lower teacher.learning_rate or more teacher.warmup_epochs"
    )


def _fix_content(sweep: Sweep, data_dir: Path | str | None) -> Sweep:
    """Makes the content of a data set that has no published sum part of every cell."""
    if sweep.dataset not in ("folder", "imagenet") or sweep.recipe.cell.dataset_sha256:
        return sweep
    from hkrun.data import fingerprint

    return with_content(sweep, fingerprint(sweep.dataset, data_dir))


def _try_own_networks(cells: Sequence[Cell], dataset: "Dataset | StreamedDataset") -> None:
    """Builds every network of the user's own and runs it, before anything trains.

    Raises:
        InputError: One of them does not do what it must, or its source is another one by now.
    """
    for name, sha256 in sorted({part for cell in cells for part in cell.own_parts.items()}):
        check_source(name, sha256)
    networks = {(cell.student.network, cell.augment.size) for cell in cells}
    networks |= {(cell.teacher.network, cell.augment.size) for cell in cells if cell.uses_teacher}
    for name, side in sorted(networks):
        if is_own(name):
            from hkrun.models.own import try_own

            try_own(name, num_classes=dataset.num_classes, image_shape=dataset.image_shape(side))


def _try_teacher_files(cells: Sequence[Cell], dataset: "Dataset | StreamedDataset") -> None:
    """Loads every `teacher.file`, before anything starts.

    Raises:
        InputError: It holds no weights of its network.
    """
    with_file = {teacher_id(cell): cell for cell in cells if cell.uses_teacher and cell.teacher.file}
    for cell in with_file.values():
        import torch

        from hkrun.teacher import start_teacher
        from hkrun.training import Alone

        start_teacher(cell, dataset, context=Alone(), device=torch.device("cpu"))


def _find_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _find_slots(workers: int, log_folder: Path) -> int:
    from hkrun.cluster import Request, find_slots

    return find_slots(Request(workers=workers, threads=THREADS, device=_find_device()), log_folder=log_folder)


def _log_folder(store: Store | None) -> Path:
    """Logs are files of this machine: beside the records where those are too."""
    if store is not None and store.local_path is not None:
        return store.local_path / "logs"
    return Path(tempfile.gettempdir()) / "hkrun-logs"


def _summary_metrics(summary: Summary) -> dict[str, dict[str, float | None]]:
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


def mirror_sweep(sweep: Sweep, store: Store, *, workers: int) -> "Links":
    """Brings MLflow up to date with a sweep, from the store alone; doing it again adds nothing.

    Raises:
        StoreError: MLflow or the store cannot be reached.
    """
    from hkrun.tracking import sync

    summary = summarise(sweep, store, world_size=workers)
    report = renew_report(summary, store)
    return sync(
        sweep,
        store,
        summaries=_summary_metrics(summary),
        files=_report_files(store, sweep, report),
        world_size=workers,
    )
