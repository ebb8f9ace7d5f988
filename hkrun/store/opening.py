"""From a path or a URI to the store that is there."""

import difflib
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from hkrun.addresses import read_address
from hkrun.errors import InputError, StoreError
from hkrun.redaction import redact
from hkrun.store.files import LocalFiles, RemoteFiles
from hkrun.store.store import STORE_FILE, NoStoreError, Store
from hkrun.store.study_folders import is_study_folder, read_study
from hkrun.uris import describe_slip


def open_store(uri: str | Path, *, create: bool = True) -> Store:
    """Opens the store at a local path or a URI that pyarrow.fs understands (s3://bucket/prefix).

    A published study (`hkrun report --publish`) is opened as a store that can only be read.

    Credentials and endpoints come from the environment, as pyarrow.fs takes them. `create` makes a new store
    where there is none.

    Raises:
        InputError: A URI has lost a slash, as in pathlib.
        NoStoreError: There is none and none is to be made.
        StoreError: It cannot be reached, or a newer hkrun wrote it.
    """
    if slip := describe_slip(str(uri)):
        raise InputError(f"the store: {slip}")
    store = _locate(str(uri))
    try:
        store.check_format(create=create)
    except NoStoreError as error:
        raise NoStoreError(f"{error.message}; {_advise(store.local_path)}") from None
    return store


def _advise(path: Path | None) -> str:
    """What to do where there is no store: take the one beside it whose name is nearly the same."""
    stores: list[str] = []
    if path is not None and path.parent.is_dir():
        stores = [file.parent.name for file in path.parent.glob(f"*/{STORE_FILE}")]
    near = difflib.get_close_matches(path.name, stores, n=1) if path is not None else []
    return f"did you mean {near[0]!r}?" if near else "run a sweep first, or name another with --store"


def _locate(uri: str) -> Store:
    if "://" not in uri:
        path = Path(uri).expanduser().absolute()
        if is_study_folder(path):
            return read_study(path)
        return Store(LocalFiles(path), uri=str(path), place=str(path), local_path=path)
    place = redact(uri)
    if uri.startswith("s3://"):
        from hkrun.store.s3 import S3Files  # only here: a store on a disk needs no client of S3

        try:
            address = read_address(uri)
        except ValueError as error:
            raise StoreError(f"cannot open the store {place}: {error}") from None
        return Store(S3Files(address, place=place), uri=uri, place=place, local_path=None)
    try:
        filesystem, root = fs.FileSystem.from_uri(uri)
    except (OSError, pa.ArrowException, ImportError) as error:
        reason = " ".join(str(error).replace(uri, place).split())
        # Not from `error`, which may hold the password.
        raise StoreError(f"cannot open the store {place}: {reason}") from None
    if isinstance(filesystem, fs.LocalFileSystem):
        return _locate(root)
    return Store(RemoteFiles(filesystem, root, place=place), uri=uri, place=place, local_path=None)
