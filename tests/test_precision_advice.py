"""What bfloat16 would save, told where the processor has its instructions and the recipe a figure."""

import dataclasses

import pytest
from study_example import make_study
from test_plan import L_B, MEASURED, make_sweep, put

from hkrun import processor
from hkrun.cli.planned import plan_lines
from hkrun.cluster import Node
from hkrun.config import cell_from_values
from hkrun.processor import multiplies_bfloat16
from hkrun.spaces import load_sweep
from hkrun.store import open_store
from hkrun.sweep.machine import Machine

SHARE = {"bfloat16_share_cpu": {"value": 0.5, "label": MEASURED}}
HERE = Machine(nodes=(Node(cpus=2, gpus=0, memory_bytes=8 << 30),))
SENTENCE = "precision=bfloat16 would take 0.5 of the time of a step"


@pytest.fixture(autouse=True)
def flags(tmp_path, monkeypatch):
    """Sets what the system says of the processor."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "CPU_INFO", path)

    def say(flags):
        path.write_text(f"processor : 0\nmodel name : A\nflags : {flags}\n\nprocessor : 1\nflags : {flags}\n")

    say("fpu avx512f avx512_bf16")
    return say


def advise(sweep=None, store=None, machine=HERE):
    sweep = make_sweep([("L_b", L_B)], evidence=SHARE) if sweep is None else sweep
    return make_study(sweep, store, machine=machine)


@pytest.mark.parametrize(
    ("told", "can"), [("fpu avx512_bf16", True), ("amx_bf16 amx_tile", True), ("avx512f avx_bf16x", False)]
)
def test_instructions_are_known_by_their_whole_names(flags, told, can):
    flags(told)
    assert multiplies_bfloat16() is can


def test_a_system_that_says_nothing_has_no_such_instructions(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "none")
    assert not multiplies_bfloat16()


def test_a_dry_run_says_what_bfloat16_saves_and_that_it_changes_numbers():
    study = advise()
    (line,) = [line for line in plan_lines(study) if "bfloat16" in line]
    assert line.startswith(SENTENCE)
    assert MEASURED in line
    assert "changes numbers" in line
    told = {"precision": "bfloat16", "share": 0.5, "label": MEASURED, "cells": ["L_b"]}
    assert study.document()["precision"] == told


def test_nothing_is_said_where_it_would_not_hold(flags, tmp_path):
    assert advise().precision_advice is not None
    assert advise(machine=None).precision_advice is None
    assert advise(machine=dataclasses.replace(HERE, device="cuda")).precision_advice is None
    assert advise(machine=dataclasses.replace(HERE, place="the Ray cluster at a:1")).precision_advice is None
    store = open_store(tmp_path / "store")
    put(store, L_B, 0)
    assert advise(make_sweep([("L_b", L_B)], seeds=(0,), evidence=SHARE), store).precision_advice is None
    for sweep in (
        make_sweep([("L_b", L_B)]),
        make_sweep([("L_b", L_B)], evidence={"bfloat16_share_cpu": {"value": 1.1, "label": MEASURED}}),
        make_sweep([("L_b", L_B)], evidence={"bfloat16_share_cpu": {"label": "not run here"}}),
        make_sweep([("wide", cell_from_values({"student.network": "preact-32"}))], evidence=SHARE),
        make_sweep([("b", cell_from_values({"precision": "bfloat16"}))], evidence=SHARE),
    ):
        study = advise(sweep)
        assert study.precision_advice is None
        assert "precision" not in study.document()
    flags("fpu avx512f")
    assert advise().precision_advice is None


def test_cifar_s_recipes_have_a_figure_and_digits_has_none():
    found = {
        dataset: advise(load_sweep("stability", dataset=dataset)).precision_advice
        for dataset in ("cifar10", "cifar100", "mnist5k", "digits")
    }
    assert [name for name, advice in found.items() if advice is not None] == ["cifar10", "cifar100"]
    assert {advice.share for advice in found.values() if advice is not None} == {0.61}
