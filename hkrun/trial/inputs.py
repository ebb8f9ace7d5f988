"""What a task reads: images on their device and the frozen teacher, kept between the trials of a process."""

import functools
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import torch

from hkrun.config import Cell
from hkrun.data import Dataset, load_dataset
from hkrun.data.views import Views
from hkrun.errors import StoreError
from hkrun.models import DistilledNetwork
from hkrun.store import open_store
from hkrun.teacher import build_teacher, freeze, hash_weights
from hkrun.training import EvaluationSet, TrainingSet, resolve_dtype
from hkrun.trial.task import Task


def load_sets(cell: Cell, task: Task) -> tuple[Dataset, TrainingSet, EvaluationSet]:
    """The cell's images on their device; kept between the trials of a process."""
    views = Views(cell.augment.padding, cell.augment.flip)
    return _sets(cell.dataset, task.data_dir, views, cell.precision, task.device)


@functools.lru_cache(maxsize=2)
def _sets(
    name: str, data_dir: str | None, views: Views, precision: str, device: str
) -> tuple[Dataset, TrainingSet, EvaluationSet]:
    dataset = _load_dataset(name, data_dir)
    dtype, place = resolve_dtype(precision), torch.device(device)
    test = dataset.test
    return (
        dataset,
        TrainingSet(dataset, views, dtype=dtype, device=place),
        EvaluationSet(test.images, test.labels, dataset, dtype=dtype, device=place),
    )


@functools.lru_cache(maxsize=2)
def _load_dataset(name: str, data_dir: str | None) -> Dataset:
    return load_dataset(name, data_dir=None if data_dir is None else Path(data_dir))


@dataclass(frozen=True)
class TeacherPlace:
    """Which teacher, and what it takes to build it; equal wherever the teacher is the same."""

    store: str
    teacher_id: str
    device: str
    cell: Cell = field(compare=False)
    data_dir: str | None = field(compare=False)


@functools.lru_cache(maxsize=2)
def load_teacher(place: TeacherPlace) -> tuple[DistilledNetwork, str]:
    """The frozen teacher and the hash of its weights; kept between the trials of a process.

    Raises:
        StoreError: The teacher is not in the store, or is damaged.
    """
    store, cell = open_store(place.store), place.cell
    where = f"{store.place}: teachers/{place.teacher_id}"
    record = store.teacher(place.teacher_id)
    if record is None:
        raise StoreError(f"{where}: no such teacher; `hkrun teacher` trains it")
    network = build_teacher(cell, _load_dataset(cell.dataset, place.data_dir))
    network.to(resolve_dtype(cell.precision))
    weights = store.teacher_weights(place.teacher_id)
    network.load_state_dict(torch.load(BytesIO(weights), map_location="cpu", weights_only=True))
    if hash_weights(network) != record.teacher_hash:
        raise StoreError(f"{where}: the weights are not those of its record")
    return freeze(network.to(place.device)), record.teacher_hash
