"""The runs of a table: long, with a row per seed and epoch, or wide, with a column per run."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from hkrun.config import nearest
from hkrun.counting import count
from hkrun.curve_files.numbering import quoted, quoted_list
from hkrun.curve_files.rows import Rows, read_cell_names, read_number, read_rows, read_whole_numbers
from hkrun.curve_files.run_names import NamedRun, read_run_names
from hkrun.curve_files.sources import Columns, Run, Source, refuse

SEED, EPOCH, STEP, VALUE, CELL = "seed", "epoch", "step", "error_pct", "cell"
# A column of W&B's export of a line plot: the run's name and the metric's, and the bounds of each bin.
_WANDB = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<bound>__MIN|__MAX)?")


def read_table(path: Path, columns: Columns) -> Source:
    """Reads the runs of a CSV, Parquet or JSON lines file.

    Raises:
        InputError: No such file, no table, or it cannot be told which columns hold what.
    """
    given = (columns.seed, columns.epoch, columns.value, columns.cell)
    rows = read_rows(path, {SEED, EPOCH, STEP, VALUE, CELL, *filter(None, given)})
    table = _Table(path, rows, columns)
    return table.read_long() if table.is_long else table.read_wide()


def axis_noun(name: str) -> str:
    """Whether a column counts epochs, or steps, which may be many per epoch."""
    return EPOCH if EPOCH in name.lower() else STEP


class _Table:
    """A table and what the options say of its columns."""

    def __init__(self, path: Path, rows: Rows, columns: Columns) -> None:
        self._path, self._rows, self._options = path, rows, columns
        self._seed = columns.seed or self._find(SEED)
        self._epoch = columns.epoch or self._find(EPOCH) or self._find(STEP) or self._find_other_axis()
        self._cell = columns.cell or self._find(CELL)
        self._headings = [name for name in rows.names if name not in (self._epoch, self._cell)]

    def _find(self, usual: str) -> str | None:
        """The column of a usual name, in whatever case where there is one of that name alone."""
        found = [name for name in dict.fromkeys(self._rows.names) if name.lower() == usual]
        return usual if usual in found else found[0] if len(found) == 1 else None

    def _find_other_axis(self) -> str | None:
        """The axis of an export of W&B that is drawn over another metric: the one column of no run."""
        others = [name for name in self._rows.names if not _WANDB.fullmatch(name)]
        return others[0] if len(others) == 1 and len(self._rows.names) > 1 else None

    @property
    def is_long(self) -> bool:
        """Whether there is a row per seed and epoch; else the names of columns are those of runs."""
        if self._options.run_names is not None:
            return False
        value = self._options.value or VALUE
        return self._seed is not None or self._epoch is None or value in self._headings

    def read_long(self) -> Source:
        """The runs of a table with columns for seed, epoch, value and, with several cells, the cell."""
        wanted = {SEED: self._seed, EPOCH: self._epoch, VALUE: self._options.value or self._find_value()}
        if self._options.cell is not None:
            wanted[CELL] = self._cell
        options = {SEED: "--seed", EPOCH: "--epoch", VALUE: "--value", CELL: "--cell"}
        free = [name for name in self._rows.columns if name not in (*wanted.values(), self._cell)]
        problems = [
            f"no column {quoted(name or usual)}{_suggest(name or usual, options[usual], free)}"
            for usual, name in wanted.items()
            if name not in self._rows.columns
        ]
        refuse(self._path, problems)
        seed, epoch, value = (str(wanted[name]) for name in (SEED, EPOCH, VALUE))
        self._refuse_twice({seed, epoch, value, self._cell})
        seeds = read_whole_numbers(self._rows, seed, problems)
        epochs = read_whole_numbers(self._rows, epoch, problems)
        cells = self._read_cells(problems)
        refuse(self._path, problems)
        members: defaultdict[tuple[str | None, int], list[int]] = defaultdict(list)
        for row, key in enumerate(zip(cells, seeds, strict=True)):
            members[key].append(row)
        values = self._rows.columns[value]
        runs = [
            Run(
                cell=cell,
                seed=number,
                epochs=[epochs[row] for row in chosen],
                values=[values[row] for row in chosen],
            )
            for (cell, number), chosen in members.items()
        ]
        return self._source("long", value=value, runs=runs)

    def _find_value(self) -> str | None:
        """The column of the values: `error_pct`, else the only one that is nothing else."""
        free = [name for name in self._headings if name != self._seed]
        return VALUE if VALUE in free or len(free) != 1 or None in (self._seed, self._epoch) else free[0]

    def read_wide(self) -> Source:
        """The runs of a table with a column for the epoch and one for each run."""
        epoch = self._epoch or EPOCH
        wanted = {"--epoch": epoch} | ({"--cell": self._cell} if self._cell else {})
        refuse(
            self._path,
            [
                f"no column {name!r}{_suggest(name, option, self._rows.columns)}"
                for option, name in wanted.items()
                if name not in self._rows.columns
            ],
        )
        if any(_WANDB.fullmatch(name) for name in self._headings):
            return self._read_wandb()
        if self._options.value is not None:
            refuse(self._path, ["--value: not for a table with a column per run, which all have values"])
        self._refuse_twice(self._rows.names)
        named, others, problems = read_run_names(
            self._headings,
            self._options.run_names,
            what="column",
            or_else=", or --seed COLUMN",
        )
        refuse(self._path, problems)
        runs = self._runs_of_columns({run.name: run for run in named})
        return self._source("wide", value="", runs=runs, left_out=others)

    def _read_wandb(self) -> Source:
        """The runs of W&B's export of a line plot: columns `RUN - METRIC`, with __MIN and __MAX."""
        metric = self._options.value or self._find_metric()
        ending = f" - {metric}"
        found = {name.removesuffix(ending): name for name in self._headings if name.endswith(ending)}
        if not found:
            refuse(self._path, [f"no column 'RUN{ending}'{_suggest(metric, '--value', self._metrics())}"])
        self._refuse_twice({str(self._epoch), *found.values()})
        named, others, problems = read_run_names(found, self._options.run_names, what="run")
        refuse(self._path, problems)
        runs = self._runs_of_columns({found[run.name]: run for run in named})
        doubts = self._find_bins([found[run.name] for run in named])
        source = self._source("W&B", value=metric, runs=runs, left_out=others)
        return replace(source, doubts=doubts)

    def _metrics(self) -> list[str]:
        """The metrics of an export, without those that W&B itself keeps, such as `_step`."""
        matches = filter(None, map(_WANDB.fullmatch, self._headings))
        names = dict.fromkeys(match["metric"] for match in matches if match["bound"] is None)
        return [name for name in names if not name.startswith("_")]

    def _find_metric(self) -> str:
        metrics = self._metrics()
        if len(metrics) != 1:
            told = (
                f"which metric? --value takes one of {quoted_list(metrics)}" if metrics else "no metric in it"
            )
            refuse(self._path, [told])
        return metrics[0]

    def _find_bins(self, names: Iterable[str]) -> list[str]:
        """Whether values are means over several steps, as W&B makes of curves with many points."""
        binned = 0
        for name in names:
            bounds = [self._rows.columns.get(f"{name}{bound}") for bound in ("__MIN", "__MAX")]
            if bounds[0] is not None and bounds[1] is not None:
                pairs = zip(*(map(read_number, column) for column in bounds if column), strict=True)
                binned += any(low < high for low, high in pairs)
        return [f"{count(binned, 'run')} with means of several steps: __MIN is not __MAX"] if binned else []

    def _runs_of_columns(self, named: dict[str, NamedRun]) -> list[Run]:
        """The runs of columns; an empty field is an epoch that the run does not have."""
        problems: list[str] = []
        epochs = read_whole_numbers(self._rows, str(self._epoch), problems)
        cells = self._read_cells(problems)
        if self._cell is not None:
            problems += [
                f"column {name!r} names a cell, and so does the column {self._cell!r}"
                for name, run in named.items()
                if run.cell is not None
            ]
        refuse(self._path, problems)
        runs = []
        for name, run in named.items():
            points: defaultdict[str | None, tuple[list[int], list[object]]] = defaultdict(lambda: ([], []))
            for cell, epoch, value in zip(cells, epochs, self._rows.columns[name], strict=True):
                if value is not None and str(value).strip():
                    at, values = points[cell if self._cell is not None else run.cell]
                    at.append(epoch)
                    values.append(value)
            runs += [
                Run(name=run.name, cell=cell, seed=run.seed, epochs=at, values=values)
                for cell, (at, values) in points.items()
            ]
        return runs

    def _read_cells(self, problems: list[str]) -> Sequence[str | None]:
        """The cell of each row; None where no column says it."""
        if self._cell is None:
            return [None] * len(self._rows.numbers)
        return read_cell_names(self._rows, self._cell, problems)

    def _refuse_twice(self, used: Collection[str | None]) -> None:
        names = self._rows.names
        twice = [name for name in dict.fromkeys(names) if name in used and names.count(name) > 1]
        refuse(self._path, [f"there is more than one column {name!r}" for name in twice])

    def _source(
        self, layout: str, *, value: str, runs: Sequence[Run], left_out: Sequence[str] = ()
    ) -> Source:
        return Source(
            place=str(self._path),
            form=f"{layout} {self._rows.form}",
            value=value,
            axis=axis_noun(str(self._epoch)),
            runs=runs,
            left_out=left_out,
        )


def _suggest(name: str, option: str, present: Iterable[str]) -> str:
    """Which column may be meant by one that is not there."""
    others = list(present)
    near = nearest(name, others)
    if near:
        return near.replace("mean '", f"mean {option} '")
    return f"; {option} takes another: {quoted_list(others)}" if others else ""
