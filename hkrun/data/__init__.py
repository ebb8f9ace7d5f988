"""Data sets, as uint8 tensors or encoded where they lie, and the views of their images that training sees."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hkrun.config import nearest
from hkrun.data.dataset import Dataset, Split
from hkrun.data.encoded import EncodedSplit, StreamedDataset
from hkrun.data.own import load_own
from hkrun.datasets import DATASETS, find_dataset
from hkrun.errors import DataError, InputError
from hkrun.redaction import redact
from hkrun.user_parts import is_own

__all__ = [
    "Dataset",
    "EncodedSplit",
    "Split",
    "StreamedDataset",
    "fingerprint",
    "load_dataset",
]


def load_dataset(
    name: str, *, data_dir: Path | str | None = None, download: bool = True
) -> Dataset | StreamedDataset:
    """Loads a data set, or finds where its images lie.

    Args:
        name: One of `hkrun.datasets.DATASETS`, or `package.module:name` of the user's own.
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
    entry = DATASETS[name]
    arguments: dict[str, Any] = {}
    if entry.files in ("downloaded", "given"):
        arguments["data_dir"] = data_dir if entry.streamed else _local(name, data_dir)
    if entry.files == "downloaded":
        arguments["download"] = download
    dataset: Dataset | StreamedDataset = find_function(entry.loader)(**arguments)
    return dataset


def fingerprint(name: str, data_dir: Path | str | None) -> str:
    """What identifies a data set's content beyond its name: a SHA-256 in hex, or "" where nothing does.

    Raises:
        DataError: The data set is not laid out as it must be.
    """
    entry = find_dataset(name)
    if not entry.fingerprint:
        return ""
    place = data_dir if entry.streamed else _local(name, data_dir)
    return str(find_function(entry.fingerprint)(data_dir=place))


def find_function(path: str) -> Callable[..., Any]:
    """A function that an entry names as `module:name`; its module is imported when it is needed."""
    module, _, function = path.partition(":")
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]


def _local(name: str, data_dir: Path | str | None) -> Path | None:
    """A directory of this machine."""
    if data_dir is not None and "://" in str(data_dir):
        raise DataError(f"{name}: its files must lie in a local directory; --data is {redact(str(data_dir))}")
    return None if data_dir is None else Path(data_dir)
