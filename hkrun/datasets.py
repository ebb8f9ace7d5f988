"""The data sets as facts: how each is loaded, and what is known of it before it is read.

All that is asked about a data set by its name follows from its entry here. `hkrun.data` reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """A data set.

    Attributes:
        summary: What it is.
        loader: The function that loads it, `module:name`. It takes `data_dir` unless the images come in a
            package, and `download` where it can fetch them.
        files: Where its images come from: "embedded" in hkrun, an "extra" package, "downloaded" by the sweep
            that needs them, or "given" with --data.
        num_train: Training images; None where they differ under one name.
        num_test: Test images; likewise.
        num_classes: Classes; likewise.
        side: Height and width of the images as networks see them; None where they differ or a key says it.
        streamed: Whether its images are decoded while they train, from wherever they lie, a URI too.
        fingerprint: The function that identifies its content where that can differ under one name,
            `module:name`; empty where it is checked against published sums on loading.
        reader: The function that reads it whole for `hkrun data verify`, `module:name`; empty where loading
            it does.
        published_as: What tables in papers call it.
    """

    summary: str
    loader: str
    files: Literal["embedded", "extra", "downloaded", "given"]
    num_train: int | None = None
    num_test: int | None = None
    num_classes: int | None = None
    side: int | None = None
    streamed: bool = False
    fingerprint: str = ""
    reader: str = ""
    published_as: str = ""


DATASETS: Mapping[str, DatasetEntry] = MappingProxyType(
    {
        "digits": DatasetEntry(
            summary="1,797 handwritten digits of 8x8 pixels",
            loader="hkrun.data.digits:load_digits",
            files="embedded",
            num_train=300,
            num_test=1107,
            num_classes=10,
            side=8,
        ),
        "mnist5k": DatasetEntry(
            summary="5,000 images of MNIST",
            loader="hkrun.data.mnist5k:load_mnist5k",
            files="extra",
            num_train=4000,
            num_test=1000,
            num_classes=10,
            side=32,
        ),
        "cifar10": DatasetEntry(
            summary="CIFAR-10",
            loader="hkrun.data.cifar:load_cifar10",
            files="downloaded",
            num_train=50_000,
            num_test=10_000,
            num_classes=10,
            side=32,
            published_as="CIFAR-10",
        ),
        "cifar100": DatasetEntry(
            summary="CIFAR-100",
            loader="hkrun.data.cifar:load_cifar100",
            files="downloaded",
            num_train=50_000,
            num_test=10_000,
            num_classes=100,
            side=32,
            published_as="CIFAR-100",
        ),
        "folder": DatasetEntry(
            summary="any directory of class folders",
            loader="hkrun.data.folder:load_folder",
            files="given",
            fingerprint="hkrun.data.folder:fingerprint_folder",
            reader="hkrun.data.folder:read_folder",
        ),
        "imagenet": DatasetEntry(
            summary="ILSVRC 2012, or other images in its layout",
            loader="hkrun.data.imagenet:load_imagenet",
            files="given",
            num_test=50_000,
            num_classes=1000,
            streamed=True,
            fingerprint="hkrun.data.imagenet:fingerprint_imagenet",
            published_as="ImageNet",
        ),
    }
)
# Whose recipe a data set of the user's own takes that has none.
RECIPE_OF_OWN = "folder"
_OWN = DatasetEntry(summary="of the user's own", loader="", files="given")


def find_dataset(name: str) -> DatasetEntry:
    """The entry of a data set; that of `package.module:name` knows nothing."""
    return DATASETS.get(name, _OWN)
