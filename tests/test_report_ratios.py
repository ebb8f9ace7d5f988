"""S2 and standard deviations over seeds in a report: their values, their ratios, and where there are none."""

import csv
import io
from itertools import combinations

import numpy as np
import pytest
from report_example import EPOCHS, WINDOW, make_cell, make_sweep, put_run, put_teacher

from hkrun.report import render_report, summarise, summary_document
from hkrun.spaces import NamedCell
from hkrun.stats import (
    analyse_deviation,
    compare_deviation,
    compare_pair_stability,
    equate_pair_stability,
    holm,
)
from hkrun.store import open_store

pytestmark = pytest.mark.usefixtures("undrawn_figures")

NAMES = ("calm", "like it", "wild")


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def make_curves(*, num_seeds=8, wild=9):
    """Errors of whole images by cell, [seeds, EPOCHS]: "wild" has more noise than the others."""
    generator = np.random.default_rng(3)
    scales = {"calm": 3, "like it": 3, "wild": wild}
    return {
        name: 100
        * (60 + np.round(generator.normal(0, scale, (num_seeds, EPOCHS)) + np.arange(num_seeds)[:, None]))
        / 1107
        for name, scale in scales.items()
    }


def fill(store, curves, *, lost=(), epochs=None, **changes):
    """A sweep with these curves; `lost` are seeds of "wild" that diverged."""
    cells = tuple(
        NamedCell(
            name=name,
            cell=make_cell(1.0, 1.0, **{"loss.lambda_1": 1 + place / 10, **(epochs or {}).get(name, {})}),
        )
        for place, name in enumerate(NAMES)
    )
    sweep = make_sweep(cells=cells, num_seeds=len(curves["calm"]), reference="calm", published=(), **changes)
    for named in cells:
        for seed, errors in enumerate(curves[named.name]):
            if named.name == "wild" and seed in lost:
                put_run(store, named, seed, list(errors), status="diverged", diverged_epoch=EPOCHS)
            else:
                put_run(store, named, seed, list(errors))
    put_teacher(store, cells[0].cell)
    return sweep


def test_s2_and_deviations_are_those_of_the_curves_and_their_ratios_those_to_the_reference(store):
    curves = make_curves()
    document = summary_document(summarise(fill(store, curves), store))
    for cell in document["cells"]:
        errors = curves[cell["name"]]
        pairs = [np.abs(a - b)[-WINDOW:].var() for a, b in combinations(errors, 2)]
        found = cell["stability"]
        assert found["s2"] == pytest.approx(np.mean(pairs), rel=1e-9)
        assert found["s2_ci95"][0] < found["s2"] < found["s2_ci95"][1]
        assert cell["error_last"]["sd"] == pytest.approx(errors[:, -1].std(ddof=1), rel=1e-9)
        assert found["sd_last_ci95"] == pytest.approx(analyse_deviation(errors[:, -1]).ci95, rel=1e-9)
        extremes = {*errors[:, -WINDOW:].argmax(axis=0), *errors[:, -WINDOW:].argmin(axis=0)}
        assert found["extreme_runs"] == len(extremes)
    for key, compare in (
        ("s2_ratios", lambda *sides: compare_pair_stability(*sides, window=WINDOW)),
        ("sd_last_ratios", lambda *sides: compare_deviation(*(side[:, -1] for side in sides))),
    ):
        expected = [compare(curves[name], curves["calm"]) for name in NAMES[1:]]
        corrected = holm([each.p for each in expected])
        assert [each["cell"] for each in document[key]] == list(NAMES[1:])
        for found, oracle, p_holm in zip(document[key], expected, corrected, strict=True):
            assert found["reference"] == "calm"
            assert found["ratio"] == pytest.approx(oracle.ratio, rel=1e-9)
            assert found["ci95"] == pytest.approx(oracle.ci95, rel=1e-9)
            assert (found["p"], found["p_holm"]) == (pytest.approx(oracle.p), pytest.approx(p_holm))
            assert found["n"] == 8
    assert document["s2_ratios"][1]["p_holm"] < 0.05 < document["s2_ratios"][0]["p_holm"]


def test_every_form_of_the_report_has_the_tables_and_marks_what_stands(store):
    files = render_report(summarise(fill(store, make_curves()), store))
    rows = list(csv.DictReader(io.StringIO(files["report.csv"].decode())))
    of_s2 = {(row["row"], row["column"]): row for row in rows if row["table"] == "s2"}
    ratio = of_s2["wild", "Over that of calm"]
    assert (ratio["significant"], float(ratio["value"]) > 2) == ("1", True)
    assert float(ratio["low"]) > 1
    assert of_s2["calm", "Over that of calm"]["text"] == "reference"
    assert of_s2["like it", "Over that of calm"]["significant"] == "0"
    assert {row["row"] for row in rows if row["table"] == "deviations"} == set(NAMES)
    for name in ("report.html", "report.md", "report.tex"):
        text = files[name].decode()
        assert "averaged over all pairs of runs" in " ".join(text.split()), name
        assert "Standard deviation over seeds of the last epoch" in text, name


@pytest.mark.parametrize("key", ["s2_ratios", "sd_last_ratios"])
def test_a_ratio_is_withheld_where_a_common_seed_was_lost(store, key):
    document = summary_document(summarise(fill(store, make_curves(), lost={1, 5}), store))
    alike, wild = document[key]
    assert (wild["p"], wild["p_holm"], wild["ci95"], wild["n"]) == (None, None, None, 6)
    assert wild["reason"] == "of 8 runs of wild, 2 diverged"
    # The family still counts it: Holm's correction doubles the smaller p.
    assert alike["p_holm"] == pytest.approx(min(1.0, 2 * alike["p"]))


def test_windows_of_other_epochs_are_not_compared_by_s2_but_last_errors_are(store):
    curves = make_curves()
    curves["wild"] = np.concatenate([curves["wild"], curves["wild"]], axis=1)
    sweep = fill(store, curves, epochs={"wild": {"student.epochs": 2 * EPOCHS}})
    document = summary_document(summarise(sweep, store))
    assert document["s2_ratios"][1]["reason"] == (
        f"S2 is over epochs {2 * EPOCHS - WINDOW + 1}-{2 * EPOCHS} of wild and "
        f"epochs {EPOCHS - WINDOW + 1}-{EPOCHS} of calm"
    )
    assert document["s2_ratios"][1]["p"] is None
    expected = compare_deviation(curves["wild"][:, -1], curves["calm"][:, -1])
    assert document["sd_last_ratios"][1]["p"] == pytest.approx(expected.p)


def test_two_runs_have_s2_and_no_test(store):
    document = summary_document(summarise(fill(store, make_curves(num_seeds=2)), store))
    assert all(
        cell["stability"]["s2"] > 0 and cell["stability"]["s2_ci95"] is None for cell in document["cells"]
    )
    for ratio in document["s2_ratios"]:
        assert (ratio["p"], ratio["reason"]) == (None, "2 runs are too few")
        assert ratio["ratio"] > 0


def test_runs_that_do_not_differ_have_no_ratio(store):
    curves = make_curves()
    curves["calm"] = np.repeat(curves["calm"][:1], 8, axis=0)
    document = summary_document(summarise(fill(store, curves), store))
    for ratio in (*document["s2_ratios"], *document["sd_last_ratios"]):
        assert (ratio["ratio"], ratio["p"], ratio["reason"]) == (None, None, "runs do not differ")


def test_where_s_cannot_rank_a_warning_says_what_s_is_made_of_and_what_s2_tells_apart(store):
    summary = summarise(fill(store, make_curves(wild=6)), store)
    assert [comparison.obstacle is None for comparison in summary.stability_comparisons] == [False, False]
    numbers = {cell.name: cell.stability.extreme_runs for cell in summary.cells}
    few = sorted({numbers["like it"], numbers["wild"]})
    (warning,) = [text for text in summary.warnings if text.startswith("S cannot be ranked")]
    told = str(few[0]) if len(few) == 1 else f"{few[0]} to {few[1]}"
    assert f"S is made of the {told} runs that are ever the best or the worst" in warning
    (wild,) = [ratio for ratio in summary.s2_ratios if ratio.cell == "wild"]
    assert warning.endswith(
        f"S2, which is of all pairs of runs, shows wild to be less steady ({wild.ratio:.1f} times, "
        f"p = {wild.p_holm:.3f})."
    )
    equal = make_curves()
    equal["wild"] = equal["like it"][::-1]
    summary = summarise(fill(store, equal), store)
    (warning,) = [text for text in summary.warnings if text.startswith("S cannot be ranked")]
    assert warning.endswith("tells none of these cells apart from it.")


def test_what_s2_tells_apart_is_a_finding(store):
    document = summary_document(summarise(fill(store, make_curves()), store))
    told = [text for text in document["findings"] if text.startswith("By S2, ")]
    ratio = document["s2_ratios"][1]
    assert len(told) == 1
    assert told[0].startswith(f"By S2, wild is less steady than calm ({ratio['ratio']:.2g} times [")
    assert told[0].endswith(", 8 seeds).")


@pytest.mark.parametrize(("num_seeds", "expected"), [(8, 1), (10, 0)])
def test_a_verdict_of_s2_by_few_seeds_is_told_with_how_often_it_is_wrong(store, num_seeds, expected):
    summary = summarise(fill(store, make_curves(num_seeds=num_seeds)), store)
    assert [ratio.significant for ratio in summary.s2_ratios] == [False, True]
    told = [text for text in summary.warnings if "fewer than 10 runs" in text]
    assert len([text for text in told if text.startswith("wild: with fewer")]) == len(told) == expected
    assert all("equal ones different in up to 8 % instead of 5" in text for text in told)


def test_nothing_is_said_of_few_seeds_that_tell_nothing_apart(store):
    summary = summarise(fill(store, make_curves(wild=3)), store)
    assert not any(ratio.significant for ratio in (*summary.s2_ratios, *summary.deviation_ratios))
    assert not any("fewer than 10 runs" in text for text in summary.warnings)


# --- equal within a factor ----------------------------------------------------------------------------------


def test_equal_s2_within_the_factor_of_the_search_space_is_a_table_of_tests_of_its_own(store):
    curves = make_curves(num_seeds=16)
    summary = summarise(fill(store, curves, s2_factor=2.5), store)
    document = summary_document(summary)
    expected = [
        equate_pair_stability(curves[name], curves["calm"], factor=2.5, window=WINDOW) for name in NAMES[1:]
    ]
    p = [max(each.p_above, each.p_below) for each in expected]
    for found, oracle, each, p_holm in zip(document["s2_ratios"], expected, p, holm(p), strict=True):
        assert found["within"] == {
            "factor": 2.5,
            "ci90": pytest.approx(oracle.ci90),
            "p": pytest.approx(each),
            "p_holm": pytest.approx(p_holm),
        }
    assert [ratio.verdict for ratio in summary.s2_ratios] == [
        "as steady within a factor of 2.5",
        "less steady",
    ]
    told = [text for text in document["findings"] if text.startswith("By S2, ")]
    assert told[0].startswith("By S2, wild is less steady than calm (")
    assert told[1].startswith("By S2, like it is as steady as calm within a factor of 2.5 (")
    rows = list(csv.DictReader(io.StringIO(render_report(summary)["report.csv"].decode())))
    of_s2 = {(row["row"], row["column"]): row for row in rows if row["table"] == "s2"}
    assert of_s2["like it", "Verdict"]["text"] == "as steady within a factor of 2.5"
    assert of_s2["like it", "p, within a factor of 2.5, Holm"]["significant"] == "1"
    assert of_s2["calm", "Verdict"]["text"] == ""


def test_without_a_factor_no_equality_is_asked_for(store):
    summary = summarise(fill(store, make_curves(num_seeds=16)), store)
    assert "within" not in summary_document(summary)["s2_ratios"][0]
    assert summary.s2_ratios[0].verdict == ""


def test_a_difference_within_the_factor_is_told_as_both(store):
    summary = summarise(fill(store, make_curves(num_seeds=16, wild=5), s2_factor=9.0), store)
    rows = list(csv.DictReader(io.StringIO(render_report(summary)["report.csv"].decode())))
    (verdict,) = (row["text"] for row in rows if (row["row"], row["column"]) == ("wild", "Verdict"))
    assert verdict == "less steady, within a factor of 9"


def test_equality_is_withheld_where_a_common_seed_was_lost(store):
    document = summary_document(summarise(fill(store, make_curves(), lost={1}, s2_factor=50.0), store))
    assert document["s2_ratios"][1]["within"] == {"factor": 50.0, "ci90": None, "p": None, "p_holm": None}
