"""What a sweep still has to run, given what the store holds, and what that will cost."""

import contextlib
import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hkrun.config import Cell, cell_id, teacher_id
from hkrun.errors import InputError
from hkrun.spaces import Sweep, restore_sweep, sweep_document
from hkrun.store import DamagedError, NotCommittedError, Record, Store, read_epoch

PLAN_FILE = "plan.json"
STOPPED_FILE = "stopped.json"


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """One name of the sweep and the state of its runs.

    Attributes:
        name: The name in the search space; another name may share the configuration and its runs.
        cell: The configuration.
        cell_id: Its id.
        records: The records that the store holds of the sweep's seeds, by seed.
        to_run: The seeds without a result, in the sweep's order. A failed run is run again; a diverged one is
            a result, for it would only diverge again.
    """

    name: str
    cell: Cell
    cell_id: str
    records: Mapping[int, Record]
    to_run: tuple[int, ...]

    def seeds(self, status: str) -> list[int]:
        """The seeds whose record has this status."""
        return [seed for seed, record in self.records.items() if record.status == status]

    @property
    def num_done(self) -> int:
        """How many runs have a result."""
        return len(self.seeds("finished")) + len(self.seeds("diverged"))

    @property
    def num_runs(self) -> int:
        """How many runs the sweep wants."""
        return self.num_done + len(self.to_run)


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Runs of one cell that train together in one process.

    Attributes:
        name: What the sweep calls the cell.
        cell: The configuration.
        cell_id: Its id.
        seeds: Their seeds.
    """

    name: str
    cell: Cell
    cell_id: str
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PlannedTeacher:
    """A teacher that must be trained first: its id, and one of the cells that use it."""

    teacher_id: str
    cell: Cell


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How long the plan will take: seconds, or None where nothing is known; and why."""

    seconds: float | None
    basis: str


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


NO_SHORTCUTS = Shortcuts()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is there, what remains, in which order, and for how long.

    Attributes:
        sweep: The sweep.
        cells: One per name, in the sweep's order.
        packs: What remains, seed by seed across the cells, so that early results can be compared.
        teachers: Teachers that the packs need and the store does not hold.
        estimate: Of the time for teachers and packs.
        num_left_to_search: How many of the packs on the axes a search makes, whichever it chooses; None
            without a search.
    """

    sweep: Sweep
    cells: tuple[PlannedCell, ...]
    packs: tuple[Pack, ...]
    teachers: tuple[PlannedTeacher, ...]
    estimate: Estimate
    num_left_to_search: int | None = None

    @property
    def distinct_cells(self) -> tuple[PlannedCell, ...]:
        """The cells without those that only are another name."""
        return tuple({cell.cell_id: cell for cell in reversed(self.cells)}.values())[::-1]

    @property
    def num_runs(self) -> int:
        """Runs that the sweep wants, each configuration counted once."""
        return sum(cell.num_runs for cell in self.distinct_cells)

    @property
    def num_done(self) -> int:
        """Those that have a result."""
        return sum(cell.num_done for cell in self.distinct_cells)

    @property
    def num_to_run(self) -> int:
        """Those that are made now: the packs, or as many of them as a search makes."""
        num_runs = sum(len(pack.seeds) for pack in self.packs)
        if self.num_left_to_search is None:
            return num_runs
        return num_runs - _count_on_axes(self.sweep, self.cells, self.packs) + self.num_left_to_search

    def document(self) -> dict[str, object]:
        """What `sweep --dry-run --json` prints."""
        return {
            "sweep": self.sweep.name,
            "cells": [
                {
                    "cell_id": cell.cell_id,
                    "name": cell.name,
                    "runs": cell.num_runs,
                    "done": cell.num_done,
                    "to_run": len(cell.to_run),
                }
                for cell in self.cells
            ],
            "runs": self.num_runs,
            "done": self.num_done,
            "to_run": self.num_to_run,
            "trials": self.num_to_run,
            "estimate": {"seconds": self.estimate.seconds, "basis": self.estimate.basis},
        }


def make_plan(
    sweep: Sweep,
    store: Store | None,
    *,
    workers: int = 1,
    slots: int = 1,
    shortcuts: Shortcuts = NO_SHORTCUTS,
) -> Plan:
    """Compares a sweep with the store.

    Args:
        sweep: What is wanted.
        store: What is there; None where there is no store yet.
        workers: Processes that train one run together; in the id of cells without synchronised BatchNorm.
        slots: How many packs can run at the same time.
        shortcuts: How to make fewer runs. With `stop_early`, those that were stopped before are left out.

    Raises:
        StoreError: The store cannot be read.
    """
    cells = [_plan_cell(named.name, named.cell, sweep, store, workers) for named in sweep.cells]
    distinct = {cell.cell_id: cell for cell in reversed(cells)}
    packs = _order_packs([cell for cell in cells if distinct[cell.cell_id] is cell], sweep.seeds)
    if shortcuts.stop_early and store is not None:
        stopped = {(run.cell_id, run.seed) for run in load_stopped(store, sweep)}
        packs = tuple(pack for pack in packs if (pack.cell_id, pack.seeds[0]) not in stopped)
    left = _left_to_search(sweep, cells, packs, shortcuts.budget) if shortcuts.search else None
    teachers = _missing_teachers(packs, store)
    return Plan(
        sweep=sweep,
        cells=tuple(cells),
        packs=packs,
        teachers=teachers,
        estimate=_estimate(sweep, cells, packs, teachers, slots, left),
        num_left_to_search=left,
    )


def _cells_on_axes(sweep: Sweep, cells: Iterable[PlannedCell]) -> dict[str, PlannedCell]:
    """The cells that axes vary, by id; not those that are also a cell of their own, which always run."""
    named = list(zip(sweep.cells, cells, strict=True))
    fixed = {planned.cell_id for cell, planned in named if not cell.point}
    return {
        planned.cell_id: planned for cell, planned in named if cell.point and planned.cell_id not in fixed
    }


def _count_on_axes(sweep: Sweep, cells: Iterable[PlannedCell], packs: Iterable[Pack]) -> int:
    on_axes = _cells_on_axes(sweep, cells)
    return sum(len(pack.seeds) for pack in packs if pack.cell_id in on_axes)


def _left_to_search(
    sweep: Sweep, cells: Iterable[PlannedCell], packs: Iterable[Pack], budget: int | None
) -> int:
    """How many runs a search still makes.

    Those that the store has count towards its budget, so that the same command does not go on for ever.
    """
    made = {
        planned.cell_id: planned.num_done
        for named, planned in zip(sweep.cells, cells, strict=True)
        if named.point
    }
    left = (len(made) if budget is None else budget) - sum(made.values())
    return min(max(0, left), _count_on_axes(sweep, cells, packs))


def _plan_cell(name: str, cell: Cell, sweep: Sweep, store: Store | None, workers: int) -> PlannedCell:
    identity = cell_id(cell, world_size=workers)
    held = {record.seed: record for record in store.records(identity)} if store is not None else {}
    records = {seed: held[seed] for seed in sweep.seeds if seed in held}
    to_run = tuple(seed for seed in sweep.seeds if seed not in records or records[seed].status == "failed")
    return PlannedCell(name=name, cell=cell, cell_id=identity, records=records, to_run=to_run)


def _order_packs(cells: Iterable[PlannedCell], seeds: Iterable[int]) -> tuple[Pack, ...]:
    """Packs of one seed each; the first seed of every cell comes before the second of any."""
    waiting = [(cell, frozenset(cell.to_run)) for cell in cells]
    return tuple(
        Pack(name=cell.name, cell=cell.cell, cell_id=cell.cell_id, seeds=(seed,))
        for seed in seeds
        for cell, to_run in waiting
        if seed in to_run
    )


def _missing_teachers(packs: Iterable[Pack], store: Store | None) -> tuple[PlannedTeacher, ...]:
    users = {pack.cell_id: pack.cell for pack in packs if pack.cell.uses_teacher}
    needed: dict[str, Cell] = {}
    for cell in users.values():
        needed.setdefault(teacher_id(cell), cell)
    return tuple(
        PlannedTeacher(teacher_id=identity, cell=cell)
        for identity, cell in needed.items()
        if store is None or store.whole_teacher(identity) is None
    )


# --- the estimate -------------------------------------------------------------------------------------------


def _estimate(
    sweep: Sweep,
    cells: Iterable[PlannedCell],
    packs: tuple[Pack, ...],
    teachers: tuple[PlannedTeacher, ...],
    slots: int,
    left_to_search: int | None,
) -> Estimate:
    num_left = dict.fromkeys((pack.cell_id for pack in packs), 0.0)
    for pack in packs:
        num_left[pack.cell_id] += len(pack.seeds)
    if left_to_search is not None:  # nobody knows yet which: each cell's share
        on_axes = _cells_on_axes(sweep, cells).keys() & num_left.keys()
        candidates = sum(num_left[identity] for identity in on_axes)
        for identity in on_axes:
            num_left[identity] *= left_to_search / candidates
    num_left = {identity: number for identity, number in num_left.items() if number}
    if not num_left:
        return Estimate(seconds=0.0, basis="nothing to run")
    costs: dict[str, float] = {}
    sources: set[str] = set()
    for cell in cells:
        if cell.cell_id not in num_left or cell.cell_id in costs:
            continue
        cost, source = _seconds_per_run(cell, sweep)
        if cost is None:
            return Estimate(seconds=None, basis=source)
        costs[cell.cell_id] = cost
        sources.add(source)
    work = sum(costs[identity] * number for identity, number in num_left.items())
    seconds = max(work / slots, *costs.values())
    notes = [*sorted(sources), f"{slots} at a time"]
    if left_to_search is not None:
        notes.append(f"the search makes {left_to_search} of the runs on the axes")
    for teacher in teachers:
        cost = _evidence(sweep, "seconds_per_teacher", teacher.cell, teacher.cell.teacher.epochs)
        if cost is None:
            notes.append(f"without training teacher {teacher.teacher_id}, which was never timed")
        seconds += cost or 0.0
    return Estimate(seconds=round(seconds, 1), basis="; ".join(notes))


def _seconds_per_run(cell: PlannedCell, sweep: Sweep) -> tuple[float | None, str]:
    """Seconds of one run and where they come from; None and the reason where they are unknown."""
    timed = [record.timings["total"] for record in cell.records.values() if _is_timed(record)]
    if timed:
        return statistics.median(timed), "recorded timings of the same cell"
    recipe = sweep.recipe
    seconds = _evidence(sweep, "seconds_per_run", cell.cell, sum(cell.cell.stage_epochs))
    if seconds is not None:
        return (
            seconds,
            f"recipe {recipe.dataset}, {recipe.evidence['seconds_per_run']['label']}, scaled by epochs",
        )
    if not _has_recipe_networks(cell.cell, recipe.cell):
        return (
            None,
            f"no finished run of {cell.name!r} is in the store, and its networks are not the recipe's",
        )
    return (
        None,
        f"no finished run of {cell.name!r} is in the store, and recipe {recipe.dataset} has no measurement",
    )


def _is_timed(record: Record) -> bool:
    return record.status == "finished" and "total" in record.timings


def _evidence(sweep: Sweep, name: str, cell: Cell, epochs: int) -> float | None:
    """A measured time of the recipe, scaled to the epochs; None where there is none for these networks."""
    value = sweep.recipe.evidence.get(name, {}).get("value")
    own = sweep.recipe.cell
    if not isinstance(value, int | float) or not _has_recipe_networks(cell, own):
        return None
    measured_epochs = own.teacher.epochs if name == "seconds_per_teacher" else own.student.epochs
    return float(value) * epochs / measured_epochs


def _has_recipe_networks(cell: Cell, own: Cell) -> bool:
    return cell.student.network == own.student.network and (
        not cell.uses_teacher or cell.teacher.network == own.teacher.network
    )


# --- plans in the store -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StoredPlan:
    """A sweep that was started, and the number of workers that train each of its runs."""

    sweep: Sweep
    workers: int


def save_plan(store: Store, sweep: Sweep, *, workers: int) -> None:
    """Keeps a sweep in the store, so that it can be resumed and reported without its files."""
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    document = {"sweep": sweep_document(sweep), "workers": workers}
    content = json.dumps(document, indent=1, ensure_ascii=False).encode()
    with contextlib.suppress(DamagedError, NotCommittedError):
        if store.read(folder, PLAN_FILE) == content:
            return
    store.commit(folder, {PLAN_FILE: content}, keep=store.names(folder))


def stored_plans(store: Store) -> tuple[list[StoredPlan], dict[str, str]]:
    """Every sweep that was started in the store.

    Returns:
        Those whose plan can be read, by name and data set; and why it cannot be for the other folders.

    Raises:
        StoreError: The store cannot be read.
    """
    plans: list[StoredPlan] = []
    problems: dict[str, str] = {}
    for folder in store.sweep_folders():
        try:
            if PLAN_FILE in store.names(folder):
                plans.append(_read_plan(store, folder))
        except DamagedError as error:
            problems[folder] = error.message
        except (InputError, AttributeError, KeyError, TypeError, ValueError) as error:
            reason = (
                error.problems[0] if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            )
            problems[folder] = (
                f"{store.place}/{folder}/{PLAN_FILE}: cannot be understood ({reason}): it is damaged or of "
                "another version of hkrun; the command that started the sweep writes it again, and repeats "
                "no run"
            )
    return plans, problems


def _read_plan(store: Store, folder: str) -> StoredPlan:
    document = json.loads(store.read(folder, PLAN_FILE))
    sweep = restore_sweep(document["sweep"], where=PLAN_FILE)
    return StoredPlan(sweep=sweep, workers=int(document["workers"]))


@dataclass(frozen=True, kw_only=True)
class StoppedRun:
    """A run that a scheduler ended early. It has no record, so no statistics see it; its checkpoint is kept.

    Attributes:
        cell_id: Its cell.
        seed: Its seed.
        epoch: The last epoch that it reported.
        error_pct: The test error after that epoch.
    """

    cell_id: str
    seed: int
    epoch: int
    error_pct: float | None


def save_stopped(store: Store, sweep: Sweep, stopped: Iterable[StoppedRun]) -> None:
    """Marks runs of a sweep as stopped early, beside those that are marked already."""
    marked = {(run.cell_id, run.seed): run for run in (*load_stopped(store, sweep), *stopped)}
    document = [dataclasses.asdict(run) for run in marked.values()]
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    store.commit(folder, {STOPPED_FILE: json.dumps(document, indent=1).encode()}, keep=store.names(folder))


def load_stopped(store: Store, sweep: Sweep) -> list[StoppedRun]:
    """The runs of a sweep that are marked as stopped early."""
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    if STOPPED_FILE not in store.names(folder):
        return []
    return [StoppedRun(**run) for run in json.loads(store.read(folder, STOPPED_FILE))]


def checkpoint_epoch(store: Store, identity: str, seed: int) -> int | None:
    """The epoch of a run's newest checkpoint, which is there until the run has a result; None without one."""
    names = store.names(f"{store.run_folder(identity, seed)}/checkpoints")
    return max((epoch for name in names if (epoch := read_epoch(name)) is not None), default=None)
