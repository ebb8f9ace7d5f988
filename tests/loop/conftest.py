"""A small data set and small cells that both stages of training run on in a second."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from dataset_example import make_dataset, make_images
from torch.utils._pytree import tree_map

from hkrun.config import Cell, cell_from_values
from hkrun.data import Dataset
from hkrun.distill import Run
from hkrun.models import DistilledNetwork, Output
from hkrun.training import Batch, Images

CPU = torch.device("cpu")
TINY = {
    "teacher.network": "preact-8-w6",
    "teacher.epochs": 2,
    "teacher.batch_size": 16,
    "student.network": "preact-8-w6",
    "student.epochs": 3,
    "student.batch_size": 16,
    "precision": "float64",
    "augment.padding": 1,
}


def tiny_cell(**values: object) -> Cell:
    """A cell on the tiny data; keyword arguments name keys with __ for the dot."""
    given = {key.replace("__", "."): value for key, value in values.items()}
    return cell_from_values({**TINY, **given})  # type: ignore[dict-item]


def make_sets(cell: Cell, dataset: Dataset) -> dict[str, Images]:
    """The sets that both stages take."""
    return {"images": make_images(cell, dataset, CPU)}


def ask_one(teacher: DistilledNetwork | None) -> Callable[[Batch], Output] | None:
    """What a step asks for the teacher's side of each batch."""
    if teacher is None:
        return None

    def teach(batch: Batch) -> Output:
        with torch.no_grad():
            return lead_with(batch.labels.shape[0], teacher(batch.images.flatten(0, 1)))

    return teach


def ask(teacher: DistilledNetwork | None, *runs: Run) -> dict[int, Callable[[Batch], Output]]:
    """What the loop asks for the teacher's side of each batch, for runs of one teacher."""
    teach = ask_one(teacher)
    return {} if teach is None else {run.seed: teach for run in runs}


def lead_with(size: int, output: Output) -> Output:
    """An output [k B, ...] as [k, B, ...]."""
    shaped: Output = tree_map(
        lambda values: values if values is None else values.unflatten(0, (size, -1)), output
    )
    return shaped


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """The data set of `dataset_example`, with 40 training images."""
    return make_dataset(40)


def same_state(first: object, second: object) -> bool:
    """Whether two nested states are equal to the bit."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        assert isinstance(second, dict)
        return first.keys() == second.keys() and all(same_state(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        assert isinstance(second, list | tuple)
        return len(first) == len(second) and all(map(same_state, first, second))
    if dataclasses.is_dataclass(first):
        return bool(first == second)
    return first == second
