"""A small data set as tensors, and the sets that training reads; needs torch alone, as tests of a GPU do."""

import torch

from hkrun.config import Cell
from hkrun.data.dataset import Dataset, Split
from hkrun.data.views import Views
from hkrun.training import Images, ResidentEvaluationSet, ResidentTrainingSet, resolve_dtype


def make_dataset(num_train: int) -> Dataset:
    """So many training and 30 test images of three classes that differ in brightness of a corner."""
    generator = torch.Generator().manual_seed(7)

    def split(number: int) -> Split:
        labels = torch.arange(number) % 3
        images = torch.randint(0, 120, (number, 2, 8, 8), generator=generator)
        images[:, :, :4, :4] += (60 * labels)[:, None, None, None]
        return Split(images.to(torch.uint8), labels)

    return Dataset(name="digits", train=split(num_train), test=split(30), classes=("a", "b", "c"))


def make_images(cell: Cell, dataset: Dataset, device: torch.device) -> Images:
    """The sets that a cell is trained and tested on."""
    dtype, test = resolve_dtype(cell.precision), dataset.test
    views = Views(cell.augment.padding, cell.augment.flip)
    return Images(
        ResidentTrainingSet(dataset, views, dtype=dtype, device=device),
        ResidentEvaluationSet(test.images, test.labels, dataset, dtype=dtype, device=device),
    )
