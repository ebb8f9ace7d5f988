"""The points of metrics, and how they get into MLflow.

MLflow's client takes a second for the 8,400 points of one run of 600 epochs: it makes an object of each, and
asks for the latest of each batch. Ten thousand runs would take three hours. A SQLite file that has MLflow's
schema gets them as rows, in one transaction: 80 ms. Servers and other databases get batches, as they must.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hkrun.tracking.database import LOCKED_S, database_path

if TYPE_CHECKING:
    from mlflow.entities import Param
    from mlflow.tracking import MlflowClient

ENTITIES_PER_BATCH = 1000  # metrics, parameters and tags together


class Point(NamedTuple):
    """One finite value of a metric: at a step, with the time stored for it, Unix time in milliseconds."""

    name: str
    value: float
    time_ms: int
    step: int


def write_content(
    client: "MlflowClient",
    run_id: str,
    parameters: "Sequence[Param]",
    points: Sequence[Point],
    *,
    progress: Callable[[], None],
) -> None:
    """Writes the parameters and all points of an open run; what MLflow has of them is there once.

    `progress` is called after each batch, to show that MLflow answers.
    """
    from mlflow.entities import Metric

    database = database_path(client.tracking_uri)
    if database is not None:
        client.log_batch(run_id, params=parameters, synchronous=True)
        _replace_rows(database, run_id, points)
        return
    metrics = [Metric(point.name, point.value, point.time_ms, point.step) for point in points]
    first = ENTITIES_PER_BATCH - len(parameters)
    client.log_batch(run_id, params=parameters, metrics=metrics[:first], synchronous=True)
    for start in range(first, len(metrics), ENTITIES_PER_BATCH):
        batch = metrics[start : start + ENTITIES_PER_BATCH]
        progress()
        client.log_batch(run_id, metrics=batch, synchronous=True)


def _replace_rows(database: Path, run_id: str, points: Sequence[Point]) -> None:
    """Makes these points all that a run has, as MLflow 3.17 keeps them: each, and each metric's latest."""
    latest: dict[str, Point] = {}
    for point in points:
        known = latest.get(point.name)
        if known is None or (point.step, point.time_ms) > (known.step, known.time_ms):
            latest[point.name] = point
    with contextlib.closing(sqlite3.connect(database, timeout=LOCKED_S)) as connection, connection:
        for table, rows in (("metrics", dict.fromkeys(points)), ("latest_metrics", latest.values())):
            connection.execute(f"DELETE FROM {table} WHERE run_uuid = ?", [run_id])  # noqa: S608  ours
            connection.executemany(
                f"INSERT INTO {table} (run_uuid, is_nan, key, value, timestamp, step) "  # noqa: S608
                "VALUES (?, 0, ?, ?, ?, ?)",
                ((run_id, *point) for point in rows),
            )
