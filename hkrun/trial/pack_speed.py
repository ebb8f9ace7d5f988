"""How fast runs of a cell train together, measured: time per step of a seed against the size of the pack."""

import resource
import statistics
import time
from collections.abc import Sequence

import torch

from hkrun.config import Cell
from hkrun.data.dataset import Dataset, Split
from hkrun.distill import Pack, Step, start_run
from hkrun.knowledge import LiveTeacher
from hkrun.models import Output
from hkrun.teacher import freeze, start_teacher
from hkrun.training import Alone, Batch, resolve_dtype
from hkrun.trial.surroundings import reproducible

WARM_UP = 2
REPETITIONS = 7


def measure_packs(
    cell: Cell,
    sizes: Sequence[int],
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    threads: int,
    device: str,
    memory_bytes: int,
) -> dict[int, float]:
    """Milliseconds per step of a seed, by how many seeds take it together; by the median.

    The networks are the cell's own in their initial state, the images random, and the teacher's answers are
    there already, as they are from a table.

    Args:
        cell: The configuration.
        sizes: What to measure, rising.
        num_classes: Of its data set.
        image_shape: Channels, height and width of its images.
        threads: Of the process.
        device: "cpu" or "cuda".
        memory_bytes: What a process may take; sizes beyond the first that takes more are left out.
    """
    place, dtype = torch.device(device), resolve_dtype(cell.precision)
    generator = torch.Generator().manual_seed(0)
    size = cell.student.batch_size
    images = torch.randint(0, 256, (size, *image_shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, num_classes, (size,), generator=generator)
    split = Split(images, labels)
    classes = tuple(map(str, range(num_classes)))
    dataset = Dataset(name=cell.dataset, train=split, test=split, classes=classes)
    views = torch.randn(size, *image_shape, generator=generator).to(place, dtype)
    figures: dict[int, float] = {}
    with reproducible(threads):
        answer = _ask_teacher(cell, dataset, views, place)
        for number in sizes:
            try:
                figures[number] = _time_step(cell, dataset, number, views, labels.to(place), answer, place)
            except torch.cuda.OutOfMemoryError:
                break
            if _peak_bytes(device) > memory_bytes:
                if len(figures) > 1:
                    del figures[number]
                break
    return figures


def _ask_teacher(cell: Cell, dataset: Dataset, views: torch.Tensor, device: torch.device) -> Output | None:
    if not cell.uses_teacher:
        return None
    network = freeze(start_teacher(cell, dataset, context=Alone(), device=device).network)
    batch = Batch(views, torch.zeros(len(views)), 1.0)
    return LiveTeacher(network, precision=cell.precision)(batch)


def _time_step(
    cell: Cell,
    dataset: Dataset,
    number: int,
    views: torch.Tensor,
    labels: torch.Tensor,
    answer: Output | None,
    device: torch.device,
) -> float:
    pack = Pack([start_run(cell, dataset, seed, context=Alone(), device=device) for seed in range(number)])
    pack.train()
    for optimizer in (pack.student_optimizer, pack.discriminator_optimizer):
        if optimizer is not None:
            optimizer.param_groups[0]["lr"] = 1e-6
    answers = None if answer is None else _repeat(answer, number)
    teach = None if answers is None or not cell.stage_uses_teacher(0) else (lambda _: answers)
    step = Step(pack, 0, teach, Alone())
    batch = Batch(views.expand(number, *views.shape).contiguous(), labels.expand(number, -1), 1.0)
    seconds = []
    for _ in range(WARM_UP + REPETITIONS):
        _wait(device)
        began = time.perf_counter()
        step.train(batch)
        _wait(device)
        seconds.append(time.perf_counter() - began)
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


def _peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
