"""The real loop on two workers, one of which is killed."""

import pytest
from real_tasks import DEATH, run_and_die_once
from task_example import make_task

from hkrun.cluster import TaskList, run_tasks
from hkrun.config import cell_from_values, cell_id
from hkrun.store import open_store
from hkrun.training import SingleProcess
from hkrun.trial.run import run_task

EPOCHS = 8
CELL = cell_from_values(
    {
        "dataset": "digits",
        "teacher.network": "preact-8-w4",
        "teacher.epochs": 2,
        "student.network": "preact-8-w4",
        "student.epochs": EPOCHS,
        "augment.padding": 1,
        "augment.flip": False,
    }
)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_whose_second_worker_is_killed_ends_as_if_undisturbed(joined, observer, tmp_path):
    killed, undisturbed = open_store(tmp_path / "killed"), open_store(tmp_path / "undisturbed")
    for store in (killed, undisturbed):
        run_task(make_task(store, CELL), SingleProcess())
    death = tmp_path / "killed" / DEATH
    death.touch()
    results = run_tasks(
        TaskList(
            tasks=[make_task(store, CELL, 0, world_size=2) for store in (killed, undisturbed)],
            workers=2,
            log_folder=tmp_path / "logs",
            function=run_and_die_once,
        ),
        observer,
    )
    assert [result.outcomes[0]["status"] for result in results] == ["finished", "finished"]
    assert [result.retries for result in results] == [1, 0]
    assert not death.exists()
    identity = cell_id(CELL, world_size=2)
    records = [store.record(identity, 0) for store in (killed, undisturbed)]
    assert [(record.resumed, record.world_size, record.alarms) for record in records] == [
        (1, 2, ()),
        (0, 2, ()),
    ]
    curves = [store.curves(identity, 0).drop(["seconds"]).to_pydict() for store in (killed, undisturbed)]
    assert curves[0] == curves[1]
    assert len(curves[0]["epoch"]) == EPOCHS
    assert killed.student(identity, 0) == undisturbed.student(identity, 0)
