"""Data-parallel training: several workers are one worker whose batches are split.

In exact arithmetic the two are equal: BatchNorm takes its statistics over all parts of a batch, each worker's
mean loss is weighted with its share, and the gradients are summed. What differs is the order of the sums, and
so their rounding. The tolerance follows from that, in three factors:

    rounding       A sum of n numbers in another order differs by at most n eps of the sum of their sizes. The
                   longest sums of a step are over a batch and the places of a map: n = 16 x 64. So a step's
                   result is off by 1,024 x 2.2e-16 = 2.3e-13, relative to what it adds up.
    steps          Each of the S steps of both stages adds such an error.
    amplification  An error of an early step grows in those that follow. By how much is measured, for each
                   method: its start is changed by 1e-8, relative, and A is by how many times that its end is.

Together: S x A x n eps, 2e-12 to 4e-12 here, and found are up to 4e-14. A worker that used its own
statistics, counted a gradient twice or drew its own noise would be off by 1e-3 or more; a test below shows
that of the first.
"""

import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from worker_processes import start_workers

from hkrun.config import Cell
from hkrun.data import Dataset
from hkrun.distill import Run, distill, start_run
from hkrun.errors import InputError
from hkrun.store import Record
from hkrun.teacher import TeacherRun, freeze, start_teacher, train_teachers
from hkrun.training import (
    STUDENT_DRAWS,
    GradientSum,
    PeerLostError,
    ResidentEvaluationSet,
    SingleProcess,
    gather,
    share_from_first,
    sum_over_workers,
)
from loop.conftest import CPU, ask, make_sets, tiny_cell
from loop.test_methods import METHOD_CELLS, method_cell

LONGEST_SUM = 16 * 64
NUDGE = 1e-8
# What no tolerance may exceed: far below the difference that any mistake makes.
LOOSEST = 1e-10
CELLS = {"hksanc": {"method": "hksanc"}, **METHOD_CELLS}


def name_cell(name: str) -> Cell:
    """A method's cell, with batches that no number of workers here but three divides."""
    given = {"student__batch_size": 15, "teacher__batch_size": 15}
    return tiny_cell(**given) if name == "hksanc" else method_cell(name, **given)


def count_steps(cell: Cell, dataset: Dataset) -> int:
    """Steps of both stages."""
    teacher = cell.teacher.epochs * (len(dataset.train) // cell.teacher.batch_size)
    return teacher + sum(cell.stage_epochs) * (len(dataset.train) // cell.student.batch_size)


def train_both(
    cell: Cell, dataset: Dataset, context: SingleProcess, *, nudge: float = 0.0
) -> tuple[TeacherRun | None, Run]:
    """Both stages on a tiny cell, everything in float64; the start of both may be changed a little."""
    sets = make_sets(cell, dataset)
    teacher = None
    if cell.uses_teacher:
        teacher = start_teacher(cell, dataset, context=context, device=CPU)
        disturb(teacher.network, nudge)
        train_teachers([teacher], context=context, on_epoch=lambda _: None, **sets)  # type: ignore[arg-type]
    run = start_run(cell, dataset, 0, context=context, device=CPU)
    disturb(run.student, nudge)
    distill(
        [run],
        teach=ask(None if teacher is None else freeze(teacher.network), run),
        context=context,
        on_epoch=lambda _: None,
        **sets,  # type: ignore[arg-type]
    )
    return teacher, run


def disturb(network: torch.nn.Module, nudge: float) -> None:
    """Changes each parameter by so much of itself, upwards or downwards."""
    signs = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            sign = torch.randint(0, 2, parameter.shape, generator=signs) * 2 - 1
            parameter *= 1 + nudge * sign


def states(teacher: TeacherRun | None, run: Run) -> dict[str, object]:
    """What both stages came to."""
    return {"teacher": None if teacher is None else teacher.state_dict(), "run": run.state_dict()}


def join(
    rank: int, folder: str, function: Callable[..., object], world_sizes: tuple[int, ...], *given: object
) -> None:
    """One process, which is a worker of each group that is large enough for it, one after the other."""
    torch.set_num_threads(1)
    for world_size in world_sizes:
        if rank < world_size:
            group = f"file://{folder}/group-{world_size}"
            dist.init_process_group("gloo", init_method=group, rank=rank, world_size=world_size)
            told = function(SingleProcess(rank, world_size), *given)
            torch.save(told, f"{folder}/{world_size}-{rank}.pt")
            dist.destroy_process_group()


def with_workers(
    folder: Path, function: Callable[..., object], *given: object, world_sizes: tuple[int, ...] = (2,)
) -> dict[tuple[int, int], object]:
    """What a function tells in each worker of groups of some sizes, by size and rank."""
    start_workers(join, str(folder), function, world_sizes, *given, number=max(world_sizes))
    return {
        (size, rank): torch.load(folder / f"{size}-{rank}.pt", weights_only=True)
        for size in world_sizes
        for rank in range(size)
    }


def train_cells(context: SingleProcess, dataset: Dataset, cells: dict[str, Cell]) -> dict[str, object]:
    """What some cells come to, in a worker."""
    return {name: states(*train_both(cell, dataset, context)) for name, cell in cells.items()}


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


def find_tolerance(cell: Cell, dataset: Dataset, alone: dict[str, object]) -> float:
    """S x A x n eps of a cell; see above."""
    disturbed = states(*train_both(cell, dataset, SingleProcess(), nudge=NUDGE))
    amplification = difference(disturbed, alone) / NUDGE
    eps = torch.finfo(torch.float64).eps
    return count_steps(cell, dataset) * max(1.0, amplification) * LONGEST_SUM * eps


def check_agreement(
    dataset: Dataset, folder: Path, cells: dict[str, Cell], world_sizes: tuple[int, ...]
) -> None:
    """Checks that each group comes to what one worker does, and all workers of a group to the same bits."""
    found = with_workers(folder, train_cells, dataset, cells, world_sizes=world_sizes)
    for name, cell in cells.items():
        alone = states(*train_both(cell, dataset, SingleProcess()))
        tolerance = find_tolerance(cell, dataset, alone)
        assert tolerance < LOOSEST, name
        for size in world_sizes:
            first = found[size, 0][name]  # type: ignore[index]
            assert difference(first, alone) < tolerance, (name, size)
            for rank in range(1, size):
                other = found[size, rank][name]  # type: ignore[index]
                assert difference(other["run"]["parts"], first["run"]["parts"]) == 0.0, (name, size, rank)


def test_two_workers_agree_with_one(dataset: Dataset, tmp_path: Path) -> None:
    check_agreement(dataset, tmp_path, {"hksanc": name_cell("hksanc")}, (2,))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_each_method_agrees_for_one_two_three_and_four_workers(dataset: Dataset, tmp_path: Path) -> None:
    check_agreement(dataset, tmp_path, {name: name_cell(name) for name in CELLS}, (2, 3, 4))


@pytest.mark.slow
def test_statistics_of_each_worker_alone_are_another_method(dataset: Dataset, tmp_path: Path) -> None:
    values = {"student__batch_size": 15, "teacher__batch_size": 15}
    alone = states(*train_both(tiny_cell(**values), dataset, SingleProcess()))
    cells = {"own": tiny_cell(sync_batchnorm=False, **values)}
    found = with_workers(tmp_path, train_cells, dataset, cells)
    first, second = (found[2, rank]["own"] for rank in range(2))  # type: ignore[index]
    assert difference(first["run"], alone["run"]) > 1e-3
    # The parameters stay in step all the same; only the running statistics are each worker's own.
    networks = [state["run"]["parts"][0] for state in (first, second)]
    apart = {name for name in networks[0] if difference(networks[0][name], networks[1][name]) > 0}
    assert apart
    assert all(name.endswith(("running_mean", "running_var")) for name in apart)


def read_sets(context: SingleProcess, dataset: Dataset) -> dict[str, object]:
    """What a worker sees of an epoch, and the errors of a network, with every part uneven."""
    cell = tiny_cell(student__batch_size=15)
    sets = make_sets(cell, dataset)
    batches = sets["images"].training.batches([5], 1, batch_size=15, draws=STUDENT_DRAWS, context=context)
    seen = [(batch.image_ids[0], batch.view_ids[0], batch.share) for batch in batches]
    student = start_run(cell, dataset, 0, context=SingleProcess(), device=CPU).student
    errors = sets["images"].test.evaluate(student, precision="float64", context=context)
    few = ResidentEvaluationSet(
        dataset.test.images[:3], dataset.test.labels[:3], dataset, dtype=torch.float64, device=CPU
    ).evaluate(student, precision="float64", context=context)
    return {"seen": seen, "errors": list(errors), "few": list(few)}


def test_together_the_workers_see_each_image_once(dataset: Dataset, tmp_path: Path) -> None:
    alone = read_sets(SingleProcess(), dataset)
    sizes = (2, 4)  # three images to evaluate on are fewer than four workers
    found = with_workers(tmp_path, read_sets, dataset, world_sizes=sizes)
    for size in sizes:
        parts = [found[size, rank] for rank in range(size)]
        for batch, (ids, views, _) in enumerate(alone["seen"]):  # type: ignore[arg-type,var-annotated]
            own = [part["seen"][batch] for part in parts]  # type: ignore[index]
            assert torch.equal(torch.cat([ids for ids, _, _ in own]), ids)
            assert torch.equal(torch.cat([views for _, views, _ in own]), views)
            assert sum(share for _, _, share in own) == pytest.approx(1.0, abs=1e-15)
        for part in parts:
            assert part["errors"] == alone["errors"]  # type: ignore[index]
            assert part["few"] == alone["few"]  # type: ignore[index]


def exchange(context: SingleProcess) -> dict[str, object]:
    """What workers tell one another."""
    tensors = [
        torch.tensor([1.0 + context.rank]),
        torch.tensor([[2.0, 3.0], [4.0, 5.0]]) * (1 + context.rank),
    ]
    sum_over_workers(tensors, context)
    return {
        "sums": tensors,
        "first": share_from_first(lambda: {"epoch": 3 + context.rank, "weights": torch.ones(2)}, context),
        "all": gather(context.rank, context),
    }


def lose_peer(context: SingleProcess) -> str:
    """Waits for a worker that is gone."""
    dist.barrier()  # the other is still connecting, and would fail there
    if context.rank == 1:
        os._exit(0)
    try:
        for _ in range(100):  # the first ones may still be under way
            sum_over_workers([torch.ones(1 << 20)], context)
    except PeerLostError as error:
        return str(error)
    return ""


class Intruder:
    """What runs code where it is unpickled."""

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.putenv, ("HKRUN_INTRUDED", "1")


def send_code(context: SingleProcess) -> list[bool]:
    """The first worker sends what none may unpickle."""
    refused = []
    for exchange_code in (lambda: share_from_first(Intruder, context), lambda: gather(Intruder(), context)):
        try:
            exchange_code()
        except pickle.UnpicklingError as error:
            refused.append("posix.putenv" in str(error))
    return refused


def tell_records(context: SingleProcess) -> list[object]:
    """What trials tell each other of the store, and names of different lengths."""
    record = Record(
        cell_id="c", seed=context.rank, status="diverged", epochs=3, device="cpu", threads=1, started_at=1.5
    )
    return [
        share_from_first(lambda: {4: record}, context) == {4: dataclasses.replace(record, seed=0)},
        share_from_first(lambda: (None, None), context) == (None, None),
        gather({"x" * (1000 * context.rank)}, context) == [{""}, {"x" * 1000}],
    ]


def test_workers_tell_each_other_records_and_sets(tmp_path: Path) -> None:
    found = with_workers(tmp_path, tell_records, world_sizes=(2,))
    assert found[2, 0] == found[2, 1] == [True] * 3


def test_what_would_run_code_is_not_read_from_another_worker(tmp_path: Path) -> None:
    found = with_workers(tmp_path, send_code, world_sizes=(2,))
    assert found == {(2, 0): [True], (2, 1): [True, True]}  # the first one keeps what it read itself


def make_parameters(last: torch.memory_format = torch.contiguous_format) -> list[torch.nn.Parameter]:
    """A convolution's weight in some layout, and a bias."""
    weight = torch.zeros(2, 3, 4, 5).contiguous(memory_format=last)
    return [torch.nn.Parameter(weight), torch.nn.Parameter(torch.zeros(6))]


def sum_layouts(context: SingleProcess) -> list[object]:
    """Sums of tensors whose layout in memory is each worker's own."""
    layout = torch.channels_last if context.rank else torch.contiguous_format
    values = torch.arange(120.0).reshape(2, 3, 4, 5)
    turned = values.clone()[:, :, 0].transpose(0, 1)
    own = [values.clone().contiguous(memory_format=layout), turned.clone() if context.rank else turned]
    expected = [2 * tensor for tensor in own]
    sum_over_workers(own, context)
    return [torch.equal(summed, right) for summed, right in zip(own, expected, strict=True)]


def test_sums_are_right_whatever_the_layout_of_each_worker(tmp_path: Path) -> None:
    found = with_workers(tmp_path, sum_layouts)
    assert found == {(2, 0): [True] * 2, (2, 1): [True] * 2}


def sum_gradients(context: SingleProcess) -> list[list[float]]:
    """The sums of two batches' gradients; the second parameter has none."""
    parameters = make_parameters()
    total = GradientSum(parameters, context)
    sums = []
    for batch in (1.0, 2.0):
        parameters[0].grad = torch.full((2, 3, 4, 5), batch * (1 + context.rank))
        if context.rank:
            parameters[0].grad = parameters[0].grad.contiguous(memory_format=torch.channels_last)
        total()
        assert parameters[1].grad is None
        sums.append(parameters[0].grad.unique().tolist())
    return sums


def test_gradients_are_summed_batch_after_batch(tmp_path: Path) -> None:
    found = with_workers(tmp_path, sum_gradients)
    assert found == {(2, 0): [[3.0], [6.0]], (2, 1): [[3.0], [6.0]]}


def sum_what_differs(context: SingleProcess, case: str) -> str:
    """What is said where workers would add up different things."""
    layout = torch.channels_last if case == "layout" and context.rank else torch.contiguous_format
    parameters = make_parameters(layout)
    if case == "type" and context.rank:
        parameters[1] = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    if case == "number" and context.rank:
        parameters.append(torch.nn.Parameter(torch.zeros(1)))
    try:
        total = GradientSum(parameters, context)
        for batch in range(2):
            for number, parameter in enumerate(parameters):
                parameter.grad = torch.ones_like(parameter)
                if case == "gradient" and number == context.rank:
                    parameter.grad = None
                if case == "batch" and number == batch == 1:
                    parameter.grad = None
            total()
    except InputError as error:
        return str(error)
    return ""


FLOAT, DOUBLE = "'torch.float32'", "'torch.float64'"


@pytest.mark.parametrize(
    ("case", "here", "there"),
    [
        ("layout", f"((2, 3, 4, 5), (60, 20, 5, 1), {FLOAT})", f"((2, 3, 4, 5), (60, 1, 15, 3), {FLOAT})"),
        ("type", f"((6,), (1,), {FLOAT})", f"((6,), (1,), {DOUBLE})"),
        ("number", "missing", f"((1,), (1,), {FLOAT})"),
        ("gradient", "False", "True"),
    ],
)
def test_what_workers_cannot_add_up_is_refused_by_each(
    case: str, here: str, there: str, tmp_path: Path
) -> None:
    found = with_workers(tmp_path, sum_what_differs, case)
    assert found[2, 0] == found[2, 1]
    assert str(found[2, 0]).endswith(f" is {here} on worker 0 and {there} on worker 1")


def test_a_gradient_that_comes_and_goes_is_refused(tmp_path: Path) -> None:
    found = with_workers(tmp_path, sum_what_differs, "batch")
    assert str(found[2, 0]).endswith("parameter 1 has a gradient in some batches only")


@pytest.mark.slow
def test_workers_tell_each_other_the_same(tmp_path: Path) -> None:
    found = with_workers(tmp_path, exchange, world_sizes=(3,))
    for rank in range(3):
        told = found[3, rank]
        assert [tensor.tolist() for tensor in told["sums"]] == [[6.0], [[12.0, 18.0], [24.0, 30.0]]]  # type: ignore[index]
        assert told["first"]["epoch"] == 3  # type: ignore[index]
        assert told["all"] == [0, 1, 2]  # type: ignore[index]


def test_a_worker_whose_peer_is_lost_says_so(tmp_path: Path) -> None:
    start_workers(join, str(tmp_path), lose_peer, (2,), number=2)
    assert torch.load(tmp_path / "2-0.pt").startswith("a worker of the group was lost: ")
