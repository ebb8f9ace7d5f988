import random
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torchvision.transforms import v2

from hkrun.data import load_dataset
from hkrun.data.dataset import channel_statistics
from hkrun.data.views import ViewReader, Views, normalise

CIFAR_VIEWS = Views(padding=4, flip=True)
DIGITS_VIEWS = Views(padding=1, flip=False)
ALL_VIEWS = [CIFAR_VIEWS, DIGITS_VIEWS, Views(padding=0, flip=False), Views(padding=0, flip=True)]


def some_images(channels: int = 3, height: int = 10, width: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(256, (4, channels, height, width), dtype=torch.uint8, generator=generator)


def reader_of(images: torch.Tensor, views: Views, dtype: torch.dtype, device: str = "cpu") -> ViewReader:
    mean, std = channel_statistics(images)
    return ViewReader(images, views=views, mean=mean, std=std, dtype=dtype, device=device)


def naive_view(image: np.ndarray, *, padding: int, top: int, left: int, mirrored: bool) -> np.ndarray:
    """One view of one image [C, H, W], pixel by pixel from its definition."""
    _, height, width = image.shape
    view = np.zeros_like(image)
    for row, column in product(range(height), range(width)):
        source_row = row + top - padding
        source_column = (width - 1 - column if mirrored else column) + left - padding
        if 0 <= source_row < height and 0 <= source_column < width:
            view[:, row, column] = image[:, source_row, source_column]
    return view


def test_the_paper_s_augmentation_has_162_views_and_that_of_digits_9() -> None:
    assert CIFAR_VIEWS.count == 162
    assert DIGITS_VIEWS.count == 9


@pytest.mark.parametrize("views", ALL_VIEWS)
def test_view_numbers_and_places_are_a_bijection(views: Views) -> None:
    top, left, mirrored = views.place(torch.arange(views.count))
    places = list(zip(top.tolist(), left.tolist(), mirrored.tolist(), strict=True))

    offsets = range(2 * views.padding + 1)
    assert set(places) == set(product(offsets, offsets, [False, True] if views.flip else [False]))
    assert len(places) == views.count
    assert [views.view_id(top=t, left=s, mirrored=m) for t, s, m in places] == list(range(views.count))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("views", "channels"), [(CIFAR_VIEWS, 3), (DIGITS_VIEWS, 1), (Views(2, flip=True), 1)]
)
def test_every_view_of_every_image_is_the_naive_pad_crop_and_flip(
    views: Views, channels: int, dtype: torch.dtype
) -> None:
    images = some_images(channels)
    image_ids, view_ids = (
        each.flatten() for each in torch.meshgrid(torch.arange(4), torch.arange(views.count), indexing="ij")
    )

    batch = reader_of(images, views, dtype)(image_ids, view_ids)

    top, left, mirrored = (place.tolist() for place in views.place(view_ids))
    expected = (
        np.stack(
            [
                naive_view(images[image].numpy(), padding=views.padding, top=t, left=s, mirrored=m)
                for image, t, s, m in zip(image_ids.tolist(), top, left, mirrored, strict=True)
            ]
        )
        / 255.0
    )
    pixels = images.numpy() / 255.0
    mean, std = pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3))
    expected = (expected - mean[:, None, None]) / std[:, None, None]
    assert batch.dtype == dtype
    # Two roundings of numbers up to 255, divided by deviations of about 74.
    tolerance = 8 * torch.finfo(dtype).eps
    np.testing.assert_allclose(batch.numpy(), expected, rtol=tolerance, atol=tolerance)


def test_views_are_those_of_torchvision_s_crop_of_zero_padded_images() -> None:
    images = some_images()
    mean, std = channel_statistics(images)
    view_id = CIFAR_VIEWS.view_id(top=7, left=1, mirrored=True)

    batch = reader_of(images, CIFAR_VIEWS, torch.float64)(torch.arange(4), torch.full((4,), view_id))

    padded = v2.functional.pad(images, [4, 4, 4, 4], fill=0)
    cropped = v2.functional.horizontal_flip(v2.functional.crop(padded, top=7, left=1, height=10, width=7))
    expected = v2.functional.normalize(cropped.double() / 255, mean.tolist(), std.tolist())
    torch.testing.assert_close(batch, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("views", ALL_VIEWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_centre_view_is_the_test_time_image_to_the_bit(views: Views, dtype: torch.dtype) -> None:
    images = some_images()
    mean, std = channel_statistics(images)

    batch = reader_of(images, views, dtype)(torch.arange(4), torch.full((4,), views.centre))

    assert torch.equal(batch, normalise(images, mean=mean, std=std, dtype=dtype))


def test_a_batch_may_repeat_and_reorder_images() -> None:
    reader = reader_of(some_images(), CIFAR_VIEWS, torch.float32)
    image_ids, view_ids = torch.tensor([3, 0, 3, 1]), torch.tensor([161, 5, 0, 80])

    batch = reader(image_ids, view_ids)

    for row in range(4):
        assert torch.equal(batch[row : row + 1], reader(image_ids[row : row + 1], view_ids[row : row + 1]))


def test_a_batch_is_a_copy_and_leaves_the_images_alone() -> None:
    images = some_images()
    before = images.clone()
    reader = reader_of(images, Views(padding=0, flip=False), torch.float32)
    image_ids, view_ids = torch.arange(4), torch.zeros(4, dtype=torch.int64)

    first = reader(image_ids, view_ids)
    expected = first.clone()
    first.zero_()

    assert torch.equal(reader(image_ids, view_ids), expected)
    assert torch.equal(images, before)


@pytest.mark.parametrize("views", [CIFAR_VIEWS, DIGITS_VIEWS])
def test_all_views_are_drawn_equally_often(views: Views) -> None:
    draws = views.draw(torch.Generator().manual_seed(11), 200 * views.count)

    assert draws.dtype == torch.int64
    counts = torch.bincount(draws, minlength=views.count)
    assert len(counts) == views.count
    assert chisquare(counts.numpy()).pvalue > 0.01


def test_draws_follow_their_generator_alone() -> None:
    def draws(seed: int, global_seed: int) -> torch.Tensor:
        torch.manual_seed(global_seed)
        return CIFAR_VIEWS.draw(torch.Generator().manual_seed(seed), 100)

    assert torch.equal(draws(1, global_seed=1), draws(1, global_seed=2))
    assert not torch.equal(draws(1, global_seed=1), draws(2, global_seed=1))


def test_the_drawn_views_never_change() -> None:
    """Another mapping of seeds to views would change every result under an unchanged cell_id."""
    assert CIFAR_VIEWS.draw(torch.Generator().manual_seed(0), 8).tolist() == [
        80,
        117,
        47,
        132,
        25,
        105,
        25,
        145,
    ]


def test_drawing_and_reading_touch_no_global_generator() -> None:
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state(legacy=False))
    views = CIFAR_VIEWS.draw(torch.Generator().manual_seed(1), 4)
    reader_of(some_images(), CIFAR_VIEWS, torch.float32)(torch.arange(4), views)
    after = torch.get_rng_state(), random.getstate(), str(np.random.get_state(legacy=False))

    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_normalised_training_images_have_mean_0_and_deviation_1() -> None:
    dataset = load_dataset("digits")

    images = normalise(dataset.train.images, mean=dataset.mean, std=dataset.std, dtype=torch.float64)

    assert abs(images.mean().item()) < 1e-12
    assert images.std(correction=0).item() == pytest.approx(1, abs=1e-12)
