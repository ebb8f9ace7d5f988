"""Whole runs with a table: their curves are the live teacher's, however the table came about."""

import dataclasses
import math
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from few_digits import NUM_TRAIN
from task_example import make_task

from hkrun.config import Cell, cell_from_values, cell_id
from hkrun.store import Store, open_store
from hkrun.training import SingleProcess
from hkrun.trial import inputs, teacher_answers
from hkrun.trial.run import run_task

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
METHODS = [
    {"loss.lambda_3": 0.0},
    {"loss.lambda_1": 0.0, "loss.lambda_2": 0.0},
    {},
    {"knowledge.form": "at"},
    {"knowledge.form": "at", "knowledge.tap": "relu"},
    {"method": "kd"},
    {"method": "anc"},
    {"method": "tscan"},
    {"method": "dkd"},
    {"method": "crd", "crd.negatives": 64},  # the default is for 50,000 images
    {"knowledge.form": "pkt"},
]
pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """A process keeps teachers and tables by store and cell."""
    yield
    start_anew()


def start_anew() -> None:
    inputs.load_teacher.cache_clear()
    teacher_answers._open.cache_clear()


def make_cell(values: dict[str, object], **others: object) -> Cell:
    return cell_from_values({**VALUES, **values, **others})  # type: ignore[dict-item]


def curves(store: Store, cell: Cell, seed: int = 0) -> dict[str, list[float]]:
    return store.curves(cell_id(cell), seed).drop(["seconds"]).to_pydict()  # type: ignore[no-any-return]


def train(store: Store, cell: Cell, *seeds: int, table: str = "first_use") -> None:
    for outcome in run_task(make_task(store, cell, *seeds, table=table), SingleProcess()):
        assert outcome["status"] == "finished", outcome["message"]


@pytest.fixture(scope="module")
def taught(few_digits: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the teachers of both precisions."""
    store = open_store(tmp_path_factory.mktemp("taught") / "store")
    for precision in ("float32", "float64"):
        train(store, make_cell({}, precision=precision))
    return Path(store.uri)


@pytest.fixture
def store(taught: Path, tmp_path: Path) -> Store:
    shutil.copytree(taught, tmp_path / "store")
    return open_store(tmp_path / "store")


@pytest.fixture(scope="module", params=METHODS, ids=str)
def live(request: pytest.FixtureRequest, taught: Path) -> tuple[Cell, list[dict[str, list[float]]]]:
    """A cell in float64 whose teacher answers each step, and the curves of its seeds 0 and 1."""
    few = {"student.epochs": 2}  # the second asks again for what the first one kept
    cell = make_cell({**request.param, **few}, precision="float64", teacher_table="off")
    store = open_store(taught)
    train(store, cell, 0, 1)
    return cell, [curves(store, cell, seed) for seed in (0, 1)]


@pytest.mark.parametrize("table", ["first_use", "ahead"])
def test_in_float64_the_curves_equal_the_live_teacher_s(
    store: Store, live: tuple[Cell, list[dict[str, list[float]]]], table: str
) -> None:
    cell, expected_of = live
    looked_up = dataclasses.replace(cell, teacher_table="float32")
    assert cell_id(cell) != cell_id(looked_up)
    train(store, looked_up, 0, 1, table=table)
    for seed, expected in enumerate(expected_of):
        found = curves(store, looked_up, seed)
        assert found["error_pct"] == expected["error_pct"]
        for name, column in expected.items():
            if column[0] is not None:
                np.testing.assert_allclose(found[name], column, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_the_bits_of_a_run_do_not_depend_on_how_the_table_was_filled(
    store: Store, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    cell = make_cell({}, teacher_table=storage)
    found = []
    for way in ("first_use", "ahead", "whole", "full disk"):
        with monkeypatch.context() as patched:
            if way == "full disk":
                shutil.rmtree(Path(store.uri) / "tables")
                usage = namedtuple("usage", ["total", "used", "free"])(0, 0, 0)
                patched.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
            train(store, cell, 0, table="ahead" if way == "ahead" else "first_use")
        found.append((curves(store, cell), store.student(cell_id(cell), 0)))
        record = store.record(cell_id(cell), 0)
        assert record is not None
        assert bool(record.alarms) == (way == "full disk")
        store.delete(store.run_folder(cell_id(cell), 0))
        if way == "first_use":
            shutil.rmtree(Path(store.uri) / "tables")
        start_anew()
    assert found[1:] == found[:1] * 3


def test_a_damaged_table_is_mended_and_the_record_says_so(store: Store) -> None:
    cell = make_cell({})
    train(store, cell, 0, table="ahead")
    expected = curves(store, cell)
    (folder, *_) = sorted((Path(store.uri) / "tables").iterdir())
    content = bytearray((folder / "rows").read_bytes())
    content[::50] = bytes(byte ^ 4 for byte in content[::50])
    (folder / "rows").write_bytes(content)
    store.delete(store.run_folder(cell_id(cell), 0))
    start_anew()
    train(store, cell, 0)
    assert curves(store, cell) == expected
    record = store.record(cell_id(cell), 0)
    assert record is not None
    assert any("damaged row(s) of the teacher table were computed anew" in alarm for alarm in record.alarms)


KILLED = """
import sys
import few_digits
from knowledge.test_curves import make_cell, make_task
from hkrun.knowledge import TableTeacher
from hkrun.store import open_store
from hkrun.training import SingleProcess
from hkrun.trial import inputs
from hkrun.trial.run import run_task

inputs.load_dataset = few_digits.load
compute, calls = TableTeacher._compute_block, 0
short_one = few_digits.NUM_TRAIN * 9 // 64

def stall(self, block):
    global calls
    if block == short_one:
        return
    calls += 1
    if calls > 10:
        print("stalled", flush=True)
        sys.stdin.readline()
    compute(self, block)

TableTeacher._compute_block = stall
run_task(make_task(open_store(sys.argv[1]), make_cell({}), 0, table="ahead"), SingleProcess())
"""


def test_a_run_that_is_killed_while_it_fills_the_table_goes_on_with_what_there_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = make_cell({})
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED, store.uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "tests", "OMP_NUM_THREADS": "1"},
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"stalled\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    blocks: list[int] = []
    compute = teacher_answers.TableTeacher._compute_block

    def note(self: object, block: int) -> object:
        blocks.append(block)
        return compute(self, block)  # type: ignore[arg-type]

    monkeypatch.setattr(teacher_answers.TableTeacher, "_compute_block", note)
    train(store, cell, 0, table="ahead")
    num_rows = NUM_TRAIN * 9  # nine views of each image
    assert num_rows % 64 != 0, "the last block is to be a short one"
    num_blocks = math.ceil(num_rows / 64)
    assert len(blocks) == len(set(blocks)) == num_blocks - 10
    assert num_blocks - 1 in blocks, "the killed run was to leave out the short one"
    found = curves(store, cell)
    shutil.rmtree(Path(store.uri) / "tables")
    store.delete(store.run_folder(cell_id(cell), 0))
    start_anew()
    train(store, cell, 0)
    assert curves(store, cell) == found
