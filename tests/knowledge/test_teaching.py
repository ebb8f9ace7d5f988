"""A task's teacher: live, or with the table of its cell, wherever the store is."""

import dataclasses
import json
import logging
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import fs

from hkrun import processor
from hkrun.config import Cell, cell_from_values, cell_id, teacher_canonical, teacher_id
from hkrun.data import load_dataset
from hkrun.data.views import ViewReader, Views
from hkrun.errors import StoreError
from hkrun.knowledge import LiveTeacher, RowComputer, TableTeacher, Teaching
from hkrun.store import Store, TeacherRecord, open_store
from hkrun.store.files import RemoteFiles
from hkrun.teacher import dump_weights, hash_weights, start_teacher
from hkrun.training import SingleProcess, resolve_dtype
from hkrun.trial import Task, inputs, teacher_answers
from knowledge.conftest import Batch, Counter

VALUES = {
    "dataset": "digits",
    "teacher.network": "preact-8-w4",
    "student.network": "preact-8-w4",
    "augment.padding": 1,
    "augment.flip": False,
    "teacher_table": "float32",
}


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """A process keeps teachers and tables by store and cell."""
    yield
    inputs.load_teacher.cache_clear()
    teacher_answers._open.cache_clear()


def make_cell(**values: object) -> Cell:
    return cell_from_values({**VALUES, **{k.replace("__", "."): v for k, v in values.items()}})  # type: ignore[dict-item]


def make_task(store: Store, cell: Cell, **fields: object) -> Task:
    task = Task(
        cell=cell, cell_id=cell_id(cell), seeds=(0,), store=store.uri, data_dir=None, threads=1, device="cpu"
    )
    return dataclasses.replace(task, **fields)  # type: ignore[arg-type]


def put_teacher(store: Store, cell: Cell) -> str:
    run = start_teacher(cell, load_dataset("digits"), context=SingleProcess(), device=torch.device("cpu"))
    run.network.train()(torch.randn(64, 1, 8, 8).to(resolve_dtype(cell.precision)))
    record = TeacherRecord(
        teacher_id=teacher_id(cell),
        teacher_hash=hash_weights(run.network),
        error_pct=5.0,
        train_error_pct=0.0,
        config=teacher_canonical(cell),
        epochs=1,
        versions={},
        device="cpu",
        threads=1,
        world_size=1,
        alarms=(),
        resumed=0,
        started_at=0.0,
        timings={},
    )
    curves = pa.table({"epoch": [1], "error_pct": [5.0]})
    store.put_teacher(record, weights=dump_weights(run.network), curves=curves)
    return record.teacher_hash


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(tmp_path / "store")
    put_teacher(store, make_cell())
    return store


def make_batch(cell: Cell, seed: int = 0) -> Batch:
    dataset = load_dataset("digits")
    views = Views(cell.augment.padding, cell.augment.flip)
    generator = torch.Generator().manual_seed(seed)
    image_ids = torch.randint(len(dataset.train), (32,), generator=generator)
    view_ids = views.draw(generator, 32)
    reader = ViewReader(
        dataset.train.images,
        views=views,
        mean=dataset.mean,
        std=dataset.std,
        dtype=resolve_dtype(cell.precision),
        device="cpu",
    )
    return Batch(reader(image_ids, view_ids), image_ids, view_ids)


def folders(store: Store) -> list[str]:
    assert store.local_path is not None
    root = store.local_path / "tables"
    return sorted(path.name for path in root.iterdir()) if root.exists() else []


def test_cells_without_a_table_get_the_live_teacher(store: Store) -> None:
    for values in ({"teacher_table": "off"}, {"knowledge__form": "nst"}, {"method": "fitnets"}):
        cell = make_cell(**values)
        teaching, _ = teacher_answers.load_teaching(cell, make_task(store, cell))
        assert isinstance(teaching, LiveTeacher)
    assert folders(store) == []


def test_a_table_filled_ahead_is_whole_in_the_store_and_asks_the_teacher_no_more(store: Store) -> None:
    cell = make_cell()
    teaching, teacher_hash = teacher_answers.load_teaching(cell, make_task(store, cell, table="ahead"))
    record = store.teacher(teacher_id(cell))
    assert record is not None
    assert teacher_hash == record.teacher_hash
    assert isinstance(teaching, TableTeacher)
    names = folders(store)
    assert len(names) == 2
    assert all(len(name) == 12 for name in names)
    assert all(store.names(f"tables/{name}") for name in names)
    network, _ = inputs.load_teacher(inputs.TeacherPlace(store.uri, teacher_id(cell), "cpu", cell, None))
    counter = Counter(network)
    answer = teaching(make_batch(cell))
    assert counter.passes == 0
    live = LiveTeacher(network, precision="float32")(make_batch(cell))
    assert torch.allclose(answer.logits, live.logits, atol=1e-5)
    assert torch.allclose(answer.knowledge, live.knowledge, atol=1e-5)
    assert teaching.take_alarms() == []


def test_a_table_of_first_uses_serves_the_next_process(store: Store) -> None:
    cell = make_cell()
    teaching, _ = teacher_answers.load_teaching(cell, make_task(store, cell))
    expected = teaching(make_batch(cell))
    assert all(name.endswith(".partial") for name in folders(store))
    inputs.load_teacher.cache_clear()
    teacher_answers._open.cache_clear()
    again, _ = teacher_answers.load_teaching(cell, make_task(store, cell))
    assert again is not teaching
    network, _ = inputs.load_teacher(inputs.TeacherPlace(store.uri, teacher_id(cell), "cpu", cell, None))
    counter = Counter(network)
    assert torch.equal(again(make_batch(cell)).logits, expected.logits)
    assert counter.passes == 0


def ask_every_view(teaching: Teaching, cell: Cell) -> None:
    dataset = load_dataset("digits")
    reader = ViewReader(
        dataset.train.images,
        views=Views(1, flip=False),
        mean=dataset.mean,
        std=dataset.std,
        dtype=resolve_dtype(cell.precision),
        device="cpu",
    )
    image_ids, view_ids = (
        ids.flatten() for ids in torch.meshgrid(torch.arange(300), torch.arange(9), indexing="ij")
    )
    teaching(Batch(reader(image_ids, view_ids), image_ids, view_ids))


def test_a_table_that_the_loop_made_whole_has_its_name_when_the_loop_is_over(store: Store) -> None:
    cell = make_cell()
    teaching, _ = teacher_answers.load_teaching(cell, make_task(store, cell))
    ask_every_view(teaching, cell)
    assert teaching.take_alarms() == []
    assert len(folders(store)) == 2
    assert all(store.names(f"tables/{name}") for name in folders(store))


def test_a_store_that_does_not_take_the_table_costs_no_run_its_record(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("cannot write far://: it is gone")

    cell = make_cell()
    teaching, _ = teacher_answers.load_teaching(cell, make_task(store, cell))
    ask_every_view(teaching, cell)
    with monkeypatch.context() as patched:
        patched.setattr(teacher_answers.TeacherTables, "finish", refuse)
        assert teaching.take_alarms() == []
    assert "the teacher table is not there for others yet: cannot write far://: it is gone" in caplog.text
    assert all(name.endswith(".partial") for name in folders(store))
    assert teaching.take_alarms() == []
    assert not any(name.endswith(".partial") for name in folders(store))


def test_a_run_does_not_answer_for_one_that_broke_off(store: Store) -> None:
    cell = make_cell()
    teaching, _ = teacher_answers.load_teaching(cell, make_task(store, cell))
    teaching(make_batch(cell))
    assert store.local_path is not None
    for path in (store.local_path / "tables").glob("*/rows"):
        damaged = bytes(byte ^ 1 for byte in path.read_bytes())
        path.write_bytes(damaged)
    teaching(make_batch(cell))  # in a loop that ends with an error
    again, _ = teacher_answers.load_teaching(cell, make_task(store, cell))
    assert again is teaching
    assert teaching.take_alarms() == []


def test_what_other_cells_will_ask_is_computed_with_what_this_one_asks(store: Store) -> None:
    cell, other = make_cell(loss__lambda_3=0.0), make_cell()
    task = make_task(store, cell, table="ahead", table_parts=("knowledge", "logits"))
    teaching, _ = teacher_answers.load_teaching(cell, task)
    assert teaching(make_batch(cell)).knowledge is None
    network, _ = inputs.load_teacher(inputs.TeacherPlace(store.uri, teacher_id(cell), "cpu", cell, None))
    teaching, _ = teacher_answers.load_teaching(other, make_task(store, other))
    counter = Counter(network)
    assert teaching(make_batch(other)).knowledge is not None
    assert counter.passes == 0


def test_a_process_keeps_apart_what_it_reads_of_stages_before_and_after_a_relu(store: Store) -> None:
    raw, active = (make_cell(knowledge__form="at", knowledge__tap=tap) for tap in ("raw", "relu"))
    answers = [
        teacher_answers.load_teaching(cell, make_task(store, cell))[0](make_batch(cell))
        for cell in (raw, active)
    ]
    assert not torch.equal(answers[0].stages[0], answers[1].stages[0])


def table_ids(store: Store, cell: Cell) -> set[str]:
    before = set(folders(store))
    teacher_answers._open.cache_clear()
    inputs.load_teacher.cache_clear()
    teacher_answers.load_teaching(cell, make_task(store, cell))
    return {name.removesuffix(".partial") for name in set(folders(store)) - before}


def test_the_id_holds_what_changes_the_rows_and_nothing_else(store: Store) -> None:
    first = table_ids(store, make_cell())
    assert len(first) == 2
    same = (
        {"student__epochs": 7},
        {"loss__lambda_1": 0.5},
        {"student__batch_size": 32},
        {"loss__lambda_2": 0.0},
        {"method": "kd"},
    )
    for values in same:
        assert table_ids(store, make_cell(**values)) == set()
    assert len(table_ids(store, make_cell(teacher_table="float16"))) == 2
    assert len(table_ids(store, make_cell(knowledge__form="at"))) == 1
    assert len(table_ids(store, make_cell(knowledge__form="at", knowledge__tap="relu"))) == 1
    assert len(table_ids(store, make_cell(method="anc"))) == 1
    for changed in (make_cell(augment__padding=2), make_cell(precision="bfloat16")):
        put_teacher(store, changed)
        assert len(table_ids(store, changed)) == 2
    store.delete(store.teacher_folder(teacher_id(make_cell())))
    put_teacher(store, make_cell(teacher__seed=0))  # other weights: another BatchNorm statistic
    assert len(table_ids(store, make_cell())) == 2


def test_the_bits_are_those_of_the_threads_that_compute(store: Store) -> None:
    cell = make_cell(loss__lambda_3=0.0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert len(table_ids(store, cell)) == 1
        torch.set_num_threads(2)
        assert len(table_ids(store, cell)) == 1
    finally:
        torch.set_num_threads(before)


def test_machines_of_one_model_share_a_table_and_others_do_not(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell(loss__lambda_3=0.0)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "cpuinfo")
    text = "processor\t: 0\nmodel name\t: {}\ncpu MHz\t\t: {}\n\nprocessor\t: 1\nmodel name\t: {}\n"
    (tmp_path / "cpuinfo").write_text(text.format("EPYC 1", 2000.0, "EPYC 1"))
    (first,) = table_ids(store, cell)
    assert store.local_path is not None
    about = json.loads((store.local_path / "tables" / f"{first}.partial" / "table.json").read_text())
    assert about["machine"] == "EPYC 1, AVX512"
    (tmp_path / "cpuinfo").write_text(text.format("EPYC 1", 3111.1, "EPYC 1"))
    assert table_ids(store, cell) == set()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert len(table_ids(store, cell)) == 1
    (tmp_path / "cpuinfo").write_text(text.format("EPYC 2", 2000.0, "EPYC 2"))
    assert len(table_ids(store, cell)) == 1
    (tmp_path / "cpuinfo").unlink()  # no Linux
    assert len(table_ids(store, cell)) == 1
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA L4")
    assert teacher_answers._describe_arithmetic("cuda") == "NVIDIA L4"


def test_a_full_disk_is_said_and_changes_no_bit(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cell = make_cell()
    usage = namedtuple("usage", ["total", "used", "free"])(0, 0, 0)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage)
        teaching, _ = teacher_answers.load_teaching(cell, make_task(store, cell, table="ahead"))
    answer = teaching(make_batch(cell))
    assert folders(store) == []
    (alarm,) = teaching.take_alarms()
    assert "does not fit" in alarm
    assert alarm.startswith("there is no teacher table, the teacher runs live: ")
    assert alarm in caplog.text
    teacher_answers._open.cache_clear()
    whole, _ = teacher_answers.load_teaching(cell, make_task(store, cell, table="ahead"))
    for part in ("logits", "knowledge"):
        assert torch.equal(getattr(whole(make_batch(cell)), part), getattr(answer, part))


def test_a_teacher_whose_answers_depend_on_the_batch_runs_live_unless_the_table_is_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(RowComputer, "is_steady", False)
    caplog.set_level(logging.INFO, "hkrun")
    cell = make_cell()
    teaching, _ = teacher_answers.load_teaching(cell, make_task(store, cell))
    assert isinstance(teaching, LiveTeacher)
    (alarm,) = teaching.take_alarms()
    assert alarm in caplog.text
    teaching, _ = teacher_answers.load_teaching(cell, make_task(store, cell, table="ahead"))
    assert isinstance(teaching, TableTeacher)
    teaching, _ = teacher_answers.load_teaching(cell, make_task(store, cell))
    assert isinstance(teaching, TableTeacher)


def test_another_machine_fetches_the_table_of_a_remote_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    files = RemoteFiles(filesystem, Path(store.uri).name, place="far://")
    far = Store(files, uri="far://", place="far://", local_path=None)
    for module in (inputs, teacher_answers):
        monkeypatch.setattr(module, "open_store", lambda _: far)
    cell = make_cell()
    answers = []
    for machine, mode in (("first", "ahead"), ("second", "first_use")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / machine))
        teacher_answers._open.cache_clear()
        inputs.load_teacher.cache_clear()
        teaching, _ = teacher_answers.load_teaching(cell, make_task(far, cell, table=mode))
        network, _ = inputs.load_teacher(inputs.TeacherPlace(far.uri, teacher_id(cell), "cpu", cell, None))
        counter = Counter(network)
        answers.append(teaching(make_batch(cell)))
        assert counter.passes == 0
        names = sorted(path.name for path in (tmp_path / machine / "hkrun" / "tables").iterdir())
        assert names == folders(store)
    assert torch.equal(answers[0].logits, answers[1].logits)


def test_a_table_that_gets_its_name_while_it_is_opened_is_opened_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell()
    teacher_answers.load_teaching(cell, make_task(store, cell, table="ahead"))
    teacher_answers._open.cache_clear()
    opened = teacher_answers.TeacherTables.open
    stale: list[Path] = []

    def open_late(self: object, *arguments: object) -> Path:
        folder: Path = opened(self, *arguments)  # type: ignore[arg-type]
        if not stale:
            stale.append(folder)
            return folder.with_name(f"{folder.name}.partial")
        return folder

    monkeypatch.setattr(teacher_answers.TeacherTables, "open", open_late)
    teaching, _ = teacher_answers.load_teaching(cell, make_task(store, cell))
    assert teaching.is_whole
