"""Runs as rows of MLflow's tables, where MLflow is a database: through its own engine and models.

MLflow's client takes a second for the 8,400 points of 600 epochs: it makes an object of each and looks for
the latest of each batch. As rows, many runs in a transaction, that takes a tenth at most, and a run is there
whole or not at all. The tables must be those that this module knows, column for column, as MLflow's models
declare them and MLflow compares them with the database. Where they are not, and in databases not tried, its
client does it.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from hkrun.tracking.content import (
    CELL_TAG,
    DIGEST_TAG,
    PARENT_TAG,
    POINTS_TAG,
    REPORT_TAG,
    SEED_TAG,
    RunContent,
)
from hkrun.tracking.points import Point, Points
from hkrun.tracking.runs import ClientRuns, MirroredRun, RunWriter, read_run

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from sqlalchemy.orm import Session

Row = tuple[Any, ...]
_DATABASES = ("sqlite", "postgresql")
_VALUE = ("run_uuid", "key", "value")
_POINT = ("run_uuid", "key", "value", "timestamp", "step", "is_nan")
_RUN = (
    *("run_uuid", "name", "experiment_id", "artifact_uri", "user_id", "source_type", "source_name"),
    *("source_version", "entry_point_name", "status", "start_time", "end_time", "lifecycle_stage"),
    "deleted_time",
)
# In the order in which rows are made of them.
_COLUMNS = {"runs": _RUN, "tags": _VALUE, "params": _VALUE, "metrics": _POINT, "latest_metrics": _POINT}
_CACHE_KIB = (
    32 * 1024
)  # for a transaction's pages: with SQLite's own 2 MB it writes and reads them several times
_IDS_PER_QUESTION = 500
_KEPT_TAGS = (CELL_TAG, SEED_TAG, DIGEST_TAG, PARENT_TAG, POINTS_TAG, REPORT_TAG)


def open_runs(client: "MlflowClient", experiment_id: str, *, progress: Callable[[], None]) -> RunWriter:
    """The runs of an experiment, written the fastest way that its MLflow allows."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store: Any = client._tracking_client.store
    if type(store) is SqlAlchemyStore and store.db_type in _DATABASES and _knows_tables():
        return DatabaseRuns(store, experiment_id, progress=progress)
    return ClientRuns(client, experiment_id, progress=progress)


def _knows_tables() -> bool:
    tables = _tables()
    return all({column.name for column in tables[name].columns} == {*_COLUMNS[name]} for name in _COLUMNS)


def _tables() -> Mapping[str, Any]:
    from mlflow.store.tracking.dbmodels.models import SqlRun

    tables: Mapping[str, Any] = SqlRun.metadata.tables
    return tables


class DatabaseRuns:
    """The runs of an experiment in MLflow's tables. `progress` is called after each transaction."""

    def __init__(self, store: Any, experiment_id: str, *, progress: Callable[[], None]) -> None:
        self._store = store
        self._experiment_id = int(experiment_id)
        self._artifacts = self._store.get_experiment(experiment_id).artifact_location
        self._progress = progress
        self._found: dict[str, list[MirroredRun]] | None = None

    def find(self, cell_id: str) -> list[MirroredRun]:
        """The active runs of a cell."""
        if self._found is None:
            self._found = self._find_all()
        return self._found.pop(cell_id, [])

    def _find_all(self) -> dict[str, list[MirroredRun]]:
        """The active runs by cell. One question for all: a cell at a time would read all tags for each."""
        from sqlalchemy import select

        runs, tags = _tables()["runs"].c, _tables()["tags"].c
        here = (runs.experiment_id == self._experiment_id, runs.lifecycle_stage == "active")
        tags_of: dict[str, dict[str, str]] = defaultdict(dict)
        found: dict[str, list[MirroredRun]] = defaultdict(list)
        with self._store.ManagedSessionMaker() as session:
            for name in _COLUMNS:  # one that is not there is to be known before anything is changed
                session.execute(select(_tables()[name]).limit(0))
            chosen = select(tags.run_uuid, tags.key, tags.value).join_from(
                _tables()["runs"], _tables()["tags"], runs.run_uuid == tags.run_uuid
            )
            for run_id, key, value in session.execute(chosen.where(*here, tags.key.in_(_KEPT_TAGS))):
                tags_of[run_id][key] = value
            listed = select(runs.run_uuid, runs.status, runs.artifact_uri).where(*here)
            for run_id, status, artifacts in session.execute(listed):
                if CELL_TAG in (own := tags_of[run_id]):
                    found[own[CELL_TAG]].append(read_run(run_id, status, artifacts, own))
        return found

    def write(self, contents: Sequence[RunContent]) -> list[MirroredRun]:
        """See `RunWriter`."""
        rows: dict[str, list[Row]] = defaultdict(list)
        written = []
        with self._store.ManagedSessionMaker(read_only=False) as session:
            _widen_cache(session)
            for content in contents:
                there: set[Point] = set()
                if content.run_id is None:
                    run_id, tags = uuid4().hex, {"mlflow.runName": content.name, **content.tags}
                    rows["runs"].append(self._run_row(run_id, content))
                else:
                    run_id, tags = content.run_id, dict(content.tags)
                    there = _make_room(session, run_id, content)
                rows["tags"] += zip(repeat(run_id), tags.keys(), tags.values())
                rows["params"] += zip(repeat(run_id), content.parameters.keys(), content.parameters.values())
                for points in content.points:
                    rows["metrics"] += _point_rows(run_id, points, there)
                rows["latest_metrics"] += _latest_rows(run_id, content.points, there)
                written.append(read_run(run_id, content.status, "", content.tags))
            for table in _COLUMNS:
                if rows[table]:
                    _insert(session, table, rows[table])
        self._progress()
        return written

    def _run_row(self, run_id: str, content: RunContent) -> Row:
        """As MLflow's client has it made."""
        from mlflow.utils.uri import append_to_uri_path

        return (
            *(run_id, content.name, self._experiment_id),
            append_to_uri_path(self._artifacts, run_id, "artifacts"),  # type: ignore[no-untyped-call]
            *("unknown", "UNKNOWN", "", "", "", content.status),
            round(content.started_at * 1000),
            None if content.ended_at is None else round(content.ended_at * 1000),
            *("active", None),
        )

    def set_tag(self, run_ids: Sequence[str], key: str, value: str) -> None:
        """Gives runs the same tag."""
        tags = _tables()["tags"]
        with self._store.ManagedSessionMaker(read_only=False) as session:
            for start in range(0, len(run_ids), _IDS_PER_QUESTION):
                some = run_ids[start : start + _IDS_PER_QUESTION]
                session.execute(tags.delete().where(tags.c.run_uuid.in_(some), tags.c.key == key))
                session.execute(
                    tags.insert(), [{"run_uuid": run_id, "key": key, "value": value} for run_id in some]
                )

    def delete(self, run_id: str) -> None:
        """Puts a run into MLflow's trash."""
        self._store.delete_run(run_id)


def _make_room(session: "Session", run_id: str, content: RunContent) -> set[Point]:
    """Ends a run, and takes what it has of its content, but for the points of its metrics, which it returns.

    What others have added to it stays.
    """
    from sqlalchemy import select

    runs = _tables()["runs"]
    ended = None if content.ended_at is None else round(content.ended_at * 1000)
    session.execute(
        runs.update().where(runs.c.run_uuid == run_id).values(status=content.status, end_time=ended)
    )
    names = {points.name for points in content.points}
    for name, keys in (("tags", content.tags), ("params", content.parameters), ("latest_metrics", names)):
        table = _tables()[name]
        session.execute(table.delete().where(table.c.run_uuid == run_id, table.c.key.in_(keys)))
    points = _tables()["metrics"].c
    chosen = select(points.key, points.value, points.timestamp, points.step)
    there = session.execute(chosen.where(points.run_uuid == run_id, points.key.in_(names)))
    return {Point(*row) for row in there}


def _widen_cache(session: "Session") -> None:
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA cache_size = -{_CACHE_KIB}")


def _insert(session: "Session", name: str, rows: Sequence[Row]) -> None:
    """Adds rows to a table; to SQLite's as they are: in SQLAlchemy's form they take twice the time."""
    columns = _COLUMNS[name]
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        places = ", ".join("?" for _ in columns)
        listed = ", ".join(f'"{column}"' for column in columns)
        statement = f'INSERT INTO "{name}" ({listed}) VALUES ({places})'  # noqa: S608 - names of our own
        connection.exec_driver_sql(statement, rows)
    else:
        session.execute(_tables()[name].insert(), [dict(zip(columns, row, strict=True)) for row in rows])


def _point_rows(run_id: str, points: Points, there: Collection[Point]) -> Iterable[Row]:
    """The rows of those points that are not there."""
    each = (points.values, points.times_ms, points.steps)
    rows = dict.fromkeys(zip(repeat(run_id), repeat(points.name), *each, repeat(False)))
    return [row for row in rows if row[1:5] not in there] if there else rows


def _latest_rows(run_id: str, content: Iterable[Points], there: Iterable[Point]) -> Iterator[Row]:
    """The row of the last point of each metric, as MLflow tells it."""
    known: dict[str, list[Point]] = defaultdict(list)
    for point in there:
        known[point.name].append(point)
    for points in content:
        step, time, value = max(zip(points.steps, points.times_ms, points.values, strict=True))
        candidates = [*known[points.name], Point(points.name, value, time, step)]
        last = max(candidates, key=lambda point: (point.step, point.time_ms))
        yield (run_id, *last, False)
