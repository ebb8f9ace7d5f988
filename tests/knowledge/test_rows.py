"""Rows in files: what is read is what was written, or it is missing."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hkrun.knowledge import RowFiles, file_sizes
from knowledge.conftest import make_rows

IDS = np.array([0, 3, 4, 9])


def numbers(num_rows: int, width: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((num_rows, width)).astype(dtype)


@pytest.mark.parametrize("width", [1, 5, 8])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_rows_are_read_as_they_were_written(tmp_path: Path, dtype: str, width: int) -> None:
    rows = numbers(4, width, dtype)
    make_rows(tmp_path, num_rows=10, width=width, dtype=dtype).write(IDS, rows)
    read, there, damaged = make_rows(tmp_path, num_rows=10, width=width, dtype=dtype).read(IDS[::-1])
    assert there.all()
    assert damaged == 0
    assert np.array_equal(read, rows[::-1])


def test_rows_that_were_never_written_are_missing_and_not_damaged(tmp_path: Path) -> None:
    table = make_rows(tmp_path, num_rows=10, width=3)
    table.write(IDS, np.zeros((4, 3)))
    _, there, damaged = table.read(np.arange(10))
    assert np.flatnonzero(there).tolist() == IDS.tolist()
    assert damaged == 0
    assert table.missing_blocks(1).tolist() == [1, 2, 5, 6, 7, 8]
    assert table.missing_blocks(4).tolist() == [0, 1, 2]
    assert table.written(3, 5)
    assert not table.written(3, 6)


def test_any_flipped_bit_of_a_row_or_its_checksum_makes_it_missing(tmp_path: Path) -> None:
    table = make_rows(tmp_path, num_rows=3, width=3, dtype="float16")
    rows = numbers(3, 3, "float16")
    table.write(np.arange(3), rows)
    for name, first, size in (("rows", 8, 8), ("sums", 8, 8)):
        content = bytearray((tmp_path / name).read_bytes())
        for bit in range(8 * first, 8 * (first + size)):
            content[bit // 8] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(content)
            _, there, damaged = RowFiles(tmp_path, num_rows=3, width=3, dtype=np.dtype("float16")).read(
                np.arange(3)
            )
            assert there.tolist() == [True, False, True]
            assert damaged == 1
            content[bit // 8] ^= 1 << bit % 8
        (tmp_path / name).write_bytes(content)


def test_a_row_in_the_place_of_another_is_missing(tmp_path: Path) -> None:
    table = make_rows(tmp_path, num_rows=2, width=1)
    table.write(np.array([0]), numbers(1, 1, "float32"))
    for name in ("rows", "sums"):
        content = (tmp_path / name).read_bytes()
        half = len(content) // 2
        (tmp_path / name).write_bytes(content[:half] * 2)
    _, there, damaged = make_rows(tmp_path, num_rows=2, width=1).read(np.arange(2))
    assert there.tolist() == [True, False]
    assert damaged == 1


def test_writing_a_damaged_row_again_mends_it(tmp_path: Path) -> None:
    table = make_rows(tmp_path, num_rows=2, width=3)
    rows = numbers(2, 3, "float32")
    table.write(np.arange(2), rows)
    (tmp_path / "rows").write_bytes(b"\1" + (tmp_path / "rows").read_bytes()[1:])
    table = make_rows(tmp_path, num_rows=2, width=3)
    assert not table.read(np.arange(2))[1].all()
    table.write(np.array([0]), rows[:1])
    assert table.read(np.arange(2))[1].all()


def test_a_failing_disk_leaves_the_row_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_rows(tmp_path, num_rows=2, width=1000)

    def fill_up(descriptor: int, content: bytes, offset: int) -> int:
        if len(content) <= 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, content[:100], offset)

    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", fill_up)
    with pytest.raises(OSError, match="No space"):
        table.write(np.array([1]), np.ones((1, 1000)))
    _, there, damaged = table.read(np.arange(2))
    assert not there.any()
    assert damaged == 0


def test_a_partial_write_goes_on_where_the_system_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda descriptor, content, offset: pwrite(descriptor, content[:7], offset)
    )
    table = make_rows(tmp_path, num_rows=5, width=3)
    rows = numbers(5, 3, "float32")
    table.write(np.arange(5), rows)
    read, there, _ = table.read(np.arange(5))
    assert there.all()
    assert np.array_equal(read, rows)


def test_sizes_hold_whole_words(tmp_path: Path) -> None:
    assert file_sizes(10, 3, np.dtype("float16")) == {"rows": 80, "sums": 80}
    assert file_sizes(10, 122, np.dtype("float32")) == {"rows": 4880, "sums": 80}


KILLED = """
import sys, numpy as np
from pathlib import Path
from hkrun.knowledge import RowFiles
table = RowFiles(Path(sys.argv[1]), num_rows=100_000, width=50, dtype=np.dtype("float32"))
for row in range(100_000):
    table.write(np.array([row]), np.full((1, 50), row, np.float32))
    if row == 100:
        print("going", flush=True)
"""


def test_a_writer_that_is_killed_leaves_whole_rows(tmp_path: Path) -> None:
    table = make_rows(tmp_path, num_rows=100_000, width=50)
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    read, there, damaged = table.read(np.arange(100_000))
    written = int(there.sum())
    assert 100 < written < 100_000
    assert damaged == 0
    assert there[:written].all()
    assert np.array_equal(read[:written, 7], np.arange(written))
