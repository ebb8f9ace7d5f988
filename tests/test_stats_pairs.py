"""S2 and standard deviations over runs: exact against their definitions and against SciPy."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from hkrun.stats import (
    Deviation,
    Floats,
    analyse_deviation,
    analyse_pair_stability,
    compare_deviation,
    compare_pair_stability,
    equate_pair_stability,
    pair_sums,
    stability,
)
from hkrun.stats.jackknife import LeaveOneOut, compare_ratio, equate_ratio, log_interval
from hkrun.stats.pair_sums import Circle, sum_variances


def draw(runs: int, epochs: int = 12, *, seed: int = 0) -> Floats:
    generator = np.random.default_rng(seed)
    noise = np.exp(0.5 * generator.standard_normal((runs, 1))) * generator.standard_normal((runs, epochs))
    return np.round(20 + generator.standard_normal((runs, 1)) + noise, 2)


def draw_uneven(runs: int, epochs: int = 12, *, seed: int = 0) -> Floats:
    """Errors that are whole numbers of no step."""
    return draw(runs, epochs, seed=seed) + 0.01 * np.random.default_rng(seed + 1).random((runs, epochs))


def by_definition(errors: Floats, *, window: int, ddof: int) -> float:
    """S of eq. (10) of every two runs, averaged."""
    pairs = combinations(range(len(errors)), 2)
    return float(np.mean([stability(errors[list(pair)], window=window, ddof=ddof) for pair in pairs]))


either_kind = pytest.mark.parametrize("draw_errors", [draw, draw_uneven])


@either_kind
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize(("runs", "window"), [(2, 2), (3, 5), (4, 12), (7, 9), (8, 12), (31, 3)])
def test_s2_is_s_of_two_runs_averaged_over_all_pairs(draw_errors, runs: int, window: int, ddof: int) -> None:
    errors = draw_errors(runs)
    found = analyse_pair_stability(errors, window=window, ddof=ddof)
    assert found.s2 == pytest.approx(by_definition(errors, window=window, ddof=ddof), rel=1e-13)
    assert (found.pairs, found.runs, found.window, found.ddof) == (runs * (runs - 1) // 2, runs, window, ddof)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_s2_of_fewer_runs_is_on_average_that_of_all(size: int) -> None:
    errors = draw(7)
    subsets = [errors[list(rows)] for rows in combinations(range(7), size)]
    mean = np.mean([analyse_pair_stability(subset, window=12).s2 for subset in subsets])
    assert mean == pytest.approx(analyse_pair_stability(errors, window=12).s2, rel=1e-13)
    # ... which S is not: its range grows with the runs.
    assert np.mean([stability(subset, window=12) for subset in subsets]) != pytest.approx(
        stability(errors, window=12), rel=0.05
    )


@either_kind
def test_of_many_runs_each_meets_equally_many_others(draw_errors, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = draw_errors(40)
    monkeypatch.setattr(pair_sums, "_MOST_DIFFERENCES", 40 * 12 * 6)
    found = analyse_pair_stability(errors, window=12)
    neighbours = [(run, (run + distance) % 40) for run in range(40) for distance in range(1, 7)]
    expected = np.mean([stability(errors[list(pair)], window=12) for pair in neighbours])
    assert (found.s2, found.pairs) == (pytest.approx(expected, rel=1e-13), 240)
    monkeypatch.setattr(pair_sums, "_MOST_DIFFERENCES", 1)
    assert analyse_pair_stability(errors, window=12).pairs == 40


def test_blocks_of_rows_give_what_all_rows_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = draw_uneven(30)
    whole = analyse_pair_stability(errors, window=12)
    monkeypatch.setattr(pair_sums, "_BLOCK", 30)
    assert analyse_pair_stability(errors, window=12) == whole


def exact_sums(counts: NDArray[np.int64], ddof: int) -> list[Fraction]:
    """Of each run with all others, the sums of variances of whole numbers, in fractions."""

    def variance(pair: NDArray[np.int64]) -> Fraction:
        distances = [abs(int(ours) - int(theirs)) for ours, theirs in pair.T]
        mean = Fraction(sum(distances), len(distances))
        return sum((each - mean) ** 2 for each in distances) / Fraction(len(distances) - ddof)

    runs = range(len(counts))
    return [sum(variance(counts[[run, other]]) for other in runs if other != run) for run in runs]


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("images", [3, 255, 1107, 50_000, 10_000_000])
@pytest.mark.parametrize(("runs", "window"), [(2, 3), (5, 20), (8, 7)])
def test_sums_of_shares_of_images_are_the_exact_ones(images: int, runs: int, window: int, ddof: int) -> None:
    # Numbers of 8 to 32 bits, and at last some whose squares are no numbers of 64 bits with more partners.
    counts = np.random.default_rng(images).integers(0, images + 1, (runs, window))
    counts[0, :2] = 0, images
    found = sum_variances(counts * 100 / images, Circle(runs, window), ddof)
    expected = [float(each * Fraction(100, images) ** 2) for each in exact_sums(counts, ddof)]
    assert found == pytest.approx(expected, rel=2e-14)


def test_errors_of_too_many_images_for_64_bits_are_summed_pair_by_pair() -> None:
    counts = np.random.default_rng(0).integers(0, 10**12, (3, 9))
    counts[0, :2] = 0, 1
    found = sum_variances(counts * 1e-10, Circle(3, 9), 0)
    assert found == pytest.approx([float(each) * 1e-20 for each in exact_sums(counts, 0)], rel=1e-12)


def test_a_collapsed_run_costs_no_digits() -> None:
    errors = draw_uneven(6)
    errors[2] = 98.0
    expected = by_definition(errors, window=12, ddof=0)
    assert analyse_pair_stability(errors, window=12).s2 == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("runs", [3, 4, 9, 20])
def test_the_interval_and_the_test_are_of_s2_without_each_run_in_turn(runs: int) -> None:
    first, second = draw(runs, seed=1), draw(runs, seed=2)
    figures = [
        LeaveOneOut(
            whole=by_definition(errors, window=10, ddof=1),
            without=np.array(
                [
                    analyse_pair_stability(np.delete(errors, run, axis=0), window=10, ddof=1).s2
                    for run in range(runs)
                ]
            ),
        )
        for errors in (first, second)
    ]
    found = analyse_pair_stability(first, window=10, ddof=1)
    assert found.ci95 == pytest.approx(log_interval(figures[0]), rel=1e-9)
    for paired in (True, False):
        comparison = compare_pair_stability(first, second, window=10, ddof=1, paired=paired)
        expected = compare_ratio(*figures, paired=paired)
        assert comparison.ratio == pytest.approx(expected.ratio, rel=1e-12)
        assert comparison.ci95 == pytest.approx(expected.ci95, rel=1e-9)
        assert comparison.p == pytest.approx(expected.p, rel=1e-9)


def figure_of(pseudo: Floats) -> LeaveOneOut:
    """A figure whose logarithm has these pseudo-values: that of a mean, without each value in turn."""
    n = len(pseudo)
    logs = (pseudo.sum() - pseudo) / (n - 1)
    return LeaveOneOut(whole=float(np.exp(pseudo.mean())), without=np.exp(logs))


def symmetric(n: int, *, seed: int, shift: float = 0.0) -> Floats:
    half = np.random.default_rng(seed).standard_normal(n // 2)
    return np.concatenate([half, -half]) + shift


@pytest.mark.parametrize("shift", [0.0, 0.4, -2.0])
def test_without_skewness_it_is_the_t_test_of_the_pseudo_values(shift: float) -> None:
    values, base = symmetric(12, seed=3, shift=shift), np.zeros(12)
    found = compare_ratio(figure_of(values), figure_of(base))
    oracle = scipy.stats.ttest_1samp(values, 0.0)
    assert found.ratio == pytest.approx(np.exp(shift))
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6)
    assert np.log(found.ci95) == pytest.approx(list(oracle.confidence_interval()), rel=1e-6)
    assert log_interval(figure_of(values)) == pytest.approx(found.ci95, rel=1e-9)


def test_unpaired_and_without_skewness_it_is_welchs_test() -> None:
    values, others = symmetric(12, seed=4, shift=0.7), 3 * symmetric(8, seed=5)
    found = compare_ratio(figure_of(values), figure_of(others), paired=False)
    oracle = scipy.stats.ttest_ind(values, others, equal_var=False)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6)
    assert np.log(found.ci95) == pytest.approx(list(oracle.confidence_interval()), rel=1e-6)
    assert (found.n, found.n_reference, found.paired) == (12, 8, False)


def test_skewness_widens_one_side_of_the_interval_by_the_term_of_cornish_and_fisher() -> None:
    values = np.random.default_rng(6).exponential(size=15)
    n, mean, error = 15, values.mean(), scipy.stats.sem(values)
    skew = scipy.stats.skew(values) / np.sqrt(n)
    assert skew > 0
    quantile = scipy.stats.t.ppf(0.975, n - 1)
    low, high = np.log(log_interval(figure_of(values)))
    assert low == pytest.approx(mean - quantile * error, rel=1e-9)
    assert high == pytest.approx(mean + (quantile + skew * (1 + 2 * quantile**2) / 6) * error, rel=1e-9)


@pytest.mark.parametrize("paired", [True, False])
def test_p_is_up_to_5_percent_exactly_where_the_interval_leaves_1_out(paired: bool) -> None:
    seen = set()
    for seed in range(300):
        generator = np.random.default_rng(seed)
        values = generator.exponential(size=8) * generator.choice([-1, 1]) + generator.normal(0, 0.8)
        base = generator.standard_normal(8) * 0.2
        found = compare_ratio(figure_of(values), figure_of(base), paired=paired)
        assert (found.p <= 0.05) == (not found.ci95[0] <= 1 <= found.ci95[1])
        assert found.ci95[0] <= found.ratio <= found.ci95[1]
        turned = compare_ratio(figure_of(base), figure_of(values), paired=paired)
        assert turned.p == pytest.approx(found.p, rel=1e-9)
        assert turned.ci95 == pytest.approx((1 / found.ci95[1], 1 / found.ci95[0]), rel=1e-9)
        seen.add((found.p <= 0.05, found.ratio > 1))
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("first", "second", "ratio"),
    [
        (draw(2), draw(2, seed=1), True),  # one run is no pair
        (draw(5), draw(1).repeat(5, axis=0), None),  # the second has S2 = 0
        (draw(1).repeat(5, axis=0) + np.arange(5)[:, None], draw(5), 0.0),
    ],
)
def test_where_a_logarithm_does_not_exist_there_is_no_interval_and_no_test(
    first: Floats, second: Floats, ratio: float | bool | None
) -> None:
    found = compare_pair_stability(first, second, window=12)
    assert (found.ci95, found.p) == (None, None)
    assert found.ratio == ratio or (ratio is True and found.ratio is not None)


def test_equal_curves_have_a_ratio_of_exactly_1_and_p_1() -> None:
    found = compare_pair_stability(draw(6), draw(6) + 3, window=12)
    assert (found.ratio, found.p) == (pytest.approx(1.0, rel=1e-9), 1.0)
    assert found.ci95 == pytest.approx((1, 1), rel=1e-9)


def test_s2_does_not_see_a_curve_that_all_runs_share() -> None:
    errors, shared = draw(6), np.linspace(30, 0, 12)
    found = analyse_pair_stability(errors + shared, window=12)
    assert found.s2 == pytest.approx(analyse_pair_stability(errors, window=12).s2, rel=1e-10)


def test_what_s_is_not_defined_for_is_refused_for_s2_too() -> None:
    with pytest.raises(ValueError, match="1 run"):
        analyse_pair_stability(draw(1), window=5)
    with pytest.raises(ValueError, match="fewer than the window of 13"):
        analyse_pair_stability(draw(3), window=13)
    missing = draw(3)
    missing[1, 2] = np.nan
    with pytest.raises(ValueError, match="1 values are missing"):
        analyse_pair_stability(missing, window=12)
    with pytest.raises(ValueError, match="3 and 4 runs are not paired"):
        compare_pair_stability(draw(3), draw(4), window=12)


# --- standard deviations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 8])
def test_a_standard_deviation_is_numpys_with_and_without_each_value(n: int) -> None:
    values = np.random.default_rng(n).normal(7, 0.3, n)
    found = analyse_deviation(values)
    assert (found.sd, found.n) == (pytest.approx(values.std(ddof=1), rel=1e-12), n)
    if n == 2:
        assert found.ci95 is None
        return
    without = np.array([np.delete(values, index).std(ddof=1) for index in range(n)])
    figure = LeaveOneOut(whole=float(values.std(ddof=1)), without=without)
    assert found.ci95 == pytest.approx(log_interval(figure), rel=1e-8)
    others = np.random.default_rng(9).normal(5, 0.6, n)
    without = np.array([np.delete(others, index).std(ddof=1) for index in range(n)])
    expected = compare_ratio(figure, LeaveOneOut(whole=float(others.std(ddof=1)), without=without))
    assert compare_deviation(values, others).p == pytest.approx(expected.p, rel=1e-7)


def test_few_or_equal_values_have_no_interval() -> None:
    assert analyse_deviation([3.0]) == Deviation(sd=None, n=1, ci95=None)
    assert analyse_deviation([3.1, 3.1, 3.1]).ci95 is None
    assert analyse_deviation([3.1, 3.1, 3.1]).sd == 0.0
    assert analyse_deviation([3.1, 3.1, 9.0]).ci95 is None  # without the third they do not vary
    with pytest.raises(ValueError, match="needs at least 2"):
        compare_deviation([3.0], [4.0])


# --- equal within a factor ----------------------------------------------------------------------------------


def even_figure(low: float, high: float, runs: int = 9) -> LeaveOneOut:
    """A figure whose pseudo-values have no skewness, so that its tests are Student's."""
    logs = np.linspace(low, high, runs)
    return LeaveOneOut(whole=float(np.exp(logs.mean())), without=np.exp((logs.sum() - logs) / (runs - 1)))


@pytest.mark.parametrize("factor", [1.2, 2.0])
def test_equality_within_a_factor_is_two_one_sided_t_tests_of_the_log_ratio(factor: float) -> None:
    first, second = even_figure(0.1, 0.9), even_figure(0.0, -0.3)
    logs = np.linspace(0.1, 0.9, 9) - np.linspace(0.0, -0.3, 9)
    found = equate_ratio(first, second, factor=factor)
    above = scipy.stats.ttest_1samp(logs, -np.log(factor), alternative="greater")
    below = scipy.stats.ttest_1samp(logs, np.log(factor), alternative="less")
    assert (found.p_above, found.p_below) == pytest.approx((above.pvalue, below.pvalue), rel=1e-9)
    interval = scipy.stats.ttest_1samp(logs, 0).confidence_interval(0.9)
    assert found.ci90 == pytest.approx(np.exp(interval), rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("paired", [True, False])
def test_the_interval_lies_within_the_factor_exactly_where_both_tests_reject(seed: int, paired: bool) -> None:
    def figure(seed: int) -> LeaveOneOut:
        values = np.random.default_rng(seed).exponential(size=9)  # skewed, so that quantiles are widened
        return LeaveOneOut(whole=float(values.mean()), without=(values.sum() - values) / 8)

    first, second = figure(seed), figure(seed + 100)
    for end in (0, 1):
        interval = equate_ratio(first, second, factor=2.0, paired=paired).ci90
        assert interval is not None
        edge = interval[end] if end else 1 / interval[end]
        if edge <= 1:
            continue
        near, far = (equate_ratio(first, second, factor=edge * by, paired=paired) for by in (0.999, 1.001))
        inside, outside = ((one.p_below if end else one.p_above) for one in (far, near))
        assert inside is not None
        assert outside is not None
        assert inside < 0.05 < outside
    swapped = equate_ratio(second, first, factor=2.0, paired=paired)
    straight = equate_ratio(first, second, factor=2.0, paired=paired)
    assert (swapped.p_below, swapped.p_above) == pytest.approx((straight.p_above, straight.p_below))


def test_s2_of_a_cell_is_equal_to_its_own_and_not_to_one_of_other_size() -> None:
    errors = draw(9)
    same = equate_pair_stability(errors, errors + 1.0, factor=1.01, window=12)
    assert (same.p_above, same.p_below) == (0.0, 0.0)
    larger = equate_pair_stability(2 * errors, errors, factor=2.0, window=12)
    assert (larger.p_above, larger.p_below) == (0.0, 1.0)


def test_what_has_no_logarithm_is_not_told_to_be_equal() -> None:
    flat = np.repeat(draw(1), 5, axis=0)
    found = equate_pair_stability(draw(5), flat, factor=2.0, window=12)
    assert (found.ci90, found.p_above, found.p_below) == (None, None, None)


@pytest.mark.parametrize("factor", [1.0, 0.5, float("nan")])
def test_a_factor_of_one_or_less_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="must be above 1"):
        equate_pair_stability(draw(5), draw(5, seed=1), factor=factor, window=12)
