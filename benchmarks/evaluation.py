"""How long the paper's whole evaluation takes on 1 to 256 GPUs: plan and schedule of hkrun, on paper.

Tables 1 to 5 (`tables`) and then the baselines (`baselines`) on CIFAR-10, twenty seeds, 600 epochs; CIFAR-100
takes as long again. What both have in common is trained once. Packs are chosen, and tasks given to GPUs, by
the code that does it in a sweep; only the clock is `capacity.py`'s. None of it was run on several GPUs.

    python benchmarks/evaluation.py                    # 1, 8, 16, 32, 64, 128 and 256 GPUs
    python benchmarks/evaluation.py --slots 4 12       # others
    python benchmarks/evaluation.py --together         # as if one command had both

A step of HKSANC takes what an H200 took (benchmarks/gpu_h200.md, float32, CUDA graphs), alone and in packs.
Other cells, the teacher's pass and its training step are taken to be in the same proportion to that as on a
CPU, where 32x32 is arithmetic: processor time of one thread, medians of 5; measured (2026-11-30, 2 cores of
an AMD EPYC).
"""

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from capacity import Times, simulate, time_pack

from hkrun.config import Cell, cell_id
from hkrun.plans import AUTO, Pack, PackingFacts, Plan, choose_sizes, make_plan
from hkrun.plans.teacher_tables import has_table
from hkrun.spaces import Sweep, load_sweep

DATASET, STUDIES = "cifar10", ("tables", "baselines")
SLOTS = (1, 8, 16, 32, 64, 128, 256)

# Milliseconds of a seed's step of HKSANC, by how many train together; measured (2026-11-29, NVIDIA H200).
STEP_MS = {1: 5.0446, 2: 4.1977, 4: 3.4086, 8: 2.2671, 16: 1.9608, 20: 2.0240, 32: 1.9006, 64: 1.8476}
STEPS_OF_EPOCH = 50_000 // 64
# Seconds of a processor for a step at 32x32, see above; cells that are not named lie between 0.25 and 0.30.
HKSANC_S, TEACHER_PASS_S, TEACHER_STEP_S = 0.275, 0.699, 2.33
OTHERS_S = {"vid": 0.327, "fsp": 0.396, "nst": 0.316}  # by the form of the knowledge
# Ray, processes, report and MLflow, generously: of hours they are nothing.
START_S = 10.0


class Study(NamedTuple):
    """A sweep as it is planned for so many slots, without what earlier ones have trained."""

    plan: Plan
    times: Times


class Row(NamedTuple):
    """What it comes to.

    Attributes:
        sizes: How many runs train together, over all cells.
        wall_s: Seconds from the first command to the last prompt.
        busy: Share of the GPUs' time in which something trains.
        least_s: What no schedule can go below: the work, in the best packs, on all GPUs at once; or a teacher
            and then the longest run that learns from it, alone.
    """

    sizes: Sequence[int]
    wall_s: float
    busy: float
    least_s: float


def main() -> None:
    """Prints a row for each number of GPUs."""
    parser = argparse.ArgumentParser(description="How long the paper's evaluation takes on so many GPUs.")
    parser.add_argument("--slots", type=int, nargs="+", default=SLOTS)
    parser.add_argument("--together", action="store_true", help="tables and baselines in one schedule")
    options = parser.parse_args()
    print("| GPUs | packs of | hours | at least | busy |\n|---|---|---|---|---|")
    for slots in options.slots:
        row = evaluate(slots, together=options.together)
        sizes = " ".join(map(str, row.sizes))
        hours = f"{row.wall_s / 3600:.1f} | {row.least_s / 3600:.1f}"
        print(f"| {slots} | {sizes} | {hours} | {row.busy:.0%} |", flush=True)


def evaluate(slots: int, *, together: bool = False) -> Row:
    """Plans and simulates all studies, one after the other or as one, from an empty store."""
    studies = list(plan_studies(slots))
    if together:
        studies = [merge(studies)]
    results = [simulate(study.plan, study.times, slots=slots) for study in studies]
    wall_s = sum(result.wall_s for result in results)
    trained_s = sum(result.busy * slots * result.wall_s for result in results)
    return Row(
        sizes=sorted({len(pack.seeds) for study in studies for pack in study.plan.packs}),
        wall_s=wall_s,
        busy=trained_s / (slots * wall_s),
        least_s=sum(find_least(study, slots) for study in studies),
    )


def plan_studies(slots: int) -> Iterator[Study]:
    """The studies in their order, each without the runs and teachers of those before."""
    done: set[str] = set()
    for name in STUDIES:
        sweep = load_sweep(name, dataset=DATASET, seeds=None, epochs=None, overrides=[])
        sizes = choose_sizes(sweep, PackingFacts(workers=AUTO, slots=slots, device="cuda"))
        plan = make_plan(sweep, None).in_packs(sizes, slots=slots, group_slots=slots)
        packs = tuple(pack for pack in plan.packs if pack.cell_id not in done)
        teachers = tuple(teacher for teacher in plan.teachers if teacher.teacher_id not in done)
        done |= {pack.cell_id for pack in packs} | {teacher.teacher_id for teacher in teachers}
        yield Study(dataclasses.replace(plan, packs=packs, teachers=teachers), estimate_times(sweep))


def merge(studies: Sequence[Study]) -> Study:
    """As if they were one: teachers first, then the packs of all."""
    plans = [study.plan for study in studies]
    packs = tuple(pack for plan in plans for pack in plan.packs)
    teachers = tuple(teacher for plan in plans for teacher in plan.teachers)
    runs = {identity: time for study in studies for identity, time in study.times.runs.items()}
    live = {identity: time for study in studies for identity, time in study.times.live.items()}
    times = dataclasses.replace(studies[0].times, runs=runs, live=live)
    return Study(dataclasses.replace(plans[0], packs=packs, teachers=teachers), times)


def estimate_times(sweep: Sweep) -> Times:
    """What everything takes on an H200."""
    cells = {cell_id(named.cell, world_size=1): named.cell for named in sweep.cells}
    own = {
        identity: sum(cell.stage_epochs) * OTHERS_S.get(cell.knowledge.form, HKSANC_S)
        for identity, cell in cells.items()
    }
    live = {identity: count_live_epochs(cell) * TEACHER_PASS_S for identity, cell in cells.items()}
    epochs = sweep.recipe.cell.teacher.epochs
    return Times(
        runs={identity: on_gpu_s(own[identity] + live[identity]) for identity in cells},
        live={identity: on_gpu_s(seconds) for identity, seconds in live.items()},
        teacher=on_gpu_s(epochs * TEACHER_STEP_S),
        launch=START_S,
        before=START_S,
        after=START_S,
        steps={size: ms / STEP_MS[1] for size, ms in STEP_MS.items()},
    )


def count_live_epochs(cell: Cell) -> int:
    """Epochs in which the teacher runs at every step."""
    if has_table(cell):
        return 0
    return sum(number for stage, number in enumerate(cell.stage_epochs) if cell.stage_uses_teacher(stage))


def on_gpu_s(cpu_s: float) -> float:
    """Seconds of a GPU for what takes so many of a processor in each of an epoch's steps."""
    return cpu_s / HKSANC_S * STEP_MS[1] / 1e3 * STEPS_OF_EPOCH


def find_least(study: Study, slots: int) -> float:
    """See `Row`."""
    runs: Mapping[str, Pack] = {pack.cell_id: pack for pack in study.plan.packs}
    alone = {identity: dataclasses.replace(pack, seeds=pack.seeds[:1]) for identity, pack in runs.items()}
    best = min(study.times.steps.values())
    work_s = study.times.teacher * len(study.plan.teachers)
    for pack in study.plan.packs:
        live = study.times.live[pack.cell_id]
        work_s += len(pack.seeds) * (live + best * (study.times.runs[pack.cell_id] - live))
    trained = {teacher.teacher_id for teacher in study.plan.teachers}
    chains_s = [
        time_pack(pack, study.times) + (study.times.teacher if trained & set(pack.teacher_ids) else 0.0)
        for pack in alone.values()
    ]
    return study.times.before + max(work_s / slots, *chains_s) + study.times.after


if __name__ == "__main__":
    main()
