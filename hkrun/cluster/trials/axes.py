"""The runs of a plan by their place on the axes of its search space, for `search`; without Ray."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hkrun.plans import Plan


@dataclass(frozen=True)
class Point:
    """A place on the axes of one cell.

    Attributes:
        group: The cell.
        values: The number of the value on each of its axes, from 0, in the order of the axes.
    """

    group: str
    values: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a searcher chooses from.

    Attributes:
        runs: For each point, the tasks that train its runs, by index; two points may be one configuration.
        known: For each point, the errors of runs that were made before, in percent.
        budget: How many of these tasks are done in all; the others are left out.
        first: Those of them that are done in any case, before the others, and cost nothing of the budget.
        seed: Of the sampler.
    """

    runs: Mapping[Point, Sequence[int]]
    known: Mapping[Point, Sequence[float]]
    budget: int
    first: frozenset[int] = frozenset()
    seed: int = 0


@dataclass(frozen=True)
class EarlyStopping:
    """Which tasks are compared, so that those that fall behind end early.

    Attributes:
        tasks: By index: a teacher is not compared with students.
        epochs: Of the longest run.
    """

    tasks: frozenset[int]
    epochs: int


def make_search(plan: Plan, *, first_run: int) -> Search:
    """What a searcher chooses from. Cells that no axis varies are run in any case.

    `first_run` is the number of the first pack's task.
    """
    tasks: dict[str, list[int]] = {}
    for index, pack in enumerate(plan.packs, start=first_run):
        tasks.setdefault(pack.cell_id, []).append(index)
    steps: dict[tuple[str, str], list[Any]] = {}
    for named in plan.sweep.cells:
        for key, value in named.point.items():
            steps.setdefault((named.group, key), []).append(value)
    for place, values in steps.items():
        # Values of one type by size, as TPE models them; words in the file's order.
        unique = list(dict.fromkeys(values))
        steps[place] = unique if any(isinstance(value, str) for value in unique) else sorted(unique)
    runs: dict[Point, list[int]] = {}
    known: dict[Point, list[float]] = {}
    first: set[int] = set()
    for named, planned in zip(plan.sweep.cells, plan.cells, strict=True):
        found = tasks.get(planned.cell_id, [])
        if not named.point:
            first.update(found)
            continue
        numbers = [steps[named.group, key].index(value) for key, value in named.point.items()]
        point = Point(named.group, tuple(numbers))
        runs[point] = found
        errors = [record.error_last_pct for record in planned.records.values()]
        known[point] = [error for error in errors if error is not None and math.isfinite(error)]
    assert plan.num_left_to_search is not None
    return Search(runs=runs, known=known, budget=plan.num_left_to_search, first=frozenset(first))
