"""Removes the placement groups that Ray Train (2.60) forgets.

The tasks that follow could not use their CPUs. Ray Train forgets one if a worker dies between the start of
the group and that of its function, and if the trial is killed while the group starts. Ray itself removes it
only with the whole job.

A placement group has no name or owner to know it by. So the workers of each trial ask for an amount of memory
of their own, 1 GiB less a mark, and a group that asks for it after the trial's end is left over. Less, so
that what has room by `slots` has room in Ray too.
"""

import itertools
import secrets
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup

from hkrun.cluster.nodes.resources import BYTES_PER_PROCESS

# Bytes; little of a process's memory, enough that two sweeps on one cluster hardly ever draw the same.
SMALLEST_MARK = 16 << 20
LARGEST_MARK = 64 << 20

# A task of one process asks for less than 1 GiB by less than any mark.
ALONE_BYTES = BYTES_PER_PROCESS - SMALLEST_MARK // 2
# The trial of a group only waits. It asks for a sliver of memory instead of CPU: with 0.001 CPU, two workers
# would not fit on two cores.
WAITING_BYTES = 1 << 20


def draw_marks() -> Iterator[int]:
    """Marks that differ, for the trials of one sweep."""
    return itertools.count(SMALLEST_MARK + secrets.randbelow(LARGEST_MARK - SMALLEST_MARK))


def worker_bytes(mark: int) -> int:
    """The memory that each worker of a trial's group asks for, by its mark."""
    return BYTES_PER_PROCESS - mark


def find_leftovers(table: Mapping[str, Mapping[str, Any]], marks: Collection[int]) -> list[str]:
    """The ids of the placement groups that have one of some marks and are not removed.

    `table` is Ray's, by id; the marks are those of trials that have ended.
    """
    sizes = {worker_bytes(mark) for mark in marks}
    return [
        identity
        for identity, group in table.items()
        if group["state"] != "REMOVED"
        and any(bundle.get("memory") in sizes for bundle in group["bundles"].values())
    ]


def remove_leftovers(marks: Collection[int]) -> None:
    """Removes the placement groups of trials that have ended; workers that still live in them are killed."""
    for identity in find_leftovers(ray.util.placement_group_table(), marks):
        ray.util.remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(identity)))
