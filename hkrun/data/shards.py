"""Parquet shards of encoded images, which `hkrun data pack` makes: what streams from an object store.

    manifest.json             format, classes, and for each part its number of images and its files with their
                              SHA-256 sums and sizes; written last, so that what it names is whole
    train-index.parquet       name, label and size of every image
    train-00000.parquet ...   name, label and bytes of 4,096 images each, 64 to a row group

The rows are in the fixed order of `hkrun.data.encoded`: image k is row k % 4096 of shard k // 4096.
"""

import contextlib
import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from pyarrow import fs
from pyarrow import parquet as pq

from hkrun.addresses import connect_uri
from hkrun.data.encoded import BLOCK, EncodedSplit, StreamedDataset
from hkrun.errors import DataError, InputError
from hkrun.redaction import redact
from hkrun.uris import describe_slip

FORMAT = 1
MANIFEST = "manifest.json"
IMAGES_PER_SHARD = 64 * BLOCK
PARTS = ("train", "val")


@dataclass(frozen=True)
class Place:
    """A folder of this machine, or wherever pyarrow.fs reaches; plain data that crosses process borders."""

    uri: str

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


@dataclass(frozen=True)
class ShardReader:
    """Reads the images of one part from its shards."""

    place: Place
    part: str
    images_per_shard: int

    def read(self, image_ids: Sequence[int]) -> list[bytes]:
        """See `Reader`."""
        (block,) = {image_id // BLOCK for image_id in image_ids}
        shard, row_group = divmod(block * BLOCK, self.images_per_shard)
        file = shard_name(self.part, shard)
        with self.place.explained("read", file), self.place.open(file) as stream:
            shard_file = pq.ParquetFile(stream, metadata=_footer(self.place, file))
            column = shard_file.read_row_group(row_group // BLOCK, columns=["image"], use_threads=False)[
                "image"
            ]
            return [column[image_id % BLOCK].as_py() for image_id in image_ids]


@functools.lru_cache(maxsize=1024)
def _footer(place: Place, file: str) -> pq.FileMetaData:
    with place.open(file) as stream:
        return pq.read_metadata(stream)


def shard_name(part: str, number: int) -> str:
    """The file of a shard."""
    return f"{part}-{number:05d}.parquet"


def is_packed(place: Place) -> bool:
    """Whether a place holds shards."""
    return place.holds(MANIFEST)


def read_shards(place: Place) -> StreamedDataset:
    """Reads what shards there are; no image is read yet.

    Raises:
        DataError: The manifest or an index is missing or damaged.
    """
    manifest = read_manifest(place)
    splits = {}
    for part in PARTS:
        index = _read_index(place, part, manifest)
        splits[part] = EncodedSplit(
            names=tuple(index["name"].to_pylist()),
            labels=torch.from_numpy(index["label"].to_numpy().copy()),
            sizes=torch.from_numpy(index["size"].to_numpy().copy()),
            reader=ShardReader(place, part, manifest["images_per_shard"]),
        )
    return StreamedDataset(
        name="imagenet",
        train=splits["train"],
        test=splits["val"],
        classes=tuple(manifest["classes"]),
        packed=True,
    )


def read_manifest(place: Place) -> dict[str, Any]:
    """The manifest of a place.

    Raises:
        DataError: It is missing, damaged, or of another format.
    """
    with place.open(MANIFEST) as stream:
        content = stream.read()
    try:
        manifest: dict[str, Any] = json.loads(content)
        if manifest["format"] != FORMAT:
            raise DataError(f"{place}/{MANIFEST}: format {manifest['format']}, this hkrun reads {FORMAT}")
        # What everything else relies on.
        assert manifest["images_per_shard"] % BLOCK == 0
        for part in PARTS:
            assert set(manifest["parts"][part]) == {"images", "files"}
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise DataError(f"{place}/{MANIFEST}: is damaged") from error
    return manifest


def write_shards(
    dataset: StreamedDataset,
    place: Place,
    *,
    images_per_shard: int = IMAGES_PER_SHARD,
    on_file: Callable[[str, int], None] = lambda _file, _images: None,
) -> dict[str, Any]:
    """Packs a data set: the same images, bytes and order. A damaged image is packed as it is.

    `images_per_shard` is a multiple of BLOCK; `on_file` is told each file that is written, and how many
    images it holds. Returns the manifest.

    Raises:
        DataError: The place holds shards, or cannot be written; or an image has gone since it was listed.
    """
    assert images_per_shard % BLOCK == 0
    if is_packed(place):
        raise DataError(f"{place}: holds shards already; choose another place, or remove them first")
    parts: dict[str, Any] = {}
    for part, split in (("train", dataset.train), ("val", dataset.test)):
        files = {}
        for file, tables, num_images in _tables(part, split, images_per_shard):
            files[file] = _write_table(place, file, tables)
            on_file(file, num_images)
        parts[part] = {"images": len(split), "files": files}
    manifest = {
        "format": FORMAT,
        "classes": list(dataset.classes),
        "images_per_shard": images_per_shard,
        "parts": parts,
    }
    with place.explained("write", MANIFEST), place.create(MANIFEST) as stream:
        stream.write(json.dumps(manifest, indent=1).encode())
    return manifest


def find_damage(place: Place) -> Iterator[tuple[str, str]]:
    """Reads every shard whole; yields the name of each file and what is wrong with it, or ""."""
    for content in read_manifest(place)["parts"].values():
        for file, expected in content["files"].items():
            yield file, _compare(place, file, expected)


def _compare(place: Place, file: str, expected: Mapping[str, Any]) -> str:
    digest, size = hashlib.sha256(), 0
    try:
        with place.explained("read", file), place.open(file) as stream:
            while chunk := stream.read(16 << 20):
                digest.update(chunk)
                size += len(chunk)
    except DataError as error:
        return error.message
    if size != expected["bytes"]:
        return f"{place}/{file}: {size} bytes, {expected['bytes']} were written"
    if digest.hexdigest() != expected["sha256"]:
        return f"{place}/{file}: its SHA-256 is not the one that was written"
    return ""


_IMAGES = pa.schema([("name", pa.string()), ("label", pa.int64()), ("image", pa.binary())])
_INDEX = pa.schema([("name", pa.string()), ("label", pa.int64()), ("size", pa.int64())])


def _tables(
    part: str, split: EncodedSplit, images_per_shard: int
) -> Iterator[tuple[str, Iterator[pa.Table], int]]:
    """Each file of a part: its name, its row groups, and how many images it holds."""
    index = [list(split.names), split.labels.tolist(), split.sizes.tolist()]
    yield f"{part}-index.parquet", iter([pa.table(index, schema=_INDEX)]), 0
    for number, first in enumerate(range(0, len(split), images_per_shard)):
        last = min(first + images_per_shard, len(split))
        yield shard_name(part, number), _row_groups(split, first, last), last - first


def _row_groups(split: EncodedSplit, first: int, last: int) -> Iterator[pa.Table]:
    for start in range(first, last, BLOCK):
        ids = range(start, min(start + BLOCK, last))
        images = split.reader.read(ids)
        for image_id, image in zip(ids, images, strict=True):
            if len(image) != split.sizes[image_id]:
                raise DataError(f"{split.names[image_id]}: changed while it was packed")
        part = slice(ids[0], ids[-1] + 1)
        yield pa.table([list(split.names[part]), split.labels[part].tolist(), images], schema=_IMAGES)


class _Digest(io.RawIOBase):
    """Hands what is written on to a stream, with its sum and its size."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self.sha256, self.size = hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.sha256.update(content)
        self.size += len(content)
        self._stream.write(content)
        return len(content)


def _write_table(place: Place, file: str, tables: Iterator[pa.Table]) -> dict[str, object]:
    """Writes a Parquet file, a row group for each table; returns its sum and size."""
    with place.explained("write", file), place.create(file) as stream:
        digest = _Digest(stream)
        first = next(tables)
        # The images are compressed already.
        codec = "none" if "image" in first.column_names else "zstd"
        with pq.ParquetWriter(digest, first.schema, compression=codec, use_dictionary=False) as writer:
            for table in (first, *tables):
                writer.write_table(table, row_group_size=max(len(table), 1))
    return {"sha256": digest.sha256.hexdigest(), "bytes": digest.size}


def _read_index(place: Place, part: str, manifest: Mapping[str, Any]) -> pa.Table:
    file = f"{part}-index.parquet"
    expected = manifest["parts"][part]["files"].get(file)
    with place.open(file) as stream:
        content = stream.read()
    if expected is None or hashlib.sha256(content).hexdigest() != expected["sha256"]:
        raise DataError(f"{place}/{file}: is damaged: its SHA-256 is not the one in {MANIFEST}")
    return pq.read_table(pa.BufferReader(content), schema=_INDEX)
