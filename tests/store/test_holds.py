"""One driver per sweep: on a disk, in a directory that machines share, and on S3."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server, moto_running

from hkrun.errors import StoreError
from hkrun.store import Store, lock, open_store
from hkrun.store.files import Seen

FOLDER = "sweeps/stability-digits"
HOLDER = """
import sys, time
from hkrun.errors import StoreError
from hkrun.store import lock, open_store
lock.HEARTBEAT_S, lock.PATIENCE_S, lock.LOOK_S = 0.1, 1.2, 0.05
if sys.argv[2] == "elsewhere":
    lock._boot = lambda: "another machine"
store = open_store(sys.argv[1])
try:
    with store.hold("sweeps/stability-digits"):
        print("held", flush=True)
        for number in range(3000):
            time.sleep(0.2)
            if sys.argv[3] == "commits":
                store.commit("sweeps/stability-digits", {"plan.json": b"plan %d" % number})
except StoreError as error:
    print("told:", error.message, flush=True)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(lock, "PATIENCE_S", 1.2)
    monkeypatch.setattr(lock, "LOOK_S", 0.05)


# What waits for a heartbeat, and is the same code wherever the store is: both places only with slow tests.
LOCAL, S3 = (pytest.param(name, marks=pytest.mark.slow) for name in ("local", "s3"))
SLOW_ON_S3 = pytest.mark.parametrize("store", ["local", S3], indirect=True)
SLOW_ON_A_DISK = pytest.mark.parametrize("store", [LOCAL, "s3"], indirect=True)


@contextlib.contextmanager
def holder(
    store: Store, *, where: str = "here", does: str = "waits"
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Another driver that holds the sweep; and what it says after that, once it has ended."""
    command = [sys.executable, "-c", HOLDER, store.uri, where, does, "--data", "s3://key:secret@bucket/data"]
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process, said
        finally:
            process.kill()
            said += process.stdout.read().splitlines()


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that machines share, over which their locks do not reach each other."""
    monkeypatch.setattr("fcntl.flock", lambda descriptor, how: None)


def test_the_second_is_told_at_once_who_holds_the_sweep(store: Store) -> None:
    with holder(store) as (process, _):
        with pytest.raises(StoreError) as caught, store.hold(FOLDER):
            pass
        (line,) = caught.value.problems
        assert f"{FOLDER} is held by process {process.pid} on {os.uname().nodename} since 20" in line
        assert "s3://bucket/data" in line
        assert line.endswith("); wait for it or stop it, then run again")
        assert "secret" not in line
        assert caught.value.exit_code == 6
        with store.hold("sweeps/tables-digits"):
            pass


def test_what_is_kept_of_a_holder_holds_no_secret(store: Store) -> None:
    with store.hold(FOLDER):
        text = store._files.get(f"{FOLDER}/driver.lock")
        assert text is not None
        assert b"kept-out-of-every-message" not in text


@SLOW_ON_S3
def test_a_killed_holder_of_this_machine_is_followed_without_waiting(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 1e6)
    with holder(store) as (process, _):
        process.kill()
        process.wait()
        with store.hold(FOLDER):
            store.commit(FOLDER, {"plan.json": b"mine"})


def test_a_holder_that_ended_well_is_followed_without_waiting_wherever_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 1e6)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(lock, "_boot", lambda: "another machine")
        with store.hold(FOLDER):
            pass
    for _ in range(2):
        with store.hold(FOLDER):
            pass


@SLOW_ON_S3
def test_what_a_holder_tells_is_read_without_a_change_until_it_has_gone(store: Store) -> None:
    other = open_store(store.uri)
    assert other.holder(FOLDER) is None
    store.tell(FOLDER, {"phase": "nothing is held"})
    with store.hold(FOLDER):
        told = {"phase": "training", "epochs_done": 3, "eta_seconds": None}
        store.tell(FOLDER, told)
        beat = wait_for(lambda: (seen := other.holder(FOLDER)) and seen.doing == told and seen.beat)
        # It beats also without news.
        assert wait_for(lambda: (seen := other.holder(FOLDER)) and seen.beat != beat)
        seen = other.holder(FOLDER)
        assert seen is not None
        assert (seen.pid, seen.alive, seen.doing) == (os.getpid(), True, told)
    assert other.holder(FOLDER) is None


def wait_for(look: Callable[[], Any]) -> Any:
    """What a look finds, once it finds something."""
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError("nothing was found")


@SLOW_ON_S3
def test_of_a_holder_elsewhere_one_look_cannot_tell_whether_it_is_alive(
    store: Store,
) -> None:
    with holder(store, where="elsewhere") as (process, _):
        seen = store.holder(FOLDER)
        assert seen is not None
        assert (seen.pid, seen.alive) == (process.pid, None)
    with holder(store) as (process, _):
        seen = store.holder(FOLDER)
        assert seen is not None
        assert seen.alive is True
        process.kill()
        process.wait()
        assert store.holder(FOLDER) is None


@pytest.mark.slow
def test_a_holder_elsewhere_that_still_beats_is_left_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holder(store, where="elsewhere") as (process, _):
        without_locks(monkeypatch)
        with pytest.raises(StoreError, match=f"held by process {process.pid} on"), store.hold(FOLDER):
            pass


@SLOW_ON_S3
def test_a_holder_elsewhere_that_was_killed_is_taken_over_when_its_beat_stands_still(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with holder(store, where="elsewhere") as (process, _):
        process.kill()
        process.wait()
        began = time.monotonic()
        with caplog.at_level(logging.WARNING), store.hold(FOLDER):
            assert time.monotonic() - began >= lock.PATIENCE_S
            store.commit(FOLDER, {"plan.json": b"mine"})
    assert f"waiting up to 1 s to see whether process {process.pid} on" in caplog.text


@SLOW_ON_S3
def test_wrong_clocks_change_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a holder from the future nor one from the past: only whether it beats."""
    with holder(store, where="elsewhere"):
        without_locks(monkeypatch)
        for wrong in (0.0, 4e9):
            monkeypatch.setattr("time.time", lambda wrong=wrong: wrong)
            with pytest.raises(StoreError, match="is held by"), store.hold(FOLDER):
                pass


@SLOW_ON_A_DISK
@pytest.mark.parametrize("does", [pytest.param("waits", marks=pytest.mark.slow), "commits"])
def test_a_holder_that_stood_still_while_another_took_over_stops_and_commits_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    with holder(store, where="elsewhere", does=does) as (process, said):
        process.send_signal(signal.SIGSTOP)
        without_locks(monkeypatch)
        with store.hold(FOLDER):
            store.commit(FOLDER, {"plan.json": b"mine"})
            process.send_signal(signal.SIGCONT)
            assert process.wait(timeout=60) == 0
            assert store.read(FOLDER, "plan.json") == b"mine"
    (line,) = said
    assert line.startswith("told: ")
    assert f"{FOLDER} was taken over by process {os.getpid()} on" in line


@pytest.mark.parametrize(
    "handler", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"]
)
def test_a_hold_that_is_lost_stops_the_main_thread_as_ctrl_c_would(store: Store, handler: Any) -> None:
    def lose() -> None:
        with store.hold(FOLDER):
            hold = store._holds[FOLDER]
            with hold._turn:
                hold._slot.write(json.dumps({"token": "another"}).encode(), seen=hold._seen)
            time.sleep(60)  # until the heartbeat notices

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(StoreError, match="was taken over by another driver while"):
            lose()
        assert signal.getsignal(signal.SIGINT) == handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_hold_outlives_a_server_that_is_away_for_a_moment(
    s3_server: S3Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_server.place().full_uri)
    with store.hold(FOLDER):
        real = store._files.replace  # type: ignore[attr-defined]

        def refuse(*arguments: object, **options: object) -> Seen:
            raise StoreError("cannot write: away")

        store._files.replace = refuse  # type: ignore[attr-defined]
        time.sleep(0.3)
        store._files.replace = real  # type: ignore[attr-defined]
        store.commit(FOLDER, {"plan.json": b"mine"})
    assert "the hold is not renewed: cannot write: away" in caplog.text


def test_a_store_that_was_removed_while_it_was_held_takes_no_harm(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    with store.hold(FOLDER):
        (tmp_path / "store" / FOLDER / "driver.lock").unlink()
        (tmp_path / "store" / FOLDER).rmdir()
        time.sleep(0.3)
        store.commit(FOLDER, {"plan.json": b"mine"})
    assert store.read(FOLDER, "plan.json") == b"mine"


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'{"pid": 1, "host": "h", "since": "s", "command": "c"}'])
def test_a_lock_file_that_says_nothing_holds_nobody_off(store: Store, left: bytes) -> None:
    """Also one of a version that wrote no heartbeat: its lock ended with it."""
    store._files.put(FOLDER, {"driver.lock": left})
    with store.hold(FOLDER):
        pass


@pytest.mark.slow
def test_a_server_that_does_not_heed_conditions_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with moto_running(tmp_path, deaf=True) as server:
        store = open_store(server.place().full_uri)
        with store.hold(FOLDER):
            store.commit(FOLDER, {"plan.json": b"mine"})
        assert store.read(FOLDER, "plan.json") == b"mine"
    assert "the server does not heed conditional writes" in caplog.text
    assert "see that only one works on a sweep" in caplog.text


def test_each_server_heeds_conditions(each_s3_server: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(each_s3_server.place().full_uri)
    with store.hold(FOLDER):
        time.sleep(0.4)  # some heartbeats
        with pytest.raises(StoreError, match="is held by"), open_store(store.uri).hold(FOLDER):
            pass
        store.commit(FOLDER, {"plan.json": b"mine"})
    with store.hold(FOLDER):
        pass
    assert not caplog.records
