"""Data sets as uint8 tensors, and the views of their images that training sees."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from hkrun.config import nearest
from hkrun.data.cifar import load_cifar
from hkrun.data.dataset import Dataset, Split
from hkrun.data.digits import load_digits
from hkrun.data.folder import fingerprint_folder, load_folder
from hkrun.data.mnist5k import load_mnist5k
from hkrun.errors import InputError

__all__ = ["DATASETS", "Dataset", "Split", "fingerprint", "load_dataset"]

# Name -> loader, given the directory of the user's files (or None) and whether it may download.
DATASETS: Mapping[str, Callable[[Path | None, bool], Dataset]] = MappingProxyType(
    {
        "digits": lambda _data_dir, _download: load_digits(),
        "mnist5k": lambda _data_dir, _download: load_mnist5k(),
        "cifar10": lambda data_dir, download: load_cifar("cifar10", data_dir=data_dir, download=download),
        "cifar100": lambda data_dir, download: load_cifar("cifar100", data_dir=data_dir, download=download),
        "folder": lambda data_dir, _download: load_folder(data_dir=data_dir),
    }
)


def load_dataset(name: str, *, data_dir: Path | None = None, download: bool = True) -> Dataset:
    """Loads a data set.

    Args:
        name: One of DATASETS.
        data_dir: Where its files are, or are downloaded to; the data sets that come in a package need none.
        download: Whether missing files may be fetched.

    Raises:
        InputError: No data set of that name.
        DataError: Its files are missing or damaged; the message says what to put where.
    """
    if name not in DATASETS:
        raise InputError(f"{name!r} is no data set; one of {', '.join(DATASETS)}{nearest(name, DATASETS)}")
    return DATASETS[name](data_dir, download)


def fingerprint(name: str, data_dir: Path | None) -> str:
    """What identifies a data set's content beyond its name: a SHA-256 in hex for `folder`, else "".

    The others cannot differ under one name, since their content is checked against published sums on loading.

    Raises:
        DataError: The directory is not laid out as `folder` needs it.
    """
    return fingerprint_folder(data_dir=data_dir) if name == "folder" else ""
