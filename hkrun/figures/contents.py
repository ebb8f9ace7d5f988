"""What figures show, as data: nothing here loads Matplotlib."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hkrun.figures.palette import COLORS
from hkrun.stats import Spread

MOST_BANDS = 6  # cells, beyond which bands around their curves would hide them
MOST_DOTS = 400  # of one cell: more are a blot, and a megabyte of the page
MOST_LINES = 12  # in a panel: so many strokes differ
MOST_PANELS = 12  # of differences after each seed
ACCENT = COLORS[1]
_EPOCHS_AT_ONCE = 64

Curve = NDArray[np.float64]
Interval = tuple[float, float]
Measure = Literal["error", "s"]


@dataclass(frozen=True, kw_only=True)
class CellCurves:
    """The test error of one cell's runs, in percent and percentage points.

    Attributes:
        runs: How many finished.
        mean: Over these at each epoch, shape [epochs]; of no epoch where none finished.
        sd: Their standard deviation, ddof 1, likewise; NaN of a single run.
        spread: The largest minus the smallest, likewise.
        diverged: The curves of the diverged runs, each up to where it ended. Drawn, never averaged.
        look: Place of its colour, see `stroke_of`; None: its place in the figure.
        note: What there is to say of it, for a tooltip.
    """

    name: str
    runs: int
    mean: Curve
    sd: Curve
    spread: Curve
    diverged: tuple[Curve, ...] = ()
    look: int | None = None
    note: str = ""

    @classmethod
    def of_runs(cls, error_pct: Curve, **others: Any) -> "CellCurves":
        """From the errors of the finished runs, shape [runs, epochs]; runs may be 0. `others` are fields."""
        runs, epochs = error_pct.shape if error_pct.size else (0, 0)
        if runs > 1:  # a few epochs at a time: of all at once there would be two copies
            parts = [
                error_pct[:, first : first + _EPOCHS_AT_ONCE] for first in range(0, epochs, _EPOCHS_AT_ONCE)
            ]
            sd = np.concatenate([part.std(axis=0, ddof=1) for part in parts])
        else:
            sd = np.full(epochs, np.nan)
        return cls(
            runs=runs,
            mean=error_pct.mean(axis=0) if runs else np.empty(0),
            sd=sd,
            spread=error_pct.max(axis=0) - error_pct.min(axis=0) if runs else np.empty(0),
            **others,
        )


@dataclass(frozen=True, kw_only=True)
class PairedDifferences:
    """The error of one cell minus the reference's in percentage points, by seed.

    Attributes:
        name: What the figure calls the cell.
        by_seed: The differences.
        seeds: Of which seeds they are; none where that is not known.
        look: Place of the cell's colour, see `stroke_of`.
    """

    name: str
    by_seed: Sequence[float]
    mean: float
    ci95: tuple[float, float] | None
    seeds: Sequence[int] = ()
    look: int = 1


@dataclass(frozen=True, kw_only=True)
class SeedSequence:
    """A difference of errors in percentage points after each seed.

    Attributes:
        name: What the figure calls the cell.
        means: Of the first so many paired differences, shape [pairs].
        looks: Numbers of pairs at which there is an interval.
        intervals: At these; None where there is none.
        decided_after: The number at which it was decided; None while it is open.
        look: Place of the cell's colour, see `stroke_of`.
    """

    name: str
    means: Sequence[float]
    looks: Sequence[int]
    intervals: Sequence[tuple[float, float] | None]
    decided_after: int | None
    look: int


@dataclass(frozen=True, kw_only=True)
class CellHealth:
    """What the discriminator did in the runs of one cell.

    Attributes:
        curves: By column.
        look: Place of the cell's colour, see `stroke_of`.
    """

    name: str
    curves: Mapping[str, Spread]
    look: int


@dataclass(frozen=True, kw_only=True)
class Factor:
    """What varies between the points of a figure.

    Attributes:
        name: What axes and legends call it.
        values: Its values; numbers in rising order where all are numbers.
        labels: The values as text.
        numeric: Whether all values are numbers.
    """

    name: str
    values: tuple[Any, ...]
    labels: tuple[str, ...]
    numeric: bool


@dataclass(frozen=True, kw_only=True)
class CellPoint:
    """One cell.

    Attributes:
        name: What the figure calls it.
        error: Mean error of the last epoch in percent; NaN where no run finished.
        ci95: Its interval; None where there is none.
        by_seed: The errors of the finished runs.
        s: S in squared percentage points; NaN where it is undefined.
        s_ci95: Its interval; None where there is none.
        finished: Number of finished runs.
        planned: Number of runs that there are to be.
        lost: What became of the others, such as "5 diverged"; empty where all finished.
        reference: Whether the others are compared with it.
        differs: Whether it is shown to lie outside the margin around the reference.
        look: Place of its colour, see `stroke_of`; None where it has none of its own.
        note: All that there is to say of it, for a tooltip.
    """

    name: str
    error: float
    ci95: Interval | None
    by_seed: tuple[float, ...]
    s: float
    s_ci95: Interval | None
    finished: int
    planned: int
    lost: str
    reference: bool
    differs: bool
    look: int | None
    note: str

    def value(self, measure: Measure) -> float:
        """The mean error, or S."""
        return self.error if measure == "error" else self.s

    def interval(self, measure: Measure) -> Interval | None:
        """The interval of the mean error, or of S."""
        return self.ci95 if measure == "error" else self.s_ci95

    @property
    def color(self) -> str:
        """The colour that it has in all figures."""
        return ACCENT if self.look is None else COLORS[self.look % len(COLORS)]


@dataclass(frozen=True, kw_only=True)
class AxisLine:
    """Cells that differ in the key of the axis alone.

    Attributes:
        name: What the line is of; empty where the panel has one alone.
        points: At each value of the axis; None where the line has no cell there.
    """

    name: str
    points: Sequence[CellPoint | None]


@dataclass(frozen=True, kw_only=True)
class LinePanel:
    """Lines over one key.

    Attributes:
        title: What the panel is of; may be empty.
        axis: The key.
        lines: At most `MOST_LINES`.
    """

    title: str
    axis: Factor
    lines: Sequence[AxisLine]


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Cells over two keys.

    Attributes:
        title: What the map is of; may be empty.
        rows: The key that rises upward.
        columns: The key that rises to the right.
        points: The cell at each pair of values, [rows, columns]; None where there is none.
    """

    title: str
    rows: Factor
    columns: Factor
    points: Sequence[Sequence[CellPoint | None]]


@dataclass(frozen=True, kw_only=True)
class DotRow:
    """A cell, and its differences from the reference.

    Attributes:
        label: Its values of what varies.
        point: The cell.
        differences: Seed by seed; None where it is not compared.
        reason: What stands in their place.
    """

    label: str
    point: CellPoint
    differences: PairedDifferences | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class PlacedPoint:
    """A cell and the place of its value among those of each factor."""

    point: CellPoint
    at: Sequence[int]
