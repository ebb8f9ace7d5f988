"""Who is taken for dead, and when: the watchdog's judgement, without a cluster."""

import json
import math
import os
import signal
import subprocess

import pytest
import torch
from ray.exceptions import RaySystemError, RpcError
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.tune.error import TuneError

from hkrun.cluster.driver.runtime import Running
from hkrun.cluster.trials import callback, watchdog
from hkrun.cluster.trials import tune as tuning
from hkrun.cluster.trials.schedule import WorkerDiedError
from hkrun.cluster.trials.train import classify
from hkrun.cluster.trials.watchdog import (
    HANG_FACTOR,
    LONGEST_STEP_S,
    Limits,
    Signs,
    WakingClock,
    find_birth,
    kill_process,
    read_limits,
)
from hkrun.errors import InputError
from hkrun.training import PeerLostError


@pytest.fixture
def signs():
    return Signs(Limits(silence_s=10, hang_s=100))


def test_a_process_whose_pulse_stops_is_silent_and_one_that_beats_is_not(signs):
    for now in range(0, 40, 5):
        beats = {"1/trial": str(now).encode(), "2/trial": b"0"}
        silent = signs.find_silent(beats, now=now)
        assert silent == (["2/trial"] if now > 10 else [])


def test_the_first_look_at_a_process_counts_as_life(signs):
    assert signs.find_silent({"1/trial": b"0"}, now=500) == []
    assert signs.find_silent({"1/trial": b"0"}, now=511) == ["1/trial"]


def test_a_process_that_took_its_leave_is_not_missed(signs):
    signs.find_silent({"1/rank-0": b"0", "1/rank-1": b"0"}, now=0)
    assert signs.find_silent({"1/rank-0": b"1"}, now=11) == []
    assert signs.find_silent({"1/rank-0": b"1", "1/rank-1": b"0"}, now=12) == []  # another one of that name


def test_a_task_without_progress_hangs_after_a_limit_of_at_least_what_is_set(signs):
    signs.begin(1, now=0)
    signs.progress(1, now=1)
    signs.progress(1, now=2)
    assert signs.find_hanging(now=102) == {}
    assert signs.find_hanging(now=103) == {1: 100}
    signs.progress(1, now=103)
    assert signs.find_hanging(now=104) == {}


def test_the_limit_follows_the_longest_epoch(signs):
    signs.begin(1, now=0)
    for now in (10, 20, 80, 90):
        signs.progress(1, now=now)
    limit = HANG_FACTOR * 60
    assert signs.find_hanging(now=90 + limit) == {}
    assert signs.find_hanging(now=91 + limit) == {1: limit}


def test_preparations_count_as_an_epoch_only_until_the_second_report(signs):
    signs.begin(1, now=0)
    signs.progress(1, now=1000)
    assert signs.find_hanging(now=1000 + HANG_FACTOR * 1000) == {}
    signs.progress(1, now=1010)
    assert signs.find_hanging(now=1010 + HANG_FACTOR * 10 + 1) == {1: HANG_FACTOR * 10}


def test_a_task_may_prepare_for_as_long_as_it_takes(signs):
    signs.begin(1, now=0)
    assert signs.find_hanging(now=1e6) == {}


def test_what_is_over_is_forgotten(signs):
    signs.begin(1, now=0)
    signs.progress(1, now=1)
    signs.find_silent({"1/trial": b"0", "11/trial": b"0"}, now=1)
    signs.forget(1)
    assert signs.find_hanging(now=1e6) == {}
    assert signs.find_silent({"1/trial": b"0", "11/trial": b"0"}, now=100) == ["11/trial"]


def test_a_suspended_machine_or_a_stopped_driver_costs_nobody_anything(signs):
    """Each process has been stopped as long as the driver, which looks first when all go on."""
    times = iter([0.0, 0.0, 1.0, 100_000.0, 100_001.0])
    clock = WakingClock(lambda: next(times))
    looks = [clock.look() for _ in range(4)]
    assert looks == [0.0, 1.0, 1.0 + LONGEST_STEP_S, 2.0 + LONGEST_STEP_S]
    for now in looks:
        assert signs.find_silent({"1/trial": b"0"}, now=now) == []


def test_a_store_that_does_not_answer_for_long_costs_nobody_anything(monkeypatch):
    """The processes could not write either: their beats are the old ones when it answers again."""
    clock = {"now": 0.0, "away": False}
    killed = []

    def read_pulses():
        if clock["away"]:
            raise RaySystemError("no answer")
        return {"1/trial": b"{}"}

    monkeypatch.setattr(watchdog, "_read_pulses", read_pulses)
    monkeypatch.setattr(watchdog, "_remove", lambda _key: None)
    monkeypatch.setattr(watchdog, "_kill", killed.append)
    dog = watchdog.Watchdog(lambda: clock["now"])
    dog.look({1: "task"})
    clock["away"] = True
    for clock["now"] in range(10, 1000, 10):
        dog.look({1: "task"})
        dog.progressed(1)
    clock["away"] = False
    clock["now"] += 10.0
    dog.look({1: "task"})
    assert killed == []
    for _ in range(100):  # but it really is silent
        clock["now"] += 3.0
        dog.look({1: "task"})
    assert killed != []


def test_limits_are_the_users_to_set():
    assert read_limits({}) == Limits()
    told = read_limits({"HKRUN_SILENCE_S": "7.5", "HKRUN_HANG_S": "inf"})
    assert told == Limits(silence_s=7.5, hang_s=math.inf)
    assert told.beat_every_s < 1
    assert read_limits({"HKRUN_SILENCE_S": "inf"}).beat_every_s == Limits().beat_every_s
    for value in ("soon", "0", "-1", "nan"):
        with pytest.raises(InputError, match=f"HKRUN_HANG_S: '{value}' is no number of seconds above 0"):
            read_limits({"HKRUN_HANG_S": value})


def test_killing_ends_a_stopped_process_but_no_other_one_with_its_id():
    with subprocess.Popen(["sleep", "100"]) as process:
        os.kill(process.pid, signal.SIGSTOP)
        born = find_birth(process.pid)
        kill_process(process.pid, f"{born}0")
        assert process.poll() is None
        kill_process(process.pid, born)
        assert process.wait(10) == -signal.SIGKILL
    kill_process(process.pid, born)  # which is gone


PAINTED = """Failure # 1
\x1b[36mray::ImplicitFunc.train()\x1b[39m (pid=1, ip=192.0.2.2)
  File ...
hkrun.cluster.trials.schedule.WorkerDiedError: worker 1 of the group died
"""


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (PAINTED, "worker 1 of the group died"),
        ("Failure # 1\nThe actor died unexpectedly.\n\tpid: 1\nand more\n", "The actor died unexpectedly."),
        ("", "unknown"),
    ],
)
def test_a_death_has_one_line_without_colours(told, reason):
    assert callback._reason(told) == reason


def test_a_device_that_failed_is_no_mistake_of_the_code():
    broken = torch.AcceleratorError("CUDA error: unspecified launch failure\nand more")
    reason = classify(WorkerGroupError("", {0: RuntimeError("connection closed by peer"), 1: broken}))
    assert isinstance(reason, WorkerDiedError)
    assert str(reason) == "the device of worker 1 failed: CUDA error: unspecified launch failure"


class FakeCluster:
    """The key-value store and the processes of a cluster that may be slow to do what it is told."""

    def __init__(self, monkeypatch, **pulses):
        self.now, self.pulses, self.killed, self.deaf = 0.0, {}, [], False
        for name, beats in pulses.items():
            self.pulses[name.replace("_", "/")] = beats
        monkeypatch.setattr(watchdog, "_read_pulses", lambda: dict(self.pulses))
        monkeypatch.setattr(watchdog, "_remove", self.remove)
        monkeypatch.setattr(watchdog, "_kill", self.kill)
        monkeypatch.setenv("HKRUN_SILENCE_S", "20")
        monkeypatch.setenv("HKRUN_HANG_S", "50")
        self.dog = watchdog.Watchdog(clock=lambda: self.now)

    def remove(self, key):
        if self.deaf:
            raise RpcError("no answer")
        self.pulses = {name: beat for name, beat in self.pulses.items() if not name.startswith(key)}

    def kill(self, process):
        self.killed.append((self.now, process["pid"]))
        if self.deaf:
            raise RpcError("no answer")

    def look_for(self, seconds, *, beating=()):
        for _ in range(int(seconds / 2)):
            self.now += 2
            for key in beating:
                self.pulses[key] = json.dumps({"pid": int(key[0]), "beat": self.now}).encode()
            self.dog.look({1: "first", 2: "second"})


def test_a_kill_that_was_lost_is_repeated_until_the_try_has_ended(monkeypatch, caplog):
    cluster = FakeCluster(monkeypatch, **{"1_trial": b'{"pid": 1}'})
    cluster.look_for(60, beating=["2/trial"])
    assert [pid for _, pid in cluster.killed] == [1] * 4
    assert [now for now, _ in cluster.killed] == [24, 34, 44, 54]
    assert caplog.text.count("it is ended") == 1
    assert cluster.dog.ended(1) == "a process of it was silent for 20 s"
    del cluster.killed[:]
    cluster.look_for(60, beating=["2/trial"])
    assert cluster.killed == []


def test_a_hanging_task_is_killed_again_where_ray_did_not_answer_the_first_time(monkeypatch):
    cluster = FakeCluster(monkeypatch)
    cluster.look_for(2, beating=["1/rank-0", "1/rank-1"])
    cluster.dog.progressed(1)
    cluster.look_for(2, beating=["1/rank-0", "1/rank-1"])
    cluster.dog.progressed(1)
    cluster.deaf = True
    cluster.look_for(54, beating=["1/rank-0", "1/rank-1"])
    assert [pid for _, pid in cluster.killed] == [1, 1]  # both, though the first one raised
    cluster.deaf = False
    cluster.look_for(10, beating=["1/rank-0", "1/rank-1"])
    assert len(cluster.killed) == 4
    assert cluster.dog.ended(1) == "it made no progress for 50 s"


def test_a_report_that_comes_after_the_end_of_its_try_blinds_nobody(monkeypatch):
    cluster = FakeCluster(monkeypatch)
    cluster.dog.progressed(7)
    cluster.look_for(100, beating=["1/trial"])
    cluster.pulses["2/trial"] = b'{"pid": 2}'
    cluster.look_for(30, beating=["1/trial"])
    assert [pid for _, pid in cluster.killed] == [2]


def test_the_loss_of_a_worker_that_left_no_word_is_told_with_its_cause():
    lost = PeerLostError("a worker of the group was lost: Connection closed by peer [10.0.0.2]:4")
    death = classify(WorkerGroupError("", {0: lost, 1: lost}))
    assert isinstance(death, WorkerDiedError)
    assert str(death) == str(lost)
    mistake = RuntimeError("shapes differ")
    assert classify(WorkerGroupError("", {0: lost, 1: mistake})) is mistake


def break_down(cause):
    try:
        raise TuneError("The Ray Tune run failed") from cause
    except TuneError as error:
        return error


@pytest.mark.parametrize(
    ("joined", "answers", "cause", "exit_code"),
    [
        (True, False, RuntimeError("stopped"), 75),
        (True, True, RpcError("unavailable"), 75),
        (True, True, RuntimeError("a callback is wrong"), 1),
        (False, False, RpcError("unavailable"), 1),
    ],
)
def test_a_sweep_whose_cluster_is_lost_may_go_on_later(
    monkeypatch, tmp_path, joined, answers, cause, exit_code
):
    monkeypatch.setattr(tuning, "head_answers", lambda: answers)
    running = Running(nodes=[], place="the Ray cluster at head:6379", joined=joined, folder=tmp_path)
    told = tuning.explain(break_down(cause), running)
    assert told.exit_code == exit_code
    assert ("the Ray cluster at head:6379 was lost" in told.message) == (exit_code == 75)
    assert ("Ray broke down: " in told.message) == (exit_code == 1)
    assert "The Ray Tune run failed" in told.message
