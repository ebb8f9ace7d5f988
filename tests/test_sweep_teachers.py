"""What a sweep does about teachers before any process starts: refuse a wrong file, remember a divergence."""

import pytest
import torch

import hkrun.cluster
from hkrun.cli.program import call
from hkrun.config import teacher_id
from hkrun.spaces import load_sweep
from hkrun.store import DivergedTeacher, open_store


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, in which Ray must not start."""
    monkeypatch.chdir(tmp_path)
    for name in ("HKRUN_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hkrun.cluster, "run_tasks", None)  # calling it would raise
    return tmp_path


@pytest.fixture
def diverged(folder):
    """A store that knows how the teacher of `stability` ends."""
    cell = load_sweep("stability").cells[0].cell
    record = DivergedTeacher(
        teacher_id=teacher_id(cell),
        diverged_epoch=2,
        message="loss_backbone is nan in epoch 2",
        config={},
        epochs=1,
        device="cpu",
        threads=1,
        started_at=1.0,
    )
    store = open_store(folder / "hkrun-store")
    store.put_diverged_teacher(record, curves=None)
    return store


@pytest.mark.parametrize("verb", [["sweep", "stability", "--yes"], ["teacher"]], ids=["sweep", "teacher"])
def test_a_teacher_that_is_known_to_diverge_is_not_trained_again(diverged, verb, capsys):
    assert call(verb) == 5
    last = capsys.readouterr().err.splitlines()[-1]
    assert "diverged (loss_backbone is nan in epoch 2)" in last
    assert "try a lower teacher.learning_rate or more teacher.warmup_epochs" in last


@pytest.mark.parametrize("verb", [["sweep", "stability", "--yes"], ["teacher"]], ids=["sweep", "teacher"])
def test_a_teacher_file_that_does_not_fit_is_refused_before_anything_starts(folder, verb, capsys):
    (folder / "backbone.pt").write_bytes(b"no weights")
    assert call([*verb, "teacher.file=backbone.pt"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "teacher.file" in line]
    assert "not weights of this teacher.network" in line
    assert not (folder / "hkrun-store" / "sweeps").exists()


def test_files_of_weights_that_do_not_fit_are_refused_all_at_once(folder, capsys):
    torch.save({"fc.weight": torch.zeros(2)}, folder / "teacher.pt")
    (folder / "student.pt").write_bytes(b"no weights")
    assert call(["run", "--yes", "teacher.file=teacher.pt", "student.file=student.pt"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if ".file: " in line]
    assert ["student.file" in line for line in lines] == [True, False]
    assert "stem.weight (" in lines[1]
    assert not (folder / "hkrun-store" / "sweeps").exists()
