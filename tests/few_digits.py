"""`digits` with fewer images: for tests of what is kept of a run, not of what it learns."""

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest

from hkrun.data.dataset import Dataset, Split
from hkrun.data.digits import split_digits
from hkrun.trial import inputs, teacher_answers

# As of most data sets, the last batch is short: of training (64; it is dropped), of evaluation (256) and,
# with nine views of each image, the last block of the teacher's table (64 rows).
NUM_TRAIN, NUM_TEST = 140, 300


def load(name: str, *, data_dir: str | None) -> Dataset:
    """The first of its training and of its test images."""
    assert (name, data_dir) == ("digits", None)
    digits = split_digits(NUM_TRAIN)
    test = Split(digits.test.images[:NUM_TEST], digits.test.labels[:NUM_TEST])
    return dataclasses.replace(digits, test=test)


@contextlib.contextmanager
def few_for_tasks() -> Iterator[None]:
    """Within the block the tasks of this process train and test on few digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "load_dataset", load)
        _forget()
        yield
    _forget()


def _forget() -> None:
    """Forgets what a process keeps between its trials of a data set and of what follows from it."""
    for kept in (
        inputs.load_images,
        inputs._sets,
        inputs.load_teacher,
        teacher_answers._load_images,
        teacher_answers._make_reader,
        teacher_answers._open,
    ):
        kept.cache_clear()
