"""Data sets, as uint8 tensors or encoded where they lie, and the views of their images that training sees."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from hkrun.config import nearest
from hkrun.data.cifar import load_cifar
from hkrun.data.dataset import Dataset, Split
from hkrun.data.digits import load_digits
from hkrun.data.encoded import EncodedSplit, StreamedDataset
from hkrun.data.folder import fingerprint_folder, load_folder
from hkrun.data.imagenet import fingerprint_imagenet, load_imagenet
from hkrun.data.mnist5k import load_mnist5k
from hkrun.data.own import load_own
from hkrun.errors import DataError, InputError
from hkrun.redaction import redact
from hkrun.user_parts import is_own

__all__ = [
    "DATASETS",
    "Dataset",
    "EncodedSplit",
    "Split",
    "StreamedDataset",
    "fingerprint",
    "load_dataset",
]

# Name -> loader, given where the user's files are (or None) and whether it may download.
DATASETS: Mapping[str, Callable[[Path | str | None, bool], Dataset | StreamedDataset]] = MappingProxyType(
    {
        "digits": lambda _data_dir, _download: load_digits(),
        "mnist5k": lambda _data_dir, _download: load_mnist5k(),
        "cifar10": lambda data_dir, download: load_cifar(
            "cifar10", data_dir=_local("cifar10", data_dir), download=download
        ),
        "cifar100": lambda data_dir, download: load_cifar(
            "cifar100", data_dir=_local("cifar100", data_dir), download=download
        ),
        "folder": lambda data_dir, _download: load_folder(data_dir=_local("folder", data_dir)),
        "imagenet": lambda data_dir, _download: load_imagenet(data_dir=data_dir),
    }
)


def load_dataset(
    name: str, *, data_dir: Path | str | None = None, download: bool = True
) -> Dataset | StreamedDataset:
    """Loads a data set, or finds where its images lie.

    Args:
        name: One of DATASETS, or `package.module:name` of the user's own.
        data_dir: Where its files are, or are downloaded to; the data sets that come in a package need none.
            The shards of `imagenet` may be at a URI such as s3://bucket/prefix.
        download: Whether missing files may be fetched.

    Raises:
        InputError: No data set of that name, or an own one is unsound.
        DataError: Its files are missing or damaged; the message says what to put where.
    """
    if is_own(name):
        return load_own(name, data_dir=_local(name, data_dir))
    if name not in DATASETS:
        raise InputError(f"{name!r} is no data set; one of {', '.join(DATASETS)}{nearest(name, DATASETS)}")
    return DATASETS[name](data_dir, download)


def fingerprint(name: str, data_dir: Path | str | None) -> str:
    """What identifies a data set's content beyond its name: a SHA-256 in hex, or "" where nothing does.

    Only `folder` and `imagenet` can differ under one name: the content of the others is checked against
    published sums on loading.

    Raises:
        DataError: The data set is not laid out as it must be.
    """
    if name == "folder":
        return fingerprint_folder(data_dir=_local(name, data_dir))
    return fingerprint_imagenet(data_dir=data_dir) if name == "imagenet" else ""


def _local(name: str, data_dir: Path | str | None) -> Path | None:
    """A directory of this machine.

    Raises:
        DataError: It is a URI.
    """
    if data_dir is not None and "://" in str(data_dir):
        raise DataError(f"{name}: its files must lie in a local directory; --data is {redact(str(data_dir))}")
    return None if data_dir is None else Path(data_dir)
