"""How many processes each task of a sweep may have, as they are sent to the cluster."""

import dataclasses
from types import SimpleNamespace

import pytest
from study_example import make_study
from test_plan import L_B, make_sweep
from two_slots import TWO_SLOTS

import hkrun.cluster
from hkrun.config import cell_from_values
from hkrun.plans import ALONE, AUTO, Span, Workers
from hkrun.store import open_store
from hkrun.sweep import running

STREAMED = {"dataset": "imagenet", "student.batch_size": 128, "teacher.batch_size": 64}
CELLS = {
    "together": cell_from_values(STREAMED),
    "alone": cell_from_values({**STREAMED, "sync_batchnorm": False}),
    "digits": L_B,
}


class SentError(Exception):
    """The tasks are on their way."""


def send(workers, store, monkeypatch, machine=TWO_SLOTS):
    """What reaches the cluster: by task its span, the number in its id, and its device; and `per_gpu`."""
    told = {}

    def catch(work, _):
        names = {cell: name for name, cell in CELLS.items()}
        for task, span in zip(work.tasks, work.spans, strict=True):
            name = names[task.cell] if task.seeds else f"teacher of {task.cell.dataset}"
            told[name] = (span, task.world_size, task.device)
        told["per_gpu"] = work.per_gpu
        raise SentError

    monkeypatch.setattr(hkrun.cluster, "run_tasks", catch)
    sweep = make_sweep(CELLS.items(), seeds=[0])
    observer = SimpleNamespace(entered=lambda _: None, plan_made=lambda _, slots: None)
    with pytest.raises(SentError):
        running._train(make_study(sweep, store, machine=machine, workers=workers), observer)
    return told


def test_by_default_streamed_cells_and_their_teachers_train_together_and_others_alone(tmp_path, monkeypatch):
    assert send(AUTO, open_store(tmp_path), monkeypatch) == {
        "together": (Span(1, 128), 1, "cpu"),
        "alone": (ALONE, 1, "cpu"),
        "digits": (ALONE, 1, "cpu"),
        "teacher of imagenet": (Span(1, 64), 1, "cpu"),
        "teacher of digits": (ALONE, 1, "cpu"),
        "per_gpu": 1,
    }


def test_what_the_user_says_is_for_every_task_and_for_the_ids(tmp_path, monkeypatch):
    workers = dataclasses.replace(Workers.exactly(4), per_gpu=3)
    told = send(workers, open_store(tmp_path), monkeypatch, dataclasses.replace(TWO_SLOTS, device="cuda"))
    assert told.pop("per_gpu") == 3
    assert set(told.values()) == {(Span(4, 4), 4, "cuda")}
