"""`cifar10` and `cifar100`: the official archives, through torchvision (A. Krizhevsky, 2009).

The files lie in a directory as torchvision keeps them: the archive, or the folder it unpacks to, or both.
Every file is used only after its published MD5 was checked, so a half download or a half unpacked folder is
never read. New files are written beside their final names and renamed when whole: several processes may
start on one directory at once.
"""

import functools
import tarfile
import tempfile
import warnings
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import torch

from hkrun.data.dataset import Dataset, Split
from hkrun.data.fetching import default_directory, patient_sockets, quiet_unless_terminal, reason
from hkrun.errors import DataError


def load_cifar(name: str, *, data_dir: Path | None, download: bool) -> Dataset:
    """Loads a CIFAR data set: 50,000 training and 10,000 test images, RGB, 32x32.

    Args:
        name: "cifar10", or "cifar100" with its 100 fine labels.
        data_dir: The directory of the archive or of the unpacked folder; None is `default_directory()`.
        download: Whether to fetch the archive into it where both are missing.

    Raises:
        DataError: The files are missing or damaged and cannot be fetched, or the directory cannot be used.
    """
    # torchvision takes seconds to import, and the other data sets do without.
    from torchvision import datasets

    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    directory = data_dir or default_directory()
    try:
        if _find_damage(source, directory):
            _unpack(source, name, directory, download=download)
        return _read(source, name, directory)
    except OSError as error:
        raise DataError(f"{name}: cannot use {directory}: {reason(error)}") from error


load_cifar10 = functools.partial(load_cifar, "cifar10")
load_cifar100 = functools.partial(load_cifar, "cifar100")


def _find_damage(source: Any, directory: Path) -> list[Path]:
    """The files of the unpacked folder that are missing or not what their MD5 says."""
    from torchvision.datasets.utils import check_integrity

    expected = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    files = [(directory / source.base_folder / file, md5) for file, md5 in expected]
    return [path for path, md5 in files if not check_integrity(path, md5)]


def _unpack(source: Any, name: str, directory: Path, *, download: bool) -> None:
    """Makes the folder whole from the archive, fetching that where neither is there."""
    from torchvision.datasets.utils import check_integrity, extract_archive

    archive, folder = directory / source.filename, directory / source.base_folder
    if archive.exists():
        if not check_integrity(archive, source.tgz_md5):
            raise DataError(
                f"{name}: {archive} is damaged or cut short: its MD5 is not {source.tgz_md5}; "
                f"delete it, or replace it by the file at {source.url}"
            )
    elif folder.exists():
        damaged = _find_damage(source, directory)
        raise DataError(
            f"{name}: {damaged[0]} is missing or damaged ({len(damaged)} such files); "
            f"delete {folder}, or put {source.filename} beside it"
        )
    else:
        _fetch(source, name, directory, download=download)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=directory) as unpacked:
        try:
            extract_archive(archive, unpacked)
        except (tarfile.TarError, EOFError) as error:
            raise DataError(f"{name}: {archive} cannot be unpacked: {reason(error)}") from error
        folder.mkdir(exist_ok=True)
        for path in (Path(unpacked) / source.base_folder).iterdir():
            path.replace(folder / path.name)


def _fetch(source: Any, name: str, directory: Path, *, download: bool) -> None:
    """Downloads the archive into the directory."""
    from torchvision.datasets.utils import download_url

    wanted = (
        f"put {source.filename} from {source.url} (MD5 {source.tgz_md5}), "
        f"or the folder {source.base_folder} that it unpacks to, into {directory}"
    )
    if not download:
        raise DataError(f"{name}: not found; {wanted}")
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=directory) as partial:
        try:
            with patient_sockets(), quiet_unless_terminal():
                download_url(source.url, partial, source.filename, source.tgz_md5)
        # RuntimeError is torchvision's word for a wrong checksum.
        except (OSError, HTTPException, RuntimeError) as error:
            if isinstance(error, HTTPError):
                error.close()  # it is the server's answer too, and would keep the connection
            raise DataError(f"{name}: download failed ({reason(error)}); {wanted}") from error
        (Path(partial) / source.filename).replace(directory / source.filename)


def _read(source: Any, name: str, directory: Path) -> Dataset:
    """Reads the whole folder through torchvision, which checks every file once more."""
    with warnings.catch_warnings():
        # The arrays were pickled by a NumPy of 2009; some releases deplore its spelling of their types.
        warnings.simplefilter("ignore")
        train, test = source(directory, train=True), source(directory, train=False)
    return Dataset(name=name, train=_split(train), test=_split(test), classes=tuple(train.classes))


def _split(part: Any) -> Split:
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2)  # torchvision hands out [N, H, W, C]
    return Split(images.contiguous(), torch.tensor(part.targets))
