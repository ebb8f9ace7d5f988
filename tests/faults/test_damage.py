"""A run that broke off, and may find its files damaged when it goes on: it ends as if undisturbed."""

import shutil

import oracles
import pytest
import torch
from damage import cut, flip, flip_everywhere
from task_example import make_task

from hkrun.config import cell_from_values, cell_id
from hkrun.store import open_store
from hkrun.training import SingleProcess
from hkrun.trial import inputs, progress, teacher_answers
from hkrun.trial import run as running
from hkrun.trial.run import run_task

CELL = cell_from_values(
    {
        "dataset": "digits",
        "teacher.network": "preact-8-w4",
        "teacher.epochs": 1,
        "student.network": "preact-8-w4",
        "student.epochs": 4,
        "augment.padding": 1,
        "augment.flip": False,
    }
)


@pytest.fixture
def forgetful():
    """Each call of a task begins as in a process of its own."""

    def forget():
        inputs.load_teacher.cache_clear()
        teacher_answers._open.cache_clear()

    forget()
    yield forget
    forget()


@pytest.fixture(scope="module")
def stores(few_digits, tmp_path_factory):
    """A run that broke off after its third epoch, with two checkpoints; and the same one undisturbed."""
    broken, undisturbed = (open_store(tmp_path_factory.mktemp(name)) for name in ("broken", "undisturbed"))
    run_task(make_task(undisturbed, CELL), SingleProcess())
    run_task(make_task(broken, CELL), SingleProcess())
    run_task(make_task(undisturbed, CELL, 0), SingleProcess())

    def break_off(watch, runs):
        original(watch, runs)
        if runs[0].epoch == 3:
            raise KeyboardInterrupt

    original = progress.Watch.epoch_done
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "CHECKPOINT_EVERY_S", 0.0)
        patch.setattr(progress.Watch, "epoch_done", break_off)
        with pytest.raises(KeyboardInterrupt):
            run_task(make_task(broken, CELL, 0), SingleProcess())
    return broken, undisturbed


@pytest.mark.parametrize(
    ("victims", "damage", "resumed"),
    [
        ("newest checkpoint", cut, 1),
        ("newest checkpoint", flip, 1),
        ("all checkpoints", flip, 0),
        ("manifest of checkpoints", cut, 0),
        ("table", cut, 1),
        ("table", flip_everywhere, 1),
    ],
)
def test_what_is_damaged_is_said_and_never_gone_on_with(
    stores, tmp_path, forgetful, caplog, damage, victims, resumed
):
    broken, undisturbed = stores
    shutil.copytree(str(broken.local_path), tmp_path / "store")
    store = open_store(tmp_path / "store")
    checkpoints = tmp_path / "store" / store.run_folder(cell_id(CELL), 0) / "checkpoints"
    named = sorted(checkpoints.glob("*.pt"))
    assert len(named) == 2
    files = {
        "newest checkpoint": named[1:],
        "all checkpoints": named,
        "manifest of checkpoints": [checkpoints / "manifest.json"],
        "table": list((tmp_path / "store" / "tables").glob("*/rows")),
    }[victims]
    assert files
    for path in files:
        damage(path)
    run_task(make_task(store, CELL, 0), SingleProcess())
    ours, theirs = (each.record(cell_id(CELL), 0) for each in (store, undisturbed))
    assert ours.resumed == resumed
    assert oracles.without_clocks(ours) == oracles.without_clocks(theirs)
    assert oracles.curves(store, ours) == oracles.curves(undisturbed, theirs)
    assert store.student(cell_id(CELL), 0) == undisturbed.student(cell_id(CELL), 0)
    said = " ".join(caplog.messages)
    if damage is flip_everywhere:  # the rows are computed again as they are asked for
        assert "damaged row(s) of the teacher table are computed anew" in said
    elif victims != "table":  # which is made whole again where it is short
        assert "passed over" in said
        assert not checkpoints.exists()


def test_a_run_whose_device_failed_has_no_record_and_keeps_its_checkpoints(
    stores, tmp_path, forgetful, monkeypatch
):
    broken, undisturbed = stores
    shutil.copytree(str(broken.local_path), tmp_path / "store")
    store = open_store(tmp_path / "store")

    def distill(_runs, **_options):
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    with monkeypatch.context() as patch:
        patch.setattr(running, "distill", distill)
        with pytest.raises(torch.AcceleratorError):
            run_task(make_task(store, CELL, 0), SingleProcess())
    assert store.record(cell_id(CELL), 0) is None
    run_task(make_task(store, CELL, 0), SingleProcess())
    ours, theirs = (each.record(cell_id(CELL), 0) for each in (store, undisturbed))
    assert ours.resumed == 1
    assert oracles.curves(store, ours) == oracles.curves(undisturbed, theirs)
