"""Results of other code are kept beside those that take their place, wherever the store is."""

import dataclasses

from sweep_example import make_curves, make_record, make_sweep, put_run

from hkrun.config import cell_id


def test_a_result_of_other_code_makes_room_and_is_kept_whole_beside_the_new_one(store):
    sweep = make_sweep(num_cells=1)
    cell = sweep.cells[0]
    identity = cell_id(cell.cell)
    first = put_run(store, cell, 0)
    before = {
        name: store.read(store.run_folder(identity, 0), name) for name in ("record.json", "curves.parquet")
    }
    curves = make_curves("L_b + L_is", 0, epochs=12)
    changed = dataclasses.replace(
        make_record(identity, 0, curves), started_at=8e9, versions={"numbers": "source a", "source": "a"}
    )
    store.put_run(changed, curves=curves, student=b"weights", keep_result=True)
    assert store.record(identity, 0) == changed
    assert store.earlier_runs(identity, 0) == [first]
    (kept,) = store._files.folders(f"{store.run_folder(identity, 0)}/earlier")
    folder = f"{store.run_folder(identity, 0)}/earlier/{kept}"
    assert {name: store.read(folder, name) for name in store.names(folder)} == before
    # Nobody trips over it.
    assert [record.code.numbers for record in store.records(identity)] == ["source a"]
    assert store.runs().num_rows == 1
    assert store.all_curves().num_rows == 12
    # One of the same code is there by now: it stays, and nothing more is kept.
    store.put_run(dataclasses.replace(changed, epochs=3), curves=None, student=None, keep_result=True)
    assert store.record(identity, 0) == changed
    third = dataclasses.replace(changed, started_at=9e9, versions={"numbers": "source b", "source": "b"})
    store.put_run(third, curves=curves, student=None, keep_result=True)
    assert store.earlier_runs(identity, 0) == [first, changed]
