"""How long a plan will take."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from hkrun.config import Cell
from hkrun.datasets import find_dataset
from hkrun.plans.packs import expect_step
from hkrun.plans.plans import Pack, Plan, PlannedCell, PlannedTeacher, cells_on_axes
from hkrun.plans.teacher_tables import has_table
from hkrun.processor import processor_name
from hkrun.spaces import Sweep
from hkrun.store import Record

# A training step passes an image forwards, and backwards at twice the cost.
_STEP_IN_PASSES = 3


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How long a plan will take.

    Attributes:
        seconds: All of it, with what comes on top of training; None where nothing is known.
        basis: Where that comes from, in words; or why it is not known.
        startup_seconds: What comes on top: Ray's start, the first processes, teacher tables, the report and
            MLflow.
    """

    seconds: float | None
    basis: str
    startup_seconds: float = 0.0

    @property
    def training_seconds(self) -> float | None:
        """The teachers and the runs alone."""
        return None if self.seconds is None else round(self.seconds - self.startup_seconds, 1)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a plan's tasks take by the clock, each while it has its processes.

    Attributes:
        run_s: Seconds of an epoch of a run, or its share of a pack's, by cell_id; None where nothing is
            known.
        teacher_s: Seconds of an epoch of a teacher, by teacher_id; likewise.
        table_s: Seconds to fill the tables that are to be filled before the runs, by all slots together.
        sources: Where those of the runs are from, by cell_id; or why there is none.
        widths: How many processes train a run together, by cell_id.
    """

    run_s: Mapping[str, float | None]
    teacher_s: Mapping[str, float | None]
    table_s: float
    sources: Mapping[str, str]
    widths: Mapping[str, int]


def estimate_costs(plan: Plan) -> Costs:
    """What is known of a plan's tasks before they run, from recorded timings or else the recipe's."""
    packed = {pack.cell_id for pack in plan.packs if len(pack.seeds) > 1}
    planned = {pack.cell_id for pack in plan.packs}
    run_s: dict[str, float | None] = {}
    sources: dict[str, str] = {}
    widths: dict[str, int] = {}
    for cell in plan.distinct_cells:
        if cell.cell_id in planned:
            seconds, sources[cell.cell_id] = _seconds_per_run(
                cell, plan.sweep, packed=cell.cell_id in packed, scale=_scale_to_rounds(plan, cell.cell_id)
            )
            widths[cell.cell_id] = cell.workers.most or plan.group_slots
            processes_epochs = widths[cell.cell_id] * sum(cell.cell.stage_epochs)
            run_s[cell.cell_id] = None if seconds is None else seconds / processes_epochs
    return Costs(
        run_s=run_s,
        teacher_s={teacher.teacher_id: _teacher_epoch_s(plan, teacher) for teacher in plan.teachers},
        table_s=sum(_table_seconds(plan)),
        sources=sources,
        widths=widths,
    )


def estimate_time(plan: Plan) -> Estimate:
    """Estimates the time for a plan: its teachers, its packs, and what comes on top of training.

    What runs have in their checkpoints is not counted.
    """
    num_left = _count_runs(plan)
    if not num_left:
        return Estimate(seconds=0.0, basis="nothing to run")
    costs = estimate_costs(plan)
    durations: dict[str, float] = {}  # of a run, or its share of a pack
    for pack in plan.packs:
        seconds = costs.run_s[pack.cell_id]
        if pack.cell_id in num_left:
            if seconds is None:
                return Estimate(seconds=None, basis=costs.sources[pack.cell_id])
            durations[pack.cell_id] = seconds * sum(pack.cell.stage_epochs)
    at_once = {
        identity: plan.slots if width == 1 else max(1, plan.group_slots // width)
        for identity, width in costs.widths.items()
        if identity in num_left
    }
    work = sum(durations[identity] * number / at_once[identity] for identity, number in num_left.items())
    # Packs of a cell that come one after the other: each round waits for the one before. A cell whose share
    # of a search rounds to none has no cost.
    longest: dict[tuple[str, int], float] = {}
    for pack in plan.packs:
        if pack.cell_id in durations:
            place = (pack.cell_id, pack.round)
            longest[place] = max(longest.get(place, 0.0), durations[pack.cell_id] * _runs_left(plan, pack))
    chains = dict.fromkeys(durations, 0.0)
    for (identity, _), takes in longest.items():
        chains[identity] += takes
    seconds = max(work, *chains.values()) + _teachers_seconds(plan, costs)
    startup = plan.startup.seconds + costs.table_s
    return Estimate(
        seconds=round(seconds + startup, 1),
        startup_seconds=round(startup, 1),
        basis="; ".join(_explain(plan, costs, at_once)),
    )


def _explain(plan: Plan, costs: Costs, at_once: Mapping[str, int]) -> Iterator[str]:
    """What the estimate stands on, in short."""
    yield from sorted({costs.sources[identity] for identity in at_once})
    yield f"{' or '.join(map(str, sorted(set(at_once.values()))))} at a time"
    together = {costs.widths[identity] for identity in at_once if costs.widths[identity] > 1}
    together |= {teacher.workers.most or plan.group_slots for teacher in plan.teachers} - {1}
    if together:
        yield f"as if {' or '.join(map(str, sorted(together)))} workers were so many times as fast as one"
    if any(pack.cell.uses_teacher and not has_table(pack.cell) for pack in plan.packs):
        yield "longer where the teacher runs live"
    if plan.num_left_to_search is not None:
        yield f"the search makes {plan.num_left_to_search} of the runs on the axes"
    untimed = [identity for identity, seconds in costs.teacher_s.items() if seconds is None]
    if len(untimed) == 1:
        yield f"without training teacher {untimed[0]}, which was never timed"
    elif untimed:
        yield f"without training {len(untimed)} teachers, which were never timed"
    if plan.reached:
        yield "without the epochs that checkpoints have"


def _teachers_seconds(plan: Plan, costs: Costs) -> float:
    """Seconds for the teachers, as many side by side as there is room for."""
    seconds = 0.0
    for teacher in plan.teachers:
        alone = (teacher.workers.most or plan.group_slots) == 1
        side_by_side = max(1, min(plan.slots, len(plan.teachers))) if alone else 1
        seconds += (costs.teacher_s[teacher.teacher_id] or 0.0) * teacher.cell.teacher.epochs / side_by_side
    return seconds


def _count_runs(plan: Plan) -> dict[str, float]:
    """How many runs of each cell are made, by cell_id; of one that has a checkpoint, what is left of it."""
    num_left = dict.fromkeys((pack.cell_id for pack in plan.packs), 0.0)
    for pack in plan.packs:
        num_left[pack.cell_id] += _runs_left(plan, pack)
    if plan.num_left_to_search is not None:  # the search has not chosen yet: each cell's share
        on_axes = cells_on_axes(plan.sweep, plan.cells).keys() & num_left.keys()
        candidates = sum(num_left[identity] for identity in on_axes)
        for identity in on_axes:
            num_left[identity] *= plan.num_left_to_search / candidates
    return {identity: number for identity, number in num_left.items() if number}


def _runs_left(plan: Plan, pack: Pack) -> float:
    """A pack's runs, each counted by the share of its epochs that is left."""
    epochs = sum(pack.cell.stage_epochs)
    reached = sum(min(epochs, plan.reached.get((pack.cell_id, seed), 0)) for seed in pack.seeds)
    return len(pack.seeds) - reached / epochs


def _scale_to_rounds(plan: Plan, identity: str) -> Callable[[int], float]:
    """What a run of a cell takes in the small packs of its rounds, by that in a pack of so many."""
    if not plan.rounds:
        return lambda _: 1.0
    recipe = plan.sweep.recipe
    sizes = [len(pack.seeds) for pack in plan.packs if pack.cell_id == identity]
    step = sum(size * expect_step(size, recipe) for size in sizes) / sum(sizes)
    return lambda measured: step / expect_step(measured, recipe)


def _seconds_per_run(
    cell: PlannedCell, sweep: Sweep, *, packed: bool, scale: Callable[[int], float]
) -> tuple[float | None, str]:
    """Seconds of one process for a run, or its share of a pack's, and where they come from; or None, why."""

    def take(records: Iterable[Record]) -> float:
        return statistics.median(
            record.timings["total"] * record.world_size * scale(max(1, len(record.pack)))
            for record in records
        )

    timed = [
        record
        for record in cell.records.values()
        if record.status == "finished" and "total" in record.timings
    ]
    alike = [record for record in timed if (len(record.pack) > 1) == packed]
    if alike:
        here = processor_name()  # where runs of this machine are among them, those count
        alike = [record for record in alike if record.processor in ("", here)] or alike
        return take(alike), "recorded timings of the same cell"
    recipe = sweep.recipe
    for name in ("seconds_per_packed_run", "seconds_per_run") if packed else ("seconds_per_run",):
        seconds = _evidence(sweep, name, cell.cell, sum(cell.cell.stage_epochs))
        if seconds is not None:
            told = f"recipe {recipe.dataset}, {recipe.evidence[name]['label']}, scaled by epochs"
            size = recipe.evidence.get("pack_cpu", {}).get("value") if name != "seconds_per_run" else 1
            return seconds * scale(size if isinstance(size, int) else 1), told
    if timed:
        return take(timed), "recorded timings of the same cell, in packs of another size"
    if not _has_recipe_networks(cell.cell, recipe.cell):
        return (
            None,
            f"no finished run of {cell.name!r} is in the store, and its networks are not the recipe's",
        )
    return (
        None,
        f"no finished run of {cell.name!r} is in the store, and recipe {recipe.dataset} has no measurement",
    )


def _teacher_epoch_s(plan: Plan, teacher: PlannedTeacher) -> float | None:
    """Seconds of an epoch of a teacher, by all its processes together; None where it was never timed."""
    epochs = teacher.cell.teacher.epochs
    cost = _evidence(plan.sweep, "seconds_per_teacher", teacher.cell, epochs)
    return None if cost is None else cost / epochs / (teacher.workers.most or plan.group_slots)


def _table_seconds(plan: Plan) -> Iterator[float]:
    """Seconds for each table that is filled ahead of the runs: one whose teacher is there is taken for whole.

    By the time of the teacher's epoch: an image that it learns from takes three passes, one of the test set
    or of the table takes one.
    """
    training = {teacher.teacher_id: teacher for teacher in plan.teachers}
    for table in plan.tables:
        teacher = training.get(table.teacher_id)
        if teacher is None or table.mode != "ahead":
            continue
        data = find_dataset(plan.sweep.dataset)
        epoch_s = _teacher_epoch_s(plan, teacher)
        if epoch_s is not None and data.num_train is not None and data.num_test is not None:
            passes = _STEP_IN_PASSES * data.num_train + data.num_test
            yield epoch_s * data.num_train * table.num_views / passes / plan.slots


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
