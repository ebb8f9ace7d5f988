"""Which teachers have a table, and when it is filled: decided from what the runs ahead will ask of it."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from teacher_example import put_teacher

from hkrun.config import Cell, cell_from_values, teacher_id
from hkrun.knowledge import file_sizes
from hkrun.plans.teacher_tables import find_too_large, plan_tables
from hkrun.store import Store, TeacherTables, open_store
from hkrun.store.files import LocalFiles


def make_cell(**values: object) -> Cell:
    given = {
        "teacher.network": "preact-20",
        "student.epochs": 81,
        "dataset": "cifar10",
        "teacher_table": "float32",
    }
    return cell_from_values({**given, **{key.replace("__", "."): value for key, value in values.items()}})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("num_runs", "share", "mode"),
    [(3, 1.0, "first_use"), (4, 1.0, "ahead"), (8, 0.5, "ahead"), (7, 0.5, "first_use")],
)
def test_a_table_is_filled_ahead_when_each_view_is_asked_for_twice(
    num_runs: int, share: float, mode: str
) -> None:
    (table,) = plan_tables([("L_b", make_cell(), num_runs)], share=share)
    assert table.num_views == 162
    assert table.mode == mode


def test_cells_of_one_teacher_count_together_and_are_computed_together() -> None:
    plain = make_cell(loss__lambda_3=0.0)
    (table,) = plan_tables([("L_b", plain, 1), ("all", make_cell(), 2), ("L_b", plain, 1)])
    assert table.teacher_id == teacher_id(plain)
    assert table.names == ("L_b", "all")
    assert table.num_epochs == 4 * 81
    assert table.mode == "ahead"
    assert table.parts == ("knowledge", "logits")


def test_tables_that_hold_other_numbers_are_apart() -> None:
    cells = [
        make_cell(),
        make_cell(teacher_table="float16"),
        make_cell(teacher__seed=1),
        make_cell(knowledge__form="at"),
        make_cell(knowledge__form="at", knowledge__tap="relu"),
    ]
    planned = plan_tables([(f"cell {index}", cell, 9) for index, cell in enumerate(cells)])
    assert [table.names for table in planned] == [(f"cell {index}",) for index in range(5)]


def test_methods_on_whole_feature_maps_keep_the_live_teacher_and_the_plan_says_so() -> None:
    runs = [
        ("fsp", make_cell(method="fsp"), 20),
        ("alone", make_cell(method="supervised"), 20),
        ("L_b", make_cell(loss__lambda_3=0.0), 20),
        ("off", make_cell(teacher_table="off"), 20),
        ("nst", make_cell(knowledge__form="nst"), 20),
    ]
    table, live = plan_tables(runs)
    identity = teacher_id(make_cell())
    assert table.describe() == (
        f"Teacher table of {identity}: filled before the runs where it is not there yet, "
        "162 views of each image, 388.8 MB"
    )
    assert live.describe() == f"Teacher {identity} runs live for fsp, off, nst"
    assert live.parts == ()
    assert json.loads(json.dumps([table.document(), live.document()])) == [
        {
            "teacher_id": identity,
            "cells": ["L_b"],
            "mode": "ahead",
            "views": 162,
            "bytes": 388_800_000,
        },
        {
            "teacher_id": identity,
            "cells": ["fsp", "off", "nst"],
            "mode": "live",
            "views": 162,
            "bytes": None,
        },
    ]


def test_nothing_is_planned_without_a_teacher() -> None:
    assert plan_tables([("alone", make_cell(method="supervised"), 20)]) == ()


@pytest.mark.parametrize(
    ("values", "widths", "dtype"),
    [
        ({}, (10, 112), "float32"),
        ({"teacher_table": "float16"}, (10, 112), "float16"),
        ({"precision": "float64", "loss__lambda_3": 0.0}, (10,), "float64"),
        ({"precision": "bfloat16", "dataset": "cifar100", "loss__lambda_3": 0.0}, (100,), "float32"),
        ({"method": "anc"}, (10, 64), "float32"),
    ],
)
def test_the_size_is_that_of_the_files(
    values: dict[str, object], widths: tuple[int, ...], dtype: str
) -> None:
    import numpy as np

    (table,) = plan_tables([("cell", make_cell(**values), 1)])
    expected = sum(sum(file_sizes(50_000 * 162, width, np.dtype(dtype)).values()) for width in widths)
    assert table.num_bytes == expected


def test_a_size_that_shows_only_with_the_data_is_unknown() -> None:
    for values in ({"dataset": "folder"}, {"knowledge__form": "at"}):
        (table,) = plan_tables([("cell", make_cell(**values), 1)])
        assert table.num_bytes is None
        assert table.describe().endswith(
            "filled as the runs ask where it is not there yet, 162 views of each image"
        )


MB = 10**6
SPARE_MB = 2**28 / MB


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def leave_free(monkeypatch: pytest.MonkeyPatch, megabytes: float) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])(0, 0, round((SPARE_MB + megabytes) * MB))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


def test_tables_must_fit_together(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [make_cell(loss__lambda_3=0.0, teacher__seed=seed) for seed in range(2)]
    planned = plan_tables([(f"cell {seed}", cell, 1) for seed, cell in enumerate(cells)])
    assert [table.num_bytes for table in planned] == [388_800_000, 388_800_000]
    for megabytes, too_large in ((388, [0, 1]), (389, [1]), (777, [1]), (778, [])):
        leave_free(monkeypatch, megabytes)
        assert find_too_large(planned, store) == [planned[index] for index in too_large]


def test_only_what_is_there_of_a_table_itself_leaves_it_less_to_find_room_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, other = make_cell(dataset="digits"), make_cell(dataset="digits", teacher__seed=1)
    planned = plan_tables([("cell", cell, 1)])
    (table,) = planned
    size, identity = table.num_bytes, teacher_id(cell)
    assert size is not None
    about = {"teacher_id": identity, "teacher_hash": "of now", "type": "float32"}
    elsewhere = [
        {**about, "teacher_id": teacher_id(other), "part": "logits"},
        {**about, "teacher_hash": "of before", "part": "logits"},
        {**about, "type": "float16", "part": "logits"},
        {**about, "part": "descriptor"},
    ]
    leave_free(monkeypatch, 100)
    tables = TeacherTables(store, cache=Path())
    for index, description in enumerate(elsewhere):
        tables.open(f"other{index}", {"rows": size}, description)
    put_teacher(store, cell, teacher_hash="of now")
    leave_free(monkeypatch, (size - 1) / MB)
    assert find_too_large(planned, store) == [table]
    leave_free(monkeypatch, 100)
    tables.open("own", {"rows": size // 2}, {**about, "part": "logits"})
    leave_free(monkeypatch, (size - size // 2) / MB)
    assert find_too_large(planned, store) == []
    leave_free(monkeypatch, (size - size // 2 - 1) / MB)
    assert find_too_large(planned, store) == [table]
    store.delete(store.teacher_folder(identity))  # it is trained again: its table will be another
    leave_free(monkeypatch, (size - 1) / MB)
    assert find_too_large(planned, store) == [table]


def test_of_tables_elsewhere_or_of_unknown_size_it_is_not_said_that_they_are_too_large(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_free(monkeypatch, 0)
    planned = plan_tables([("at", make_cell(knowledge__form="at"), 1)])
    assert find_too_large(planned, store) == []
    planned = plan_tables([("cell", make_cell(), 1)])
    assert find_too_large(planned, store) == list(planned)
    far = Store(LocalFiles(Path("far")), uri="far://", place="far://", local_path=None)
    assert find_too_large(planned, far) == []
