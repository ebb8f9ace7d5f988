"""Kills processes that hang, so that their tasks are tried again.

Ray (2.60) sees a process that is dead, never one that is stopped (SIGSTOP, a frozen container) or waits for
ever. So each process that works on a task has a *pulse*: a thread writes into Ray's key-value store every few
seconds. The driver looks at the pulses and at the *progress* that tasks report, and kills

    a process whose pulse has not changed for SILENCE_S: no thread of it runs any more;
    all processes of a task that has reported an epoch and then none for HANG_FACTOR times its longest epoch,
    and for HANG_S at least: its threads run, its loop does not.

Both are deaths of processes for the schedule, which tries such tasks again. HKRUN_SILENCE_S and HKRUN_HANG_S
replace the two limits; `inf` takes one away.

No false alarms: the driver counts only time in which it looked itself, and saw something. A suspended
machine, a stopped driver or a store that does not answer ends no process. Not watched: a process before its
task's function begins, and progress before the first epoch is reported, as filling a table may take hours.
"""

import json
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hkrun.cluster.ray_private import key_value_store
from hkrun.errors import InputError

logger = logging.getLogger("hkrun")

SILENCE_S = 120.0  # on a machine that swaps a thread may wait for its turn for half a minute
HANG_S = 1800.0  # a group that lost a worker may need minutes to come together again
HANG_FACTOR = 20.0
SILENCE_VARIABLE, HANG_VARIABLE = "HKRUN_SILENCE_S", "HKRUN_HANG_S"

BEATS_PER_SILENCE = 24  # of a pulse, within the time that ends a process without one
LOOK_EVERY_S = 2.0
LONGEST_STEP_S = 2 * LOOK_EVERY_S  # what the time between two looks counts at most
KILL_EVERY_S = 10.0  # until the try has ended, as a kill may be lost with a message


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a process may be silent, and a task without progress at least, in seconds."""

    silence_s: float = SILENCE_S
    hang_s: float = HANG_S

    @property
    def beat_every_s(self) -> float:
        """The time between two beats of a pulse."""
        return min(self.silence_s, SILENCE_S) / BEATS_PER_SILENCE


def read_limits(environment: Mapping[str, str] = os.environ) -> Limits:
    """The limits, with what the user has set.

    Raises:
        InputError: That is no number of seconds above 0.
    """
    found = {}
    for name, default in ((SILENCE_VARIABLE, SILENCE_S), (HANG_VARIABLE, HANG_S)):
        told = environment.get(name) or str(default)
        try:
            found[name] = float(told)
        except ValueError:
            found[name] = math.nan
        if not found[name] > 0:
            raise InputError(f"{name}: {told!r} is no number of seconds above 0; inf takes the limit away")
    return Limits(silence_s=found[SILENCE_VARIABLE], hang_s=found[HANG_VARIABLE])


class WakingClock:
    """Seconds in which the driver looked: a longer time between two looks counts as LONGEST_STEP_S."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_at, self._awake_s = clock(), 0.0

    def look(self) -> float:
        """The seconds so far, this look included."""
        now = self._clock()
        self._awake_s += min(now - self._looked_at, LONGEST_STEP_S)
        self._looked_at = now
        return self._awake_s

    @property
    def last_s(self) -> float:
        """The seconds at the last look."""
        return self._awake_s


@dataclass
class _Sign:
    """What was last seen of a process: its beat, and when that was new."""

    beat: bytes
    seen_at: float


@dataclass
class _Progress:
    """When a task last reported, and the longest time that an epoch of it took; None before its first."""

    told_at: float
    epoch_s: float | None = None
    reports: int = 0


class Signs:
    """Which processes have shown life, and when. Pure: it is told the time and the pulses.

    A task is known by the mark of its try, a process by its key, which begins with that mark.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._processes: dict[str, _Sign] = {}
        self._tasks: dict[int, _Progress] = {}

    def begin(self, mark: int, *, now: float) -> None:
        """A task has begun, if it had not."""
        self._tasks.setdefault(mark, _Progress(told_at=now))

    def progress(self, mark: int, *, now: float) -> None:
        """A task has reported. The first time includes its preparations, and counts until the next."""
        task = self._tasks.setdefault(mark, _Progress(told_at=now))
        took_s = now - task.told_at
        task.epoch_s = took_s if task.reports < 2 else max(took_s, task.epoch_s or 0.0)
        task.told_at, task.reports = now, task.reports + 1

    def forget(self, mark: int) -> None:
        """A task is over."""
        self._tasks.pop(mark, None)
        self._processes = {key: sign for key, sign in self._processes.items() if mark_of(key) != mark}

    def find_silent(self, pulses: Mapping[str, bytes], *, now: float) -> list[str]:
        """The processes whose beat has not changed for too long; `pulses` has the beats of all."""
        self._processes = {key: sign for key, sign in self._processes.items() if key in pulses}
        for key, beat in pulses.items():
            sign = self._processes.get(key)
            if sign is None or sign.beat != beat:
                self._processes[key] = _Sign(beat, now)
        return [key for key, sign in self._processes.items() if now - sign.seen_at > self._limits.silence_s]

    def find_hanging(self, *, now: float) -> dict[int, float]:
        """The tasks that have reported, but not for too long; with their limits in seconds."""
        limits = {
            mark: max(self._limits.hang_s, HANG_FACTOR * task.epoch_s)
            for mark, task in self._tasks.items()
            if task.epoch_s is not None
        }
        return {mark: limit for mark, limit in limits.items() if now - self._tasks[mark].told_at > limit}


def mark_of(key: str) -> int:
    """The mark of the try that a process works on."""
    return int(key.partition("/")[0])


class Watchdog:
    """Watches the processes of a sweep, in its driver; as a context manager it leaves nothing in Ray.

    Raises:
        InputError: A limit that the user has set is no number.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = read_limits()
        self._signs = Signs(self._limits)
        self._clock, self._waking = clock, WakingClock(clock)
        self._next_look_s = clock()
        self._reasons: dict[int, str] = {}
        self._killed_at: dict[str, float] = {}  # processes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(RayError, ValueError):
            _remove("")

    def progressed(self, mark: int) -> None:
        """A task has reported: if one of its processes was killed, that did not end it."""
        self._reasons.pop(mark, None)
        self._signs.progress(mark, now=self._waking.last_s)

    def ended(self, mark: int) -> str | None:
        """A try is over; returns why, if the watchdog ended it."""
        self._signs.forget(mark)
        self._killed_at = {key: at for key, at in self._killed_at.items() if mark_of(key) != mark}
        with suppress(RayError):
            _remove(f"{mark}/")
        return self._reasons.pop(mark, None)

    def look(self, running: Mapping[int, str]) -> None:
        """Kills what hangs; looks every LOOK_EVERY_S seconds, however often it is called.

        `running` has the names of the tasks that run, by the marks of their tries.
        """
        if self._clock() < self._next_look_s:
            return
        self._next_look_s = self._clock() + min(LOOK_EVERY_S, self._limits.beat_every_s)
        try:
            pulses = {key: beat for key, beat in _read_pulses().items() if mark_of(key) in running}
        except RayError as error:  # then the time does not count: processes could not write either
            logger.info("the pulses of processes cannot be read: %s", error)
            return
        now = self._waking.look()
        for mark in running:
            self._signs.begin(mark, now=now)
        for key in self._signs.find_silent(pulses, now=now):
            reason = f"a process of it was silent for {self._limits.silence_s:.0f} s"
            self._end(mark_of(key), {key: pulses[key]}, reason, name=running[mark_of(key)])
        for mark, limit_s in self._signs.find_hanging(now=now).items():
            if mark in running:
                own = {key: beat for key, beat in pulses.items() if mark_of(key) == mark}
                self._end(mark, own, f"it made no progress for {limit_s:.0f} s", name=running[mark])

    def _end(self, mark: int, pulses: Mapping[str, bytes], reason: str, *, name: str) -> None:
        """Kills processes of a task, and again at later looks, until the try has ended."""
        if mark not in self._reasons:
            self._reasons[mark] = reason
            logger.warning("%s: %s; it is ended", name, reason)
        now = self._waking.last_s
        for key, beat in pulses.items():
            if now - self._killed_at.get(key, -math.inf) < KILL_EVERY_S:
                continue
            self._killed_at[key] = now
            try:
                _kill(json.loads(beat))
            except RayError as error:
                logger.warning("%s: %s cannot be killed yet: %s", name, key, error)


@contextmanager
def pulse(mark: int | None, who: str) -> Iterator[None]:
    """Shows the watchdog that this process lives, while the block runs.

    `mark` is that of the try that it works on, None without a watchdog; `who` tells it from the try's other
    processes.
    """
    if mark is None:
        yield
        return
    over = threading.Event()
    key, every_s = f"{mark}/{who}", read_limits().beat_every_s
    me = {
        "node": ray.get_runtime_context().get_node_id(),
        "pid": os.getpid(),
        "born": find_birth(os.getpid()),
    }

    def beat() -> None:
        number = 0
        while True:
            with suppress(RayError):  # while the store does not answer, the driver cannot look either
                key_value_store().put(f"{_prefix()}{key}", json.dumps({**me, "beat": number}).encode())
            if over.wait(every_s):
                break
            number += 1
        with suppress(RayError):
            _remove(key)

    thread = threading.Thread(target=beat, name="hkrun-pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def find_birth(pid: int) -> str:
    """When a process began, which tells it from a later one with its id; "" where there is no /proc."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def kill_process(pid: int, born: str) -> None:
    """SIGKILL, which ends a stopped process too; not for a later one that has got its id."""
    if find_birth(pid) == born:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _kill(process: Mapping[str, Any]) -> None:
    """Kills a process on its node; on another one without waiting, as that node may be gone."""
    if process["node"] == ray.get_runtime_context().get_node_id():
        kill_process(process["pid"], process["born"])
        return
    there = NodeAffinitySchedulingStrategy(process["node"], soft=False)
    killer: Any = ray.remote(num_cpus=0, max_retries=0)(kill_process)
    killer.options(scheduling_strategy=there).remote(process["pid"], process["born"])


def _prefix() -> str:
    """What the keys of this sweep begin with, here and in the processes of its tasks."""
    return f"pulse/{ray.get_runtime_context().get_job_id()}/"


def _read_pulses() -> dict[str, bytes]:
    """The last beat of every process of the sweep, by its key."""
    prefix = _prefix()
    return {key.removeprefix(prefix): value for key, value in key_value_store().read(prefix).items()}


def _remove(key: str) -> None:
    """Removes the beat of a process; of all those below it where the key ends with a slash or is empty."""
    key_value_store().remove(f"{_prefix()}{key}", below=not key or key.endswith("/"))
