"""What a task reads: images on their device and the frozen teacher, kept between the trials of a process."""

import functools
from dataclasses import dataclass, field
from io import BytesIO

import torch

from hkrun.config import AugmentConfig, Cell
from hkrun.data import load_dataset
from hkrun.data.dataset import Dataset, Split
from hkrun.data.encoded import EncodedSplit, StreamedDataset
from hkrun.data.views import Views
from hkrun.errors import StoreError
from hkrun.models import DistilledNetwork
from hkrun.store import open_store
from hkrun.teacher import build_teacher, freeze, hash_weights
from hkrun.training import (
    EvaluationSet,
    Images,
    ResidentEvaluationSet,
    ResidentTrainingSet,
    StreamedEvaluationSet,
    StreamedTrainingSet,
    TrainingSet,
    resolve_dtype,
)
from hkrun.trial.task import Task


def load_sets(cell: Cell, task: Task) -> tuple[Dataset | StreamedDataset, Images]:
    """The cell's images, on their device or decoded as they are needed; kept between a process's trials."""
    return _sets(_ImagesPlace(task.data_dir, task.device, cell.dataset, cell.augment, cell.precision, cell))


@dataclass(frozen=True)
class _ImagesPlace:
    """Which images, and how they are read; equal wherever the sets are the same."""

    data_dir: str | None
    device: str
    dataset: str
    augment: AugmentConfig
    precision: str
    cell: Cell = field(compare=False)


@functools.lru_cache(maxsize=2)
def _sets(place: _ImagesPlace) -> tuple[Dataset | StreamedDataset, Images]:
    dataset, device = load_images(place.dataset, place.data_dir), torch.device(place.device)
    dtype, augment = resolve_dtype(place.precision), place.augment
    training_set: TrainingSet
    if isinstance(dataset, StreamedDataset):
        training_set = StreamedTrainingSet(
            dataset, size=augment.size, flip=augment.flip, dtype=dtype, device=device
        )
    else:
        views = Views(augment.padding, augment.flip)
        training_set = ResidentTrainingSet(dataset, views, dtype=dtype, device=device)
    test_set = make_evaluation_set(dataset.test, dataset, place.cell, device=device)
    return dataset, Images(training_set, test_set)


def make_evaluation_set(
    split: Split | EncodedSplit, dataset: Dataset | StreamedDataset, cell: Cell, *, device: torch.device
) -> EvaluationSet:
    """One part of a data set, to evaluate on."""
    dtype = resolve_dtype(cell.precision)
    if isinstance(dataset, StreamedDataset):
        assert isinstance(split, EncodedSplit)
        return StreamedEvaluationSet(split, dataset, size=cell.augment.size, dtype=dtype, device=device)
    assert isinstance(split, Split)
    return ResidentEvaluationSet(split.images, split.labels, dataset, dtype=dtype, device=device)


@functools.lru_cache(maxsize=2)
def load_images(name: str, data_dir: str | None) -> Dataset | StreamedDataset:
    """A data set; kept between the trials of a process."""
    return load_dataset(name, data_dir=data_dir)


@dataclass(frozen=True)
class TeacherPlace:
    """Which teacher, and what it takes to build it; equal wherever the teacher is the same."""

    store: str
    teacher_id: str
    device: str
    cell: Cell = field(compare=False)
    data_dir: str | None = field(compare=False)


@functools.lru_cache(maxsize=20)  # as many as the runs of a pack, which the next cell's pack asks too
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
    network = build_teacher(cell, load_images(cell.dataset, place.data_dir))
    network.to(resolve_dtype(cell.precision))
    network.lay_out()
    weights = store.teacher_weights(place.teacher_id)
    network.load_state_dict(torch.load(BytesIO(weights), map_location="cpu", weights_only=True))
    if hash_weights(network) != record.teacher_hash:
        raise StoreError(f"{where}: the weights are not those of its record")
    return freeze(network.to(place.device)), record.teacher_hash
