import base64
import dataclasses
import hashlib
import html.parser
import io
import itertools
import json
import re
import statistics
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
from report_example import (
    EPOCHS,
    HASH,
    TEST_IMAGES,
    WEIGHTS,
    WINDOW,
    fill,
    make_cell,
    make_errors,
    make_sweep,
    put_levels,
    put_run,
    put_teacher,
)
from rich.console import Console
from teacher_example import put_diverged_teacher

from hkrun import stats
from hkrun.config import cell_id, learning_rate
from hkrun.errors import StoreError
from hkrun.plans import StoppedRun, save_stopped
from hkrun.report import (
    load_published,
    print_summary,
    render_report,
    summarise,
    summary_document,
    wording,
    write_report,
)
from hkrun.spaces import NamedCell, load_cell
from hkrun.store import open_store

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def print_plainly(summary, *, terminal=False, width=100):
    stream = io.StringIO()
    colors = "standard" if terminal else None
    console = Console(file=stream, force_terminal=terminal, width=width, color_system=colors)
    print_summary(summary, console)
    assert console.width == width
    return stream.getvalue()


def warnings_about(summary, words):
    return [warning for warning in summary.warnings if words in warning]


# --- numbers ------------------------------------------------------------------------------------------------


def test_the_document_has_the_shape_of_the_contract(store):
    sweep = make_sweep()
    fill(store, sweep)
    put_teacher(store, sweep.cells[0].cell)
    document = json.loads(json.dumps(summary_document(summarise(sweep, store)), allow_nan=False))
    extra = {"stability_comparisons", "s2_ratios", "sd_last_ratios", "divergence", "claims", "warnings"}
    extra |= {"title", "question", "measure", "best", "findings", "conditions", "command", "next"}
    extra |= {"s2_claims", "scope", "family"}
    assert document.keys() == {"sweep", "store", "dataset", "teacher", "cells", "comparisons"} | extra
    assert (document["sweep"], document["store"], document["dataset"]) == ("stability", store.uri, "digits")
    assert document["teacher"] == {"hash": HASH, "error_pct": 2.1}
    assert [cell["name"] for cell in document["cells"]] == list(WEIGHTS)
    for cell in document["cells"]:
        assert cell.keys() == {
            *("cell_id", "name", "axes", "seeds", "failed", "diverged", "missing"),
            *("error_last", "error_best", "stability"),
        }
        assert cell["seeds"] == [0, 1, 2, 3, 4, 5]
        for errors in (cell["error_last"], cell["error_best"]):
            assert errors.keys() == {"mean", "sd", "n", "ci95"}
        assert cell["stability"].keys() == {
            *("s", "ddof", "s_ddof1", "window", "runs", "mean_range", "within_run_sd", "ci95", "quantum_pct"),
            *("extreme_runs", "s2", "s2_ci95", "sd_last_ci95"),
        }
    for comparison in document["comparisons"] + document["stability_comparisons"]:
        assert comparison.keys() == {
            *("cell", "reference", "difference", "ci95", "p", "p_holm", "n", "d_z", "d_z_ci95"),
            *("value", "reference_value", "within_pp"),
        }
        assert comparison["difference"] == comparison["value"] - comparison["reference_value"]
    assert [comparison["cell"] for comparison in document["comparisons"]] == list(WEIGHTS)[1:]


def test_errors_and_stability_agree_with_an_independent_computation(store):
    sweep = make_sweep()
    fill(store, sweep)
    for cell in summary_document(summarise(sweep, store))["cells"]:
        curves = [make_errors(cell["name"], seed) for seed in sweep.seeds]
        for key, errors in (
            ("error_last", [curve[-1] for curve in curves]),
            ("error_best", [min(curve) for curve in curves]),
        ):
            interval = scipy.stats.ttest_1samp(errors, 0).confidence_interval()
            assert cell[key]["mean"] == pytest.approx(statistics.fmean(errors), abs=1e-12)
            assert cell[key]["sd"] == pytest.approx(statistics.stdev(errors), abs=1e-12)
            assert cell[key]["ci95"] == pytest.approx([interval.low, interval.high], abs=1e-12)
            assert cell[key]["n"] == 6
        ranges = [max(at) - min(at) for at in zip(*curves, strict=True)][-WINDOW:]
        found = cell["stability"]
        assert found["s"] == pytest.approx(statistics.pvariance(ranges), abs=1e-9)
        assert found["s_ddof1"] == pytest.approx(statistics.variance(ranges), abs=1e-9)
        assert found["mean_range"] == pytest.approx(statistics.fmean(ranges), abs=1e-9)
        assert found["within_run_sd"] == pytest.approx(
            statistics.fmean(statistics.pstdev(curve[-WINDOW:]) for curve in curves), abs=1e-9
        )
        assert (found["ddof"], found["window"], found["runs"]) == (0, WINDOW, 6)
        assert found["quantum_pct"] == pytest.approx(100 / TEST_IMAGES, abs=1e-12)


def test_differences_are_paired_on_common_seeds_and_corrected_over_the_table(store):
    sweep = make_sweep()
    fill(store, sweep, without={("L_b", 4), ("L_b + L_is", 1)})
    comparisons = summary_document(summarise(sweep, store))["comparisons"]
    raw = []
    for comparison in comparisons:
        seeds = [seed for seed in range(6) if seed != 4 and (comparison["cell"], seed) != ("L_b + L_is", 1)]
        pairs = [make_errors(comparison["cell"], seed)[-1] - make_errors("L_b", seed)[-1] for seed in seeds]
        flips = [
            abs(statistics.fmean(sign * pair for sign, pair in zip(signs, pairs, strict=True)))
            for signs in itertools.product((1, -1), repeat=len(pairs))
        ]
        raw.append(sum(flip >= abs(statistics.fmean(pairs)) - 1e-9 for flip in flips) / len(flips))
        interval = scipy.stats.ttest_1samp(pairs, 0).confidence_interval()
        assert comparison["n"] == len(seeds)
        assert comparison["difference"] == pytest.approx(statistics.fmean(pairs), abs=1e-12)
        assert comparison["ci95"] == pytest.approx([interval.low, interval.high], abs=1e-12)
        assert comparison["p"] == raw[-1]
    low, middle, high = sorted(range(3), key=lambda index: raw[index])
    corrected = {low: 3 * raw[low]}
    corrected[middle] = max(corrected[low], 2 * raw[middle])
    corrected[high] = max(corrected[middle], raw[high])
    assert [comparison["p_holm"] for comparison in comparisons] == pytest.approx(
        [min(1.0, corrected[index]) for index in range(3)]
    )


def test_only_finished_runs_are_data_and_the_others_are_listed_by_seed(store):
    sweep = make_sweep(["L_b", "L_b + L_is"])
    fill(store, sweep, without={("L_b + L_is", seed) for seed in (1, 2, 3, 5)})
    other = sweep.cells[1]
    put_run(store, other, 1, errors=[90.0, 91.0], status="diverged", diverged_epoch=3)
    put_run(store, other, 2, errors=[], status="diverged", diverged_epoch=1)
    put_run(store, other, 3, errors=[80.0], status="failed", traceback="ValueError: no")
    cell = summary_document(summarise(sweep, store))["cells"][1]
    assert cell["seeds"] == [0, 4]
    assert (cell["failed"], cell["diverged"], cell["missing"]) == ([3], [1, 2], [5])
    assert cell["error_last"]["n"] == 2
    assert cell["error_last"]["mean"] == pytest.approx(
        statistics.fmean(make_errors(other.name, seed)[-1] for seed in (0, 4))
    )
    assert cell["stability"]["runs"] == 2


def test_runs_with_other_seeds_in_the_store_are_not_the_sweeps(store):
    fill(store, make_sweep(num_seeds=6))
    cell = summary_document(summarise(make_sweep(num_seeds=3), store))["cells"][0]
    assert cell["seeds"] == [0, 1, 2]
    assert cell["missing"] == []


@pytest.mark.parametrize(
    ("num_seeds", "window", "reason"),
    [
        (0, 5, "S is the variance of a range over runs: it needs two finished runs, not 0"),
        (1, 5, "S is the variance of a range over runs: it needs two finished runs, not 1"),
        (3, 9, "S is taken over the last 9 epochs, and the runs have 8"),
    ],
)
def test_an_undefined_s_is_null_with_its_reason(store, num_seeds, window, reason):
    fill(store, make_sweep(num_seeds=num_seeds))
    summary = summarise(make_sweep(num_seeds=3, window=window), store)
    document = summary_document(summary)
    for cell in document["cells"]:
        found = cell["stability"]
        assert (found["s"], found["s_ddof1"], found["mean_range"], found["ci95"]) == (None,) * 4
        assert found["reason"] == reason
    assert document["stability_comparisons"] == []
    assert warnings_about(summary, reason)
    assert "undefined" in print_plainly(summary)
    assert "ranges.svg" not in render_report(summary)


def test_errors_without_runs_are_null_and_not_zero(store):
    summary = summarise(make_sweep(), store)
    nothing = {"mean": None, "sd": None, "n": 0, "ci95": None}
    assert summary_document(summary)["cells"][0]["error_last"] == nothing
    assert summary_document(summary)["comparisons"] == []
    assert summary.quantum_pct is None
    assert "No run has finished yet" in render_report(summary)["report.md"].decode()


def test_s_is_compared_on_the_seeds_that_both_cells_finished_only(store):
    sweep = make_sweep(["L_b", "L_b + L_is"], num_seeds=8)
    fill(store, sweep, without={("L_b", 7), ("L_b + L_is", 2), ("L_b + L_is", 3)})
    summary = summarise(sweep, store)
    (comparison,) = summary.stability_comparisons
    seeds = [0, 1, 4, 5, 6]
    expected = [
        stats.stability([make_errors(name, seed) for seed in seeds], window=WINDOW)
        for name in ("L_b + L_is", "L_b")
    ]
    assert [comparison.value, comparison.reference_value] == pytest.approx(expected, abs=1e-12)
    assert comparison.n == 5
    (warning,) = warnings_about(summary, "Do not compare the S of the table")
    assert "of different numbers of runs (7 for L_b, 6 for L_b + L_is), and" in warning
    # Beside the paper, the ratio is that of the two S over the common seeds, not of those in the rows.
    (row,) = re.findall(r"\| L_b \+ L_is \| .* \| 0.0022 \(", render_report(summary)["report.md"].decode())
    ratio = f"{100 * (comparison.value / comparison.reference_value - 1):+.0f} %".replace(
        "-", "\N{MINUS SIGN}"
    )
    assert row.split(" | ")[4] == ratio


def rates(epochs, drops):
    """The learning rate of each epoch, as training has it."""
    return [
        learning_rate(epoch, first=1.0, epochs=epochs, drops=drops, factor=0.1, warmup_epochs=0)
        for epoch in range(epochs)
    ]


@pytest.mark.parametrize(
    ("epochs", "window", "drops", "told"),
    [
        (60, 20, (0.4, 0.8), "(epochs 41 to 60) of L_b contains a learning-rate drop (after epoch 48)"),
        (60, 40, (0.4, 0.8), "of L_b contains 2 learning-rate drops (after epochs 24 and 48)"),
        (60, 13, (0.4, 0.8), "(epochs 48 to 60) of L_b contains a learning-rate drop (after epoch 48)"),
        (60, 12, (0.4, 0.8), None),  # epoch 49, the window's first, is the first at the lower rate
        (10, 4, (0.7,), "(epochs 7 to 10) of L_b contains a learning-rate drop (after epoch 7)"),
        (10, 3, (0.7,), None),  # 0.7 * 10 is a little more than 7
        (7, 3, (0.5,), None),  # from 3.5 on, so epoch 5 is the first
        (7, 4, (0.5,), "(epochs 4 to 7) of L_b contains a learning-rate drop (after epoch 4)"),
        (8, 5, (0.99,), None),  # never comes
    ],
)
def test_a_window_of_s_with_two_learning_rates_is_warned_of(store, epochs, window, drops, told):
    values = {"student.epochs": epochs, "student.drops": drops}
    named = NamedCell(name="L_b", cell=make_cell(0.0, 0.0, **values))
    sweep = make_sweep(["L_b"], num_seeds=2, cells=(named,), window=window)
    fill(store, sweep)
    warnings = warnings_about(summarise(sweep, store), "learning-rate drop")
    assert len(warnings) == (told is not None) == (len(set(rates(epochs, drops)[-window:])) > 1)
    assert all(told in warning for warning in warnings)


def test_two_names_of_one_configuration_are_one_test(store):
    sweep = make_sweep()
    twins = (("L2-Ba", 0), ("again", 1))
    named = [NamedCell(name=name, cell=sweep.cells[index].cell) for name, index in twins]
    fill(store, sweep)
    alone, doubled = (
        summarise(dataclasses.replace(sweep, cells=(*sweep.cells, *more)), store) for more in ([], named)
    )
    assert [comparison.cell for comparison in doubled.comparisons] == [*list(WEIGHTS)[1:], "again"]
    assert doubled.find_comparison("again").p_holm == doubled.find_comparison("L_b + L_is").p_holm
    assert doubled.comparisons[:3] == alone.comparisons
    assert len(doubled.records) == len(alone.records) == 24
    assert "same cell" in print_plainly(doubled)


def test_the_same_runs_give_the_same_report(store):
    sweep = make_sweep(num_seeds=16)
    fill(store, sweep)
    first, second = summarise(sweep, store), summarise(sweep, store)
    assert summary_document(first) == summary_document(second)
    assert render_report(first) == render_report(second)


def test_a_comparison_does_not_depend_on_the_other_cells(store):
    whole, part = make_sweep(num_seeds=16), make_sweep(["L_b", "L_b + L_adv"], num_seeds=16)
    fill(store, whole)
    for measure in ("error", "stability"):
        ours, theirs = (
            summarise(sweep, store).find_comparison("L_b + L_adv", measure=measure) for sweep in (whole, part)
        )
        assert ours.p == theirs.p


@pytest.mark.parametrize(
    ("dataset", "images"), [("digits", 1107), ("mnist5k", 1000), ("cifar10", 10_000), ("imagenet", 50_000)]
)
def test_one_test_image_is_worth_so_much_also_where_the_errors_share_a_divisor(store, dataset, images):
    sweep = make_sweep(["L_b"], num_seeds=2, dataset=dataset)
    for seed, wrong in enumerate((30, 60)):
        put_run(store, sweep.cells[0], seed, errors=[100 * wrong / images] * EPOCHS)
    summary = summarise(sweep, store)
    assert summary.quantum_pct == 100 / images
    assert f"({images} images)" in render_report(summary)["report.md"].decode()


@pytest.mark.parametrize(("dataset", "images"), [("digits", 1197), ("imagenet", 390), ("folder", 1107)])
def test_what_a_test_image_of_an_unknown_number_is_worth_is_not_said(store, dataset, images):
    sweep = make_sweep(["L_b"], num_seeds=2, dataset=dataset)
    for seed, wrong in enumerate((40, 41)):
        put_run(store, sweep.cells[0], seed, errors=[100 * wrong / images] * EPOCHS)
    summary = summarise(sweep, store)
    assert summary.quantum_pct is None
    assert "one test image" not in print_plainly(summary) + render_report(summary)["report.md"].decode()


def test_a_finished_run_with_incomplete_curves_is_refused(store):
    sweep = make_sweep(["L_b"])
    put_run(store, sweep.cells[0], 2, errors=[5.0, 4.0])
    with pytest.raises(StoreError, match="seeds/2: the run is finished, but its curves do not have 8 epochs"):
        summarise(sweep, store)


# --- runs that were stopped early ---------------------------------------------------------------------------


def stop(store, sweep, runs):
    cells = {named.name: named.cell for named in sweep.cells}
    marked = [
        StoppedRun(cell_id=cell_id(cells[name]), seed=seed, epoch=2, error_pct=60.0) for name, seed in runs
    ]
    save_stopped(store, sweep, marked)


def test_of_runs_selected_by_a_scheduler_nothing_is_concluded(store):
    sweep = make_sweep(["L_b", "L_b + L_is", "L_b + L_adv"], num_seeds=8, published=("table4", "table5"))
    gone = {("L_b + L_is", 2), ("L_b + L_is", 5)}
    fill(store, sweep, without=gone)
    before = summarise(sweep, store)
    assert before.find_comparison("L_b + L_is").n == 6
    stop(store, sweep, gone)
    summary = summarise(sweep, store)
    reason = "selected on test error: 2 runs were stopped early"
    assert [comparison.cell for comparison in summary.comparisons] == ["L_b + L_adv"]
    assert [comparison.cell for comparison in summary.stability_comparisons] == ["L_b + L_adv"]
    document = json.loads(json.dumps(summary_document(summary), allow_nan=False))
    plain, cell, other = document["cells"]
    assert (cell["stability"]["s"], cell["stability"]["reason"]) == (None, reason)
    assert cell["stopped"] == [2, 5]
    for errors in (cell["error_last"], cell["error_best"]):
        assert (errors["ci95"], errors["reason"], errors["n"]) == (None, reason, 6)
    assert cell["error_last"]["mean"] == before.cells[1].error_last.mean
    assert "stopped" not in plain
    assert plain["stability"]["s"] is not None
    assert other["error_last"]["ci95"] is not None
    claims = {claim["id"]: claim for claim in document["claims"]}
    for name in ("is-beats-adv", "is-steadies-b"):
        assert (claims[name]["outcome"], claims[name]["comparisons"]) == ("not judged", [])
    named = "selected on test error: 2 runs of L_b + L_is were stopped early (seeds 2, 5)"
    assert len(warnings_about(summary, named)) == 1
    assert named in render_report(summary)["report.md"].decode()
    assert "| selected |" in render_report(summary)["report.md"].decode()


def test_a_selected_reference_leaves_no_comparison(store):
    sweep = make_sweep(["L_b", "L_b + L_is"])
    fill(store, sweep, without={("L_b", 0)})
    stop(store, sweep, {("L_b", 0)})
    summary = summarise(sweep, store)
    assert (summary.comparisons, summary.stability_comparisons) == ((), ())
    assert warnings_about(summary, "1 run of L_b was stopped early (seed 0)")
    assert "undefined" in print_plainly(summary)


def test_a_stopped_run_that_was_made_since_is_a_run_like_others(store):
    sweep = make_sweep(["L_b", "L_b + L_is"])
    fill(store, sweep)
    before = summary_document(summarise(sweep, store))
    stop(store, sweep, {("L_b + L_is", 3)})
    assert summary_document(summarise(sweep, store)) == before


# --- teachers -----------------------------------------------------------------------------------------------


def test_runs_of_teachers_with_different_weights_are_refused(store):
    sweep = make_sweep(["L_b", "L_b + L_is"])
    fill(store, sweep)
    put_run(store, sweep.cells[1], 3, teacher_hash="cd" * 32)
    with pytest.raises(StoreError, match="teachers of different weights") as caught:
        summarise(sweep, store)
    (line,) = caught.value.problems
    assert "11 with abababababab" in line
    assert f"1 with cdcdcdcdcdcd (such as cells/{cell_id(sweep.cells[1].cell)}/seeds/3)" in line


def test_cells_with_teachers_of_their_own_are_compared_with_a_warning(store):
    original = NamedCell(name="L_b + L_is", cell=make_cell(0.0, 1.0, **{"attention.connection": "original"}))
    sweep = make_sweep(["L_b"])
    sweep = dataclasses.replace(sweep, cells=(*sweep.cells, original))
    for seed in sweep.seeds:
        put_run(store, sweep.cells[0], seed)
        put_run(store, original, seed, teacher_hash="cd" * 32)
    summary = summarise(sweep, store)
    assert [teacher.hash for teacher in summary.teachers] == [HASH, "cd" * 32]
    assert warnings_about(summary, "2 teachers of different configurations")


def test_a_teacher_no_better_than_the_student_alone_is_warned_of(store):
    sweep = make_sweep()
    alone = NamedCell(name="alone", cell=dataclasses.replace(sweep.cells[0].cell, method="supervised"))
    for seed, error in ((100, 2.0), (101, 2.2)):
        put_run(store, alone, seed, errors=[error] * EPOCHS)
    put_run(store, alone, 102, errors=[90.0], status="diverged")
    put_teacher(store, sweep.cells[0].cell, error_pct=2.1)
    (warning,) = warnings_about(summarise(sweep, store), "not better than the student trained alone")
    assert "(2.10 % test error)" in warning
    assert "(2.10 %, mean of 2 supervised runs in the store)" in warning
    put_teacher(store, sweep.cells[0].cell, error_pct=2.09)
    assert not warnings_about(summarise(sweep, store), "trained alone")


def test_the_student_alone_is_known_from_the_recipe_where_it_is_the_recipes_student(store):
    sweep = make_sweep()
    evidence = {"student_alone_error_pct": {"value": 1.9, "label": "measured (2026-01-02, this machine)"}}
    known = dataclasses.replace(sweep, recipe=dataclasses.replace(sweep.recipe, evidence=evidence))
    put_teacher(store, sweep.cells[0].cell)
    (warning,) = warnings_about(summarise(known, store), "trained alone")
    assert "(1.90 %, measured, 2026-01-02, this machine; recipe of digits)" in warning
    longer = make_cell(0.0, 0.0, **{"student.epochs": 9})
    other = dataclasses.replace(known, recipe=dataclasses.replace(known.recipe, cell=longer))
    assert not warnings_about(summarise(other, store), "trained alone")
    not_run = {"student_alone_error_pct": {"label": "not run here"}}
    unknown = dataclasses.replace(sweep, recipe=dataclasses.replace(sweep.recipe, evidence=not_run))
    assert not warnings_about(summarise(unknown, store), "trained alone")


def test_the_teacher_must_beat_its_student_at_the_plateau(store):
    sweep = make_sweep()
    figures = {"student_alone_error_pct": 5.0, "student_plateau_error_pct": 3.0}
    evidence = {name: {"value": value, "label": "published"} for name, value in figures.items()}
    sweep = dataclasses.replace(sweep, recipe=dataclasses.replace(sweep.recipe, evidence=evidence))
    put_teacher(store, sweep.cells[0].cell, error_pct=4.0)
    (warning,) = warnings_about(summarise(sweep, store), "trained alone")
    assert "not better than the student trained alone (3.00 %, at its plateau)" in warning
    put_teacher(store, sweep.cells[0].cell, error_pct=2.9)
    assert not warnings_about(summarise(sweep, store), "trained alone")


def test_cells_worse_than_the_student_alone_are_warned_of(store):
    sweep = make_sweep(["L_b", "L_b + L_is"], num_seeds=3)
    evidence = {"student_alone_error_pct": {"value": 4.0, "label": "published"}}
    sweep = dataclasses.replace(sweep, recipe=dataclasses.replace(sweep.recipe, evidence=evidence))
    put_teacher(store, sweep.cells[0].cell, error_pct=1.0)
    for seed in range(3):
        put_run(store, sweep.cells[0], seed, errors=[5.0 + 0.1 * seed] * EPOCHS)  # 5.1 +- 0.25
        put_run(store, sweep.cells[1], seed, errors=[4.1 + 0.1 * seed] * EPOCHS)  # 4.2 +- 0.25
    (warning,) = warnings_about(summarise(sweep, store), "trained alone")
    assert warning.startswith(
        "The error of L_b is above that of the student trained alone (4.00 %, published"
    )


@pytest.mark.parametrize(("train_error_pct", "warned"), [(10.0, False), (35.0, True)])
def test_a_teacher_that_did_not_converge_is_warned_of(store, train_error_pct, warned):
    sweep = make_sweep()
    put_teacher(store, sweep.cells[0].cell, train_error_pct=train_error_pct)
    assert bool(warnings_about(summarise(sweep, store), "did not converge: 35.0 %")) == warned


def test_the_error_of_another_teacher_is_not_shown_as_the_runs_own(store):
    sweep = make_sweep()
    fill(store, sweep)
    put_teacher(store, sweep.cells[0].cell, teacher_hash="cd" * 32)
    summary = summarise(sweep, store)
    assert summary_document(summary)["teacher"] == {"hash": HASH, "error_pct": None}
    assert warnings_about(summary, "no longer in the store")


def test_a_sweep_without_a_teacher_has_none(store):
    alone = NamedCell(name="alone", cell=dataclasses.replace(make_cell(0, 0), method="supervised"))
    sweep = make_sweep(cells=(alone,), reference=None, published=())
    fill(store, sweep)
    assert summary_document(summarise(sweep, store))["teacher"] is None


# --- warnings -----------------------------------------------------------------------------------------------


def test_too_few_runs_to_rank_s_are_warned_of(store):
    sweep = make_sweep(["L_b", "L_b + L_is"], num_seeds=4)
    fill(store, sweep)
    (warning,) = warnings_about(summarise(sweep, store), "S cannot be ranked against that of L_b")
    assert "4 runs are too few" in warning
    assert "10-20 %" not in warning  # these two differ by much more


def test_s_that_the_test_cannot_tell_apart_is_warned_of_and_s_that_it_can_is_not(store):
    sweep = make_sweep(["L_b", "L_b + L_is", "L_b + L_adv"], num_seeds=16)
    restless, steady, alike = sweep.cells
    for seed in sweep.seeds:
        errors = make_errors("L_b", seed, jitter=60)
        put_run(store, restless, seed, errors=errors)
        put_run(store, steady, seed, errors=[100 * (40 + seed % 2) / TEST_IMAGES] * EPOCHS)
        put_run(store, alike, seed, errors=errors)
    summary = summarise(sweep, store)
    (warning,) = warnings_about(summary, "S cannot be ranked against that of L_b")
    assert "L_b + L_adv: 16 runs cannot tell them apart (Holm p = 1)" in warning
    assert "S is made of the 6 runs that are ever the best or the worst" in warning
    assert "L_b + L_is" not in warning
    assert summary.find_comparison("L_b + L_is", measure="stability").significant


def test_many_cells_are_counted_in_a_warning_and_not_listed(store):
    cells = tuple(
        NamedCell(name=f"mu {mu}", cell=make_cell(1.0, 1.0, **{"loss.mu": mu / 10})) for mu in range(1, 8)
    )
    sweep = make_sweep(cells=cells, reference="mu 1", num_seeds=4)
    fill(store, sweep)
    (warning,) = warnings_about(summarise(sweep, store), "S cannot be ranked")
    assert "6 cells: 4 runs are too few" in warning


def test_failed_diverged_and_missing_runs_are_warned_of_by_seed(store):
    sweep = make_sweep(["L_b"])
    fill(store, sweep, without={("L_b", seed) for seed in (1, 2, 3, 5)})
    put_run(store, sweep.cells[0], 1, errors=[90.0], status="diverged", diverged_epoch=2)
    put_run(store, sweep.cells[0], 2, errors=[90.0], status="diverged", diverged_epoch=2)
    put_run(store, sweep.cells[0], 3, errors=[], status="failed", traceback="OSError: gone")
    (warning,) = warnings_about(summarise(sweep, store), "that finished")
    assert warning == (
        "L_b: 1 run failed (seed 3), 2 runs diverged (seeds 1, 2), 1 run missing (seed 5); its figures are "
        "those of the 2 of 6 runs that finished, selected by their outcome: its S is not ranked, its error "
        "is called equivalent to no other, and lower or higher only where that holds whatever errors, from 0 "
        "to 100 %, the lost runs had had."
    )


def test_a_cell_of_which_no_run_finished_is_said_to_have_no_figures(store):
    sweep = make_sweep(["L_b", "L_b + L_adv"], num_seeds=1)
    fill(store, sweep, without={("L_b", 0)})
    put_run(store, sweep.cells[0], 0, errors=[90.0], status="diverged", diverged_epoch=2)
    (warning,) = warnings_about(summarise(sweep, store), "no figures")
    assert warning == "L_b: 1 run diverged (seed 0); none finished, so it has no figures."


def test_alarms_of_the_same_kind_are_one_warning(store):
    sweep = make_sweep(["L_b + L_adv"])
    fill(store, sweep)
    for seed in (0, 1, 2):
        alarm = f"the discriminator is constant: 0.50{seed} for the teacher, 0.5 for the student"
        put_run(store, sweep.cells[0], seed, alarms=(alarm,))
    put_run(store, sweep.cells[0], 4, alarms=("the discriminator wins outright",))
    constant, outright = warnings_about(summarise(sweep, store), "discriminator")
    assert constant.startswith("L_b + L_adv, seeds 0-2: the discriminator is constant: 0.500 for the teacher")
    assert outright == "L_b + L_adv, seed 4: the discriminator wins outright."


# --- the paper ----------------------------------------------------------------------------------------------


def test_claims_are_reproduced_contradicted_or_left_open(store):
    names = ["L_b", "L_b + L_is", "L_b + L_adv", "L_b + L_adv + L_is"]
    sweep = make_sweep(names, num_seeds=12, published=("table4",))
    put_levels(store, sweep, dict(zip(names, (60, 50, 40, 40), strict=True)))
    verdicts = {verdict.claim.id: verdict.outcome for verdict in summarise(sweep, store).verdicts}
    assert verdicts == {
        "backbone-beats-supervised": "not judged",  # the sweep has no supervised cell
        "is-beats-adv": "contradicted",  # L_b + L_adv is better by 10 images in every seed
        "all-terms-best": "undecided",  # better than two of the three, the same as L_b + L_adv
    }
    put_levels(store, sweep, dict(zip(names, (60, 40, 50, 30), strict=True)))
    verdicts = {verdict.claim.id: verdict.outcome for verdict in summarise(sweep, store).verdicts}
    assert verdicts["is-beats-adv"] == verdicts["all-terms-best"] == "reproduced"


def test_the_published_figures_bear_out_the_published_claims():
    published = load_published()
    open_pairs = []
    for claim in published.claims:
        if claim.kind not in ("error", "stability") or claim.table not in published.tables:
            continue
        figures = {row.name: row.figures for row in published.tables[claim.table].rows}
        for better, worse in claim.pairs:
            for ours, theirs in zip(figures[better], figures[worse], strict=True):
                if ours is not None and theirs is not None and not ours < theirs:
                    open_pairs.append((claim.id, better, ours))
    # The paper's own contradiction: its students RN-50 beat the teacher in top-1 only.
    assert open_pairs == [
        ("rn50-beats-teacher", "HKSANC (RN-50)", 7.97),
        ("rn50-adversarial-beats-teacher", "ANC (RN-50)", 8.75),
        ("rn50-adversarial-beats-teacher", "TSCAN (RN-50)", 8.53),
    ]


def test_the_published_gains_are_larger_on_cifar_100():
    published = load_published()
    (claim,) = [claim for claim in published.claims if claim.datasets]
    columns = dict(zip(("cifar10", "cifar100"), published.tables[claim.table].columns, strict=True))
    figures = {
        f"{row.name} on {dataset}": row.figures[published.tables[claim.table].columns.index(column)]
        for row in published.tables[claim.table].rows
        for dataset, column in columns.items()
    }
    gains = [
        [figures[one] - figures[other] for one, other in (side.split(" over ") for side in pair)]
        for pair in claim.pairs
    ]
    assert [[round(gain, 2) for gain in pair] for pair in gains] == [[-1.22, -0.64], [-1.10, -0.79]]


def test_published_tables_are_complete():
    tables = load_published().tables
    assert [len(tables[f"table{number}"].rows) for number in range(1, 8)] == [2, 6, 4, 5, 4, 11, 13]
    assert tables["table5"].measure == "stability"
    assert tables["table5"].rows[0].figures == (2.46e-3, 5.12e-3)
    quantization = next(row for row in tables["table6"].rows if row.name == "Quantization")
    assert (quantization.figures, quantization.source) == ((8.87, None), "cited")
    assert tables["table7"].columns == ("ImageNet, top-1", "ImageNet, top-5")


def test_published_figures_stand_in_columns_of_their_own_data(store):
    names = ["L_b", "L_b + L_is"]
    sweep = make_sweep(names, published=("table4",))
    put_levels(store, sweep, {"L_b": 60, "L_b + L_is": 48})
    text = render_report(summarise(sweep, store))["report.md"].decode()
    rows = [[field.strip() for field in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    assert [
        *("Row", "n, digits", "Error (%), digits", "sd", "minus L_b (pp)", "p, Holm", r"d_z \[95 %\]"),
        *("Published, CIFAR-10", "Published, CIFAR-100"),
    ] in rows
    minus = "\N{MINUS SIGN}"
    found = {row[0]: row for row in rows if "8.19" in row or "7.51" in row[-2] or "8.58" in row[-2]}
    row = found["L_b + L_is"]
    assert (row[1], row[2].split(" ")[0], row[4].split(" ")[0]) == ("6", "4.44", f"**{minus}1.08")
    assert row[-2:] == [f"7.51 ({minus}0.68)", f"31.86 ({minus}0.74)"]
    dash = "\N{EN DASH}"
    assert found["supervised learning (cited)"] == [
        *("supervised learning (cited)", "not run here", dash, dash, dash, "", ""),
        *("8.58 (+0.39)", "33.36 (+0.76)"),
    ]


# --- a teacher for each seed --------------------------------------------------------------------------------


def fill_paired(store, *, num_seeds=6, students=1, errors_pct=None):
    """Runs of two cells whose seeds have teachers of their own, seed by seed with another hash."""
    sweep = make_sweep(["L_b", "L_b + L_is"], num_seeds=num_seeds)
    own = {"teacher.seeds": "paired", "teacher.students": students}
    cells = tuple(
        NamedCell(name=named.name, cell=make_cell(*WEIGHTS[named.name], **own)) for named in sweep.cells
    )
    sweep = dataclasses.replace(sweep, cells=cells)
    for seed in sweep.seeds:
        digest = f"{seed // students:02}" * 32
        for named in sweep.cells:
            put_run(store, named, seed, teacher_hash=digest)
        if errors_pct is not None:
            cell = cells[0].cell.with_teacher_of(seed)
            put_teacher(store, cell, teacher_hash=digest, error_pct=errors_pct[seed // students])
    return sweep


def test_several_teachers_are_told_as_mean_and_spread(store):
    errors_pct = [2.0, 2.5, 3.0, 2.5, 2.0, 3.0]
    sweep = fill_paired(store, errors_pct=errors_pct)
    summary = summarise(sweep, store)
    (teacher,) = summary.teachers
    assert [trained.seeds for trained in teacher.trained] == [(seed,) for seed in range(6)]
    half = scipy.stats.t.ppf(0.975, 5) * statistics.stdev(errors_pct) / 6**0.5
    line = (
        f"6 teachers (preact-20-w32), one per seed: 2.50 ± {half:.2f} % test error (sd 0.45, from 2.00 to "
        "3.00), 0.00 % on their training images."
    )
    assert line in " ".join(print_plainly(summary).split())
    document = summary_document(summary)["teacher"]
    assert (document["hash"], document["error_pct"], document["n"]) == (None, 2.5, 6)
    assert document["teachers"][3] == {
        "teacher_id": teacher.trained[3].teacher_id,
        "seeds": [3],
        "hash": "03" * 32,
        "error_pct": 2.5,
    }
    text = render_report(summary)["report.md"].decode()
    assert "| Teachers | one for each seed, 6 teachers in all |" in text
    assert "different configurations" not in text


@pytest.mark.parametrize(
    ("students", "scope"),
    [
        (1, "Each seed learned from a teacher of its own"),
        (2, "Some seeds of a cell share a teacher, and are not independent"),
    ],
)
def test_results_say_for_which_teachers_they_hold(store, students, scope):
    summary = summarise(fill_paired(store, students=students), store)
    assert print_plainly(summary).count(scope) == 1


def test_a_teacher_that_was_replaced_between_two_cells_of_a_seed_is_refused(store):
    sweep = fill_paired(store)
    put_run(store, sweep.cells[1], 3, teacher_hash="cd" * 32)
    with pytest.raises(StoreError, match="teachers of different weights") as caught:
        summarise(sweep, store)
    assert "1 with 030303030303" in caught.value.problems[0]


def test_teachers_no_better_than_the_student_alone_are_warned_of_as_one(store):
    sweep = fill_paired(store, errors_pct=[2.0, 2.0, 2.0, 2.4, 2.4, 2.4])
    evidence = {"student_alone_error_pct": {"value": 2.1, "label": "measured (today, here)"}}
    recipe = dataclasses.replace(sweep.recipe, evidence=evidence)
    summary = summarise(dataclasses.replace(sweep, recipe=recipe), store)
    (warning,) = warnings_about(summary, "there is nothing to distil")
    assert warning.startswith("The mean of the teachers (2.20 % test error) is not better")


def test_a_seed_whose_teacher_diverged_is_lost_and_not_merely_missing(store):
    sweep = fill_paired(store)
    put_diverged_teacher(store, sweep.cells[0].cell.with_teacher_of(6))
    summary = summarise(dataclasses.replace(sweep, seeds=(*sweep.seeds, 6, 7)), store)
    assert [(cell.untaught, cell.missing, cell.lost) for cell in summary.cells] == [((6,), (7,), (6,))] * 2
    assert summary_document(summary)["cells"][0]["untaught"] == [6]
    warnings = warnings_about(summary, "1 run without a teacher, which diverged (seed 6), 1 run missing")
    assert len(warnings) == 2
    assert "selected by their outcome" in warnings[0]
    assert (
        summary.comparisons[0].reservation
        == "of 8 runs of L_b + L_is, 1 had no teacher; of 8 runs of L_b, 1 had no teacher"
    )


@pytest.mark.parametrize("students", [1, 2])
def test_the_variance_of_several_teachers_is_split_by_cell_and_across_cells(store, students):
    sweep = fill_paired(store, students=students)
    summary = summarise(sweep, store)
    groups = [seed // students for seed in sweep.seeds]
    errors = {named.name: [make_errors(named.name, seed) for seed in sweep.seeds] for named in sweep.cells}
    expected = [stats.decompose(np.array(found)[:, -WINDOW:], groups) for found in errors.values()]
    last = np.array([[found[seed][-1] for found in errors.values()] for seed in sweep.seeds])
    expected.append(stats.decompose(last, groups))
    assert [split.components for split in summary.variance] == expected
    assert [(split.over, split.cells) for split in summary.variance] == [
        ("epochs", ("L_b",)),
        ("epochs", ("L_b + L_is",)),
        ("cells", ("L_b", "L_b + L_is")),
    ]
    document = summary_document(summary)["variance"]
    name, part = ("teacher_and_student", "together") if students == 1 else ("teacher", "teacher")
    assert document[0][name]["estimate"] == getattr(expected[0], part).estimate
    assert ("student" in document[0]) == (students == 2)
    assert document[0]["lag1"] == expected[0].lag1
    assert "epoch" not in document[2]
    files = {name: content.decode() for name, content in render_report(summary).items() if "report." in name}
    assert "## Where the variance comes from" in files["report.md"]
    assert ("cannot be told apart" in files["report.md"]) == (students == 1)
    estimate = getattr(expected[0], part).estimate
    assert any(
        line.startswith("variance-epochs,L_b,") and str(estimate) in line
        for line in files["report.csv"].splitlines()
    )


def test_a_negative_component_is_shown_as_none_with_its_estimate(store):
    sweep = fill_paired(store)
    for seed in sweep.seeds:  # equal means, and each epoch its own
        wrong = [40 + (-1) ** (seed + epoch) for epoch in range(EPOCHS)]
        errors = [100 * count / TEST_IMAGES for count in wrong]
        put_run(store, sweep.cells[0], seed, errors=errors, teacher_hash=f"{seed:02}" * 32)
    summary = summarise(dataclasses.replace(sweep, window=4), store)
    assert summary.variance[0].components.together.estimate < 0
    text = render_report(summary)["report.md"].decode()
    minus = "\N{MINUS SIGN}"
    (row,) = [line for line in text.splitlines() if line.startswith("| L_b | 6 | 6 |")]
    assert re.search(rf"\| 0 \(from {minus}0\.\d+\) \\\[0, 0\\\], 0 % \|", row), row


def test_one_teacher_has_no_variance_to_split(store):
    sweep = make_sweep(["L_b", "L_b + L_is"])
    fill(store, sweep)
    summary = summarise(sweep, store)
    assert summary.variance == ()
    assert "variance" not in summary_document(summary)
    assert "Where the variance comes from" not in render_report(summary)["report.md"].decode()


def test_runs_that_were_selected_or_are_too_few_have_no_variance_to_split(store):
    sweep = fill_paired(store)
    save_stopped(
        store, sweep, [StoppedRun(cell_id=cell_id(sweep.cells[0].cell), seed=9, epoch=1, error_pct=9.0)]
    )
    summary = summarise(dataclasses.replace(sweep, seeds=(*sweep.seeds, 9)), store)
    assert [(split.over, split.cells) for split in summary.variance] == [("epochs", ("L_b + L_is",))]
    few = summarise(dataclasses.replace(sweep, seeds=(0,)), store)
    assert few.variance == ()
    short = summarise(dataclasses.replace(sweep, window=EPOCHS + 1), store)
    assert [split.over for split in short.variance] == ["cells"]


# --- the terminal -------------------------------------------------------------------------------------------


TABLE = """
Convergence stability, digits, 12 seeds
Does it help?

Best: L_b + L_adv (5.81 %), p < 0.001 against the reference, L_b (-0.35 ± 0.12 pp). It is told from
the other cell. Not in the running, for want of runs with a result: L_b + L_is.

                         error %    best                    S, pp²   mean   error minus       p
 cell             n   last epoch  epoch*            [95 % approx.]  range           L_b    Holm
 ──────────────────────────────────────────────────────────────────────────────────────────────
 L_b             12  6.16 ± 0.10    6.15   0.0033 [0.00029, 0.037]   0.54     reference
 L_b + L_is   11/12  5.81 ± 0.12    5.79    0.0033 [0.00010, 0.10]   0.54  -0.34 ± 0.11   0.002
 L_b + L_adv     12  5.81 ± 0.13    5.81  0.0020 [0.000057, 0.067]   0.49  -0.35 ± 0.12  <0.001
"""


def test_the_table_reads_so(store):
    sweep = make_sweep(["L_b", "L_b + L_is", "L_b + L_adv"], num_seeds=12, measure="error")
    fill(store, sweep, without={("L_b + L_is", 7)})
    lines = print_plainly(summarise(sweep, store)).splitlines()
    assert "\n".join(line.rstrip() for line in lines[:12]) == TABLE.strip("\n")


SCOPE = "All seeds of a cell learned from one teacher: intervals and p hold for that teacher alone."


def test_results_say_that_they_hold_for_one_teacher(store):
    sweep = make_sweep(["L_b", "L_b + L_is"], num_seeds=6)
    fill(store, sweep)
    summary = summarise(sweep, store)
    assert print_plainly(summary).count(SCOPE) == 1
    files = render_report(summary)
    for name in ("report.md", "report.html", "report.tex"):
        assert " ".join(files[name].decode().split()).count(SCOPE) == 1, name
    assert "| Teachers | one for all seeds of a cell, 1 teacher in all |" in files["report.md"].decode()


def test_results_without_a_teacher_say_nothing_of_one(store):
    sweep = make_sweep(["L_b"], num_seeds=3)
    alone = NamedCell(name="supervised", cell=make_cell(0.0, 0.0, method="supervised"))
    sweep = dataclasses.replace(sweep, cells=(alone,), reference=None)
    fill(store, sweep)
    summary = summarise(sweep, store)
    assert "teacher" not in print_plainly(summary)
    assert SCOPE not in render_report(summary)["report.md"].decode()


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("width", [100, 140])
@pytest.mark.parametrize("num_seeds", [3, 20])
def test_nothing_is_wider_than_the_console_and_no_prose_than_100_columns(store, num_seeds, width, terminal):
    sweep = make_sweep(num_seeds=num_seeds, reference="L_b + L_adv + L_is", measure="error")
    fill(store, sweep, without={("L_b", 1)})
    printed = print_plainly(summarise(sweep, store), terminal=terminal, width=width)
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    assert max(map(len, text.splitlines())) <= width
    _, prose = text.split("The paper's claims")
    assert max(map(len, prose.splitlines())) <= 100
    assert "…" not in text


@pytest.mark.parametrize(
    ("width", "left_out"),
    [
        (60, "best epoch, mean range, S"),
        (80, "best epoch, mean range, interval of S"),
        (100, None),
        (120, None),
    ],
)
def test_a_terminal_of_any_width_shows_every_figure_of_its_columns_whole(store, width, left_out):
    sweep = make_sweep(num_seeds=16, measure="error")
    fill(store, sweep)
    summary = summarise(sweep, store)
    text = re.sub(r"\x1b\[[0-9;]*m", "", print_plainly(summary, terminal=True, width=width))
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    table = re.split("Left out|Error: mean over seeds", text)[0]
    for cell in summary.cells:
        figures = [wording.plus_minus(cell.error_last.mean, cell.error_last.ci95)]
        if width > 60:
            figures.append(wording.digits(cell.stability.s))
        if left_out is None:
            figures.append(wording.interval(cell.stability.ci95))
            figures += [f"{cell.error_best.mean:.2f}", f"{cell.stability.mean_range:.2f}"]
        comparison = summary.find_comparison(cell.name)
        if comparison is not None:
            figures.append(wording.plus_minus(comparison.difference, comparison.ci95, signed=True))
            figures.append(wording.p_value(comparison.p_holm))
        whole = [rf"(?<!\S){re.escape(figure)}(?!\S)" for figure in figures]
        lines = table.splitlines()
        assert any(all(re.search(figure, line) for figure in whole) for line in lines), figures
        assert max(len(line.rstrip()) for line in lines) <= width
    for heading, column in (("best", "best epoch"), ("mean", "mean range")):
        shown = re.search(rf"\b{heading}\b", table.partition("─")[0]) is not None
        assert shown == (column not in (left_out or ""))
    joined = " ".join(text.split())
    assert ("Left out because the terminal is narrow" in joined) == (left_out is not None)
    assert left_out is None or f"is narrow: {left_out}; report.html has them." in joined
    assert ("* The best epoch is selected" in joined) == (left_out is None)
    for line in text[len(table) :].splitlines():
        assert len(line) <= width


@pytest.mark.parametrize(("width", "best"), [(80, False), (100, True)])
def test_away_from_a_terminal_the_text_is_plain_and_as_wide_as_the_console(store, width, best):
    sweep = make_sweep(["L_b", "L_b + L_is"], measure="error")
    fill(store, sweep)
    text = print_plainly(summarise(sweep, store), width=width)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) == width
    assert ("* The best epoch is selected on the test set." in text) == best


@pytest.mark.parametrize(("gap", "bold"), [(10, True), (0, False)])
def test_only_significant_differences_are_bold_anywhere(store, gap, bold):
    sweep = make_sweep(["L_b", "L_b + L_is"], num_seeds=12, published=("table4",))
    put_levels(store, sweep, {"L_b": 50, "L_b + L_is": 50 - gap})
    put_run(store, sweep.cells[1], 0)  # so that the differences are not all the same
    summary = summarise(sweep, store)
    files = {
        name: text.decode() for name, text in render_report(summary).items() if name.startswith("report")
    }
    terminal = print_plainly(summary, terminal=True)
    difference = f"{summary.comparisons[0].difference:+.2f}"
    assert summary.comparisons[0].significant == bold
    assert (f"\x1b[1m{difference}" in terminal) == bold
    assert ("\x1b[1m" in terminal) == bold
    assert ("<strong>" in files["report.html"]) == bold
    assert ("**" in files["report.md"]) == bold


# --- files --------------------------------------------------------------------------------------------------


class Page(html.parser.HTMLParser):
    """Collects a page's elements, and checks that they nest."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_needs_nothing_beside_it_and_forbids_what_it_does_not_hold(store):
    sweep = make_sweep()
    fill(store, sweep)
    text = render_report(summarise(sweep, store))["report.html"].decode()
    page = Page(text)
    found = [attributes for _, attributes in page.elements]
    ids = [attributes["id"] for attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"].removeprefix("#") for attributes in found if "href" in attributes} < set(ids)
    assert not {"src", "style", "srcset"} & {name for attributes in found for name in attributes}
    assert not {"img", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert "@import" not in text
    (policy,) = [attributes["content"] for attributes in found if "http-equiv" in attributes]
    style, script = (
        "sha256-"
        + base64.b64encode(
            hashlib.sha256(re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1].encode()).digest()
        ).decode()
        for tag in ("style", "script")
    )
    assert policy == (
        f"default-src 'none'; style-src '{style}'; script-src '{script}'; base-uri 'none'; form-action 'none'"
    )


def test_the_page_is_built_for_those_who_do_not_see_it(store):
    sweep = make_sweep()
    fill(store, sweep)
    page = Page(render_report(summarise(sweep, store))["report.html"].decode())
    assert ("html", {"lang": "en"}) in page.elements
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(following <= level + 1 for level, following in pairwise(levels))
    headings = [attributes for tag, attributes in page.elements if tag == "th"]
    assert {attributes["scope"] for attributes in headings} == {"col", "row"}
    tags = [tag for tag, _ in page.elements]
    assert tags.count("caption") == tags.count("table") >= 8
    figures = [attributes for _, attributes in page.elements if attributes.get("role") == "img"]
    captions = {attributes["id"] for tag, attributes in page.elements if tag == "figcaption"}
    assert len(figures) == 2 * len(captions) == 6
    assert {attributes["aria-labelledby"] for attributes in figures} == captions


def test_contents_and_links_name_every_section_and_table(store):
    sweep = make_sweep()
    fill(store, sweep)
    page = Page(render_report(summarise(sweep, store))["report.html"].decode())
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    anchors = [attributes["href"] for tag, attributes in page.elements if attributes.get("class") == "anchor"]
    sections = [attributes["id"] for tag, attributes in page.elements if tag == "section"]
    assert sections == [
        *("test-error", "seeds", "stability", "paper", "table5", "claims"),
        *("runs", "own-keys", "time", "conditions", "method", "again"),
    ]
    assert {f"#{section}" for section in sections} <= set(anchors)
    tables = ("errors", "seeds", "stability", "table5", "claims", "evidence", "runs", "own-keys", "time")
    assert {f"#table-{table}" for table in (*tables, "conditions", "configuration")} < set(anchors)
    for section in ("test-error", "seeds", "stability", "paper", "runs", "conditions", "method", "again"):
        assert links.count(f"#{section}") == 3  # beside the text, above it, and its own


def test_what_users_wrote_is_text_and_never_markup(store):
    evil = "<script>alert('x')</script> | **b** [a](b) `c`"
    named = NamedCell(name=evil, cell=make_cell(0.0, 0.5))
    sweep = make_sweep(["L_b"], title=evil, question=evil)
    sweep = dataclasses.replace(sweep, cells=(*sweep.cells, named), reference=evil)
    fill(store, sweep)
    put_run(store, named, 1, errors=[], status="failed", traceback=f"ValueError: {evil}")
    put_run(store, named, 2, alarms=(evil,))
    files = render_report(summarise(sweep, store))
    page = Page(files["report.html"].decode())
    assert [tag for tag, _ in page.elements].count("script") == 1  # the page's own
    assert "".join(page.text).count(evil) >= 8
    markdown = files["report.md"].decode()
    assert "<script" not in markdown.replace("\\<script", "")
    assert "**b**" not in markdown
    assert "[a](b)" not in markdown


def test_losses_have_real_subscripts_on_the_page(store):
    sweep = make_sweep()
    fill(store, sweep)
    text = render_report(summarise(sweep, store))["report.html"].decode()
    names = " + ".join(f"<i>L</i><sub>{below}</sub>" for below in ("b", "adv", "is"))
    assert f'<span class="name">{names}</span></th>' in text


def test_markdown_tables_have_as_many_fields_as_columns_and_its_figures_exist(store):
    sweep = make_sweep()
    fill(store, sweep, without={("L_b", 2)})
    put_run(store, sweep.cells[0], 2, errors=[], status="failed", traceback="a | b")
    files = render_report(summarise(sweep, store))
    text = files["report.md"].decode()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    blocks = [
        list(block)
        for inside, block in itertools.groupby(text.splitlines(), lambda line: line[:1] == "|")
        if inside
    ]
    assert len(blocks) == 13
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in block}) == 1
        assert re.fullmatch(r"\|( -+:? \|)+", block[1])
        assert len(block) >= 3
    assert sum(map(len, blocks)) == len(rows)
    images = re.findall(r"!\[.*\]\((.*)\)", text)
    assert images == ["error-curves.svg", "differences.svg", "ranges.svg"]
    assert set(images) <= files.keys()


def test_a_failed_run_stands_in_the_report_with_its_first_telling_line(store):
    sweep = make_sweep(["L_b"])
    fill(store, sweep)
    trace = (
        'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    g()\nOSError: disk gone\nmore\n'
    )
    put_run(store, sweep.cells[0], 4, errors=[50.0, 40.0], status="failed", traceback=trace)
    text = render_report(summarise(sweep, store))["report.md"].decode()
    assert "| L_b | 4 | failed after 2 epochs | OSError: disk gone |" in text


def test_the_report_is_written_beside_what_else_the_folder_holds(store):
    sweep = make_sweep()
    fill(store, sweep)
    folder = store.sweep_folder("stability", "digits")
    store.commit(folder, {"plan.json": b"{}", "report.md": b"an older one"})
    summary = summarise(sweep, store)
    paths = write_report(summary, store)
    assert store.read(folder, "plan.json") == b"{}"
    assert paths["report.html"] == str(store.local_path / folder / "report.html")
    assert {name: store.read(folder, name) for name in paths} == render_report(summary)
    assert set(store.names(folder)) == {"plan.json", *paths}


def test_a_sweep_of_one_cell_without_reference_can_be_reported(store):
    sweep = make_sweep(["L_b"], num_seeds=1, reference=None, published=(), question="")
    fill(store, sweep)
    summary = summarise(sweep, store)
    files = render_report(summary)
    assert "differences.svg" not in files
    assert "Beside the paper" not in files["report.md"].decode()
    assert "L_b" in print_plainly(summary)


def test_the_report_says_how_to_run_it_again(store):
    text = render_report(summarise(make_sweep(), store))["report.md"].decode()
    assert "    hkrun sweep stability --dataset digits --seeds 6\n" in text
    text = render_report(summarise(make_sweep(seeds=(3, 7)), store))["report.md"].decode()
    assert "    hkrun sweep stability --dataset digits --seeds 3,7\n" in text


def test_the_report_of_a_single_run_repeats_its_changes(store):
    sweep = load_cell(overrides=["method=supervised", "student.drops=[0.5]"], seeds="2")
    text = render_report(summarise(sweep, store))["report.md"].decode()
    assert "    hkrun run method=supervised 'student.drops=[0.5]' --dataset digits --seeds 2\n" in text


def test_the_report_states_the_conditions(store):
    sweep = make_sweep(["L_b"], num_seeds=2)
    put_run(store, sweep.cells[0], 0)
    put_run(store, sweep.cells[0], 1, versions={"torch": "2.11.0"}, device="NVIDIA H100", resumed=2)
    put_teacher(store, sweep.cells[0].cell)
    text = render_report(summarise(sweep, store))["report.md"].decode()
    for row in (
        "| Version of torch | 2.11.0, 2.15.0 |",
        "| Device | NVIDIA H100, cpu x86_64 |",
        "| Resumed runs | 1 |",
        "| Started (UTC) | 2025-10-09 08:53 to 2025-10-09 08:54 |",
        "| 2 runs of students | 20 s | 40 % |",
        "| of these, epochs | 18 s | 90 % |",
        "| 1 teacher | 30 s | 60 % |",
        "| student.epochs | 8 |  |",
    ):
        assert row in text


# --- wording ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0409, "0.041"),
        (2.46e-3, "0.0025"),
        (1.26, "1.3"),
        (12.3, "12"),
        (0.1, "0.10"),
        (1.2e-9, "1.2e-09"),
    ],
)
def test_s_has_two_significant_digits(value, text):
    assert wording.digits(value) == text


@pytest.mark.parametrize(
    ("p", "text"), [(0.0009, "<0.001"), (0.001, "0.001"), (0.0312, "0.031"), (0.0996, "0.10"), (1.0, "1.00")]
)
def test_p_values_are_rounded_so(p, text):
    assert wording.p_value(p) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([3], "3"), ([1, 0], "0, 1"), ([4, 0, 1, 2], "0-2, 4"), ([7, 9, 8, 1], "1, 7-9")],
)
def test_seeds_are_written_in_spans(numbers, text):
    assert wording.seeds(numbers) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (120, "2.0 min"), (7200, "2.0 h"), (200_000, "2.3 d")]
)
def test_durations_are_written_in_a_fitting_unit(seconds, text):
    assert wording.duration(seconds) == text


@pytest.mark.parametrize("trace", [None, "", "Traceback (most recent call last):\n  File x\n"])
def test_a_missing_traceback_is_said_to_be_missing(trace):
    assert wording.first_line(trace) == "no traceback was kept"
