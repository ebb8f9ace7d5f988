"""How many seeds would decide an undecided claim: a range from the interval of its effect, or none."""

import dataclasses

import numpy as np
import pytest
from test_report_claims import fill, make_rows, make_scan, put_scan, put_wrong, verdicts_of

from hkrun import stats
from hkrun.report import render_report, summarise, summary_document
from hkrun.report.comparison import Comparison
from hkrun.report.forecasts import TOO_FEW, WINDOW, foresee
from hkrun.report.monitoring import ONE_LOOK, PairedLooks
from hkrun.report.paper_tables import describe_forecast
from hkrun.report.verdict import PowerForecast
from hkrun.store import open_store

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def compare(differences, *, measure="error", margin=None, **results):
    """A comparison with these differences by seed."""
    values = np.asarray(differences, dtype=float)
    return Comparison(
        measure=measure,
        cell="a",
        reference="b",
        value=float(values.mean()),
        reference_value=0.0,
        by_seed=tuple(values.tolist()),
        effect=stats.effect_size(values),
        p=results.get("p", 0.2),
        p_holm=results.get("p_holm", 0.2),
        margin=margin,
        looks=results.get("looks", ONE_LOOK),
        test=("a", "b"),
        n=len(values),
    )


def draw(d_z, *, n=12, seed=0):
    """Differences whose measured d_z is exactly this."""
    values = np.random.default_rng(seed).standard_normal(n)
    return (values - values.mean()) / values.std(ddof=1) + d_z


@pytest.mark.parametrize(("d_z", "outcome"), [(-0.9, "reproduced"), (0.9, "contradicted")])
def test_a_difference_whose_interval_leaves_0_out_has_the_seeds_of_both_its_ends(d_z, outcome):
    comparison = compare(draw(d_z))
    near, far = sorted(map(abs, comparison.effect.ci95))
    found = foresee([comparison], num_claims=4, num_tests=4, complete=True)
    assert found.fewest == max(13, stats.pairs_for_difference(far, level=0.05 / 4))
    assert found.most == stats.pairs_for_difference(near, level=0.05 / 4)
    assert found.fewest < found.most
    assert (found.outcome, found.reason) == (outcome, "")


def test_a_difference_whose_interval_holds_0_is_not_foreseeable():
    comparison = compare(draw(0.1))
    far = max(map(abs, comparison.effect.ci95))
    found = foresee([comparison], num_claims=1, num_tests=1, complete=True)
    assert (found.fewest, found.most, found.outcome) == (stats.pairs_for_difference(far), None, "")


def test_a_claim_of_several_pairs_waits_for_the_last_and_is_contradicted_by_the_first():
    sure, open_one, contrary = compare(draw(-1.0)), compare(draw(-0.2)), compare(draw(0.8))
    strong = compare(draw(-0.8))
    alone = {
        each: foresee([each], num_claims=1, num_tests=1, complete=True)
        for each in (sure, strong, contrary, open_one)
    }
    both = foresee([sure, strong], num_claims=1, num_tests=1, complete=True)
    assert both.outcome == "reproduced"
    assert both.fewest == max(alone[sure].fewest, alone[strong].fewest)
    assert both.most == max(alone[sure].most, alone[strong].most)
    against = foresee([sure, contrary], num_claims=1, num_tests=1, complete=True)
    assert (against.outcome, against.fewest, against.most) == (
        "contradicted",
        alone[contrary].fewest,
        alone[contrary].most,
    )
    unsure = foresee([sure, open_one], num_claims=1, num_tests=1, complete=True)
    assert (unsure.most, unsure.outcome) == (None, "")
    low, high = open_one.effect.ci95
    to_reproduce = max(alone[sure].fewest, stats.pairs_for_difference(low))
    assert unsure.fewest == min(to_reproduce, stats.pairs_for_difference(high))


def test_what_supports_the_claim_already_is_not_waited_for():
    decided = compare(draw(-3.0), p=0.001, p_holm=0.001)
    assert decided.supports
    open_one = compare(draw(-0.9))
    assert foresee([decided, open_one], num_claims=2, num_tests=2, complete=True) == foresee(
        [open_one], num_claims=2, num_tests=2, complete=True
    )
    assert foresee([decided], num_claims=2, num_tests=2, complete=False) is None


def test_a_claim_that_lacks_a_pair_can_only_be_contradicted():
    found = foresee([compare(draw(-0.9))], num_claims=1, num_tests=1, complete=False)
    assert (found.fewest, found.most) == (None, None)
    assert foresee([compare(draw(0.9))], num_claims=1, num_tests=1, complete=False).outcome == "contradicted"


def test_an_equivalence_is_foreseen_where_the_whole_interval_is_on_one_side_of_the_margin():
    inside = compare(draw(0.05, n=30), measure="equivalence", margin=0.6)
    interval = stats.summarise_errors(inside.by_seed).ci95
    assert max(map(abs, interval)) < 0.6
    found = foresee([inside], num_claims=2, num_tests=2, complete=True)
    sd = np.std(inside.by_seed, ddof=1)
    far = max(map(abs, interval))
    assert found.fewest == stats.pairs_for_equivalence(0.0, sd, margin=0.6, level=0.025)
    assert found.most == stats.pairs_for_equivalence(far, sd, margin=0.6, level=0.025)
    assert found.outcome == "reproduced"
    outside = compare(draw(3.0), measure="equivalence", margin=1.0)
    low, _ = stats.summarise_errors(outside.by_seed).ci95
    found = foresee([outside], num_claims=1, num_tests=1, complete=True)
    # Six or seven would have done; twelve have not.
    assert stats.pairs_for_difference(low - 1.0) < 12
    assert (found.fewest, found.most) == (13, 13)
    assert found.outcome == "contradicted"
    across = compare(draw(0.5), measure="equivalence", margin=0.5)
    assert foresee([across], num_claims=1, num_tests=1, complete=True).most is None


@pytest.mark.parametrize(("d_z", "n"), [(0.1, 30), (-0.9, 12), (0.45, 40)])
def test_what_is_undecided_is_never_foreseen_at_the_seeds_that_there_are(d_z, n):
    comparison = compare(draw(d_z, n=n))
    found = foresee([comparison], num_claims=1, num_tests=1, complete=True)
    without = max(map(abs, comparison.effect.ci95))
    assert found.fewest == max(n + 1, stats.pairs_for_difference(without))
    assert found.most is None or found.most > n


def test_claims_of_unequal_seeds_are_each_foreseen_beyond_their_own():
    few, many = compare(draw(-2.0, n=6)), compare(draw(-0.1, n=60))
    found = foresee([few, many], num_claims=1, num_tests=1, complete=False)
    assert found.fewest == max(61, stats.pairs_for_difference(many.effect.ci95[1]))


@pytest.mark.parametrize(
    ("looks", "ahead"),
    [
        (PairedLooks(counts=(20,)), (20, 40)),
        (PairedLooks(counts=(12, 20)), (12, 20, 40)),
        (PairedLooks(counts=stats.plan_looks(24), sequential=True), stats.plan_looks(24)),
    ],
)
def test_a_further_look_is_foreseen_at_its_own_level(looks, ahead):
    difference = compare(draw(-0.5, n=20), looks=looks)
    nominal = stats.level_over_looks(0.05 / 3, ahead)
    found = foresee([difference], num_claims=3, num_tests=3, complete=True)
    far, near = difference.effect.ci95
    assert found.fewest == max(21, stats.pairs_for_difference(far, level=nominal))
    assert found.most == (stats.pairs_for_difference(near, level=nominal) if near < 0 else None)
    alone = foresee([compare(draw(-0.5, n=20))], num_claims=3, num_tests=3, complete=True)
    assert stats.pairs_for_difference(-0.5, level=nominal) > stats.pairs_for_difference(-0.5, level=0.05 / 3)
    assert found.fewest >= alone.fewest

    inside = compare(draw(0.0, n=20), measure="equivalence", margin=0.6, looks=looks)
    one_sided = stats.level_over_looks(0.05 / 3, ahead, two_sided=False)
    sd = np.std(inside.by_seed, ddof=1)
    found = foresee([inside], num_claims=3, num_tests=3, complete=True)
    assert found.fewest == stats.pairs_for_equivalence(0.0, sd, margin=0.6, level=one_sided)


def test_no_worse_is_one_sided():
    better = compare(draw(-0.6), measure="no worse", margin=0.5)
    low, high = stats.summarise_errors(better.by_seed).ci95
    found = foresee([better], num_claims=1, num_tests=1, complete=True)
    assert (found.fewest, found.most, found.outcome) == (
        max(13, stats.pairs_for_difference(0.5 - low, level=0.1)),
        stats.pairs_for_difference(0.5 - high, level=0.1),
        "reproduced",
    )


def test_differences_that_do_not_vary_and_few_seeds_have_no_number():
    assert foresee([compare([1.0] * 8)], num_claims=1, num_tests=1, complete=True).fewest is None
    assert foresee([compare(draw(-0.9, n=4))], num_claims=1, num_tests=1, complete=True).reason == TOO_FEW
    assert foresee([compare(draw(-0.9, n=5))], num_claims=1, num_tests=1, complete=True).reason == ""


def test_for_s_there_is_no_number_of_seeds_but_the_window(store):
    sweep = make_rows("L_b", "L_b + L_is", num_seeds=8, published=("table5",))
    fill(store, sweep)
    summary = summarise(sweep, store)
    assert verdicts_of(sweep, store)["is-steadies-b"].forecast.reason == WINDOW
    (claim,) = [claim for claim in summary_document(summary)["claims"] if claim["id"] == "is-steadies-b"]
    assert claim["decided_by"] == {
        "fewest": None,
        "most": None,
        "limit": 10_000,
        "outcome": None,
        "reason": WINDOW,
    }
    assert WINDOW in render_report(summary)["report.md"].decode()


@pytest.mark.parametrize("num_seeds", [4, 8])
def test_the_report_tells_that_a_number_is_not_foreseeable(store, num_seeds):
    first, other = (
        [50, 54, 51, 50, 53, 56, 50, 55][:num_seeds],
        [52, 51, 53, 52, 51, 53, 52, 53][:num_seeds],
    )
    sweep = make_rows("L_b + L_is", "L_b + L_adv", num_seeds=num_seeds, published=("table4",))
    put_wrong(store, sweep, {"L_b + L_is": first, "L_b + L_adv": other})
    far = max(map(abs, stats.effect_size(np.subtract(first, other)).ci95))
    least = stats.pairs_for_difference(far, level=stats.level_over_looks(0.05, (8, 16)))
    words = TOO_FEW if num_seeds == 4 else f"not foreseeable, {least} seeds at least"
    assert words in render_report(summarise(sweep, store))["report.md"].decode()


@pytest.mark.parametrize(
    ("fewest", "most", "words"),
    [
        (12, 1_480, "12 to 1,480 seeds, then reproduced"),
        (30, 30, "30 seeds, then reproduced"),
        (None, None, "none found up to 10,000 seeds"),
    ],
)
def test_a_range_is_told_in_words(store, fewest, most, words):
    sweep = make_rows("L_b + L_is", "L_b + L_adv", num_seeds=8, published=("table4",))
    put_wrong(store, sweep, {"L_b + L_is": 50, "L_b + L_adv": 50})
    verdict = verdicts_of(sweep, store)["is-beats-adv"]
    outcome = "reproduced" if most else ""
    forecast = PowerForecast(fewest=fewest, most=most, limit=10_000, outcome=outcome)
    assert describe_forecast(dataclasses.replace(verdict, forecast=forecast)) == words


def test_the_seeds_of_a_scan_are_those_of_all_its_points(store):
    sweep = make_scan("loss.lambda_1", margin=0.4, claims=("insensitive-lambdas",))
    put_scan(store, sweep, (51, 50, 50), jitter=12)
    verdict = verdicts_of(sweep, store)["insensitive-lambdas"]
    assert verdict.outcome == "undecided"
    assert verdict.forecast == foresee(verdict.comparisons, num_claims=1, num_tests=2, complete=True)


@pytest.mark.slow
def test_a_range_is_hardly_ever_promised_where_there_is_no_difference_and_holds_where_there_is():
    generator = np.random.default_rng(8)

    def ranges(d_z):
        studies = generator.standard_normal((2_000, 20)) + d_z
        return [foresee([compare(study)], num_claims=1, num_tests=1, complete=True) for study in studies]

    closed = np.mean([found.most is not None for found in ranges(0.0)])
    assert closed < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2_000)
    true = stats.pairs_for_difference(0.6)
    told = [found for found in ranges(-0.6) if found.most is not None]
    held = np.mean([found.fewest <= true <= found.most for found in told])
    assert held > 0.92
