import itertools
import math

import numpy as np
import pytest
import scipy.stats

from hkrun import stats
from hkrun.stats import (
    MOST_PAIRS,
    Floats,
    StabilityComparison,
    analyse_stability,
    compare_stability,
    effect_size,
    equivalence,
    equivalence_power,
    holm,
    paired_difference,
    paired_power,
    pairs_for_difference,
    pairs_for_equivalence,
    permutations,
    ranking_obstacle,
    stability,
    summarise_errors,
    unpaired_difference,
)
from hkrun.stats.stability import _Ranking


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def curves(runs: int, epochs: int, seed: int = 0) -> Floats:
    """Errors like a student's on CIFAR-100: a level per run and independent noise."""
    draw = generator(seed)
    return 31 + draw.normal(0, 0.3, (runs, 1)) + draw.normal(0, 0.06, (runs, epochs))


def naive_stability(error_pct: Floats, window: int, ddof: int) -> float:
    """Eq. (10) word for word, in Python's own floats."""
    epochs = len(error_pct[0])
    ranges = []
    for epoch in range(epochs - window, epochs):
        errors = [float(run[epoch]) for run in error_pct]
        ranges.append(max(errors) - min(errors))
    mean = math.fsum(ranges) / window
    return math.fsum((value - mean) ** 2 for value in ranges) / (window - ddof)


# --- S ----------------------------------------------------------------------------------------------------


def test_s_by_hand() -> None:
    # The ranges of the last three epochs are 1, 2 and 6: mean 3, squared deviations 4, 1, 9.
    errors = [[90.0, 5.0, 7.0, 3.0], [0.0, 6.0, 5.0, 9.0], [50.0, 5.5, 6.0, 4.0]]
    assert stability(errors, window=3) == pytest.approx(14 / 3, rel=1e-15)
    assert stability(errors, window=3, ddof=1) == pytest.approx(7, rel=1e-15)


@pytest.mark.parametrize(
    ("runs", "epochs", "window"), [(2, 2, 2), (5, 40, 20), (20, 600, 100), (20, 600, 600)]
)
@pytest.mark.parametrize("ddof", [0, 1])
def test_s_agrees_with_a_naive_implementation(runs: int, epochs: int, window: int, ddof: int) -> None:
    errors = curves(runs, epochs)
    expected = naive_stability(errors, window, ddof)
    assert stability(errors, window=window, ddof=ddof) == pytest.approx(expected, rel=1e-9)


def test_s_does_not_see_a_curve_that_all_runs_share_nor_the_order_of_the_runs() -> None:
    errors = curves(8, 50)
    shared = 20 * np.exp(-np.arange(50) / 10)
    expected = pytest.approx(stability(errors, window=50), rel=1e-9)
    assert stability(errors + 7, window=50) == expected
    assert stability(errors + shared, window=50) == expected
    assert stability(errors[::-1], window=50) == expected


def test_s_of_fractions_is_ten_thousand_times_smaller() -> None:
    errors = curves(8, 50)
    assert stability(errors, window=50) == pytest.approx(1e4 * stability(errors / 100, window=50), rel=1e-9)


def test_s_sees_the_window_alone() -> None:
    errors = curves(8, 50)
    disturbed = errors.copy()
    disturbed[:, :-20] = 99 * generator().random((8, 30))
    assert stability(disturbed, window=20) == stability(errors, window=20)
    assert stability(disturbed, window=21) != stability(errors, window=21)


def test_a_constant_wide_range_gives_exactly_zero() -> None:
    # In binary the differences of these are not all the same.
    lower = np.array([29.3, 9.3, 0.1, 55.7, 63.9])
    errors = np.stack([lower, lower + 0.8])
    assert len(set(np.ptp(errors, axis=0))) > 1
    assert stability(errors, window=5) == 0
    analysed = analyse_stability(np.stack([lower, lower + 0.4, lower + 0.8]), window=5, generator=generator())
    assert (analysed.s, analysed.s_ddof1, analysed.ci95) == (0, 0, None)
    assert analysed.mean_range == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("errors", "options", "message"),
    [
        (np.ones((1, 100)), {}, r"1 run: .* at least 2"),
        (np.ones((0, 100)), {}, r"0 run"),
        (np.ones((2, 99)), {}, r"99 epochs are fewer than the window of 100"),
        (np.ones((2, 99)), {"window": 1}, r"the window is 1; .* at least 2"),
        (np.ones((2, 100)), {"ddof": 2}, r"ddof is 2; 0 and 1"),
        (np.ones(100), {}, r"shape \(100,\)"),
        (np.where(np.arange(200) == 103, np.nan, 1).reshape(2, 100), {}, r"1 values .* row 1, column 3"),
        (np.where(np.arange(400) == 203, np.inf, 1).reshape(2, 200), {}, r"1 values .* row 1, column 3"),
    ],
    ids=["one run", "no run", "epochs", "window", "ddof", "shape", "NaN", "infinity before the window"],
)
def test_what_s_is_not_defined_for_is_refused(errors: Floats, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stability(errors, **options)
    with pytest.raises(ValueError, match=message):
        analyse_stability(errors, **options, generator=generator())
    with pytest.raises(ValueError, match=message):
        compare_stability(errors, errors, **options, generator=generator())


def test_the_analysis_holds_s_with_both_ddof_and_the_figures_beside_it() -> None:
    errors = [[90.0, 5.0, 7.0, 3.0], [0.0, 6.0, 5.0, 10.0], [50.0, 5.5, 6.0, 4.0]]
    analysed = analyse_stability(errors, window=3, ddof=1, generator=generator(), quantum_pct=0.5)
    assert (analysed.window, analysed.runs, analysed.ddof, analysed.quantum_pct) == (3, 3, 1, 0.5)
    assert analysed.s == analysed.s_ddof1 == pytest.approx(stability(errors, window=3, ddof=1))
    assert analysed.mean_range == pytest.approx((1 + 2 + 7) / 3)
    sds = [np.std(run[1:], ddof=1) for run in errors]
    assert analysed.within_run_sd == pytest.approx(np.mean(sds))
    by_default = analyse_stability(errors, window=3, generator=generator())
    assert by_default.s == pytest.approx(stability(errors, window=3))
    assert by_default.s_ddof1 == pytest.approx(by_default.s * 3 / 2)


def test_the_interval_of_few_runs_is_the_delete_d_jackknife_of_all_subsets() -> None:
    errors = curves(7, 30)
    analysed = analyse_stability(errors, window=30, generator=generator())
    subsets = [naive_stability(errors[list(rows)], 30, 0) for rows in itertools.combinations(range(7), 5)]
    share = math.sqrt(5 / 2) * np.std(subsets) / analysed.s
    factor = math.exp(scipy.stats.t.ppf(0.975, 6) * math.sqrt(math.log(1 + share**2)))
    assert analysed.ci95 == pytest.approx((analysed.s / factor, analysed.s * factor), rel=1e-9)


def test_the_interval_needs_its_generator_only_where_subsets_are_drawn() -> None:
    few, many = curves(10, 30), curves(20, 30)
    assert analyse_stability(few, window=30, generator=generator(1)) == analyse_stability(
        few, window=30, generator=generator(2)
    )
    drawn = [analyse_stability(many, window=30, generator=generator(seed)).ci95 for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == pytest.approx(drawn[2], rel=0.1)


def test_two_runs_have_s_but_no_interval() -> None:
    analysed = analyse_stability(curves(2, 30), window=30, generator=generator())
    assert analysed.s > 0
    assert analysed.ci95 is None


# --- comparing two S --------------------------------------------------------------------------------------


def test_p_of_two_s_is_scipys_exact_permutation_p_of_the_centred_curves() -> None:
    first, second = curves(8, 30, seed=1), 5 + curves(8, 30, seed=2) * 1.5
    both = np.concatenate([errors - np.median(errors, axis=0) for errors in (first, second)])

    def contrast(rows: Floats, other_rows: Floats) -> float:
        s, other = (naive_stability(both[chosen.astype(int)], 30, 0) for chosen in (rows, other_rows))
        return abs(s - other) / (s + other)

    oracle = scipy.stats.permutation_test(
        (np.arange(8), np.arange(8) + 8),  # scipy swaps row numbers, run by run
        contrast,
        permutation_type="samples",
        alternative="greater",
        vectorized=False,
        n_resamples=np.inf,
    )
    compared = compare_stability(first, second, window=30, permutations=2**8, generator=generator())
    assert 0.01 < compared.p < 0.9
    assert compared.p == oracle.pvalue
    assert compared.s == stability(first, window=30)
    assert compared.s_reference == stability(second, window=30)
    assert compared.runs == 8


def test_p_of_two_s_from_random_swaps_agrees_with_the_exact_one() -> None:
    first, second = curves(12, 30, seed=3), 31 + 1.5 * (curves(12, 30, seed=4) - 31)
    exact = compare_stability(first, second, window=30, permutations=2**12, generator=generator()).p
    random = compare_stability(first, second, window=30, permutations=2**12 - 1, generator=generator()).p
    assert 0.01 < exact < 0.9
    assert random == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 2**12))
    assert (random * 2**12) % 1 == 0  # (b + 1) / (m + 1) with m + 1 = 2**12


def test_p_of_two_s_does_not_see_levels_trends_or_which_comes_first() -> None:
    first, second = curves(8, 30, seed=5), curves(8, 30, seed=6)
    expected = compare_stability(first, second, window=30, generator=generator())
    trend = np.linspace(3, 1, 30)
    moved = compare_stability(first + trend, second - 2, window=30, generator=generator())
    turned = compare_stability(second, first, window=30, generator=generator())
    assert moved.p == turned.p == expected.p
    assert (turned.s, turned.s_reference) == (expected.s_reference, expected.s)


def test_equal_curves_and_s_of_zero_cannot_be_told_apart() -> None:
    errors = curves(20, 30)
    assert compare_stability(errors, errors, window=30, generator=generator()).p == 1
    flat = np.repeat(np.arange(6.0)[:, None], 30, axis=1)
    assert compare_stability(flat, flat, window=30, generator=generator()).p == 1


def test_s_of_different_numbers_of_runs_are_not_compared() -> None:
    with pytest.raises(ValueError, match="5 and 6 runs"):
        compare_stability(curves(5, 30), curves(6, 30), window=30, generator=generator())


def test_curves_of_different_length_are_compared_over_the_same_last_epochs() -> None:
    errors = curves(6, 60)
    assert compare_stability(errors, errors[:, 20:], window=30, generator=generator()).p == 1


@pytest.mark.parametrize(
    ("runs", "p", "corrected", "reason"),
    [
        (20, 0.31, None, "20 runs cannot tell them apart (permutation p = 0.31)"),
        (20, 0.03, 0.09, "20 runs cannot tell them apart (Holm p = 0.09)"),
        (5, 0.0625, None, "5 runs are too few: p cannot be below 0.062; 6 are needed"),
        (6, 0.03125, None, None),
        (20, 0.05, 0.05, None),
    ],
)
def test_s_is_ranked_only_where_the_runs_can_tell(
    runs: int, p: float, corrected: float | None, reason: str | None
) -> None:
    comparison = StabilityComparison(s=1e-3, s_reference=2e-3, p=p, runs=runs)
    assert ranking_obstacle(comparison, p_holm=corrected) == reason


def test_six_runs_are_enough_for_a_clear_case() -> None:
    noise = generator(7).normal(0, 0.1, (6, 30)), generator(8).normal(0, 10, (6, 30))
    compared = compare_stability(*noise, window=30, generator=generator())
    assert compared.p == 2 / 2**6
    assert ranking_obstacle(compared) is None


# --- errors -----------------------------------------------------------------------------------------------


def test_errors_are_summarised_by_hand() -> None:
    summary = summarise_errors([3.0, 5.0, 4.0, 8.0])
    assert (summary.mean, summary.n) == (5, 4)
    assert summary.sd == pytest.approx(math.sqrt(14 / 3))
    half = 3.182446305284263 * math.sqrt(14 / 3) / 2  # t(0.975, 3) from the tables
    assert summary.ci95 == pytest.approx((5 - half, 5 + half))


def test_the_t_interval_is_scipys() -> None:
    values = curves(1, 20)[0]
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert summarise_errors(values).ci95 == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_one_error_has_no_spread() -> None:
    summary = summarise_errors([3.5])
    assert (summary.mean, summary.sd, summary.n, summary.ci95) == (3.5, None, 1, None)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [1.0, math.nan], [math.inf]])
def test_errors_that_are_no_complete_vector_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"shape|not finite"):
        summarise_errors(values)
    with pytest.raises(ValueError, match=r"shape|not finite"):
        paired_difference(values, values, generator=generator())


# --- paired differences -----------------------------------------------------------------------------------


def test_sign_flips_by_hand() -> None:
    # Differences 1, 2, 3: only +++ and --- of the eight sign patterns reach |sum| = 6.
    compared = paired_difference([11.0, 12.0, 13.0], [10.0, 10.0, 10.0], generator=generator())
    assert (compared.difference, compared.p, compared.n) == (2, 0.25, 3)
    half = 4.302652729911275 / math.sqrt(3)
    assert compared.ci95 == pytest.approx((2 - half, 2 + half))


@pytest.mark.parametrize("quantum", [None, 0.5])
def test_exact_sign_flips_agree_with_scipy(quantum: float | None) -> None:
    draw = generator(1)
    values, reference = draw.normal(7.3, 0.3, 10), draw.normal(7.5, 0.3, 10)
    if quantum:  # many ties
        values, reference = np.round(values / quantum) * quantum, np.round(reference / quantum) * quantum
    compared = paired_difference(values, reference, permutations=2**10, generator=generator())
    oracle = scipy.stats.permutation_test(
        (values, reference),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert 0.01 < compared.p < 1
    assert compared.p == pytest.approx(oracle.pvalue, rel=1e-12)


def test_random_sign_flips_agree_with_scipy() -> None:
    draw = generator(2)
    values, reference = draw.normal(7.3, 0.3, 20), draw.normal(7.45, 0.3, 20)
    compared = paired_difference(values, reference, permutations=9_999, generator=generator())
    oracle = scipy.stats.permutation_test(
        (values, reference),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=99_999,
        rng=generator(3),
    ).pvalue
    assert 0.005 < oracle < 0.5
    assert compared.p == pytest.approx(oracle, abs=4 * math.sqrt(oracle / 9_999))


def test_ties_of_coarse_errors_count_as_extreme_though_their_sums_round_differently() -> None:
    draw = generator(5)
    for _ in range(20):
        images, reference_images = draw.integers(70, 80, (2, 10))
        whole = paired_difference(images, reference_images, permutations=2**10, generator=generator())
        percent = paired_difference(
            images / 10, reference_images / 10, permutations=2**10, generator=generator()
        )
        assert percent.p == whole.p


def test_no_difference_has_p_1_and_an_interval_of_no_width() -> None:
    compared = paired_difference([3.0] * 20, [2.5] * 20, generator=generator())
    assert compared.ci95 == (0.5, 0.5)
    assert compared.p == pytest.approx(1e-4)  # (0 + 1) / (9,999 + 1)
    assert paired_difference([3.0] * 20, [3.0] * 20, generator=generator()).p == 1


def test_one_pair_proves_nothing() -> None:
    compared = paired_difference([3.0], [2.0], generator=generator())
    assert (compared.difference, compared.ci95, compared.p, compared.n) == (1, None, 1, 1)


def test_turning_the_pair_round_turns_the_difference_round() -> None:
    values, reference = curves(2, 20)
    forth = paired_difference(values, reference, generator=generator())
    back = paired_difference(reference, values, generator=generator())
    assert forth.ci95 is not None
    assert back.ci95 is not None
    assert back.difference == -forth.difference
    assert back.ci95 == pytest.approx((-forth.ci95[1], -forth.ci95[0]))
    assert back.p == forth.p


def test_the_same_generator_gives_the_same_p() -> None:
    values, reference = curves(2, 20)
    first, again, other = (
        paired_difference(values, reference, permutations=199, generator=generator(seed)).p
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_unpaired_lengths_and_no_permutations_are_refused() -> None:
    with pytest.raises(ValueError, match="3 values and 2 reference values are not paired"):
        paired_difference([1.0, 2.0, 3.0], [1.0, 2.0], generator=generator())
    with pytest.raises(ValueError, match="permutations is 0"):
        paired_difference([1.0, 2.0], [1.0, 2.0], permutations=0, generator=generator())


# --- Holm -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 4 x .005, 3 x .01, 2 x .03, then .04 held up
        ([0.2, 0.6, 0.5], [0.6, 1.0, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm_by_hand(p_values: list[float], corrected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(corrected)


def test_holm_rejects_what_the_step_down_rule_rejects() -> None:
    draw = generator(4)
    for _ in range(200):
        p_values = draw.random(6) ** 3
        rejected = set()
        for step, index in enumerate(np.argsort(p_values)):
            if p_values[index] > 0.05 / (6 - step):
                break
            rejected.add(int(index))
        assert {index for index, p in enumerate(holm(list(p_values))) if p <= 0.05} == rejected


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_probability(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        holm([0.5, wrong])


# --- effects ------------------------------------------------------------------------------------------------


def test_the_effect_size_is_t_over_the_root_of_n_and_its_interval_inverts_the_noncentral_t() -> None:
    differences = generator().normal(0.4, 1.0, 12)
    found = effect_size(differences)
    t = scipy.stats.ttest_1samp(differences, 0).statistic
    assert found is not None
    assert found.d_z == pytest.approx(t / math.sqrt(12), abs=1e-12)
    shares = [scipy.stats.nct.cdf(t, 11, end * math.sqrt(12)) for end in found.ci95]
    assert shares == pytest.approx([0.975, 0.025], abs=1e-9)


@pytest.mark.parametrize("differences", [[0.3], [0.5, 0.5, 0.5], [0.1 + 0.2 - 0.3, 0.0]])
def test_differences_without_spread_have_no_effect_size(differences: list[float]) -> None:
    assert effect_size(differences) is None


@pytest.mark.parametrize("differences", [[4.5, 4.59], [-4.5, -4.51, -4.52]])
def test_far_out_the_interval_of_an_effect_is_that_of_the_spread(differences: list[float]) -> None:
    """Where the mean is nearly certain, d_z times the quantiles of the spread chi / sqrt(n - 1)."""
    found = effect_size(differences)
    assert found is not None
    degrees = len(differences) - 1
    spread = scipy.stats.chi.ppf([0.025, 0.975], degrees) / math.sqrt(degrees)
    assert found.ci95 == pytest.approx(sorted(found.d_z * spread), rel=5e-3)


def test_a_huge_effect_has_an_interval_too() -> None:
    found = effect_size(generator().normal(50, 1, 20))
    assert found is not None
    assert found.ci95[0] < found.d_z < found.ci95[1]


@pytest.mark.parametrize("shift", [-0.7, 0.0, 0.3, 0.9])
def test_equivalence_is_two_one_sided_t_tests(shift: float) -> None:
    differences = generator().normal(shift, 0.5, 15)
    found = equivalence(differences, margin=0.6)
    above = scipy.stats.ttest_1samp(differences, -0.6, alternative="greater").pvalue
    below = scipy.stats.ttest_1samp(differences, 0.6, alternative="less").pvalue
    assert (found.p_above, found.p_below) == pytest.approx((above, below), abs=1e-12)
    assert found.p == max(found.p_above, found.p_below)
    within = max(map(abs, found.ci90)) < 0.6
    assert within == (found.p < 0.05)


def test_what_lies_outside_the_margin_is_shown_not_to_be_equivalent() -> None:
    found = equivalence(generator().normal(2.0, 0.5, 15), margin=0.6)
    beyond = scipy.stats.ttest_1samp(generator().normal(2.0, 0.5, 15), 0.6, alternative="greater").pvalue
    assert found.p > 0.99
    assert found.p_beyond == pytest.approx(2 * beyond, rel=1e-3, abs=1e-12)


def test_equal_differences_are_equivalent_exactly_within_the_margin() -> None:
    assert equivalence([0.2, 0.2, 0.2], margin=0.3).p == 0.0
    assert equivalence([0.4, 0.4, 0.4], margin=0.3).p == 1.0


@pytest.mark.parametrize(("differences", "margin"), [([0.1], 0.5), ([0.1, 0.2], 0.0), ([0.1, 0.2], math.nan)])
def test_equivalence_needs_a_spread_and_a_margin(differences: list[float], margin: float) -> None:
    with pytest.raises(ValueError, match=r"at least 2|margin"):
        equivalence(differences, margin=margin)


# --- power --------------------------------------------------------------------------------------------------


# Cohen (1988) and any textbook: 80 % power, 5 % two-sided.
@pytest.mark.parametrize(("d_z", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_the_number_of_pairs_is_the_textbooks(d_z: float, pairs: int) -> None:
    assert pairs_for_difference(d_z) == pairs
    assert pairs_for_difference(-d_z) == pairs
    assert paired_power(d_z, pairs=pairs) >= 0.8 > paired_power(d_z, pairs=pairs - 1)


def test_the_power_is_a_share_however_large_the_effect() -> None:
    """`scipy.stats.nct.cdf` is NaN far out."""
    powers = [paired_power(d_z, pairs=pairs) for d_z in (1, 2, 3, 4, 5, 6, 8) for pairs in range(2, 60)]
    assert all(0 < power <= 1 + 1e-12 for power in powers)
    assert [pairs_for_difference(d_z) for d_z in (4.0, 5.0, 6.0)] == sorted(
        (pairs_for_difference(d_z) for d_z in (4.0, 5.0, 6.0)), reverse=True
    )


def test_without_a_difference_the_power_is_the_level() -> None:
    assert paired_power(0.0, pairs=20, level=0.01) == pytest.approx(0.01, abs=1e-9)
    assert pairs_for_difference(0.0) is None
    assert pairs_for_difference(0.01) is None


def test_no_number_is_below_what_a_permutation_test_needs() -> None:
    assert pairs_for_difference(1000.0) == 6
    assert pairs_for_difference(1000.0, level=0.05 / 8) == 9


def test_the_largest_number_that_is_tried_can_be_the_answer() -> None:
    d_z = 2.8016 / math.sqrt(MOST_PAIRS - 4)
    found = pairs_for_difference(d_z)
    assert found is not None
    assert MOST_PAIRS - 20 < found <= MOST_PAIRS


def test_pairs_for_equivalence_by_the_normal_approximation() -> None:
    # With no difference, n is about (z_0.95 + z_0.9)^2 (sd / margin)^2: beta is shared by both tests.
    z = scipy.stats.norm.ppf([0.95, 0.9]).sum()
    found = pairs_for_equivalence(0.0, 1.0, margin=0.1)
    assert found == pytest.approx(z**2 * 100, rel=0.01)
    assert found is not None
    assert equivalence_power(0.0, 1.0, margin=0.1, pairs=found) >= 0.8
    assert pairs_for_equivalence(0.1, 1.0, margin=0.1) is None


# --- many runs ----------------------------------------------------------------------------------------------


def brute_force_p(first, second, *, window, generator):
    """The permutation p of S by its definition: labels swapped within seeds, ranges taken over all runs."""
    one, other = (errors[:, -window:] - np.median(errors[:, -window:], axis=0) for errors in (first, second))
    swapped = generator.integers(0, 2, (stats.PERMUTATIONS, len(one))).astype(bool)
    contrasts = []
    for swap in swapped:
        sides = np.where(swap[:, None], other, one), np.where(swap[:, None], one, other)
        a, b = (np.ptp(side, axis=0).var() for side in sides)
        contrasts.append(abs(a - b) / (a + b))
    a, b = (np.ptp(errors[:, -window:], axis=0).var() for errors in (first, second))
    extreme = sum(contrast >= abs(a - b) / (a + b) - 1e-9 for contrast in contrasts)
    return (extreme + 1) / (len(contrasts) + 1)


@pytest.mark.parametrize("runs", [15, 90])
def test_s_of_every_permutation_is_that_of_its_definition(runs):
    # 90 runs: more than the few largest values that are looked through first.
    generator = np.random.default_rng(runs)
    first, second = (generator.normal(5, sd, (runs, 9)).round(1) for sd in (0.4, 0.6))
    result = stats.compare_stability(first, second, window=6, generator=np.random.default_rng(1))
    assert result.p == brute_force_p(first, second, window=6, generator=np.random.default_rng(1))


def test_a_choice_that_has_none_of_the_largest_values_gets_its_own():
    values = np.arange(400.0).reshape(200, 2)
    taken = np.zeros((3, 200), dtype=bool)
    taken[0, :5] = taken[1, 150:] = taken[2, 7] = True
    largest = [[8.0, 9.0], [398.0, 399.0], [14.0, 15.0]]
    assert _Ranking(values).largest(taken).tolist() == largest
    both, left = _Ranking(values).largest_of_both(taken)
    assert both.tolist() == largest
    assert left.tolist() == [[398.0, 399.0], [298.0, 299.0], [398.0, 399.0]]
    assert _Ranking(values).largest_of_both(~taken)[1].tolist() == largest


def test_random_swaps_are_the_same_in_parts_as_at_once(monkeypatch):
    monkeypatch.setattr(permutations, "_STEP", 100)
    parts, all_taken = permutations.swaps(17, 999, np.random.default_rng(5))
    drawn = list(parts)
    assert not all_taken
    assert len(drawn) == 200
    assert np.array_equal(
        np.concatenate(drawn), np.random.default_rng(5).integers(0, 2, (999, 17)).astype(bool)
    )


@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("pairs", [14, 15, 2500])
def test_random_swaps_are_what_numpy_draws_as_integers_and_leave_the_generator_so(pairs, before):
    """They are read off the generator's raw words, with NumPy's own draws before and after."""
    generator, plain = (np.random.default_rng(pairs) for _ in range(2))
    assert np.array_equal(generator.integers(0, 9, before), plain.integers(0, 9, before))
    (drawn,), _ = permutations.swaps(pairs, 99, generator)
    assert np.array_equal(drawn, plain.integers(0, 2, (99, pairs)).astype(bool))
    assert np.array_equal(generator.integers(0, 9, 5), plain.integers(0, 9, 5))
    assert generator.random() == plain.random()


def test_swaps_of_another_generator_are_its_own_integers():
    (drawn,), _ = permutations.swaps(20, 99, np.random.Generator(np.random.MT19937(1)))
    plain = np.random.Generator(np.random.MT19937(1)).integers(0, 2, (99, 20))
    assert np.array_equal(drawn, plain.astype(bool))


# --- spreads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 2, 9, 600])
def test_a_spread_of_many_runs_added_at_once_has_the_very_bits_of_one_after_another(epochs):
    curves = np.random.default_rng(epochs).normal(5, 1, (300, epochs))
    curves[17, 0] = np.nan
    together, alone = stats.SpreadSum(epochs), stats.SpreadSum(epochs)
    for part in (curves[:16], curves[16:20], curves[20:]):
        together.add_all(part)
    for curve in curves:
        alone.add(curve)
    for name in ("mean", "low", "high", "late"):
        ours, theirs = (getattr(spread.read(), name) for spread in (together, alone))
        assert ours.tobytes() == theirs.tobytes(), name


def test_a_spread_added_up_run_by_run_is_that_of_all_runs_at_once():
    curves = np.random.default_rng(4).normal(5, 1, (7, 30))
    curves[2, 5:9] = np.nan
    curves[4] = np.nan
    curves[:, 11] = np.nan
    spread = stats.spread_of(curves, epochs=30)
    known = np.arange(30) != 11
    assert np.isnan([spread.mean[11], spread.low[11], spread.high[11]]).all()
    np.testing.assert_allclose(spread.mean[known], np.nanmean(curves[:, known], axis=0), rtol=1e-12)
    np.testing.assert_array_equal(spread.low[known], np.nanmin(curves[:, known], axis=0))
    np.testing.assert_array_equal(spread.high[known], np.nanmax(curves[:, known], axis=0))
    others = [0, 1, 2, 3, 5, 6]
    np.testing.assert_allclose(spread.late[others], curves[others, -3:].mean(axis=1), rtol=1e-12)
    assert np.isnan(spread.late[4])


def test_the_late_part_of_a_short_curve_is_its_last_epoch():
    assert stats.spread_of(np.array([[1.0, 2.0, 4.0]]), epochs=3).late.tolist() == [4.0]


# --- pairs without a result ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_the_largest_p_over_unknown_differences_is_what_a_search_over_them_finds(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    known = drawn.normal(-3, 2, 7)
    bounds = np.sort(drawn.normal(0, 6, (2, 2)), axis=1)
    grids = [np.linspace(low, high, 25) for low, high in bounds]
    found = [
        stats.paired_difference([*known, *values], np.zeros(9), generator=generator()).p
        for values in itertools.product(*grids)
    ]
    largest = stats.largest_p(known, bounds, generator=generator())
    assert largest >= max(found)
    if largest < 1:
        assert largest == max(found)


def test_where_unknown_differences_may_turn_the_mean_p_is_1() -> None:
    assert stats.largest_p([-1.0] * 9, [[-9.0, 9.0]], generator=generator()) == 1.0
    assert stats.largest_p([-1.0] * 9, [[-9.0, 4.0]], generator=generator()) < 1.0
    assert stats.largest_p([1.0] * 9, [[-9.0, 9.0]], generator=generator()) == 1.0
    assert stats.largest_p([1.0, -1.0], [[-9.0, 9.0]], generator=generator()) == 1.0


def test_bounds_that_agree_are_a_known_difference() -> None:
    known = curves(12, 1)[:, 0] - 4
    whole = stats.paired_difference(known, np.zeros(12), generator=generator()).p
    assert stats.largest_p(known[:-1], [[known[-1]] * 2], generator=generator()) == whole


def test_with_random_flips_too_no_unknown_difference_gives_a_larger_p() -> None:
    known = np.random.default_rng(3).normal(-2, 1, 20)
    largest = stats.largest_p(known, [[-5.0, 30.0]], permutations=999, generator=generator())
    for value in np.linspace(-5, 30, 50):
        found = stats.paired_difference(
            [*known, value], np.zeros(21), permutations=999, generator=generator()
        )
        assert found.p <= largest
    assert largest < 1


def test_bounds_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="lowest and a highest"):
        stats.largest_p([1.0], [1.0, 2.0], generator=generator())


# --- unlike runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("runs", "reference_runs"), [(2, 2), (3, 20), (20, 7)])
def test_runs_without_a_common_seed_are_compared_by_welch(runs: int, reference_runs: int) -> None:
    values = generator(1).normal(5, 0.3, runs)
    reference = generator(2).normal(5.4, 1.1, reference_runs)
    found = unpaired_difference(values, reference)
    expected = scipy.stats.ttest_ind(values, reference, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.difference == pytest.approx(values.mean() - reference.mean())
    assert found.p == pytest.approx(expected.pvalue)
    assert found.ci95 == pytest.approx((interval.low, interval.high))
    assert (found.n, found.n_reference) == (runs, reference_runs)


@pytest.mark.parametrize(("values", "reference"), [([4.0], [5.0, 6.0]), ([4.0, 4.0], [5.0, 5.0])])
def test_runs_without_spread_tell_nothing_of_their_mean(values: list[float], reference: list[float]) -> None:
    found = unpaired_difference(values, reference)
    assert found.difference == pytest.approx(np.mean(values) - np.mean(reference))
    assert (found.p, found.ci95) == (None, None)


def test_the_interval_of_two_errors_ends_where_errors_end() -> None:
    whole, cut = summarise_errors([20.0, 60.0]), summarise_errors([20.0, 60.0], bounds=(0.0, 100.0))
    expected = scipy.stats.t.interval(0.95, 1, loc=40.0, scale=20.0)
    assert whole.ci95 == pytest.approx(expected)
    assert whole.ci95 is not None
    assert whole.ci95[0] < -200
    assert cut.ci95 == (0.0, 100.0)
    assert (cut.mean, cut.sd) == (whole.mean, whole.sd)
    inside = summarise_errors([4.0, 4.5, 5.0], bounds=(0.0, 100.0))
    assert inside.ci95 == pytest.approx(scipy.stats.t.interval(0.95, 2, loc=4.5, scale=0.5 / math.sqrt(3)))
