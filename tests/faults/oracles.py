"""What must hold of a sweep's store and MLflow however it was disturbed."""

import dataclasses
import sqlite3
from collections import Counter
from pathlib import Path

from hkrun.store import Record, Store

MENDED = "damaged row(s) of the teacher table"
# Of a record, what a disturbance may change: clocks, and how often the run went on from a checkpoint.
CLOCKS = ("started_at", "timings", "resumed")


def check_all(store: Store, undisturbed: Store) -> None:
    """All of the below for a sweep with MLflow's database in its store."""
    check_results(store, undisturbed)
    check_files(store)
    check_mirrored_once(Path(str(store.local_path), "mlflow.db"), store)


def check_results(store: Store, undisturbed: Store) -> None:
    """Every run and teacher is that of the undisturbed sweep, to the bit."""
    assert cells(store) == cells(undisturbed)
    for cell_id in cells(store):
        ours, theirs = store.records(cell_id), undisturbed.records(cell_id)
        assert list(map(without_clocks, ours)) == list(map(without_clocks, theirs))
        for record in ours:
            assert curves(store, record) == curves(undisturbed, record)
            if record.status == "finished":
                student = store.student(cell_id, record.seed)
                assert student == undisturbed.student(cell_id, record.seed)
    for folder in folders(undisturbed, "teachers"):
        ours, theirs = store.teacher(folder), undisturbed.teacher(folder)
        assert (ours.teacher_hash, ours.error_pct) == (theirs.teacher_hash, theirs.error_pct)
        assert store.teacher_weights(folder) == undisturbed.teacher_weights(folder)


def check_files(store: Store) -> None:
    """No partial file, no state of a run that is over; all that is committed is what its manifest says."""
    root = Path(str(store.local_path))
    assert list(root.rglob("*.tmp")) == []
    assert list(root.rglob("checkpoints")) == []
    assert list(root.rglob("*.partial")) == []
    for manifest in root.rglob("manifest.json"):
        folder = str(manifest.parent.relative_to(root))
        for name in store.names(folder):
            store.read(folder, name)  # refuses what is not as it was written


def check_mirrored_once(database: Path, store: Store) -> None:
    """MLflow has errors and losses of every epoch of every run once, with the store's value, and no more."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        active = {
            run for (run,) in connection.execute("SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active'")
        }
        tags: dict[str, dict[str, str]] = {run: {} for run in active}
        for run, key, value in connection.execute("SELECT run_uuid, key, value FROM tags"):
            if run in active:
                tags[run][key] = value
        rows = [
            row
            for row in connection.execute("SELECT run_uuid, key, step, value FROM metrics")
            if row[0] in active
        ]
        states = dict(connection.execute("SELECT run_uuid, status FROM runs"))
    connection.close()
    twice = {point: count for point, count in Counter(row[:3] for row in rows).items() if count > 1}
    assert not twice
    wanted = {
        (record.cell_id, record.seed): record for cell in cells(store) for record in store.records(cell)
    }
    children = {
        (tag["hkrun.cell_id"], int(tag["hkrun.seed"])): run
        for run, tag in tags.items()
        if "hkrun.seed" in tag
    }
    assert children.keys() == wanted.keys()
    assert len(children) == sum("hkrun.seed" in tag for tag in tags.values())
    assert len(tags) == len(children) + len(cells(store))  # a parent for each cell
    for place, record in wanted.items():
        found = {(key, step): value for run, key, step, value in rows if run == children[place]}
        assert found == points(store, record)
        assert states[children[place]] == ("FINISHED" if record.status == "finished" else "FAILED")


def points(store: Store, record: Record) -> dict[tuple[str, int], float]:
    """What MLflow is to have of a run, by metric and step."""
    table = store.curves(record.cell_id, record.seed).to_pydict()
    epochs = table.pop("epoch")
    assert len(epochs) <= 100, "of a longer run it has not every loss"
    expected = {
        (name, epoch): value
        for name, values in table.items()
        for epoch, value in zip(epochs, values, strict=True)
        if value is not None and name.startswith(("error_", "loss_"))
    }
    for name in ("error_last", "error_best"):
        value = getattr(record, f"{name}_pct")
        if value is not None:
            expected[name, 0] = value
    return expected


def cells(store: Store) -> list[str]:
    return folders(store, "cells")


def folders(store: Store, kind: str) -> list[str]:
    return sorted(path.name for path in Path(str(store.local_path), kind).iterdir())


def without_clocks(record: Record) -> dict[str, object]:
    """What a record says, but for clocks and for mended teacher tables, which change no number."""
    fields = {name: value for name, value in dataclasses.asdict(record).items() if name not in CLOCKS}
    return {**fields, "alarms": [alarm for alarm in record.alarms if MENDED not in alarm]}


def curves(store: Store, record: Record) -> dict[str, list[float]]:
    """Without the clock."""
    return store.curves(record.cell_id, record.seed).drop(["seconds"]).to_pydict()
