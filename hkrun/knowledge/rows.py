"""Rows of numbers in memory-mapped files that a machine's processes share, each row with its checksum."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS_FILE, SUMS_FILE = "rows", "sums"

_WORD_BYTES = 4
_ROW_FACTOR = 0x9E3779B97F4A7C15  # odd: no two rows have the same


def row_bytes(width: int, dtype: np.dtype[Any]) -> int:
    """Bytes that a row takes: those of its numbers, rounded up to whole words."""
    return -(-width * dtype.itemsize // _WORD_BYTES) * _WORD_BYTES


def file_sizes(num_rows: int, width: int, dtype: np.dtype[Any]) -> dict[str, int]:
    """Bytes of each file that rows take, by its name."""
    return {ROWS_FILE: num_rows * row_bytes(width, dtype), SUMS_FILE: num_rows * np.dtype(np.uint64).itemsize}


class RowFiles:
    """An array of rows that are written once, in any order and by any number of processes, and then read.

    A row is written first and its checksum after it; each read compares the two. So a row that was never
    written, half written or changed since is missing, and writing it again mends it. Two processes that write
    a row at once write the same numbers.

    Rows are read through the memory map and written by `pwrite`: a full disk is then an error, where a write
    through the map would end the process.

    Args:
        folder: Holds the files, with the sizes of `file_sizes`; they begin as zeros.
        num_rows: Number of rows.
        width: Numbers in a row.
        dtype: Their type.
    """

    def __init__(self, folder: Path, *, num_rows: int, width: int, dtype: np.dtype[Any]) -> None:
        self.num_rows, self.width, self.dtype = num_rows, width, dtype
        self._row_bytes = row_bytes(width, dtype)
        self._padded_width = self._row_bytes // dtype.itemsize
        self._paths = (folder / ROWS_FILE, folder / SUMS_FILE)
        rows, sums = self._paths
        shape = (num_rows, self._padded_width)
        self._rows = np.asarray(np.memmap(rows, dtype=dtype, mode="r", shape=shape))
        self._sums = np.asarray(np.memmap(sums, dtype=np.uint64, mode="r", shape=(num_rows,)))
        # Raw outputs of a bit generator are the same in every version of NumPy. A factor is odd, so that a
        # change of any one bit of its word changes the sum.
        num_words = self._row_bytes // _WORD_BYTES
        self._factors = np.asarray(np.random.PCG64(0).random_raw(num_words), dtype=np.uint64) | np.uint64(1)
        self._descriptors = [os.open(path, os.O_RDWR) for path in self._paths]

    def close(self) -> None:
        """Gives the files back; the array is of no use afterwards."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # the files could not be opened
            self.close()

    def read(self, ids: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.bool_], int]:
        """Rows by their numbers.

        Args:
            ids: Shape [R].

        Returns:
            The rows [R, width]; which of them are there [R] (the others are of no use); and how many are
            missing because they were damaged.
        """
        rows, sums = self._rows[ids], self._sums[ids]
        written = sums != 0
        there = written & (sums == self._checksums(rows, ids))
        return rows[:, : self.width], there, int(written.sum() - there.sum())

    def write(self, ids: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Writes rows, then their checksums.

        Args:
            ids: Numbers of the rows, strictly increasing, shape [R].
            rows: Shape [R, width], of any type.

        Raises:
            OSError: The disk is full or broken; the rows are missing as before.
        """
        padded = np.zeros((len(ids), self._padded_width), dtype=self.dtype)
        padded[:, : self.width] = rows
        sums = self._checksums(padded, ids)
        for first, last in _stretches(ids):
            row = int(ids[first])
            _write_all(self._descriptors[0], padded[first:last].tobytes(), row * self._row_bytes)
            _write_all(self._descriptors[1], sums[first:last].tobytes(), row * sums.itemsize)

    def written(self, first: int, last: int) -> bool:
        """Whether all rows from `first` to before `last` were written, whatever became of them since."""
        return bool((self._sums[first:last] != 0).all())

    def missing_blocks(self, size: int) -> NDArray[np.int64]:
        """The blocks of `size` rows, by number, that have a row that was never written."""
        missing = np.flatnonzero(self._sums == 0) // size
        return np.unique(missing)

    def _checksums(self, rows: NDArray[Any], ids: NDArray[np.int64]) -> NDArray[np.uint64]:
        """A sum per row of its words, each times a factor of its place, and of the row's own number.

        Never 0, which stands for a row that was not written.
        """
        words = np.ascontiguousarray(rows).view(np.uint32).astype(np.uint64)
        sums: NDArray[np.uint64] = words @ self._factors + ids.astype(np.uint64) * np.uint64(_ROW_FACTOR)
        sums[sums == 0] = 1
        return sums


def _stretches(ids: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    breaks = np.flatnonzero(np.diff(ids) != 1) + 1
    bounds = [0, *breaks.tolist(), len(ids)]
    yield from ((first, last) for first, last in itertools.pairwise(bounds) if first < last)


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    """`pwrite` of all bytes; on a disk that fills up it may take a part of them at first."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
