"""What goes with a study and what stays; and a store that reads after a kill in the middle."""

import dataclasses
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from sweep_example import fill_store, make_sweep, put_run
from teacher_example import put_teacher

from hkrun.config import canonical_json, cell_id, teacher_id
from hkrun.errors import HeldError, StoreError
from hkrun.plans import make_plan, save_plan, stored_plans
from hkrun.report.teaching import supervised
from hkrun.spaces import Sweep
from hkrun.store import Store, TeacherTables, find_tables, open_store
from hkrun.sweep import Removal, find_garbage, find_removal, remove

LONG = 2 * 3600.0


def begin(store: Store, sweep: Sweep) -> Sweep:
    """A finished study with its teacher, a table of it, and a report."""
    fill_store(store, sweep)
    save_plan(store, sweep)
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    store.commit(folder, {"report.html": b"a report"}, keep=None)
    put_teacher(store, sweep.cells[0].cell)
    put_table(store, teacher_id(sweep.cells[0].cell), "0" * 64)
    return sweep


def put_table(store: Store, teacher: str, digest: str, *, name: str = "") -> str:
    """A small whole table of a teacher, in the store itself."""
    name = name or f"t{teacher[:8]}{digest[:3]}"
    tables = TeacherTables(store, cache=Path(os.environ["XDG_CACHE_HOME"]) / "tables")
    tables.open(name, {"rows": 64}, {"teacher_id": teacher, "teacher_hash": digest})
    tables.finish(name)
    return name


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make_trial(*, num_cells: int = 2, num_seeds: int = 2) -> Sweep:
    """A study that shares no run with the others, and has a teacher of its own."""
    sweep = make_sweep(name="trial", num_cells=num_cells, num_seeds=num_seeds, epochs=4)
    cells = tuple(
        dataclasses.replace(
            named,
            cell=dataclasses.replace(named.cell, teacher=dataclasses.replace(named.cell.teacher, epochs=3)),
        )
        for named in sweep.cells
    )
    return dataclasses.replace(sweep, cells=cells)


def take(store: Store, sweep: Sweep) -> Removal:
    """Removes a study, as the command does."""
    with store.hold(store.sweep_folder(sweep.name, sweep.dataset)):
        found = find_removal(sweep, store)
        remove(store, found)
    return found


def everything(store: Store) -> dict[str, int]:
    """All files of the store but for its locks."""
    tops = ("cells", "teachers", "tables", "rehearsals", "sweeps")
    return {
        f"{top}/{path}": size
        for top in tops
        for path, size in store.sizes(top).items()
        if not path.endswith("driver.lock") and not path.startswith(".")
    }


def test_a_study_goes_with_all_that_is_its_own_and_another_stays_as_it_is(store: Store) -> None:
    begin(store, make_sweep())
    before = everything(store)
    trial = begin(store, make_trial())
    first = cell_id(trial.cells[0].cell)
    store.commit(f"rehearsals/{first}", {"rehearsal.json": b"{}"})
    store.commit(f"{store.run_folder(first, 1)}/checkpoints", {"epoch-000001.pt": b"1"})
    added = {path: size for path, size in everything(store).items() if path not in before}
    found = take(store, trial)
    assert {name: len(part) for name, part in found.parts.items()} == {
        "runs": 4, "checkpoints": 0, "rehearsals": 1, "tables": 1, "teachers": 1, "configurations": 2,
        "leftovers": 0, "abandoned": 0, "study": 1,
    }  # fmt: skip
    assert found.num_bytes >= sum(added.values())
    assert everything(store) == before
    assert store.sweep_folders() == ["sweeps/stability-digits"]
    assert make_plan(make_sweep(), store).num_to_run == 0


def test_results_of_other_code_stay_and_go_with_the_run_that_they_stand_beside(store: Store) -> None:
    kept, gone = begin(store, make_sweep(num_cells=1, num_seeds=1)), begin(store, make_trial(num_cells=1))
    for sweep in (kept, gone):
        identity = cell_id(sweep.cells[0].cell)
        record = store.record(identity, 0)
        assert record is not None
        other = dataclasses.replace(record, started_at=8e9, versions={"numbers": "source a", "source": "a"})
        store.put_run(other, curves=None, student=None, keep_result=True)
        assert store.earlier_runs(identity, 0) == [record]
    assert find_garbage(store).num_bytes == 0
    remove(store, find_removal(gone, store))
    assert store.earlier_runs(cell_id(gone.cells[0].cell), 0) == []
    assert not [path for path in store.sizes("cells") if path.startswith(cell_id(gone.cells[0].cell))]
    assert len(store.earlier_runs(cell_id(kept.cells[0].cell), 0)) == 1
    assert find_garbage(store).num_bytes == 0


def test_the_last_study_leaves_an_empty_store(store: Store) -> None:
    sweep = begin(store, make_sweep())
    take(store, sweep)
    assert everything(store) == {}
    assert store.sweep_folders() == []
    begin(store, sweep)  # and it can begin again
    assert make_plan(sweep, store).num_to_run == 0


def test_runs_and_teachers_that_another_study_uses_stay(store: Store) -> None:
    sweep = begin(store, make_sweep(num_seeds=4))
    few = dataclasses.replace(make_sweep(num_seeds=2, num_cells=3), name="few")
    save_plan(store, few)
    found = take(store, sweep)
    assert found.shared == {"few-digits": 6}
    assert len(found.runs) == 4 * 4 - 6
    assert not found.teachers
    assert not found.tables
    assert make_plan(few, store).num_to_run == 0
    assert store.teacher(teacher_id(sweep.cells[0].cell)) is not None
    assert len(find_tables(store)) == 1
    assert len(store.folders("cells")) == 3
    last = take(store, few)
    assert len(last.runs) == 6
    assert everything(store) == {}


def test_runs_that_the_report_of_another_study_compares_with_stay(store: Store) -> None:
    """`Its student trained alone: 4.72 % (mean of 20 supervised runs in the store)`."""
    begin(store, make_sweep())
    (alone,) = make_sweep(num_cells=1).cells
    alone = dataclasses.replace(alone, cell=supervised(alone.cell))
    losses = dataclasses.replace(make_sweep(num_seeds=9), name="losses", cells=(alone,), reference=None)
    fill_store(store, losses)
    save_plan(store, losses)
    found = take(store, losses)
    assert (found.runs, found.shared) == ({}, {"stability-digits": 9})
    assert len(store.records(cell_id(alone.cell))) == 9
    assert not any(find_garbage(store).parts.values())


def test_a_teacher_that_a_run_without_a_study_learned_from_stays_with_it(store: Store) -> None:
    sweep = begin(store, make_sweep(num_seeds=2))
    taught = {"teacher_id": teacher_id(sweep.cells[0].cell), "teacher_hash": "0" * 64}
    put_run(store, sweep.cells[0], 7, **taught)
    assert not take(store, sweep).teachers
    assert [record.seed for record in store.records(cell_id(sweep.cells[0].cell))] == [7]
    assert store.teacher(taught["teacher_id"]) is not None
    found = find_garbage(store)
    assert list(found.runs) == [(cell_id(sweep.cells[0].cell), 7)]
    assert (len(found.teachers), len(found.tables), len(found.configurations)) == (1, 1, 1)
    remove(store, found)
    assert everything(store) == {}


def test_a_study_that_a_driver_holds_is_not_removed(store: Store) -> None:
    sweep = begin(store, make_sweep(num_cells=1))
    other = open_store(store.uri)
    with other.hold("sweeps/stability-digits"):
        before = everything(store)
        with pytest.raises(HeldError, match="is held by process"):
            take(store, sweep)
        assert everything(store) == before
    take(store, sweep)


def test_nothing_is_removed_where_it_is_not_known_what_a_study_uses(store: Store) -> None:
    sweep = begin(store, make_sweep(num_cells=1))
    store.commit("sweeps/broken-digits", {"plan.json": b"{}"})
    for find in (find_garbage, lambda store: find_removal(sweep, store)):
        with pytest.raises(StoreError, match="not known what a study uses") as caught:
            find(store)
        assert "sweeps/broken-digits/plan.json: cannot be understood" in caught.value.message


def test_what_a_study_has_come_to_use_since_it_was_shown_stays(store: Store) -> None:
    sweep = begin(store, make_sweep(num_cells=1, num_seeds=5))
    put_run(store, sweep.cells[0], 7)
    shown, garbage = find_removal(sweep, store), find_garbage(store)
    wants = dataclasses.replace(sweep, name="later", seeds=(1, 7))
    save_plan(store, wants)
    assert len(shown.runs) == 5
    assert sorted(seed for _, seed in shown.within(find_removal(sweep, store)).runs) == [0, 2, 3, 4]
    assert not shown.within(find_removal(sweep, store)).teachers
    assert [seed for _, seed in garbage.runs] == [7]
    assert not garbage.within(find_garbage(store)).runs


def test_garbage_is_what_no_study_uses(store: Store) -> None:
    sweep = begin(store, make_sweep(num_cells=2, num_seeds=2))
    assert not any(find_garbage(store).parts.values())
    first = cell_id(sweep.cells[0].cell)
    # Of the study: a run that goes on, a run that failed, a teacher in training. All of it stays.
    put_run(store, sweep.cells[0], 0, status="failed", error_last_pct=None, traceback="Boom")
    for place in (store.run_folder(first, 0), store.run_folder(first, 9), store.teacher_folder("training")):
        store.commit(f"{place}/checkpoints", {"epoch-000001.pt": b"12345"})
    save_plan(store, dataclasses.replace(sweep, seeds=(0, 1, 9)))
    kept = everything(store)
    # Of none.
    trial = make_trial()
    fill_store(store, trial)
    put_teacher(store, trial.cells[0].cell)
    put_table(store, teacher_id(trial.cells[0].cell), "0" * 64)
    put_table(store, "gone", "1" * 64)
    store.commit(f"rehearsals/{cell_id(trial.cells[1].cell)}", {"rehearsal.json": b"{}"})
    unfinished = store.run_folder(cell_id(trial.cells[0].cell), 77)
    store.commit(f"{unfinished}/checkpoints", {"epoch-000001.pt": b"1"})
    lonely = make_sweep(num_cells=1, epochs=77).cells[0].cell
    store.put_cell(cell_id(lonely), canonical_json(lonely))
    spent = (
        f"{store.run_folder(first, 1)}/checkpoints",
        f"teachers/{teacher_id(sweep.cells[0].cell)}/checkpoints",
    )
    for folder in spent:
        store.commit(folder, {"epoch-000001.pt": b"12345"})
    found = find_garbage(store)
    assert {name: len(part) for name, part in found.parts.items()} == {
        "runs": 5, "checkpoints": 2, "rehearsals": 1, "tables": 2, "teachers": 1, "configurations": 3,
        "leftovers": 0, "abandoned": 0, "study": 0,
    }  # fmt: skip
    assert set(found.checkpoints) == set(spent)
    assert (unfinished.split("/")[1], 77) in found.runs
    remove(store, found)
    assert everything(store) == kept
    assert not any(find_garbage(store).parts.values())


def test_the_table_of_a_teacher_that_is_being_trained_stays(store: Store) -> None:
    begin(store, make_sweep(num_cells=1))
    store.commit("teachers/training/checkpoints", {"epoch-000001.pt": b"1"})
    put_table(store, "training", "1" * 64)
    (store.local_path or Path(os.environ["XDG_CACHE_HOME"])).joinpath("tables", "begun.partial").mkdir()
    assert not any(find_garbage(store).parts.values())


def test_what_killed_writers_left_goes_when_it_is_old(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    sweep = begin(store, make_sweep(num_cells=1))
    run = store.run_folder(cell_id(sweep.cells[0].cell), 0)
    places = [f"{run}/.record.json.0123abcd.tmp", f"cells/{run.split('/')[1]}/.cell.json.0123abcd.tmp"]
    fresh, mine = f"{run}/.curves.parquet.89abcdef.tmp", f"{run}/.notes.tmp"
    for place in (*places, fresh, mine):
        (tmp_path / "store" / place).write_bytes(b"123")
    for place in (*places, mine):
        os.utime(tmp_path / "store" / place, (time.time() - LONG,) * 2)
    found = find_garbage(store)
    assert found.leftovers == dict.fromkeys(sorted(places), 3)
    remove(store, found)
    assert [place for place in (*places, fresh, mine) if (tmp_path / "store" / place).exists()] == [
        fresh,
        mine,
    ]


def test_uploads_that_no_manifest_names_go_when_they_are_old(
    s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_server.place().full_uri)
    sweep = begin(store, make_sweep(num_cells=1))
    run = store.run_folder(cell_id(sweep.cells[0].cell), 0)
    written = store._files.written
    store._files.put(run, {"record.1a2b3c4d.json": b"12", "student.9a2b3c4d.pt": b"3"})
    store._files.put("teachers/half", {"weights.pt": b"4567"})

    def aged(folder: str) -> dict[str, float]:
        old = ("record.1a2b3c4d.json", "half/weights.pt", "cell.json", "manifest.json")
        return {path: when - LONG * path.endswith(old) for path, when in written(folder).items()}

    monkeypatch.setattr(store._files, "written", aged)
    # That it is an hour older than what is newest can only be told where there is something else.
    found = find_garbage(store)
    assert found.leftovers == {f"{run}/record.1a2b3c4d.json": 2, "teachers/half/weights.pt": 4}
    remove(store, found)
    assert f"{run.removeprefix('cells/')}/student.9a2b3c4d.pt" in store.sizes("cells")
    assert make_plan(sweep, store).num_to_run == 0


class Killed(BaseException):
    """As SIGKILL: nothing after it is done."""


def die_after(store: Store, changes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills the removal after so many files."""
    left = [changes]

    def count() -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1

    if store.local_path is None:
        delete = store._files._delete  # type: ignore[attr-defined]

        def one_by_one(folder: str, paths: list[str]) -> None:
            for path in paths:
                count()
                delete(folder, [path])

        monkeypatch.setattr(store._files, "_delete", one_by_one)
        return
    unlink = Path.unlink

    def counted(path: Path, *, missing_ok: bool = False) -> None:
        if path.exists():
            count()
        unlink(path, missing_ok=missing_ok)

    def rmtree(place: Path, **_: object) -> None:
        for folder, _folders, files in os.walk(place, topdown=False):
            for name in sorted(files):
                counted(Path(folder, name))
            Path(folder).rmdir()

    monkeypatch.setattr(Path, "unlink", counted)
    monkeypatch.setattr(shutil, "rmtree", rmtree)


@pytest.mark.parametrize("verb", ["rm", "gc"])
def test_a_removal_that_is_killed_anywhere_leaves_a_store_that_reads_and_ends_when_it_is_repeated(
    store: Store, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = begin(store, make_sweep(num_cells=2, num_seeds=1))
    expected = everything(store)
    own = make_trial(num_cells=1, num_seeds=1)
    trial = dataclasses.replace(own, cells=(*own.cells, others.cells[1]), reference=None)  # a run is shared
    first = cell_id(own.cells[0].cell)

    def start() -> None:
        begin(store, own)
        save_plan(store, trial)
        store.commit(f"rehearsals/{first}", {"rehearsal.json": b"{}"})
        store.commit(f"{store.run_folder(first, 0)}/checkpoints", {"epoch-000001.pt": b"1"})
        if verb == "gc":  # as if another had replaced it
            store.delete("sweeps/trial-digits")

    def tidy() -> None:
        if verb == "rm":
            take(store, trial)
        else:
            remove(store, find_garbage(store))

    repeats: Iterable[int] = range(60)
    for changes in repeats:
        start()
        with monkeypatch.context() as patched:
            die_after(store, changes, patched)
            try:
                tidy()
            except Killed:
                pass
            else:
                break
        plans, problems = stored_plans(store)
        assert not problems
        to_run = {plan.sweep.name: make_plan(plan.sweep, store).num_to_run for plan in plans}
        assert to_run["stability"] == 0
        store.runs()
        with monkeypatch.context() as later:
            later.setattr("hkrun.store.transactions.LEFTOVER_S", -1.0)
            if any(plan.sweep.name == "trial" for plan in plans):
                tidy()
            remove(store, find_garbage(store))
        rest = everything(store)
        assert (changes, sorted(rest.keys() ^ expected.keys())) == (changes, [])
        assert store.sweep_folders() == ["sweeps/stability-digits"]
    else:
        raise AssertionError("it never came to its end")
    assert changes > 12
    assert everything(store) == expected


def test_a_folder_in_which_a_study_begins_stays(store: Store) -> None:
    """Its driver holds it, and may measure packs for minutes before its plan is there."""
    begin(store, make_sweep(num_cells=1))
    other = open_store(store.uri)
    with other.hold("sweeps/new-digits"):
        found = find_garbage(store)
        assert set(found.abandoned) == {"sweeps/new-digits"}
        remove(store, found)
        other.commit("sweeps/new-digits", {"plan.json": b"1"})
    assert store.names("sweeps/new-digits") == ["plan.json"]


def test_a_table_that_lies_behind_a_link_is_removed(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store" / "tables").symlink_to(tmp_path / "elsewhere")
    sweep = begin(store, make_sweep(num_cells=1))
    assert [path.name for path in (tmp_path / "elsewhere").iterdir() if path.is_dir()] != []
    found = take(store, sweep)
    assert len(found.tables) == 1
    assert [path.name for path in (tmp_path / "elsewhere").iterdir() if path.is_dir()] == []
