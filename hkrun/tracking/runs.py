"""The MLflow runs of one sweep's experiment: found by their tags, made once, replaced when outdated.

MLflow can add metrics to a run but not take any away. So a run whose content has changed (a failed run that
was repeated, a cell that got more seeds) is deleted, restorably, and made anew; one whose content is the same
is left alone, or finished where an earlier attempt broke off.
"""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hkrun.tracking.database import LOCKED_S, database_path
from hkrun.tracking.experiments import search_runs

if TYPE_CHECKING:
    from mlflow.entities import Param
    from mlflow.tracking import MlflowClient

ENTITIES_PER_BATCH = 1000  # metrics, parameters and tags together
PARENT_TAG = "mlflow.parentRunId"
PARAMETERS_PER_BATCH = 100
PARAMETER_LENGTH = 6000
TAG_LENGTH = 5000
RUN_NAME_LENGTH = 250
FORMAT = 1  # part of every digest: a change in what is mirrored renews what an older hkrun wrote


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

    MLflow's client takes a second for the 8,400 points of one run of 600 epochs: it makes an object of each,
    and asks for the latest of each batch. Ten thousand runs would take three hours. A SQLite file that has
    MLflow's schema gets them as rows, in one transaction: 80 ms. Servers and other databases get batches, as
    they must. `progress` is called after each batch, to show that MLflow answers.
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


@dataclass
class MirroredRun:
    """An MLflow run of ours: the parent of a cell, or with a seed one of its children.

    Attributes:
        digest: Digest of what it holds or is about to hold; None where that is still open.
        closed: Whether everything of that digest has been written.
        report: Digest of the report files it carries.
    """

    run_id: str
    seed: int | None
    digest: str | None
    closed: bool
    parent_id: str | None = None
    report: str | None = None


def digest(content: object) -> str:
    """16 hex digits that stand for plain data."""
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class CellRuns:
    """The runs of one cell in one experiment: the parent, and a child per seed."""

    def __init__(
        self, client: "MlflowClient", experiment_id: str, cell_id: str, *, progress: Callable[[], None]
    ) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._cell_id = cell_id
        self._progress = progress
        self._found: dict[int | None, list[MirroredRun]] = {}
        for run in search_runs(client, [experiment_id], f"tags.`hkrun.cell_id` = '{cell_id}'"):
            tags = run.data.tags
            known = MirroredRun(
                run_id=run.info.run_id,
                seed=int(tags["hkrun.seed"]) if "hkrun.seed" in tags else None,
                digest=tags.get("hkrun.digest"),
                closed=run.info.status in ("FINISHED", "FAILED"),
                parent_id=tags.get(PARENT_TAG),
                report=tags.get("hkrun.report"),
            )
            self._found.setdefault(known.seed, []).append(known)

    def children(self) -> list[MirroredRun]:
        """The runs of seeds, by seed."""
        return [run for seed, runs in self._found.items() if seed is not None for run in runs]

    def settle(self, seed: int | None, wanted: str | None) -> MirroredRun | None:
        """The one run to go on with; every other one that stands for the same is deleted.

        Args:
            seed: Which child, or None for the parent.
            wanted: Digest of what it is to hold; None to take the parent as it is.

        Returns:
            A run with that digest, a parent whose content is still open, or None where one must be made.
        """
        runs = self._found.pop(seed, [])
        fitting = [run for run in runs if wanted is None or run.digest in (wanted, None)]
        kept = min(fitting, key=lambda run: (not run.closed, run.run_id), default=None)
        for run in runs:
            if run is not kept:
                self._client.delete_run(run.run_id)
        if kept is not None:
            self._found[seed] = [kept]
        return kept

    def create(
        self, seed: int | None, *, name: str, started_at: float, tags: Mapping[str, str]
    ) -> MirroredRun:
        """Makes a run, still open; `tags` holds `hkrun.digest` and the parent's, where known."""
        own = {"hkrun.cell_id": self._cell_id, "hkrun.kind": "cell" if seed is None else "run"}
        if seed is not None:
            own["hkrun.seed"] = str(seed)
        kept = {key: _text(value, TAG_LENGTH) for key, value in {**tags, **own}.items() if value}
        run = self._client.create_run(
            self._experiment_id,
            start_time=round(started_at * 1000),
            tags=kept,
            run_name=_text(name, RUN_NAME_LENGTH),
        )
        made = MirroredRun(
            run_id=run.info.run_id,
            seed=seed,
            digest=tags.get("hkrun.digest"),
            closed=False,
            parent_id=tags.get(PARENT_TAG),
        )
        self._found[seed] = [made]
        return made

    def write(
        self,
        run: MirroredRun,
        *,
        parameters: Mapping[str, object],
        points: Sequence[Point],
        finished: bool,
        ended_at: float,
    ) -> None:
        """Writes the whole content of a run and closes it; what MLflow has of it is not written twice."""
        from mlflow.entities import Param

        listed = [Param(key, text) for key, value in parameters.items() if (text := _parameter(value))]
        assert len(listed) <= PARAMETERS_PER_BATCH
        write_content(self._client, run.run_id, listed, points, progress=self._progress)
        status = "FINISHED" if finished else "FAILED"
        self._client.set_terminated(run.run_id, status=status, end_time=round(ended_at * 1000))
        run.closed = True
        self._progress()


def _parameter(value: object) -> str:
    return _text(value if isinstance(value, str) else json.dumps(value), PARAMETER_LENGTH)


def _text(text: str, length: int) -> str:
    """What every database takes: PostgreSQL refuses what is too long, and the character NUL."""
    return text[:length].replace("\0", "\N{REPLACEMENT CHARACTER}")
