"""Error curves from a CSV or Parquet file: one complete matrix per cell, or every reason why not."""

import csv
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from hkrun.config import nearest
from hkrun.errors import InputError

REQUIRED = ("seed", "epoch", "error_pct")
CELL = "cell"
ONLY_CELL = "all"

_log = logging.getLogger("hkrun")
_MAX_PLACES = 8  # that one problem names; the rest is counted


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

    The columns are `seed`, `epoch`, `error_pct` (percent) and optionally `cell`; others are ignored. The
    content, not the name, tells the formats apart. Errors that are all below 1, perhaps fractions, cause a
    logged warning.

    Args:
        path: The file.
        window: Number of last epochs that S is taken over.

    Returns:
        The curves by cell, in the order of the file; a file without `cell` has the one cell "all".

    Raises:
        InputError: No such file, no such columns, or curves that S is not defined for: values
            missing, given twice, no numbers or outside 0..100, gaps, one run, fewer epochs than the window.
    """
    rows = _read_rows(path)
    cells = _cells(rows, path)
    problems = []
    for name, cell in cells.items():
        found = cell.problems(window=window)
        if CELL not in rows.columns and cell.repeated:
            found.append(
                f"configurations need a column {CELL!r} to tell them apart{_instead(CELL, rows.columns)}"
            )
        problems += [f"cell {name!r}: {problem}" for problem in found]
    _refuse(path, problems)
    curves = {name: cell.curves() for name, cell in cells.items()}
    if all(cell.error_pct.max() < 1 for cell in curves.values()):
        _log.warning("%s: every error_pct is below 1 and is read as percent; are they fractions?", path)
    return curves


def _refuse(path: Path, problems: Sequence[str]) -> None:
    if problems:
        raise InputError("\n".join(f"{path}: {problem}" for problem in problems))


# --- the file -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The rows of a file: values by column, and what an editor or a viewer calls each row (`line 7`)."""

    columns: dict[str, list[object]]
    numbers: Sequence[int]
    unit: str


def _read_rows(path: Path) -> _Rows:
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if not start:
            raise InputError(f"{path}: the file is empty")
        names, rows = _read_parquet(path) if start == b"PAR1" else _read_csv(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except (pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: is neither CSV (UTF-8, with column names) nor Parquet: {reason}"
        ) from error
    twice = [name for name in (*REQUIRED, CELL) if names.count(name) > 1]
    _refuse(path, [f"there is more than one column {name!r}" for name in twice])
    return rows


def _read_csv(path: Path) -> tuple[list[str], _Rows]:
    records, lines = [], []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, skipinitialspace=True)
        for record in reader:
            if record:  # not a blank line
                records.append(record)
                lines.append(reader.line_num)
    names = [name.strip() for name in records[0]] if records else []
    ragged = [line for line, record in zip(lines, records, strict=True) if len(record) != len(names)]
    if ragged:
        _refuse(
            path, [f"{_numbered('line', ragged)}: not as many values as there are column names, {len(names)}"]
        )
    columns: dict[str, list[object]] = {
        name: [record[index] for record in records[1:]] for index, name in enumerate(names)
    }
    return names, _Rows(columns=columns, numbers=lines[1:], unit="line")


def _read_parquet(path: Path) -> tuple[list[str], _Rows]:
    table = pa.parquet.ParquetFile(path).read()
    columns = {
        name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return table.column_names, _Rows(columns=columns, numbers=range(1, table.num_rows + 1), unit="row")


def _cells(rows: _Rows, path: Path) -> dict[str, "_CellRows"]:
    """The rows by cell, once each has a cell, a seed and an epoch."""
    missing = [name for name in REQUIRED if name not in rows.columns]
    _refuse(path, [f"no column {name!r}{_instead(name, rows.columns)}" for name in missing])
    if not rows.numbers:
        _refuse(path, ["there are no rows below the column names"])
    problems: list[str] = []
    seeds, epochs = _whole_numbers(rows, "seed", problems), _whole_numbers(rows, "epoch", problems)
    names = _cell_names(rows, problems)
    _refuse(path, problems)
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


def _instead(name: str, present: Iterable[str]) -> str:
    """What may have been meant by a column that is not there."""
    others = [other for other in present if other not in (*REQUIRED, CELL)]
    return nearest(name, others) or (f"; the others are {', '.join(map(repr, others))}" if others else "")


def _whole_numbers(rows: _Rows, name: str, problems: list[str]) -> list[int]:
    found = [_whole_number(value) for value in rows.columns[name]]
    wrong = [index for index, number in enumerate(found) if number is None]
    if wrong:
        where = _numbered(rows.unit, [rows.numbers[index] for index in wrong])
        problems.append(f"{where}: {name} is no whole number, such as {rows.columns[name][wrong[0]]!r}")
    return [number for number in found if number is not None]


def _whole_number(value: object) -> int | None:
    if isinstance(value, str):
        try:
            return _whole_number(int(value))
        except ValueError:
            pass
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 2**63 else None
    number = _number(value)  # 3.0, as data frames write whole numbers
    return int(number) if number.is_integer() and abs(number) < 2**53 else None


def _number(value: object) -> float:
    """The value as a number, or NaN where it is none."""
    if value is None or isinstance(value, bool):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def _cell_names(rows: _Rows, problems: list[str]) -> list[str]:
    if CELL not in rows.columns:
        return [ONLY_CELL] * len(rows.numbers)
    names = ["" if value is None else str(value).strip() for value in rows.columns[CELL]]
    unnamed = [number for number, name in zip(rows.numbers, names, strict=True) if not name]
    if unnamed:
        problems.append(f"{_numbered(rows.unit, unnamed)}: {CELL} is empty")
    return names


# --- one cell -----------------------------------------------------------------------------------------------


class _CellRows:
    """The rows of one cell, and how often each seed has each epoch."""

    def __init__(
        self, *, seeds: NDArray[np.int64], epochs: NDArray[np.int64], values: Sequence[object]
    ) -> None:
        self._values = values
        self._errors = np.array([_number(value) for value in values])
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
            found.append(f"{_spans('epoch', gaps)}: no run has a row")
        if len(self._seeds) == 1:
            found.append(
                f"seed {self._seeds[0]} is the only run; S is taken across runs and needs at least 2"
            )
        if len(self._epochs) < window:
            epochs = _numbered("epoch", self._epochs.tolist())
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
            f"{_numbered('seed', seeds)}, {_numbered('epoch', epochs)}" for epochs, seeds in by_epochs.items()
        ]
        return _listed(places, "; ")


# --- numbers in words ---------------------------------------------------------------------------------------


def _numbered(noun: str, numbers: Sequence[int]) -> str:
    """`line 3` or `lines 3-5, 9`, of ascending numbers."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return _spans(noun, spans)


def _spans(noun: str, spans: Sequence[tuple[int, int]]) -> str:
    words = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    plural = "s" if len(spans) > 1 or spans[0][0] < spans[0][1] else ""
    return f"{noun}{plural} {_listed(words, ', ')}"


def _listed(words: Sequence[str], separator: str) -> str:
    more = len(words) - _MAX_PLACES
    return separator.join(words[:_MAX_PLACES]) + (f"{separator}{more} more" if more > 0 else "")
