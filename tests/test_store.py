"""The store: what is committed is read back as it was, or refused; never a mix, never half, never outside."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import compute as pc
from pyarrow import fs
from pyarrow import parquet as pq
from s3_server import S3Server

from hkrun.config import Cell, canonical_json, cell_id
from hkrun.errors import NotFoundError, StoreError
from hkrun.store import (
    DamagedError,
    DivergedTeacher,
    NotCommittedError,
    Record,
    Store,
    TeacherRecord,
    open_store,
)
from hkrun.store.files import LocalFiles, RemoteFiles
from hkrun.store.transactions import CommittedFolders

CELL = "0123456789ab"
TEACHER = "ba9876543210"
FOLDER = f"cells/{CELL}/seeds/3"


def make_record(seed: int = 3, **changes: object) -> Record:
    values = {
        "cell_id": CELL,
        "seed": seed,
        "status": "finished",
        "epochs": 2,
        "error_last_pct": 3.25,
        "error_best_pct": 3.0,
        "teacher_id": TEACHER,
        "teacher_hash": "f" * 64,
        "alarms": ("the discriminator has won",),
        "device": "cpu",
        "threads": 2,
        "pack": (3, 4),
        "versions": {"torch": "2.15"},
        "started_at": 1.75e9,
        "timings": {"total": 12.5},
    }
    return Record(**(values | changes))  # type: ignore[arg-type]


def make_curves(**columns: list[float | None]) -> pa.Table:
    return pa.table({"epoch": [1, 2], "error_pct": [4.0, 3.25]} | columns)


def make_teacher_record(**changes: object) -> TeacherRecord:
    values = {
        "teacher_id": TEACHER,
        "teacher_hash": "f" * 64,
        "error_pct": 2.1,
        "train_error_pct": 0.0,
        "config": {"teacher.network": "preact-20"},
        "epochs": 2,
        "device": "cpu",
        "threads": 2,
        "world_size": 2,
        "alarms": ("resumed after epoch 1, not bit-identical: another device",),
        "resumed": 1,
        "started_at": 1.75e9,
    }
    return TeacherRecord(**(values | changes))  # type: ignore[arg-type]


def remote_store(root: Path) -> Store:
    """A store behind the code for object stores, with a folder of this disk as the far end."""
    root.mkdir()
    filesystem = fs.SubTreeFileSystem(str(root), fs.LocalFileSystem())
    store = Store(
        RemoteFiles(filesystem, "bucket/prefix", place="far://bucket/prefix"),
        uri="far://",
        place="far://",
        local_path=None,
    )
    store.check_format(create=True)
    return store


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture(params=["local", "remote", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        return open_store(server.place().full_uri)
    return open_store(tmp_path / "store") if request.param == "local" else remote_store(tmp_path / "far")


def only_line(message: str) -> str:
    assert "\n" not in message
    return message


# --- what goes in comes out ---------------------------------------------------------------------------------


def test_a_run_comes_back_as_it_was_put(store: Store) -> None:
    store.put_run(make_record(), curves=make_curves(), student=b"weights")
    assert store.record(CELL, 3) == make_record()
    assert store.records(CELL) == [make_record()]
    assert store.student(CELL, 3) == b"weights"
    assert store.curves(CELL, 3).to_pydict() == make_curves().to_pydict()


def test_a_teacher_comes_back_as_it_was_put(store: Store) -> None:
    record = make_teacher_record()
    assert store.teacher(record.teacher_id) is None
    store.put_teacher(record, weights=b"weights", curves=make_curves())
    assert store.teacher(record.teacher_id) == record
    assert store.teacher_weights(record.teacher_id) == b"weights"


def test_records_are_sorted_by_seed_and_runs_in_training_are_not_among_them(store: Store) -> None:
    for seed in (10, 9, 100, 0):
        store.put_run(make_record(seed), curves=None, student=None)
    store.commit(f"cells/{CELL}/seeds/5/checkpoints", {"epoch-000001.pt": b"state"})
    assert [record.seed for record in store.records(CELL)] == [0, 9, 10, 100]
    assert store.record(CELL, 5) is None


def test_a_run_that_is_put_loses_its_checkpoints(store: Store) -> None:
    store.commit(f"{FOLDER}/checkpoints", {"epoch-000001.pt": b"state"})
    store.put_run(make_record(), curves=None, student=None)
    assert not store.names(f"{FOLDER}/checkpoints")
    assert store.record(CELL, 3) == make_record()


def test_a_second_run_replaces_the_first_whole(store: Store) -> None:
    store.put_run(
        make_record(status="failed", traceback="Traceback"), curves=make_curves(), student=b"weights"
    )
    store.put_run(make_record(), curves=None, student=None)
    assert store.record(CELL, 3) == make_record()
    assert store.names(FOLDER) == ["record.json"]
    with pytest.raises(NotCommittedError, match=r"no curves\.parquet"):
        store.curves(CELL, 3)


def test_a_store_can_be_opened_again_by_its_uri(local: Store) -> None:
    local.put_run(make_record(), curves=None, student=None)
    again = open_store(local.uri, create=False)
    assert again.record(CELL, 3) == make_record()
    assert again.local_path == local.local_path


def test_a_relative_path_is_made_absolute_for_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("mine").uri == str(tmp_path / "mine")


def test_a_file_uri_is_a_local_store(tmp_path: Path) -> None:
    assert open_store(f"file://{tmp_path}/store").local_path == tmp_path / "store"


# --- identity -----------------------------------------------------------------------------------------------


def test_the_digest_of_the_cell_file_starts_with_its_folder_s_name(local: Store) -> None:
    cell = Cell(dataset="digits")
    local.put_cell(cell_id(cell), canonical_json(cell))
    assert local.local_path is not None
    (file,) = local.local_path.glob("cells/*/cell.json")
    assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(file.parent.name)
    assert local.cell(cell_id(cell)) == json.loads(canonical_json(cell))


def test_the_text_of_another_cell_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="does not start with 0123456789ab"):
        store.put_cell(CELL, "{}")
    assert not store.names(f"cells/{CELL}")


def test_a_damaged_cell_file_is_written_again(local: Store) -> None:
    text = '{"dataset":"digits"}'
    identity = hashlib.sha256(text.encode()).hexdigest()[:12]
    local.put_cell(identity, text)
    assert local.local_path is not None
    (local.local_path / f"cells/{identity}/cell.json").write_text("{}")
    local.put_cell(identity, text)
    assert local.read(f"cells/{identity}", "cell.json") == text.encode()


def test_putting_a_cell_again_leaves_its_runs(store: Store) -> None:
    text = '{"dataset":"digits"}'
    identity = hashlib.sha256(text.encode()).hexdigest()[:12]
    store.put_cell(identity, text)
    store.put_run(make_record(cell_id=identity), curves=None, student=None)
    store.put_cell(identity, text)
    assert len(store.records(identity)) == 1


# --- nothing leaves the store -------------------------------------------------------------------------------

BAD_NAMES = ["", ".", "..", "a/b", "/etc", "..\\x", "a\\b", ".hidden", "a\nb", "a\0b"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_cannot_lead_out_of_its_folder(local: Store, name: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: local.commit("sweeps/x", {name: b""}),
        lambda: local.record(name, 0),
        lambda: local.records(name),
        lambda: local.put_run(make_record(cell_id=name), curves=None, student=None),
        lambda: local.teacher(name),
        lambda: local.sweep_folder(name, "../.."),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="is no name for the store"):
            call()


@pytest.mark.parametrize("folder", ["../x", "a/../../x", "/tmp/x", "a//b", "", "a/", "./a"])
def test_a_folder_cannot_lie_outside(local: Store, folder: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: local.commit(folder, {"a": b""}),
        lambda: local.read(folder, "a"),
        lambda: local.names(folder),
        lambda: local.delete(folder),
        lambda: local.hold(folder).__enter__(),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="is no name for the store"):
            call()


def test_the_manifest_cannot_be_committed_as_a_file(store: Store) -> None:
    with pytest.raises(ValueError, match=r"manifest\.json"):
        store.commit("sweeps/x", {"manifest.json": b"{}"})


# --- damage -------------------------------------------------------------------------------------------------


def test_damage_is_named_with_file_expectation_finding_and_remedy(local: Store) -> None:
    local.put_run(make_record(), curves=make_curves(), student=b"weights")
    assert local.local_path is not None
    (local.local_path / FOLDER / "student.pt").write_bytes(b"weighs")
    with pytest.raises(DamagedError) as caught:
        local.student(CELL, 3)
    message = only_line(caught.value.message)
    expected, found = (hashlib.sha256(content).hexdigest()[:12] for content in (b"weights", b"weighs"))
    assert f"{local.local_path / FOLDER}/student.pt is damaged" in message
    assert f"expected SHA-256 {expected} and 7 bytes, found SHA-256 {found} and 6 bytes" in message
    assert f"remove the folder {local.local_path / FOLDER} and run the same command again" in message


def test_a_missing_file_is_damage(local: Store) -> None:
    local.put_run(make_record(), curves=make_curves(), student=None)
    assert local.local_path is not None
    (local.local_path / FOLDER / "curves.parquet").unlink()
    with pytest.raises(DamagedError, match="found no file"):
        local.curves(CELL, 3)


@pytest.mark.parametrize("name", ["record.json", "curves.parquet", "student.pt"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_run_with_a_file_cut_short_or_missing_counts_as_not_done(
    local: Store, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    local.put_run(make_record(), curves=make_curves(), student=b"weights")
    local.put_run(make_record(4), curves=make_curves(), student=b"weights")
    assert local.local_path is not None
    file = local.local_path / FOLDER / name
    file.unlink() if damage == "missing" else os.truncate(file, 3)
    assert local.record(CELL, 3) is None
    assert f"{name} is damaged" in caplog.text
    assert [record.seed for record in local.records(CELL)] == [4]
    local.put_run(make_record(), curves=make_curves(), student=b"weights")
    assert [record.seed for record in local.records(CELL)] == [3, 4]


def test_a_damaged_file_is_told_of_once_however_often_and_by_whom_it_is_read(
    local: Store, caplog: pytest.LogCaptureFixture
) -> None:
    assert local.local_path is not None
    for seed in (3, 4):
        local.put_run(make_record(seed), curves=None, student=b"weights")
        os.truncate(local.local_path / local.run_folder(CELL, seed) / "student.pt", 3)
    for store in (local, open_store(local.uri)):
        assert store.records(CELL) == []
        assert store.record(CELL, 3) is None
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert all(f"seeds/{seed}/student.pt is damaged" in line for seed, line in zip((3, 4), told, strict=True))
    os.truncate(local.local_path / FOLDER / "student.pt", 2)
    assert local.record(CELL, 3) is None
    assert len(caplog.records) == 3, "this is another damage"


def test_a_run_without_a_manifest_counts_as_not_done(local: Store, caplog: pytest.LogCaptureFixture) -> None:
    local.put_run(make_record(), curves=None, student=None)
    assert local.local_path is not None
    (local.local_path / FOLDER / "manifest.json").unlink()
    assert local.record(CELL, 3) is None
    assert local.records(CELL) == []
    assert caplog.text == ""  # a killed writer leaves this: nothing is damaged


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"seed": 3}', "nothing", '"record"', make_record(status="gone").__repr__()]
)
def test_a_file_that_is_no_record_counts_as_not_done(
    local: Store, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    local.commit(FOLDER, {"record.json": text.encode()})
    assert local.record(CELL, 3) is None
    assert "counted as not done" in caplog.text


def test_a_record_copied_to_another_seed_counts_as_not_done(
    local: Store, caplog: pytest.LogCaptureFixture
) -> None:
    local.put_run(make_record(), curves=None, student=None)
    local.commit(f"cells/{CELL}/seeds/5", {"record.json": local.read(FOLDER, "record.json")})
    assert local.record(CELL, 5) is None
    assert "the record of another run" in caplog.text


def test_a_flipped_bit_anywhere_never_yields_other_content(local: Store) -> None:
    files = {"a.json": b'{"error_pct": 3.25}', "b.bin": bytes(range(256))}
    local.commit("sweeps/x", files)
    assert local.local_path is not None
    place = local.local_path / "sweeps/x"
    generator = np.random.default_rng(0)
    refused = 0
    for victim in [*files, "manifest.json"]:
        intact = (place / victim).read_bytes()
        for bit in generator.choice(8 * len(intact), size=min(8 * len(intact), 400), replace=False):
            flipped = bytearray(intact)
            flipped[bit // 8] ^= 1 << (bit % 8)
            (place / victim).write_bytes(flipped)
            for name, content in files.items():
                try:
                    assert local.read("sweeps/x", name) == content
                except (DamagedError, NotCommittedError):
                    refused += 1
        (place / victim).write_bytes(intact)
    assert refused >= 8 * len(files["a.json"]) + 400  # every flip within a file, and most within the manifest


# --- writes -------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The end of the process, as far as the code under test can see."""


class DyingFiles(LocalFiles):
    """A disk whose process dies just before its n-th change."""

    def __init__(self, root: Path, changes: int) -> None:
        super().__init__(root)
        self._left = changes

    def _count(self) -> None:
        if self._left == 0:
            raise Killed
        self._left -= 1

    def put(self, folder: str, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            self._count()
            super().put(folder, {name: content})

    def remove(self, folder: str, names: Iterator[str]) -> None:  # type: ignore[override]
        for name in names:
            self._count()
            super().remove(folder, [name])


def visible(folders: CommittedFolders) -> dict[str, bytes]:
    return {name: folders.read("sweeps/x", name) for name in folders.names("sweeps/x")}


@pytest.mark.parametrize(
    ("after", "keep", "allowed_between"),
    [
        # Content of a committed name changes: nothing is there for a moment.
        ({"a": b"new", "b": b"new b"}, [], [{}]),
        # ... except for what is kept.
        ({"b": b"new b"}, ["a"], [{"a": b"old"}]),
        # Only new names: the old state until the new one.
        ({"c": b"new c"}, ["b"], []),
        ({"c": b"new c"}, [], []),
        ({}, [], []),
    ],
)
def test_a_writer_killed_anywhere_leaves_the_old_or_the_new_state_or_less_but_no_mix(
    tmp_path: Path, after: dict[str, bytes], keep: list[str], allowed_between: list[dict[str, bytes]]
) -> None:
    before = {"a": b"old", "b": b"old b"}
    expected = {name: before[name] for name in keep} | after
    seen = []
    for changes in range(20):
        root = tmp_path / str(changes)
        folders = CommittedFolders(LocalFiles(root), place="here")
        folders.commit("sweeps/x", before)
        try:
            CommittedFolders(DyingFiles(root, changes), place="here").commit("sweeps/x", after, keep=keep)
        except Killed:
            seen.append(visible(folders))
            assert seen[-1] in [before, expected, *allowed_between]
            folders.commit("sweeps/x", after, keep=keep)  # the next writer is not hindered
            assert visible(folders) == {name: before[name] for name in keep if name in seen[-1]} | after
        else:
            assert visible(folders) == expected
            break
    assert before in seen or allowed_between
    assert changes >= 1


def test_a_reader_beside_a_writer_sees_no_damage(store: Store) -> None:
    versions = [str(number).encode() * (1 + 997 * (number % 5)) for number in range(60)]
    store.commit("sweeps/x", {"report": versions[0]})
    problems: list[Exception] = []
    reads: list[bytes] = []
    written = threading.Event()

    def read() -> None:
        while not written.is_set() or not reads:
            try:
                reads.append(store.read("sweeps/x", "report"))
            except NotCommittedError:
                continue
            except Exception as error:
                problems.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    for version in versions[1:]:
        store.commit("sweeps/x", {"report": version})
    written.set()
    reader.join()
    assert not problems
    assert set(reads) <= set(versions)
    numbers = [versions.index(content) for content in reads]
    assert numbers == sorted(numbers)


def test_two_writers_of_one_folder_leave_the_files_of_one_of_them(local: Store) -> None:
    def write(author: bytes) -> None:
        for _ in range(15):
            local.commit("sweeps/x", {"a": author, "b": author, "c": author})

    writers = [threading.Thread(target=write, args=(author,)) for author in (b"first", b"other")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(set(visible(local).values())) == 1
    assert local.names("sweeps/x") == ["a", "b", "c"]


def test_a_commit_keeps_only_what_it_is_told_to(store: Store) -> None:
    store.commit("sweeps/x", {"plan": b"1", "report": b"2"})
    store.commit("sweeps/x", {"figure": b"3"}, keep=["plan", "never there"])
    assert visible(store) == {"plan": b"1", "figure": b"3"}


def test_content_is_flushed_before_it_is_named_and_names_before_anything_is_removed(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order on which a loss of power depends, which no test can cause."""
    local.commit("sweeps/x", {"old": b"1"})
    steps: list[tuple[str, object]] = []
    fsync, replace, unlink = os.fsync, Path.replace, Path.unlink

    def spy_fsync(descriptor: int) -> None:
        steps.append(("flush", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def spy_replace(self: Path, target: Path) -> Path:
        steps.append(("name", target.name))
        return replace(self, target)

    def spy_unlink(self: Path, missing_ok: bool = False) -> None:
        steps.append(("remove", self.name))
        unlink(self, missing_ok)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    monkeypatch.setattr(Path, "unlink", spy_unlink)
    local.commit("sweeps/x", {"new": b"2"})
    assert local.local_path is not None
    folder = local.local_path / "sweeps/x"
    number = {name: (folder / name).stat().st_ino for name in ("", "new", "manifest.json")}
    assert steps == [
        ("flush", number["new"]),
        ("flush", number["manifest.json"]),
        ("name", "new"),
        ("name", "manifest.json"),
        ("flush", number[""]),
        ("remove", "old"),
    ]


@pytest.mark.parametrize("tidy", [False, True])
def test_a_commit_leaves_the_folders_below_it(store: Store, tidy: bool) -> None:
    store.commit("sweeps/x/figures", {"a": b"1"})
    store.commit("sweeps/x", {"plan": b"2"}, tidy=tidy)
    assert store.read("sweeps/x/figures", "a") == b"1"


@pytest.mark.parametrize("tidy", [False, True])
def test_a_commit_removes_strange_files_only_where_it_is_told_to(local: Store, tidy: bool) -> None:
    assert local.local_path is not None
    local.commit("sweeps/x", {"plan": b"1"})
    notes = local.local_path / "sweeps/x/notes.md"
    notes.write_text("a user's own")
    local.commit("sweeps/x", {"plan": b"2"}, tidy=tidy)
    assert notes.exists() is not tidy
    assert visible(local) == {"plan": b"2"}


def test_what_a_killed_writer_left_is_swept_away_by_the_next(local: Store) -> None:
    assert local.local_path is not None
    local.commit("sweeps/x", {"plan": b"1"})
    leftover = local.local_path / "sweeps/x/.plan.0123abcd.tmp"
    leftover.write_bytes(b"half")
    local.commit("sweeps/x", {"plan": b"2"})
    assert not leftover.exists()


def test_a_deleted_folder_is_gone(store: Store) -> None:
    store.commit("sweeps/x", {"plan": b"1"})
    store.delete("sweeps/x")
    store.delete("sweeps/x")
    assert not store.names("sweeps/x")
    assert store.sweep_folders() == []


def test_the_sweeps_of_a_store_are_listed(store: Store) -> None:
    for name in ("b", "a"):
        store.commit(store.sweep_folder(name, "digits"), {"plan.json": b"{}"})
    assert store.sweep_folders() == ["sweeps/a-digits", "sweeps/b-digits"]


# --- what the system refuses --------------------------------------------------------------------------------


def test_a_full_disk_is_one_line_and_loses_nothing(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    local.commit("sweeps/x", {"plan": b"1"})

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError) as caught:
        local.commit("sweeps/x", {"report": b"2"}, keep=["plan"])
    assert "cannot write" in only_line(caught.value.message)
    assert "sweeps/x: the disk is full; free some space" in caught.value.message
    assert visible(local) == {"plan": b"1"}
    assert local.local_path is not None
    assert sorted(path.name for path in (local.local_path / "sweeps/x").iterdir()) == [
        "manifest.json",
        "plan",
    ]


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Root may write everywhere: become nobody for a moment."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    yield
    os.seteuid(own)


def test_a_store_that_is_closed_to_us_is_one_line(tmp_path: Path, unprivileged: None) -> None:
    if os.geteuid() != 65534:
        tmp_path.chmod(0o500)
    with pytest.raises(StoreError) as caught:
        open_store(tmp_path / "store")
    assert "permission denied; choose another store" in only_line(caught.value.message)


@pytest.mark.parametrize("path", ["file", "file/store"])
def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(StoreError) as caught:
        open_store(tmp_path / path)
    assert "a file stands where a folder should be" in only_line(caught.value.message)


def test_a_folder_in_the_place_of_a_file_is_one_line(local: Store) -> None:
    assert local.local_path is not None
    (local.local_path / FOLDER / "record.json").mkdir(parents=True)
    with pytest.raises(StoreError) as caught:
        local.put_run(make_record(), curves=None, student=None)
    assert "a folder stands where a file should be" in only_line(caught.value.message)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("nowhere://x/y", "Unrecognized filesystem type"),
        ("s3://", "names no bucket"),
        ("s3://bucket/x?nonsense=1", "unknown option 'nonsense'"),
    ],
)
def test_a_uri_that_cannot_be_understood_is_one_line(uri: str, reason: str) -> None:
    with pytest.raises(StoreError, match="cannot open the store") as caught:
        open_store(uri)
    assert reason in only_line(caught.value.message)


def test_an_unreachable_store_is_one_line_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("hkrun.store.s3.RETRY_S", 1.0)
    with pytest.raises(StoreError) as caught:
        open_store("s3://key:password@bucket/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1")
    message = only_line(caught.value.message)
    assert message.startswith("cannot read s3://bucket/x/store.json: ")
    assert "password" not in message


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:pass word@bucket/x",
        "s3://key:password@bucket/x?password=password",
        "s3://key:pass/word@bucket/x",
    ],
)
def test_a_uri_that_cannot_be_understood_shows_no_password(uri: str) -> None:
    with pytest.raises(StoreError, match=r"cannot open the store s3://bucket/x: ") as caught:
        open_store(uri)
    message = only_line(caught.value.message).replace("unknown option 'password'", "")
    assert "word" not in message
    assert caught.value.__cause__ is None


def test_a_store_that_is_not_there_is_not_made_where_it_is_only_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no store; run a sweep first"):
        open_store(tmp_path / "store", create=False)
    assert not (tmp_path / "store").exists()


def test_a_mistyped_store_is_answered_with_the_one_beside_it(tmp_path: Path) -> None:
    open_store(tmp_path / "hkrun-store")
    (tmp_path / "hkrun-stories").mkdir()  # nearer, but no store
    with pytest.raises(NotFoundError) as caught:
        open_store(tmp_path / "hkrun-stroe", create=False)
    place = tmp_path / "hkrun-stroe"
    assert caught.value.message == f"{place}: there is no store; did you mean 'hkrun-store'?"
    assert not place.exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"format": 2}', "is of store format 2, and this hkrun knows 1"),
        ('{"format": ', "is damaged"),
        ("[]", "is damaged"),
        ("{}", "is damaged"),
    ],
)
def test_a_store_of_an_unknown_format_is_refused(local: Store, text: str, problem: str) -> None:
    assert local.local_path is not None
    (local.local_path / "store.json").write_text(text)
    with pytest.raises(StoreError) as caught:
        open_store(local.uri)
    assert problem in only_line(caught.value.message)


# --- one driver per sweep -----------------------------------------------------------------------------------

HOLDER = """
import sys, time
from hkrun.store import open_store
with open_store(sys.argv[1]).hold("sweeps/stability-digits"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_held_sweep_names_its_holder_and_is_free_again_when_that_is_killed(local: Store) -> None:
    command = [sys.executable, "-c", HOLDER, local.uri, "--data", "s3://key:secret@bucket/data"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(StoreError) as caught, local.hold("sweeps/stability-digits"):
                pass
            message = only_line(caught.value.message)
            assert "sweeps/stability-digits is held by" in message
            assert f"process {holder.pid} on {os.uname().nodename} since 20" in message
            assert message.count("s3://bucket/data") == 1
            assert "secret" not in message
            with local.hold("sweeps/tables-digits"):
                pass
        finally:
            holder.send_signal(signal.SIGKILL)
    with local.hold("sweeps/stability-digits"):
        pass


def test_a_sweep_is_free_after_its_block_even_after_an_error(local: Store) -> None:
    with pytest.raises(KeyError), local.hold("sweeps/x"):
        raise KeyError
    with (
        local.hold("sweeps/x"),
        pytest.raises(StoreError, match="is held by process"),
        local.hold("sweeps/x"),
    ):
        pass


def test_the_lock_file_is_no_part_of_what_is_committed(local: Store) -> None:
    with local.hold("sweeps/x"):
        local.commit("sweeps/x", {"plan": b"1"})
        assert visible(local) == {"plan": b"1"}


# --- records of other versions ------------------------------------------------------------------------------


def test_a_record_of_a_later_version_is_read(store: Store) -> None:
    store.put_run(make_record(), curves=None, student=None)
    later = json.loads(store.read(FOLDER, "record.json")) | {"energy_joules": 17.0}
    store.commit(FOLDER, {"record.json": json.dumps(later).encode()})
    assert store.record(CELL, 3) == make_record()


def test_a_record_of_an_earlier_version_gets_the_defaults(store: Store) -> None:
    required = ("cell_id", "seed", "status", "epochs", "device", "threads", "started_at")
    earlier = {name: getattr(make_record(), name) for name in required}
    store.commit(FOLDER, {"record.json": json.dumps(earlier).encode()})
    record = store.record(CELL, 3)
    assert record is not None
    assert (record.error_last_pct, record.alarms, record.pack, record.world_size) == (None, (), (), 1)


def test_a_number_that_json_cannot_hold_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.put_run(make_record(error_last_pct=float("nan")), curves=None, student=None)
    assert store.record(CELL, 3) is None


# --- tables -------------------------------------------------------------------------------------------------


def test_curves_have_the_same_types_in_every_run(store: Store) -> None:
    curves = pa.table(
        {"epoch": [1], "error_pct": pa.array([4], pa.int64()), "error_top5_pct": pa.array([None])}
    )
    store.put_run(make_record(), curves=curves, student=None)
    schema = pq.read_schema(pa.BufferReader(store.read(FOLDER, "curves.parquet")))
    assert schema.names == ["epoch", "error_pct", "error_top5_pct"]
    assert schema.types == [pa.int32(), pa.float64(), pa.float64()]


@pytest.mark.parametrize("column", ["error_pct", "loss_total"])
def test_epochs_without_a_number_are_read_and_found_by_filters(
    local: Store, tmp_path: Path, column: str
) -> None:
    nan = float("nan")
    curves = pa.table({"epoch": [1, 2, 3], "error_pct": [9.0, nan, 8.0], "loss_total": [nan, nan, nan]})
    local.put_run(make_record(), curves=curves, student=None)
    assert str(local.curves(CELL, 3)[column].to_pylist()) == str(curves[column].to_pylist())
    assert local.local_path is not None
    file = local.local_path / FOLDER / "curves.parquet"
    field = pc.field(column)
    for condition in (field.is_nan(), ~(field <= 9.0), ~(field > 0.0)):
        found = pq.read_table(file, filters=condition)
        assert found["epoch"].to_pylist() == curves.filter(condition)["epoch"].to_pylist() != []


def test_curves_without_epochs_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="'epoch'"):
        store.put_run(make_record(), curves=pa.table({"error_pct": [1.0]}), student=None)


@pytest.mark.parametrize("parallel_reads", [1, 3])
def test_the_curves_of_many_runs_come_in_order_with_the_columns_that_there_are(
    store: Store, monkeypatch: pytest.MonkeyPatch, parallel_reads: int
) -> None:
    monkeypatch.setattr(LocalFiles, "parallel_reads", parallel_reads)
    seeds = list(range(15, 0, -1))
    for seed in seeds:
        extra = {"loss_total": [0.5]} if seed % 2 else {}
        curves = pa.table({"epoch": [1], "error_pct": [float(seed)], **extra})
        store.put_run(make_record(seed), curves=curves, student=None)
    runs = [(CELL, seed) for seed in seeds]
    found = list(store.each_curves(runs, columns=("error_pct", "loss_total", "no_such")))
    assert [table["error_pct"].to_pylist() for table in found] == [[float(seed)] for seed in seeds]
    assert [("loss_total" in table.column_names) for table in found] == [seed % 2 == 1 for seed in seeds]
    assert not any("epoch" in table.column_names for table in found)
    assert "epoch" in next(iter(store.each_curves(runs))).column_names


def test_all_curves_have_null_where_a_run_lacks_a_column(store: Store) -> None:
    other = "ba9876543210"
    store.put_run(make_record(3), curves=make_curves(loss_backbone=[0.5, 0.25]), student=None)
    store.put_run(make_record(0, cell_id=other), curves=make_curves(loss_knowledge=[1.0, None]), student=None)
    store.put_run(make_record(1, status="failed"), curves=None, student=None)
    table = store.all_curves()
    assert table.column_names == ["cell_id", "seed", "epoch", "error_pct", "loss_backbone", "loss_knowledge"]
    assert table.to_pydict() == {
        "cell_id": [CELL, CELL, other, other],
        "seed": [3, 3, 0, 0],
        "epoch": [1, 2, 1, 2],
        "error_pct": [4.0, 3.25, 4.0, 3.25],
        "loss_backbone": [0.5, 0.25, None, None],
        "loss_knowledge": [None, None, 1.0, None],
    }
    assert store.all_curves([other])["seed"].to_pylist() == [0, 0]


def test_runs_are_one_row_per_record(store: Store) -> None:
    store.put_run(make_record(4), curves=None, student=None)
    store.put_run(make_record(3, status="failed", error_last_pct=None, timings={}), curves=None, student=None)
    table = store.runs()
    assert table["seed"].to_pylist() == [3, 4]
    assert table["error_last_pct"].to_pylist() == [None, 3.25]
    assert table["seconds"].to_pylist() == [None, 12.5]


def test_an_empty_store_has_empty_tables_of_the_same_columns(store: Store) -> None:
    names = store.runs().column_names
    assert store.runs().num_rows == 0
    assert store.all_curves().column_names == ["cell_id", "seed", "epoch"]
    store.put_run(make_record(), curves=None, student=None)
    assert store.runs().column_names == names


def test_a_listing_beside_a_run_in_training_misses_no_record(local: Store) -> None:
    for seed in range(5):
        local.put_run(make_record(seed), curves=None, student=None)
    done = threading.Event()

    def train() -> None:
        for epoch in range(1, 80):
            local.commit(f"cells/{CELL}/seeds/2/checkpoints", {f"epoch-{epoch}": b"state"}, tidy=True)
            if epoch % 3 == 0:
                local.delete(f"cells/{CELL}/seeds/2/checkpoints")
        done.set()

    training = threading.Thread(target=train)
    training.start()
    seen = []
    while not done.is_set() or not seen:
        seen.append([record.seed for record in local.records(CELL)])
    training.join()
    assert all(seeds == [0, 1, 2, 3, 4] for seeds in seen)


def test_listing_costs_one_look_per_cell(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(12):
        local.put_run(make_record(seed), curves=make_curves(), student=None)
    looks: list[str] = []
    for method in ("sizes", "folders"):
        original = getattr(LocalFiles, method)
        monkeypatch.setattr(
            LocalFiles,
            method,
            lambda self, folder, original=original: looks.append(folder) or original(self, folder),
        )
    assert local.runs().num_rows == 12
    assert looks == ["cells", f"cells/{CELL}/seeds"]


# --- what a notebook pays -----------------------------------------------------------------------------------

LIGHT = """
import sys
import hkrun
heavy = {"torch", "ray", "mlflow", "pyarrow", "numpy"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert hkrun.open_store(sys.argv[1]).runs().to_pandas().empty
assert not {"torch", "ray", "mlflow"} & set(sys.modules)
"""


def test_the_package_loads_nothing_heavy_and_the_store_no_torch(tmp_path: Path) -> None:
    open_store(tmp_path / "store")
    subprocess.run([sys.executable, "-W", "error", "-c", LIGHT, str(tmp_path / "store")], check=True)


# --- two processes that do the same work ------------------------------------------------------------------


def test_the_first_result_of_a_run_stands(store: Store) -> None:
    store.put_run(make_record(status="failed"), curves=None, student=None)
    store.put_run(make_record(threads=1), curves=make_curves(), student=b"first", keep_result=True)
    store.put_run(make_record(threads=2), curves=None, student=b"second", keep_result=True)
    store.put_run(make_record(status="failed"), curves=None, student=None, keep_result=True)
    record = store.record(CELL, 3)
    assert record is not None
    assert (record.status, record.threads) == ("finished", 1)
    assert store.student(CELL, 3) == b"first"


def test_a_run_of_another_teacher_than_the_stores_is_refused(store: Store) -> None:
    store.put_teacher(make_teacher_record(teacher_hash="ab"), weights=b"weights", curves=make_curves())
    run = make_record(teacher_id=TEACHER, teacher_hash="cd")
    with pytest.raises(StoreError, match=f"teachers/{TEACHER} was replaced while seed 3 .* learned from it"):
        store.put_run(run, curves=None, student=None, keep_result=True)
    assert store.record(CELL, 3) is None


def test_the_first_whole_teacher_stands(local: Store) -> None:
    for number in (1, 2):
        local.put_teacher(
            make_teacher_record(teacher_hash=f"{number}"),
            weights=b"%d" % number,
            curves=make_curves(),
            keep_result=True,
        )
    assert (local.teacher(TEACHER), local.teacher_weights(TEACHER)) == (
        make_teacher_record(teacher_hash="1"),
        b"1",
    )


def damage_weights(store: Store) -> None:
    """Changes a bit of the teacher's weights, and leaves their size."""
    weights = Path(str(store.local_path), "teachers", TEACHER, "weights.pt")
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])


@pytest.mark.parametrize("same", [True, False], ids=["same weights", "other weights"])
def test_a_damaged_teacher_is_replaced_unless_runs_learned_from_other_weights(
    local: Store, same: bool, caplog: pytest.LogCaptureFixture
) -> None:
    local.put_teacher(make_teacher_record(teacher_hash="ab"), weights=b"weights", curves=make_curves())
    local.put_run(make_record(teacher_id=TEACHER, teacher_hash="ab"), curves=None, student=None)
    local.put_run(make_record(4, teacher_id=TEACHER, teacher_hash="ab"), curves=None, student=None)
    assert local.whole_teacher(TEACHER) is not None
    damage_weights(local)
    assert local.whole_teacher(TEACHER) is None
    assert "the teacher is trained again" in caplog.text
    assert "weights.pt is damaged" in caplog.text
    again = make_teacher_record(teacher_hash="ab" if same else "cd")
    if same:
        local.put_teacher(again, weights=b"weights", curves=make_curves(), keep_result=True)
        assert local.teacher_weights(TEACHER) == b"weights"
        return
    with pytest.raises(
        StoreError, match=rf"than the one that {CELL} seed 3 and 1 more learned from; put"
    ) as told:
        local.put_teacher(again, weights=b"others", curves=make_curves(), keep_result=True)
    assert len(told.value.problems) == 1
    assert local.teacher(TEACHER) == make_teacher_record(teacher_hash="ab")


def test_a_diverged_teacher_is_on_record_and_no_teacher(store: Store) -> None:
    diverged = DivergedTeacher(
        teacher_id=TEACHER,
        diverged_epoch=2,
        message="loss_backbone is nan in epoch 2",
        config={"teacher.learning_rate": 1e30},
        epochs=1,
        device="cpu",
        threads=1,
        started_at=1.0,
    )
    store.put_diverged_teacher(diverged, curves=None)
    assert store.teacher(TEACHER) is None
    assert store.diverged_teacher(TEACHER) == diverged
    store.put_teacher(make_teacher_record(), weights=b"weights", curves=make_curves(), keep_result=True)
    store.put_diverged_teacher(diverged, curves=None)
    assert store.teacher(TEACHER) == make_teacher_record()
    assert store.diverged_teacher(TEACHER) is None


def test_a_folder_is_not_deleted_under_a_writer(local: Store) -> None:
    folder = f"{FOLDER}/checkpoints"
    local.commit(folder, {"epoch-1.pt": b"state"})
    deleting = threading.Thread(target=local.delete, args=(folder,))
    with LocalFiles(Path(str(local.local_path))).exclusive(folder):
        deleting.start()
        deleting.join(0.5)
        assert deleting.is_alive()
        assert Path(str(local.local_path), folder, "epoch-1.pt").exists()
    deleting.join()
    assert not Path(str(local.local_path), folder).exists()
    local.commit(folder, {"epoch-2.pt": b"state"})  # as one that saves on after another has finished
    assert local.read(folder, "epoch-2.pt") == b"state"


def test_a_folder_that_two_delete_at_a_time_is_gone_for_both(local: Store) -> None:
    """Two drivers that finish the same run both delete its checkpoints."""
    folder = f"{FOLDER}/checkpoints"
    local.commit(folder, {"epoch-1.pt": b"state"})
    place = Path(str(local.local_path), folder)
    with ThreadPoolExecutor() as pool:
        with LocalFiles(Path(str(local.local_path))).exclusive(folder):
            deletion = pool.submit(local.delete, folder)
            with pytest.raises(TimeoutError):
                deletion.result(0.5)
            shutil.rmtree(place)
        deletion.result()
    assert not place.exists()
