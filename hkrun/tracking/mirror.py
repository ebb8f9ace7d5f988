"""A sweep's records into its MLflow experiment. Doing it again adds nothing.

Every metric carries the time the record stores for it, never the time of writing: MLflow takes the same point
at the same time for one.
"""

import contextlib
import gc
import hashlib
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from hkrun.errors import StoreError
from hkrun.records import Record
from hkrun.spaces import Sweep
from hkrun.store import NotCommittedError, Store
from hkrun.tracking.connection import URI_VARIABLE, connect, explained, is_own, resolve_uri
from hkrun.tracking.content import (
    DIGEST_TAG,
    PARENT_TAG,
    POINTS_TAG,
    REPORT_TAG,
    MirroredCell,
    RunContent,
    cell_tags,
    cells_of,
    digest,
    ended_at,
    run_digest,
    run_tags,
    whole_run,
)
from hkrun.tracking.database import (
    DamagedDatabaseError,
    check_whole,
    database_path,
    file_number,
    put_aside,
)
from hkrun.tracking.experiments import open_experiment
from hkrun.tracking.points import ERROR_METRIC, Density, MeanCurve, Points, curve_points, single_points
from hkrun.tracking.receipt import Summaries, describe_content, is_checked, keep_receipt
from hkrun.tracking.runs import CellRuns, MirroredRun
from hkrun.tracking.tables import open_runs
from hkrun.tracking.view import RUNS_PER_PAGE, SHOWN_TAG, Links, find_links, save_views

Result = TypeVar("Result")
Records = Mapping[str, Sequence[Record]]
# Written together: into a SQLite file so many points, with the rest of the last run's, in a transaction of
# 20 MB; elsewhere so many runs, in a transaction or shared by the connections to a server, for which the end
# of a sweep has less patience.
POINTS_PER_BATCH = 100_000
RUNS_PER_BATCH = 20


@dataclass(frozen=True, kw_only=True)
class Mirrored:
    """What MLflow has of a sweep.

    Attributes:
        links: Where to look at it.
        runs: How many runs of seeds.
        denser: How many of these have more points of their curves than they would get today, by `every` or
            by an earlier version of hkrun.
    """

    links: Links
    runs: int
    denser: int


def sync(
    sweep: Sweep,
    store: Store,
    *,
    summaries: Summaries,
    files: Mapping[str, bytes],
    records: Records | None = None,
    world_size: int = 1,
    every: int | None = None,
) -> Mirrored:
    """Puts everything that MLflow lacks of a sweep there; run twice, the second time adds nothing.

    `summaries` are metrics of the parents by cell_id: error_last, error_best, stability, s2, mean_range; None
    or what is not finite is left out. Every parent carries `files`, the report. `records` are those that the
    report was made of, by cell_id; without them they are read now. `world_size` processes train one run,
    where that is part of the cell. `every` asks for all curves, at every so-manieth epoch; runs that lack
    points of it get them, and none loses any.

    Raises:
        StoreError: MLflow cannot be reached, or the store cannot be read.
        InputError: MLFLOW_TRACKING_URI cannot be used.
    """
    experiment = Experiment(sweep, store, world_size=world_size, thorough=True, every=every)
    return experiment.complete(summaries=summaries, files=files, records=records)


class Experiment:
    """The experiment of one sweep, open for writing by this process alone.

    `progress` is called whenever MLflow has taken something, to show that it answers, and for each curve that
    is read, while MLflow is asked nothing. `thorough` reads the whole database first, where it is a SQLite
    file that has changed since: what is damaged shows only when it is read. `every` is that of `sync`.

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
        every: int | None = None,
    ) -> None:
        self._sweep = sweep
        self._store = store
        self._progress = progress
        self._thorough = thorough
        self._density = Density(every)
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
            self._checked = is_checked(self._sweep, self._store, uri=self._uri)
            if path is not None and self._thorough and not self._checked:
                check_whole(path)
                self._checked = True
            self._experiment_id = open_experiment(
                self._client, self._store, self._sweep, uri=self._uri, cell_ids=self._cells
            )
            self._writer = open_runs(self._client, self._experiment_id, progress=self._progress)

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
            cell = self._cells[record.cell_id]
            self._add(cell, [(record, run_digest(cell, record))], MeanCurve())

    def complete(
        self, *, summaries: Summaries, files: Mapping[str, bytes], records: Records | None = None
    ) -> Mirrored:
        """Mirrors what is still missing, then summaries, report and the comparison view; see `sync`."""
        with _collecting_what_is_new():
            return self._in_sound_database(lambda: self._complete(summaries, files, records))

    def _complete(self, summaries: Summaries, files: Mapping[str, bytes], known: Records | None) -> Mirrored:
        seeds = frozenset(self._sweep.seeds)
        parents: list[MirroredRun] = []
        finished: list[tuple[Record, str]] = []
        digests: list[str] = []
        points: list[str | None] = []
        for cell in self._cells.values():
            found = self._store.records(cell.cell_id) if known is None else known.get(cell.cell_id, ())
            records = [(record, run_digest(cell, record)) for record in found if record.seed in seeds]
            if not records:
                continue
            with explained(self._uri):
                mean = MeanCurve()
                children = self._add(cell, records, mean)
                parents.append(self._summarise(cell, records, summaries.get(cell.cell_id, {}), mean))
                self._runs_of(cell).adopt(parents[-1])
                self._attach(parents[-1], files)
            digests += [content for _, content in records]
            points += [child.points for child in children]
            ended = zip(records, children, strict=True)
            finished += [(record, run.run_id) for (record, _), run in ended if record.status == "finished"]
        with explained(self._uri):
            save_views(
                self._client,
                self._experiment_id,
                sweep=self._sweep,
                names=[cell.name for cell in self._cells.values()],
                parents=[parent.run_id for parent in parents],
                finished=finished,
            )
            links = find_links(self._client, self._uri, self._experiment_id)
        content = describe_content(self._sweep, digests, summaries=summaries, files=files)
        keep_receipt(self._sweep, self._store, links, uri=self._uri, content=content, checked=self._checked)
        denser = sum(described != str(Density()) for described in points)
        return Mirrored(links=links, runs=len(points), denser=denser)

    def _runs_of(self, cell: MirroredCell) -> CellRuns:
        if cell.cell_id not in self._runs:
            self._runs[cell.cell_id] = CellRuns(self._writer, cell)
        return self._runs[cell.cell_id]

    def _add(
        self, cell: MirroredCell, records: Sequence[tuple[Record, str]], mean: MeanCurve
    ) -> list[MirroredRun]:
        """The MLflow runs of these records, given with their digests, once they have everything.

        The curves that are read for that, of finished runs, go into `mean`, too.
        """
        runs = self._runs_of(cell)
        found: dict[int, MirroredRun] = {}
        lacking: list[tuple[Record, str, str | None]] = []
        for record, content in records:
            run = runs.settle(record.seed, content)
            if run is not None and run.closed and self._density.covers(run.points):
                found[record.seed] = run
            else:
                lacking.append((record, content, None if run is None else run.run_id))
        if lacking:
            parent = runs.parent(records[0][0].started_at)
            contents = (self._content(cell, *each, parent=parent, mean=mean) for each in lacking)
            for batch in _in_batches(contents, into_file=database_path(self._uri) is not None):
                found |= {run.seed: run for run in runs.write(batch) if run.seed is not None}
        return [found[record.seed] for record, _ in records]

    def _content(
        self,
        cell: MirroredCell,
        record: Record,
        content: str,
        run_id: str | None,
        *,
        parent: MirroredRun,
        mean: MeanCurve,
    ) -> RunContent:
        points: list[Points] = []
        left_out: list[str] = []
        curves = self._curves(record)
        self._progress()
        if curves is not None:
            points, left_out = curve_points(record, curves, density=self._density, epochs=cell.epochs)
            if record.status == "finished":
                mean.add(record, curves)
        single = {"error_last": record.error_last_pct, "error_best": record.error_best_pct}
        tags = run_tags(record) | {
            PARENT_TAG: parent.run_id,
            DIGEST_TAG: content,
            POINTS_TAG: str(self._density),
            "hkrun.not_finite": ", ".join(left_out),
        }
        if record.status == "finished" and len(self._cells) * len(self._sweep.seeds) <= RUNS_PER_PAGE:
            tags[SHOWN_TAG] = "yes"  # what the view will ask for anyway, without a call of its own
        return whole_run(
            cell,
            record.seed,
            run_id=run_id,
            span=(record.started_at, ended_at(record)),
            finished=record.status == "finished",
            tags=tags,
            points=points + single_points(single, ended_at(record)),
        )

    def _curves(self, record: Record) -> pa.Table | None:
        try:
            return self._store.curves(record.cell_id, record.seed)
        except NotCommittedError:
            return None  # it completed no epoch

    def _summarise(
        self,
        cell: MirroredCell,
        records: Sequence[tuple[Record, str]],
        summary: Mapping[str, float | None],
        mean: MeanCurve,
    ) -> MirroredRun:
        """The parent of these runs, once it has everything; `mean` is taken where it is of all finished."""
        runs = self._runs_of(cell)
        numbers = {
            name: float(value)
            for name, value in sorted(summary.items())
            if value is not None and math.isfinite(value)
        }
        content = digest([run_content for _, run_content in records] + [numbers])
        parent = runs.settle(None, content)
        if parent is not None and parent.closed:
            return parent
        each = [record for record, _ in records]
        span = (min(r.started_at for r in each), max(ended_at(r) for r in each))
        ended = [record for record in each if record.status == "finished"]
        if mean.runs != len(ended):
            mean = self._read_mean(ended)
        return runs.write(
            [
                whole_run(
                    cell,
                    None,
                    run_id=None if parent is None else parent.run_id,
                    span=span,
                    finished=bool(ended),
                    tags={DIGEST_TAG: content, **cell_tags(each)},
                    points=mean.points() + single_points(numbers, span[1]),
                )
            ]
        )[0]

    def _read_mean(self, finished: Sequence[Record]) -> MeanCurve:
        mean = MeanCurve()
        places = [(record.cell_id, record.seed) for record in finished]
        columns = ("epoch", ERROR_METRIC, "seconds")
        for record, curves in zip(finished, self._store.each_curves(places, columns=columns), strict=True):
            mean.add(record, curves)
            self._progress()
        return mean

    def _attach(self, parent: MirroredRun, files: Mapping[str, bytes]) -> None:
        """Uploads the report where it differs from what the parent carries, or is not where MLflow looks."""
        content = digest({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
        if not files or (parent.report == content and self._has_report(parent, files)):
            return
        with tempfile.TemporaryDirectory(prefix="hkrun-") as folder:
            for name, data in files.items():
                (Path(folder) / name).write_bytes(data)
            self._client.log_artifacts(parent.run_id, folder, "report")
        self._client.set_tag(parent.run_id, REPORT_TAG, content)
        parent.report = content
        self._progress()

    def _has_report(self, parent: MirroredRun, files: Mapping[str, bytes]) -> bool:
        place = urlsplit(parent.artifacts)
        if place.scheme == "file":  # asked for at each of a thousand cells, MLflow would take seconds
            return all((Path(unquote(place.path)) / "report" / name).is_file() for name in files)
        found = self._client.list_artifacts(parent.run_id, "report")
        return {f"report/{name}" for name in files} <= {file.path for file in found}


@contextlib.contextmanager
def _collecting_what_is_new() -> Iterator[None]:
    """Within the block MLflow, which stays, is left out of collections of garbage: a sixth of a sync.

    So is everything else that is there when it begins. What of it dies meanwhile, a caller's figures or
    tensors in cycles, is collected afterwards. A process that has itself frozen what it has is left so.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _in_batches(contents: Iterable[RunContent], *, into_file: bool) -> Iterator[list[RunContent]]:
    """Runs in order, as many at a time as POINTS_PER_BATCH says for a file, and RUNS_PER_BATCH elsewhere."""
    batch: list[RunContent] = []
    number = 0
    for content in contents:
        batch.append(content)
        number += sum(len(points.values) for points in content.points)
        if number >= POINTS_PER_BATCH if into_file else len(batch) >= RUNS_PER_BATCH:
            yield batch
            batch, number = [], 0
    if batch:
        yield batch
