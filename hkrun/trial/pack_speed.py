"""How fast runs of a cell train together, measured: time per step of a seed against the size of the pack."""

import multiprocessing
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from hkrun.config import Cell
from hkrun.data.dataset import Dataset, Split
from hkrun.distill import Pack, Replays, Step, choose_recorder, start_run
from hkrun.knowledge import LiveTeacher
from hkrun.models import Output
from hkrun.networks import EVALUATION_BATCH
from hkrun.teacher import freeze, start_teacher
from hkrun.training import Batch, SingleProcess, resolve_dtype
from hkrun.training.precision import autocast
from hkrun.trial.environment import reproducible

WARM_UP = 3  # on a GPU, the last of them is recorded
REPETITIONS = 7


class Measurement(NamedTuple):
    """What is measured: networks of a cell, and what they are trained with.

    Attributes:
        device: "cpu" or "cuda".
    """

    cell: Cell
    num_classes: int
    image_shape: tuple[int, int, int]
    threads: int
    device: str


def measure_packs(inputs: Measurement, sizes: Sequence[int], *, memory_bytes: int) -> dict[int, float]:
    """Milliseconds per step of a seed, by how many seeds take it together; by the median.

    The networks are the cell's own in their initial state, the images random, and the teacher's answers are
    there already, as they are from a table. It happens in a process of its own: what a process has taken once
    counts for as long as it lives, and where memory ends in spite of all, that process alone ends.

    Args:
        inputs: What is measured.
        sizes: Numbers of seeds, rising, from 1.
        memory_bytes: What a process may take on a CPU; on a GPU, what is free there counts. The sizes from
            the first that takes more are left out, but never 1.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, inputs, tuple(sizes), memory_bytes), daemon=True)
    process.start()
    sender.close()
    figures: dict[int, float] = {}
    try:
        with suppress(EOFError):  # the process has ended, or was ended for its memory
            while True:
                told = receiver.recv()
                if isinstance(told, Exception):
                    raise told
                number, figure = told
                figures[number] = figure
    finally:
        process.kill()
        process.join()
        receiver.close()
    return figures


def _report(sender: Connection, inputs: Measurement, sizes: Sequence[int], memory_bytes: int) -> None:
    """Sends a pair of size and milliseconds for each size that fits; or the error that ended it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends this process
    try:
        for pair in _time_sizes(inputs, sizes, memory_bytes):
            sender.send(pair)
    except Exception as error:
        sender.send(error)
    sender.close()


def _time_sizes(inputs: Measurement, sizes: Sequence[int], memory_bytes: int) -> Iterator[tuple[int, float]]:
    cell, place = inputs.cell, torch.device(inputs.device)
    limit = torch.cuda.mem_get_info()[0] if place.type == "cuda" else memory_bytes
    dtype = resolve_dtype(cell.precision)
    generator = torch.Generator().manual_seed(0)
    size = cell.student.batch_size
    images = torch.randint(0, 256, (size, *inputs.image_shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, inputs.num_classes, (size,), generator=generator)
    split = Split(images, labels)
    classes = tuple(map(str, range(inputs.num_classes)))
    dataset = Dataset(name=cell.dataset, train=split, test=split, classes=classes)
    views = torch.randn(size, *inputs.image_shape, generator=generator).to(place, dtype)
    batch = Batch(views, labels.to(place), 1.0)
    with reproducible(inputs.threads):
        answer = _ask_teacher(cell, dataset, batch)
        for number in sizes:
            try:
                figure = _time_step(cell, dataset, number, batch, answer)
            except torch.cuda.OutOfMemoryError:
                return
            if number > 1 and peak_bytes(inputs.device) > limit:
                return
            yield number, figure


def _ask_teacher(cell: Cell, dataset: Dataset, batch: Batch) -> Output | None:
    if not cell.uses_teacher:
        return None
    teacher = start_teacher(cell, dataset, context=SingleProcess(), device=batch.images.device)
    return LiveTeacher(freeze(teacher.network), precision=cell.precision)(batch)


def _time_step(cell: Cell, dataset: Dataset, number: int, one: Batch, answer: Output | None) -> float:
    """Milliseconds per step of a seed, where so many take a step together on the images of one."""
    views, device = one.images, one.images.device
    pack = Pack(
        [start_run(cell, dataset, seed, context=SingleProcess(), device=device) for seed in range(number)]
    )
    pack.train()
    for optimizer in (pack.student_optimizer, pack.discriminator_optimizer):
        if optimizer is not None:
            optimizer.param_groups[0]["lr"] = 1e-6
    answers = None if answer is None else _repeat(answer, number)
    teach = None if answers is None or not cell.stage_uses_teacher(0) else (lambda _: answers)
    step = Step(pack, 0, teach, SingleProcess(), Replays(pack, choose_recorder(pack, 0, SingleProcess())))
    batch = Batch(
        images=views.expand(number, *views.shape).contiguous(),
        labels=one.labels.expand(number, -1),
        share=1.0,
        image_ids=torch.arange(len(views)).expand(number, -1),
    )
    seconds = []
    for _ in range(WARM_UP + REPETITIONS):
        _wait(device)
        began = time.perf_counter()
        step.train(batch)
        _wait(device)
        seconds.append(time.perf_counter() - began)
    # An epoch ends with the test, which takes many images at a time: its memory counts, its time does not.
    tested = torch.zeros(EVALUATION_BATCH[device.type], *views.shape[1:], dtype=views.dtype, device=device)
    with torch.no_grad(), autocast(cell.precision, device):
        pack.classify(tested)
    return 1e3 * statistics.median(seconds[WARM_UP:]) / number


def _repeat(answer: Output, number: int) -> Output:
    def lead(field: object) -> object:
        if isinstance(field, tuple):
            return tuple(map(lead, field))
        return field.expand(number, *field.shape) if isinstance(field, torch.Tensor) else field

    return Output(*map(lead, answer))  # type: ignore[arg-type]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_bytes(device: str) -> int:
    """The most memory that this process has taken so far, of a GPU or of the machine."""
    if device == "cuda":
        return torch.cuda.max_memory_reserved()
    # Not ru_maxrss, which also counts what the process was before it became this program.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].removesuffix("kB"))
