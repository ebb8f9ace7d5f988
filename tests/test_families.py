"""Which tests are corrected together: each table's, or all of a study (`family`)."""

import dataclasses
import re

import numpy as np
import pytest
from report_example import EPOCHS, TEST_IMAGES, fill, make_sweep, put_levels, put_teacher

from hkrun import stats
from hkrun.errors import InputError
from hkrun.report import load_published, render_report, summarise, summary_document
from hkrun.report.concluding import conclude
from hkrun.report.families import Families
from hkrun.spaces import load_sweep, restore_sweep, sweep_document
from hkrun.store import open_store

pytestmark = pytest.mark.usefixtures("undrawn_figures")

FIGURE_4 = ("lower-curve", "lower-curve-after-drop", "lower-above-all-after-drop")


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def make_study(store, *, num_seeds=12, **changes):
    """A summary of table 5's cells whose seeds all have runs."""
    sweep = make_sweep(num_seeds=num_seeds, claims=FIGURE_4, **changes)
    fill(store, sweep)
    put_teacher(store, sweep.cells[1].cell)
    return summarise(sweep, store)


def with_family(summary, family):
    return dataclasses.replace(summary, sweep=dataclasses.replace(summary.sweep, family=family))


def test_a_table_is_corrected_alone_or_with_all_others():
    first, second = {("error", "a"): 0.01, ("error", "b"): 0.03}, {("s", "a"): 0.004, ("error", "b"): 0.03}
    by_table = Families()
    assert list(by_table.correct(first).values()) == stats.holm([0.01, 0.03])
    assert list(by_table.correct(second).values()) == stats.holm([0.004, 0.03])
    assert (by_table.num_tables, by_table.size(2)) == (2, 2)
    # The test that both have counts once.
    assert by_table.tests == {("error", "a"): 0.01, ("error", "b"): 0.03, ("s", "a"): 0.004}
    of_all = Families(by_table.tests)
    a, b, s = stats.holm([0.01, 0.03, 0.004])
    assert of_all.correct(first) == {("error", "a"): a, ("error", "b"): b}
    assert of_all.correct(second) == {("s", "a"): s, ("error", "b"): b}
    assert of_all.size(2) == 3
    assert of_all.place(first, ("error", "a"), 0.9) == stats.holm([0.9, 0.03, 0.004])[0]


def test_tables_of_the_same_tests_are_one_and_two_draws_of_a_p_count_as_the_larger():
    families = Families()
    families.correct({("error", "a"): 0.0100})
    families.correct({("error", "a"): 0.0102})
    families.correct({})
    assert (families.num_tables, families.tests) == (1, {("error", "a"): 0.0102})


def test_over_all_tables_every_p_is_that_of_one_family(store):
    summary = make_study(store)
    every = conclude(with_family(summary, "all"), {}, load_published())
    pool = {}
    for item in (*every.comparisons, *every.stability_comparisons):
        pool[item.measure, item.test] = item.p
    for name, ratios in (("s2", every.s2_ratios), ("deviation", every.deviation_ratios)):
        pool |= {(name, item.test): item.p for item in ratios}
    for verdict in (*every.verdicts, *every.s2_verdicts):
        pool |= {(item.measure, item.test): item.p for item in verdict.comparisons}
        if len(verdict.comparisons) > 1:
            largest = max(1.0 if item.difference >= 0 else item.p for item in verdict.comparisons)
            pool["claim", verdict.claim.id] = largest
    assert every.num_tests == len(pool)
    corrected = dict(zip(pool, stats.holm(list(pool.values())), strict=True))
    for item in (*every.comparisons, *every.stability_comparisons):
        assert item.p_holm == pytest.approx(corrected[item.measure, item.test])
    for verdict in every.s2_verdicts:
        assert verdict.comparisons[0].p_holm == pytest.approx(corrected["s2", verdict.comparisons[0].test])
    assert all(
        ours.p_holm >= theirs.p_holm
        for ours, theirs in zip(every.comparisons, summary.comparisons, strict=True)
    )


def test_the_report_says_beside_the_verdicts_what_the_correction_covers(store):
    summary = make_study(store)
    document = summary_document(summary)
    tables = document["family"]["tables"]
    assert document["family"] == {"corrected": "table", "tables": tables, "tests": summary.num_tests}
    told = (
        f"Holm's correction keeps wrong verdicts to 5 % of studies in each of {tables} tables of tests, not "
        "across them; --family all keeps them so over all tables."
    )
    assert document["findings"][-1] == told
    page = re.sub(r"</?code[^>]*>", "", render_report(summary)["report.html"].decode())
    assert told in page.replace("&#39;", "'")
    every = summarise(dataclasses.replace(summary.sweep, family="all"), store)
    document = summary_document(every)
    assert document["family"]["corrected"] == "all"
    assert document["findings"][-1] == (
        f"Holm's correction is over all {document['family']['tests']} tests of the study: with nothing true, "
        "some verdict is wrong in 5 % of studies at most."
    )


def test_a_search_space_declares_its_family_and_a_plan_keeps_it():
    space = {
        "title": "mine",
        "dataset": "digits",
        "seeds": 3,
        "cells": [{"name": "a", "method": "supervised"}],
    }
    by_table, of_all = (load_sweep({**space, **more}) for more in ({}, {"analysis": {"family": "all"}}))
    assert (by_table.family, of_all.family) == ("table", "all")
    assert "family" not in sweep_document(by_table)  # plans of before have none
    assert restore_sweep(sweep_document(of_all), where="plan.json").family == "all"
    with pytest.raises(InputError) as caught:
        load_sweep({**space, "analysis": {"family": "study"}})
    assert "family: 'study' is not one of table, all" in str(caught.value)


def test_one_table_is_not_said_to_be_one_of_several(store):
    sweep = make_sweep(("L_b",), num_seeds=4, published=())
    fill(store, sweep)
    summary = summarise(sweep, store)
    assert (summary.num_tables, summary.num_tests) == (0, 0)
    assert not [text for text in summary_document(summary)["findings"] if "Holm" in text]


def test_few_seeds_are_warned_of_by_the_family_that_is_corrected(store):
    sweep = make_sweep(num_seeds=8, claims=FIGURE_4)
    put_levels(store, sweep, {"L_b": 60, "L_b + L_is": 40, "L_b + L_adv": 41, "L_b + L_adv + L_is": 30})
    assert not [text for text in summarise(sweep, store).warnings if "can be significant" in text]
    every = summarise(dataclasses.replace(sweep, family="all"), store)
    needed = stats.smallest_runs(0.05 / every.num_tests)
    (warning,) = [text for text in every.warnings if "can be significant" in text]
    assert f"over {every.num_tests} comparisons: a permutation test needs {needed} seeds" in warning


def test_scope_names_the_test_images_and_what_they_leave_open(store):
    summary = make_study(store)
    error_pct = summary.cells[0].error_last.mean
    expected = 100 * np.sqrt(error_pct / 100 * (1 - error_pct / 100) / TEST_IMAGES)
    scope = summary_document(summary)["scope"]
    assert scope["test_images"] == TEST_IMAGES
    assert (scope["error_pct"], scope["binomial_se_pp"]) == pytest.approx((error_pct, expected))
    sentence = (
        f"Intervals and p hold for these 1,107 test images alone: on others, an error of {error_pct:.2f} % "
        f"would differ by {expected:.2f} pp (binomial standard error)."
    )
    assert scope["text"].endswith(sentence)
    files = render_report(summary)
    for name in ("report.md", "report.html"):
        assert files[name].decode().count("binomial standard error") == 1, name


def test_the_binomial_error_of_5_percent_of_1107_images_is_that_of_counts():
    draws = np.random.default_rng(1).binomial(TEST_IMAGES, 0.05, 200_000) / TEST_IMAGES
    assert 100 * draws.std() == pytest.approx(0.655, abs=0.005)


# --- with nothing true --------------------------------------------------------------------------------------


def draw_nothing(summary, generator):
    """The study with other errors: those of all cells come from one distribution."""
    cells = []
    for cell in summary.cells:
        shape = (len(cell.seeds), EPOCHS)
        wrong = 60 + generator.normal(0, 4, (shape[0], 1)) + generator.normal(0, 4, shape)
        errors = 100 * np.round(wrong) / TEST_IMAGES
        last = stats.summarise_errors(errors[:, -1])
        cells.append(dataclasses.replace(cell, error_pct=errors, error_last=last))
    return dataclasses.replace(summary, cells=tuple(cells))


def has_verdict(summary):
    found = (
        *summary.comparisons,
        *summary.stability_comparisons,
        *summary.s2_ratios,
        *summary.deviation_ratios,
        *(row.comparison for paper in summary.paper for row in paper.rows if row.comparison is not None),
    )
    decided = {verdict.outcome for verdict in (*summary.verdicts, *summary.s2_verdicts)}
    told = any(best.told for best in summary.best)
    return any(item.significant for item in found) or bool(decided - {"undecided", "not judged"}) or told


@pytest.mark.slow
def test_with_nothing_true_some_table_errs_more_often_than_5_percent_and_all_together_do_not(
    store, monkeypatch
):
    # Neither sizes of effects nor forecasts have a part in a verdict, and both take long.
    monkeypatch.setattr("hkrun.stats.effect_size", lambda *_, **__: None)
    monkeypatch.setattr("hkrun.report.claims.foresee", lambda *_, **__: None)
    studies, generator, published = 400, np.random.default_rng(17), load_published()
    template = make_study(store, num_seeds=11)
    wrong = {"table": 0, "all": 0}
    for _ in range(studies):
        study = draw_nothing(template, generator)
        for family in wrong:
            wrong[family] += has_verdict(conclude(with_family(study, family), {}, published))
    assert wrong["table"] / studies > 0.1
    assert wrong["all"] / studies < 0.05
