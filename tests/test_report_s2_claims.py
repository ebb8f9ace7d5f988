"""The paper's claims about S, judged on S2 as well: named apart, and never counted among the published."""

import io

import numpy as np
import pytest
from report_example import EPOCHS, TEST_IMAGES, WEIGHTS, WINDOW, make_sweep, put_run, put_teacher
from rich.console import Console

from hkrun import stats
from hkrun.report import print_summary, render_report, summarise, summary_document
from hkrun.report.results_index import render_index
from hkrun.report.table import NONE
from hkrun.store import open_store

pytestmark = pytest.mark.usefixtures("undrawn_figures")

STEADY, WILD = 2, 9  # wrong images, the standard deviation within a run


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def fill(store, noise, *, num_seeds=12, lost=()):
    """A study of table 5 with so much noise in its cells' runs, and their errors by cell, [seeds, EPOCHS].

    `lost` are seeds of "L_b + L_is" that diverged.
    """
    sweep = make_sweep(num_seeds=num_seeds)
    generator = np.random.default_rng(5)
    curves = {
        name: 100 * np.round(60 + generator.normal(0, noise[name], (num_seeds, EPOCHS))) / TEST_IMAGES
        for name in WEIGHTS
    }
    for named in sweep.cells:
        for seed, errors in enumerate(curves[named.name]):
            diverged = named.name == "L_b + L_is" and seed in lost
            changes = {"status": "diverged", "diverged_epoch": EPOCHS} if diverged else {}
            put_run(store, named, seed, list(errors), **changes)
    put_teacher(store, sweep.cells[1].cell)
    return summarise(sweep, store), curves


def steady(*names):
    return {name: STEADY if name in names else WILD for name in WEIGHTS}


def outcomes(verdicts):
    return {verdict.claim.id: verdict.outcome for verdict in verdicts}


def test_a_claim_about_s_has_a_verdict_on_s2_of_its_own(store):
    summary, curves = fill(store, steady("L_b + L_is", "L_b + L_adv"))
    assert outcomes(summary.s2_verdicts) == {
        "is-steadies-b": "reproduced",
        "is-steadies-adv": "contradicted",
    }
    found = {verdict.claim.id: verdict.comparisons[0] for verdict in summary.s2_verdicts}
    expected = [
        stats.compare_pair_stability(curves[better], curves[worse], window=WINDOW)
        for better, worse in (("L_b + L_is", "L_b"), ("L_b + L_adv + L_is", "L_b + L_adv"))
    ]
    corrected = stats.holm([each.p for each in expected])
    for item, oracle, p_holm in zip(found.values(), expected, corrected, strict=True):
        assert item.ratio == pytest.approx(oracle.ratio, rel=1e-9)
        assert item.ci95 == pytest.approx(oracle.ci95)
        assert (item.p, item.p_holm) == (pytest.approx(oracle.p), pytest.approx(p_holm))
        values = [
            stats.analyse_pair_stability(curves[name], window=WINDOW).s2
            for name in (item.cell, item.reference)
        ]
        assert [item.value, item.reference_value] == pytest.approx(values)


def test_verdicts_on_s2_are_no_published_ones(store):
    """S finds no such thing in twelve runs: what is counted as the paper's claims stays undecided."""
    summary, _ = fill(store, steady("L_b + L_is", "L_b + L_adv + L_is"))
    assert outcomes(summary.s2_verdicts) == {"is-steadies-b": "reproduced", "is-steadies-adv": "reproduced"}
    published = {name: outcome for name, outcome in outcomes(summary.verdicts).items() if "steadies" in name}
    document = summary_document(summary)
    by_figure = {
        key: {(claim["id"], claim["judged_on"]): claim["outcome"] for claim in document[key]}
        for key in ("claims", "s2_claims")
    }
    assert by_figure["claims"] == {(name, "S"): outcome for name, outcome in published.items()}
    assert by_figure["s2_claims"] == {
        (name, "S2"): "reproduced" for name in ("is-steadies-b", "is-steadies-adv")
    }
    (finding,) = [text for text in document["findings"] if text.startswith("Of 2 claims")]
    told = ", ".join(
        f"{list(published.values()).count(outcome)} {outcome}"
        for outcome in ("reproduced", "contradicted", "undecided")
        if outcome in published.values()
    )
    assert finding == (
        f"Of 2 claims of the paper that this sweep can judge on digits: {told}. "
        "On S2, which the paper does not have, the 2 about S: 2 reproduced."
    )


def test_every_form_names_the_two_apart(store):
    summary, _ = fill(store, steady("L_b + L_is", "L_b + L_adv"))
    files = render_report(summary)
    statement = "intermediate supervision makes convergence steadier without the adversarial loss"
    markdown = files["report.md"].decode()
    assert f"| {statement} | table 5 | reproduced on digits by S2 | 12 | {NONE} |" in markdown
    assert f"| {statement} | table 5 | {outcomes(summary.verdicts)['is-steadies-b']} on digits by S, as" in (
        markdown
    )
    assert "| is-steadies-b, on S2 | L_b + L_is | L_b | 12 | **S2 " in markdown
    page = files["report.html"].decode()
    assert "1 reproduced on S2</a>" in page
    assert "1 contradicted on S2</a>" in page
    assert "reproduced on digits by S2" in files["report.tex"].decode()
    console = Console(width=200, record=True, file=io.StringIO())
    print_summary(summary, console)
    shown = " ".join(console.export_text().split())
    assert f"on S, as published: {statement}" in shown
    assert f"on S2: {statement}" in shown
    assert "On S2, which the paper does not have, the 2 about S: 1 reproduced, 1 contradicted." in shown


def test_the_index_of_studies_counts_them_apart(store):
    summary, _ = fill(store, steady("L_b + L_is", "L_b + L_adv"))
    document = {**summary_document(summary), "store": ""}
    text = render_index({"stability-digits": document, "again-digits": document}).decode()
    assert "On S2, which the paper does not have, those about S: 1 reproduced, 1 contradicted." in text
    assert "steadier without the adversarial loss, by S2 | reproduced | S2 " in text
    assert "steadier without the adversarial loss, by S as published | " in text


def test_lost_runs_withhold_the_verdict_on_s2_as_on_s(store):
    summary, _ = fill(store, steady("L_b + L_is", "L_b + L_adv + L_is"), lost={2})
    verdict = summary.s2_verdicts[0]
    assert (verdict.outcome, verdict.forecast) == ("undecided", None)
    assert verdict.reservation == "of 12 runs of L_b + L_is, 1 diverged"
    (comparison,) = summary_document(summary)["s2_claims"][0]["comparisons"]
    assert (comparison["p"], comparison["ci95"], comparison["ratio_ci95"]) == (None, None, None)
    assert comparison["ratio"] == pytest.approx(verdict.comparisons[0].ratio)


def test_two_runs_decide_nothing_on_s2_and_say_why(store):
    summary, _ = fill(store, steady("L_b + L_is"), num_seeds=2)
    verdict = summary.s2_verdicts[0]
    assert (verdict.outcome, verdict.reservation) == ("undecided", "2 runs are too few")


def test_seeds_that_would_decide_on_s2_follow_from_the_interval_of_the_ratio(store):
    summary, _ = fill(store, dict(zip(WEIGHTS, (5, 4, 5, 4), strict=True)))
    for verdict in summary.s2_verdicts:
        assert verdict.outcome == "undecided"
        (comparison,) = verdict.comparisons
        low, high = np.log(comparison.ci95)
        sd = (high - low) / 2 * stats.spread_behind((-1.0, 1.0), n=12)
        level = stats.level_over_looks(0.05 / 2, (12, 24))  # of a second look
        fewest = stats.pairs_for_difference(low / sd, level=level)
        against = stats.pairs_for_difference(high / sd, level=level) if high > 0 else None
        assert verdict.forecast.fewest == min(filter(None, (fewest, against)))
        assert (verdict.forecast.most is None) == (low < 0 < high)


@pytest.mark.parametrize("n", [3, 12, 40])
def test_the_spread_behind_an_interval_is_that_of_its_values(n):
    values = np.random.default_rng(n).normal(3.0, 0.7, n)
    interval = stats.summarise_errors(values).ci95
    assert stats.spread_behind(interval, n=n) == pytest.approx(values.std(ddof=1))
