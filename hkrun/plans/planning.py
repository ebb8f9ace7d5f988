"""Compares a sweep with the store."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hkrun.code_identity import Code, find_code
from hkrun.config import Cell, cell_id, teacher_id, teachers_id
from hkrun.plans.kept import load_stopped
from hkrun.plans.looks import load_looks
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
from hkrun.plans.rounds import form_rounds
from hkrun.plans.workers import AUTO, Workers
from hkrun.records import TrainingRecord
from hkrun.spaces import NamedCell, Sweep
from hkrun.store import Store

OtherCode = Literal["ask", "again", "trust"]  # what becomes of results of other code


def make_plan(
    sweep: Sweep,
    store: Store | None,
    *,
    workers: Workers = AUTO,
    shortcuts: Shortcuts = NO_SHORTCUTS,
    other_code: OtherCode = "ask",
) -> Plan:
    """Compares a sweep with the store; every run is a pack of its own, until `Plan.in_packs` says otherwise.

    With shortcuts that `stop_early`, runs that were stopped before are left out; those that run
    `until_decided` leave out what is missing of cells that have ended. What other code has trained
    counts as not done with `other_code` "again"; unless it is to be trusted, what this code had trained
    before comes back in its place, where the store keeps it.

    Raises:
        StoreError: The store cannot be read.
    """
    trust, again = other_code == "trust", other_code == "again"
    cells = tuple(_plan_cell(named, sweep, store, workers, trust=trust) for named in sweep.cells)
    if again:
        cells = tuple(cell.anew(sweep.seeds) for cell in cells)
    rounds = form_rounds(sweep.seeds) if shortcuts.until_decided else ()
    decided: Mapping[str, int] = {}
    if shortcuts.until_decided and store is not None:
        known = load_looks(store, sweep).plan_of(len(sweep.seeds))
        decided = {} if known is None else known.decided
        cells = tuple(replace(cell, to_run=()) if cell.cell_id in decided else cell for cell in cells)
    packs = form_packs(cells, rounds or (sweep.seeds,), {}, sweep.recipe)
    if shortcuts.stop_early and store is not None:
        stopped = {(run.cell_id, run.seed) for run in load_stopped(store, sweep)}
        packs = tuple(pack for pack in packs if (pack.cell_id, pack.seeds[0]) not in stopped)
    left = _left_to_search(sweep, cells, packs, shortcuts.budget) if shortcuts.search else None
    needed = list_teachers([(pack.cell, seed) for pack in packs for seed in pack.seeds], sweep.seeds)
    doubted = [(cell.cell, seed) for cell in find_distinct(cells) for seed in cell.other_code]
    coming = [(cell.cell, seed) for cell in find_distinct(cells) for seed in cell.beside]
    named = [*needed, *list_teachers([*doubted, *coming], sweep.seeds)]
    teachers = find_teachers(needed, named, store, other_code=other_code)
    return Plan(
        sweep=sweep,
        workers=workers,
        cells=cells,
        packs=packs,
        teachers=teachers.missing,
        other_teachers=teachers.others,
        teachers_beside=teachers.beside,
        num_left_to_search=left,
        rounds=rounds,
        decided=decided,
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


def _plan_cell(
    named: NamedCell, sweep: Sweep, store: Store | None, workers: Workers, *, trust: bool
) -> PlannedCell:
    cell, identity = named.cell, cell_id(named.cell, world_size=workers.world_size)
    runs = None if store is None else store.cell_runs(identity)
    earlier = frozenset[int]() if runs is None else runs.with_earlier
    held = {} if runs is None else {record.seed: record for record in runs.read_records()}
    beside: list[int] = []
    for seed in filter(earlier.__contains__, sweep.seeds):
        standing = held.get(seed)
        done = standing is not None and standing.status != "failed" and (trust or _is_ours(standing))
        if store is not None and not done:
            own = store.find_earlier_run(identity, seed, find_code())
            if own is not None:
                held[seed] = own
                beside.append(seed)
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
        beside=tuple(beside),
    )


def _is_ours(record: TrainingRecord) -> bool:
    """Whether this code would give the same numbers."""
    return record.code.same_numbers(find_code())


@dataclass(frozen=True, kw_only=True)
class FoundTeachers:
    """What a store has of the teachers of a sweep.

    Attributes:
        missing: Those to train.
        others: By id, the code of those of other code, also where they diverged.
        beside: Ids of those of this code that are kept beside one of other code, or beside none.
    """

    missing: tuple[PlannedTeacher, ...]
    others: Mapping[str, Code]
    beside: tuple[str, ...]


def find_teachers(
    needed: Iterable[PlannedTeacher],
    named: Iterable[PlannedTeacher],
    store: Store | None,
    *,
    other_code: OtherCode,
) -> FoundTeachers:
    """Compares teachers with a store: those that runs to be made need, and all that the plan tells of."""
    if store is None:
        return FoundTeachers(missing=tuple(needed), others={}, beside=())
    known = {teacher.teacher_id: store.any_teacher(teacher.teacher_id) for teacher in named}
    doubted = [name for name, record in known.items() if record is None or not _is_ours(record)]
    beside = tuple(
        name
        for name in doubted
        if other_code != "trust" and store.find_earlier_teacher(name, find_code()) is not None
    )
    others = {
        name: record.code for name in doubted if name not in beside and (record := known[name]) is not None
    }

    def is_there(name: str) -> bool:
        record = store.whole_teacher(name)
        return name in beside or (record is not None and not (other_code == "again" and name in others))

    missing = tuple(teacher for teacher in needed if not is_there(teacher.teacher_id))
    return FoundTeachers(missing=missing, others=others, beside=beside)


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
