"""What a plan is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hkrun.config import Cell
from hkrun.plan.teacher_tables import PlannedTable, plan_tables
from hkrun.plan.workers import ALONE, Span
from hkrun.spaces import Sweep
from hkrun.store import Record


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """One name of the sweep and the state of its runs.

    Attributes:
        name: The name in the search space; another name may share the configuration and its runs.
        cell: The configuration.
        cell_id: Its id.
        records: The records that the store holds of the sweep's seeds, by seed.
        to_run: The seeds without a result, in the sweep's order. A failed run is run again; a diverged one is
            a result, for it would only diverge again.
        workers: How many processes train one of its runs together.
    """

    name: str
    cell: Cell
    cell_id: str
    records: Mapping[int, Record]
    to_run: tuple[int, ...]
    workers: Span = ALONE

    def seeds(self, status: str) -> list[int]:
        """The seeds whose record has this status."""
        return [seed for seed, record in self.records.items() if record.status == status]

    @property
    def num_done(self) -> int:
        """How many runs have a result."""
        return len(self.seeds("finished")) + len(self.seeds("diverged"))

    @property
    def num_runs(self) -> int:
        """How many runs the sweep wants."""
        return self.num_done + len(self.to_run)


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Runs of one cell that train together in one process.

    Attributes:
        name: What the sweep calls the cell.
        cell: The configuration.
        cell_id: Its id.
        seeds: Their seeds.
    """

    name: str
    cell: Cell
    cell_id: str
    seeds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PlannedTeacher:
    """A teacher that must be trained first.

    Attributes:
        teacher_id: Its id.
        cell: One of the cells that use it.
        workers: How many processes train it together.
    """

    teacher_id: str
    cell: Cell
    workers: Span = ALONE


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How long the plan will take: seconds, or None where nothing is known; and why."""

    seconds: float | None
    basis: str


@dataclass(frozen=True, kw_only=True)
class Shortcuts:
    """Ways to make fewer runs than a search space with axes has. The others can be made later.

    Attributes:
        search: Whether Optuna chooses the runs, instead of all.
        budget: With `search`: how many runs there are to be on the axes; None for one per point.
        stop_early: Whether ASHA ends runs that fall behind.
    """

    search: bool = False
    budget: int | None = None
    stop_early: bool = False


NO_SHORTCUTS = Shortcuts()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is there, what remains, in which order, and for how long.

    Attributes:
        sweep: The sweep.
        cells: One per name, in the sweep's order.
        packs: What remains, in turns across the cells, so that early results can be compared.
        teachers: Teachers that the packs need and the store does not hold.
        estimate: Of the time for teachers and packs.
        num_left_to_search: How many of the packs on the axes a search makes, whichever it chooses; None
            without a search.
        sizes: How many runs of a cell train together, by cell_id; 1 where nothing is said.
        notes: What there is to say about these sizes, a line each.
    """

    sweep: Sweep
    cells: tuple[PlannedCell, ...]
    packs: tuple[Pack, ...]
    teachers: tuple[PlannedTeacher, ...]
    estimate: Estimate
    num_left_to_search: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def distinct_cells(self) -> tuple[PlannedCell, ...]:
        """The cells without those that only are another name."""
        return tuple({cell.cell_id: cell for cell in reversed(self.cells)}.values())[::-1]

    @property
    def num_runs(self) -> int:
        """Runs that the sweep wants, each configuration counted once."""
        return sum(cell.num_runs for cell in self.distinct_cells)

    @property
    def num_done(self) -> int:
        """Those that have a result."""
        return sum(cell.num_done for cell in self.distinct_cells)

    @property
    def num_to_run(self) -> int:
        """Those that are made now: the packs, or as many of them as a search makes."""
        num_runs = sum(len(pack.seeds) for pack in self.packs)
        if self.num_left_to_search is None:
            return num_runs
        return num_runs - count_on_axes(self.sweep, self.cells, self.packs) + self.num_left_to_search

    @property
    def num_trials(self) -> int:
        """How many packs those are."""
        return len(self.packs) if self.num_left_to_search is None else self.num_to_run

    @property
    def tables(self) -> tuple[PlannedTable, ...]:
        """How the teachers answer the runs that are made now."""
        runs: dict[str, tuple[str, Cell, int]] = {}
        for pack in self.packs:
            _, _, others = runs.get(pack.cell_id, ("", pack.cell, 0))
            runs[pack.cell_id] = (pack.name, pack.cell, others + len(pack.seeds))
        planned = sum(number for _, _, number in runs.values())
        return plan_tables(runs.values(), share=self.num_to_run / max(1, planned))

    def document(self) -> dict[str, object]:
        """What `sweep --dry-run --json` prints."""
        return {
            "sweep": self.sweep.name,
            "cells": [
                {
                    "cell_id": cell.cell_id,
                    "name": cell.name,
                    "runs": cell.num_runs,
                    "done": cell.num_done,
                    "to_run": len(cell.to_run),
                    "pack": self.sizes.get(cell.cell_id, 1),
                    "workers": cell.workers.document(),
                }
                for cell in self.cells
            ],
            "runs": self.num_runs,
            "done": self.num_done,
            "to_run": self.num_to_run,
            "trials": self.num_trials,
            "teachers": [table.document() for table in self.tables],
            "teachers_to_train": [
                {"teacher_id": teacher.teacher_id, "workers": teacher.workers.document()}
                for teacher in self.teachers
            ],
            "estimate": {"seconds": self.estimate.seconds, "basis": self.estimate.basis},
        }


def cells_on_axes(sweep: Sweep, cells: Iterable[PlannedCell]) -> dict[str, PlannedCell]:
    """The cells that axes vary, by id; not those that are also a cell of their own, which always run."""
    named = list(zip(sweep.cells, cells, strict=True))
    fixed = {planned.cell_id for cell, planned in named if not cell.point}
    return {
        planned.cell_id: planned for cell, planned in named if cell.point and planned.cell_id not in fixed
    }


def count_on_axes(sweep: Sweep, cells: Iterable[PlannedCell], packs: Iterable[Pack]) -> int:
    """How many runs of the packs are on axes."""
    on_axes = cells_on_axes(sweep, cells)
    return sum(len(pack.seeds) for pack in packs if pack.cell_id in on_axes)
