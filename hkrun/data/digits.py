"""`digits`: 1,797 real handwritten digits of 8x8 pixels, embedded in the package.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49, licensed CC BY 4.0; the part that scikit-learn's
`load_digits` holds, in its order. `digits.npz` keeps it as two uint8 arrays: `images` [1797, 8, 8] and
`labels` [1797]. A pixel counts the ink in a 4x4 block of the scanned bitmap and is one of 0..16; the values
are kept as they are, since normalisation divides by the training images' own deviation.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch

from hkrun.data.dataset import Dataset, Split, stratified_order
from hkrun.errors import DataError

FILE = Path(__file__).with_name("digits.npz")
FILE_SHA256 = "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e"

NUM_TEST = 1107  # one test image is 0.0903 percentage points
MAX_NUM_TRAIN = 1797 - NUM_TEST
NUM_TRAIN = 300  # by measurement: benchmarks/digits_recipe.md


def load_digits() -> Dataset:
    """The digits as hkrun uses them: NUM_TRAIN training images and NUM_TEST test images."""
    return split_digits(NUM_TRAIN)


def split_digits(num_train: int) -> Dataset:
    """The digits with a chosen number of training images, from 1 to MAX_NUM_TRAIN.

    The test images are the same for every choice, and a smaller training set is part of every larger one.
    Both are stratified.

    Raises:
        ValueError: The number is out of range.
        DataError: The embedded file is damaged.
    """
    if not 1 <= num_train <= MAX_NUM_TRAIN:
        raise ValueError(f"num_train = {num_train} is out of range; allowed are 1 to {MAX_NUM_TRAIN}")
    images, labels = _read()
    order = torch.tensor(stratified_order(labels.tolist(), name="digits"))
    train, test = order[:num_train], order[-NUM_TEST:]
    return Dataset(
        name="digits",
        train=Split(images[train], labels[train]),
        test=Split(images[test], labels[test]),
        classes=tuple("0123456789"),
    )


def _read() -> tuple[torch.Tensor, torch.Tensor]:
    """Images [1797, 1, 8, 8] and labels [1797] in the file's order."""
    content = FILE.read_bytes()
    if hashlib.sha256(content).hexdigest() != FILE_SHA256:
        raise DataError(f"{FILE}: the embedded digits are damaged; install hkrun again")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return torch.from_numpy(arrays["images"][:, None]), torch.from_numpy(
            arrays["labels"].astype(np.int64)
        )
