"""Where tables lie: named when whole, mended when cut, fetched from afar, refused where they do not fit."""

import errno
import json
import os
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from pyarrow import fs

from hkrun.errors import StoreError
from hkrun.store import NoSpaceError, Store, TeacherTables, open_store
from hkrun.store import teacher_tables as module
from hkrun.store.files import RemoteFiles

SIZES = {"rows": 1000, "sums": 80}
ABOUT = {"part": "logits"}
Usage = namedtuple("Usage", ["total", "used", "free"])


def remote_store(root: Path) -> Store:
    """A store behind the code for object stores, with a folder of this disk as the far end."""
    root.mkdir(exist_ok=True)
    filesystem = fs.SubTreeFileSystem(str(root), fs.LocalFileSystem())
    files = RemoteFiles(filesystem, "bucket", place="far://bucket")
    return Store(files, uri="far://", place="far://", local_path=None)


def fill(folder: Path) -> dict[str, bytes]:
    content = {name: os.urandom(size) for name, size in SIZES.items()}
    for name, some in content.items():
        (folder / name).write_bytes(some)
    return content


def read(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in SIZES}


def test_a_table_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    tables = TeacherTables(store, cache=tmp_path / "unused")
    folder = tables.open("abc", SIZES, ABOUT)
    assert folder == tmp_path / "tables" / "abc.partial"
    assert read(folder) == {name: bytes(size) for name, size in SIZES.items()}
    assert json.loads((folder / "table.json").read_text()) == ABOUT
    assert not store.names("tables/abc")
    content = fill(folder)
    assert read(tables.open("abc", SIZES, ABOUT)) == content
    tables.finish("abc")
    whole = tables.open("abc", SIZES, ABOUT)
    assert whole == tmp_path / "tables" / "abc"
    assert not folder.exists()
    for name, expected in content.items():
        assert store.read("tables/abc", name) == expected
    tables.finish("abc")  # as another process may
    assert read(whole) == content


def test_a_table_is_not_renamed_while_another_process_reads_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = TeacherTables(open_store(tmp_path), cache=tmp_path)
    fill(tables.open("abc", SIZES, ABOUT))
    other = threading.Thread(target=TeacherTables(open_store(tmp_path), cache=tmp_path).finish, args=("abc",))
    content = module._content

    def let_other_finish(folder: Path) -> list[Path]:
        paths = content(folder)
        monkeypatch.setattr(module, "_content", content)
        other.start()
        other.join(timeout=0.3)  # it waits until this one is through
        return paths

    monkeypatch.setattr(module, "_content", let_other_finish)
    tables.finish("abc")
    other.join()
    assert tables.open("abc", SIZES, ABOUT).name == "abc"


def test_the_space_of_a_table_is_reserved(tmp_path: Path) -> None:
    folder = TeacherTables(open_store(tmp_path), cache=tmp_path).open("abc", {"rows": 10**6}, ABOUT)
    assert (folder / "rows").stat().st_blocks * 512 >= 10**6


@pytest.mark.parametrize("finished", [False, True])
def test_a_table_that_was_cut_short_is_filled_up_again(tmp_path: Path, finished: bool) -> None:
    tables = TeacherTables(open_store(tmp_path), cache=tmp_path)
    content = fill(tables.open("abc", SIZES, ABOUT))
    if finished:
        tables.finish("abc")
    path = tables.open("abc", SIZES, ABOUT) / "rows"
    with path.open("r+b") as file:
        file.truncate(600)
    folder = tables.open("abc", SIZES, ABOUT)
    assert folder.name == "abc.partial"
    assert read(folder) == {"rows": content["rows"][:600] + bytes(400), "sums": content["sums"]}


def test_a_table_that_does_not_fit_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = TeacherTables(open_store(tmp_path), cache=tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, module.SPARE_BYTES + 1079))
    with pytest.raises(NoSpaceError, match=r"a teacher table of 0 MB does not fit: 0 MB are free beside 268"):
        tables.open("abc", SIZES, ABOUT)
    assert list((tmp_path / "tables").iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, module.SPARE_BYTES + 1080))
    tables.open("abc", SIZES, ABOUT)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 0))
    tables.open("abc", SIZES, ABOUT)  # its space was reserved


def test_the_space_of_a_table_that_is_there_is_no_other_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = TeacherTables(open_store(tmp_path), cache=tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, module.SPARE_BYTES + 2000))
    assert tables.held_bytes({}) == 0
    tables.open("abc", SIZES, {"part": "logits", "type": "float32"})
    tables.open("def", {"rows": 10}, {"part": "logits", "type": "float32"})
    tables.finish("abc")
    assert tables.has_space(2000)
    assert not tables.has_space(2001)
    assert tables.held_bytes({"part": "logits"}) == sum(SIZES.values())
    assert tables.held_bytes({"part": "logits", "type": "float16"}) == 0
    (tmp_path / "tables" / "abc" / "table.json").write_bytes(b"\xff")
    assert tables.held_bytes({"part": "logits"}) == 10


def test_a_disk_that_fills_up_meanwhile_is_refused_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(NoSpaceError, match="does not fit: No space left on device"):
        TeacherTables(open_store(tmp_path), cache=tmp_path).open("abc", SIZES, ABOUT)
    assert list((tmp_path / "tables").iterdir()) == []


def test_another_machine_fetches_a_whole_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 300)
    first = TeacherTables(remote_store(tmp_path / "far"), cache=tmp_path / "first")
    content = fill(first.open("abc", SIZES, ABOUT))
    second = TeacherTables(remote_store(tmp_path / "far"), cache=tmp_path / "second")
    assert not any(read(second.open("abc", SIZES, ABOUT))["rows"])  # nobody has it whole yet
    first.finish("abc")
    names = remote_store(tmp_path / "far").names("tables/abc")
    assert names == ["rows.00000", "rows.00001", "rows.00002", "rows.00003", "sums.00000", "table.json"]
    folder = second.open("abc", SIZES, ABOUT)
    assert folder == tmp_path / "second" / "abc"
    assert read(folder) == content


def test_an_upload_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 300)
    tables = TeacherTables(remote_store(tmp_path / "far"), cache=tmp_path / "first")
    content = fill(tables.open("abc", SIZES, ABOUT))
    put, uploaded = RemoteFiles.put, []

    def die(self: RemoteFiles, folder: str, files: dict[str, bytes]) -> None:
        if len(uploaded) == 2:
            raise KeyboardInterrupt
        uploaded.append(folder)
        put(self, folder, files)

    with monkeypatch.context() as patched:
        patched.setattr(RemoteFiles, "put", die)
        with pytest.raises(KeyboardInterrupt):
            tables.finish("abc")
    other = TeacherTables(remote_store(tmp_path / "far"), cache=tmp_path / "second")
    assert other.open("abc", SIZES, ABOUT).name == "abc.partial"
    tables.finish("abc")
    assert read(other.open("abc", SIZES, ABOUT)) == content


def test_a_table_that_is_gone_before_its_upload_is_said(tmp_path: Path) -> None:
    tables = TeacherTables(remote_store(tmp_path / "far"), cache=tmp_path / "cache")
    shutil.rmtree(tables.open("abc", SIZES, ABOUT))
    with pytest.raises(StoreError, match=r"cannot read .*abc"):
        tables.finish("abc")
    assert remote_store(tmp_path / "far").names("tables/abc") == []


def test_a_damaged_piece_is_left_to_be_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 300)
    first = TeacherTables(remote_store(tmp_path / "far"), cache=tmp_path / "first")
    content = fill(first.open("abc", SIZES, ABOUT))
    first.finish("abc")
    (tmp_path / "far/bucket/tables/abc/rows.00002").write_bytes(b"nonsense")
    folder = TeacherTables(remote_store(tmp_path / "far"), cache=tmp_path / "second").open(
        "abc", SIZES, ABOUT
    )
    assert folder.name == "abc.partial"
    assert read(folder)["rows"] == content["rows"][:600] + bytes(400)
    assert "rows.00002 is damaged" in caplog.text
