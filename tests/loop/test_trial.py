"""A task from its start, or its checkpoint, to its records: what is kept, and what a failure costs."""

import contextlib
import dataclasses
import importlib.metadata
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from few_digits import load
from stopped_clock import StoppedClock
from task_example import make_task

from hkrun.config import Cell, canonical_json, cell_from_values, cell_id, teacher_canonical, teacher_id
from hkrun.distill import Run
from hkrun.errors import StoreError
from hkrun.models.sgd import SGD
from hkrun.stopwatch import Stopwatch
from hkrun.store import Store, open_store
from hkrun.teacher import TeacherRun
from hkrun.training import PeerLostError, SingleProcess
from hkrun.trial import Task, inputs, progress, provenance, teacher_task
from hkrun.trial import run as running
from hkrun.trial.curves import tabulate
from hkrun.trial.run import run_task
from hkrun.trial.run_warnings import find_discriminator_warnings

VALUES = {
    "dataset": "digits",
    "teacher.network": "preact-8-w4",
    "teacher.epochs": 2,
    "student.network": "preact-8-w4",
    "student.epochs": 3,
    "augment.padding": 1,
    "augment.flip": False,
    "teacher.batch_size": 64,
    "student.batch_size": 64,
}
pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(autouse=True)
def forget_teachers() -> Iterator[None]:
    """A process keeps teachers by store and cell; tests change stores behind its back."""
    inputs.load_teacher.cache_clear()
    yield
    inputs.load_teacher.cache_clear()


def make_cell(**values: object) -> Cell:
    return cell_from_values({**VALUES, **{k.replace("__", "."): v for k, v in values.items()}})  # type: ignore[dict-item]


def curves(store: Store, cell: Cell, seed: int) -> dict[str, list[float]]:
    """The curves of a run without the clock."""
    return store.curves(cell_id(cell), seed).drop(["seconds"]).to_pydict()  # type: ignore[no-any-return]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture(scope="module")
def taught_once(few_digits: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with the teacher, to be copied."""
    store = open_store(tmp_path_factory.mktemp("taught") / "store")
    (outcome,) = run_task(make_task(store, make_cell()), SingleProcess())
    assert outcome["status"] == "finished"
    return Path(store.uri)


@pytest.fixture
def taught(taught_once: Path, tmp_path: Path) -> Store:
    """A store with the teacher."""
    shutil.copytree(taught_once, tmp_path / "store")
    return open_store(tmp_path / "store")


def test_teacher_leaves_its_weights_with_their_hash(taught: Store) -> None:
    cell = make_cell()
    record = taught.teacher(teacher_id(cell))
    assert record is not None
    assert record.config == json.loads(json.dumps(teacher_canonical(cell)))
    assert record.epochs == 2
    assert 0 <= record.train_error_pct <= 100
    place = inputs.TeacherPlace(taught.uri, record.teacher_id, "cpu", cell, None)
    network, digest = inputs.load_teacher(place)
    assert digest == record.teacher_hash
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_teacher_is_trained_once(taught: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_task, "train_teachers", None)  # calling it would raise
    (outcome,) = run_task(make_task(taught, make_cell()), SingleProcess())
    assert outcome["status"] == "finished"


def test_run_leaves_record_curves_and_student(taught: Store) -> None:
    cell = make_cell()
    outcomes = run_task(make_task(taught, cell, 0, 4), SingleProcess())
    assert [(o["seed"], o["status"], o["epochs"]) for o in outcomes] == [
        (0, "finished", 3),
        (4, "finished", 3),
    ]
    for outcome in outcomes:
        seed = int(str(outcome["seed"]))
        record = taught.record(cell_id(cell), seed)
        assert record is not None
        errors = curves(taught, cell, seed)["error_pct"]
        assert (record.error_last_pct, record.error_best_pct) == (errors[-1], min(errors))
        assert outcome["error_last_pct"] == record.error_last_pct
        assert record.pack == (0, 4)
        assert record.threads == 1
        assert record.versions["torch"] == importlib.metadata.version("torch")
        teacher = taught.teacher(teacher_id(cell))
        assert teacher is not None
        assert record.teacher_hash == teacher.teacher_hash
    stored = Path(str(taught.local_path)) / "cells" / cell_id(cell) / "cell.json"
    assert stored.read_text() == canonical_json(cell)


def test_a_students_weights_are_those_that_were_evaluated(taught: Store) -> None:
    import io

    from hkrun.data.views import normalise
    from hkrun.models import build_network

    cell = make_cell()
    run_task(make_task(taught, cell, 0), SingleProcess())
    data = load("digits", data_dir=None)
    backbone = build_network(cell.student.network, num_classes=10, in_channels=1).eval()
    backbone.load_state_dict(torch.load(io.BytesIO(taught.student(cell_id(cell), 0)), weights_only=True))
    with torch.no_grad():
        images = normalise(data.test.images, mean=data.mean, std=data.std, dtype=torch.float32)
        wrong = (backbone(images).logits.argmax(1) != data.test.labels).sum()
    record = taught.record(cell_id(cell), 0)
    assert record is not None
    assert record.error_last_pct == pytest.approx(100 * int(wrong) / len(data.test.labels), abs=1e-9)


def test_a_table_that_is_filled_ahead_tells_how_far_it_is_before_the_first_epoch(
    taught: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "REPORT_EVERY_S", 0.0)
    told: list[dict[str, object]] = []
    monkeypatch.setattr(SingleProcess, "report", lambda _, report: told.append(report))
    run_task(dataclasses.replace(make_task(taught, make_cell(), 0), table="ahead"), SingleProcess())
    shares = [report["filled"] for report in told if "filled" in report]
    assert shares == sorted(shares)  # type: ignore[type-var]
    assert shares[-1] == 1.0
    assert all("filled" in report for report in told[: len(shares)])
    assert [report["epoch"] for report in told[len(shares) :]] == [1, 2, 3]


def test_a_run_with_a_result_is_not_repeated(taught: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(taught, make_cell(), 0)
    first = run_task(task, SingleProcess())
    monkeypatch.setattr(running, "distill", None)
    (again,) = run_task(task, SingleProcess())
    assert again.pop("seconds").keys() == {"inputs"}
    assert again == {name: value for name, value in first[0].items() if name != "seconds"}


def test_failing_runs_keep_their_traceback_and_leave_those_alone_that_have_a_result(
    taught: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell()
    run_task(make_task(taught, cell, 1), SingleProcess())

    def fail(_runs: list[Run], **_kwargs: object) -> None:
        raise ZeroDivisionError("a planted fault")

    monkeypatch.setattr(running, "distill", fail)
    outcomes = run_task(make_task(taught, cell, 0, 1, 2), SingleProcess())
    assert [o["status"] for o in outcomes] == ["failed", "finished", "failed"]
    for seed in (0, 2):
        assert outcomes[seed]["message"] == "ZeroDivisionError: a planted fault"
        record = taught.record(cell_id(cell), seed)
        assert record is not None
        assert 'ZeroDivisionError("a planted fault")' in str(record.traceback)
        assert record.error_last_pct is None
        assert record.pack == (0, 2)


def test_a_failed_run_is_tried_again(taught: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(taught, make_cell(), 0)
    with monkeypatch.context() as patch:
        patch.setattr(running, "distill", None)
        assert run_task(task, SingleProcess())[0]["status"] == "failed"
    assert run_task(task, SingleProcess())[0]["status"] == "finished"


def test_a_failed_run_goes_on_from_its_checkpoint(
    taught: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "CHECKPOINT_EVERY_S", 0.0)
    cell, original = make_cell(), progress.Watch.epoch_done
    task = make_task(taught, cell, 0)

    def fail_after_two(watch: object, runs: list[Run]) -> None:
        original(watch, runs)  # type: ignore[arg-type]
        if runs[0].epoch == 2:
            raise MemoryError("a planted fault")

    with monkeypatch.context() as patch:
        patch.setattr(progress.Watch, "epoch_done", fail_after_two)
        assert run_task(task, SingleProcess())[0]["status"] == "failed"
    assert run_task(task, SingleProcess())[0]["status"] == "finished"
    record = taught.record(task.cell_id, 0)
    assert record is not None
    assert record.resumed == 1
    undisturbed = open_store(tmp_path / "undisturbed")
    for seeds in ((), (0,)):
        run_task(make_task(undisturbed, cell, *seeds), SingleProcess())
    assert curves(taught, cell, 0) == curves(undisturbed, cell, 0)


def test_a_failing_worker_ends_its_group_and_the_first_traceback_stands(
    taught: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "share_from_first", lambda read, _: read())  # there is no group here
    task = make_task(taught, make_cell(), 0)
    second = running.Trial(task, SingleProcess(1, 2), Stopwatch("inputs"))
    first = running.Trial(task, SingleProcess(0, 2), Stopwatch("inputs"))

    def fail(_seeds: object) -> None:
        monkeypatch.setattr(second, "_train", lambda _seeds: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            second.run()
        raise RuntimeError("connection closed by peer")

    monkeypatch.setattr(first, "_train", fail)
    with pytest.raises(RuntimeError, match="closed by peer"):
        first.run()
    record = taught.record(task.cell_id, 0)
    assert record is not None
    assert record.status == "failed"
    assert "ZeroDivisionError" in str(record.traceback)


def test_a_run_whose_worker_is_lost_has_not_failed(taught: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "share_from_first", lambda read, _: read())
    trial = running.Trial(make_task(taught, make_cell(), 0), SingleProcess(0, 2), Stopwatch("inputs"))

    def lose(_seeds: object) -> None:
        raise PeerLostError("connection closed by peer")

    monkeypatch.setattr(trial, "_train", lose)
    with pytest.raises(PeerLostError):
        trial.run()
    assert taught.record(trial.task.cell_id, 0) is None  # it goes on from its checkpoint


def test_a_record_says_how_many_workers_trained_which_epochs(taught: Store) -> None:
    task = make_task(taught, make_cell(), 0)
    one = provenance.Provenance(task, world_size=4)
    assert "world_sizes" not in one.fields()
    for world_size, epoch in ((4, 3), (2, 5), (2, 7), (1, 7)):
        before, one = one, provenance.Provenance(task, world_size=world_size)
        one.resume(before.state(), epoch=epoch)
    assert one.fields()["world_size"] == 1
    assert one.fields()["world_sizes"] == {"1": 4, "6": 2, "8": 1}
    assert [alarm.partition(",")[0] for alarm in one.alarms] == [
        "resumed after epoch 5",
        "resumed after epoch 7",
    ]


@pytest.mark.parametrize(("world_size", "num_saved"), [(1, 1), (2, 3)])
def test_a_group_saves_each_epoch_that_is_longer_than_the_interval(
    monkeypatch: pytest.MonkeyPatch, world_size: int, num_saved: int
) -> None:
    clock = StoppedClock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    saved: list[int] = []
    learner = SimpleNamespace(seed=0, history=[], diverged=None)
    watch = progress.Watch(
        SingleProcess(0, world_size),
        [learner],
        epochs=9,
        save=lambda: (saved.append(len(learner.history)), clock.advance(2.0)),  # type: ignore[arg-type,return-value]
        stopwatch=Stopwatch("epochs", clock=clock),
    )
    for _ in range(3):
        clock.advance(6.0)
        learner.history.append({"error_pct": 1.0})
        watch.epoch_done([learner])
    assert saved == list(range(1, num_saved + 1))


def test_the_epochs_of_a_pack_are_told_wherever_its_runs_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """One was resumed with others, and one diverged, whose remaining epochs no longer count."""
    told: list[Mapping[str, object]] = []
    monkeypatch.setattr(SingleProcess, "report", lambda _, report: told.append(report))
    monkeypatch.setattr(progress, "REPORT_EVERY_S", 0.0)
    behind, ahead, lost = (
        SimpleNamespace(history=[{"error_pct": 1.0 * epochs}] * epochs, diverged=None) for epochs in (0, 5, 0)
    )
    watch = progress.Watch(
        SingleProcess(),
        [behind, ahead, lost],
        epochs=8,
        save=lambda: None,
        stopwatch=Stopwatch("epochs"),
    )
    behind.history, lost.history = [{"error_pct": 4.0}], [{"error_pct": 6.0}]
    watch.epoch_done([behind, lost])
    lost.diverged = "its loss is nan"
    behind.history = [*behind.history, {"error_pct": 3.0}]
    watch.epoch_done([behind])
    assert [
        (report["epoch"], report["epochs_done"], report["epochs_total"], report["error_pct"])
        for report in told
    ] == [(1, 0 + 1 + 5 + 1, 3 * 8, 5.0), (2, 2 + 5 + 1, 8 + 8 + 1, 3.0)]


def test_an_alarm_outlives_a_second_resumption(taught: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "CHECKPOINT_EVERY_S", 0.0)
    task, original = make_task(taught, make_cell(student__epochs=6), 0), progress.Watch.epoch_done

    def stop_after(epochs: int) -> None:
        def epoch_done(watch: object, runs: list[Run]) -> None:
            original(watch, runs)  # type: ignore[arg-type]
            if runs[0].epoch == epochs:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(progress.Watch, "epoch_done", epoch_done)
            with pytest.raises(KeyboardInterrupt):
                run_task(task, SingleProcess())

    stop_after(2)
    genuine = provenance.describe_environment
    monkeypatch.setattr(
        provenance, "describe_environment", lambda *args, **given: genuine(*args, **given) | {"device": "x"}
    )
    stop_after(4)
    run_task(task, SingleProcess())
    record = taught.record(task.cell_id, 0)
    assert record is not None
    assert record.resumed == 2
    assert [("after epoch 2" in alarm, "device" in alarm) for alarm in record.alarms[:1]] == [(True, True)]


def test_a_diverged_run_is_recorded_with_its_epoch_and_never_has_an_error(taught: Store) -> None:
    cell = make_cell(student__learning_rate=1e30)
    (outcome,) = run_task(make_task(taught, cell, 0), SingleProcess())
    record = taught.record(cell_id(cell), 0)
    assert record is not None
    assert outcome["status"] == record.status == "diverged"
    assert record.diverged_epoch == record.epochs + 1
    assert record.error_last_pct is None
    assert record.error_best_pct is None
    assert f"in epoch {record.diverged_epoch}" in str(outcome["message"])


def test_a_run_whose_very_last_step_breaks_it_has_diverged(
    taught: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell()
    original = SGD.step
    steps = []

    def step(optimizer: SGD, *args: object) -> None:
        original(optimizer, *args)  # type: ignore[arg-type]
        steps.append(optimizer)
        if len(steps) == 2 * 3 * 2:  # both optimisers, three epochs, two batches: the student steps last
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0].fill_(float("nan"))

    monkeypatch.setattr(SGD, "step", step)
    (outcome,) = run_task(make_task(taught, cell, 0), SingleProcess())
    assert outcome["status"] == "diverged"
    assert "not numbers after epoch 3" in str(outcome["message"])


def test_cells_with_one_teacher_share_it(taught: Store) -> None:
    for values in ({}, {"loss__lambda_2": 0.0}, {"loss__lambda_3": 0.0}):
        run_task(make_task(taught, make_cell(**values), 0), SingleProcess())
    assert inputs.load_teacher.cache_info().misses == 1


def test_a_diverged_teacher_is_no_teacher_and_is_not_trained_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell(teacher__learning_rate=1e30)
    (outcome,) = run_task(make_task(store, cell), SingleProcess())
    assert outcome["status"] == "diverged"
    assert store.teacher(teacher_id(cell)) is None
    record = store.diverged_teacher(teacher_id(cell))
    assert record is not None
    assert record.diverged_epoch == record.epochs + 1
    assert f"in epoch {record.diverged_epoch}" in record.message
    monkeypatch.setattr(teacher_task, "train_teachers", None)  # calling it would raise
    (again,) = run_task(make_task(store, cell), SingleProcess())
    assert {**again, "seconds": outcome["seconds"]} == outcome


def test_a_teacher_whose_weights_are_damaged_is_trained_to_the_same_again(
    taught: Store, caplog: pytest.LogCaptureFixture
) -> None:
    cell = make_cell()
    run_task(make_task(taught, cell, 0), SingleProcess())
    before = taught.teacher(teacher_id(cell))
    assert before is not None
    weights = Path(str(taught.local_path), "teachers", before.teacher_id, "weights.pt")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    run_task(make_task(taught, cell), SingleProcess())
    assert "the teacher is trained again" in caplog.text
    after = taught.whole_teacher(before.teacher_id)
    assert after is not None
    assert after.teacher_hash == before.teacher_hash


def test_a_run_without_its_teacher_says_which(store: Store) -> None:
    cell = make_cell()
    with pytest.raises(StoreError, match=f"teachers/{teacher_id(cell)}: no such teacher"):
        run_task(make_task(store, cell, 0), SingleProcess())


def test_a_teacher_with_other_weights_than_its_record_says_is_refused(taught: Store) -> None:
    cell = make_cell()
    record = taught.teacher(teacher_id(cell))
    assert record is not None
    forged = dataclasses.replace(record, teacher_hash="0" * 64)
    weights = taught.teacher_weights(record.teacher_id)
    table = tabulate([{"epoch": 1, "error_pct": 1.0}])
    taught.put_teacher(forged, weights=weights, curves=table)
    with pytest.raises(StoreError, match="the weights are not those of its record"):
        run_task(make_task(taught, cell, 0), SingleProcess())


def test_settings_of_the_process_are_restored(taught: Store) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(2)
    try:
        run_task(make_task(taught, make_cell(), 0), SingleProcess())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before[0])
    assert torch.are_deterministic_algorithms_enabled() == before[1]


@pytest.mark.parametrize(
    ("spread", "accuracy", "alarm"), [(1e-5, 0.5, "constant"), (0.4, 1.0, "wins outright"), (0.05, 0.6, None)]
)
def test_alarms_name_a_discriminator_that_teaches_nothing(
    spread: float, accuracy: float, alarm: str | None
) -> None:
    row = {
        "discriminator_student_mean": 0.5,
        "discriminator_spread": spread,
        "discriminator_accuracy": accuracy,
    }
    alarms = find_discriminator_warnings([row] * 20)
    assert [alarm in text for text in alarms] == ([True] if alarm else [])  # type: ignore[operator]


def test_summed_weight_norms_make_a_constant_discriminator_and_the_run_says_so(taught: Store) -> None:
    cell = make_cell(
        loss__reg_reduction="sum", discriminator__learning_rate=0.1, student__epochs=16, student__drops=()
    )
    run_task(make_task(taught, cell, 0), SingleProcess())
    record = taught.record(cell_id(cell), 0)
    assert record is not None
    assert any("constant" in alarm for alarm in record.alarms)


# --- kills ------------------------------------------------------------------------------------------------

WORKER = """
import pickle, sys
import few_digits
from hkrun.trial import inputs, progress
inputs.load_dataset = few_digits.load
from hkrun.trial.run import run_task
from hkrun.training import SingleProcess
progress.CHECKPOINT_EVERY_S = 0.0
task = pickle.loads(bytes.fromhex(sys.argv[1]))
class Loud(SingleProcess):
    def report(self, progress):
        print(progress["epoch"], flush=True)
progress.REPORT_EVERY_S = 0.0
run_task(task, Loud())
"""


def start_process(task: Task) -> "subprocess.Popen[str]":
    import pickle

    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-c", WORKER, pickle.dumps(task).hex()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def kill_after(task: Task, epochs: int, delay_s: float) -> None:
    """Runs a task in a process of its own and kills it some time after some epochs."""
    process = start_process(task)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= epochs:
            break
    time.sleep(delay_s)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def finish(task: Task) -> None:
    process = start_process(task)
    assert process.communicate()[0] is not None
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("seeds", "kills"),
    [((3, 0, 7), 1), pytest.param((3,), 4, marks=pytest.mark.slow)],
    ids=["a pack once", "one alone again and again"],
)
def test_killed_runs_end_as_if_undisturbed(
    taught_once: Path, tmp_path: Path, seeds: tuple[int, ...], kills: int
) -> None:
    cell = make_cell(student__epochs=24)
    for name in ("undisturbed", "killed"):
        shutil.copytree(taught_once, tmp_path / name)
    undisturbed, killed = open_store(tmp_path / "undisturbed"), open_store(tmp_path / "killed")
    run_task(make_task(undisturbed, cell, *seeds), SingleProcess())
    random = np.random.default_rng(11)
    for _ in range(kills):
        kill_after(make_task(killed, cell, *seeds), 2, float(random.uniform(0, 0.3)))
    assert killed.record(cell_id(cell), 3) is None, "the kill came too late to show anything"
    run_task(make_task(killed, cell, *seeds), SingleProcess())
    for seed in seeds:
        record = killed.record(cell_id(cell), seed)
        assert record is not None
        assert record.resumed == kills
        assert record.alarms == ()
        assert curves(killed, cell, seed) == curves(undisturbed, cell, seed)
        assert killed.student(cell_id(cell), seed) == undisturbed.student(cell_id(cell), seed)


def stop_pack(task: Task, monkeypatch: pytest.MonkeyPatch, *, epoch: int, saved: int | None = None) -> None:
    """Ends a task in an epoch after its checkpoints, or after the first few of them, were saved."""
    monkeypatch.setattr(progress, "CHECKPOINT_EVERY_S", 0.0)
    original, done = running.save_checkpoint, 0

    def save(*args: object, **options: object) -> None:
        nonlocal done
        if options["epoch"] == epoch and done == saved:
            raise KeyboardInterrupt
        original(*args, **options)  # type: ignore[arg-type]
        done += options["epoch"] == epoch
        if saved is None and done == len(task.seeds):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "save_checkpoint", save)
        with pytest.raises(KeyboardInterrupt):
            run_task(task, SingleProcess())


@pytest.fixture(scope="module")
def undisturbed(taught_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which the seeds 0 to 2 were trained together for four epochs."""
    folder = tmp_path_factory.mktemp("undisturbed") / "store"
    shutil.copytree(taught_once, folder)
    store = open_store(folder)
    run_task(make_task(store, make_cell(student__epochs=4), 0, 1, 2), SingleProcess())
    return store


@pytest.mark.parametrize(("epoch", "resumed"), [(1, 0), (2, 1)])
def test_a_kill_between_two_checkpoints_of_a_pack_parts_it_for_no_epoch(
    taught: Store, undisturbed: Store, monkeypatch: pytest.MonkeyPatch, epoch: int, resumed: int
) -> None:
    cell = make_cell(student__epochs=4)
    task = make_task(taught, cell, 0, 1, 2)
    stop_pack(task, monkeypatch, epoch=epoch, saved=2)
    run_task(task, SingleProcess())
    for seed in task.seeds:
        record = taught.record(task.cell_id, seed)
        assert record is not None
        assert (record.resumed, record.pack, record.alarms) == (resumed, task.seeds, ())
        assert curves(taught, cell, seed) == curves(undisturbed, cell, seed)


def test_a_pack_resumed_as_smaller_ones_says_so_and_errs_the_same(
    taught: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell(student__epochs=4, precision="float64")
    undisturbed = open_store(tmp_path / "undisturbed")
    for store, seeds in ((undisturbed, ()), (undisturbed, (0, 1, 2, 3)), (taught, ())):
        run_task(make_task(store, cell, *seeds), SingleProcess())
    stop_pack(make_task(taught, cell, 0, 1, 2, 3), monkeypatch, epoch=2)
    for seeds in ((0, 1), (2, 3)):
        run_task(make_task(taught, cell, *seeds), SingleProcess())
        for seed in seeds:
            record = taught.record(cell_id(cell), seed)
            assert record is not None
            assert record.pack == seeds
            assert record.alarms == ("resumed after epoch 2, not bit-identical: another pack",)
            ours, theirs = curves(taught, cell, seed), curves(undisturbed, cell, seed)
            assert ours["error_pct"] == theirs["error_pct"]
            assert ours["loss_total"] == pytest.approx(theirs["loss_total"], rel=1e-9)


def test_runs_begun_alone_go_on_in_a_pack_without_losing_an_epoch(
    taught: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell(student__epochs=4)
    stop_pack(make_task(taught, cell, 1), monkeypatch, epoch=2)
    run_task(make_task(taught, cell, 0, 1, 2), SingleProcess())
    records = [taught.record(cell_id(cell), seed) for seed in (0, 1, 2)]
    assert [record.resumed for record in records if record] == [0, 1, 0]
    assert [record.epochs for record in records if record] == [4, 4, 4]
    apart = "caught up with its pack, not bit-identical: took epochs without the others"
    assert [record.alarms for record in records if record] == [
        (apart,),
        ("resumed after epoch 2, not bit-identical: another pack",),
        (apart,),
    ]


def test_a_run_that_diverges_is_recorded_at_once_and_the_others_go_on(
    taught: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, original = make_cell(), running.start_run

    def start_run(cell: Cell, dataset: object, seed: int, **options: object) -> Run:
        run = original(cell, dataset, seed, **options)  # type: ignore[arg-type]
        if seed == 1:
            with torch.no_grad():
                next(run.student.backbone.parameters()).fill_(float("inf"))
        return run

    monkeypatch.setattr(running, "start_run", start_run)
    outcomes = run_task(make_task(taught, cell, 0, 1, 2), SingleProcess())
    assert [outcome["status"] for outcome in outcomes] == ["finished", "diverged", "finished"]
    diverged = taught.record(cell_id(cell), 1)
    assert diverged is not None
    assert (diverged.diverged_epoch, diverged.epochs) == (1, 0)


def test_a_member_whose_checkpoints_are_all_damaged_costs_the_others_nothing(
    taught: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell(student__epochs=5)
    task = make_task(taught, cell, 0, 1, 2)
    stop_pack(task, monkeypatch, epoch=3)
    folder = Path(str(taught.local_path), taught.run_folder(task.cell_id, 1), "checkpoints")
    for checkpoint in folder.glob("*.pt"):
        checkpoint.write_bytes(b"damaged")
    run_task(task, SingleProcess())
    records = [taught.record(task.cell_id, seed) for seed in task.seeds]
    assert [record.resumed for record in records if record] == [1, 0, 1]
    assert [len(record.alarms) for record in records if record] == [0, 1, 0]


def test_a_kill_after_a_divergence_leaves_the_others_as_they_would_have_been(
    taught: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, original = make_cell(student__epochs=6), running.distill

    def distill(runs: list[Run], **options: object) -> None:
        """Seed 1 diverges in its fourth epoch."""
        on_epoch = options["on_epoch"]

        def poison(together: list[Run]) -> None:
            for run in together:
                if run.seed == 1 and run.epoch == 3:
                    with torch.no_grad():
                        next(run.student.backbone.parameters()).fill_(float("nan"))
            on_epoch(together)  # type: ignore[operator]

        original(runs, **{**options, "on_epoch": poison})  # type: ignore[arg-type]

    monkeypatch.setattr(running, "distill", distill)
    undisturbed = open_store(tmp_path / "undisturbed")
    for seeds in ((), (0, 1, 2)):
        run_task(make_task(undisturbed, cell, *seeds), SingleProcess())
    task, watching = make_task(taught, cell, 0, 1, 2), progress.Watch.epoch_done

    def kill_at_five(watch: object, runs: list[Run]) -> None:
        watching(watch, runs)  # type: ignore[arg-type]
        if runs[0].epoch == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress.Watch, "epoch_done", kill_at_five)
        with pytest.raises(KeyboardInterrupt):
            run_task(task, SingleProcess())
    assert [outcome["status"] for outcome in run_task(task, SingleProcess())] == [
        "finished",
        "diverged",
        "finished",
    ]
    for seed in (0, 2):
        record = taught.record(task.cell_id, seed)
        assert record is not None
        assert (record.resumed, record.alarms) == (1, ())
        assert curves(taught, cell, seed) == curves(undisturbed, cell, seed)


def test_runs_that_train_together_are_charged_with_their_share_of_the_time(taught: Store) -> None:
    cell = make_cell()
    began = time.perf_counter()
    run_task(make_task(taught, cell, 0, 1, 2), SingleProcess())
    whole = time.perf_counter() - began
    records = [taught.record(cell_id(cell), seed) for seed in (0, 1, 2)]
    shares = [record.timings["total"] for record in records if record]
    assert 0 < sum(shares) <= whole
    assert max(shares) < whole / 2


@pytest.mark.slow
def test_a_killed_teacher_ends_as_if_undisturbed(tmp_path: Path) -> None:
    cell = make_cell(teacher__epochs=30, teacher__backbone="shared")
    undisturbed, killed = open_store(tmp_path / "undisturbed"), open_store(tmp_path / "killed")
    finish(make_task(undisturbed, cell))
    kill_after(make_task(killed, cell), 2, 0.0)
    kill_after(make_task(killed, cell), 1, 0.1)
    finish(make_task(killed, cell))
    hashes = [store.teacher(teacher_id(cell)) for store in (undisturbed, killed)]
    assert hashes[0] is not None
    assert hashes[1] is not None
    assert hashes[0].teacher_hash == hashes[1].teacher_hash
    assert [(record.resumed, record.threads, record.world_size) for record in hashes if record] == [
        (0, 1, 1),
        (2, 1, 1),
    ]


@pytest.mark.slow
def test_two_drivers_with_the_same_work_leave_one_teacher_and_one_run_of_it(tmp_path: Path) -> None:
    store, cell = open_store(tmp_path / "store"), make_cell(teacher__epochs=16, student__epochs=30)
    # As on two machines, where the same teacher comes out differently.
    elsewhere = make_cell(teacher__epochs=16, student__epochs=30, teacher__seed=9)
    for task, twin in (
        (make_task(store, cell), dataclasses.replace(make_task(store, cell), cell=elsewhere)),
        (make_task(store, cell, 3), make_task(store, cell, 3)),
    ):
        processes = [start_process(task), start_process(twin)]
        for process in processes:
            process.communicate()
        assert [process.returncode for process in processes] == [0, 0]
    assert not Path(str(store.local_path), store.run_folder(cell_id(cell), 3), "checkpoints").exists()
    teacher, record = store.whole_teacher(teacher_id(cell)), store.record(cell_id(cell), 3)
    assert teacher is not None
    assert record is not None
    assert (record.status, record.teacher_hash) == ("finished", teacher.teacher_hash)


def test_a_checkpoint_of_another_teacher_is_not_gone_on_with(
    taught: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell()
    task = make_task(taught, cell, 0)
    stop_pack(task, monkeypatch, epoch=2)
    record = taught.teacher(teacher_id(cell))
    assert record is not None
    Path(str(taught.local_path), "teachers", record.teacher_id, "manifest.json").unlink()
    other = make_cell(teacher__seed=9)
    run_task(make_task(taught, other), SingleProcess())
    foreign = taught.teacher(teacher_id(other))
    assert foreign is not None
    taught.put_teacher(
        dataclasses.replace(foreign, teacher_id=record.teacher_id),
        weights=taught.teacher_weights(foreign.teacher_id),
        curves=tabulate([{"epoch": 1, "error_pct": 1.0}]),
    )
    inputs.load_teacher.cache_clear()
    run_task(task, SingleProcess())
    assert "begins anew" in caplog.text
    finished = taught.record(cell_id(cell), 0)
    assert finished is not None
    assert (finished.resumed, finished.teacher_hash) == (0, foreign.teacher_hash)


# --- a teacher for each seed --------------------------------------------------------------------------------


def teach(store: Store, cell: Cell, *seeds: int) -> None:
    """Trains the teachers of some seeds."""
    for seed in seeds:
        (outcome,) = run_task(make_task(store, cell.with_teacher_of(seed)), SingleProcess())
        assert outcome["status"] == "finished"


@pytest.mark.parametrize("table", ["float32", "off"])
def test_a_seed_with_its_own_teacher_is_the_run_of_a_study_of_that_one_teacher(
    store: Store, table: str
) -> None:
    paired = make_cell(teacher__seeds="paired", teacher_table=table)
    teach(store, paired, 2)
    run_task(make_task(store, paired, 2), SingleProcess())
    one = make_cell(teacher__seed=2, teacher_table=table)
    run_task(make_task(store, one, 2), SingleProcess())
    assert curves(store, paired, 2) == curves(store, one, 2)
    records = [store.record(cell_id(cell), 2) for cell in (paired, one)]
    assert records[0] is not None
    assert records[1] is not None
    assert records[0].teacher_id == records[1].teacher_id == teacher_id(one)
    assert records[0].teacher_hash == records[1].teacher_hash


OWN_SEEDS = (0, 1, 2)


def of_own_teachers(table: str, **values: object) -> Cell:
    return make_cell(teacher_table=table, precision="float64", **values)


@pytest.fixture(scope="module")
def taught_own(few_digits: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with a teacher for each of OWN_SEEDS, to be copied."""
    store = open_store(tmp_path_factory.mktemp("own") / "store")
    teach(store, of_own_teachers("off", teacher__seeds="paired"), *OWN_SEEDS)
    return Path(store.uri)


@pytest.fixture(scope="module", params=["float32", "off"])
def alone(
    request: pytest.FixtureRequest, taught_own: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[int, dict[str, list[float]]]]:
    """Whether there is a table, and the curves of each seed in a study of its teacher alone."""
    folder = tmp_path_factory.mktemp("alone") / "store"
    shutil.copytree(taught_own, folder)
    store, found = open_store(folder), {}
    for seed in OWN_SEEDS:
        one = of_own_teachers(request.param, teacher__seed=seed)
        run_task(make_task(store, one, seed), SingleProcess())
        found[seed] = curves(store, one, seed)
    return request.param, found


@pytest.mark.parametrize("ahead", ["ahead", "first_use"])
def test_runs_of_a_pack_read_what_their_own_teachers_say(
    taught_own: Path, alone: tuple[str, dict[int, dict[str, list[float]]]], tmp_path: Path, ahead: str
) -> None:
    shutil.copytree(taught_own, tmp_path / "store")
    store, (table, expected_of) = open_store(tmp_path / "store"), alone
    paired = of_own_teachers(table, teacher__seeds="paired")
    run_task(make_task(store, paired, *OWN_SEEDS, table=ahead), SingleProcess())
    for seed, expected in expected_of.items():
        packed = curves(store, paired, seed)
        assert packed["error_pct"] == expected["error_pct"]
        for name in set(expected) - {"error_top5_pct"}:
            np.testing.assert_allclose(packed[name], expected[name], rtol=1e-8, atol=1e-8)
        record = store.record(cell_id(paired), seed)
        assert record is not None
        one = of_own_teachers(table, teacher__seed=seed)
        assert (record.teacher_id, record.pack) == (teacher_id(one), OWN_SEEDS)
    whole = [path.with_name("table.json") for path in (Path(store.uri) / "tables").glob("*/manifest.json")]
    taught_ahead = {json.loads(path.read_text())["teacher_id"] for path in whole}
    wanted = OWN_SEEDS if (table, ahead) == ("float32", "ahead") else ()
    assert taught_ahead == {teacher_id(paired.with_teacher_of(seed)) for seed in wanted}


def test_students_of_one_teacher_in_a_pack_share_it(store: Store) -> None:
    shared = make_cell(teacher__seeds="paired", teacher__students=2)
    teach(store, shared, 0, 2)
    outcomes = run_task(make_task(store, shared, 0, 1, 2), SingleProcess())
    assert [outcome["status"] for outcome in outcomes] == ["finished"] * 3
    records = [store.record(cell_id(shared), seed) for seed in (0, 1, 2)]
    first, second, third = (record.teacher_id for record in records if record is not None)
    assert first == second != third


def test_a_run_whose_teacher_is_missing_is_left_out_and_the_others_go_on(store: Store) -> None:
    paired = make_cell(teacher__seeds="paired")
    teach(store, paired, 0, 2)
    outcomes = run_task(make_task(store, paired, 0, 1, 2), SingleProcess())
    assert [outcome["status"] for outcome in outcomes] == ["finished", "untaught", "finished"]
    lost = teacher_id(paired.with_teacher_of(1))
    assert outcomes[1]["message"] == f"its teacher {lost} was not trained"
    assert store.record(cell_id(paired), 1) is None
    records = store.records(cell_id(paired))
    assert [record.pack for record in records] == [(0, 2), (0, 2)]


def test_a_pack_of_several_teachers_that_was_killed_ends_as_if_undisturbed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    paired = make_cell(teacher__seeds="paired", teacher_table="off")
    teach(store, paired, 0, 1)
    monkeypatch.setattr(progress, "CHECKPOINT_EVERY_S", 0.0)
    run_task(make_task(store, paired, 0, 1), SingleProcess())
    undisturbed = [curves(store, paired, seed) for seed in (0, 1)]
    original = progress.Watch.epoch_done

    class KilledError(BaseException):
        pass

    def kill(watch: progress.Watch, learners: list[Run]) -> None:
        original(watch, learners)
        raise KilledError

    other = open_store(Path(store.uri).parent / "other")
    teach(other, paired, 0, 1)
    monkeypatch.setattr(progress.Watch, "epoch_done", kill)
    with pytest.raises(KilledError):
        run_task(make_task(other, paired, 0, 1), SingleProcess())
    monkeypatch.setattr(progress.Watch, "epoch_done", original)
    run_task(make_task(other, paired, 0, 1), SingleProcess())
    assert [curves(other, paired, seed) for seed in (0, 1)] == undisturbed
    record = other.record(cell_id(paired), 0)
    assert record is not None
    assert record.resumed == 1


def teacher_curves(store: Store, cell: Cell, seed: int) -> dict[str, list[float]]:
    folder = store.teacher_folder(teacher_id(cell.with_teacher_of(seed)))
    table = pq.read_table(io.BytesIO(store.read(folder, "curves.parquet")))
    return table.drop(["seconds"]).to_pydict()  # type: ignore[no-any-return]


def test_teachers_trained_together_leave_records_of_their_own(store: Store, tmp_path: Path) -> None:
    paired = make_cell(teacher__seeds="paired", precision="float64")
    task = make_task(store, paired.with_teacher_of(0), teacher_seeds=(0, 1, 2))
    outcomes = run_task(task, SingleProcess())
    assert [(o["seed"], o["status"], o["epochs"]) for o in outcomes] == [(None, "finished", 2)] * 3
    alone = open_store(tmp_path / "alone")
    teach(alone, paired, 0, 1, 2)
    for seed in (0, 1, 2):
        record = store.teacher(teacher_id(paired.with_teacher_of(seed)))
        assert record is not None
        assert record.pack == (0, 1, 2)
        assert record.config["teacher.seed"] == seed
        packed, single = (teacher_curves(place, paired, seed) for place in (store, alone))
        assert packed["error_pct"] == single["error_pct"]
        np.testing.assert_allclose(packed["loss_total"], single["loss_total"], rtol=1e-8)
    run_task(make_task(store, paired, 0, 1, 2), SingleProcess())
    assert [record.status for record in store.records(cell_id(paired))] == ["finished"] * 3


def test_teachers_trained_together_that_were_killed_end_as_if_undisturbed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "CHECKPOINT_EVERY_S", 0.0)
    cell = make_cell(teacher__epochs=3)
    killed = open_store(tmp_path / "killed")
    undisturbed, disturbed = (make_task(place, cell, teacher_seeds=(4, 5)) for place in (store, killed))
    run_task(undisturbed, SingleProcess())
    original = progress.Watch.epoch_done

    class KilledError(BaseException):
        pass

    def kill(watch: progress.Watch, learners: list[Run]) -> None:
        original(watch, learners)
        if learners[0].epoch == 2:
            raise KilledError

    monkeypatch.setattr(progress.Watch, "epoch_done", kill)
    with pytest.raises(KilledError):
        run_task(disturbed, SingleProcess())
    monkeypatch.setattr(progress.Watch, "epoch_done", original)
    run_task(disturbed, SingleProcess())
    for identity in undisturbed.teachers:
        records = [place.teacher(identity) for place in (store, killed)]
        assert records[0] is not None
        assert records[1] is not None
        assert records[0].teacher_hash == records[1].teacher_hash
        assert (records[0].resumed, records[1].resumed, records[1].alarms) == (0, 1, ())


def test_a_teacher_of_a_pack_that_diverges_is_recorded_and_the_others_finish(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell(teacher__epochs=3)
    task = make_task(store, cell, teacher_seeds=(0, 1))
    original = progress.Watch.epoch_done

    def spoil(watch: progress.Watch, learners: list[TeacherRun]) -> None:
        original(watch, learners)
        if len(learners) == 2 and learners[0].epoch == 1:
            with torch.no_grad():
                learners[1].classifier.weight.fill_(float("nan"))

    monkeypatch.setattr(progress.Watch, "epoch_done", spoil)
    first, second = run_task(task, SingleProcess())
    assert (first["status"], second["status"], second["epochs"]) == ("finished", "diverged", 1)
    kept, lost = task.teachers
    record = store.teacher(kept)
    assert record is not None
    assert record.pack == (0, 1)
    diverged = store.diverged_teacher(lost)
    assert diverged is not None
    assert diverged.diverged_epoch == 2
    again = run_task(task, SingleProcess())
    assert [outcome["status"] for outcome in again] == ["finished", "diverged"]
