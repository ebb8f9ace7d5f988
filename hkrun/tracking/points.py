"""Which points of its curves a run has in MLflow: all of its test error, and of losses what a chart shows.

A point takes 270 bytes of MLflow's database, and its charts draw 320 of a curve at most. So losses are
thinned, to the same epochs in all runs of a cell, and what only tells why a loss is as it is stays in the
store. The test error is whole: views enlarge its last epochs, and `hkrun stability --mlflow` finds what the
store has. A value is that of its epoch, never a mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hkrun.records import Record

ERROR_METRIC = "error_pct"
LOSS_POINTS = 100
_ERRORS, _LOSSES = "error_", "loss_"


class Point(NamedTuple):
    """One finite value of a metric: at a step, with the time stored for it, Unix time in milliseconds."""

    name: str
    value: float
    time_ms: int
    step: int


class Points(NamedTuple):
    """Such points of one metric, in lists of the same length: a run of 600 epochs has a thousand."""

    name: str
    values: Sequence[float]
    times_ms: Sequence[int]
    steps: Sequence[int]

    def each(self) -> Iterator[Point]:
        """One after another."""
        return map(Point, repeat(self.name), self.values, self.times_ms, self.steps)


@dataclass(frozen=True)
class Density:
    """How many points of its curves a run has in MLflow.

    Errors are there at every epoch. Without `every`, losses are at LOSS_POINTS epochs at most, and no other
    curves. With it all curves are, at every so-manieth epoch. Epochs are counted back from the last one that
    the cell trains: it is always among them, and they are equally far apart.
    """

    every: int | None = None

    def spacing(self, name: str, *, epochs: int) -> int | None:
        """Every how many epochs a curve has a point, of a cell of so many; None where it has none."""
        if name.startswith(_ERRORS):
            return 1
        if self.every is not None:
            return self.every
        return -(-epochs // LOSS_POINTS) if name.startswith(_LOSSES) else None

    def covers(self, described: str | None) -> bool:
        """Whether a run that is described so needs no more points: one of no description has them all."""
        return self.every is None or described in (None, str(Density(1)), str(self))

    def __str__(self) -> str:
        """The description that a run carries."""
        return "errors and losses" if self.every is None else f"all curves, every {self.every}"


def curve_points(
    record: Record, curves: pa.Table, *, density: Density, epochs: int
) -> tuple[list[Points], list[str]]:
    """The finite points of a run's curves, each with the time that the record keeps for its epoch.

    MLflow would keep an infinity as the largest number there is, and a NaN as a zero with a mark.

    Args:
        record: Of the run.
        curves: A row per epoch, a column per curve.
        density: Which of them.
        epochs: How many the run's cell trains.

    Returns:
        The points, and in words where a curve among them was not finite.
    """
    points: list[Points] = []
    left_out: list[str] = []
    at = curves["epoch"].to_numpy()
    times = end_times(record, curves)
    for name in curves.column_names:
        spacing = density.spacing(name, epochs=epochs)
        if name == "epoch" or spacing is None or curves[name].null_count == len(curves):
            continue
        values = _values(curves, name)
        finite = np.isfinite(values)
        odd = at[~finite & curves[name].is_valid().to_numpy()]
        if len(odd):
            left_out.append(f"{name}: {len(odd)} from epoch {odd[0]}")
        kept = finite & ((epochs - at) % spacing == 0)
        if kept.any():
            points.append(Points(name, values[kept].tolist(), times[kept].tolist(), at[kept].tolist()))
    return points, left_out


def single_points(numbers: Mapping[str, float | None], time: float) -> list[Points]:
    """One point for each number that is one, at Unix time in seconds."""
    return [
        Points(name, [value], [round(time * 1000)], [0])
        for name, value in numbers.items()
        if value is not None and np.isfinite(value)
    ]


def end_times(record: Record, curves: pa.Table) -> NDArray[np.int64]:
    """When each epoch ended by the record, Unix time in milliseconds, shape [epochs]."""
    seconds = _values(curves, "seconds") if "seconds" in curves.column_names else np.zeros(len(curves))
    elapsed = np.cumsum(np.where(np.isfinite(seconds), seconds, 0.0))
    times: NDArray[np.int64] = np.rint((record.started_at + elapsed) * 1000).astype(np.int64)
    return times


class MeanCurve:
    """The mean test error over runs, at each epoch that all have: a line per cell for any number of seeds.

    Attributes:
        runs: How many were added.
    """

    def __init__(self) -> None:
        self.runs = 0
        self._sums: NDArray[np.float64] = np.zeros(0)
        self._latest: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._counts: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def add(self, record: Record, curves: pa.Table) -> None:
        """Takes the curves of one more run."""
        self.runs += 1
        if ERROR_METRIC not in curves.column_names:
            return
        at = curves["epoch"].to_numpy()
        missing = (0, max(0, int(at.max()) + 1 - len(self._sums)))
        self._sums = np.pad(self._sums, missing)
        self._latest, self._counts = np.pad(self._latest, missing), np.pad(self._counts, missing)
        self._sums[at] += _values(curves, ERROR_METRIC)
        self._latest[at] = np.maximum(self._latest[at], end_times(record, curves))
        self._counts[at] += 1

    def points(self) -> list[Points]:
        """The mean, at the time at which the last of the runs had it; none where a run has no test error."""
        epochs = np.flatnonzero((self._counts == self.runs) & np.isfinite(self._sums))
        if not len(epochs):
            return []
        means = self._sums[epochs] / self.runs
        return [Points(ERROR_METRIC, means.tolist(), self._latest[epochs].tolist(), epochs.tolist())]


def _values(curves: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64 [epochs], NaN where it has no value."""
    values: NDArray[np.float64] = curves[name].to_numpy().astype(np.float64)
    return values
