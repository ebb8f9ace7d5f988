"""Where shards lie: a local folder, or whatever pyarrow.fs reaches (s3://bucket/prefix)."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from hkrun.addresses import connect_uri
from hkrun.errors import DataError, InputError
from hkrun.redaction import redact
from hkrun.uris import describe_slip


@dataclass(frozen=True)
class Place:
    """A folder of files, by its path or URI; plain data that crosses process borders."""

    uri: str

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine."""
        return "://" not in self.uri

    @classmethod
    def below(cls, place: Path | str, name: str) -> "Place":
        """The folder of a name in a directory or at a URI, which may have a query.

        Raises:
            InputError: It is a URI that has lost a slash.
        """
        if slip := describe_slip(str(place)):
            raise InputError(f"the place of {name}: {slip}")
        if "://" not in str(place):
            return cls(str(Path(place).expanduser().absolute() / name))
        uri, mark, query = str(place).partition("?")
        return cls(f"{uri.rstrip('/')}/{name}{mark}{query}")

    def __str__(self) -> str:
        """How messages name it: without user, password and query."""
        return redact(self.uri)

    def open(self, file: str) -> pa.NativeFile:
        """Opens a file of the folder for reading at any position.

        Raises:
            DataError: It is not there or cannot be read.
        """
        filesystem, folder = _connect(self.uri)
        with self.explained("read", file):
            return filesystem.open_input_file(f"{folder}/{file}")

    def create(self, file: str) -> pa.NativeFile:
        """Opens a file of the folder for writing; it is whole only when closed without an error.

        Raises:
            DataError: It cannot be written.
        """
        filesystem, folder = _connect(self.uri)
        with self.explained("write", file):
            if isinstance(filesystem, fs.LocalFileSystem):
                filesystem.create_dir(folder, recursive=True)
            return filesystem.open_output_stream(f"{folder}/{file}")

    def holds(self, file: str) -> bool:
        """Whether a file is there.

        Raises:
            DataError: The place cannot be reached.
        """
        filesystem, folder = _connect(self.uri)
        with self.explained("look for", file):
            found: bool = filesystem.get_file_info(f"{folder}/{file}").type == fs.FileType.File
        return found

    @contextlib.contextmanager
    def explained(self, action: str, file: str) -> Iterator[None]:
        """Turns what the system or pyarrow raises into one DataError that says what failed and where."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"cannot {action} {self}/{file}: {' '.join(str(error).split())}") from error


@functools.lru_cache(maxsize=8)
def _connect(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or URI, and the folder in it. Credentials come from the environment."""
    if "://" not in uri:
        return fs.LocalFileSystem(), uri
    try:
        return connect_uri(uri)
    except (OSError, ValueError, pa.ArrowException, ImportError) as error:
        reason = " ".join(str(error).replace(uri, str(Place(uri))).split())
        raise DataError(f"cannot open {Place(uri)}: {reason}") from None  # `error` may hold the password
