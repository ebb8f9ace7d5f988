"""What a record says of a training besides its figures, over all its resumptions."""

import time
from collections.abc import Mapping
from typing import Any

import torch

from hkrun.code_identity import Code
from hkrun.trial.environment import describe_code, describe_environment
from hkrun.trial.task import Task


class Provenance:
    """When a training began, what it ran on, how long it took, and what looked wrong.

    Args:
        task: What is trained.
        world_size: How many processes train it together.
        pack: The seeds that train together; each is charged with its share of the time. Empty
            for a teacher that trains alone.

    Attributes:
        alarms: What looked wrong, one line each.
        resumed: How many times it went on from a checkpoint.
    """

    def __init__(self, task: Task, *, world_size: int, pack: tuple[int, ...] = ()) -> None:
        self.alarms: list[str] = []
        self.resumed = 0
        self._started_at = time.time()
        self._environment = describe_environment(task, world_size=world_size)
        self._world_sizes = {"1": world_size}  # by the epoch from which on it was that
        self._pack = pack
        self._spent_s = 0.0
        self._began_s = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds spent so far: where k runs train together, a k-th of the clock's."""
        return self._spent_s + (time.perf_counter() - self._began_s) / max(1, len(self._pack))

    def state(self, *, pack: tuple[int, ...] = ()) -> dict[str, Any]:
        """What a checkpoint must hold of it.

        `pack` are those of its seeds that have not diverged: who goes on together from here.
        """
        return {
            "pack": pack,
            "started_at": self._started_at,
            "resumed": self.resumed,
            "seconds": self.seconds,
            "surroundings": self._environment,
            "world_sizes": self._world_sizes,
            "alarms": self.alarms,
        }

    def resume(self, state: Mapping[str, Any], *, epoch: int) -> None:
        """Goes on from a state, under the conditions that the training began with where it can."""
        self._started_at, self.resumed = state["started_at"], state["resumed"] + 1
        self._spent_s, self._began_s = state["seconds"], time.perf_counter()
        self.alarms = list(state["alarms"])
        began = state["surroundings"]
        torch.set_num_threads(began["threads"])
        self._environment["threads"] = began["threads"]
        (here,) = self._world_sizes.values()
        self._world_sizes = dict(state["world_sizes"])
        if self._world_sizes[max(self._world_sizes, key=int)] != here:
            self._world_sizes[str(epoch + 1)] = here
        here_now = {**self._environment, "versions": _libraries(self._environment)}
        there = {**began, "versions": _libraries(began)}
        changed = [name for name in there if there[name] != here_now[name]]
        if not code_of(state).same_numbers(Code.of(self._environment["versions"])):
            changed.append("code")
        if state["pack"] != self._pack:
            changed.append("pack")
        if changed:
            self.alarms.append(
                f"resumed after epoch {epoch}, not bit-identical: another {', '.join(changed)}"
            )

    def note_apart(self) -> None:
        """Notes that the run took an epoch without others of its pack, who were ahead of it."""
        alarm = "caught up with its pack, not bit-identical: took epochs without the others"
        if alarm not in self.alarms:
            self.alarms.append(alarm)

    def fields(self) -> dict[str, Any]:
        """The fields of a record, by name, except for alarms and timings."""
        pack = {"pack": self._pack} if self._pack else {}
        world_sizes = {"world_sizes": self._world_sizes} if len(self._world_sizes) > 1 else {}
        return {
            "started_at": self._started_at,
            "resumed": self.resumed,
            **pack,
            **world_sizes,
            **self._environment,
        }


def code_of(state: Mapping[str, Any]) -> Code:
    """The code that a training went on with until a state of `Provenance` was saved."""
    return Code.of(state["surroundings"]["versions"])


def _libraries(environment: Mapping[str, Any]) -> dict[str, str]:
    """The versions that decide bits; those of hkrun do where its `Code` says so."""
    of_hkrun = {"code", *describe_code()}
    return {name: version for name, version in environment["versions"].items() if name not in of_hkrun}
