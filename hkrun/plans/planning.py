"""Compares a sweep with the store."""

from collections.abc import Iterable, Sequence

from hkrun.code_identity import Code, find_code
from hkrun.config import Cell, cell_id, teacher_id, teachers_id
from hkrun.plans.kept import load_stopped
from hkrun.plans.plans import (
    NO_SHORTCUTS,
    Pack,
    Plan,
    PlannedCell,
    PlannedTeacher,
    Shortcuts,
    count_on_axes,
    find_distinct,
    form_packs,
)
from hkrun.plans.workers import AUTO, Workers
from hkrun.records import TrainingRecord
from hkrun.spaces import NamedCell, Sweep
from hkrun.store import Store


def make_plan(
    sweep: Sweep,
    store: Store | None,
    *,
    workers: Workers = AUTO,
    shortcuts: Shortcuts = NO_SHORTCUTS,
    again: bool = False,
) -> Plan:
    """Compares a sweep with the store; every run is a pack of its own, until `Plan.in_packs` says otherwise.

    With shortcuts that `stop_early`, runs that were stopped before are left out. With `again`, what other
    code has trained counts as not done.

    Raises:
        StoreError: The store cannot be read.
    """
    cells = tuple(_plan_cell(named, sweep, store, workers) for named in sweep.cells)
    if again:
        cells = tuple(cell.anew(sweep.seeds) for cell in cells)
    packs = form_packs(cells, sweep.seeds, {})
    if shortcuts.stop_early and store is not None:
        stopped = {(run.cell_id, run.seed) for run in load_stopped(store, sweep)}
        packs = tuple(pack for pack in packs if (pack.cell_id, pack.seeds[0]) not in stopped)
    left = _left_to_search(sweep, cells, packs, shortcuts.budget) if shortcuts.search else None
    needed = list_teachers([(pack.cell, seed) for pack in packs for seed in pack.seeds], sweep.seeds)
    doubted = [(cell.cell, seed) for cell in find_distinct(cells) for seed in cell.other_code]
    return Plan(
        sweep=sweep,
        workers=workers,
        cells=cells,
        packs=packs,
        teachers=find_missing_teachers(needed, store, again=again),
        other_teachers=find_other_teachers([*needed, *list_teachers(doubted, sweep.seeds)], store),
        num_left_to_search=left,
    ).in_packs({})


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
    return min(max(0, left), count_on_axes(sweep, cells, packs))


def _plan_cell(named: NamedCell, sweep: Sweep, store: Store | None, workers: Workers) -> PlannedCell:
    cell, identity = named.cell, cell_id(named.cell, world_size=workers.world_size)
    held = {record.seed: record for record in store.records(identity)} if store is not None else {}
    records = {seed: held[seed] for seed in sweep.seeds if seed in held}
    to_run = tuple(seed for seed in sweep.seeds if seed not in records or records[seed].status == "failed")
    other_code = {
        seed: record for seed, record in records.items() if record.status != "failed" and not _is_ours(record)
    }
    return PlannedCell(
        name=named.name,
        cell=cell,
        cell_id=identity,
        records=records,
        to_run=to_run,
        other_code=other_code,
    )


def _is_ours(record: TrainingRecord) -> bool:
    """Whether this code would give the same numbers."""
    return record.code.same_numbers(find_code())


def find_missing_teachers(
    needed: Iterable[PlannedTeacher], store: Store | None, *, again: bool = False
) -> tuple[PlannedTeacher, ...]:
    """Those teachers that the store does not hold; with `again`, one of other code counts as not there."""

    def is_there(identity: str) -> bool:
        record = None if store is None else store.whole_teacher(identity)
        return record is not None and not (again and not _is_ours(record))

    return tuple(teacher for teacher in needed if not is_there(teacher.teacher_id))


def find_other_teachers(needed: Iterable[PlannedTeacher], store: Store | None) -> dict[str, Code]:
    """The code of those teachers that other code has trained, also where they diverged, by id."""
    if store is None:
        return {}
    known = {teacher.teacher_id: store.any_teacher(teacher.teacher_id) for teacher in needed}
    return {
        identity: record.code
        for identity, record in known.items()
        if record is not None and not _is_ours(record)
    }


def list_teachers(runs: Iterable[tuple[Cell, int]], seeds: Sequence[int]) -> list[PlannedTeacher]:
    """The teachers of runs, there or not, in the order of the runs that learn from them.

    Args:
        runs: Cells and seeds.
        seeds: Of the sweep.
    """
    distinct: dict[tuple[int, int], tuple[Cell, Cell]] = {}  # an id takes 0.6 ms: once per teacher
    for cell, seed in runs:
        if cell.uses_teacher:
            own = cell.with_teacher_of(seed)
            distinct.setdefault((id(cell), own.teacher.seed), (cell, own))
    needed: dict[str, PlannedTeacher] = {}
    for cell, own in distinct.values():
        identity = teacher_id(own)
        if identity not in needed:
            ordered = list(dict.fromkeys(cell.with_teacher_of(seed).teacher.seed for seed in seeds))
            place = ordered.index(own.teacher.seed)
            needed[identity] = PlannedTeacher(
                teacher_id=identity, cell=own, group=teachers_id(cell), place=place
            )
    return list(needed.values())
