import numpy as np
import pytest
import torch

from hkrun.data import Dataset, Split, fingerprint, load_dataset
from hkrun.data.dataset import channel_statistics, stratified_order
from hkrun.datasets import DATASETS
from hkrun.errors import InputError


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_statistics_of_known_pixels_are_exact() -> None:
    images = torch.tensor([[[[0, 255]], [[51, 51]]], [[[0, 255]], [[51, 102]]]], dtype=torch.uint8)

    mean, std = channel_statistics(images)

    torch.testing.assert_close(mean, torch.tensor([0.5, 0.25], dtype=torch.float64), rtol=1e-15, atol=0)
    expected = torch.tensor(
        [0.5, np.sqrt(3) / 20], dtype=torch.float64
    )  # of 0.2, 0.2, 0.2, 0.4: variance 0.0075
    torch.testing.assert_close(std, expected, rtol=1e-14, atol=0)


def test_statistics_are_the_population_moments_over_all_pixels_of_a_channel() -> None:
    images = random_images(7, 3, 5, 4) // torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None]

    mean, std = channel_statistics(images)

    pixels = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, pixels.std(axis=(0, 2, 3), ddof=0), rtol=1e-13)
    # CIFAR-10's often copied figures are something else: the mean of the images' own deviations.
    assert (std.numpy() > 1.001 * pixels.std(axis=(2, 3)).mean(axis=0)).all()


def test_statistics_come_from_the_training_images_alone() -> None:
    train, test = random_images(4, 1, 3, 3), torch.zeros(2, 1, 3, 3, dtype=torch.uint8)
    dataset = Dataset(
        name="some",
        train=Split(train, torch.tensor([0, 1, 2, 0])),
        test=Split(test, torch.tensor([0, 1])),
        classes=("a", "b", "c"),
    )

    assert torch.equal(dataset.mean, channel_statistics(train)[0])
    assert torch.equal(dataset.std, channel_statistics(train)[1])
    assert dataset.num_classes == 3
    assert (len(dataset.train), len(dataset.test)) == (4, 2)


def test_stratified_order_gives_every_stretch_its_share_of_each_class() -> None:
    labels = [0] * 60 + [1] * 30 + [2] * 10
    order = stratified_order(labels, name="some")

    assert sorted(order) == list(range(100))
    for start in range(0, 100, 7):
        for stop in range(start + 1, 101):
            counts = np.bincount([labels[index] for index in order[start:stop]], minlength=3)
            assert np.abs(counts - (stop - start) * np.array([0.6, 0.3, 0.1])).max() <= 2


def test_stratified_order_depends_on_the_data_set_s_name_and_mixes_within_a_class() -> None:
    order = stratified_order([0] * 50, name="some")

    assert order == stratified_order([0] * 50, name="some")
    assert order != stratified_order([0] * 50, name="other")
    assert order != sorted(order)


def test_unknown_data_set_names_the_nearest_and_all() -> None:
    with pytest.raises(
        InputError, match=r"'cifar-10' is no data set; one of digits, mnist5k, .*did you mean 'cifar10'"
    ):
        load_dataset("cifar-10")


def test_every_data_set_that_a_cell_may_name_has_a_loader() -> None:
    from hkrun.config import keys

    _, _, info = keys()["dataset"]
    assert set(info.choices) == set(DATASETS)


@pytest.mark.parametrize("name", ["digits", "mnist5k", "cifar10", "cifar100"])
def test_published_data_sets_need_no_fingerprint(name: str) -> None:
    assert fingerprint(name, None) == ""
