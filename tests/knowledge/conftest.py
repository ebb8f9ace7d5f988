"""A small teacher, images, and a table of its answers."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from hkrun.data.dataset import Dataset, Split
from hkrun.data.views import ViewReader, Views
from hkrun.knowledge import RowComputer, RowFiles, TableTeacher, file_sizes
from hkrun.models import AttentionEstimator, DistilledNetwork, build_network, initialise
from hkrun.teacher import freeze

VIEWS = Views(padding=1, flip=False)
CPU = torch.device("cpu")


class Batch(NamedTuple):
    images: Tensor
    image_ids: Tensor | None
    view_ids: Tensor | None


def make_images(num_images: int = 20, side: int = 8) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (num_images, 1, side, side), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(num_images) % 10)
    return Dataset("noise", split, split, tuple("0123456789"))


def make_reader(dataset: Dataset, dtype: torch.dtype = torch.float32) -> ViewReader:
    return ViewReader(
        dataset.train.images, views=VIEWS, mean=dataset.mean, std=dataset.std, dtype=dtype, device=CPU
    )


def make_network(dtype: torch.dtype = torch.float32, *, seed: int = 0) -> DistilledNetwork:
    backbone = build_network("preact-8-w8", num_classes=10, in_channels=1)
    attention = AttentionEstimator(
        backbone.widths,
        descriptor_width=backbone.descriptor_width,
        connection="hierarchical",
        pool="sum",
        tap="bn_relu",
    )
    network = DistilledNetwork(backbone, attention)
    initialise(network, torch.Generator().manual_seed(seed))
    network.to(dtype).train()(torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(5)).to(dtype))
    return freeze(network)


def make_computer(
    network: DistilledNetwork,
    parts: tuple[str, ...] = ("logits", "knowledge"),
    *,
    precision: str = "float32",
    storage: str | None = None,
    tap: str = "raw",
) -> RowComputer:
    dtype = torch.float64 if precision == "float64" else torch.float32
    return RowComputer(
        network,
        parts,
        tap=tap,
        image_shape=(1, 8, 8),
        precision=precision,
        image_dtype=dtype,
        row_dtype=np.dtype(storage or str(dtype).removeprefix("torch.")),
        device=CPU,
    )


def make_rows(folder: Path, *, num_rows: int, width: int, dtype: str = "float32") -> RowFiles:
    kind: np.dtype[Any] = np.dtype(dtype)
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in file_sizes(num_rows, width, kind).items():
        with (folder / name).open("ab") as file:
            file.truncate(size)
    return RowFiles(folder, num_rows=num_rows, width=width, dtype=kind)


def make_table(
    folder: Path, computer: RowComputer, dataset: Dataset, *, dtype: str = "float32", keep: bool = True
) -> TableTeacher:
    """A table in a folder; two in one folder share their rows."""
    num_images = len(dataset.train)
    tables = {
        part: make_rows(folder / part, num_rows=num_images * VIEWS.count, width=width, dtype=dtype)
        for part, width in computer.layout.widths.items()
    }
    images_dtype = torch.float64 if dtype == "float64" else torch.float32
    return TableTeacher(
        computer,
        tables if keep else {},
        asked=computer.layout.parts,
        num_images=num_images,
        num_views=VIEWS.count,
        read=make_reader(dataset, images_dtype),
        on_whole=lambda _: None,
    )


def make_batch(
    dataset: Dataset, shape: tuple[int, ...] = (16,), *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    image_ids = torch.randint(len(dataset.train), shape, generator=generator)
    view_ids = torch.randint(VIEWS.count, shape, generator=generator)
    images = make_reader(dataset, dtype)(image_ids.flatten(), view_ids.flatten())
    return Batch(images.reshape(*shape, *images.shape[1:]), image_ids, view_ids)


class Counter:
    """Counts the images that a network is shown."""

    def __init__(self, network: DistilledNetwork) -> None:
        self.passes = 0
        network.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.passes += 1


@pytest.fixture
def dataset() -> Dataset:
    return make_images()


@pytest.fixture
def network() -> DistilledNetwork:
    return make_network()
