"""The MLflow runs of one sweep's experiment: found by their tags, made once, replaced when outdated.

MLflow can add metrics to a run but not take any away. So a run whose content has changed (a failed run that
was repeated, a cell that got more seeds) is deleted, restorably, and made anew; one whose content is the same
is left alone, or finished where an earlier attempt broke off.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Protocol, TypeVar

from hkrun.tracking.connection import is_server
from hkrun.tracking.content import (
    CELL_TAG,
    DIGEST_TAG,
    PARENT_TAG,
    POINTS_TAG,
    REPORT_TAG,
    SEED_TAG,
    MirroredCell,
    RunContent,
    begin_parent,
)
from hkrun.tracking.experiments import search_runs

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

Item = TypeVar("Item")
Result = TypeVar("Result")
ENTITIES_PER_BATCH = 1000  # metrics, parameters and tags together
CONNECTIONS = 4  # to a server, which answers several at a time
ENDED = ("FINISHED", "FAILED")


@dataclass
class MirroredRun:
    """An MLflow run of ours: the parent of a cell, or with a seed one of its children.

    Attributes:
        digest: Digest of what it holds or is about to hold; None where that is still open.
        closed: Whether everything of that digest has been written.
        points: Which points of its curves it has, in words; None where it has all.
        report: Digest of the report files it carries.
        artifacts: Where they are, as a URI.
    """

    run_id: str
    seed: int | None
    digest: str | None
    closed: bool
    parent_id: str | None = None
    points: str | None = None
    report: str | None = None
    artifacts: str = ""


class RunWriter(Protocol):
    """Finds and writes the runs of one experiment, through MLflow's client or in its tables."""

    def find(self, cell_id: str) -> list[MirroredRun]:
        """The active runs of a cell."""
        ...

    def write(self, contents: Sequence[RunContent]) -> list[MirroredRun]:
        """Makes these runs, or completes those that are there: nothing is there twice."""
        ...

    def set_tag(self, run_ids: Sequence[str], key: str, value: str) -> None:
        """Gives runs the same tag."""
        ...

    def delete(self, run_id: str) -> None:
        """Puts a run into MLflow's trash."""
        ...


class ClientRuns:
    """Through MLflow's client, as a server and any database take it: a few runs at a time, in batches.

    A run is open until it has everything. `progress` is called after each batch, to show that MLflow answers.
    """

    def __init__(self, client: "MlflowClient", experiment_id: str, *, progress: Callable[[], None]) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._progress = progress
        self._connections = CONNECTIONS if is_server(client.tracking_uri) else 1

    def find(self, cell_id: str) -> list[MirroredRun]:
        """The active runs of a cell."""
        found = search_runs(self._client, [self._experiment_id], f"tags.`{CELL_TAG}` = '{cell_id}'")
        return [
            read_run(run.info.run_id, run.info.status, run.info.artifact_uri, run.data.tags) for run in found
        ]

    def write(self, contents: Sequence[RunContent]) -> list[MirroredRun]:
        """See `RunWriter`."""
        return _at_once(self._connections, self._write, contents)

    def _write(self, content: RunContent) -> MirroredRun:
        from mlflow.entities import Metric, Param, RunTag

        tags, run_id = [RunTag(key, value) for key, value in content.tags.items()], content.run_id
        if run_id is None:
            run = self._client.create_run(
                self._experiment_id,
                start_time=round(content.started_at * 1000),
                tags=dict(content.tags),
                run_name=content.name,
            )
            run_id, tags = run.info.run_id, []
        metrics = [Metric(*point) for points in content.points for point in points.each()]
        parameters = [Param(key, value) for key, value in content.parameters.items()]
        first = ENTITIES_PER_BATCH - len(parameters)
        self._client.log_batch(run_id, params=parameters, metrics=metrics[:first], synchronous=True)
        for start in range(first, len(metrics), ENTITIES_PER_BATCH):
            self._progress()
            batch = metrics[start : start + ENTITIES_PER_BATCH]
            self._client.log_batch(run_id, metrics=batch, synchronous=True)
        if tags:  # last: they say what the run has
            self._client.log_batch(run_id, tags=tags, synchronous=True)
        if content.ended_at is not None:
            self._client.set_terminated(
                run_id, status=content.status, end_time=round(content.ended_at * 1000)
            )
        self._progress()
        return read_run(run_id, content.status, "", content.tags)

    def set_tag(self, run_ids: Sequence[str], key: str, value: str) -> None:
        """Gives runs the same tag."""
        _at_once(self._connections, lambda run_id: self._client.set_tag(run_id, key, value), run_ids)

    def delete(self, run_id: str) -> None:
        """Puts a run into MLflow's trash."""
        self._client.delete_run(run_id)


def read_run(run_id: str, status: str, artifacts: str, tags: Mapping[str, str]) -> MirroredRun:
    """An MLflow run of ours, by its tags."""
    return MirroredRun(
        run_id=run_id,
        seed=int(tags[SEED_TAG]) if SEED_TAG in tags else None,
        digest=tags.get(DIGEST_TAG),
        closed=status in ENDED,
        parent_id=tags.get(PARENT_TAG),
        points=tags.get(POINTS_TAG),
        report=tags.get(REPORT_TAG),
        artifacts=artifacts,
    )


def _at_once(number: int, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Does the work on each item, on so many at once; after a failure or Ctrl-C none is begun any more.

    In threads of their own: those of a pool would hold up the end of the process until a server that has
    fallen silent answers.
    """
    if number == 1 or len(items) < 2:
        return [work(item) for item in items]
    waiting = list(enumerate(items))[::-1]
    done: dict[int, Result] = {}
    failures: list[Exception] = []

    def take() -> None:
        while not failures:
            try:
                place, item = waiting.pop()
            except IndexError:
                return
            try:
                done[place] = work(item)
            except Exception as error:
                failures.append(error)

    threads = [Thread(target=take, name="hkrun-mlflow-write", daemon=True) for _ in range(number)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        waiting.clear()
    if failures:
        raise failures[0]
    return [done[place] for place in range(len(items))]


class CellRuns:
    """The runs of one cell in one experiment: the parent, and a child per seed."""

    def __init__(self, writer: RunWriter, cell: MirroredCell) -> None:
        self._writer = writer
        self._cell = cell
        self._found: dict[int | None, list[MirroredRun]] = {}
        for run in writer.find(cell.cell_id):
            self._found.setdefault(run.seed, []).append(run)

    def children(self) -> list[MirroredRun]:
        """The runs of seeds."""
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
                self._writer.delete(run.run_id)
        if kept is not None:
            self._found[seed] = [kept]
        return kept

    def parent(self, started_at: float) -> MirroredRun:
        """The parent, begun where there is none; `started_at` is Unix time in seconds."""
        return self.settle(None, None) or self.write([begin_parent(self._cell, started_at)])[0]

    def write(self, contents: Sequence[RunContent]) -> list[MirroredRun]:
        """Makes or completes runs of the cell."""
        written = self._writer.write(contents)
        for run in written:
            self._found[run.seed] = [run]
        return written

    def adopt(self, parent: MirroredRun) -> None:
        """Puts all children below the parent."""
        strays = [child for child in self.children() if child.parent_id != parent.run_id]
        if strays:
            self._writer.set_tag([child.run_id for child in strays], PARENT_TAG, parent.run_id)
        for child in strays:
            child.parent_id = parent.run_id
