import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from hkrun.data import digits, load_dataset
from hkrun.errors import DataError


@pytest.fixture(scope="module")
def original() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # takes a second, which each process that collects would have

    bunch = load_digits()
    return bunch.images, bunch.target


def rows(images: torch.Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_embedded_images_are_scikit_learn_s_in_order(original: tuple[np.ndarray, np.ndarray]) -> None:
    with np.load(digits.FILE) as arrays:
        assert arrays["images"].dtype == arrays["labels"].dtype == np.uint8
        np.testing.assert_array_equal(arrays["images"], original[0])
        np.testing.assert_array_equal(arrays["labels"], original[1])


def test_train_and_test_are_apart_and_labelled_as_in_scikit_learn(
    original: tuple[np.ndarray, np.ndarray],
) -> None:
    dataset = digits.split_digits(digits.MAX_NUM_TRAIN)
    labels = {image.astype(np.uint8).tobytes(): label for image, label in zip(*original, strict=True)}
    assert len(labels) == 1797  # no image occurs twice, so bytes identify it

    assert rows(dataset.train.images) | rows(dataset.test.images) == set(labels)
    assert not rows(dataset.train.images) & rows(dataset.test.images)
    for split in (dataset.train, dataset.test):
        assert split.images.shape[1:] == (1, 8, 8)
        assert [labels[image.numpy().tobytes()] for image in split.images] == split.labels.tolist()


def test_one_test_image_is_less_than_a_tenth_of_a_percentage_point() -> None:
    dataset = load_dataset("digits")

    assert len(dataset.train) == digits.NUM_TRAIN
    assert len(dataset.test) >= 1100
    assert 100 / len(dataset.test) < 0.1


@pytest.mark.parametrize("num_train", [100, 300, 500, 690])
def test_every_split_is_stratified(num_train: int, original: tuple[np.ndarray, np.ndarray]) -> None:
    dataset = digits.split_digits(num_train)
    share = np.bincount(original[1]) / 1797

    for split in (dataset.train, dataset.test):
        assert np.abs(torch.bincount(split.labels).numpy() - share * len(split)).max() <= 2


def test_smaller_training_sets_are_nested_and_the_test_images_never_change() -> None:
    largest = digits.split_digits(690)
    for num_train in (1, 300, 500):
        smaller = digits.split_digits(num_train)
        assert torch.equal(smaller.train.images, largest.train.images[:num_train])
        assert torch.equal(smaller.train.labels, largest.train.labels[:num_train])
        assert torch.equal(smaller.test.images, largest.test.images)
        assert torch.equal(smaller.test.labels, largest.test.labels)


def test_the_split_never_changes() -> None:
    """Another split would change every result under an unchanged cell_id."""
    dataset = digits.split_digits(690)
    digests = [
        hashlib.sha256(split.images.numpy().tobytes() + split.labels.numpy().tobytes()).hexdigest()[:16]
        for split in (dataset.train, dataset.test)
    ]

    assert digests == ["a0e656b2bd11bb9e", "bb5d101b7225988f"]


def test_loading_touches_no_global_generator() -> None:
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state(legacy=False))
    load_dataset("digits")
    after = torch.get_rng_state(), random.getstate(), str(np.random.get_state(legacy=False))

    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


@pytest.mark.parametrize("num_train", [0, -1, 691])
def test_impossible_sizes_are_refused(num_train: int) -> None:
    with pytest.raises(ValueError, match="allowed are 1 to 690"):
        digits.split_digits(num_train)


def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "digits.npz"
    content = bytearray(digits.FILE.read_bytes())
    content[1000] ^= 1
    damaged.write_bytes(content)
    monkeypatch.setattr(digits, "FILE", damaged)

    with pytest.raises(DataError, match=r"digits\.npz: the embedded digits are damaged; install hkrun again"):
        load_dataset("digits")
