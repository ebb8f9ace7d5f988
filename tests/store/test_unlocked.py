"""A directory on a file system that knows no locks, as some that machines share."""

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hkrun.errors import StoreError
from hkrun.store import files, open_store

FOLDER = "sweeps/stability-digits"


@pytest.fixture(autouse=True)
def first_time() -> Iterator[None]:
    """As in a process that has warned of nothing yet."""
    files._warn_of_no_locks.cache_clear()
    yield
    files._warn_of_no_locks.cache_clear()


def refuse_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_a_sweep_is_held_and_committed_where_there_are_no_locks_with_one_warning_of_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    refuse_locks(monkeypatch, number)
    store = open_store(tmp_path / "store")
    with caplog.at_level(logging.WARNING), store.hold(FOLDER):
        for content in (b"one", b"two"):
            store.commit(FOLDER, {"plan.json": content})
            assert store.read(FOLDER, "plan.json") == content
        store.commit("teachers/0123456789ab", {"weights.pt": b"weights"})
        store.delete("teachers/0123456789ab")
    held, committed = (record.getMessage() for record in caplog.records)
    reason = os.strerror(number)
    assert held.startswith(f"{tmp_path / 'store' / FOLDER} knows no locks ({reason}): drivers keep off")
    assert committed.startswith(f"{tmp_path / 'store'} knows no locks ({reason}): commits are made without")


def test_what_another_writer_is_writing_is_not_swept_away_without_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "store")
    store.commit(FOLDER, {"plan.json": b"plan"})
    being_written = tmp_path / "store" / FOLDER / ".report.html.1a2b3c4d.tmp"
    being_written.write_bytes(b"half")
    with monkeypatch.context() as unlocked:
        refuse_locks(unlocked, errno.ENOLCK)
        store.commit(FOLDER, {"plan.json": b"plan"})
        assert being_written.exists()
    store.commit(FOLDER, {"plan.json": b"plan"})
    assert not being_written.exists()


def test_another_failure_of_a_lock_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path / "store")
    refuse_locks(monkeypatch, errno.EIO)
    for action, call in [
        ("lock", lambda: store.commit(FOLDER, {"plan.json": b"plan"})),
        ("hold", lambda: store.hold(FOLDER).__enter__()),
    ]:
        with pytest.raises(StoreError) as caught:
            call()
        (line,) = caught.value.problems
        assert line.startswith(f"cannot {action} {tmp_path / 'store' / FOLDER}: ")
        assert os.strerror(errno.EIO) in line
