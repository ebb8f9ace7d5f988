"""hkrun's layout of cells, seeds, teachers and sweeps in committed folders."""

import contextlib
import functools
import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from hkrun.code_identity import Code
from hkrun.digests import short_digest
from hkrun.errors import NotFoundError, StoreError
from hkrun.records import DivergedTeacher, Record, TeacherRecord, from_json, teacher_from_json, to_json
from hkrun.store.cell_runs import CellRuns
from hkrun.store.collected import collected_folder
from hkrun.store.columns import from_parquet, tabulate, to_parquet
from hkrun.store.earlier import bring_back, find_own, read_earlier, stands
from hkrun.store.files import Files
from hkrun.store.holder import Holder, read_holder
from hkrun.store.lock import LOCK_FILE, Hold, hold_folder, hold_object
from hkrun.store.transactions import (
    MANIFEST,
    CommittedFolders,
    DamagedError,
    NotCommittedError,
    check_folder,
    check_name,
)

FORMAT = 1
STORE_FILE, CELL_FILE, RECORD_FILE, CURVES_FILE = "store.json", "cell.json", "record.json", "curves.parquet"
STUDENT_FILE, WEIGHTS_FILE, CHECKPOINTS = "student.pt", "weights.pt", "checkpoints"

log = logging.getLogger("hkrun")
_CHECKPOINT = re.compile(r"epoch-(\d+)\.pt")
S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R", bound=Record | TeacherRecord | DivergedTeacher)


@functools.cache
def _warn_once(message: str) -> None:
    """Tells of damage once in a process, however often the same file is read."""
    log.warning("%s", message)


_parse_run = functools.partial(from_json, Record)


def checkpoint_name(epoch: int) -> str:
    """The file name of the checkpoint after an epoch."""
    return f"epoch-{epoch:06d}.pt"


def read_epoch(name: str) -> int | None:
    """The epoch of the checkpoint that a file name stands for; None if it stands for none."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else None


class NoStoreError(NotFoundError):
    """There is no store at a place."""


class Store(CommittedFolders):
    """Every record of every run; open one with `open_store`.

    Attributes:
        uri: What other processes open it by: an absolute path, or the URI as it was given.
        place: How messages name it: the URI without its user, password and query.
        local_path: The folder, where the store is on a local disk.
    """

    def __init__(self, files: Files, *, uri: str, place: str, local_path: Path | None) -> None:
        super().__init__(files, place=place)
        self.uri = uri
        self.local_path = local_path
        self._holds: dict[str, Hold] = {}

    def __repr__(self) -> str:
        return f"Store({self.place})"

    def check_format(self, *, create: bool) -> None:
        """Reads the format version; writes it where the store is new and may be created."""
        text = self._files.get(STORE_FILE)
        if text is None:
            if not create:
                raise NoStoreError(f"{self.place}: there is no store")
            self._files.put("", {STORE_FILE: json.dumps({"format": FORMAT}).encode()})
            return
        try:
            version = json.loads(text)["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f'{self.place}/{STORE_FILE} is damaged: it must read {{"format": {FORMAT}}}'
            ) from error
        if version != FORMAT:
            raise StoreError(
                f"{self.place} is of store format {version}, and this hkrun knows {FORMAT}: "
                "use the hkrun that wrote it, or another store"
            )

    def put_cell(self, cell_id: str, canonical_json: str) -> None:
        """Keeps the canonical text of a cell, byte for byte: `sha256sum cell.json` starts with the cell's id.

        Raises:
            ValueError: The text is not the one that the id was made from.
        """
        content = canonical_json.encode()
        if short_digest(content) != cell_id:
            raise ValueError(f"the SHA-256 of the text does not start with {cell_id}")
        with contextlib.suppress(DamagedError, NotCommittedError):
            if self.read(f"cells/{cell_id}", CELL_FILE) == content:
                return
        self.commit(f"cells/{cell_id}", {CELL_FILE: content})

    def cell(self, cell_id: str) -> dict[str, Any]:
        """The canonical configuration of a cell, by dotted key."""
        form: dict[str, Any] = json.loads(self.read(f"cells/{check_name(cell_id)}", CELL_FILE))
        return form

    def run_folder(self, cell_id: str, seed: int) -> str:
        """Where a run is kept."""
        if seed < 0:
            raise ValueError(f"seed {seed} is negative")
        return f"cells/{check_name(cell_id)}/seeds/{int(seed)}"

    def put_run(
        self,
        record: Record,
        *,
        curves: pa.Table | None,
        student: bytes | None,
        keep_result: bool = False,
    ) -> None:
        """Commits a run in place of any earlier record of it, then removes its checkpoints.

        Those of a failed run stay, for the next try to go on from; unless it completed no epoch. `curves` has
        one row per epoch, None if it completed none: `epoch` becomes int32, the rest float64. With
        `keep_result` a result that is there stays, for another process was faster with the same run; unless
        it is of other code, which is kept beside it, see `earlier_runs`.

        Raises:
            StoreError: The place cannot be written; or, with `keep_result`, the store has by now another
                teacher than the one that the run learned from.
        """
        folder = self.run_folder(record.cell_id, record.seed)
        files = {RECORD_FILE: to_json(record)}
        if curves is not None:
            files[CURVES_FILE] = to_parquet(curves)
        if student is not None:
            files[STUDENT_FILE] = student
        if keep_result:
            self._check_teacher(record)
        self.commit(folder, files, unless=lambda: keep_result and self._result_stands(folder, record))
        if record.status != "failed" or not record.epochs:
            self.delete(f"{folder}/{CHECKPOINTS}")

    def _result_stands(self, folder: str, new: Record) -> bool:
        standing = self.record(new.cell_id, new.seed)
        failed = standing is not None and standing.status == "failed"
        return not failed and stands(self, folder, standing=standing, new=new)

    def _check_teacher(self, record: Record) -> None:
        if record.teacher_id is None or record.teacher_hash is None:
            return
        teacher = self.teacher(record.teacher_id)
        if teacher is not None and teacher.teacher_hash != record.teacher_hash:
            where = f"{self.place}/{self.teacher_folder(record.teacher_id)}"
            raise StoreError(
                f"{where} was replaced while seed {record.seed} of cell {record.cell_id} learned from it; "
                "run the same command again"
            )

    def record(self, cell_id: str, seed: int) -> Record | None:
        """The record of a run; None where there is none or it is damaged: it then counts as not done."""
        folder = self.run_folder(cell_id, seed)
        return self.read_run_record(cell_id, seed, self._files.sizes(folder))

    def cell_runs(self, cell_id: str) -> CellRuns:
        """The runs of a cell, as one listing finds them."""
        listed = self._files.states(f"cells/{check_name(cell_id)}/seeds")
        states = {int(seed): state for seed, state in listed.items() if seed.isdecimal()}
        return CellRuns(self, cell_id, states)

    def records(self, cell_id: str) -> list[Record]:
        """The records of a cell, by seed. A damaged one counts as not done, with a log line."""
        return self.cell_runs(cell_id).read_records()

    def read_run_record(self, cell_id: str, seed: int, sizes: Mapping[str, int]) -> Record | None:
        """The record of a run whose folder a listing showed with these sizes; as `record`."""
        folder = self.run_folder(cell_id, seed)
        record = self._read_record(_parse_run, folder, sizes)
        if record is not None and (record.cell_id, record.seed) != (cell_id, seed):
            _warn_once(f"counted as not done: {self.place}/{folder} holds the record of another run")
            return None
        return record

    def _read_record(self, parse: Callable[[bytes], R], folder: str, sizes: Mapping[str, int]) -> R | None:
        """The record in a folder whose files have these sizes; None, told of once, where it is damaged."""
        if MANIFEST not in sizes:
            return None
        try:
            manifest = self.manifest(folder) or {}
            for name, known in manifest.items():
                if sizes.get(known.stored_as or name) != known.size:
                    self._read(folder, name, manifest)  # damaged, unless a writer was here since the listing
            return parse(self._read(folder, RECORD_FILE, manifest))
        except NotCommittedError:
            return None
        except DamagedError as error:
            _warn_once(f"counted as not done: {error.message}")
        except ValueError as error:
            _warn_once(f"counted as not done: {self.place}/{folder}/{RECORD_FILE}: {error}")
        return None

    def forget_collected(self, cell_id: str) -> None:
        """Removes what is kept together of a cell's runs; the runs stay."""
        self.delete(collected_folder(check_name(cell_id)))

    def curves(self, cell_id: str, seed: int) -> pa.Table:
        """The curves of a run, one row per epoch."""
        return from_parquet(self.read(self.run_folder(cell_id, seed), CURVES_FILE))

    def each_curves(
        self, runs: Sequence[tuple[str, int]], *, columns: Collection[str] | None = None
    ) -> Iterator[pa.Table]:
        """The curves of many runs, given as cell and seed, in order, a few of them in memory at a time.

        `columns`: only those of these that there are.
        """

        def read(run: tuple[str, int]) -> pa.Table:
            return from_parquet(self.read(self.run_folder(*run), CURVES_FILE), columns)

        size = 4 * self._files.parallel_reads
        for first in range(0, len(runs), size):
            yield from self.map(read, runs[first : first + size])

    def student(self, cell_id: str, seed: int) -> bytes:
        """The weights of a run's student."""
        return self.read(self.run_folder(cell_id, seed), STUDENT_FILE)

    def runs(self) -> pa.Table:
        """One row per record of the store, by cell and seed; `seconds` is the total of its timings."""
        return tabulate(
            record for cell_id in self._files.folders("cells") for record in self.records(cell_id)
        )

    def all_curves(self, cell_ids: Collection[str] | None = None) -> pa.Table:
        """The curves of all runs below each other: cell_id, seed, then the columns of any of them.

        One row per run and epoch; null where a run lacks a column. `cell_ids` chooses cells, in this order.
        """
        wanted = self._files.folders("cells") if cell_ids is None else cell_ids
        runs = [(record.cell_id, record.seed) for cell_id in wanted for record in self.records(cell_id)]
        tables = self.map(lambda run: self._labelled_curves(*run), runs)
        start = pa.schema(
            [("cell_id", pa.string()), ("seed", pa.int64()), ("epoch", pa.int32())]
        ).empty_table()
        return pa.concat_tables([start, *tables], promote_options="default").combine_chunks()

    def _labelled_curves(self, cell_id: str, seed: int) -> pa.Table:
        folder = self.run_folder(cell_id, seed)
        manifest = self.manifest(folder) or {}
        if CURVES_FILE not in manifest:
            return pa.table({})
        curves = from_parquet(self._read(folder, CURVES_FILE, manifest))
        seeds = pa.repeat(pa.scalar(seed, pa.int64()), len(curves))
        return curves.add_column(0, "seed", seeds).add_column(0, "cell_id", pa.repeat(cell_id, len(curves)))

    def map(self, function: Callable[[S], T], items: Iterable[S]) -> list[T]:
        """The results of reads, several at the same time where that is faster, in order."""
        if self._files.parallel_reads == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(self._files.parallel_reads) as pool:
            return list(pool.map(function, items))

    def earlier_runs(self, cell_id: str, seed: int) -> list[Record]:
        """What other code had made of a run before it was made again, by the time that it began."""
        found = read_earlier(self, self.run_folder(cell_id, seed), _parse_run)
        return [record for _, record in found]

    def find_earlier_run(self, cell_id: str, seed: int, code: Code) -> Record | None:
        """The newest of these that has the numbers of a code; None where none has."""
        found = find_own(self, self.run_folder(cell_id, seed), _parse_run, code=code)
        return None if found is None else found[1]

    def bring_back_run(self, cell_id: str, seed: int, code: Code) -> None:
        """Makes that one the run's result again; what other code has made since is kept in its place.

        Raises:
            StoreError: It is damaged, and nothing has changed; or the place cannot be written.
        """
        folder = self.run_folder(cell_id, seed)
        if (found := find_own(self, folder, _parse_run, code=code)) is not None:
            standing = self.record(cell_id, seed)
            if standing is not None and standing.status == "failed":
                standing = None  # no result to keep
            bring_back(self, folder, found[0], standing=standing, code=code)

    def teacher_folder(self, teacher_id: str) -> str:
        """Where a teacher is kept."""
        return f"teachers/{check_name(teacher_id)}"

    def put_teacher(
        self, record: TeacherRecord, *, weights: bytes, curves: pa.Table, keep_result: bool = False
    ) -> None:
        """Commits a trained teacher, then removes its checkpoints.

        The curves have one row per epoch. With `keep_result` a whole teacher that is there stays, for another
        process was faster; unless it is of other code, which is kept beside it.

        Raises:
            StoreError: The place cannot be written; or, with `keep_result`, runs of the store of the
                same code learned from this teacher when it had other weights.
        """
        folder = self.teacher_folder(record.teacher_id)
        files = {RECORD_FILE: to_json(record), WEIGHTS_FILE: weights, CURVES_FILE: to_parquet(curves)}

        def has_teacher() -> bool:
            if not keep_result:
                return False
            standing = self.whole_teacher(record.teacher_id)
            if standing is None or not standing.code.same_numbers(record.code):
                self._check_users(record)
            return stands(self, folder, standing=standing, new=record)

        self.commit(folder, files, unless=has_teacher)
        self.delete(f"{folder}/{CHECKPOINTS}")

    def _check_users(self, teacher: TeacherRecord) -> None:
        users = [
            f"{run.cell_id} seed {run.seed}"
            for cell_id in self._files.folders("cells")
            for run in self.records(cell_id)
            if run.teacher_id == teacher.teacher_id and run.teacher_hash not in (None, teacher.teacher_hash)
            if run.code.same_numbers(teacher.code)
        ]
        if users:
            where = f"{self.place}/{self.teacher_folder(teacher.teacher_id)}"
            more = f" and {len(users) - 1} more" if len(users) > 1 else ""
            raise StoreError(
                f"{where}: trained again, the teacher has other weights than the one that {users[0]}{more} "
                "learned from; put its folder back from a copy, or begin in another store (--store)"
            )

    def put_diverged_teacher(self, record: DivergedTeacher, *, curves: pa.Table | None) -> None:
        """Commits what is known of a diverged teacher, then removes its checkpoints.

        A teacher that the same code has trained stays; one of other code is kept beside it.
        """
        folder = self.teacher_folder(record.teacher_id)
        files = {RECORD_FILE: to_json(record)} | ({} if curves is None else {CURVES_FILE: to_parquet(curves)})

        def has_teacher() -> bool:
            return stands(self, folder, standing=self.teacher(record.teacher_id), new=record)

        self.commit(folder, files, unless=has_teacher)
        self.delete(f"{folder}/{CHECKPOINTS}")

    def teacher(self, teacher_id: str) -> TeacherRecord | None:
        """The record of a trained teacher; None where there is none or it is damaged: it is trained again."""
        found = self.any_teacher(teacher_id)
        return found if isinstance(found, TeacherRecord) else None

    def diverged_teacher(self, teacher_id: str) -> DivergedTeacher | None:
        """What is known of a teacher that diverged; None where none did."""
        found = self.any_teacher(teacher_id)
        return found if isinstance(found, DivergedTeacher) else None

    def any_teacher(self, teacher_id: str) -> TeacherRecord | DivergedTeacher | None:
        """What is known of a teacher, trained or diverged; None where nothing is."""
        folder = self.teacher_folder(teacher_id)
        return self._read_record(teacher_from_json, folder, self._files.sizes(folder))

    def whole_teacher(self, teacher_id: str) -> TeacherRecord | None:
        """The record of a teacher whose weights were read and are whole; where not, a log line names them."""
        record = self.teacher(teacher_id)
        if record is None:
            return None
        try:
            self.teacher_weights(teacher_id)
        except DamagedError as error:
            _warn_once(f"the teacher is trained again: {error.message}")
            return None
        return record

    def find_earlier_teacher(self, teacher_id: str, code: Code) -> TeacherRecord | None:
        """The newest trained teacher that other code has replaced and that has the numbers of a code."""
        found = find_own(self, self.teacher_folder(teacher_id), teacher_from_json, code=code)
        return found[1] if found is not None and isinstance(found[1], TeacherRecord) else None

    def bring_back_teacher(self, teacher_id: str, code: Code) -> None:
        """Makes that one the teacher again; as `bring_back_run`."""
        folder = self.teacher_folder(teacher_id)
        if (found := find_own(self, folder, teacher_from_json, code=code)) is not None:
            bring_back(self, folder, found[0], standing=self.any_teacher(teacher_id), code=code)

    def teacher_weights(self, teacher_id: str) -> bytes:
        """The weights of a teacher."""
        return self.read(self.teacher_folder(teacher_id), WEIGHTS_FILE)

    def sweep_folder(self, name: str, dataset: str) -> str:
        """Where a sweep's plan, reports and figures are kept."""
        return f"sweeps/{check_name(f'{name}-{dataset}'.replace(':', '.'))}"

    def sweep_folders(self) -> list[str]:
        """The folders of all sweeps, sorted."""
        return [f"sweeps/{name}" for name in self.folders("sweeps")]

    @contextlib.contextmanager
    def hold(self, folder: str) -> Iterator[None]:
        """Keeps other drivers out of a folder, such as a sweep's, until the block or the process ends.

        Commits to the folder succeed only while it is held. Where another driver takes over, because this
        process stood still for too long, the process stops as on Ctrl-C, and the end of the block says why.
        Places that have neither locks nor conditional writes (Google Cloud Storage, HDFS) keep no driver out.

        Raises:
            StoreError: Another driver holds it, or took over; the message says which.
        """
        check_folder(folder)
        with contextlib.ExitStack() as stack:
            if self.local_path is not None:
                hold = stack.enter_context(hold_folder(self.local_path / folder))
            elif self._conditional is not None:
                hold = stack.enter_context(hold_object(self._conditional, folder, place=self.place))
            else:
                with self._files.exclusive(folder):
                    pass  # a published study refuses every writer
                yield
                return
            self._holds[folder] = hold
            stack.callback(self._holds.pop, folder)
            yield

    def tell(self, folder: str, doing: Mapping[str, object]) -> None:
        """What the driver that holds a folder does, as JSON can hold it; `holder` reads it, anywhere."""
        if (hold := self._holds.get(folder)) is not None:
            hold.tell(doing)

    def holder(self, folder: str) -> Holder | None:
        """Who holds a folder; None where nobody does, as far as the place can tell. Nothing is changed."""
        holder = read_holder(self._files.get(f"{check_folder(folder)}/{LOCK_FILE}"))
        return None if holder is not None and holder.alive is False else holder

    def commit(self, folder: str, *arguments: Any, **options: Any) -> bool:
        """See `CommittedFolders.commit`. A folder that this store holds must still be its own.

        Raises:
            StoreError: Another driver took it over; or see there.
        """
        if folder in self._holds:
            self._holds[folder].check()
        return super().commit(folder, *arguments, **options)

    def delete(self, folder: str) -> None:
        """See `CommittedFolders.delete`. With a folder that this store holds goes the holder's name."""
        if folder in self._holds:
            self._holds[folder].check()
            self._holds[folder].stop()
        super().delete(folder)
