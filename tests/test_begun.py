"""What a study that stopped before its end has kept."""

import pytest
from sweep_example import make_sweep, put_run

from hkrun.config import cell_id
from hkrun.plans import find_begun, make_plan
from hkrun.store import open_store


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def test_what_is_kept_of_a_study_that_stopped_is_its_results_and_checkpoints_of_runs_and_teacher(store):
    sweep = make_sweep(num_cells=2, num_seeds=4)
    assert str(find_begun(make_plan(sweep, store), store)) == "0 of 8 runs; no checkpoint yet"
    first, second = sweep.cells
    (teacher,) = make_plan(sweep, store).teachers
    store.commit(f"{store.teacher_folder(teacher.teacher_id)}/checkpoints", {"epoch-000040.pt": b""})
    told = "0 of 8 runs; checkpoints of the teacher preact-164 (epoch 40 of 600)"
    assert str(find_begun(make_plan(sweep, store), store)) == told
    put_run(store, first, 0)
    put_run(store, first, 1, status="failed", error_last_pct=None, traceback="Boom")
    put_run(store, first, 2, status="diverged", error_last_pct=None, diverged_epoch=3)
    for named, seed, epoch in ((first, 3, 7), (second, 0, 5), (second, 9, 11)):  # there is no seed 9
        folder = f"{store.run_folder(cell_id(named.cell), seed)}/checkpoints"
        store.commit(folder, {f"epoch-{epoch:06}.pt": b""})
    begun = find_begun(make_plan(sweep, store), store)
    assert begun.runs == {(cell_id(first.cell), 3): 7, (cell_id(second.cell), 0): 5}
    assert str(begun) == (
        "2 of 8 runs, 1 failed; checkpoints of 2 runs (up to epoch 7 of 12) and of the teacher preact-164 "
        "(epoch 40 of 600)"
    )
