"""Error curves as one complete matrix per cell, or every reason why not."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hkrun.curve_files.numbering import listed, numbered, spans
from hkrun.curve_files.rows import (
    CELL,
    Rows,
    read_cell_names,
    read_number,
    read_rows,
    read_whole_numbers,
    refuse,
    suggest_column,
)

Errors = NDArray[np.float64]
# Curves whose late errors are so many times those of others, which never exceed 1, are in another unit.
_OTHER_UNIT = 10.0
_HIGH_PCT = 50.0  # where errors end that do not fall, they may be accuracies
_log = logging.getLogger("hkrun")


def find_fractions(
    cells: Mapping[str, tuple[tuple[int, ...], Errors]], *, window: int
) -> tuple[str | None, str | None]:
    """Why a file with runs that look like fractions cannot be believed, and what is doubtful about it.

    `cells` are seeds and errors [runs, epochs], by cell; runs are set beside each other by the last `window`
    epochs.
    """
    small: dict[str, list[int]] = {}
    levels: tuple[list[float], list[float]] = ([], [])  # of runs up to 1, and of the others
    for cell, (seeds, errors) in cells.items():
        for seed, run in zip(seeds, errors, strict=True):
            if not run.any():
                continue  # no error at all is the same in both units
            levels[int(run.max() > 1)].append(float(np.median(run[-window:])))
            if run.max() <= 1:
                small.setdefault(cell, []).append(seed)
    if not small:
        return None, None
    if not levels[1]:
        return None, "no error_pct is above 1, and all are read as percent; are they fractions?"
    places = listed(
        [
            f"cell {cell!r}" + (f", {numbered('seed', found)}" if len(found) < len(cells[cell][0]) else "")
            for cell, found in small.items()
        ],
        "; ",
    )
    low, high = (float(np.median(found)) for found in levels)
    if high >= _OTHER_UNIT * low:
        reason = (
            f"{places}: no error_pct is above 1 (median {low:.3g}), as of fractions, but those of the other "
            f"runs are (median {high:.3g}); give all in percent, or cells of so different errors in files of "
            "their own"
        )
        return reason, None
    return None, f"{places}: no error_pct is above 1, and all are read as percent; are they fractions?"


def find_accuracies(cells: Mapping[str, tuple[tuple[int, ...], Errors]]) -> Iterator[str]:
    """What is doubtful about cells whose errors are high and do not fall."""
    for cell, (_, errors) in cells.items():
        scale = 100.0 if errors.max() <= 1 else 1.0
        first, last = (scale * float(np.median(errors[:, epoch])) for epoch in (0, -1))
        if last > _HIGH_PCT and last > first - 1:
            yield (
                f"cell {cell!r}: error_pct goes from {first / scale:.3g} to {last / scale:.3g}; are these "
                "accuracies? The error is 100 - accuracy"
            )


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The complete error curves of one cell.

    Attributes:
        error_pct: Test error in percent, float64 [runs, epochs].
        seeds: The seed of each row, ascending.
        epochs: The epoch of each column, ascending, without a gap.
    """

    error_pct: NDArray[np.float64]
    seeds: tuple[int, ...]
    epochs: tuple[int, ...]


def read_curves(path: Path, *, window: int) -> dict[str, Curves]:
    """Reads the error curves of a CSV or Parquet file, one row per seed and epoch.

    The columns are `seed`, `epoch`, `error_pct` (percent) and optionally `cell`; others are ignored. Errors
    that are all up to 1, perhaps fractions, or high and not falling, perhaps accuracies, cause a logged
    warning.

    Args:
        path: The file.
        window: Number of last epochs that S is taken over.

    Returns:
        The curves by cell, in the order of the file; a file without `cell` has the one cell "all".

    Raises:
        InputError: No such file, no such columns, or curves that S is not defined for: values
            missing, given twice, no numbers or outside 0..100, gaps, one run, fewer epochs than the window;
            or some runs in fractions and others in percent.
    """
    rows = read_rows(path)
    cells = _cells(rows, path)
    problems = []
    for name, cell in cells.items():
        found = cell.problems(window=window)
        if CELL not in rows.columns and cell.repeated:
            hint = suggest_column(CELL, rows.columns)
            found.append(f"configurations need a column {CELL!r} to tell them apart{hint}")
        problems += [f"cell {name!r}: {problem}" for problem in found]
    refuse(path, problems)
    curves = {name: cell.curves() for name, cell in cells.items()}
    matrices = {name: (cell.seeds, cell.error_pct) for name, cell in curves.items()}
    refused, doubt = find_fractions(matrices, window=window)
    refuse(path, [refused] if refused else [])
    for suspicion in filter(None, (doubt, *find_accuracies(matrices))):
        _log.warning("%s: %s", path, suspicion)
    return curves


def _cells(rows: Rows, path: Path) -> dict[str, "_CellRows"]:
    """The rows by cell, once each has a cell, a seed and an epoch."""
    problems: list[str] = []
    seeds, epochs = read_whole_numbers(rows, "seed", problems), read_whole_numbers(rows, "epoch", problems)
    names = read_cell_names(rows, problems)
    refuse(path, problems)
    members: defaultdict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        members[name].append(row)
    values = rows.columns["error_pct"]
    return {
        name: _CellRows(
            seeds=np.array([seeds[row] for row in chosen]),
            epochs=np.array([epochs[row] for row in chosen]),
            values=[values[row] for row in chosen],
        )
        for name, chosen in members.items()
    }


class _CellRows:
    """The rows of one cell, and how often each seed has each epoch."""

    def __init__(
        self, *, seeds: NDArray[np.int64], epochs: NDArray[np.int64], values: Sequence[object]
    ) -> None:
        self._values = values
        self._errors = np.array([read_number(value) for value in values])
        self._seeds, self._row = np.unique(seeds, return_inverse=True)
        self._epochs, self._column = np.unique(epochs, return_inverse=True)
        self._count = np.zeros((len(self._seeds), len(self._epochs)), dtype=np.int64)
        np.add.at(self._count, (self._row, self._column), 1)

    @property
    def repeated(self) -> bool:
        """Whether a seed has an epoch more than once."""
        return bool((self._count > 1).any())

    def problems(self, *, window: int) -> list[str]:
        """Why S over the window is not defined for these rows, each reason one line."""
        found = []
        finite = np.isfinite(self._errors)
        outside = finite & ((self._errors < 0) | (self._errors > 100))
        for wrong, what in ((~finite, "missing or no number, such as"), (outside, "outside 0..100, such as")):
            if wrong.any():
                example = self._values[int(np.argmax(wrong))]
                found.append(
                    f"{self._places(self._row[wrong], self._column[wrong])}: error_pct is {what} {example!r}"
                )
        if self.repeated:
            found.append(f"{self._places(*np.nonzero(self._count > 1))}: more than one row")
        if (self._count == 0).any():
            places = self._places(*np.nonzero(self._count == 0))
            found.append(f"{places}: no row; complete the run or leave it out whole")
        before = np.flatnonzero(np.diff(self._epochs) > 1)
        if len(before):
            gaps = [(int(self._epochs[i]) + 1, int(self._epochs[i + 1]) - 1) for i in before]
            found.append(f"{spans('epoch', gaps)}: no run has a row")
        if len(self._seeds) == 1:
            found.append(
                f"seed {self._seeds[0]} is the only run; S is taken across runs and needs at least 2"
            )
        if len(self._epochs) < window:
            epochs = numbered("epoch", self._epochs.tolist())
            found.append(f"{epochs}: {len(self._epochs)} in all, fewer than the window of {window}")
        return found

    def curves(self) -> Curves:
        """The matrix, where there are no problems."""
        error_pct = np.empty(self._count.shape)
        error_pct[self._row, self._column] = self._errors
        return Curves(
            error_pct=error_pct, seeds=tuple(self._seeds.tolist()), epochs=tuple(self._epochs.tolist())
        )

    def _places(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> str:
        """`seeds 3-4, epochs 7-9; seed 6, epoch 1`: seeds with the same epochs together."""
        by_seed: defaultdict[int, set[int]] = defaultdict(set)
        for seed, epoch in zip(self._seeds[rows].tolist(), self._epochs[columns].tolist(), strict=True):
            by_seed[seed].add(epoch)
        by_epochs: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for seed, epochs in sorted(by_seed.items()):
            by_epochs[tuple(sorted(epochs))].append(seed)
        places = [
            f"{numbered('seed', seeds)}, {numbered('epoch', epochs)}" for epochs, seeds in by_epochs.items()
        ]
        return listed(places, "; ")
