"""The loops that seed_step.py sets side by side, in processes that stay from one repetition to the next."""

import ctypes
import itertools
import multiprocessing
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import floor
import numpy as np
import reference
import torch
from reference import Size
from torch import nn
from torch.utils.data import RandomSampler

from hkrun.data.dataset import Dataset, Split
from hkrun.data.views import ViewReader, Views
from hkrun.distill import Pack, Replays, Step, choose_recorder, start_run
from hkrun.knowledge import LiveTeacher, RowComputer, RowFiles, TableTeacher, file_sizes
from hkrun.models import DistilledNetwork, build_network
from hkrun.training import STUDENT_DRAWS, Averages, Batch, ResidentTrainingSet, SingleProcess
from hkrun.trial.environment import reproducible

# What a method compares with the teacher's.
KNOWLEDGE = {"hksanc": ("logits", "knowledge"), "kd": ("logits",)}
START_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to set up, in how many processes at once.

    Attributes:
        name: What the table of results calls it.
        loop: "reference", "torchdistill", "live" (hkrun with a live teacher), "table" (hkrun with a teacher
            table) or "teacher" (the teacher's passes that fill a table; its step is one view).
        size: Networks, images, method and precision.
        folder: Where the generated images are.
        processes: How many at once, each with seeds of its own.
        threads: Of each.
        seeds: Seeds that each trains together.
        workers: Of the reference's DataLoader.
        device: Where they train.
    """

    name: str
    loop: str
    size: Size
    folder: str
    processes: int
    threads: int
    seeds: int = 1
    workers: int = 0
    device: str = "cpu"


class Loop(Protocol):
    """Something that goes on by steps."""

    units: int  # what one step makes: seed-steps, or views of a teacher

    def advance(self, steps: int) -> None:
        """Does steps, from the beginning of the same batches."""


class ReferenceLoop:
    """The field's: see reference.py."""

    units = 1

    def __init__(self, recipe: Recipe, first_seed: int) -> None:
        size, device = recipe.size, torch.device(recipe.device)
        self._training = reference.start_training(size, first_seed, device=device)
        self._batches = reference.endless_batches(
            Path(recipe.folder), size, workers=recipe.workers, device=device
        )

    def advance(self, steps: int) -> None:
        """See `Loop`; the batches go on."""
        for images, labels in itertools.islice(self._batches, steps):
            self._training.step(images, labels)


class TorchdistillLoop:
    """That of a public code base: torchdistill's box, for the knowledge distillation of Hinton et al."""

    units = 1

    def __init__(self, recipe: Recipe, first_seed: int) -> None:
        # Only this loop needs it: it is no dependency of the others.
        from torchdistill.core.distillation import get_distillation_box

        size = recipe.size
        torch.manual_seed(first_seed)
        torch.backends.cudnn.benchmark = True
        networks = [
            LogitsOf(build_network(name, num_classes=reference.CLASSES, in_channels=size.channels))
            for name in (size.teacher, size.student)
        ]
        images = reference.AugmentedImages(*reference.read_images(Path(recipe.folder), size), size)
        self.box = get_distillation_box(
            *(network.to(recipe.device) for network in networks),
            {"train": images},
            describe_distillation(size, workers=recipe.workers, pinned=recipe.device == "cuda"),
            torch.device(recipe.device),
            None,
            False,
            1,
        )
        self._device = torch.device(recipe.device)
        self._batches = self._endless_batches()

    def advance(self, steps: int) -> None:
        """See `Loop`; as torchdistill's own example trains an epoch, which prints the loss of each step."""
        for images, labels, supplements in itertools.islice(self._batches, steps):
            loss = self.box.forward_process(
                images.to(self._device, non_blocking=True),
                labels.to(self._device, non_blocking=True),
                supplements,
            )
            self.box.post_forward_process(loss)
            loss.item()

    def _endless_batches(self) -> Iterator[Any]:
        for epoch in itertools.count():
            self.box.pre_epoch_process(epoch=epoch)
            yield from self.box.train_data_loader


class LogitsOf(nn.Module):
    """A network of hkrun's as others expect one: from images [B, C, H, W] to logits [B, classes]."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The logits."""
        logits: torch.Tensor = self.backbone(images).logits
        return logits


def describe_distillation(size: Size, *, workers: int, pinned: bool) -> dict[str, Any]:
    """The configuration of torchdistill's box: what hkrun's `kd` is."""
    cell = size.cell
    logits = {
        f"{who}_module_{what}": value
        for who in ("student", "teacher")
        for what, value in (("path", "."), ("io", "output"))
    }
    soft = {"temperature": cell.loss.temperature, "alpha": 1 - cell.loss.alpha, "reduction": "batchmean"}
    term = {"criterion": {"key": "KDLoss", "kwargs": logits | soft}, "weight": 1}
    return {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler},
            "kwargs": {
                "batch_size": size.batch_size,
                "num_workers": workers,
                "persistent_workers": workers > 0,
                "pin_memory": pinned,
                "drop_last": True,
            },
        },
        "teacher": {"requires_grad": False, "forward_proc": "forward_batch_only"},
        "student": {"forward_proc": "forward_batch_only"},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": term}}},
        "optimizer": {
            "key": "SGD",
            "kwargs": {
                "lr": reference.LEARNING_RATE,
                "momentum": reference.MOMENTUM,
                "weight_decay": reference.WEIGHT_DECAY,
            },
        },
    }


class OurLoop:
    """The one of hkrun: what an epoch of `hkrun.distill` does between its beginning and its evaluation."""

    def __init__(self, recipe: Recipe, first_seed: int) -> None:
        size, device = recipe.size, torch.device(recipe.device)
        self.units = recipe.seeds
        self._size, self._device = size, device
        dataset = read_dataset(Path(recipe.folder), size)
        self._images = ResidentTrainingSet(dataset, _views(size), dtype=torch.float32, device=device)
        self._seeds = list(range(first_seed, first_seed + recipe.seeds))
        runs = [
            start_run(size.cell, dataset, seed, context=SingleProcess(), device=device)
            for seed in self._seeds
        ]
        torch.manual_seed(0)
        network = reference.build_teacher(size).to(device)
        teach: Any = LiveTeacher(network, precision=size.cell.precision)
        if recipe.loop == "table":
            teach = make_table(Path(recipe.folder), network, dataset, size, device)
        pack = Pack(runs)
        pack.train()
        self._set_rates(pack)
        replays = Replays(pack, choose_recorder(pack, 0, SingleProcess()))
        self._step = Step(pack, 0, teach, SingleProcess(), replays)

    def _set_rates(self, pack: Pack) -> None:
        for one in (pack, *pack.runs):
            one.student_optimizer.param_groups[0]["lr"] = self._size.cell.student.learning_rate
            if one.discriminator_optimizer is not None:
                one.discriminator_optimizer.param_groups[0]["lr"] = (
                    self._size.cell.discriminator.learning_rate
                )

    def advance(self, steps: int) -> None:
        """See `Loop`. Reading the averages is the wait for the device that each epoch has."""
        averages = Averages(SingleProcess())
        for batch in itertools.islice(self._endless_batches(), steps):
            averages.add(self._step.train(batch))
        averages.read()

    def _endless_batches(self) -> Iterator[Batch]:
        while True:
            yield from self._images.batches(
                self._seeds,
                0,
                batch_size=self._size.batch_size,
                draws=STUDENT_DRAWS,
                context=SingleProcess(),
            )


class TeacherLoop:
    """The passes of the teacher that fill a table; what it costs to write the rows is in it too."""

    def __init__(self, recipe: Recipe, first_seed: int) -> None:
        size, device = recipe.size, torch.device(recipe.device)
        dataset = read_dataset(Path(recipe.folder), size)
        self._read, self._num_views = _reader(dataset, size, device), _views(size).count
        self._computer = make_computer(reference.build_teacher(size).to(device), size, device)
        self.units = self._computer.pass_size
        self._rows = {
            part: make_rows(Path(recipe.folder) / f"passes-{first_seed}-{part}", 100 * self.units, width)
            for part, width in self._computer.layout.widths.items()
        }

    def advance(self, steps: int) -> None:
        """See `Loop`."""
        for step in range(steps):
            ids = np.arange(self.units) + self.units * (step % 100)
            numbers = torch.from_numpy(ids)
            computed = self._computer(self._read(numbers // self._num_views, numbers % self._num_views))
            for part, rows in self._rows.items():
                rows.write(ids, computed[part])


# --- what hkrun's loop needs --------------------------------------------------------------------------------


def read_dataset(folder: Path, size: Size) -> Dataset:
    """The generated images as hkrun has them."""
    images, labels = reference.read_images(folder, size)
    split = Split(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels))
    return Dataset(size.dataset, split, split, tuple("0123456789"))


def make_computer(network: DistilledNetwork, size: Size, device: torch.device) -> RowComputer:
    """Computes a table's rows."""
    return RowComputer(
        network,
        KNOWLEDGE[size.method],
        tap=size.cell.knowledge.tap,
        image_shape=(size.channels, size.side, size.side),
        precision=size.cell.precision,
        image_dtype=torch.float32,
        row_dtype=np.dtype(np.float32),
        device=device,
    )


def make_table(
    folder: Path, network: DistilledNetwork, dataset: Dataset, size: Size, device: torch.device
) -> TableTeacher:
    """A table that fills on first use, shared by all loops of a size."""
    computer = make_computer(network, size, device)
    num_views = _views(size).count
    rows = {
        part: make_rows(folder / f"table-{part}", len(dataset.train) * num_views, width)
        for part, width in computer.layout.widths.items()
    }
    return TableTeacher(
        computer,
        rows,
        asked=KNOWLEDGE[size.method],
        num_images=len(dataset.train),
        num_views=num_views,
        read=_reader(dataset, size, device),
        on_whole=lambda _part: None,
    )


def make_rows(folder: Path, num_rows: int, width: int) -> RowFiles:
    """Empty rows, unless the folder has them."""
    folder.mkdir(exist_ok=True)
    dtype = np.dtype(np.float32)
    for name, length in file_sizes(num_rows, width, dtype).items():
        with (folder / name).open("ab") as file:
            file.truncate(length)
    return RowFiles(folder, num_rows=num_rows, width=width, dtype=dtype)


def _views(size: Size) -> Views:
    return Views(size.padding, size.flip)


def _reader(dataset: Dataset, size: Size, device: torch.device) -> Any:
    reader = ViewReader(
        dataset.train.images,
        views=_views(size),
        mean=dataset.mean,
        std=dataset.std,
        dtype=torch.float32,
        device=device,
    )
    return lambda image_ids, view_ids: reader(image_ids.to(device), view_ids.to(device))


# --- processes ----------------------------------------------------------------------------------------------

LOOPS = {
    "reference": ReferenceLoop,
    "torchdistill": TorchdistillLoop,
    "live": OurLoop,
    "table": OurLoop,
    "teacher": TeacherLoop,
}


class Contender:
    """A loop in as many processes as its recipe says, all at work at the same time.

    Attributes:
        recipe: What it is.
        units: What one step of one process makes: seed-steps, or views of the teacher; 0 before `wait`.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        # Forked, processes need not import torch again; but CUDA does not survive that.
        context: Any = multiprocessing.get_context("fork" if recipe.device == "cpu" else "spawn")
        self._ends, self._processes = [], []
        for number in range(recipe.processes):
            own, other = context.Pipe()
            process = context.Process(target=serve, args=(recipe, number * recipe.seeds, other))
            process.start()
            other.close()
            self._ends.append(own)
            self._processes.append(process)
        self.units = 0

    def wait(self) -> None:
        """Waits until every process is ready."""
        self.units = self._answers()[0]

    def measure(self, steps: int) -> float:
        """Seconds per unit, over all processes: while one works at a seed-step, so do the others."""
        started = time.perf_counter()
        self._ask(("advance", steps))
        return (time.perf_counter() - started) / (steps * self.units * self.recipe.processes)

    def machine(self) -> floor.Machine:
        """What one of the processes reaches while the others do the same; the slowest of them."""
        found = self._ask(("machine", None))
        return floor.Machine(
            flops_per_s=min(one.flops_per_s for one in found),
            bytes_per_s=min(one.bytes_per_s for one in found),
        )

    def work(self, machine: floor.Machine) -> floor.Work:
        """What one step does."""
        found: floor.Work = self._ask(("work", machine))[0]
        return found

    def close(self) -> None:
        """Ends the processes."""
        for end in self._ends:
            with suppress(OSError):  # it ended by itself
                end.send(None)
        for process in self._processes:
            process.join()

    def _ask(self, request: object) -> list[Any]:
        for end in self._ends:
            end.send(request)
        return self._answers()

    def _answers(self) -> list[Any]:
        """One answer of each process.

        Raises:
            RuntimeError: A process ended; what it said is in the terminal.
        """
        answers = []
        for end in self._ends:
            try:
                answers.append(end.recv())
            except EOFError as error:
                raise RuntimeError(f"a process of {self.recipe.name!r} ended") from error
        return answers


def give_back_memory() -> None:
    """Returns what was freed to the system: glibc would keep gigabytes in each process that waits."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def serve(recipe: Recipe, first_seed: int, end: Connection) -> None:
    """A process of a contender: sets the loop up and does what it is asked until it is told to end."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(recipe.threads)
    device = torch.device(recipe.device)
    with ExitStack() as settings:
        if recipe.loop not in ("reference", "torchdistill"):
            settings.enter_context(reproducible(recipe.threads))
        loop: Loop = LOOPS[recipe.loop](recipe, first_seed)
        end.send(loop.units)
        while (request := end.recv()) is not None:
            what, argument = request
            if what == "advance":
                loop.advance(argument)
                floor.synchronise(device)
                end.send(None)
                give_back_memory()
            elif what == "machine":
                end.send(floor.measure_machine(device))
            else:
                end.send(floor.measure_work(lambda: loop.advance(1), argument))
