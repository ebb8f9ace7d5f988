"""A sweep's results as numbers: what its finished runs say, what is missing, and how sure that is.

Only finished runs are data. Failed, diverged and missing ones are listed by seed and never averaged around.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hkrun import stats
from hkrun.config import Cell, Value
from hkrun.plans import Execution
from hkrun.report.comparison import Comparison, RateComparison, Ratio
from hkrun.report.error_curves import ErrorCurves
from hkrun.report.monitoring import UNMONITORED, Monitoring
from hkrun.report.published import PublishedRow, PublishedTable
from hkrun.report.verdict import Verdict
from hkrun.spaces import CellColumns, Sweep, name_cells
from hkrun.store import Record, TeacherRecord

Curve = NDArray[np.float64]
Interval = tuple[float, float]
PERCENT: Interval = (0.0, 100.0)  # between which errors can be


@dataclass(frozen=True, kw_only=True)
class CellSummary:
    """One cell of a sweep.

    Attributes:
        label: Its name as sentences have it, with short keys.
        records: Of the sweep's seeds, by seed.
        seeds: The finished ones: the data.
        missing: Seeds whose run has not ended.
        untaught: Seeds that were left out, for their own teacher diverged.
        spared: Seeds that were left out, for all questions about the cell were decided without them.
        stopped: Seeds whose run a scheduler ended early, for its test error was behind, and that have no
            result since.
        error_pct: Test error in percent of the finished runs, shape [seeds, epochs]; in the last stage of a
            method that has two.
        diverged_curves: Test error of the diverged runs, each as far as it came.
        error_last: Of the last epoch; None where no run finished. Without an interval where runs were stopped
            early.
        error_best: The lowest of any epoch, which selects on the test set; likewise.
        stability: S; None where it is undefined.
        pair_stability: S2, its mean over pairs of runs; likewise.
        undefined: Why S and S2 are undefined.
        deviation: Standard deviation over seeds of the last epoch's error; None where no run finished and
            where runs were stopped early.
        error_top5: Top-5 error of the last epoch, where the data set has one.
        health: What the discriminator did in the finished runs, by column of the curves.
        monitoring: When the verdicts of the study are read.
    """

    cell_id: str
    name: str
    label: str
    cell: Cell
    records: tuple[Record, ...]
    seeds: tuple[int, ...]
    failed: tuple[int, ...]
    diverged: tuple[int, ...]
    missing: tuple[int, ...]
    untaught: tuple[int, ...]
    stopped: tuple[int, ...]
    error_pct: ErrorCurves
    diverged_curves: tuple[Curve, ...]
    error_last: stats.ErrorSummary | None
    error_best: stats.ErrorSummary | None
    stability: stats.Stability | None
    pair_stability: stats.PairStability | None
    undefined: str | None
    deviation: stats.Deviation | None
    error_top5: stats.ErrorSummary | None
    health: Mapping[str, stats.Spread]
    spared: tuple[int, ...] = ()
    monitoring: Monitoring = UNMONITORED

    @property
    def selection(self) -> str | None:
        """Why nothing may be concluded from the finished runs, as a sentence's part; None where it may."""
        if not self.stopped:
            return None
        were = "run was" if len(self.stopped) == 1 else "runs were"
        return f"selected on test error: {len(self.stopped)} {were} stopped early"

    @property
    def lost(self) -> tuple[int, ...]:
        """Seeds whose run ended without a result: what finished beside them was selected by its outcome."""
        return tuple(sorted((*self.failed, *self.diverged, *self.untaught)))

    @property
    def loss(self) -> str:
        """How many runs were lost, as a sentence's part; empty where none was."""
        counts = [
            f"{len(seeds)} {what}"
            for seeds, what in (
                (self.diverged, "diverged"),
                (self.failed, "failed"),
                (self.untaught, "had no teacher"),
            )
            if seeds
        ]
        if not counts:
            return ""
        number = len(self.records) + len(self.missing) + len(self.untaught)
        return f"of {number} runs of {self.label}, {' and '.join(counts)}"


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A row of a published table and what this sweep has of it.

    Attributes:
        cell: The sweep's cell of that name; None where there is none.
        teachers: Those that the row stands for, one of each error: students of several widths have one each.
        comparison: With the table's reference row.
    """

    published: PublishedRow
    cell: CellSummary | None
    teachers: tuple["Teacher", ...]
    comparison: Comparison | None


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A published table beside what this sweep measured.

    Attributes:
        id: Its name in published.toml.
        reference: The row that differences within it refer to.
        rows: In the paper's order.
    """

    id: str
    published: PublishedTable
    reference: str
    rows: tuple[PaperRow, ...]


@dataclass(frozen=True, kw_only=True)
class ScanPoint:
    """A cell on a curve or grid.

    Attributes:
        values: Of the keys.
        comparison: The test of equivalence with the reference point.
        difference: The permutation test of the same pair: whether the two differ at all.
    """

    values: tuple[Value, ...]
    cell: CellSummary
    comparison: Comparison | None
    difference: Comparison | None = None


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Cells that differ in one key, or in two that are crossed: a curve or a grid.

    Attributes:
        group: What the search space calls them together; may be empty.
        reference: The cell with the default values, or the sweep's reference, which the others are compared
            with.
        role: What that cell is called: "reference" where the search space names it as such, else "default".
    """

    group: str
    keys: tuple[str, ...]
    points: tuple[ScanPoint, ...]
    reference: CellSummary | None
    role: str


@dataclass(frozen=True, kw_only=True)
class TrainedTeacher:
    """One training of a teacher.

    Attributes:
        seeds: Of the runs that learn from it.
        hash: SHA-256 of its weights, as the runs recorded it; None where no run did.
        record: How it was trained; None where the store does not hold these weights.
    """

    teacher_id: str
    seeds: tuple[int, ...]
    hash: str | None
    record: TeacherRecord | None


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """What the cells of one configuration of the teacher learned from.

    Attributes:
        identity: See `hkrun.config.teachers_id`.
        trained: The teacher; or several that differ in their seed, in the order of the runs' seeds.
        students: How many seeds share each of several; 0 where all share one.
        alone_pct: Test error of its cells' student trained alone, where that is known.
        alone_source: Where that is known from.
        plateau_pct: The same after so many epochs that more no longer help, where the recipe tells it.
    """

    identity: str
    trained: tuple[TrainedTeacher, ...]
    students: int
    alone_pct: float | None
    alone_source: str
    plateau_pct: float | None = None

    @property
    def several(self) -> bool:
        """Whether seeds have teachers of their own."""
        return self.students > 0

    @property
    def hash(self) -> str | None:
        """Of the one teacher; None where there are several."""
        return None if self.several else self.trained[0].hash

    @property
    def records(self) -> tuple[TeacherRecord, ...]:
        """Of those that the store holds."""
        return tuple(teacher.record for teacher in self.trained if teacher.record is not None)

    @property
    def error(self) -> stats.ErrorSummary | None:
        """Test error over the teachers that the store holds; None where it holds none."""
        records = self.records
        return (
            stats.summarise_errors([record.error_pct for record in records], bounds=PERCENT)
            if records
            else None
        )

    @property
    def to_beat(self) -> tuple[float, str] | None:
        """The lowest error its student is known to reach alone, and how; None where none is known."""
        known = [
            (error_pct, source)
            for error_pct, source in (
                (self.alone_pct, self.alone_source),
                (self.plateau_pct, "at its plateau"),
            )
            if error_pct is not None
        ]
        return min(known, default=None)


@dataclass(frozen=True, kw_only=True)
class VarianceSplit:
    """Where the variance of errors comes from, in squared percentage points; see `stats.decompose`.

    Attributes:
        over: What the columns are: "epochs" of the window of one cell, or "cells" that share their teachers,
            in the last epoch.
        cells: Their names.
        components: Of the errors.
    """

    over: str
    cells: tuple[str, ...]
    components: stats.VarianceComponents


@dataclass(frozen=True, kw_only=True)
class Best:
    """The cell with the lowest figure of those whose runs all have a result.

    Attributes:
        measure: "error" of the last epoch, or "stability".
        cell: Its name.
        value: Its mean error in percent, or its S.
        num_running: How many cells it is the lowest of.
        num_pairs: Over how many pairs Holm's correction is where no comparison with the reference counts.
        told: Names of those that it is shown to differ from.
        untold: Names of those that tests do not tell it from; `untested` are not tested against it.
        left_out: Names of the cells that were not in the running: runs of theirs have no result.
    """

    measure: str
    cell: str
    value: float
    num_running: int
    num_pairs: int
    told: tuple[str, ...]
    untold: tuple[str, ...]
    left_out: tuple[str, ...]
    untested: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All that a report says of a sweep.

    Attributes:
        comparisons: Of the error with the sweep's reference cell.
        equivalences: Of errors with the reference, of a sequential study whose search space sets a margin.
        stability_comparisons: Of S with the reference cell, both over the seeds that both cells finished.
        s2_ratios: S2 over that of the reference cell, on those seeds.
        deviation_ratios: The same of the standard deviation over seeds of the last epoch's error.
        teachers: One per configuration of a teacher, apart from its seed where seeds have their own; usually
            one.
        paper: The tables of the paper that the sweep is set against.
        verdicts: On their claims, and on those that the sweep names.
        s2_verdicts: On those of them about S, judged on S2; they count among no published claims.
        scans: The curves and grids among the cells.
        variance: Of the cells whose seeds have several teachers; see `hkrun.report.variance`.
        quantum_pct: What one test image is worth, in percentage points; None before the first run and where
            the number of test images is not known.
        warnings: What a reader must know before believing the numbers, one sentence or two each.
        executions: Each time that the sweep trained something; none where the store was written before they
            were kept.
        measure: What the question is about, "error" or "stability".
        best: By that, and then by the error.
        monitoring: When its verdicts are read.
        divergence: How often runs diverge, against the reference.
        num_tables: How many tables of tests there are, each a family unless the sweep's is "all".
        num_tests: How many tests they are, where one that several share counts once.
    """

    sweep: Sweep
    store: str
    cells: tuple[CellSummary, ...]
    teachers: tuple[Teacher, ...]
    quantum_pct: float | None
    comparisons: tuple[Comparison, ...] = ()
    stability_comparisons: tuple[Comparison, ...] = ()
    s2_ratios: tuple[Ratio, ...] = ()
    deviation_ratios: tuple[Ratio, ...] = ()
    paper: tuple[PaperTable, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    s2_verdicts: tuple[Verdict, ...] = ()
    scans: tuple[Scan, ...] = ()
    warnings: tuple[str, ...] = ()
    executions: tuple[Execution, ...] = ()
    variance: tuple[VarianceSplit, ...] = ()
    measure: str = "error"
    best: tuple[Best, ...] = ()
    monitoring: Monitoring = UNMONITORED
    equivalences: tuple[Comparison, ...] = ()
    divergence: tuple[RateComparison, ...] = ()
    num_tables: int = 0
    num_tests: int = 0

    @functools.cached_property
    def columns(self) -> CellColumns:
        """How tables and sentences name the cells."""
        return name_cells(self.sweep.cells)

    @functools.cached_property
    def axes(self) -> dict[str, dict[str, Value]]:
        """The values of the axes that vary each cell, by the names of cells and keys."""
        return {named.name: dict(named.point) for named in self.sweep.cells}

    def label(self, name: str) -> str:
        """The label of the cell of this name; a name that is of no cell, such as a row's, is its own."""
        return self.columns.labels.get(name, name)

    @property
    def all_verdicts(self) -> list[Verdict]:
        """As published, and right after each on S the one on S2."""
        ids = [verdict.claim.id for verdict in self.verdicts]
        return sorted((*self.verdicts, *self.s2_verdicts), key=lambda verdict: ids.index(verdict.claim.id))

    @property
    def slot_seconds(self) -> dict[str, float]:
        """Seconds of slots by part, over all executions."""
        sums: dict[str, float] = {}
        for execution in self.executions:
            for part, seconds in execution.parts.items():
                sums[part] = sums.get(part, 0.0) + seconds
        return sums

    @property
    def records(self) -> list[Record]:
        """Every record of the sweep once, though two names may share a cell."""
        return [
            record for cell in {cell.cell_id: cell for cell in self.cells}.values() for record in cell.records
        ]

    def find_comparison(self, cell: str, *, measure: str = "error") -> Comparison | None:
        """The comparison of a cell with the reference."""
        comparisons = self.comparisons if measure == "error" else self.stability_comparisons
        return next((comparison for comparison in comparisons if comparison.cell == cell), None)

    def describe_uncompared(self, cell: CellSummary) -> str:
        """What stands in place of a cell's comparison with the reference where there is none."""
        reference = next((other for other in self.cells if other.name == self.sweep.reference), None)
        if reference is cell:
            return "reference"
        if cell.selection or (reference and reference.selection):
            return "selected"
        if reference and reference.cell_id == cell.cell_id:
            return "same cell"
        return "withheld" if cell.lost or (reference and reference.lost) else "-"
