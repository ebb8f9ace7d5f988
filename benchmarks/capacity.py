"""How long a sweep takes on so many slots: a simulation of hkrun's scheduler with measured times.

A slot is what one process takes: a core, or a GPU or its share. The simulation plans the sweep as `hkrun
sweep` would for so many slots, and lets the real `Schedule` of `hkrun.cluster` decide what runs next, by a
clock that jumps from event to event. Times come from a store in which the sweep, or a part of it, has run.

    python benchmarks/capacity.py stability                    # 1, 8 and 256 slots, times of ./hkrun-store
    python benchmarks/capacity.py stability --slots 2 --check  # beside what the store's executions took
    python benchmarks/capacity.py stability --faster 20        # slots that train 20 times as fast
    python benchmarks/capacity.py tables --slots 8 --deaths-per-hour 0.1

What it leaves out: epochs of one machine that slow each other down (the times were taken with all slots of a
machine at work), a slow network or store, and tasks of several workers.
"""

import argparse
import dataclasses
import heapq
import itertools
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hkrun.cluster.trials.schedule import Schedule
from hkrun.cluster.trials.slots import Fit
from hkrun.config import teacher_id
from hkrun.plans import AUTO, Execution, Pack, PackingFacts, Plan, choose_sizes, load_executions, make_plan
from hkrun.plans.packs import STEPS
from hkrun.spaces import Sweep, load_sweep
from hkrun.store import Store, open_store
from hkrun.trial.progress import CHECKPOINT_EVERY_S

# Tune's driver starts 22 trials a second, and hands a trial to a process that is there in 0.05 s; measured
# (2026-11-20, 2 CPU cores).
TRIALS_PER_S = 22.0
REUSE_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Times:
    """What things take, in seconds.

    Attributes:
        runs: A run trained alone, by cell_id.
        teacher: One teacher.
        launch: From a slot to the first epoch where a process must start first.
        before: From the command to the first slot: planning, and Ray's start.
        after: From the last slot to the prompt: Ray's end, the report, MLflow.
        live: What of a run its teacher takes where it has no table, by cell_id: packs do not shorten it.
        steps: A seed's step in a pack of so many, in that of a seed alone.
    """

    runs: Mapping[str, float]
    teacher: float
    launch: float
    before: float
    after: float
    live: Mapping[str, float] = field(default_factory=dict)
    steps: Mapping[int, float] = field(default_factory=lambda: STEPS)


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What a sweep comes to.

    Attributes:
        wall_s: Seconds from the command to the prompt.
        busy: Share of the slots' time in which runs or teachers train.
        lost_s: Training that deaths of processes cost, in seconds of slots.
        failed: Tasks whose process died once too often.
    """

    wall_s: float
    busy: float
    lost_s: float
    failed: int


def main() -> None:
    """Prints a line for each number of slots."""
    parser = argparse.ArgumentParser(description="How long a sweep takes on so many slots.")
    parser.add_argument("sweep", help="name or file of a search space")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--dataset")
    parser.add_argument("--seeds")
    parser.add_argument("--store", type=Path, default=Path("hkrun-store"), help="where times were measured")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 8, 256])
    parser.add_argument("--faster", type=float, default=1.0, help="how many times as fast a slot trains (1)")
    parser.add_argument("--deaths-per-hour", type=float, default=0.0, help="of each slot's process (0)")
    parser.add_argument("--check", action="store_true", help="print the executions of the store too")
    options = parser.parse_args()
    sweep = load_sweep(
        options.sweep,
        dataset=options.dataset,
        seeds=options.seeds,
        epochs=None,
        overrides=options.overrides,
    )
    store = open_store(options.store, create=False)
    times = measure(sweep, store)
    if options.check:
        for execution in load_executions(store, sweep):
            print(
                f"real: {execution.slots} slots, {execution.wall_s:.0f} s, {share_busy(execution):.0%} busy"
            )
    print("slots  packs of  packs  wall clock  busy  speed-up  lost to deaths")
    alone = simulate_sweep(sweep, times, slots=1, faster=options.faster, deaths_per_hour=0.0)[1].wall_s
    for slots in options.slots:
        plan, result = simulate_sweep(
            sweep, times, slots=slots, faster=options.faster, deaths_per_hour=options.deaths_per_hour
        )
        sizes = sorted({len(pack.seeds) for pack in plan.packs})
        print(
            f"{slots:5}  {'/'.join(map(str, sizes)):>8}  {len(plan.packs):5}  {describe_s(result.wall_s):>10}"
            f"  {result.busy:4.0%}  {alone / result.wall_s:8.1f}  {describe_s(result.lost_s):>14}"
            + (f"  {result.failed} tasks failed" if result.failed else "")
        )


def measure(sweep: Sweep, store: Store) -> Times:
    """Takes the times of a sweep from a store in which each of its cells, and the sweep, has run.

    Raises:
        SystemExit: There is nothing to take them from.
    """
    plan = make_plan(sweep, store)
    runs: dict[str, float] = {}
    for cell in plan.distinct_cells:
        alone = [
            record.timings["total"] / expect_step(len(record.pack))
            for record in cell.records.values()
            if record.status == "finished"
        ]
        if not alone:
            raise SystemExit(f"{store.place}: no finished run of {cell.name!r}; run the sweep there first")
        runs[cell.cell_id] = statistics.median(alone)
    executions = [execution for execution in load_executions(store, sweep) if execution.teachers]
    if not executions:
        raise SystemExit(f"{store.place}: no execution of {sweep.name} that trained a teacher")
    last = executions[-1]
    teachers = {
        teacher_id(cell.cell.with_teacher_of(seed))
        for cell in plan.cells
        for seed in sweep.seeds
        if cell.cell.uses_teacher
    }
    return Times(
        runs=runs,
        teacher=last.teachers["epochs"] / len(teachers),
        launch=last.teachers["launch"] / len(teachers),
        before=last.phases["planning"] + last.phases["ray"],  # Ray's end, a second of it, is in "ray" too
        after=last.phases["report"] + last.phases["mlflow"],
    )


def simulate_sweep(
    sweep: Sweep, times: Times, *, slots: int, faster: float, deaths_per_hour: float
) -> tuple[Plan, Simulated]:
    """Plans a sweep as `hkrun sweep` would on so many CPUs, and simulates it from an empty store."""
    sizes = choose_sizes(sweep, PackingFacts(workers=AUTO, slots=slots, device="cpu"))
    plan = make_plan(sweep, None).in_packs(sizes, slots=slots, group_slots=slots)
    quicker = dataclasses.replace(
        times,
        runs={identity: seconds / faster for identity, seconds in times.runs.items()},
        teacher=times.teacher / faster,
    )
    return plan, simulate(plan, quicker, slots=slots, deaths_per_hour=deaths_per_hour)


def simulate(plan: Plan, times: Times, *, slots: int, deaths_per_hour: float = 0.0) -> Simulated:
    """Runs a plan's teachers and packs by the real schedule, and a clock that jumps."""
    dice = random.Random(0)
    places = {teacher.teacher_id: index for index, teacher in enumerate(plan.teachers)}
    left = [times.teacher] * len(places) + [time_pack(pack, times) for pack in plan.packs]
    needs = {
        index: [places[identity] for identity in pack.teacher_ids if identity in places]
        for index, pack in enumerate(plan.packs, start=len(places))
    }
    now = times.before
    ends: list[tuple[float, int, float, float]] = []  # when, which, trained s, of these kept s
    schedule = Schedule(
        len(left),
        needs=needs,
        fit=lambda _: Fit.NOW if len(ends) < slots else Fit.LATER,
        clock=lambda: now,
    )
    driver_free = now
    epochs = itertools.count(1)  # any number that grows: what is kept is never trained again
    idle = failed = 0
    trained_s = lost_s = 0.0
    while not schedule.finished:
        while (index := schedule.take()) is not None:
            driver_free = max(now, driver_free) + 1 / TRIALS_PER_S
            began = driver_free + (REUSE_S if idle else times.launch)
            idle = max(0, idle - 1)
            lives = dice.expovariate(deaths_per_hour / 3600) if deaths_per_hour else float("inf")
            if lives < left[index]:
                heapq.heappush(ends, (began + lives, index, lives, lives - lives % CHECKPOINT_EVERY_S))
            else:
                heapq.heappush(ends, (began + left[index], index, left[index], left[index]))
        if not ends:  # all that is left rests after a death
            now += 1.0
            continue
        now, index, spent, kept = heapq.heappop(ends)
        trained_s, lost_s = trained_s + kept, lost_s + spent - kept
        if kept > 0:
            schedule.progressed(index, next(epochs))
        left[index] -= kept
        schedule.release(index)
        if left[index] > 0:
            failed += schedule.died(index, "its process died") is not None
        else:
            schedule.returned(index, [{"status": "finished"}])
            idle += 1
    wall = now + times.after
    return Simulated(wall_s=wall, busy=trained_s / (slots * wall), lost_s=lost_s, failed=failed)


def time_pack(pack: Pack, times: Times) -> float:
    """How long a pack trains, by what a run of its cell takes alone."""
    number, live = len(pack.seeds), times.live.get(pack.cell_id, 0.0)
    return number * (live + (times.runs[pack.cell_id] - live) * expect_step(number, times.steps))


def expect_step(size: int, steps: Mapping[int, float] = STEPS) -> float:
    """A seed's step in a pack of so many, in that of a seed alone; linear between measured sizes."""
    known: Sequence[int] = sorted(steps)
    for low, high in itertools.pairwise(known):
        if size <= high:
            return steps[low] + (steps[high] - steps[low]) * (size - low) / (high - low)
    return steps[known[-1]]


def share_busy(execution: Execution) -> float:
    """The share of the slots' time in which something trained."""
    trained = execution.runs.get("epochs", 0.0) + execution.teachers.get("epochs", 0.0)
    return trained / (execution.slots * execution.wall_s)


def describe_s(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    main()
