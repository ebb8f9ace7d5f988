"""What a store holds for one study alone, or for none, and its removal.

What a study uses is what its plan names, with seeds and teachers, and the runs that its report compares with.
Folders go one by one, each with its manifest first, runs before what they learned from and the plan at last:
after a kill the store reads as one in which a part was never made, and the same command removes the rest.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hkrun.config import cell_id, teacher_id
from hkrun.errors import HeldError, StoreError
from hkrun.plans import StoredPlan, stored_plans
from hkrun.spaces import Sweep
from hkrun.store import Store, find_tables, remove_table

_CHECKPOINTS = "checkpoints"
_MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What would go, with its bytes.

    Attributes:
        runs: By cell_id and seed.
        checkpoints: Of runs and teachers that have a result, by folder.
        rehearsals: By folder.
        tables: Of teachers, by folder.
        teachers: By folder.
        configurations: Of which no run is left, by folder.
        leftovers: What killed writers left, by its path.
        abandoned: Folders of studies in which nothing is committed: a removal was killed there.
        study: The study's own folder, by its path; empty where nothing of a study goes.
        shared: How many runs of the study stay, by the name of another study that uses them.
    """

    runs: Mapping[tuple[str, int], int] = field(default_factory=dict)
    checkpoints: Mapping[str, int] = field(default_factory=dict)
    rehearsals: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, int] = field(default_factory=dict)
    teachers: Mapping[str, int] = field(default_factory=dict)
    configurations: Mapping[str, int] = field(default_factory=dict)
    leftovers: Mapping[str, int] = field(default_factory=dict)
    abandoned: Mapping[str, int] = field(default_factory=dict)
    study: Mapping[str, int] = field(default_factory=dict)
    shared: Mapping[str, int] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, Mapping[Any, int]]:
        """What goes, by the name of its kind."""
        return {
            spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self) if spec.name != "shared"
        }

    @property
    def num_bytes(self) -> int:
        """All that goes."""
        return sum(size for part in self.parts.values() for size in part.values())

    def within(self, other: "Removal") -> "Removal":
        """What goes in both."""
        both: dict[str, Any] = {
            name: {key: size for key, size in part.items() if key in other.parts[name]}
            for name, part in self.parts.items()
        }
        return dataclasses.replace(self, **both)


def find_removal(sweep: Sweep, store: Store) -> Removal:
    """What goes with a study: all that no other uses.

    Raises:
        StoreError: The store cannot be read, or the plan of a study, so that what it uses is not known.
    """
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    plans = _read_plans(store)
    others = {name: _find_uses([plan]) for name, plan in plans.items() if name != folder}
    own, used = _find_uses([plans[folder]] if folder in plans else []), _Uses.of_all(others.values())
    there = _Inventory(store)
    runs = {run: size for run, size in there.runs.items() if run in own.runs and not used.has_run(run)}
    cells = {cell for cell in own.cells if cell not in used.cells}
    # Runs of earlier studies, which no plan names, may have learned from the teacher too.
    unnamed = {cell for cell, _ in there.runs.keys() - runs.keys() - used.runs}
    taught = {record.teacher_id for cell in unnamed for record in store.records(cell)}
    teachers = {name for name in own.teachers if name not in used.teachers and name not in taught}
    shared = {
        name.removeprefix("sweeps/"): sum(uses.has_run(run) for run in there.runs if run in own.runs)
        for name, uses in others.items()
    }
    return Removal(
        runs=runs,
        rehearsals=there.choose("rehearsals", cells),
        tables={
            name: table.num_bytes for name, table in there.tables.items() if table.teacher_id in teachers
        },
        teachers=there.choose("teachers", teachers),
        configurations=there.choose("cells", cells - {cell for cell, _ in there.runs.keys() - runs.keys()}),
        study={folder: sum(store.sizes(folder).values())},
        shared={name: number for name, number in shared.items() if number},
    )


def find_garbage(store: Store) -> Removal:
    """What no study uses. A teacher that is being trained stays: a command may be training it for none.

    Raises:
        StoreError: The store cannot be read, or the plan of a study, so that what it uses is not known.
    """
    used, there = _find_uses(_read_plans(store).values()), _Inventory(store)
    runs = {run: size for run, size in there.runs.items() if not used.has_run(run)}
    needed = used.teachers | there.teachers_in_training
    teachers = there.sizes["teachers"].keys() - needed
    cells = {cell for cell in (*there.sizes["cells"], *there.sizes["rehearsals"]) if cell not in used.cells}
    return Removal(
        runs=runs,
        checkpoints=there.find_spent_checkpoints(runs, teachers),
        rehearsals=there.choose("rehearsals", cells),
        tables={
            name: table.num_bytes
            for name, table in there.tables.items()
            if table.teacher_id and table.teacher_id not in needed
        },
        teachers=there.choose("teachers", teachers),
        configurations=there.choose("cells", cells),
        leftovers=there.find_leftovers(),
        abandoned={
            folder: sum(store.sizes(folder).values())
            for folder in store.sweep_folders()
            if not store.names(folder)
        },
    )


def remove(store: Store, removal: Removal) -> None:
    """Removes what was found; of a study's folder, which the caller holds, the holder's name too.

    Raises:
        StoreError: The store cannot be written. What is removed is gone, and the rest as it was.
    """
    for folder in removal.checkpoints:
        store.delete(folder)
    for cell, seed in removal.runs:
        store.delete(store.run_folder(cell, seed))
    for cell in {cell for cell, _ in removal.runs}:
        store.forget_collected(cell)  # the next report collects the runs that stay
    for name in removal.tables:
        remove_table(store, name)
    for folder in (*removal.rehearsals, *removal.teachers, *removal.configurations):
        store.delete(folder)
    for path in removal.leftovers:
        top, _, rest = path.partition("/")
        store.discard(top, [rest])
    for folder in removal.abandoned:
        with contextlib.suppress(HeldError), store.hold(folder):  # a study may begin there this very moment
            if not store.names(folder):
                store.delete(folder)
    for folder in removal.study:
        store.delete(folder)


def _read_plans(store: Store) -> dict[str, StoredPlan]:
    """The studies of a store by their folder."""
    plans, problems = stored_plans(store)
    if problems:
        raise StoreError(
            "\n".join((*problems.values(), "nothing is removed while it is not known what a study uses"))
        )
    return {store.sweep_folder(plan.sweep.name, plan.sweep.dataset): plan for plan in plans}


@dataclass(frozen=True)
class _Uses:
    """What studies use: runs by cell and seed, cells of which they use all runs, and teachers."""

    runs: frozenset[tuple[str, int]] = frozenset()
    whole: frozenset[str] = frozenset()
    teachers: frozenset[str] = frozenset()

    @classmethod
    def of_all(cls, several: Iterable["_Uses"]) -> "_Uses":
        found = list(several)
        return cls(
            frozenset().union(*(uses.runs for uses in found)),
            frozenset().union(*(uses.whole for uses in found)),
            frozenset().union(*(uses.teachers for uses in found)),
        )

    @property
    def cells(self) -> frozenset[str]:
        return self.whole | {cell for cell, _ in self.runs}

    def has_run(self, run: tuple[str, int]) -> bool:
        return run in self.runs or run[0] in self.whole


def _find_uses(plans: Iterable[StoredPlan]) -> _Uses:
    from hkrun.report.aggregation import find_elsewhere
    from hkrun.report.teaching import supervised

    runs: set[tuple[str, int]] = set()
    whole, teachers = set(), set()
    for plan in plans:
        sweep, world_size = plan.sweep, plan.workers.world_size
        for named in (*sweep.cells, *find_elsewhere(sweep)):
            identity = cell_id(named.cell, world_size=world_size)
            runs |= {(identity, seed) for seed in sweep.seeds}
            if named.cell.uses_teacher:
                whole.add(cell_id(supervised(named.cell), world_size=world_size))
                taught = {named.cell.with_teacher_of(seed).teacher.seed: seed for seed in sweep.seeds}
                teachers |= {teacher_id(named.cell.with_teacher_of(seed)) for seed in taught.values()}
    return _Uses(frozenset(runs), frozenset(whole), frozenset(teachers))


class _Inventory:
    """What a store has, from one listing of each of its parts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.files = {part: store.sizes(part) for part in ("cells", "teachers", "rehearsals")}
        self.sizes = {part: _group(files, depth=1) for part, files in self.files.items()}
        self.tables = find_tables(store)
        self.runs: dict[tuple[str, int], int] = {}
        for folder, size in _group(self.files["cells"], depth=3).items():
            cell, seeds, seed = folder.split("/")
            if seeds == "seeds" and seed.isdecimal():
                self.runs[cell, int(seed)] = size

    @property
    def teachers_in_training(self) -> set[str]:
        """Those that have checkpoints and no result."""
        paths = self.files["teachers"]
        return {
            folder.partition("/")[0]
            for folder in _group(paths, depth=2)
            if folder.endswith(f"/{_CHECKPOINTS}") and f"{folder.partition('/')[0]}/{_MANIFEST}" not in paths
        }

    def choose(self, part: str, names: Iterable[str]) -> dict[str, int]:
        """The folders of these names, with their bytes but for those of runs, which are counted apart."""
        files = {
            path: size for path, size in self.files[part].items() if part != "cells" or "/seeds/" not in path
        }
        sizes, there = _group(files, depth=1), self.sizes[part]
        return {f"{part}/{name}": sizes.get(name, 0) for name in sorted(names) if name in there}

    def find_spent_checkpoints(self, runs: Iterable[tuple[str, int]], teachers: set[str]) -> dict[str, int]:
        """Checkpoints of what has a result and stays: a kill came between the two."""
        found: dict[str, int] = {}
        gone = set(runs)
        for folder, size in _group(self.files["cells"], depth=4).items():
            cell, _, seed, last = folder.split("/")
            if last != _CHECKPOINTS or not seed.isdecimal() or (cell, int(seed)) in gone:
                continue
            record = self._store.record(cell, int(seed))
            if record is not None and record.status != "failed":
                found[f"cells/{folder}"] = size
        for folder, size in _group(self.files["teachers"], depth=2).items():
            name, _, last = folder.partition("/")
            if last == _CHECKPOINTS and name not in teachers | self.teachers_in_training:
                found[f"teachers/{folder}"] = size
        return found

    def find_leftovers(self) -> dict[str, int]:
        """What killed writers left; those of a local table go with it."""
        found: dict[str, int] = {}
        for part in self.files if self._store.local_path is not None else (*self.files, "tables"):
            if paths := self._store.leftovers(part):
                sizes = self._store.sizes(part)
                found |= {f"{part}/{path}": sizes.get(path, 0) for path in paths}
        return found


def _group(files: Mapping[str, int], *, depth: int) -> dict[str, int]:
    """Bytes of the folders so many levels deep."""
    found: dict[str, int] = {}
    for path, size in files.items():
        parts = path.split("/")
        if len(parts) > depth:
            folder = "/".join(parts[:depth])
            found[folder] = found.get(folder, 0) + size
    return found
