"""Reads from the store what the cells of a sweep learned from, and what their students reach alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hkrun import config
from hkrun.config import Cell
from hkrun.errors import StoreError
from hkrun.report.summary import CellSummary, Teacher, TrainedTeacher
from hkrun.spaces import Sweep
from hkrun.store import Record, Store


def read_teachers(
    sweep: Sweep, cells: Sequence[CellSummary], store: Store, *, world_size: int
) -> tuple[Teacher, ...]:
    """The teachers of a sweep's cells, one per configuration.

    Raises:
        StoreError: Runs with one configuration had teachers of different weights.
    """
    users: dict[str, list[CellSummary]] = {}
    for cell in cells:
        if cell.cell.uses_teacher:
            users.setdefault(config.teachers_id(cell.cell), []).append(cell)
    return tuple(
        _read_teacher(identity, found, sweep, store, world_size=world_size)
        for identity, found in users.items()
    )


def _read_teacher(
    identity: str, cells: Sequence[CellSummary], sweep: Sweep, store: Store, *, world_size: int
) -> Teacher:
    cell = cells[0].cell
    several = cell.has_teachers
    ids: dict[int, str] = {}  # an id takes 0.6 ms: once per teacher
    seeds: dict[str, list[int]] = {}
    for seed in sweep.seeds:
        own = cell.with_teacher_of(seed) if several else cell
        if own.teacher.seed not in ids:
            ids[own.teacher.seed] = config.teacher_id(own)
        seeds.setdefault(ids[own.teacher.seed], []).append(seed)
    taught_by = {seed: identity for identity, taught in seeds.items() for seed in taught}
    runs: dict[str, list[Record]] = {identity: [] for identity in seeds}
    for user in cells:
        for record in user.records:
            if record.teacher_hash is not None and record.seed in taught_by:
                runs[taught_by[record.seed]].append(record)
    alone_pct, alone_source = _student_alone(cell, sweep, store, world_size=world_size)
    plateau_pct, _ = _recipe_figure(cell, sweep, "student_plateau_error_pct")
    return Teacher(
        identity=identity,
        trained=tuple(
            _read_trained(identity, taught, runs[identity], sweep, store)
            for identity, taught in seeds.items()
        ),
        students=cell.teacher.students if cell.has_teachers else 0,
        alone_pct=alone_pct,
        alone_source=alone_source,
        plateau_pct=plateau_pct,
    )


def _read_trained(
    teacher_id: str, seeds: Sequence[int], taught: Sequence[Record], sweep: Sweep, store: Store
) -> TrainedTeacher:
    """What the runs that learned from a teacher, and the store, say of it."""
    runs: dict[str | None, list[Record]] = {}
    for record in taught:
        runs.setdefault(record.teacher_hash, []).append(record)
    if len(runs) > 1:
        first = {used: store.run_folder(found[0].cell_id, found[0].seed) for used, found in runs.items()}
        parts = [
            f"{len(found)} with {str(used)[:12]} (such as {first[used]})" for used, found in runs.items()
        ]
        codes = {record.code.numbers for record in taught}
        anew = "" if len(codes) == 1 else "its command with --again makes those of other code anew; or "
        raise StoreError(
            f"{store.place}: the runs of {sweep.name!r} had teachers of different weights and cannot be "
            f"compared: {', '.join(parts)}; {anew}remove the runs of all but one, then run the sweep again"
        )
    used = next(iter(runs), None)
    trained = store.teacher(teacher_id)
    if trained is not None and used not in (None, trained.teacher_hash):
        trained = None
    return TrainedTeacher(
        teacher_id=teacher_id,
        seeds=tuple(seeds),
        hash=used or (trained.teacher_hash if trained else None),
        record=trained,
    )


def supervised(cell: Cell) -> Cell:
    """The cell whose runs train the same student without a teacher."""
    return replace(cell, method="supervised")


def _student_alone(cell: Cell, sweep: Sweep, store: Store, *, world_size: int) -> tuple[float | None, str]:
    """The test error of a cell's student trained without a teacher: from the store, else from the recipe."""
    errors = [
        record.error_last_pct
        for record in store.records(config.cell_id(supervised(cell), world_size=world_size))
        if record.status == "finished" and record.error_last_pct is not None
    ]
    if errors:
        return float(np.mean(errors)), f"mean of {len(errors)} supervised runs in the store"
    return _recipe_figure(cell, sweep, "student_alone_error_pct")


def _recipe_figure(cell: Cell, sweep: Sweep, name: str) -> tuple[float | None, str]:
    """A figure of the recipe's evidence and its label, where the cell's student is the recipe's."""
    recipe = sweep.recipe
    evidence = recipe.evidence.get(name, {})
    value = evidence.get("value")
    if isinstance(value, int | float) and (cell.student, cell.augment) == (
        recipe.cell.student,
        recipe.cell.augment,
    ):
        # "measured (when, where)" would be brackets within brackets.
        label = str(evidence.get("label")).replace(" (", ", ", 1).removesuffix(")")
        return float(value), f"{label}; recipe of {recipe.dataset}"
    return None, ""
