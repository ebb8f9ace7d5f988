"""Compares a sweep with the store."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from hkrun.config import Cell, cell_id, teacher_id
from hkrun.plan.estimate import estimate_time
from hkrun.plan.kept import load_stopped
from hkrun.plan.plans import (
    NO_SHORTCUTS,
    Pack,
    Plan,
    PlannedCell,
    PlannedTeacher,
    Shortcuts,
    count_on_axes,
)
from hkrun.plan.workers import AUTO, Workers
from hkrun.spaces import Sweep
from hkrun.store import Store


def make_plan(
    sweep: Sweep,
    store: Store | None,
    *,
    workers: Workers = AUTO,
    slots: int = 1,
    group_slots: int | None = None,
    sizes: Mapping[str, int] | None = None,
    shortcuts: Shortcuts = NO_SHORTCUTS,
    seen: Plan | None = None,
) -> Plan:
    """Compares a sweep with the store.

    Args:
        sweep: What is wanted.
        store: What is there; None where there is no store yet.
        workers: How many processes train one run together.
        slots: How many packs can run at the same time, each in a process of its own.
        group_slots: How many processes can of tasks that several do together; None for as many.
        sizes: How many runs train together, by cell_id; 1 where nothing is said.
        shortcuts: How to make fewer runs. With `stop_early`, those that were stopped before are left out.
        seen: A plan of the same sweep from a moment ago, whose records are not read again.

    Raises:
        StoreError: The store cannot be read.
    """
    cells = (
        [_plan_cell(named.name, named.cell, sweep, store, workers) for named in sweep.cells]
        if seen is None
        else list(seen.cells)
    )
    room = slots if group_slots is None else group_slots
    cells = [replace(cell, workers=workers.of_runs(cell.cell).bounded(room)) for cell in cells]
    distinct = {cell.cell_id: cell for cell in reversed(cells)}
    packs = _form_packs([cell for cell in cells if distinct[cell.cell_id] is cell], sweep.seeds, sizes or {})
    if shortcuts.stop_early and store is not None:
        stopped = {(run.cell_id, run.seed) for run in load_stopped(store, sweep)}
        packs = tuple(pack for pack in packs if (pack.cell_id, pack.seeds[0]) not in stopped)
    left = _left_to_search(sweep, cells, packs, shortcuts.budget) if shortcuts.search else None
    teachers = tuple(
        PlannedTeacher(teacher_id=identity, cell=cell, workers=workers.of_teacher(cell).bounded(room))
        for identity, cell in _missing_teachers(packs, store).items()
    )
    return Plan(
        sweep=sweep,
        cells=tuple(cells),
        packs=packs,
        teachers=teachers,
        estimate=estimate_time(
            sweep, cells, packs, teachers, slots=slots, group_slots=room, left_to_search=left
        ),
        num_left_to_search=left,
    )


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


def _form_packs(
    cells: Iterable[PlannedCell], seeds: Sequence[int], sizes: Mapping[str, int]
) -> tuple[Pack, ...]:
    """The first pack of every cell comes before the second of any.

    Which seeds go together depends on their place in the sweep alone, not on which of them are done: runs
    that were interrupted find the others of their pack again.
    """
    packs: list[tuple[int, Pack]] = []
    for cell in cells:
        size, to_run = sizes.get(cell.cell_id, 1), frozenset(cell.to_run)
        for first in range(0, len(seeds), size):
            together = tuple(seed for seed in seeds[first : first + size] if seed in to_run)
            if together:
                pack = Pack(name=cell.name, cell=cell.cell, cell_id=cell.cell_id, seeds=together)
                packs.append((first, pack))
    return tuple(pack for _, pack in sorted(packs, key=lambda placed: placed[0]))


def _missing_teachers(packs: Iterable[Pack], store: Store | None) -> dict[str, Cell]:
    """The teachers that the store does not hold, by id, with a cell that uses each."""
    users = {pack.cell_id: pack.cell for pack in packs if pack.cell.uses_teacher}
    needed: dict[str, Cell] = {}
    for cell in users.values():
        needed.setdefault(teacher_id(cell), cell)
    return {
        identity: cell
        for identity, cell in needed.items()
        if store is None or store.whole_teacher(identity) is None
    }
