"""Which points of its curves a run has in MLflow: all of its test error, and of losses what a chart shows.

A point takes 270 bytes of MLflow's database, and its charts draw 320 of a curve at most. So losses are
thinned, to the same epochs in all runs of a cell, and what only tells why a loss is as it is stays in the
store. The test error is whole: views enlarge its last epochs, and `hkrun stability --mlflow` finds what the
store has. A value is that of its epoch, never a mean.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
) -> tuple[list[Point], list[str]]:
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
    points: list[Point] = []
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
        rows = zip(values[kept].tolist(), times[kept].tolist(), at[kept].tolist(), strict=True)
        points += [Point(name, value, time, epoch) for value, time, epoch in rows]
    return points, left_out


def single_points(numbers: Mapping[str, float | None], time: float) -> list[Point]:
    """One point for each number that is one, at Unix time in seconds."""
    return [
        Point(name, value, round(time * 1000), 0)
        for name, value in numbers.items()
        if value is not None and np.isfinite(value)
    ]


def end_times(record: Record, curves: pa.Table) -> NDArray[np.int64]:
    """When each epoch ended by the record, Unix time in milliseconds, shape [epochs]."""
    seconds = _values(curves, "seconds") if "seconds" in curves.column_names else np.zeros(len(curves))
    elapsed = np.cumsum(np.where(np.isfinite(seconds), seconds, 0.0))
    times: NDArray[np.int64] = np.rint((record.started_at + elapsed) * 1000).astype(np.int64)
    return times


def mean_curve(runs: Iterable[tuple[Record, pa.Table]]) -> list[Point]:
    """The mean test error over runs, at each epoch that all have: a line per cell for any number of seeds."""
    sums, latest, counts = np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    number = 0
    for record, curves in runs:
        if ERROR_METRIC not in curves.column_names:
            return []
        at = curves["epoch"].to_numpy()
        missing = (0, max(0, int(at.max()) + 1 - len(sums)))
        sums, latest, counts = np.pad(sums, missing), np.pad(latest, missing), np.pad(counts, missing)
        sums[at] += _values(curves, ERROR_METRIC)
        latest[at] = np.maximum(latest[at], end_times(record, curves))
        counts[at] += 1
        number += 1
    epochs = np.flatnonzero((counts == number) & np.isfinite(sums)) if number else np.zeros(0, dtype=np.int64)
    means = sums[epochs] / max(number, 1)
    rows = zip(means.tolist(), latest[epochs].tolist(), epochs.tolist(), strict=True)
    return [Point(ERROR_METRIC, mean, time, epoch) for mean, time, epoch in rows]


def _values(curves: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64 [epochs], NaN where it has no value."""
    values: NDArray[np.float64] = curves[name].to_numpy().astype(np.float64)
    return values
