"""What a sweep does about teachers before any process starts: refuse a wrong file, remember a divergence."""

import dataclasses
import json

import pytest
import torch
from study_example import make_study
from teacher_example import put_diverged_teacher, put_teacher
from two_slots import TWO_SLOTS

import hkrun.cluster
from hkrun.cli.program import call
from hkrun.cluster.trials.schedule import TaskResult
from hkrun.config import cell_id, teacher_id, teachers_id
from hkrun.errors import TrainingError
from hkrun.spaces import load_cell, load_sweep
from hkrun.store import Record, open_store
from hkrun.sweep import running


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
    store = open_store(folder / "hkrun-store")
    put_diverged_teacher(store, load_sweep("stability").cells[0].cell)
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


# --- a teacher for each seed --------------------------------------------------------------------------------

PAIRED = ["teacher.seeds=paired"]


class SentError(Exception):
    """The tasks are on their way."""


def send(folder, monkeypatch, *, sizes=None, seeds="4"):
    """The tasks of `stability` with a teacher for each seed, caught where they would go to the cluster."""
    caught = []

    def catch(work, _):
        caught.append(work)
        raise SentError

    monkeypatch.setattr(hkrun.cluster, "run_tasks", catch)
    sweep = load_sweep("stability", seeds=seeds, overrides=PAIRED)
    study = make_study(sweep, open_store(folder / "hkrun-store"), machine=TWO_SLOTS)
    study = dataclasses.replace(study, plan=study.plan.in_packs(sizes or {}, slots=2))
    with pytest.raises(SentError):
        running._train(study, Silent())
    return caught[0], study.plan


class Silent:
    """An observer that says nothing."""

    def plan_made(self, plan, *, slots):
        """Says nothing."""

    def entered(self, phase):
        """Says nothing."""


def test_each_run_waits_for_its_own_teacher_alone(folder, monkeypatch):
    work, _ = send(folder, monkeypatch)
    teachers = [task for task in work.tasks if not task.seeds]
    assert [task.cell.teacher.seed for task in teachers] == [0, 1, 2, 3]
    for index, task in enumerate(work.tasks):
        if task.seeds:
            (needed,) = work.needs[index]
            assert work.tasks[needed].cell.teacher.seed == task.seeds[0]
    assert len({task.name for task in work.tasks}) == len(work.tasks) == 4 + 16


def test_packs_wait_for_the_packs_of_their_teachers(folder, monkeypatch):
    cells = load_sweep("stability", overrides=PAIRED).cells
    group = teachers_id(cells[0].cell)
    first, *others = [cell_id(named.cell) for named in cells]
    work, _ = send(folder, monkeypatch, sizes={group: 3, first: 4, **dict.fromkeys(others, 2)})
    teachers = [task for task in work.tasks if not task.seeds]
    assert [task.teacher_seeds for task in teachers] == [(0, 1, 2), ()]
    assert list(teachers[0].teachers) == [
        teacher_id(cells[0].cell.with_teacher_of(seed)) for seed in (0, 1, 2)
    ]
    needs = {task.seeds: set(work.needs[index]) for index, task in enumerate(work.tasks) if task.seeds}
    assert needs == {(0, 1, 2, 3): {0, 1}, (0, 1): {0}, (2, 3): {0, 1}}


def test_runs_of_a_teacher_that_is_known_to_diverge_are_left_out_and_the_others_sent(folder, monkeypatch):
    cell = load_sweep("stability", overrides=PAIRED).cells[0].cell
    put_diverged_teacher(open_store(folder / "hkrun-store"), cell.with_teacher_of(1))
    work, plan = send(folder, monkeypatch)
    assert plan.num_to_run == 16
    assert sorted({seed for task in work.tasks for seed in task.seeds}) == [0, 2, 3]
    assert [task.cell.teacher.seed for task in work.tasks if not task.seeds] == [0, 2, 3]


@pytest.mark.parametrize("done", [True, False])
def test_a_sweep_that_lacks_only_runs_without_a_teacher_ends_with_its_report(folder, monkeypatch, done):
    sweep = load_sweep("stability", seeds="2", overrides=PAIRED)
    sweep = dataclasses.replace(sweep, cells=sweep.cells[:1])
    store = open_store(folder / "hkrun-store")
    put_diverged_teacher(store, sweep.cells[0].cell.with_teacher_of(1))
    study = make_study(sweep, store, machine=TWO_SLOTS)
    (cell,) = study.plan.cells
    record = Record(
        cell_id=cell.cell_id, seed=0, status="finished", epochs=1, device="cpu", threads=1, started_at=1.0
    )
    plan = dataclasses.replace(
        study.plan,
        cells=(dataclasses.replace(cell, records={0: record} if done else {}, to_run=(1,)),),
        packs=tuple(pack for pack in study.plan.packs if pack.seeds == (1,)),
        teachers=tuple(teacher for teacher in study.plan.teachers if teacher.seed == 1),
    )
    monkeypatch.setattr(hkrun.cluster, "run_tasks", None)
    study = dataclasses.replace(study, plan=plan)
    if done:
        (problem,) = running._train(study, Silent()).problems
        assert "diverged" in problem
    else:
        with pytest.raises(TrainingError, match="diverged"):
            running._train(study, Silent())


def test_teachers_alone_are_trained_beside_one_that_is_known_to_diverge(folder, monkeypatch):
    sweep = load_sweep("stability", seeds="3", overrides=PAIRED)
    store = open_store(folder / "hkrun-store")
    put_diverged_teacher(store, sweep.cells[0].cell.with_teacher_of(1))
    study = make_study(sweep, store, machine=TWO_SLOTS)
    study = dataclasses.replace(study, plan=dataclasses.replace(study.plan, cells=(), packs=()))
    sent = []

    def finish(work, _):
        sent.extend(task.cell.teacher.seed for task in work.tasks)
        return [TaskResult(outcomes=[{"status": "finished"}]) for _ in work.tasks]

    monkeypatch.setattr(hkrun.cluster, "run_tasks", finish)
    with pytest.raises(TrainingError, match="diverged"):
        running.train_teacher(study, Silent())
    assert sent == [0, 2]


def test_a_dry_run_names_several_teachers_in_one_line(folder, capsys):
    assert call(["sweep", "stability", *PAIRED, "--seeds", "4", "--pack", "2", "--dry-run"]) == 0
    told = capsys.readouterr()
    lines = (told.out + told.err).splitlines()
    (line,) = [line for line in lines if "teachers (" in line]
    assert line.startswith("4 teachers (preact-8-w32, 4 seeds from 0 to 3) to train, each before the runs")
    assert line.endswith("up to 2 together")
    assert sum(line.startswith("Teacher table of each of 4 teachers") for line in lines) == 1


def test_the_errors_of_several_teachers_are_printed(folder, capsys):
    store = open_store(folder / "hkrun-store")
    cell = load_cell(overrides=PAIRED).cells[0].cell
    for seed in (0, 1):
        put_teacher(store, cell.with_teacher_of(seed))
    assert call(["teacher", *PAIRED, "--seeds", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["teacher_id"] for each in told["teachers"]] == [
        teacher_id(cell.with_teacher_of(seed)) for seed in (0, 1)
    ]


@pytest.mark.slow
@pytest.mark.cluster
def test_a_sweep_of_several_teachers_from_its_start_to_its_report(folder, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    short = ["teacher.network=preact-8-w4", "teacher.epochs=2", "student.epochs=3", *PAIRED]
    command = ["sweep", "stability", *short, "--seeds", "4", "--yes", "--json"]
    assert call([*command, "--pack", "2"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [len(cell["seeds"]) for cell in told["cells"]] == [4] * 4
    assert told["teacher"]["n"] == 4
    assert [split["over"] for split in told["variance"]] == ["cells"]  # three epochs are no window
    store = open_store(folder / "hkrun-store")
    sweep = load_sweep("stability", overrides=short, seeds="4")
    for named in sweep.cells:
        for record in store.records(cell_id(named.cell)):
            own = store.teacher(teacher_id(named.cell.with_teacher_of(record.seed)))
            assert own is not None
            assert (record.teacher_id, record.teacher_hash) == (own.teacher_id, own.teacher_hash)
            assert own.pack == ((0, 1) if record.seed < 2 else (2, 3))
    assert call(["sweep", "stability", *short, "--seeds", "5", "--yes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [len(cell["seeds"]) for cell in told["cells"]] == [5] * 4
