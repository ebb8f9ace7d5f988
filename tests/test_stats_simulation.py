"""The promises of `hkrun.stats`, kept on simulated error curves: coverage, size of tests, power.

The curves are those of `curve_models`. The seeds are fixed, so a test fails for a reason or not at all;
bounds allow three standard errors of the simulation.
"""

from dataclasses import replace

import numpy as np
import pytest
from curve_models import MODELS, UNEQUAL, collapse

from hkrun.stats import (
    Floats,
    analyse_deviation,
    analyse_pair_stability,
    analyse_stability,
    compare_deviation,
    compare_pair_stability,
    compare_stability,
    effect_size,
    equivalence,
    equivalence_power,
    holm,
    paired_difference,
    pairs_for_difference,
    pairs_for_equivalence,
    summarise_errors,
)

pytestmark = pytest.mark.slow


def stabilities(errors: Floats) -> Floats:
    """S of each study, over all its epochs: [studies, runs, epochs] -> [studies]."""
    return np.ptp(errors, axis=1).var(axis=1)


def share_up_to_5_percent(p_values: list[float]) -> float:
    return float(np.mean(np.array(p_values) <= 0.05))


def three_standard_errors(share: float, studies: int) -> float:
    return 3 * float(np.sqrt(share * (1 - share) / studies))


# --- what method.md says of S -----------------------------------------------------------------------------


@pytest.mark.parametrize(("runs", "expected"), [(5, 2.3), (10, 3.1), (20, 3.7)])
def test_the_expected_range_grows_with_the_runs(runs: int, expected: float) -> None:
    ranges = np.ptp(np.random.default_rng(1).standard_normal((100_000, runs)), axis=1)
    assert ranges.mean() == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("name", "published"), [("CIFAR-10 of table 5", 2.46e-3), ("CIFAR-100 of table 5", 5.12e-3)]
)
def test_s_of_twenty_runs_varies_by_20_to_25_percent_at_the_magnitudes_of_table_5(
    name: str, published: float
) -> None:
    errors = MODELS[name].draw((3_000, 20, 100), np.random.default_rng(2))
    s = stabilities(errors)
    assert s.mean() == pytest.approx(published, rel=0.25)
    assert 0.5 < np.ptp(errors, axis=1).mean() < 1.3
    assert 0.19 < s.std() / s.mean() < 0.26


# --- intervals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs", [3, 5, 10, 20, 30])
@pytest.mark.parametrize("name", MODELS)
def test_the_interval_of_s_covers_the_expected_s(name: str, runs: int) -> None:
    studies = 400
    generator = np.random.default_rng(3)
    expected = stabilities(MODELS[name].draw((10_000, runs, 50), generator)).mean()
    covered = 0
    for errors in MODELS[name].draw((studies, runs, 50), generator):
        interval = analyse_stability(errors, window=50, generator=generator, resamples=500).ci95
        assert interval is not None
        covered += interval[0] <= expected <= interval[1]
    assert covered / studies > 0.93 - three_standard_errors(0.93, studies)


@pytest.mark.parametrize("name", MODELS)
def test_the_interval_of_s_is_about_as_wide_as_s_varies(name: str) -> None:
    generator = np.random.default_rng(10)
    s = stabilities(MODELS[name].draw((5_000, 20, 50), generator))
    intervals = [
        analyse_stability(errors, window=50, generator=generator, resamples=500).ci95
        for errors in MODELS[name].draw((200, 20, 50), generator)
    ]
    half_width = np.median([np.log(interval[1] / interval[0]) / 2 for interval in intervals if interval])
    assert 0.75 < half_width / (1.96 * s.std() / s.mean()) < 1.3


@pytest.mark.parametrize("runs", [2, 5, 20])
def test_the_t_interval_covers_the_mean_in_95_of_100_studies(runs: int) -> None:
    studies = 5_000
    errors = np.round(np.random.default_rng(4).normal(7.3, 0.2, (studies, runs)), 2)
    intervals = np.array([summarise_errors(values).ci95 for values in errors])
    covered = np.mean((intervals[:, 0] <= 7.3) & (intervals[:, 1] >= 7.3))
    assert covered == pytest.approx(0.95, abs=three_standard_errors(0.95, studies))


# --- tests under the null hypothesis ----------------------------------------------------------------------


@pytest.mark.parametrize(("runs", "permutations"), [(6, 64), (10, 1024), (20, 199)])
@pytest.mark.parametrize("quantum", [0.01, 0.25])
def test_the_sign_flip_test_rejects_equal_methods_in_5_of_100_studies_at_most(
    runs: int, permutations: int, quantum: float
) -> None:
    studies = 2_000
    generator = np.random.default_rng(5)
    shared = generator.normal(7.3, 0.2, (studies, 1, runs))
    pairs = np.round((shared + generator.laplace(0, 0.2, (studies, 2, runs))) / quantum) * quantum
    rejected = share_up_to_5_percent(
        [paired_difference(*pair, permutations=permutations, generator=generator).p for pair in pairs]
    )
    assert rejected < 0.05 + three_standard_errors(0.05, studies)
    if quantum == 0.01:  # ties make a test of coarse values cautious
        assert rejected > 0.03 - three_standard_errors(0.03, studies)


@pytest.mark.parametrize("runs", [6, 10, 20])
@pytest.mark.parametrize("name", ["CIFAR-10 of table 5", "noise alone", "slow noise", "uneven noise"])
def test_the_test_of_two_s_rejects_equal_s_in_5_of_100_studies_at_most_whatever_the_levels(
    name: str, runs: int
) -> None:
    studies = 400
    generator = np.random.default_rng(6)
    lower_and_still_falling = np.linspace(-0.4, -0.9, 50)
    first = MODELS[name].draw((studies, runs, 50), generator)
    second = MODELS[name].draw((studies, runs, 50), generator) + lower_and_still_falling
    rejected = share_up_to_5_percent(p_values_of_s(first, second, generator))
    assert rejected < 0.05 + three_standard_errors(0.05, studies)


def p_values_of_s(first: Floats, second: Floats, generator: np.random.Generator) -> list[float]:
    return [
        compare_stability(*pair, window=50, permutations=199, generator=generator).p
        for pair in zip(first, second, strict=True)
    ]


def test_holm_keeps_the_family_wise_error_of_comparisons_with_one_reference() -> None:
    studies = 1_500
    generator = np.random.default_rng(7)
    errors = generator.normal(7.3, 0.2, (studies, 6, 20))
    families = [
        [paired_difference(cell, study[0], permutations=999, generator=generator).p for cell in study[1:]]
        for study in errors
    ]
    assert share_up_to_5_percent([min(family) for family in families]) > 0.12
    corrected = share_up_to_5_percent([min(holm(family)) for family in families])
    assert 0.02 < corrected < 0.05 + three_standard_errors(0.05, studies)


# --- power ------------------------------------------------------------------------------------------------


def test_twenty_pairs_find_a_difference_of_one_standard_deviation() -> None:
    generator = np.random.default_rng(8)
    pairs = generator.normal(7.3, 0.2, (300, 2, 20)) + np.array([0, 0.2 * np.sqrt(2)])[:, None]
    p_values = [paired_difference(*pair, permutations=999, generator=generator).p for pair in pairs]
    assert share_up_to_5_percent(p_values) > 0.97


@pytest.mark.parametrize(
    ("name", "ratio", "low", "high"),
    [
        ("CIFAR-10 of table 5", 1.2, 0.0, 0.12),
        ("noise alone", 1.2, 0.0, 0.2),
        ("CIFAR-10 of table 5", 4.0, 0.4, 1.0),
        ("noise alone", 4.0, 0.95, 1.0),
    ],
)
def test_twenty_runs_tell_apart_what_differs_much_and_not_what_differs_by_a_fifth(
    name: str, ratio: float, low: float, high: float
) -> None:
    generator = np.random.default_rng(9)
    model = MODELS[name]
    noisier = replace(model, noise_sd=model.noise_sd * np.sqrt(ratio))
    first, second = (each.draw((300, 20, 50), generator) for each in (model, noisier))
    assert low <= share_up_to_5_percent(p_values_of_s(first, second, generator)) <= high


# --- S2 ----------------------------------------------------------------------------------------------------


def s2_of(studies: Floats) -> Floats:
    """S2 of each study, over all its epochs."""
    return np.array([analyse_pair_stability(errors, window=errors.shape[1]).s2 for errors in studies])


@pytest.mark.parametrize("name", MODELS)
def test_s2_becomes_more_precise_with_runs_and_s_does_not(name: str) -> None:
    generator = np.random.default_rng(20)
    studies = {runs: MODELS[name].draw((400, runs, 50), generator) for runs in (10, 40)}
    s2 = {runs: s2_of(errors) for runs, errors in studies.items()}
    assert s2[10].mean() == pytest.approx(s2[40].mean(), rel=0.06)
    precision = (s2[10].std() / s2[10].mean()) / (s2[40].std() / s2[40].mean())
    assert precision == pytest.approx(2, rel=0.25)
    s = {runs: stabilities(errors) for runs, errors in studies.items()}
    assert (s[10].std() / s[10].mean()) / (s[40].std() / s[40].mean()) < 1.5


@pytest.mark.parametrize("runs", [4, 6, 10, 20])
@pytest.mark.parametrize("name", MODELS)
def test_the_interval_of_s2_covers_the_expected_s2(name: str, runs: int) -> None:
    studies = 500
    generator = np.random.default_rng(21)
    expected = s2_of(MODELS[name].draw((3_000, 6, 50), generator)).mean()
    intervals = [
        analyse_pair_stability(errors, window=50).ci95
        for errors in MODELS[name].draw((studies, runs, 50), generator)
    ]
    covered = np.mean([ends is not None and ends[0] <= expected <= ends[1] for ends in intervals])
    assert covered > 0.94 - three_standard_errors(0.94, studies)


def p_values_of_s2(first: Floats, second: Floats, *, paired: bool = True) -> list[float]:
    comparisons = [
        compare_pair_stability(*pair, window=first.shape[2], paired=paired)
        for pair in zip(first, second, strict=True)
    ]
    return [comparison.p for comparison in comparisons if comparison.p is not None]


@pytest.mark.parametrize("runs", [4, 10, 20])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_the_test_of_two_s2_rejects_equal_ones_in_5_of_100_studies_at_most(
    name: str, paired: bool, runs: int
) -> None:
    studies = 600
    generator = np.random.default_rng(22)
    shift = np.linspace(-0.4, -0.9, 50)  # levels and trends are no matter of steadiness
    first, second = (MODELS[name].draw((studies, runs, 50), generator) for _ in range(2))
    rejected = share_up_to_5_percent(p_values_of_s2(first, second + shift, paired=paired))
    assert rejected < 0.055 + three_standard_errors(0.055, studies)


@pytest.mark.parametrize("name", UNEQUAL)
def test_the_test_of_two_s2_holds_its_level_where_the_runs_of_one_cell_alone_are_unequal(name: str) -> None:
    studies = 1_500
    generator = np.random.default_rng(23)
    even, uneven = UNEQUAL[name]
    first, second = (model.draw((studies, 20, 50), generator) for model in (uneven, even))
    assert s2_of(first).mean() == pytest.approx(s2_of(second).mean(), rel=0.05)
    rejected = share_up_to_5_percent(p_values_of_s2(first, second))
    assert 0.025 < rejected < 0.06 + three_standard_errors(0.06, studies)


@pytest.mark.parametrize(
    ("name", "ratio", "least"),
    [
        ("digits", 1.5, 0.40),
        ("digits", 2.0, 0.80),
        ("digits", 4.0, 0.99),
        ("CIFAR-10 of table 5", 1.28, 0.85),
    ],
)
def test_twenty_seeds_find_ratios_of_s2_that_s_leaves_open(name: str, ratio: float, least: float) -> None:
    generator = np.random.default_rng(24)
    model = MODELS[name]
    louder = replace(model, noise_sd=model.noise_sd * np.sqrt(ratio))
    window = 20 if name == "digits" else 100
    first, second = (each.draw((400, 20, window), generator) for each in (louder, model))
    by_s2 = share_up_to_5_percent(p_values_of_s2(first, second))
    assert by_s2 > least - three_standard_errors(least, 400)
    by_s = [
        compare_stability(*pair, window=window, permutations=199, generator=generator).p
        for pair in zip(first[:150], second[:150], strict=True)
    ]
    assert share_up_to_5_percent(by_s) < by_s2 - 0.25


def test_a_run_that_collapses_in_one_of_twenty_widens_the_interval_of_s2() -> None:
    generator = np.random.default_rng(25)
    errors = MODELS["digits"].draw((1, 20, 20), generator)[0]
    with_one = collapse(errors, generator, runs=1)
    narrow, wide = (analyse_pair_stability(each, window=20).ci95 for each in (errors, with_one))
    assert narrow is not None
    assert wide is not None
    assert wide[1] / wide[0] > 10 * narrow[1] / narrow[0]
    p = compare_pair_stability(with_one, errors, window=20).p
    assert p is not None
    assert p > 0.05  # one run is no evidence about a configuration


# --- standard deviations over runs ------------------------------------------------------------------------

SHAPES = {
    "normal": lambda generator, shape: generator.standard_normal(shape),
    "t with 4 degrees of freedom": lambda generator, shape: generator.standard_t(4, shape) / np.sqrt(2),
    "uniform": lambda generator, shape: generator.uniform(-1, 1, shape) * np.sqrt(3),
    "whole images": lambda generator, shape: np.round(generator.standard_normal(shape) / 0.2) * 0.2,
}


@pytest.mark.parametrize("runs", [5, 10, 20])
@pytest.mark.parametrize("name", SHAPES)
def test_the_interval_of_a_standard_deviation_covers_it_and_its_test_holds_the_level(
    name: str, runs: int
) -> None:
    studies = 1_000
    generator = np.random.default_rng(26)
    first, second = SHAPES[name](generator, (2, studies, runs))
    intervals = [analyse_deviation(values).ci95 for values in first]
    covered = np.mean([ends is not None and ends[0] <= 1 <= ends[1] for ends in intervals])
    assert covered > 0.93 - three_standard_errors(0.93, studies)
    found = [compare_deviation(*pair).p for pair in zip(first, 7 + second, strict=True)]
    rejected = share_up_to_5_percent([p for p in found if p is not None])
    assert rejected < 0.065 + three_standard_errors(0.065, studies)


# --- effects and the runs that would decide -----------------------------------------------------------------


@pytest.mark.parametrize(("d_z", "runs"), [(0.0, 6), (0.5, 20), (2.0, 10)])
def test_the_interval_of_the_effect_size_covers_it_in_95_of_100_studies(d_z: float, runs: int) -> None:
    studies = 600
    generator = np.random.default_rng(11)
    found = [effect_size(study) for study in generator.normal(d_z, 1.0, (studies, runs))]
    covered = np.mean([size is not None and size.ci95[0] <= d_z <= size.ci95[1] for size in found])
    assert covered == pytest.approx(0.95, abs=three_standard_errors(0.05, studies))


@pytest.mark.parametrize("runs", [6, 20])
@pytest.mark.parametrize("difference", [-0.5, 0.5])
def test_what_lies_on_the_margin_is_called_equivalent_in_5_of_100_studies_at_most(
    difference: float, runs: int
) -> None:
    studies = 3_000
    generator = np.random.default_rng(12)
    found = [equivalence(study, margin=0.5) for study in generator.normal(difference, 0.3, (studies, runs))]
    bound = 0.05 + three_standard_errors(0.05, studies)
    assert share_up_to_5_percent([result.p for result in found]) < bound
    assert share_up_to_5_percent([result.p_beyond for result in found]) < bound


@pytest.mark.parametrize(("d_z", "level"), [(0.5, 0.05), (0.8, 0.05 / 4)])
def test_so_many_pairs_find_the_difference_with_the_sign_flip_test_in_80_of_100_studies(
    d_z: float, level: float
) -> None:
    studies = 800
    generator = np.random.default_rng(13)
    pairs = pairs_for_difference(d_z, level=level)
    assert pairs is not None
    errors = generator.normal(0, 0.2, (studies, 2, pairs))
    errors[:, 0] += d_z * 0.2 * np.sqrt(2)
    p_values = [paired_difference(*pair, permutations=999, generator=generator).p for pair in errors]
    found = np.mean(np.array(p_values) <= level)
    assert found == pytest.approx(0.8, abs=three_standard_errors(0.2, studies) + 0.02)


@pytest.mark.parametrize("difference", [0.0, 0.2])
def test_so_many_pairs_show_equivalence_in_80_of_100_studies(difference: float) -> None:
    studies = 3_000
    generator = np.random.default_rng(14)
    pairs = pairs_for_equivalence(difference, 0.6, margin=0.5)
    assert pairs is not None
    found = share_up_to_5_percent(
        [equivalence(study, margin=0.5).p for study in generator.normal(difference, 0.6, (studies, pairs))]
    )
    promised = equivalence_power(difference, 0.6, margin=0.5, pairs=pairs)
    assert found == pytest.approx(promised, abs=three_standard_errors(0.2, studies) + 0.01)
