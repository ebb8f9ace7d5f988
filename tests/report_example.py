"""Finished sweeps for tests of the report: their runs in a store, from counts of wrong images."""

import functools

import numpy as np
import pyarrow as pa

from hkrun.config import canonical_json, cell_from_values, cell_id, teacher_id
from hkrun.spaces import NamedCell, Recipe, Sweep
from hkrun.store import Record, TeacherRecord

TEST_IMAGES = 1107
EPOCHS, WINDOW = 8, 5
HASH = "ab" * 32
WEIGHTS = {
    "L_b": (0.0, 0.0),
    "L_b + L_is": (0.0, 1.0),
    "L_b + L_adv": (1.0, 0.0),
    "L_b + L_adv + L_is": (1.0, 1.0),
}


def make_cell(lambda_2, lambda_3, **values):
    weights = {"loss.lambda_2": float(lambda_2), "loss.lambda_3": float(lambda_3)}
    return cell_from_values({"student.epochs": EPOCHS, **weights, **values})


def make_sweep(names=tuple(WEIGHTS), *, num_seeds=6, **changes):
    cells = tuple(NamedCell(name=name, cell=make_cell(*WEIGHTS[name])) for name in names)
    recipe = Recipe(dataset="digits", window=WINDOW, cell=cells[0].cell, evidence={})
    values = {
        "name": "stability",
        "title": "Convergence stability",
        "question": "Does it help?",
        "dataset": "digits",
        "seeds": tuple(range(num_seeds)),
        "reference": names[0],
        "cells": cells,
        "window": WINDOW,
        "ddof": 0,
        "published": ("table5",),
        "recipe": recipe,
        "source": "search_spaces/stability.toml",
    }
    return Sweep(**{**values, **changes})


def make_errors(name, seed, *, epochs=EPOCHS, level=40, jitter=6):
    """Wrong images of TEST_IMAGES, in percent: better with more terms in the loss, by 4 images each."""
    generator = np.random.default_rng([seed, len(name)])
    terms = name.count("+")
    wrong = (
        200 // np.arange(1, epochs + 1) + level - 4 * terms + generator.integers(0, jitter, epochs) + seed % 3
    )
    return [100.0 * int(count) / TEST_IMAGES for count in wrong]


# They follow from the cell alone, and every run asks for them.
identify, canonicalise, identify_teacher = map(functools.cache, (cell_id, canonical_json, teacher_id))


def put_run(store, named, seed, errors=None, **changes):
    """Puts a run; a status other than finished has no error of its last epoch."""
    errors = make_errors(named.name, seed, epochs=named.cell.student.epochs) if errors is None else errors
    finished = changes.get("status", "finished") == "finished"
    identity = identify(named.cell)
    store.put_cell(identity, canonicalise(named.cell))
    teacher = identify_teacher(named.cell.with_teacher_of(seed)) if named.cell.uses_teacher else None
    values = {
        "cell_id": identity,
        "seed": seed,
        "status": "finished",
        "epochs": len(errors),
        "error_last_pct": errors[-1] if finished else None,
        "error_best_pct": min(errors) if finished else None,
        "teacher_id": teacher,
        "teacher_hash": HASH if teacher else None,
        "device": "cpu x86_64",
        "threads": 1,
        "started_at": 1_760_000_000.0 + 60 * seed,
        "pack": (seed,),
        "versions": {"hkrun": "0.1.0", "torch": "2.15.0"},
        "timings": {"total": 10.0, "epochs": 9.0},
    }
    curves = pa.table({"epoch": range(1, len(errors) + 1), "error_pct": errors}) if errors else None
    store.put_run(Record(**{**values, **changes}), curves=curves, student=None)


def put_teacher(store, cell, **changes):
    values = {
        "teacher_id": teacher_id(cell),
        "teacher_hash": HASH,
        "error_pct": 2.1,
        "train_error_pct": 0.0,
        "config": {"teacher.network": "preact-20-w32"},
        "epochs": 60,
        "device": "cpu x86_64",
        "threads": 1,
        "started_at": 1_760_000_000.0,
        "timings": {"total": 30.0},
    }
    store.put_teacher(
        TeacherRecord(**{**values, **changes}), weights=b"weights", curves=pa.table({"epoch": [1]})
    )


def fill(store, sweep, *, without=()):
    for named in sweep.cells:
        for seed in sweep.seeds:
            if (named.name, seed) not in without:
                put_run(store, named, seed)


def put_levels(store, sweep, levels):
    """Runs whose error is a constant number of wrong images, plus the seed's own."""
    for named in sweep.cells:
        for seed in sweep.seeds:
            error = 100 * (levels[named.name] + seed % 4) / TEST_IMAGES
            put_run(store, named, seed, errors=[error] * EPOCHS)
