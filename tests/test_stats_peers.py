"""What hkrun computes is what its peers compute of the same runs.

rliable itself is in no environment of this project (tests/rliable_oracle.py says why, and wrote its figures).
"""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from peers_tables import improve, percentiles, weigh
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW, ttost_paired

from hkrun.stats import (
    Floats,
    analyse_deviation,
    compare_deviation,
    compare_rates,
    detectable_effect,
    equivalence,
    equivalence_power,
    holm,
    paired_difference,
    paired_power,
    pairs_for_difference,
    smallest_runs,
    summarise_errors,
    unpaired_difference,
)

# The last errors of results/stability-digits and results/stability-mnist5k, and what rliable says of them.
ORACLE = json.loads((Path(__file__).parent / "golden" / "rliable.json").read_text())
PAIRS = [
    (study, cell, found["reference"])
    for study, found in ORACLE["studies"].items()
    for cell in found["error_last_pct"]
    if cell != found["reference"]
]


def errors_of(study: str, cell: str) -> Floats:
    """One per seed, in percent."""
    return np.array(ORACLE["studies"][study]["error_last_pct"][cell])


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]}: {pair[1]}")
def real_pair(request: pytest.FixtureRequest) -> tuple[Floats, Floats]:
    """A cell beside the reference, row for row the same seeds."""
    study, cell, reference = request.param
    return errors_of(study, cell), errors_of(study, reference)


# --- statsmodels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tests", [1, 2, 3, 12, 500])
def test_holm_is_that_of_statsmodels(tests: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels calls it each time, a second on a large heap
    generator = np.random.default_rng(tests)
    for _ in range(20):
        p = np.round(generator.uniform(0, 1, tests) ** 3, 3)  # small ones, and ties
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-15)


@pytest.mark.parametrize("margin", [0.1, 0.45, 2.0])
def test_equivalence_is_tost_of_statsmodels(real_pair: tuple[Floats, Floats], margin: float) -> None:
    found = equivalence(real_pair[0] - real_pair[1], margin=margin)
    p, (_, p_above, degrees), (_, p_below, _) = ttost_paired(*real_pair, -margin, margin)
    assert (found.p, found.p_above, found.p_below) == pytest.approx((p, p_above, p_below), rel=1e-10)
    assert degrees == found.n - 1
    low, high = DescrStatsW(real_pair[0] - real_pair[1]).tconfint_mean(alpha=0.1)
    assert found.ci90 == pytest.approx((low, high), rel=1e-12)


def test_the_test_of_rates_is_mcnemars_exact_one_of_statsmodels() -> None:
    for both, first, second, neither in itertools.product((0, 3), (0, 1, 5, 8), (0, 2, 5, 20), (0, 4)):
        ends = np.cumsum([both, first, second, neither])
        seeds = np.split(np.arange(ends[-1]), ends[:-1])
        p = compare_rates([*seeds[0], *seeds[1]], [*seeds[0], *seeds[2]])
        table = [[both, first], [second, neither]]
        expected = mcnemar(table, exact=True).pvalue if first + second else 1.0
        assert p == pytest.approx(min(1.0, expected), rel=1e-12)


def test_intervals_and_tests_of_means_are_those_of_statsmodels(real_pair: tuple[Floats, Floats]) -> None:
    first, second = real_pair
    ours = summarise_errors(first)
    theirs = DescrStatsW(first)
    assert (ours.mean, ours.sd) == pytest.approx((theirs.mean, np.sqrt(theirs.var_ddof(1))), rel=1e-12)
    assert ours.ci95 == pytest.approx(theirs.tconfint_mean(), rel=1e-12)
    welch = CompareMeans(DescrStatsW(first), DescrStatsW(second[:-3]))
    found = unpaired_difference(first, second[:-3])
    assert found.p == pytest.approx(welch.ttest_ind(usevar="unequal")[1], rel=1e-10)
    assert found.ci95 == pytest.approx(welch.tconfint_diff(usevar="unequal"), rel=1e-10)


@pytest.mark.parametrize("pairs", [5, 20, 72])
@pytest.mark.parametrize("level", [0.05, 0.05 / 3])
def test_the_power_of_the_paired_t_test_is_that_of_statsmodels(pairs: int, level: float) -> None:
    theirs = TTestPower()
    # Of larger effects statsmodels gives NaN (findings/statsmodels_power_of_a_large_effect.sh).
    for d_z in np.array([0.2, 1.0, 2.8, 5.0]) / np.sqrt(pairs):
        expected = theirs.power(d_z, pairs, level, alternative="two-sided")
        assert paired_power(d_z, pairs=pairs, level=level) == pytest.approx(expected, rel=1e-9)
        one_sided = theirs.power(d_z, pairs, level, alternative="larger")
        found = equivalence_power(0.0, 1.0, margin=d_z, pairs=pairs, level=level)
        assert found == pytest.approx(max(0.0, 2 * one_sided - 1), rel=1e-9)
    effect = theirs.solve_power(nobs=pairs, alpha=level, power=0.8, alternative="two-sided")
    assert detectable_effect(pairs, level=level) == pytest.approx(effect, rel=1e-4)  # its solver's tolerance


@pytest.mark.parametrize("d_z", [0.2, 0.5, 0.9])
def test_the_pairs_for_a_difference_are_those_of_statsmodels_rounded_up(d_z: float) -> None:
    pairs = TTestPower().solve_power(d_z, alpha=0.05, power=0.8, alternative="two-sided")
    assert pairs_for_difference(d_z) == max(int(np.ceil(pairs)), smallest_runs(0.05))


# --- SciPy ------------------------------------------------------------------------------------------------


def test_the_test_of_a_difference_is_scipys_permutation_test_of_samples(
    real_pair: tuple[Floats, Floats],
) -> None:
    first, second = (values[:12] for values in real_pair)  # 2^12 sign flips, all taken
    expected = scipy.stats.permutation_test(
        (first, second),
        lambda one, other, axis: np.mean(one - other, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    ).pvalue
    found = paired_difference(first, second, generator=np.random.default_rng(0))
    assert found.p == pytest.approx(expected, rel=1e-12)


def test_of_many_normal_runs_the_comparison_of_standard_deviations_is_pitmans() -> None:
    # Exact of normal pairs (Pitman 1939): equal variances are uncorrelated sums and differences.
    generator = np.random.default_rng(3)
    ours, pitman = [], []
    for ratio in np.exp(np.linspace(-0.15, 0.15, 40)):
        first, second = generator.standard_normal((2, 800))
        first, second = ratio * (first + second / 2), second + first / 2  # pairs are correlated
        p = compare_deviation(first, second).p
        assert p is not None
        ours.append(scipy.stats.norm.isf(p / 2))
        pitman.append(scipy.stats.norm.isf(scipy.stats.pearsonr(first + second, first - second).pvalue / 2))
    assert max(pitman) > 5  # normal scores of p
    assert np.abs(np.subtract(ours, pitman)).mean() < 0.2


def test_of_many_normal_runs_the_interval_of_a_standard_deviation_is_that_of_chi_square_and_bootstrap() -> (
    None
):
    errors = np.random.default_rng(4).standard_normal(800)
    ours = analyse_deviation(errors).ci95
    chi_square = 799 * errors.var(ddof=1) / scipy.stats.chi2.ppf([0.975, 0.025], 799)
    bootstrap = scipy.stats.bootstrap(
        (errors,), lambda values, axis: values.std(axis=axis, ddof=1), rng=np.random.default_rng(0)
    ).confidence_interval
    assert ours == pytest.approx(np.sqrt(chi_square), rel=0.01)
    assert ours == pytest.approx(bootstrap, rel=0.01)


# --- rliable ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("study", "cell"), [(study, cell) for study, cell, _ in PAIRS])
def test_the_interval_of_a_mean_is_wider_than_rliables_by_what_a_bootstrap_of_few_runs_lacks(
    study: str, cell: str
) -> None:
    errors, theirs = errors_of(study, cell), ORACLE["studies"][study]["rliable"][cell]["mean"]
    ours, runs = summarise_errors(errors), len(errors)
    assert ours.mean == pytest.approx(-theirs["value"], rel=1e-12)  # scores are negative errors
    assert ours.ci95 is not None
    # The percentile bootstrap has the normal quantile and the standard deviation with ddof = 0.
    lacking = scipy.stats.norm.ppf(0.975) / scipy.stats.t.ppf(0.975, runs - 1) * np.sqrt(1 - 1 / runs)
    assert np.ptp(theirs["ci95"]) / np.ptp(ours.ci95) == pytest.approx(lacking, rel=0.03)


@pytest.mark.parametrize(("study", "cell", "reference"), PAIRS)
def test_rliables_probability_of_improvement_leaves_the_pairing_out(
    study: str, cell: str, reference: str
) -> None:
    first, second = errors_of(study, cell), errors_of(study, reference)
    improvement = ORACLE["studies"][study]["rliable"][cell]["improvement"]
    below, equal = (first[:, None] < second).mean(), (first[:, None] == second).mean()
    assert improvement["value"] == pytest.approx(below + equal / 2, rel=1e-12)
    # What the paired test finds its interval finds too; it is the bolder of the two (docs/statistics.md).
    p = paired_difference(first, second, generator=np.random.default_rng(0)).p
    low, high = improvement["ci95"]
    assert p > 0.05 or not low <= 0.5 <= high


@pytest.mark.parametrize(("study", "cell", "reference"), PAIRS)
def test_the_bootstraps_of_the_tables_beside_peers_are_rliables(
    study: str, cell: str, reference: str
) -> None:
    first, second = errors_of(study, cell), errors_of(study, reference)
    theirs = ORACLE["studies"][study]["rliable"][cell]
    generator = np.random.default_rng(0)
    mean = percentiles(weigh(len(first), generator) @ -first / len(first))
    assert mean == pytest.approx(theirs["mean"]["ci95"], abs=0.05 * np.ptp(theirs["mean"]["ci95"]))
    # Errors of whole images tie and simulated ones do not: ties are broken at random.
    pair = np.stack([first, second]) + 1e-9 * generator.standard_normal((2, len(first)))
    assert improve(*pair, generator) == pytest.approx(theirs["improvement"]["ci95"], abs=0.04)
