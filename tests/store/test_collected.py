"""A cell's runs in a few common files: what lies in the runs' own folders is the truth, whatever happens."""

import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sweep_example import fill_store, make_curves, make_sweep, put_run

from hkrun.config import canonical_json, cell_id
from hkrun.errors import StoreError
from hkrun.plans import save_plan
from hkrun.records import Record, from_rows, from_values
from hkrun.report import summarise, summary_document
from hkrun.spaces import Sweep
from hkrun.store import Store, collected, folder_states, open_store
from hkrun.store.transactions import MANIFEST
from hkrun.sweep import find_garbage, find_removal, remove

SEEDS = 12


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was just written counts as settled; only one test is about that."""
    monkeypatch.setattr(folder_states, "SETTLED_S", -1.0)


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return make_sweep(num_cells=2, num_seeds=SEEDS, epochs=8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, sweep: Sweep) -> Path:
    """A filled store; for copies of it."""
    place = tmp_path_factory.mktemp("full") / "store"
    fill(open_store(place), sweep)
    return place


@pytest.fixture
def full(tmp_path: Path, made: Path) -> Store:
    return open_store(shutil.copytree(made, tmp_path / "store"))


def fill(store: Store, sweep: Sweep) -> Store:
    """Puts runs into a store, whose curves have a column of the discriminator, and of which one diverged."""
    for named in sweep.cells:
        store.put_cell(cell_id(named.cell), canonical_json(named.cell))
        for seed in sweep.seeds:
            curves = make_curves(named.name, seed, epochs=8)
            accuracy = pa.array(np.random.default_rng(seed).uniform(0.4, 0.6, 8))
            put_run(store, named, seed, curves=curves.append_column("discriminator_accuracy", accuracy))
    put_run(store, sweep.cells[1], 3, status="diverged", epochs=8, error_last_pct=None, diverged_epoch=8)
    return store


def report(store: Store, sweep: Sweep) -> str:
    """All that a report says, after which the runs are collected."""
    return json.dumps(summary_document(summarise(sweep, store)))


def count_reads(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths below runs' own folders that are read from now on."""
    read: list[str] = []
    get = store._files.get

    def counted(path: str) -> bytes | None:
        if "/seeds/" in path:
            read.append(path)
        return get(path)

    monkeypatch.setattr(store._files, "get", counted)
    return read


def collected_files(store: Store, sweep: Sweep) -> list[str]:
    return store.names(collected.collected_folder(cell_id(sweep.cells[0].cell)))


def test_the_second_report_is_the_same_and_reads_no_run_of_its_own_folder(
    store: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, sweep)
    first = report(store, sweep)
    assert collected_files(store, sweep) == ["curves-0.parquet", "records.json"]
    read = count_reads(store, monkeypatch)
    assert report(store, sweep) == first
    assert read == []
    replace_run(store, sweep)
    assert report(store, sweep) != first
    assert {path.rpartition("/")[0] for path in read} == {store.run_folder(cell_id(sweep.cells[0].cell), 5)}


def test_collected_records_are_those_of_the_runs(full: Store, sweep: Sweep) -> None:
    identity = cell_id(sweep.cells[0].cell)
    before = full.records(identity)
    report(full, sweep)
    assert full.records(identity) == before == [full.record(identity, seed) for seed in sweep.seeds]


def replace_run(store: Store, sweep: Sweep) -> None:
    named, epochs = sweep.cells[0], 8
    curves = pa.table({"epoch": np.arange(1, epochs + 1), "error_pct": np.full(epochs, 50.0)})
    put_run(store, named, 5, curves=curves, error_last_pct=50.0, error_best_pct=50.0)


def remove_run(store: Store, sweep: Sweep) -> None:
    store.delete(store.run_folder(cell_id(sweep.cells[0].cell), 5))


def fail_run(store: Store, sweep: Sweep) -> None:
    put_run(store, sweep.cells[0], 5, status="failed", traceback="out of memory", error_last_pct=None)


@pytest.mark.parametrize("change", [replace_run, remove_run, fail_run])
def test_a_run_that_changed_is_read_anew_and_the_others_are_not(
    full: Store, sweep: Sweep, change: Callable[[Store, Sweep], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = report(full, sweep)
    change(full, sweep)
    read = count_reads(full, monkeypatch)
    after = report(full, sweep)
    assert after != before
    own = full.run_folder(cell_id(sweep.cells[0].cell), 5)
    assert {path.rpartition("/")[0] for path in read} <= {own, f"{own}/checkpoints"}
    full.forget_collected(cell_id(sweep.cells[0].cell))
    full.forget_collected(cell_id(sweep.cells[1].cell))
    assert report(full, sweep) == after


def test_a_run_that_is_added_joins_those_that_are_collected(full: Store, sweep: Sweep) -> None:
    report(full, sweep)
    more = dataclasses.replace(sweep, seeds=(*sweep.seeds, SEEDS))
    for named in sweep.cells:
        put_run(full, named, SEEDS)
    after = report(full, more)
    for named in sweep.cells:
        full.forget_collected(cell_id(named.cell))
    assert report(full, more) == after


def test_records_are_collected_each_as_it_is_however_much_they_share(full: Store, sweep: Sweep) -> None:
    named, identity = sweep.cells[0], cell_id(sweep.cells[0].cell)
    put_run(
        full, named, 2, versions={"torch": "2.11"}, alarms=("loss spike",), pack=(2, 3), processor="another"
    )
    put_run(full, named, 4, status="failed", error_last_pct=None, traceback="out of memory", epochs=8)
    put_run(full, named, 6, threads=True)  # as 1, and yet another value
    before = full.records(identity)
    report(full, sweep)
    assert list(map(repr, full.records(identity))) == list(map(repr, before))


def test_collected_records_may_hold_what_this_version_does_not_know_but_no_status_it_does_not() -> None:
    common = {"epochs": 8, "device": "cpu", "threads": 1, "started_at": 0.0, "cell_id": "a", "later": 1}
    rows = [
        {"seed": 0, "status": "finished", "new": 2, "pack": [0, 1]},
        {"seed": 1, "status": "failed", "new": 3, "pack": []},
    ]
    assert list(from_rows(common, rows)) == [from_values(Record, common | row) for row in rows]
    with pytest.raises(ValueError, match="status 'lost' is none of finished, diverged, failed"):
        list(from_rows(common, [*rows, rows[0] | {"status": "lost"}]))


@pytest.mark.parametrize("name", ["records.json", "curves-0.parquet", MANIFEST])
@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 2, "runs": []}', b"PAR1"])
def test_damaged_collected_files_are_no_error_and_made_anew(
    full: Store, sweep: Sweep, name: str, content: bytes
) -> None:
    before, files = report(full, sweep), collected_files(full, sweep)
    folder = collected.collected_folder(cell_id(sweep.cells[0].cell))
    full._files.put(folder, {name: content})
    assert report(full, sweep) == before
    assert collected_files(full, sweep) == files
    assert all(full.read(folder, each) for each in files)


@pytest.mark.parametrize("name", ["records.json", "curves-0.parquet"])
@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b'{"format": 3, "runs": []}',
        b'{"format": 1, "runs": [[1]]}',
        b'{"format": 2, "common": {}, "names": ["seed"], "runs": [[1, "", []]]}',
        b"no such format",
    ],
)
def test_collected_files_of_another_form_are_not_used(
    full: Store, sweep: Sweep, name: str, content: bytes
) -> None:
    """They are whole, but of another version of hkrun, or nobody's."""
    before = report(full, sweep)
    full.commit(collected.collected_folder(cell_id(sweep.cells[0].cell)), {name: content}, keep=None)
    assert report(full, sweep) == before


def test_a_damaged_record_counts_as_not_done_though_it_was_collected(full: Store, sweep: Sweep) -> None:
    report(full, sweep)
    identity = cell_id(sweep.cells[0].cell)
    folder = full.run_folder(identity, 2)
    full._files.put(folder, {"record.json": full.read(folder, "record.json") + b" "})
    assert [record.seed for record in full.records(identity)] == [0, 1, *range(3, SEEDS)]


def test_a_change_that_keeps_size_and_time_of_writing_is_noticed_on_a_disk(full: Store, sweep: Sweep) -> None:
    report(full, sweep)
    identity = cell_id(sweep.cells[0].cell)
    path = Path(full.uri) / full.run_folder(identity, 2) / "record.json"
    status = path.stat()
    path.write_bytes(path.read_bytes().replace(b"finished", b"finisheD"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert len(full.records(identity)) == SEEDS - 1


def test_what_was_just_written_is_not_collected(
    tmp_path: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could change once more within the tick of the clock; the next report collects it."""
    monkeypatch.setattr(folder_states, "SETTLED_S", 60.0)
    store = open_store(tmp_path)
    fill_store(store, sweep)
    for path in tmp_path.rglob("record.json"):
        os.utime(path, (1e9, 1e9))  # the time of the inode, which cannot be set, becomes now
    report(store, sweep)
    assert collected_files(store, sweep) == []
    monkeypatch.setattr(folder_states, "SETTLED_S", -1.0)
    report(store, sweep)
    assert collected_files(store, sweep) == ["curves-0.parquet", "records.json"]


def test_a_store_that_cannot_be_written_is_read_all_the_same(
    full: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = report(full, sweep)
    for named in sweep.cells:
        full.forget_collected(cell_id(named.cell))

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("cannot write: the file system is read-only")

    monkeypatch.setattr(full, "commit", refuse)
    assert report(full, sweep) == before
    assert collected_files(full, sweep) == []


def test_few_runs_are_not_collected(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    sweep = make_sweep(num_cells=1, num_seeds=collected.LEAST_RUNS - 1)
    fill_store(store, sweep)
    report(store, sweep)
    assert collected_files(store, sweep) == []


def test_two_reports_at_once_say_the_same_and_leave_whole_files(full: Store, sweep: Sweep) -> None:
    expected = report(full, sweep)
    for named in sweep.cells:
        full.forget_collected(cell_id(named.cell))
    said: list[str] = []
    threads = [
        threading.Thread(target=lambda: said.append(report(open_store(full.uri), sweep))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == [expected] * 3
    assert report(full, sweep) == expected
    assert collected_files(full, sweep) == ["curves-0.parquet", "records.json"]


def test_a_run_that_is_replaced_while_it_is_collected_is_read_anew(
    full: Store, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fingerprint is of before the run was read."""
    identity = cell_id(sweep.cells[0].cell)
    runs = full.cell_runs(identity)
    replace_run(full, sweep)
    runs.read_records(collect=True)
    list(runs.each_curves(sweep.seeds, ("error_pct",), collect=True))
    assert full.record(identity, 5) in full.records(identity)
    replace_run(full, sweep)
    read = count_reads(full, monkeypatch)
    assert full.records(identity)[5].error_last_pct == 50.0
    assert {path.rpartition("/")[0] for path in read} == {full.run_folder(identity, 5)}


def test_curves_come_by_seed_and_by_epoch_with_the_columns_that_a_run_has(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    sweep = make_sweep(num_cells=1, num_seeds=SEEDS, epochs=4)
    fill_store(store, sweep)
    identity = cell_id(sweep.cells[0].cell)
    mixed = pa.table(
        {"epoch": [3, 1, 4, 2], "error_pct": [3.0, 1.0, 4.0, None], "extra": [3.0, 1.0, 4.0, 2.0]}
    )
    put_run(store, sweep.cells[0], 700, curves=mixed)
    for _ in range(2):
        found = dict(
            store.cell_runs(identity).each_curves([700, *sweep.seeds], ("error_pct", "extra"), collect=True)
        )
        assert list(found) == [*sweep.seeds, 700]
        assert list(found[0].figures) == ["error_pct"]
        np.testing.assert_array_equal(found[0].figures["error_pct"], store.curves(identity, 0)["error_pct"])
        np.testing.assert_array_equal(found[700].figures["error_pct"], [1.0, np.nan, 3.0, 4.0])
        np.testing.assert_array_equal(found[700].figures["extra"], [1.0, 2.0, 3.0, 4.0])


def test_more_columns_than_were_collected_are_read_from_the_runs(full: Store, sweep: Sweep) -> None:
    identity = cell_id(sweep.cells[0].cell)
    for columns in (("error_pct",), ("error_pct", "loss_total"), ("loss_total",)):
        found = dict(full.cell_runs(identity).each_curves([2], columns, collect=True))
        assert list(found[2].figures) == list(columns)
        for name in columns:
            np.testing.assert_array_equal(found[2].figures[name], full.curves(identity, 2)[name])


def test_removal_takes_what_was_collected_of_the_runs_that_go(full: Store, sweep: Sweep) -> None:
    report(full, sweep)
    save_plan(full, sweep)
    few = dataclasses.replace(sweep, name="few", seeds=sweep.seeds[:2])
    save_plan(full, few)
    assert find_garbage(full).num_bytes == 0
    remove(full, find_removal(sweep, full))
    assert collected_files(full, sweep) == []  # the next report collects the runs that stay
    remove(full, find_removal(few, full))
    assert not full.sizes("cells")


def test_garbage_collection_takes_what_was_collected_of_a_cell_that_no_study_uses(
    full: Store, sweep: Sweep
) -> None:
    report(full, sweep)
    remove(full, find_garbage(full))
    assert not full.sizes("cells")
