"""Statistics computed ahead by two processes: the same ones, and no less where the second process fails."""

import functools
import os
import sys
import threading
import time

import numpy as np
import pytest

from hkrun import stats

ahead = sys.modules["hkrun.stats.ahead"]


def compare(seed):
    values = np.random.default_rng(seed).normal(0, 1, (2, 20))
    return stats.paired_difference(*values, generator=np.random.default_rng(seed))


@pytest.fixture
def memory(monkeypatch):
    """One that asks ahead, on an idle machine of two cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "getloadavg", lambda: (1.9, 9.0, 9.0))
    memory = stats.Memory()
    memory.asks_ahead = True
    with stats.remembering(memory):
        yield memory
    with pytest.raises(ChildProcessError):  # none is left
        os.waitpid(-1, os.WNOHANG)


def wait_for(path):
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"no {path.name}"
        time.sleep(0.01)


def meet(folder, here, there, seed):
    """Compares once another process has come to the other question."""
    (folder / here).touch()
    wait_for(folder / there)
    compare(seed)


def test_two_processes_compute_what_one_would(memory, tmp_path):
    expected = [compare_without(seed) for seed in range(6)]
    first = [functools.partial(meet, tmp_path, *names, seed) for seed, names in enumerate(("ab", "ba"))]
    stats.ask_ahead([*first, *(functools.partial(compare, seed) for seed in range(2, 6))])
    known = dict(memory.given)
    assert len(known) >= 6
    assert [compare(seed) for seed in range(6)] == expected
    assert memory.given == known, "nothing is computed once more"


def compare_without(seed):
    with stats.remembering(stats.Memory()):
        return compare(seed)


def end_second(parent, how):
    if os.getpid() != parent:
        how()
    time.sleep(0.2)


def fail():
    raise RuntimeError("in the second process")


@pytest.mark.parametrize(
    "how", [lambda: os._exit(3), fail, lambda: time.sleep(600)], ids=["ends", "fails", "hangs"]
)
def test_what_a_second_process_does_not_tell_is_computed_later(memory, monkeypatch, how, capfd):
    monkeypatch.setattr(ahead, "_PATIENCE_S", 0.2)
    expected = [compare_without(seed) for seed in range(3)]
    stats.ask_ahead([functools.partial(end_second, os.getpid(), how)] * 4)
    assert [compare(seed) for seed in range(3)] == expected
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_what_is_raised_here_is_raised_and_ends_the_second_process(memory, kind, tmp_path):
    parent = os.getpid()

    def stop(here, there):
        (tmp_path / here).touch()
        wait_for(tmp_path / there)
        if os.getpid() == parent:
            raise kind("no")
        time.sleep(600)

    with pytest.raises(kind, match="no"):
        stats.ask_ahead([functools.partial(stop, *names) for names in ("ab", "ba")])


def test_without_a_second_process_nothing_is_lost(memory, monkeypatch):
    def refuse():
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(os, "fork", refuse)
    stats.ask_ahead([functools.partial(compare, seed) for seed in range(2)])
    assert compare(0) == compare_without(0)


@pytest.mark.parametrize("reason", ["one core", "no free core", "a thread", "a small study", "one question"])
def test_no_process_is_started(memory, monkeypatch, reason):
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a process was started"))
    end, questions = threading.Event(), [functools.partial(compare, seed) for seed in range(2)]
    if reason == "one core":
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    if reason == "no free core":
        monkeypatch.setattr(os, "getloadavg", lambda: (2.0, 0.0, 0.0))
    if reason == "a thread":
        threading.Thread(target=end.wait, daemon=True).start()
    if reason == "a small study":
        memory.asks_ahead = False
    if reason == "one question":
        questions = questions[:1]
    try:
        stats.ask_ahead(questions)
    finally:
        end.set()
    assert not memory.given


def test_nothing_is_asked_where_nothing_is_remembered(monkeypatch):
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a process was started"))
    stats.ask_ahead([lambda: pytest.fail("asked")] * 2)
