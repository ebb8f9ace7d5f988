"""The teacher of a task as the loop asks it: live, or with a table that other tasks fill and read too."""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hkrun.code_identity import find_code
from hkrun.config import Cell, teacher_id
from hkrun.data.dataset import Dataset
from hkrun.data.fetching import default_directory
from hkrun.data.views import ViewReader, Views
from hkrun.knowledge import (
    LiveTeacher,
    RowComputer,
    RowFiles,
    TableTeacher,
    Teaching,
    describe_table,
    file_sizes,
    hash_images,
    table_id,
)
from hkrun.models import DistilledNetwork
from hkrun.processor import processor_name
from hkrun.store import NoSpaceError, TeacherTables, open_store
from hkrun.training import resolve_dtype
from hkrun.trial.environment import describe_code
from hkrun.trial.inputs import TeacherPlace, load_images, load_teacher
from hkrun.trial.task import Task

logger = logging.getLogger("hkrun")


class Teacher(NamedTuple):
    """What a run learns from, and the hash of its weights."""

    teaching: Teaching
    hash: str


def load_teachers(
    cell: Cell, task: Task, seeds: Sequence[int], *, on_fill: Callable[[float], None] | None = None
) -> dict[int, Teacher]:
    """The teacher of each seed; those of one teacher share it. See `load_teaching`.

    Args:
        cell: The configuration.
        task: Who asks.
        seeds: Of the runs that learn.
        on_fill: Told, as tables are filled, which share of what was missing is there, over all of them.
    """
    cells = {seed: cell.with_teacher_of(seed) for seed in seeds}
    first = {own.teacher.seed: own for own in cells.values()}
    loaded: dict[int, Teacher] = {}

    def tell(share: float) -> None:
        if on_fill is not None:
            on_fill((len(loaded) + share) / len(first))

    for teacher_seed, own in first.items():
        loaded[teacher_seed] = Teacher(*load_teaching(own, task, on_fill=tell))
    return {seed: loaded[own.teacher.seed] for seed, own in cells.items()}


def load_teaching(
    cell: Cell, task: Task, *, on_fill: Callable[[float], None] | None = None
) -> tuple[Teaching, str]:
    """The cell's teacher, and the hash of its weights; kept between the trials of a process.

    Where the task says so, the table is filled before this returns. With fewer rows than that, and also
    where the disk has no space for any, the answers are the same to the bit.

    Args:
        cell: The configuration.
        task: Who asks.
        on_fill: Told, as the table is filled, which share of what was missing is there.

    Raises:
        StoreError: The teacher is not in the store, or is damaged; or the store cannot be used.
    """
    place = TeacherPlace(task.store, teacher_id(cell), task.device, cell, task.data_dir)
    network, teacher_hash = load_teacher(place)
    if cell.teacher_table == "off" or not cell.table_parts:
        return _make_live(network, cell), teacher_hash
    parts = tuple(sorted({*cell.table_parts, *task.table_parts}))
    # As many threads as compute, which may be those of a run that is resumed.
    threads = torch.get_num_threads()
    tap = cell.knowledge.tap if "attention_maps" in parts else ""
    teacher = _open(_TablePlace(place, cell.teacher_table, cell.table_parts, parts, tap, threads))
    teacher.begin_run()
    if task.table == "ahead":
        teacher.fill(on_fill)
        _make_reader.cache_clear()  # the loop has images of its own
    teacher.hand_on()  # what runs of earlier processes made whole, too
    if not teacher.is_whole and not teacher.is_steady:
        alarm = "the teacher runs live: what it says of an image depends on the others of its batch"
        logger.info(alarm)
        return _make_live(network, cell, alarm=alarm), teacher_hash
    return teacher, teacher_hash


def _make_live(network: DistilledNetwork, cell: Cell, *, alarm: str = "") -> LiveTeacher:
    if not cell.squeezes:
        network = DistilledNetwork(network.backbone)  # vectors that no term compares are not computed
    return LiveTeacher(network, precision=cell.precision, alarm=alarm)


@dataclass(frozen=True)
class _TablePlace:
    """Which table, and what is asked of it; the teacher's id holds data, augmentation and precision."""

    teacher: TeacherPlace
    storage: str
    asked: tuple[str, ...]
    parts: tuple[str, ...]
    tap: str
    threads: int


# The cells of a sweep ask for different parts of one table, and the runs of a pack may have teachers each.
@functools.lru_cache(maxsize=32)
def _open(place: _TablePlace) -> TableTeacher:
    cell, device = place.teacher.cell, torch.device(place.teacher.device)
    dataset, _ = _load_images(cell.dataset, place.teacher.data_dir)
    network, _ = load_teacher(place.teacher)
    if "knowledge" not in place.parts:
        network = DistilledNetwork(network.backbone)
    dtype = resolve_dtype(cell.precision)
    row_dtype = np.dtype("float16" if place.storage == "float16" else str(dtype).removeprefix("torch."))
    computer = RowComputer(
        network,
        place.parts,
        tap=place.tap,
        image_shape=dataset.image_shape(0),
        precision=cell.precision,
        image_dtype=dtype,
        row_dtype=row_dtype,
        device=device,
    )
    num_views = Views(cell.augment.padding, cell.augment.flip).count
    num_rows = len(dataset.train) * num_views
    tables = TeacherTables(open_store(place.teacher.store), cache=default_directory() / "tables")
    descriptions = _describe(place, computer, num_rows=num_rows, row_dtype=row_dtype)
    rows, alarms = {}, []
    try:
        for part, width in computer.layout.widths.items():
            rows[part] = _open_rows(tables, descriptions[part], num_rows, width, row_dtype)
    except NoSpaceError as error:
        rows, alarms = {}, [f"there is no teacher table, the teacher runs live: {error.message}"]
        logger.warning(alarms[0])

    def read(image_ids: Tensor, view_ids: Tensor) -> Tensor:
        return _make_reader(place.teacher)(image_ids.to(device), view_ids.to(device))

    return TableTeacher(
        computer,
        rows,
        asked=place.asked,
        num_images=len(dataset.train),
        num_views=num_views,
        read=read,
        on_whole=lambda part: tables.finish(table_id(descriptions[part])),
        alarms=alarms,
    )


def _describe(
    place: _TablePlace, computer: RowComputer, *, num_rows: int, row_dtype: np.dtype[Any]
) -> dict[str, dict[str, object]]:
    """By part, all that decides what its table holds."""
    cell, on_cpu = place.teacher.cell, place.teacher.device == "cpu"
    _, images_hash = _load_images(cell.dataset, place.teacher.data_dir)
    _, teacher_hash = load_teacher(place.teacher)
    return {
        part: describe_table(
            part,
            rows=num_rows,
            width=width,
            type=row_dtype.name,
            teacher_id=place.teacher.teacher_id,
            teacher_hash=teacher_hash,
            images=images_hash,
            padding=cell.augment.padding,
            flip=cell.augment.flip,
            precision=cell.precision,
            tap=place.tap if part == "attention_maps" else "",
            pass_size=computer.pass_size,
            device=place.teacher.device,
            machine=_describe_arithmetic(place.teacher.device),
            threads=place.threads if on_cpu else 0,
            torch=torch.__version__,
            **find_code().identity,
        )
        for part, width in computer.layout.widths.items()
    }


def _describe_arithmetic(device: str) -> str:
    """What computes on a device: its model, and the instructions that torch's own code uses on a CPU."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}"


@functools.lru_cache(maxsize=1)
def _make_reader(place: TeacherPlace) -> ViewReader:
    """Reads the views of the training images that the teacher is asked about."""
    cell = place.cell
    dataset, _ = _load_images(cell.dataset, place.data_dir)
    return ViewReader(
        dataset.train.images,
        views=Views(cell.augment.padding, cell.augment.flip),
        mean=dataset.mean,
        std=dataset.std,
        dtype=resolve_dtype(cell.precision),
        device=place.device,
    )


def _open_rows(
    tables: TeacherTables, description: Mapping[str, object], num_rows: int, width: int, dtype: np.dtype[Any]
) -> RowFiles:
    sizes = file_sizes(num_rows, width, dtype)
    while True:
        folder = tables.open(table_id(description), sizes, {**description, "code": describe_code()})
        try:
            return RowFiles(folder, num_rows=num_rows, width=width, dtype=dtype)
        except FileNotFoundError:
            continue  # another process has just given the table its name


@functools.lru_cache(maxsize=2)
def _load_images(name: str, data_dir: str | None) -> tuple[Dataset, str]:
    """A data set whose images lie in memory, and what identifies those it trains on."""
    dataset = load_images(name, data_dir)
    assert isinstance(dataset, Dataset), "streamed images have no table"
    return dataset, hash_images(dataset.train.images, dataset.mean, dataset.std)
