"""What Python reads of a store: studies by name, tables with names and axes, one kind of error, safe HTML."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sweep_example import fill_store, make_sweep

import hkrun
from hkrun import store as records
from hkrun.cli.program import call
from hkrun.plans import save_plan
from hkrun.report.documents import describe_command
from hkrun.spaces import load_sweep

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">'


@pytest.fixture
def study(files):
    return hkrun.open_store("hkrun-store").study("stability")


@pytest.fixture
def scan(folder):
    """A study of two axes and a cell beside them, in the store `scans`."""
    sweep = load_sweep(
        {
            "title": "scan",
            "dataset": "digits",
            "seeds": 2,
            "cells": [{"name": "KD", "method": "kd"}, {"name": "HK"}],
            "base": {"student.epochs": 6},
            "axes": [
                {"key": "loss.lambda_3", "values": [0.1, 1.0], "cells": ["HK"]},
                {"key": "student.epochs", "values": [6, 8], "cells": ["HK"]},
            ],
        }
    )
    store = records.open_store(folder / "scans")
    named = {cell.name: "L_b" for cell in sweep.cells}
    made = make_sweep(num_seeds=2, epochs=6)
    for cell in sweep.cells:
        fill_store(
            store, dataclasses.replace(made, cells=(dataclasses.replace(cell, name=named[cell.name]),))
        )
    save_plan(store, sweep)
    return hkrun.open_store(folder / "scans").study("scan")


# --- what is not there --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["hkrun-stroe", Path("hkrun-stroe"), "file:///no/such/store"])
def test_opening_makes_no_store_and_names_the_one_that_was_meant(files, place):
    before = sorted(os.listdir())  # noqa: PTH208
    with pytest.raises(hkrun.NotFoundError) as caught:
        hkrun.open_store(place)
    if "stroe" in str(place):
        assert caught.value.message.endswith("hkrun-stroe: there is no store; did you mean 'hkrun-store'?")
    assert sorted(os.listdir()) == before  # noqa: PTH208
    assert not Path("/no").exists()


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda store: store.study("stabilty"), "stabilty: no such study in .*did you mean 'stability'"),
        (lambda store: store.study("losses"), "losses: no such study in .*; `hkrun sweep losses` makes it$"),
        (lambda store: store.study("spaces/empty.toml"), "no such study in .*; did you mean 'empty'"),
        (lambda store: store.study("stability", dataset="mnist5k"), "no such study on 'mnist5k'.*: digits"),
        (lambda store: store.studies(dataset="mnist5k"), "no such study on 'mnist5k'"),
        (lambda store: store.cell("0123456789ab"), "0123456789ab: no such cell in"),
        (lambda store: store.cell("../stability"), r"\.\./stability: no such cell in"),
        (lambda store: store.curves("0123456789ab", 0), "no such cell"),
        (lambda store: store.record(store.runs()["cell_id"][0].as_py(), 99), "no run with seed 99.*0, 1, 2"),
        (lambda store: store.student(store.runs()["cell_id"][0].as_py(), 99), "no run with seed 99"),
        (lambda store: store.study("stability").compare("L_bb"), "no such cell in stability.*mean 'L_b'"),
        (lambda _: hkrun.plan("stabilty"), "no such search space.*did you mean 'stability'"),
    ],
)
def test_what_is_not_there_is_one_kind_of_error(files, ask, told):
    with pytest.raises(hkrun.NotFoundError, match=told) as caught:
        ask(hkrun.open_store("hkrun-store"))
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, hkrun.HkrunError)


# --- tables -------------------------------------------------------------------------------------------------


def test_the_studies_of_a_store_are_listed_with_how_far_they_are(files):
    store = hkrun.open_store(files.place)
    assert [repr(study) for study in store.studies()] == [
        "<hkrun.Study empty on digits: 0/8 runs>",
        "<hkrun.Study stability on digits: 12/12 runs>",
    ]
    assert store.study("empty").runs().num_rows == 0
    assert store.study("empty").curves().num_rows == 0
    assert store.study("empty").results().to_arrow()["n"].to_pylist() == [0, 0, 0, 0]


def test_runs_and_curves_have_the_names_of_the_cells(study, files):
    runs, curves = study.runs(), study.curves()
    assert runs.column_names == ["cell", *files.runs().column_names]
    assert runs["cell"].to_pylist() == [name for name in study.cells for _ in study.seeds]
    assert curves.column_names[:4] == ["cell", "cell_id", "seed", "epoch"]
    for row in runs.to_pylist():
        own = curves.filter(
            (pa.compute.field("cell") == row["cell"]) & (pa.compute.field("seed") == row["seed"])
        )
        assert (
            own["error_pct"].to_pylist() == files.curves(row["cell_id"], row["seed"])["error_pct"].to_pylist()
        )
        assert own["error_pct"][-1].as_py() == row["error_last_pct"]


def test_only_the_seeds_of_the_study_are_in_its_tables(files):
    fill_store(files, make_sweep(num_seeds=5))
    study = hkrun.open_store("hkrun-store").study("stability")
    assert set(study.runs()["seed"].to_pylist()) == set(study.curves()["seed"].to_pylist()) == {0, 1, 2}


def test_a_comparison_takes_the_label_of_a_cell_that_the_report_shows(scan):
    cells = {cell.label: cell.name for cell in scan.summary.cells}
    label = next(label for label, name in cells.items() if "," in name)
    assert label != cells[label]
    assert scan.compare(label).equals(scan.compare(cells[label]))


def test_each_axis_is_a_column_by_its_short_key_or_the_whole_one_where_that_is_taken(scan):
    assert scan.axes == {"loss.lambda_3": "lambda_3", "student.epochs": "student.epochs"}
    results = scan.results().to_arrow()
    assert results["lambda_3"].to_pylist() == [None, 0.1, 0.1, 1.0, 1.0]
    assert results["student.epochs"].to_pylist() == [None, 6, 8, 6, 8]
    for table in (scan.runs(), scan.curves(), scan.compare("KD")):
        assert table.column_names[:3] == ["cell", "lambda_3", "student.epochs"]
        assert table["lambda_3"].type == pa.float64()
    grouped = scan.curves().to_pandas().groupby(["lambda_3", "student.epochs"]).epoch.max()
    assert grouped.to_dict() == {(0.1, 6): 6, (0.1, 8): 8, (1.0, 6): 6, (1.0, 8): 8}


def test_the_results_are_those_of_the_summary(study):
    table = study.results().to_arrow().to_pylist()
    for row, cell in zip(table, study.summary.cells, strict=True):
        assert row["cell"] == cell.name
        assert (row["n"], row["error_last_pct"]) == (3, cell.error_last.mean)
        assert (row["error_last_low_pct"], row["error_last_high_pct"]) == cell.error_last.ci95
        assert (row["s_pp2"], row["mean_range_pp"]) == (cell.stability.s, cell.stability.mean_range)
        assert row["s2_pp2"] == cell.pair_stability.s2
        assert (row["s2_low_pp2"], row["s2_high_pp2"]) == cell.pair_stability.ci95
        found = study.summary.find_comparison(cell.name)
        assert row["difference_pp"] == (found.difference if found else None)
    assert list(study.results().to_pandas().cell) == list(study.cells)
    assert "error minus" in str(study.results())


def test_cells_are_compared_with_the_reference_or_with_any_other(study):
    own = study.compare()
    assert own["reference"].to_pylist() == ["L_b"] * 3
    assert own["p_holm"].to_pylist() == [found.p_holm for found in study.summary.comparisons]
    assert own["s_p"].to_pylist() == [found.p for found in study.summary.stability_comparisons]
    ratios = study.summary.s2_ratios
    assert own["s2_ratio"].to_pylist() == [found.ratio for found in ratios]
    assert own["s2_ratio_low"].to_pylist() == [found.ci95[0] for found in ratios]
    assert own["s2_p_holm"].to_pylist() == [found.p_holm for found in ratios]
    other = study.compare("L_b + L_adv")
    assert other["cell"].to_pylist() == ["L_b", "L_b + L_is", "L_b + L_adv + L_is"]
    there = dict(zip(own["cell"].to_pylist(), own["difference_pp"].to_pylist(), strict=True))
    assert other["difference_pp"][0].as_py() == pytest.approx(-there["L_b + L_adv"])


def test_the_report_of_a_dict_names_what_goes_on_with_it(scan):
    assert describe_command(scan.summary) == "hkrun resume scan --dataset digits"


def test_the_report_is_written_and_its_place_returned(study, undrawn_figures):
    assert study.report() == Path("hkrun-store/sweeps/stability-digits/report.html").absolute()
    assert study.report().is_file()


# --- HTML ---------------------------------------------------------------------------------------------------


def test_hostile_names_are_text_in_html(folder):
    sweep = make_sweep(num_cells=2)
    store = records.open_store(folder / "hostile")
    fill_store(store, sweep)
    cells = (sweep.cells[0], dataclasses.replace(sweep.cells[1], name=HOSTILE))
    save_plan(store, dataclasses.replace(sweep, cells=cells, title=HOSTILE, question=HOSTILE))
    opened = hkrun.open_store(folder / "hostile")
    study = opened.study("stability")
    for html in (study._repr_html_(), study.results()._repr_html_(), opened._repr_html_()):
        assert "<script" not in html
        assert "<img src=x" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in study._repr_html_()
    assert study._repr_html_().count("data:image/svg+xml;base64,") == 2
    figures = study.figures()
    assert figures._repr_html_() == "".join(figure._repr_html_() for figure in figures)
    assert all("<figcaption>" in figure._repr_html_() for figure in figures)
    assert repr(figures).startswith("[<Figure error-curves>, ")
    space = {"title": HOSTILE, "dataset": "digits", "seeds": 1, "cells": [{"name": HOSTILE, "method": "kd"}]}
    shown = hkrun.plan(space)._repr_html_()
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


# --- plans --------------------------------------------------------------------------------------------------


def test_a_plan_is_that_of_the_command_line_and_writes_nothing(folder, capsys):
    found = hkrun.plan("stability", seeds=[3, 5], epochs=7, overrides={"loss.mu": 0.5}, store="none")
    arguments = ["sweep", "stability", "--seeds", "3,5", "--epochs", "7", "loss.mu=0.5", "--store", "none"]
    assert call([*arguments, "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert str(found).split() == (printed.out + printed.err).split()
    assert (found.name, found.runs, found.done, found.to_run) == ("stability-epochs-7-mu-0.5", 8, 0, 8)
    assert found.document()["to_run"] == 8
    assert os.listdir() == []  # noqa: PTH208


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"seeds": 0}, "seeds: 0 is out of range"),
        ({"epochs": -1}, "epochs: student.epochs: -1 is out of range"),
        ({"overrides": {"los.mu": 1}}, "overrides: los.mu: unknown key"),
        ({"workers": "many"}, "workers many: expected auto"),
        ({"pack": 0}, "pack: 0 is neither a number from 1 nor 'auto'"),
        ({"name": "a b"}, "name a b: a name is of letters"),
        ({"other_code": "maybe"}, "other_code: 'maybe' is none of 'ask', 'again' and 'trust'"),
        ({"store": "s3:/bucket/x"}, "store: 's3:' takes two slashes"),
        ({"dataset": "digit"}, "dataset: dataset: 'digit' is not allowed"),
    ],
)
def test_wrong_arguments_are_named(folder, given, problem):
    with pytest.raises(hkrun.InputError) as caught:
        hkrun.plan("stability", **given)
    assert problem in caught.value.message
    assert os.listdir() == []  # noqa: PTH208


def test_a_study_is_compared_with_another_cell_by_cell(files, folder):
    sweep = make_sweep(num_cells=2, num_seeds=2, epochs=9, name="short")
    fill_store(files, sweep)
    save_plan(files, sweep)
    store = hkrun.open_store("hkrun-store")
    short, whole = store.study("short"), store.study("stability")
    found = short.compare(whole).to_pylist()
    assert [(row["cell"], row["reference"]) for row in found] == [(name, name) for name in short.cells]
    for row in found:
        ours, theirs = (
            np.mean([run["error_last_pct"] for run in runs if run["cell"] == row["cell"] and run["seed"] < 2])
            for runs in (short.runs().to_pylist(), whole.runs().to_pylist())
        )
        assert row["paired"]
        assert row["n"] == 2
        assert row["difference_pp"] == pytest.approx(ours - theirs)
    back = whole.compare(short)["difference_pp"].to_pylist()
    assert back == pytest.approx([-row["difference_pp"] for row in found])
