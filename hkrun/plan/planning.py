"""Compares a sweep with the store."""

from collections.abc import Iterable, Sequence

from hkrun.config import Cell, cell_id, teacher_id, teachers_id
from hkrun.plan.kept import load_stopped
from hkrun.plan.plans import (
    NO_SHORTCUTS,
    Pack,
    Plan,
    PlannedCell,
    PlannedTeacher,
    Shortcuts,
    count_on_axes,
    form_packs,
)
from hkrun.plan.workers import AUTO, Workers
from hkrun.spaces import Sweep
from hkrun.store import Store


def make_plan(
    sweep: Sweep,
    store: Store | None,
    *,
    workers: Workers = AUTO,
    shortcuts: Shortcuts = NO_SHORTCUTS,
) -> Plan:
    """Compares a sweep with the store; every run is a pack of its own, until `Plan.in_packs` says otherwise.

    With shortcuts that `stop_early`, runs that were stopped before are left out.

    Raises:
        StoreError: The store cannot be read.
    """
    cells = tuple(_plan_cell(named.name, named.cell, sweep, store, workers) for named in sweep.cells)
    packs = form_packs(cells, sweep.seeds, {})
    if shortcuts.stop_early and store is not None:
        stopped = {(run.cell_id, run.seed) for run in load_stopped(store, sweep)}
        packs = tuple(pack for pack in packs if (pack.cell_id, pack.seeds[0]) not in stopped)
    left = _left_to_search(sweep, cells, packs, shortcuts.budget) if shortcuts.search else None
    return Plan(
        sweep=sweep,
        workers=workers,
        cells=cells,
        packs=packs,
        teachers=find_missing_teachers(
            [(pack.cell, seed) for pack in packs for seed in pack.seeds], sweep.seeds, store
        ),
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


def _plan_cell(name: str, cell: Cell, sweep: Sweep, store: Store | None, workers: Workers) -> PlannedCell:
    identity = cell_id(cell, world_size=workers.world_size)
    held = {record.seed: record for record in store.records(identity)} if store is not None else {}
    records = {seed: held[seed] for seed in sweep.seeds if seed in held}
    to_run = tuple(seed for seed in sweep.seeds if seed not in records or records[seed].status == "failed")
    return PlannedCell(name=name, cell=cell, cell_id=identity, records=records, to_run=to_run)


def find_missing_teachers(
    runs: Iterable[tuple[Cell, int]], seeds: Sequence[int], store: Store | None
) -> tuple[PlannedTeacher, ...]:
    """The teachers that the store does not hold, in the order of the runs that learn from them.

    Args:
        runs: Cells and seeds.
        seeds: Of the sweep.
        store: What is there; None where there is no store yet.
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
    return tuple(
        teacher
        for identity, teacher in needed.items()
        if store is None or store.whole_teacher(identity) is None
    )
