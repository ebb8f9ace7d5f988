"""Data sets as uint8 tensors, and the views of their images that training sees."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from hkrun.config import nearest
from hkrun.data.dataset import Dataset, Split
from hkrun.data.digits import load_digits
from hkrun.errors import InputError

__all__ = ["DATASETS", "Dataset", "Split", "load_dataset"]

DATASETS: Mapping[str, Callable[[Path | None, bool], Dataset]] = MappingProxyType(
    {"digits": lambda _data_dir, _download: load_digits()}
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
