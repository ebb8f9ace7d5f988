"""The runs of a cell, from one listing: their records, and their curves one after another."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from hkrun.records import Record
from hkrun.store.collected import (
    RunCurves,
    group_by_file,
    read_curves,
    read_records,
    write_curves,
    write_records,
)
from hkrun.store.columns import to_floats
from hkrun.store.earlier import EARLIER
from hkrun.store.folder_states import FolderState

if TYPE_CHECKING:
    from hkrun.store.store import Store


class CellRuns:
    """The runs of a cell as they were when it was asked for; `Store.cell_runs` makes one."""

    def __init__(self, store: "Store", cell_id: str, states: Mapping[int, FolderState]) -> None:
        self._store = store
        self._cell_id = cell_id
        self._states = states
        self._fingerprints = {
            seed: state.fingerprint for seed, state in states.items() if state.fingerprint is not None
        }

    @property
    def with_earlier(self) -> frozenset[int]:
        """The seeds beside whose run results of other code are kept."""
        return frozenset(
            seed
            for seed, state in self._states.items()
            if any(name.startswith(f"{EARLIER}/") for name in state.sizes)
        )

    def read_records(self, *, collect: bool = False) -> list[Record]:
        """The records by seed. A damaged one counts as not done, with a log line.

        With `collect` they are kept together for the next who reads them; where the store cannot be written,
        nothing is.
        """
        prints = self._fingerprints
        known = read_records(self._store, self._cell_id, prints)

        def read(seed: int) -> Record | None:
            return self._store.read_run_record(self._cell_id, seed, self._states[seed].sizes)

        missing = [seed for seed in sorted(self._states) if seed not in known]
        fresh = {record.seed: record for record in self._store.map(read, missing) if record is not None}
        both = known | fresh
        found = [both[seed] for seed in sorted(both)]
        if collect and not prints.keys().isdisjoint(fresh):
            write_records(self._store, self._cell_id, prints, found)
        return found

    def each_curves(
        self, seeds: Sequence[int], columns: Collection[str], *, collect: bool = False
    ) -> Iterator[tuple[int, RunCurves]]:
        """The curves of these runs by seed, of several hundred at a time in memory; `collect` as above.

        Args:
            seeds: Of runs that have curves.
            columns: Those of these that a run has are read.
            collect: Whether to keep them together.

        Raises:
            StoreError: A run's curves are damaged or not there, or cannot be read.
        """
        for name, wanted in group_by_file(seeds).items():
            known = read_curves(self._store, self._cell_id, name, self._fingerprints, columns)
            missing = [seed for seed in wanted if seed not in known]
            fresh = dict(
                zip(missing, self._store.map(lambda seed: self._read(seed, columns), missing), strict=True)
            )
            if collect and not self._fingerprints.keys().isdisjoint(fresh):
                write_curves(self._store, self._cell_id, name, self._fingerprints, known | fresh, columns)
            for seed in wanted:
                yield seed, fresh[seed] if seed in fresh else known[seed]
        pa.default_memory_pool().release_unused()  # else Arrow keeps what it read into

    def _read(self, seed: int, columns: Collection[str]) -> RunCurves:
        (table,) = self._store.each_curves([(self._cell_id, seed)], columns=["epoch", *columns])
        epochs = np.from_dlpack(table["epoch"].combine_chunks())
        if (epochs[1:] < epochs[:-1]).any():
            table = table.sort_by("epoch")
        figures = {name: to_floats(table[name]) for name in table.column_names if name in columns}
        return RunCurves(figures, len(table))
