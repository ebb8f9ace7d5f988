"""The first steps of a cell on students that are thrown away: whether its settings keep them on their feet.

A run of too large a step dies in one of two ways. Its loss grows beyond what is finite, or its last layer's
features are driven to zero, so that the student says the same of every image ever after. Both begin where the
curvature of the weighted loss passes the stability limit of the step, and that is often not at the start:
squeezed vectors grow until they match the teacher's, and the curvature with their square.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from hkrun.config import Cell, cell_from_values, cell_values
from hkrun.data.dataset import Dataset
from hkrun.data.encoded import StreamedDataset
from hkrun.distill import Pack, Run, Step, enter_stage, measure_sharpness, set_rates, start_run
from hkrun.distill.step import Teach
from hkrun.plans import Rehearsal, Workers, find_weight_key, save_rehearsal, stability_limit, why_alone
from hkrun.store import open_store
from hkrun.training import STUDENT_DRAWS, Batch, Context, Images, SingleProcess
from hkrun.trial.environment import reproducible
from hkrun.trial.inputs import load_sets
from hkrun.trial.run import run_task
from hkrun.trial.task import Outcome, Task, make_outcome
from hkrun.trial.teacher_answers import load_teaching
from hkrun.user_parts import check_source

STEPS = 120  # of each stage; on digits the runs at lambda_3 = 10 diverge within 32 to 60
SECONDS = 60.0  # of each stage, after which it is cut short; steps on a CPU may be slow
LOOK_EVERY = 4
# A student whose logits vary over images with less than this share of the variance that they had is dead.
DEAD_BELOW = 0.01
# Halvings of a value that does not hold.
MOST_HALVINGS = 10


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a rehearsal reads: data, the teacher, where it computes, and the seeds of its students."""

    dataset: Dataset | StreamedDataset
    images: Images
    teach: Teach | None
    device: torch.device
    seeds: Sequence[int]


@dataclass
class _Tried:
    """What became of the students of one attempt.

    Attributes:
        steps: How many they took, over both stages.
        lost: The step, over both stages, at which each was lost; None of those that hold.
        how: "diverged" or "collapsed", of the first that was lost.
        stage: In which stage that was.
        run: That student, in its state some steps before.
        batch: Its images of the step at which it was lost.
    """

    steps: int
    lost: list[int | None]
    how: str = ""
    stage: int = 0
    run: Run | None = None
    batch: Batch | None = None


def rehearse_task(task: Task, context: Context) -> list[Outcome]:
    """Rehearses the cell of a task on its seeds and keeps what came out; without seeds it trains the teacher.

    Returns:
        One outcome per seed, "finished" whatever became of the students, or that of the teacher.

    Raises:
        DataError: The data set is missing or damaged.
        StoreError: The store cannot be read or written.
        InputError: A part of the user's own is not here, or has another source.
    """
    if not task.seeds:
        return run_task(task, context)
    cell = task.cell
    for name, sha256 in cell.own_parts.items():
        check_source(name, sha256)
    with reproducible(task.threads):
        dataset, images = load_sets(cell, task)
        teach = load_teaching(cell, task)[0] if cell.uses_teacher else None
        inputs = Inputs(
            dataset=dataset, images=images, teach=teach, device=torch.device(task.device), seeds=task.seeds
        )
        rehearsal = rehearse(cell, inputs)
    save_rehearsal(open_store(task.store), task.cell_id, rehearsal)
    return [make_outcome(seed, "finished", None, 0) for seed in task.seeds]


def rehearse(cell: Cell, inputs: Inputs) -> Rehearsal:
    """Trains a few students for some steps, as the cell's runs will; of one that is lost it finds out why.

    The schedule is the cell's, a warm-up that is longer than half of the steps compressed to that. The second
    stage of two begins after the steps of the first.

    Args:
        cell: The configuration.
        inputs: Its data and its teacher.
    """
    tried = _try(cell, inputs)
    num_lost = sum(step is not None for step in tried.lost)
    if not num_lost:
        return Rehearsal(steps=tried.steps, students=len(tried.lost))
    curvature, term = _explain(tried, inputs)
    key, value = find_weight_key(cell, tried.stage, term)
    return Rehearsal(
        steps=tried.steps,
        students=len(tried.lost),
        lost=num_lost,
        how=tried.how,
        first_step=min(step for step in tried.lost if step is not None),
        stage=tried.stage,
        key=key,
        value=value,
        curvature=curvature,
        limit=stability_limit(cell, tried.stage),
        holds=_find_value_that_holds(cell, key, value, inputs),
    )


def _find_value_that_holds(cell: Cell, key: str, value: float, inputs: Inputs) -> float | None:
    """The first of half the value, a quarter and so on at which no student is lost."""
    for _ in range(MOST_HALVINGS):
        value /= 2
        milder = cell_from_values({**cell_values(cell), key: value}, declared=dict(cell.declared))
        if not any(_try(milder, inputs).lost):
            return value
    return None


def _try(cell: Cell, inputs: Inputs) -> _Tried:
    """Trains the students of one attempt."""
    seeds = inputs.seeds[:1] if why_alone(cell, workers=Workers()) else inputs.seeds
    runs = [
        start_run(cell, inputs.dataset, seed, context=SingleProcess(), device=inputs.device) for seed in seeds
    ]
    tried = _Tried(0, [None] * len(runs))
    for stage in range(len(cell.stage_epochs)):
        if stage:
            for run in runs:
                run.history = [{}] * sum(cell.stage_epochs[:stage])
                enter_stage(run, stage)
        _try_stage(cell, stage, runs, inputs, tried)
        if any(step is not None for step in tried.lost):
            break
    return tried


def _try_stage(cell: Cell, stage: int, runs: Sequence[Run], inputs: Inputs, tried: _Tried) -> None:
    pack, step, before, ended = Pack(runs), None, -1, time.perf_counter() + SECONDS
    teach = inputs.teach if cell.stage_uses_teacher(stage) else None
    reads_logits = any("logits" in term.student for term in cell.stage_terms[stage].values())
    largest = torch.zeros(len(runs), device=inputs.device)
    snapshots = [[run.state_dict() for run in runs]] * 2
    for number, (epoch, batch) in enumerate(itertools.islice(_batches(cell, stage, runs, inputs), STEPS)):
        if epoch != before:
            for run in runs:
                run.history = [{}] * (sum(cell.stage_epochs[:stage]) + epoch)
            set_rates(pack, stage, epoch)
            step, before = Step(pack, stage, teach, SingleProcess()), epoch
        assert step is not None
        pack.train()
        if number % LOOK_EVERY == 0:
            with torch.no_grad():
                variance = pack.forward(batch.images)[0].logits.var(dim=1).sum(dim=1)
            largest = torch.maximum(largest, variance.nan_to_num(0.0))
            dead = (variance < DEAD_BELOW * largest).tolist() if reads_logits else [False] * len(runs)
            snapshots = [snapshots[1], [run.state_dict() for run in runs]]
        loss = step.train(batch)["loss_total"]
        tried.steps += 1
        for member, (finite, is_dead) in enumerate(zip(loss.isfinite().tolist(), dead, strict=True)):
            if tried.lost[member] is None and (not finite or is_dead):
                tried.lost[member] = tried.steps
                if not tried.how:
                    tried.how = "collapsed" if finite else "diverged"
                    tried.stage, tried.batch = stage, batch.of_runs(slice(member, member + 1))
                    tried.run = _revive(runs[member], snapshots[0][member], inputs)
        if all(step is not None for step in tried.lost) or time.perf_counter() > ended:
            return


def _revive(run: Run, state: dict[str, object], inputs: Inputs) -> Run:
    """A run of its own in an earlier state of a member of a pack."""
    alone = start_run(run.cell, inputs.dataset, run.seed, context=SingleProcess(), device=inputs.device)
    alone.load_state_dict(state)
    return alone


def _explain(tried: _Tried, inputs: Inputs) -> tuple[float | None, str]:
    """The sharpness shortly before the first loss, and the term that most of it comes from.

    Quantised weights have no second derivative, nor have some losses: then there is no figure.
    """
    run, batch = tried.run, tried.batch
    assert run is not None
    assert batch is not None
    cell = run.cell
    pack = Pack([run])
    pack.train()
    teach = inputs.teach if cell.stage_uses_teacher(tried.stage) else None
    parameters = pack.student_optimizer.param_groups[0]["params"]
    try:
        found = measure_sharpness(
            Step(pack, tried.stage, teach, SingleProcess()),
            batch,
            parameters,
            generator=torch.Generator().manual_seed(0),
        )
    except RuntimeError:
        return None, ""
    return found.curvature + cell.student.weight_decay, max(found.shares, key=lambda name: found.shares[name])


def _batches(cell: Cell, stage: int, runs: Sequence[Run], inputs: Inputs) -> Iterator[tuple[int, Batch]]:
    """Batches, each with the epoch whose learning rate it gets."""
    number, last = 0, cell.stage_epochs[stage] - 1
    for epoch in itertools.count():
        batches = inputs.images.training.batches(
            [run.seed for run in runs],
            epoch,
            batch_size=cell.student.batch_size,
            draws=STUDENT_DRAWS,
            context=SingleProcess(),
        )
        for batch in batches:
            warm = cell.student.warmup_epochs * number // (STEPS // 2)
            yield min(max(epoch, min(warm, cell.student.warmup_epochs)), last), batch
            number += 1
