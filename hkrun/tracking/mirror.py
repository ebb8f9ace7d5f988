"""A sweep's records into its MLflow experiment. Doing it again adds nothing.

Every metric carries the time the record stores for it, never the time of writing: MLflow takes the same point
at the same time for one.
"""

import dataclasses
import hashlib
import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard, TypeVar

import pyarrow as pa

from hkrun.config import canonical, cell_id
from hkrun.errors import StoreError
from hkrun.spaces import Sweep, name_cells
from hkrun.store import NotCommittedError, Record, Store
from hkrun.tracking.connection import URI_VARIABLE, connect, explained, is_own, resolve_uri
from hkrun.tracking.database import (
    DamagedDatabaseError,
    check_whole,
    database_path,
    file_number,
    put_aside,
)
from hkrun.tracking.experiments import open_experiment
from hkrun.tracking.receipt import Summaries, describe_content, keep_receipt
from hkrun.tracking.runs import FORMAT, PARENT_TAG, CellRuns, MirroredRun, Point, digest
from hkrun.tracking.view import (
    CELL_PARAMETER,
    ERROR_METRIC,
    RUNS_PER_PAGE,
    SHOWN_TAG,
    Links,
    find_links,
    save_views,
)

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class MirroredCell:
    """A configuration of the sweep; two names of the same one are one cell.

    Attributes:
        name: With short keys, as tables call it.
        axes: The values of its axes by short key, which are columns of MLflow's lists.
        parameters: All that a run of it has as parameters, these among them.
    """

    cell_id: str
    name: str
    axes: Mapping[str, str]
    parameters: Mapping[str, object]


def cells_of(sweep: Sweep, *, world_size: int) -> list[MirroredCell]:
    """The distinct configurations of a sweep, in its order."""
    found: dict[str, MirroredCell] = {}
    called = name_cells(sweep.cells)
    for named in sweep.cells:
        identity = cell_id(named.cell, world_size=world_size)
        name, axes = called.labels[named.name], called.points[named.name]
        if (other := found.get(identity)) is not None:
            name, axes = f"{other.name} = {name}", {**axes, **other.axes}
        parameters = {CELL_PARAMETER: name, **axes, **canonical(named.cell, world_size=world_size)}
        found[identity] = MirroredCell(cell_id=identity, name=name, axes=axes, parameters=parameters)
    return list(found.values())


def sync(
    sweep: Sweep,
    store: Store,
    *,
    summaries: Summaries,
    files: Mapping[str, bytes],
    world_size: int = 1,
) -> Links:
    """Puts everything that MLflow lacks of a sweep there; run twice, the second time adds nothing.

    `summaries` are metrics of the parents by cell_id: error_last, error_best, stability, s2, mean_range; None
    or what is not finite is left out. Every parent carries `files`, the report. `world_size` processes train
    one run, where that is part of the cell.

    Raises:
        StoreError: MLflow cannot be reached, or the store cannot be read.
        InputError: MLFLOW_TRACKING_URI cannot be used.
    """
    experiment = Experiment(sweep, store, world_size=world_size, thorough=True)
    return experiment.complete(summaries=summaries, files=files)


class Experiment:
    """The experiment of one sweep, open for writing by this process alone.

    `progress` is called whenever MLflow has taken something, to show that it answers. `thorough` reads the
    whole database first, where it is a SQLite file: what is damaged shows only when it is read.

    Raises:
        StoreError: MLflow cannot be reached.
        InputError: MLFLOW_TRACKING_URI cannot be used.
    """

    def __init__(
        self,
        sweep: Sweep,
        store: Store,
        *,
        world_size: int = 1,
        progress: Callable[[], None] = lambda: None,
        thorough: bool = False,
    ) -> None:
        self._sweep = sweep
        self._store = store
        self._world_size = world_size
        self._progress = progress
        self._thorough = thorough
        self._uri = resolve_uri(store)
        self._cells = {cell.cell_id: cell for cell in cells_of(sweep, world_size=world_size)}
        self._runs: dict[str, CellRuns] = {}
        self._in_sound_database(self._open)

    def _open(self) -> None:
        path = database_path(self._uri)
        self._file = None if path is None else file_number(path)
        self._runs.clear()
        self._client = connect(self._uri)
        with explained(self._uri):
            if path is not None and self._thorough:
                check_whole(path)
            self._experiment_id = open_experiment(
                self._client, self._store, self._sweep, uri=self._uri, cell_ids=self._cells
            )

    def _in_sound_database(self, work: Callable[[], Result]) -> Result:
        """Does the work; where the database turns out to be damaged, once more in a new one.

        The damaged file is kept under another name. One that MLFLOW_TRACKING_URI names stays as it is: it may
        hold more than this mirror.
        """
        try:
            return work()
        except DamagedDatabaseError as error:
            path = database_path(self._uri)
            if path is None or not is_own(self._store, self._uri):
                raise StoreError(
                    f"{error.message}; {URI_VARIABLE} names it: move it away, or name another"
                ) from error
            put_aside(path, self._file, error.message)
            self._open()
            return work()

    def add(self, cell_id: str, seed: int) -> None:
        """Mirrors one run of the store, if it has a record."""
        record = self._store.record(cell_id, seed)
        if record is not None:
            self._in_sound_database(lambda: self._mirror(record))

    def _mirror(self, record: Record) -> None:
        with explained(self._uri):
            self._add(self._cells[record.cell_id], record)

    def complete(self, *, summaries: Summaries, files: Mapping[str, bytes]) -> Links:
        """Mirrors what is still missing, then summaries, report and the comparison view; see `sync`."""
        return self._in_sound_database(lambda: self._complete(summaries, files))

    def _complete(self, summaries: Summaries, files: Mapping[str, bytes]) -> Links:
        content = describe_content(
            self._sweep, self._store, summaries=summaries, files=files, world_size=self._world_size
        )
        seeds = frozenset(self._sweep.seeds)
        parents: list[MirroredRun] = []
        finished: list[tuple[Record, MirroredRun]] = []
        for cell in self._cells.values():
            found = self._store.records(cell.cell_id)
            records = [record for record in found if record.seed in seeds]
            if not records:
                continue
            with explained(self._uri):
                children = [self._add(cell, record) for record in records]
                parents.append(self._summarise(cell, records, summaries.get(cell.cell_id, {})))
                self._adopt(cell, parents[-1])
                self._attach(parents[-1], files)
            finished += [pair for pair in zip(records, children, strict=True) if pair[0].status == "finished"]
        with explained(self._uri):
            save_views(
                self._client,
                self._experiment_id,
                sweep=self._sweep,
                names=[cell.name for cell in self._cells.values()],
                parents=[parent.run_id for parent in parents],
                finished=[(record, run.run_id) for record, run in finished],
            )
            links = find_links(self._client, self._uri, self._experiment_id)
        keep_receipt(self._sweep, self._store, links, uri=self._uri, content=content)
        return links

    def _runs_of(self, cell: MirroredCell) -> CellRuns:
        if cell.cell_id not in self._runs:
            self._runs[cell.cell_id] = CellRuns(
                self._client, self._experiment_id, cell.cell_id, progress=self._progress
            )
        return self._runs[cell.cell_id]

    def _add(self, cell: MirroredCell, record: Record) -> MirroredRun:
        runs = self._runs_of(cell)
        content = _run_digest(cell, record)
        run = runs.settle(record.seed, content)
        if run is not None and run.closed:
            return run
        points, left_out = self._curve_points(record)
        if run is None:
            parent = runs.settle(None, None) or runs.create(
                None, name=cell.name, started_at=record.started_at, tags={}
            )
            tags = _run_tags(record) | {PARENT_TAG: parent.run_id, "hkrun.digest": content}
            tags["hkrun.not_finite"] = ", ".join(left_out)
            if record.status == "finished" and len(self._cells) * len(self._sweep.seeds) <= RUNS_PER_PAGE:
                tags[SHOWN_TAG] = "yes"  # what the view will ask for anyway, without a call of its own
            name = f"{cell.name} seed {record.seed}"
            run = runs.create(record.seed, name=name, started_at=record.started_at, tags=tags)
        runs.write(
            run,
            parameters={**cell.parameters, "seed": record.seed},
            points=points,
            finished=record.status == "finished",
            ended_at=_ended_at(record),
        )
        return run

    def _curves(self, record: Record) -> pa.Table | None:
        try:
            return self._store.curves(record.cell_id, record.seed)
        except NotCommittedError:
            return None  # it completed no epoch

    def _curve_points(self, record: Record) -> tuple[list[Point], list[str]]:
        """Every finite point of every curve, with its stored time; and in words, which points were left out.

        MLflow would keep an infinity as the largest number there is, and a NaN as a zero with a mark.
        """
        points: list[Point] = []
        left_out: list[str] = []
        curves = self._curves(record)
        if curves is not None:
            epochs = curves["epoch"].to_pylist()
            times = _end_times(record, curves)
            for name in curves.column_names:
                if name == "epoch" or curves[name].null_count == len(curves):
                    continue
                values = curves[name].to_pylist()
                there = zip(epochs, values, strict=True)
                odd = [epoch for epoch, value in there if value is not None and not _finite(value)]
                points += [
                    Point(name, value, time, epoch)
                    for value, time, epoch in zip(values, times, epochs, strict=True)
                    if _finite(value)
                ]
                if odd:
                    left_out.append(f"{name}: {len(odd)} from epoch {odd[0]}")
        single = {"error_last": record.error_last_pct, "error_best": record.error_best_pct}
        points += _single_points(single, _ended_at(record))
        return points, left_out

    def _summarise(
        self, cell: MirroredCell, records: Sequence[Record], summary: Mapping[str, float | None]
    ) -> MirroredRun:
        runs = self._runs_of(cell)
        numbers = {name: float(value) for name, value in sorted(summary.items()) if _finite(value)}
        content = digest([_run_digest(cell, record) for record in records] + [numbers])
        parent = runs.settle(None, content)
        if parent is not None and parent.closed:
            return parent
        started, ended = min(r.started_at for r in records), max(_ended_at(r) for r in records)
        if parent is None:
            tags = {"hkrun.digest": content}
            parent = runs.create(None, name=cell.name, started_at=started, tags=tags)
        counts = {
            f"hkrun.{status}": " ".join(str(r.seed) for r in records if r.status == status)
            for status in ("finished", "diverged", "failed")
        }
        sources = [_source_tags(record.versions) for record in records]
        shared = sources[0] if all(source == sources[0] for source in sources) else {}
        for key, value in {"hkrun.digest": content, **counts, **shared}.items():
            self._client.set_tag(parent.run_id, key, value)
        runs.write(
            parent,
            parameters=cell.parameters,
            points=self._mean_curve(records) + _single_points(numbers, ended),
            finished=any(record.status == "finished" for record in records),
            ended_at=ended,
        )
        return parent

    def _mean_curve(self, records: Sequence[Record]) -> list[Point]:
        """Test error per epoch, the mean over finished runs: one line per cell for any number of seeds."""
        sums: dict[int, float] = {}
        latest: dict[int, int] = {}
        finished = [record for record in records if record.status == "finished"]
        for record in finished:
            curves = self._curves(record)
            if curves is None or ERROR_METRIC not in curves.column_names:
                return []
            times = _end_times(record, curves)
            errors = curves[ERROR_METRIC].to_pylist()
            for epoch, time, error in zip(curves["epoch"].to_pylist(), times, errors, strict=True):
                sums[epoch] = sums.get(epoch, 0.0) + (math.nan if error is None else error)
                latest[epoch] = max(latest.get(epoch, 0), time)
        means = {epoch: total / len(finished) for epoch, total in sums.items()}
        return [
            Point(ERROR_METRIC, mean, latest[epoch], epoch) for epoch, mean in means.items() if _finite(mean)
        ]

    def _adopt(self, cell: MirroredCell, parent: MirroredRun) -> None:
        for child in self._runs_of(cell).children():
            if child.parent_id != parent.run_id:
                self._client.set_tag(child.run_id, PARENT_TAG, parent.run_id)
                child.parent_id = parent.run_id

    def _attach(self, parent: MirroredRun, files: Mapping[str, bytes]) -> None:
        """Uploads the report where it differs from what the parent carries, or is not where MLflow looks."""
        content = digest({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
        if not files or (parent.report == content and self._has_report(parent, files)):
            return
        with tempfile.TemporaryDirectory(prefix="hkrun-") as folder:
            for name, data in files.items():
                (Path(folder) / name).write_bytes(data)
            self._client.log_artifacts(parent.run_id, folder, "report")
        self._client.set_tag(parent.run_id, "hkrun.report", content)
        parent.report = content
        self._progress()

    def _has_report(self, parent: MirroredRun, files: Mapping[str, bytes]) -> bool:
        found = self._client.list_artifacts(parent.run_id, "report")
        return {f"report/{name}" for name in files} <= {file.path for file in found}


def _run_digest(cell: MirroredCell, record: Record) -> str:
    return digest([FORMAT, cell.name, *([dict(cell.axes)] if cell.axes else []), dataclasses.asdict(record)])


def _run_tags(record: Record) -> dict[str, str]:
    """What a child tells besides its curves; the rest is in the store's record."""
    tags = {
        "hkrun.status": record.status,
        "hkrun.epochs": str(record.epochs),
        "hkrun.device": record.device,
        "hkrun.world_size": str(record.world_size),
        "hkrun.teacher_id": record.teacher_id or "",
        "hkrun.teacher_hash": record.teacher_hash or "",
        "hkrun.alarms": "\n".join(record.alarms),
        "hkrun.numbers": record.code.numbers,
        "hkrun.source": record.code.source,
        **_source_tags(record.versions),
    }
    if record.diverged_epoch is not None:
        tags["hkrun.diverged_epoch"] = str(record.diverged_epoch)
    if record.traceback:
        lines = record.traceback.strip()
        tags["hkrun.error"] = lines.splitlines()[-1]
        tags["mlflow.note.content"] = f"```\n{lines[-4000:]}\n```"
    return tags


def _source_tags(versions: Mapping[str, str]) -> dict[str, str]:
    """What MLflow shows as a run's source: hkrun, and the commit that it ran from."""
    if "hkrun" not in versions:
        return {}
    label = versions.get("code", "")
    commit, _, changed = label.partition("+")
    is_commit = re.fullmatch(r"[0-9a-f]{12}", commit) is not None  # else: not from a repository
    return {
        "mlflow.source.name": f"hkrun {versions['hkrun']}{', changed since the commit' if changed else ''}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit if is_commit else "",
        "hkrun.code": label,
    }


def _single_points(numbers: Mapping[str, float | None], time: float) -> list[Point]:
    return [Point(name, value, round(time * 1000), 0) for name, value in numbers.items() if _finite(value)]


def _end_times(record: Record, curves: pa.Table) -> list[int]:
    """When each epoch ended by the record, Unix time in milliseconds, shape [epochs]."""
    times, elapsed = [], 0.0
    for seconds in curves["seconds"].to_pylist() if "seconds" in curves.column_names else [0.0] * len(curves):
        elapsed += seconds if _finite(seconds) else 0.0
        times.append(round((record.started_at + elapsed) * 1000))
    return times


def _ended_at(record: Record) -> float:
    return record.started_at + record.timings.get("total", 0.0)


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
