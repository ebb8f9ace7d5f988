"""What a plan is."""

import functools
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hkrun.code_identity import Code, find_code
from hkrun.config import Cell, teacher_id
from hkrun.counting import count, name_seeds
from hkrun.plans.packs import expect_length
from hkrun.plans.startup import MEASURED, Startup
from hkrun.plans.teacher_tables import PlannedTable, plan_tables
from hkrun.plans.workers import ALONE, AUTO, Span, Workers
from hkrun.spaces import Recipe, Sweep
from hkrun.store import Record

_MOST_NAMED = 4  # cells and teachers of other code that one line names; the rest is counted


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """One name of the sweep and the state of its runs.

    Attributes:
        name: The name in the search space; another name may share the configuration and its runs.
        records: The records that the store holds of the sweep's seeds, by seed.
        to_run: The seeds without a result, in the sweep's order. A failed run is run again; a diverged one is
            a result, for it would only diverge again.
        other_code: By seed, the results of code that may give other numbers, see `hkrun.code_identity`.
        beside: The seeds whose result of this code lies beside one of other code, and comes back; `records`
            has it.
        workers: How many processes train one of its runs together.
    """

    name: str
    cell: Cell
    cell_id: str
    records: Mapping[int, Record]
    to_run: tuple[int, ...]
    other_code: Mapping[int, Record] = field(default_factory=dict)
    beside: tuple[int, ...] = ()
    workers: Span = ALONE

    def anew(self, seeds: Sequence[int]) -> "PlannedCell":
        """The same with the results of other code to be made again, in the sweep's order."""
        records = {seed: record for seed, record in self.records.items() if seed not in self.other_code}
        to_run = tuple(seed for seed in seeds if seed in self.to_run or seed in self.other_code)
        return replace(self, records=records, to_run=to_run)

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
        round: Its number, where seeds come in rounds.
    """

    name: str
    cell: Cell
    cell_id: str
    seeds: tuple[int, ...]
    round: int = 0

    @property
    def teacher_ids(self) -> tuple[str, ...]:
        """The teachers that they learn from, each once; none where they use none."""
        return tuple(dict.fromkeys(self.teachers.values()))

    @functools.cached_property
    def teachers(self) -> dict[int, str]:
        """The teacher of each seed; empty where they use none."""
        if not self.cell.uses_teacher:
            return {}
        cells = {seed: self.cell.with_teacher_of(seed) for seed in self.seeds}
        known = {cell.teacher.seed: cell for cell in cells.values()}
        ids = {seed: teacher_id(cell) for seed, cell in known.items()}
        return {seed: ids[cell.teacher.seed] for seed, cell in cells.items()}

    def without_teachers(self, lost: Container[str]) -> "Pack":
        """The same without the runs of these teachers."""
        seeds = tuple(seed for seed in self.seeds if self.teachers.get(seed) not in lost)
        return self if len(seeds) == len(self.seeds) else replace(self, seeds=seeds)


@dataclass(frozen=True, kw_only=True)
class PlannedTeacher:
    """A teacher that must be trained first.

    Attributes:
        cell: One of the cells that use it, with this one teacher.
        group: What it may train together with, see `hkrun.config.teachers_id`; its own id where it is the one
            teacher of a cell.
        place: Its number among all teachers of its group that the sweep needs, there or not.
    """

    teacher_id: str
    cell: Cell
    group: str
    place: int = 0
    workers: Span = ALONE

    @property
    def seed(self) -> int:
        """What it is trained with."""
        return self.cell.teacher.seed


@dataclass(frozen=True, kw_only=True)
class Shortcuts:
    """Ways to make fewer runs than a search space has. The others can be made later.

    Attributes:
        search: Whether Optuna chooses the runs on the axes, instead of all.
        budget: With `search`: how many runs there are to be on the axes; None for one per point.
        stop_early: Whether ASHA ends runs on the axes that fall behind.
        until_decided: Whether seeds come in rounds, and no more of a cell when its questions are decided.
    """

    search: bool = False
    budget: int | None = None
    stop_early: bool = False
    until_decided: bool = False

    @property
    def select(self) -> bool:
        """Whether a run is chosen, or ended, by its error: such runs train alone, and some are left out."""
        return self.search or self.stop_early


NO_SHORTCUTS = Shortcuts()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is there, what remains, and in which order.

    Attributes:
        workers: How many processes train one run together.
        cells: One per name, in the sweep's order.
        packs: What remains, in turns across the cells, so that early results can be compared.
        teachers: Teachers that the packs need and the store does not hold.
        other_teachers: By id, the code of teachers that the packs, or runs of other code, need, where it is
            not this code.
        teachers_beside: Ids of those whose result of this code lies beside one of other code, and comes back.
        num_left_to_search: How many of the packs on the axes a search makes, whichever it chooses; None
            without a search.
        sizes: How many runs of a cell train together, by cell_id, and how many teachers, by their group; 1
            where nothing is said.
        rounds: The seeds of each round, where they come in rounds; else none.
        decided: By cell_id, the seeds of the cells that have ended for all that was asked of them is decided.
        notes: What there is to say about these sizes, a line each.
        slots: How many packs can run at the same time, each in a process of its own.
        group_slots: How many processes can of tasks that several do together.
        reached: The epoch of the newest checkpoint of runs that were begun, by cell_id and seed.
        startup: What an execution takes besides training.
    """

    sweep: Sweep
    workers: Workers = AUTO
    cells: tuple[PlannedCell, ...]
    packs: tuple[Pack, ...]
    teachers: tuple[PlannedTeacher, ...]
    other_teachers: Mapping[str, Code] = field(default_factory=dict)
    teachers_beside: tuple[str, ...] = ()
    num_left_to_search: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    rounds: tuple[tuple[int, ...], ...] = ()
    decided: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    slots: int = 1
    group_slots: int = 1
    reached: Mapping[tuple[str, int], int] = field(default_factory=dict)
    startup: Startup = MEASURED

    def in_packs(
        self, sizes: Mapping[str, int], notes: Sequence[str] = (), *, slots: int = 1, group_slots: int = 1
    ) -> "Plan":
        """The same with so many runs together, on a machine of so many slots."""
        cells = tuple(
            replace(cell, workers=self.workers.of_runs(cell.cell).bounded(group_slots)) for cell in self.cells
        )
        teachers = tuple(
            replace(teacher, workers=self.workers.of_teacher(teacher.cell).bounded(group_slots))
            for teacher in self.teachers
        )
        return replace(
            self,
            cells=cells,
            packs=form_packs(cells, self.rounds or (self.sweep.seeds,), sizes, self.sweep.recipe)
            if sizes
            else self.packs,
            teachers=teachers,
            sizes=sizes,
            notes=tuple(notes),
            slots=slots,
            group_slots=group_slots,
        )

    @property
    def teacher_packs(self) -> tuple[tuple[PlannedTeacher, ...], ...]:
        """The teachers that train together; as of runs, by their place in the sweep alone."""
        packs: dict[tuple[str, int], list[PlannedTeacher]] = {}
        for teacher in self.teachers:
            size = self.sizes.get(teacher.group, 1)
            packs.setdefault((teacher.group, teacher.place // size), []).append(teacher)
        return tuple(map(tuple, packs.values()))

    def together(self, identity: str) -> int:
        """How many runs of a cell that are to train do so together at most; 1 where none is."""
        return max((len(pack.seeds) for pack in self.packs if pack.cell_id == identity), default=1)

    @property
    def distinct_cells(self) -> tuple[PlannedCell, ...]:
        """The cells without those that only are another name."""
        return find_distinct(self.cells)

    @property
    def num_runs(self) -> int:
        """Runs that the sweep wants, each configuration counted once."""
        return sum(cell.num_runs for cell in self.distinct_cells)

    @property
    def num_done(self) -> int:
        """Those that have a result."""
        return sum(cell.num_done for cell in self.distinct_cells)

    @property
    def num_other_code(self) -> int:
        """Runs whose result is of other code, whether they are made again or not."""
        return sum(len(cell.other_code) for cell in self.distinct_cells)

    @property
    def runs_beside(self) -> list[tuple[str, int]]:
        """By cell_id and seed, the runs whose result of this code lies beside one of other code."""
        return [(cell.cell_id, seed) for cell in self.distinct_cells for seed in cell.beside]

    def describe_beside(self) -> str:
        """How many results of this code come back, in a sentence; empty where none does."""
        counts = [
            count(number, noun)
            for number, noun in ((len(self.runs_beside), "run"), (len(self.teachers_beside), "teacher"))
            if number
        ]
        if not counts:
            return ""
        are = "is" if len(self.runs_beside) + len(self.teachers_beside) == 1 else "are"
        return (
            f"{' and '.join(counts)} of this code ({find_code().numbers}) {are} kept beside those of other "
            f"code, and {'comes' if are == 'is' else 'come'} back"
        )

    def describe_other_code(self) -> str:
        """Which runs and teachers are of other code, in a sentence without its end; empty where none is."""
        doubted = [cell for cell in self.distinct_cells if cell.other_code]
        if not doubted and not self.other_teachers:
            return ""
        counts = [
            count(number, noun)
            for number, noun in ((self.num_other_code, "run"), (len(self.other_teachers), "teacher"))
            if number
        ]
        are = "is" if self.num_other_code + len(self.other_teachers) == 1 else "are"
        found = [record.code for cell in doubted for record in cell.other_code.values()]
        theirs = dict.fromkeys(code.numbers for code in (*found, *self.other_teachers.values()))
        codes = ", ".join([*theirs, f"here {find_code().numbers}"])
        names = [f"{cell.name} {name_seeds(cell.other_code)}" for cell in doubted]
        names += [f"teacher {identity}" for identity in self.other_teachers]
        if (more := len(names) - _MOST_NAMED) > 0:
            names[_MOST_NAMED:] = [f"and {more} more"]
        what = f"{' and '.join(counts)} in the store {are} of other code ({codes})"
        return f"{what}, which may give other numbers: {'; '.join(names)}"

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
        runs: dict[tuple[str, int], tuple[str, Cell, int]] = {}
        for pack in self.packs:
            for seed in pack.seeds:
                cell = pack.cell.with_teacher_of(seed)
                key = (pack.cell_id, cell.teacher.seed)
                _, _, others = runs.get(key, ("", cell, 0))
                runs[key] = (pack.name, cell, others + 1)
        planned = sum(number for _, _, number in runs.values())
        return plan_tables(runs.values(), share=self.num_to_run / max(1, planned))

    def document(self) -> dict[str, object]:
        """What `sweep --dry-run --json` prints of it."""
        return {
            "sweep": self.sweep.name,
            "cells": [
                {
                    "cell_id": cell.cell_id,
                    "name": cell.name,
                    "runs": cell.num_runs,
                    "done": cell.num_done,
                    "to_run": len(cell.to_run),
                    "other_code": len(cell.other_code),
                    "pack": self.together(cell.cell_id),
                    "workers": cell.workers.document(),
                }
                for cell in self.cells
            ],
            "runs": self.num_runs,
            "done": self.num_done,
            "to_run": self.num_to_run,
            "other_code": {"runs": self.num_other_code, "teachers": list(self.other_teachers)},
            "trials": self.num_trials,
            "teachers": [table.document() for table in self.tables],
            "teachers_to_train": [
                {
                    "teacher_id": teacher.teacher_id,
                    "seed": teacher.seed,
                    "pack": self.sizes.get(teacher.group, 1),
                    "workers": teacher.workers.document(),
                }
                for teacher in self.teachers
            ],
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


def find_distinct(cells: Sequence[PlannedCell]) -> tuple[PlannedCell, ...]:
    """The cells without those that only are another name."""
    return tuple({cell.cell_id: cell for cell in reversed(cells)}.values())[::-1]


def form_packs(
    cells: Sequence[PlannedCell],
    rounds: Sequence[Sequence[int]],
    sizes: Mapping[str, int],
    recipe: Recipe,
) -> tuple[Pack, ...]:
    """The packs of runs that remain: the first of every cell comes before the second of any.

    In each such turn the cells with the longest runs come first: else their last packs would end alone, while
    all other slots are idle. Of those that are expected to take equally long, those with more terms do.

    Which seeds go together depends on their place in the sweep alone, not on which of them are done: runs
    that were interrupted find the others of their pack again. Those of a round go together, of several in
    packs as even as can be.
    """
    packs: list[tuple[tuple[int, int, float, int], Pack]] = []
    for cell in find_distinct(cells):
        most, to_run = sizes.get(cell.cell_id, 1), frozenset(cell.to_run)
        length = expect_length(cell.cell, recipe).alone
        for number, seeds in enumerate(rounds):
            size = math.ceil(len(seeds) / math.ceil(len(seeds) / most)) if len(rounds) > 1 else most
            for first in range(0, len(seeds), size):
                together = tuple(seed for seed in seeds[first : first + size] if seed in to_run)
                if together:
                    pack = Pack(
                        name=cell.name, cell=cell.cell, cell_id=cell.cell_id, seeds=together, round=number
                    )
                    packs.append(((number, first, -length, -len(cell.cell.terms)), pack))
    return tuple(pack for _, pack in sorted(packs, key=lambda placed: placed[0]))
