"""How long a plan will take."""

import statistics
from dataclasses import dataclass

from hkrun.config import Cell
from hkrun.plans.plans import Plan, PlannedCell, cells_on_axes
from hkrun.plans.teacher_tables import has_table
from hkrun.spaces import Sweep
from hkrun.store import Record


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How long a plan will take: seconds, or None where nothing is known; and why."""

    seconds: float | None
    basis: str


def estimate_time(plan: Plan) -> Estimate:
    """Estimates the time for a plan's teachers and packs, from recorded timings or else the recipe's."""
    sweep, cells, packs, teachers = plan.sweep, plan.cells, plan.packs, plan.teachers
    slots, group_slots, left_to_search = plan.slots, plan.group_slots, plan.num_left_to_search
    num_left = _count_runs(plan)
    if not num_left:
        return Estimate(seconds=0.0, basis="nothing to run")
    costs: dict[str, float] = {}  # seconds of one process
    widths: dict[str, int] = {}  # processes of a run
    sources: set[str] = set()
    packed = {pack.cell_id for pack in packs if len(pack.seeds) > 1}
    for cell in cells:
        if cell.cell_id not in num_left or cell.cell_id in costs:
            continue
        cost, source = _seconds_per_run(cell, sweep, packed=cell.cell_id in packed)
        if cost is None:
            return Estimate(seconds=None, basis=source)
        costs[cell.cell_id], widths[cell.cell_id] = cost, cell.workers.most or group_slots
        sources.add(source)
    durations = {identity: cost / widths[identity] for identity, cost in costs.items()}
    at_once = {
        identity: slots if width == 1 else max(1, group_slots // width) for identity, width in widths.items()
    }
    work = sum(durations[identity] * number / at_once[identity] for identity, number in num_left.items())
    # A cell whose share of a search rounds to none has no cost.
    longest = max(durations[pack.cell_id] * len(pack.seeds) for pack in packs if pack.cell_id in costs)
    seconds = max(work, longest)
    numbers = sorted(set(at_once.values()))
    notes = [*sorted(sources), f"{' or '.join(map(str, numbers))} at a time"]
    together = {width for width in widths.values() if width > 1}
    together |= {teacher.workers.most or group_slots for teacher in teachers} - {1}
    if together:
        notes.append(
            f"as if {' or '.join(map(str, sorted(together)))} workers were so many times as fast as one"
        )
    if any(pack.cell.uses_teacher and not has_table(pack.cell) for pack in packs):
        notes.append("longer where the teacher runs live")
    if left_to_search is not None:
        notes.append(f"the search makes {left_to_search} of the runs on the axes")
    untimed: list[str] = []
    for teacher in teachers:
        cost = _evidence(sweep, "seconds_per_teacher", teacher.cell, teacher.cell.teacher.epochs)
        if cost is None:
            untimed.append(teacher.teacher_id)
        width = teacher.workers.most or group_slots
        side_by_side = max(1, min(slots, len(teachers))) if width == 1 else 1
        seconds += (cost or 0.0) / (width * side_by_side)
    if len(untimed) == 1:
        notes.append(f"without training teacher {untimed[0]}, which was never timed")
    elif untimed:
        notes.append(f"without training {len(untimed)} teachers, which were never timed")
    return Estimate(seconds=round(seconds, 1), basis="; ".join(notes))


def _count_runs(plan: Plan) -> dict[str, float]:
    """How many runs of each cell are made, by cell_id."""
    num_left = dict.fromkeys((pack.cell_id for pack in plan.packs), 0.0)
    for pack in plan.packs:
        num_left[pack.cell_id] += len(pack.seeds)
    if plan.num_left_to_search is not None:  # the search has not chosen yet: each cell's share
        on_axes = cells_on_axes(plan.sweep, plan.cells).keys() & num_left.keys()
        candidates = sum(num_left[identity] for identity in on_axes)
        for identity in on_axes:
            num_left[identity] *= plan.num_left_to_search / candidates
    return {identity: number for identity, number in num_left.items() if number}


def _seconds_per_run(cell: PlannedCell, sweep: Sweep, *, packed: bool) -> tuple[float | None, str]:
    """Seconds of one process for a run, or its share of a pack's, and where they come from; or None, why."""
    timed = [
        record
        for record in cell.records.values()
        if record.status == "finished" and "total" in record.timings
    ]
    alike = [_process_seconds(record) for record in timed if (len(record.pack) > 1) == packed]
    if alike:
        return statistics.median(alike), "recorded timings of the same cell"
    recipe = sweep.recipe
    for name in ("seconds_per_packed_run", "seconds_per_run") if packed else ("seconds_per_run",):
        seconds = _evidence(sweep, name, cell.cell, sum(cell.cell.stage_epochs))
        if seconds is not None:
            return seconds, f"recipe {recipe.dataset}, {recipe.evidence[name]['label']}, scaled by epochs"
    if timed:
        seconds = statistics.median(map(_process_seconds, timed))
        return seconds, "recorded timings of the same cell, in packs of another size"
    if not _has_recipe_networks(cell.cell, recipe.cell):
        return (
            None,
            f"no finished run of {cell.name!r} is in the store, and its networks are not the recipe's",
        )
    return (
        None,
        f"no finished run of {cell.name!r} is in the store, and recipe {recipe.dataset} has no measurement",
    )


def _process_seconds(record: Record) -> float:
    """What the run took of all its processes together."""
    return record.timings["total"] * record.world_size


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
