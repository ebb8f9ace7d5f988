"""What holds on a GPU. Only the standard library runs these tests, so that a box with torch alone can:

    PYTHONPATH=.:tests python -m unittest -v test_gpu

`benchmarks/gpu_check.sh` runs them first. Without a GPU they are skipped. With HKRUN_GPU_TESTS=cpu they run
on the CPU with one cell, where no step is recorded: that shows that they run.
"""

import contextlib
import logging
import math
import os
import tempfile
import unittest
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from dataset_example import make_dataset, make_images
from torch import Tensor

from hkrun.config import Cell, cell_from_values
from hkrun.data.views import ViewReader, Views
from hkrun.distill import Pack, Replays, Run, Step, choose_recorder, distill, graphs, loop, start_run
from hkrun.knowledge import LiveTeacher, RowComputer, RowFiles, TableTeacher, file_sizes
from hkrun.methods import METHODS, SHIPPED
from hkrun.teacher import freeze, start_teacher
from hkrun.training import STUDENT_DRAWS, Averages, Batch, SingleProcess
from hkrun.trial.environment import reproducible

ON_CPU = os.environ.get("HKRUN_GPU_TESTS") == "cpu"
CPU, DEVICE = torch.device("cpu"), torch.device("cpu" if ON_CPU else "cuda")
TOLERANCE = 1e-8  # in float64: what another order of additions changes in a few steps
TINY = {
    "teacher.network": "preact-8-w6",
    "student.network": "preact-8-w6",
    "student.epochs": 3,
    "student.batch_size": 16,
    "student.learning_rate": 0.001,
    "student.first_stage": 0.67,
    "augment.padding": 1,
}
CELLS: dict[str, dict[str, Any]] = {
    "hksanc": {"method": "hksanc"},
    "hksanc, steps": {"method": "hksanc", "student.steps": 2, "discriminator.steps": 2},
    **{
        f"hksanc, {form}": {"method": "hksanc", "knowledge.form": form}
        for form in ("at", "fsp", "nst", "vid")
    },
    **{name: {"method": name} for name in (*METHODS, *SHIPPED) if name not in ("hksanc", "crd")},
    "crd": {"method": "crd", "crd.negatives": 8},
}
FEW = ("hksanc", "anc", "crd")
DATASET = make_dataset(64)


def names() -> Sequence[str]:
    return FEW[:1] if ON_CPU else tuple(CELLS)


def make_cell(name: str, precision: str, **values: object) -> Cell:
    return cell_from_values({**TINY, **CELLS[name], "dataset": "digits", "precision": precision, **values})


def start(cell: Cell, seeds: Sequence[int], device: torch.device) -> list[Run]:
    return [start_run(cell, DATASET, seed, context=SingleProcess(), device=device) for seed in seeds]


def make_teacher(cell: Cell, device: torch.device) -> LiveTeacher | None:
    if not cell.uses_teacher:
        return None
    network = start_teacher(cell, DATASET, context=SingleProcess(), device=device).network
    return LiveTeacher(freeze(network), precision=cell.precision)


def train(cell: Cell, seeds: Sequence[int], device: torch.device, *, together: bool = True) -> list[Run]:
    """Runs from their start to their end."""
    runs, teacher = start(cell, seeds, device), make_teacher(cell, device)
    for part in [runs] if together else [[run] for run in runs]:
        distill(
            part,
            images=make_images(cell, DATASET, device),
            teach={} if teacher is None else dict.fromkeys(seeds, teacher),
            context=SingleProcess(),
            on_epoch=lambda _: None,
        )
    return runs


def make_step(cell: Cell, *, recorded: bool) -> tuple[Step, Replays, Iterator[Batch]]:
    """A step of a pack of two, and endless batches for it."""
    pack = Pack(start(cell, (3, 0), DEVICE))
    pack.train()
    for optimizer in (pack.student_optimizer, pack.discriminator_optimizer):
        if optimizer is not None:
            optimizer.param_groups[0]["lr"] = 0.001
    replays = Replays(pack, choose_recorder(pack, 0, SingleProcess()) if recorded else None)
    teach = make_teacher(cell, DEVICE) if cell.stage_uses_teacher(0) else None
    training = make_images(cell, DATASET, DEVICE).training

    def batches() -> Iterator[Batch]:
        while True:
            yield from training.batches(
                (3, 0),
                0,
                batch_size=cell.student.batch_size,
                draws=STUDENT_DRAWS,
                context=SingleProcess(),
            )

    return Step(pack, 0, teach, SingleProcess(), replays), replays, batches()


@contextlib.contextmanager
def no_waits() -> Iterator[None]:
    """Refuses whatever makes the host wait for the GPU."""
    if DEVICE.type == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def flatten(value: object) -> Iterator[object]:
    """The leaves of a nested state."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from flatten(each)
    else:
        yield value


@unittest.skipUnless(ON_CPU or torch.cuda.is_available(), "needs a GPU")
class GpuTest(unittest.TestCase):
    """Each under the settings that training has."""

    def setUp(self) -> None:
        self.enterContext(reproducible(1))
        graphs._tell.cache_clear()
        self.told: list[str] = []
        handler = logging.Handler(logging.INFO)
        handler.emit = lambda record: self.told.append(record.getMessage())  # type: ignore[method-assign]
        logger, level = logging.getLogger("hkrun"), logging.getLogger("hkrun").level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        self.addCleanup(logger.setLevel, level)
        self.addCleanup(logger.removeHandler, handler)

    def assert_same_bits(self, first: Sequence[Run], second: Sequence[Run]) -> None:
        for ours, theirs in zip(first, second, strict=True):
            assert len(ours.history) == sum(ours.cell.stage_epochs)
            assert ours.diverged is None
            assert without_clock(ours) == without_clock(theirs)
            states = (flatten(run.state_dict()["parts"]) for run in (ours, theirs))
            for own, other in zip(*states, strict=True):
                assert torch.equal(own, other) if isinstance(own, Tensor) else own == other

    def assert_close(self, first: Sequence[Run], second: Sequence[Run]) -> None:
        for ours, theirs in zip(first, second, strict=True):
            assert [row["error_pct"] for row in ours.history] == [row["error_pct"] for row in theirs.history]
            for own, other in zip(without_clock(ours), without_clock(theirs), strict=True):
                assert own.keys() == other.keys()
                for name, value in own.items():
                    close = value == other[name] or math.isclose(
                        value, other[name], rel_tol=TOLERANCE, abs_tol=TOLERANCE
                    )
                    assert close, f"{name}: {value} and {other[name]}"

    def test_replayed_steps_give_the_bits_of_computed_ones(self) -> None:
        for name in names():
            for precision in (
                ("float32", "bfloat16", "float64") if name in FEW and not ON_CPU else ("float32",)
            ):
                for seeds in ((3, 0, 11), (3,)):
                    with self.subTest(cell=name, precision=precision, seeds=seeds):
                        self._check_bits(make_cell(name, precision), seeds)

    def _check_bits(self, cell: Cell, seeds: Sequence[int]) -> None:
        self.told.clear()
        graphs._tell.cache_clear()
        kept: list[Replays] = []

        class Kept(Replays):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                kept.append(self)

        with mock.patch.object(loop, "Replays", Kept):
            replayed = train(cell, seeds, DEVICE)
        if DEVICE.type == "cuda":
            assert self.told == []
            assert kept[0].active
        with mock.patch.object(loop, "choose_recorder", return_value=None):
            computed = train(cell, seeds, DEVICE)
        self.assert_same_bits(replayed, computed)

    def test_steps_do_not_wait_for_the_gpu(self) -> None:
        for name in names():
            for recorded in (False, True):
                with self.subTest(cell=name, recorded=recorded):
                    step, replays, batches = make_step(make_cell(name, "float32"), recorded=recorded)
                    averages = Averages(SingleProcess())
                    for _ in range(4):  # warms up, and records
                        averages.add(step.train(next(batches)))
                    assert replays.active == (recorded and DEVICE.type == "cuda")
                    with no_waits():
                        for _ in range(5):  # an epoch begins in between
                            averages.add(step.train(next(batches)))
                    assert all(math.isfinite(own["loss_total"]) for own in averages.read())

    def test_float64_curves_are_those_of_the_cpu(self) -> None:
        for name in names():
            with self.subTest(cell=name):
                cell = make_cell(name, "float64")
                self.assert_close(train(cell, (3, 0), DEVICE), train(cell, (3, 0), CPU))

    def test_packed_runs_are_what_they_are_alone(self) -> None:
        for name in names():
            with self.subTest(cell=name):
                cell = make_cell(name, "float64")
                alone = train(cell, (3, 0, 11), DEVICE, together=False)
                self.assert_close(train(cell, (3, 0, 11), DEVICE), alone)

    def test_a_step_that_waits_for_the_gpu_goes_on_without_a_graph(self) -> None:
        original: Callable[..., dict[str, Tensor]] = Step._step_student

        def waiting(self: Step, *args: Any) -> dict[str, Tensor]:
            figures = original(self, *args)
            figures["loss_total"].sum().item()
            return figures

        cell = make_cell("hksanc", "float32")
        with mock.patch.object(Step, "_step_student", waiting):
            found = train(cell, (3, 0), DEVICE)
        (line,) = self.told
        assert ("the device is cpu" if ON_CPU else "the step cannot be recorded") in line
        self.assert_same_bits(found, train(cell, (3, 0), DEVICE))
        if DEVICE.type == "cuda":
            assert torch.cuda.current_stream() == torch.cuda.default_stream()

    def test_views_are_read_with_the_cpu_s_bits(self) -> None:
        views = Views(padding=1, flip=True)
        view_ids = torch.arange(views.count)
        image_ids = view_ids % 4
        for dtype in (torch.float32, torch.float64):

            def read(device: torch.device, dtype: torch.dtype = dtype) -> Tensor:
                reader = ViewReader(
                    DATASET.train.images,
                    views=views,
                    mean=DATASET.mean,
                    std=DATASET.std,
                    dtype=dtype,
                    device=device,
                )
                return reader(image_ids.to(device), view_ids.to(device))

            assert torch.equal(read(DEVICE).cpu(), read(CPU))

    def test_a_lookup_does_not_wait_for_the_gpu(self) -> None:
        cell = make_cell("hksanc", "float32")
        network = freeze(start_teacher(cell, DATASET, context=SingleProcess(), device=CPU).network)
        (batch, *_) = make_images(cell, DATASET, CPU).training.batches(
            (3,), 0, batch_size=16, draws=STUDENT_DRAWS, context=SingleProcess()
        )
        for storage in ("float32", "float16"):
            with tempfile.TemporaryDirectory() as folder:
                table = make_table(Path(folder), network, cell, storage)
                table.fill()
                expected = table(batch)
                there = batch._replace(images=batch.images.to(DEVICE))
                with no_waits():
                    answer = table(there)
                assert torch.equal(answer.logits.cpu(), expected.logits)
                assert answer.knowledge is not None
                assert expected.knowledge is not None
                assert torch.equal(answer.knowledge.cpu(), expected.knowledge)


def without_clock(run: Run) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]


def make_table(folder: Path, network: Any, cell: Cell, storage: str) -> TableTeacher:
    """An empty table of a teacher on the CPU."""
    parts, dtype = ("logits", "knowledge"), np.dtype(storage)
    computer = RowComputer(
        network,
        parts,
        tap=cell.knowledge.tap,
        image_shape=DATASET.image_shape(0),
        precision="float32",
        image_dtype=torch.float32,
        row_dtype=dtype,
        device=CPU,
    )
    views = Views(cell.augment.padding, cell.augment.flip)
    reader = ViewReader(
        DATASET.train.images,
        views=views,
        mean=DATASET.mean,
        std=DATASET.std,
        dtype=torch.float32,
        device=CPU,
    )
    tables, num_rows = {}, len(DATASET.train) * views.count
    for part, width in computer.layout.widths.items():
        (folder / part).mkdir()
        for name, length in file_sizes(num_rows, width, dtype).items():
            with (folder / part / name).open("wb") as file:
                file.truncate(length)
        tables[part] = RowFiles(folder / part, num_rows=num_rows, width=width, dtype=dtype)
    return TableTeacher(
        computer,
        tables,
        asked=parts,
        num_images=len(DATASET.train),
        num_views=views.count,
        read=reader,
        on_whole=lambda _part: None,
    )


if __name__ == "__main__":
    unittest.main()
