"""Data-parallel training: two workers are one worker whose batches are split.

In exact arithmetic the two are equal: BatchNorm takes its statistics over both halves, each worker's mean
loss is weighted with its share, and the gradients are summed. What differs is the order of the sums. One
step of this network changes its result by a few hundred roundings, eps = 1.1e-16 relative each; a few steps
at a rate of 0.1 amplify a difference by less than 1e4 (a test below disturbs the start and checks that). So
1e-9 holds with room to spare, and a worker that used its own statistics, or counted a gradient twice, would
be off by 1e-3 or more (a test below).
"""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hkrun.data import Dataset
from hkrun.distill import Run, distill, start_run
from hkrun.teacher import TeacherRun, freeze, start_teacher, train_teacher
from hkrun.training import Alone
from loop.conftest import CPU, ask, make_sets, tiny_cell

TOLERANCE = 1e-9


def train_teacher_and_student(
    dataset: Dataset, context: Alone, *, nudge: float = 0.0, **values: object
) -> tuple[TeacherRun, Run]:
    """Both stages on a tiny cell, everything in float64."""
    cell = tiny_cell(**{"student__batch_size": 15, "teacher__batch_size": 15, **values})
    sets = make_sets(cell, dataset)
    teacher = start_teacher(cell, dataset, context=context, device=CPU)
    train_teacher(teacher, cell, context=context, on_epoch=lambda _: None, **sets)  # type: ignore[arg-type]
    run = start_run(cell, dataset, 0, context=context, device=CPU)
    with torch.no_grad():
        for parameter in run.student.parameters():
            parameter *= 1 + nudge
    distill(
        [run],
        teach=ask(freeze(teacher.network)),
        context=context,
        on_epoch=lambda _: None,
        **sets,  # type: ignore[arg-type]
    )
    return teacher, run


def work(
    rank: int, port: int, world_size: int, dataset: Dataset, folder: str, values: dict[str, object]
) -> None:
    """One worker; the first two keep what they came to."""
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    teacher, run = train_teacher_and_student(dataset, Alone(rank, world_size), **values)
    state = {"teacher": teacher.state_dict(), "run": run.state_dict()}
    torch.save(state, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def train_with_workers(
    dataset: Dataset, folder: Path, world_size: int, **values: object
) -> list[dict[str, dict[str, object]]]:
    """The states that each of several worker processes came to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(work, (port, world_size, dataset, str(folder), values), nprocs=world_size)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world_size)]


def difference(first: object, second: object) -> float:
    """Largest difference of two states, relative to 1 or the value, without the clock."""
    if isinstance(first, torch.Tensor):
        assert isinstance(second, torch.Tensor)
        scale = second.abs().double().clamp(min=1)
        return float(((first.double() - second.double()).abs() / scale).max()) if first.numel() else 0.0
    if isinstance(first, dict):
        assert isinstance(second, dict)
        assert first.keys() == second.keys()
        return max((difference(first[key], second[key]) for key in first if key != "seconds"), default=0.0)
    if isinstance(first, list | tuple):
        assert isinstance(second, list | tuple)
        assert len(first) == len(second)
        return max((difference(one, other) for one, other in zip(first, second, strict=True)), default=0.0)
    if isinstance(first, float) and isinstance(second, float | int):
        return abs(first - second) / max(1.0, abs(second))
    assert first == second
    return 0.0


def test_two_workers_agree_with_one(dataset: Dataset, tmp_path: Path) -> None:
    teacher, run = train_teacher_and_student(dataset, Alone())
    first, second = train_with_workers(dataset, tmp_path, 2)
    assert difference(first["teacher"], teacher.state_dict()) < TOLERANCE
    assert difference(first["run"], run.state_dict()) < TOLERANCE
    assert difference(second["run"]["parts"], first["run"]["parts"]) == 0.0


def test_a_small_disturbance_stays_small(dataset: Dataset) -> None:
    _, run = train_teacher_and_student(dataset, Alone())
    _, disturbed = train_teacher_and_student(dataset, Alone(), nudge=1e-13)
    assert 0 < difference(disturbed.state_dict(), run.state_dict()) < 1e4 * 1e-13


@pytest.mark.slow
def test_statistics_of_each_worker_alone_are_another_method(dataset: Dataset, tmp_path: Path) -> None:
    _, run = train_teacher_and_student(dataset, Alone())
    first, _ = train_with_workers(dataset, tmp_path, 2, sync_batchnorm=False)
    assert difference(first["run"], run.state_dict()) > 1e-3


@pytest.mark.slow
def test_three_workers_with_unequal_shares_agree_with_one(dataset: Dataset, tmp_path: Path) -> None:
    _, run = train_teacher_and_student(dataset, Alone(), student__batch_size=16)
    for state in train_with_workers(dataset, tmp_path, 3, student__batch_size=16):
        assert difference(state["run"], run.state_dict()) < TOLERANCE
