"""Looks at runs that still come in: exact errors, tests and intervals that hold at every look."""

import itertools

import numpy as np
import pytest
import scipy.stats

from hkrun.stats import looks as repeated
from hkrun.stats import sequential

STUDIES = 100_000


def nominal_p(values: np.ndarray, looks: tuple[int, ...], *, two_sided: bool = True) -> np.ndarray:
    """p of SciPy's t test at each look: [studies, pairs] -> [studies, looks]."""
    alternative = "two-sided" if two_sided else "greater"
    return np.stack(
        [
            scipy.stats.ttest_1samp(values[:, :look], 0, axis=1, alternative=alternative).pvalue
            for look in looks
        ],
        axis=1,
    )


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize(
    ("looks", "nominal"),
    [((2, 3), 0.05), ((6, 7), 0.02), ((20, 30), 0.05), (tuple(range(6, 21)), 0.0109), ((3, 8, 9, 15), 0.1)],
)
def test_error_over_looks_is_that_of_simulated_t_tests(looks, nominal, two_sided):
    values = np.random.default_rng(11).standard_normal((STUDIES, looks[-1]))
    crossed = (nominal_p(values, looks, two_sided=two_sided) <= nominal).any(axis=1).mean()
    exact = repeated.any_look_p(nominal, looks, two_sided=two_sided)
    assert abs(crossed - exact) < 4 * np.sqrt(exact * (1 - exact) / STUDIES)


def test_error_over_two_looks_is_that_of_an_integral_in_two_dimensions():
    # Of 2 and 3 pairs with the density of Cauchy's t at the first: t of 3 by all that the third can be.
    nominal = 0.05
    angles = (np.arange(4_000) + 0.5) / 4_000 * np.pi  # of the first two differences, uniform
    sums, lengths = np.cos(angles) + np.sin(angles), np.ones_like(angles)
    t = sums / 2 / np.sqrt((lengths - sums**2 / 2) / 1 / 2)
    crossed = np.abs(t) >= scipy.stats.t.isf(nominal / 2, 1)
    steps = scipy.stats.t.ppf((np.arange(4_000) + 0.5) / 4_000, 2) / np.sqrt(2)
    total, squares = sums[:, None] + steps, 1 + steps**2
    t = total / 3 / np.sqrt((squares - total**2 / 3) / 2 / 3)
    crossed_later = (np.abs(t) >= scipy.stats.t.isf(nominal / 2, 2)).mean(axis=1)
    assert repeated.any_look_p(nominal, (2, 3)) == pytest.approx(
        np.where(crossed, 1, crossed_later).mean(), abs=2e-4
    )


def test_many_pairs_give_the_nominal_levels_of_pocock():
    # Pocock (1977), table 1: two and five looks at 5 %.
    assert repeated.any_look_p(0.0294, (150, 300)) == pytest.approx(0.05, abs=4e-4)
    assert repeated.any_look_p(0.0158, (80, 160, 240, 320, 400)) == pytest.approx(0.05, abs=4e-4)


@pytest.mark.parametrize("looks", [(400, 1000), (2500, 5000), (2500, 2510)])
def test_thousands_of_pairs_give_what_a_known_variance_does(looks):
    # Two means of independent normal values are bivariate normal.
    correlation = np.sqrt(looks[0] / looks[1])
    both = scipy.stats.multivariate_normal(cov=[[1, correlation], [correlation, 1]])
    z = scipy.stats.norm.isf(0.025)
    within = both.cdf([z, z]) - 2 * both.cdf([z, -z]) + both.cdf([-z, -z])
    assert repeated.any_look_p(0.05, looks) == pytest.approx(1 - within, abs=1e-4)


def test_ten_seed_looks_from_20_to_100_err_in_17_percent():
    assert repeated.any_look_p(0.05, tuple(range(20, 101, 10))) == pytest.approx(0.171, abs=1e-3)


def test_error_over_looks_lies_between_the_p_and_its_multiple():
    looks = tuple(range(6, 21))
    for nominal in (1e-9, 1e-4, 0.01, 0.2, 0.9):
        assert nominal < repeated.any_look_p(nominal, looks) <= min(1.0, 15 * nominal)
    assert repeated.any_look_p(0.03, (20,)) == 0.03
    assert (repeated.any_look_p(0.0, looks), repeated.any_look_p(1.0, looks)) == (0.0, 1.0)


def test_a_one_sided_p_near_one_is_near_one_over_all_looks():
    # The boundary is beyond what any mean of negative differences reaches: the next look crosses for certain.
    assert 0.999 <= repeated.any_look_p(0.999, (20, 30), two_sided=False) <= 1.0


def test_p_between_the_nodes_is_that_of_the_integral():
    for looks in (sequential.plan_looks(12), (20, 30)):
        for two_sided in (True, False):
            for nominal in (0.002, 0.011, 0.047, 0.3, 0.77):
                p = repeated.p_over_looks(nominal, looks, two_sided=two_sided)
                exact = repeated.any_look_p(nominal, looks, two_sided=two_sided)
                assert p == pytest.approx(exact, rel=3e-3)
    assert repeated.p_over_looks(1e-6, (20, 30)) == repeated.any_look_p(1e-6, (20, 30))
    assert (repeated.p_over_looks(1.0, (20, 30)), repeated.p_over_looks(0.03, (20,))) == (1.0, 0.03)


def test_each_interval_of_a_confidence_sequence_lies_in_the_one_before():
    generator, looks = np.random.default_rng(13), sequential.plan_looks(15)
    values = generator.standard_normal(15) + 0.4
    found = sequential.confidence_sequence(values, looks)
    assert len(found) == 10
    assert sequential.confidence_sequence(values[:9], looks) == found[:4]
    assert sequential.confidence_sequence(values[:5], looks) == ()
    for earlier, later in itertools.pairwise(found):
        assert earlier[0] <= later[0] <= later[1] <= earlier[1]
    mean, error = values[:6].mean(), values[:6].std(ddof=1) / np.sqrt(6)
    half = scipy.stats.t.isf(repeated.nominal_level(looks) / 2, 5) * error
    assert found[0] == pytest.approx((mean - half, mean + half))
    assert found[-1] == sequential.sequential_difference(values, looks).ci95
    one_sided = sequential.confidence_sequence(values, looks, two_sided=False)
    assert one_sided[-1] == sequential.sequential_equivalence(values, looks, margin=1.0).ci90


def test_nominal_level_is_the_inverse():
    for looks in ((20, 30), tuple(range(6, 21)), (20,)):
        for two_sided in (True, False):
            nominal = repeated.nominal_level(looks, two_sided=two_sided)
            assert repeated.any_look_p(nominal, looks, two_sided=two_sided) == pytest.approx(0.05, rel=1e-5)


@pytest.mark.parametrize(
    "stages",
    [
        ((20,), (20, 30)),
        ((8,), (8, 10), (8, 10, 14)),
        (tuple(range(6, 11)), tuple(range(6, 15))),
    ],
)
def test_error_of_unplanned_looks_is_that_of_simulated_t_tests(stages):
    values = np.random.default_rng(17).standard_normal((STUDIES, stages[-1][-1]))
    shown = np.zeros(STUDIES, dtype=bool)
    for stage in stages:
        shown |= (nominal_p(values, stage) <= repeated.nominal_level(stage)).any(axis=1)
    exact = repeated.error_of_stages(stages)
    assert exact > 0.055
    assert abs(shown.mean() - exact) < 4 * np.sqrt(exact * (1 - exact) / STUDIES)


def test_one_stage_errs_as_planned():
    assert repeated.error_of_stages([(20,)]) == 0.05
    assert repeated.error_of_stages([tuple(range(6, 13))]) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("looks", [(), (1, 2), (6, 6), (7, 6)])
def test_looks_that_do_not_rise_are_refused(looks):
    with pytest.raises(ValueError, match="rise from 2"):
        repeated.any_look_p(0.05, looks)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        repeated.any_look_p(1.5, (6,))


def test_p_interval_and_equivalence_say_the_same_at_every_look():
    generator, looks = np.random.default_rng(5), sequential.plan_looks(12)
    seen = set()
    for shift in (0.0, 0.0, 0.5, 1.0, 1.0, 2.0):
        values = generator.standard_normal(12) + shift
        for pairs in (6, 9, 12):
            told = sequential.sequential_difference(values[:pairs], looks)
            near = sequential.sequential_equivalence(values[:pairs], looks, margin=1.2)
            if told.ci95 is not None:
                assert (told.p < 0.05) == (told.ci95[0] > 0 or told.ci95[1] < 0)
            if near.ci90 is not None:
                assert (near.p < 0.05) == (near.ci90[0] > -1.2 and near.ci90[1] < 1.2)
                assert (near.p_below < 0.05) == (near.ci90[1] < 1.2)
                assert (near.p_not_below < 0.05) == (near.ci90[0] > 1.2)
            seen |= {told.p < 0.05, near.p < 0.05}
    assert seen == {True, False}


def test_a_decision_stands_when_later_pairs_come():
    generator, looks = np.random.default_rng(8), sequential.plan_looks(20)
    values = np.concatenate([generator.standard_normal(8) + 3, generator.standard_normal(12) - 3])
    p = [sequential.sequential_difference(values[:pairs], looks).p for pairs in range(1, 21)]
    assert p[:5] == [1.0] * 5  # before the first look
    assert p == sorted(p, reverse=True)
    assert p[-1] < 0.05


def test_looks_that_contradict_each_other_are_said_to_drift():
    generator, looks = np.random.default_rng(8), sequential.plan_looks(20)
    values = np.concatenate([generator.standard_normal(8) + 3, generator.standard_normal(12) - 5])
    told = [sequential.sequential_difference(values[:pairs], looks) for pairs in (5, 8, 10, 16, 20)]
    assert [found.drifts for found in told] == [False, False, False, True, True]
    assert told[2].ci95[0] > 0
    last = told[-1]
    assert (last.difference < 0, last.p < 0.05, last.ci95) == (True, True, None)
    near = sequential.sequential_equivalence(values, looks, margin=1.0)
    assert (near.p < 0.05, near.ci90, near.drifts) == (True, None, True)
    assert not sequential.sequential_equivalence(values[:8], looks, margin=1.0).drifts


def test_a_present_mean_against_the_decision_drifts_though_an_interval_is_left():
    looks = sequential.plan_looks(20)
    decided = np.array([1.0, 1.2, 0.8, 1.1, 0.9, 1.05])
    later = np.append(decided, [-40.0])  # so far off that its look rejects nothing
    assert not sequential.sequential_difference(decided, looks).drifts
    told = sequential.sequential_difference(later, looks)
    assert told.ci95 is not None
    assert (told.ci95[0] > 0, told.difference < 0, told.drifts) == (True, True, True)


def test_one_mean_drifts_no_more_often_than_the_level_allows():
    generator, looks = np.random.default_rng(21), sequential.plan_looks(20)
    studies = generator.standard_normal((1_000, 20))
    drifting = np.mean([sequential.sequential_difference(values, looks).drifts for values in studies])
    assert drifting < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1_000)


@pytest.mark.parametrize("two_sided", [True, False])
def test_the_level_of_a_look_is_found_for_any_level_over_all(two_sided):
    for looks in (sequential.plan_looks(20), (12, 24)):
        for level in (0.05, 0.05 / 7):
            found = sequential.level_over_looks(level, looks, two_sided=two_sided)
            exact = repeated.nominal_level(looks, level=level, two_sided=two_sided)
            assert found == pytest.approx(exact, rel=5e-3)
    assert sequential.level_over_looks(0.05, (20,)) == pytest.approx(0.05, rel=1e-5)


@pytest.mark.parametrize("draw", ["normal", "laplace", "one run in ten collapses"])
def test_level_holds_with_a_look_after_every_pair(draw):
    # Differences of equally distributed errors are symmetric.
    generator, shape, looks = np.random.default_rng(3), (STUDIES, 20), sequential.plan_looks(20)
    values = {
        "normal": lambda: generator.standard_normal(shape),
        "laplace": lambda: generator.laplace(size=shape),
        "one run in ten collapses": lambda: (
            generator.standard_normal(shape)
            + 85 * (generator.integers(0, 10, shape) == 0)
            - 85 * (generator.integers(0, 10, shape) == 0)
        ),
    }[draw]()
    crossed = (nominal_p(values, looks) <= repeated.nominal_level(looks)).any(axis=1).mean()
    assert crossed < 0.05 + 3 * np.sqrt(0.05 * 0.95 / STUDIES)


def test_values_that_do_not_vary_tell_by_their_signs_alone():
    looks = sequential.plan_looks(10)
    told = sequential.sequential_difference([0.1] * 6, looks)
    assert told.p == pytest.approx(repeated.any_look_p(2 / 2**6, looks), rel=2e-3)
    assert sequential.sequential_difference([0.0] * 10, looks).p == 1.0
    assert sequential.sequential_difference([0.1] * 6, looks).ci95 is None


def test_more_pairs_than_the_plan_has_are_refused():
    with pytest.raises(ValueError, match="12 pairs, but the plan has 10 at most"):
        sequential.sequential_difference(np.arange(12.0), sequential.plan_looks(10))
    with pytest.raises(ValueError, match="first look is at 6"):
        sequential.plan_looks(5)


def test_forecast_keeps_the_level_and_saves_half_the_runs():
    looks, error = sequential.plan_looks(20), 3 * np.sqrt(0.05 * 0.95 / 10_000)
    null = sequential.forecast(0.0, looks, generator=np.random.default_rng(1))
    assert abs(null.different - 0.05) < error
    near = sequential.forecast(0.0, looks, generator=np.random.default_rng(2), margin_sd=1.0)
    assert near.equivalent > 0.9
    assert near.pairs < 11.2
    at_margin = sequential.forecast(1.0, looks, generator=np.random.default_rng(3), margin_sd=1.0)
    assert at_margin.equivalent < 0.05 + error
    assert at_margin.pairs < 10.4
    assert sequential.forecast(1.5, looks, generator=np.random.default_rng(4)).pairs < 7.6


def test_p_of_another_test_is_taken_over_the_looks_that_were():
    looks, asked = (6, 8, 10), []

    def nominal(pairs: int) -> float:
        asked.append(pairs)
        return 0.2 / pairs

    p = sequential.sequential_p(nominal, looks, pairs=9)
    assert p == pytest.approx(repeated.any_look_p(0.2 / 8, looks), rel=2e-3)
    assert asked == [6, 8]
    assert sequential.sequential_p(nominal, looks, pairs=5) == 1.0


@pytest.mark.parametrize("looks", [tuple(range(6, 21)), (20, 30)])
def test_p_over_looks_rises_with_the_nominal_one_and_ends_at_1(looks):
    # Each of the first takes an integral, the others lie between its values.
    nominal = np.concatenate([np.geomspace(1e-7, 0.99e-5, 20), np.geomspace(1e-5, 1.0, 215)])
    found = [sequential.sequential_p(lambda _, p=p: p, looks, pairs=looks[-1]) for p in nominal]
    assert (np.diff(found) > 0).all()
    assert found[-1] == 1.0


def bound(values, lost, low, high):
    """Lowest and highest values of pairs of which those in `lost` are unknown."""
    ends = np.repeat(np.asarray(values, dtype=float)[:, None], 2, axis=1)
    ends[list(lost)] = low, high
    return ends


def test_a_look_at_lost_pairs_has_the_largest_p_of_sign_flips_and_earlier_ones_that_of_t():
    values, looks = np.random.default_rng(5).normal(-3, 1, 12), tuple(range(6, 13))
    bounds = bound(values, [8], -2, 4)
    p_by_look = sequential.largest_p_by_look(bounds, looks, generator=np.random.default_rng(0))
    nominal = []
    for look in looks:
        if look <= 8:
            nominal.append(float(scipy.stats.ttest_1samp(values[:look], 0).pvalue))
        else:
            first = np.append(np.delete(values[:look], 8), 4.0)
            flips = np.array(list(itertools.product((-1, 1), repeat=look))) @ first
            nominal.append(float((np.abs(flips) >= abs(first.sum()) - 1e-9).mean()))
    expected = [repeated.any_look_p(min(nominal[: number + 1]), looks) for number in range(len(looks))]
    assert p_by_look == pytest.approx(expected, rel=0.02)


def test_what_was_decided_before_a_pair_was_lost_stands():
    values, looks = np.random.default_rng(5).normal(-3, 1, 12), tuple(range(6, 13))
    before = sequential.sequential_difference(values[:8], looks).p
    p_by_look = sequential.largest_p_by_look(
        bound(values, [8, 9], -99, 99), looks, generator=np.random.default_rng(0)
    )
    assert p_by_look[2] == pytest.approx(before)
    assert p_by_look[2:] == (p_by_look[2],) * 5


def test_no_value_of_the_lost_pairs_gives_a_larger_p_at_any_look():
    generator, looks = np.random.default_rng(6), tuple(range(6, 11))
    values = generator.normal(-3, 1, 10)
    bounds = bound(values, [1, 6], -3, 5)
    worst = sequential.largest_p_by_look(bounds, looks, generator=generator)
    for _ in range(20):
        filled = values.copy()
        filled[[1, 6]] = generator.uniform(-3, 5, 2)
        least = 1.0
        for look, largest in zip(looks, worst, strict=True):
            flips = np.array(list(itertools.product((-1, 1), repeat=look))) @ filled[:look]
            least = min(least, float((np.abs(flips) >= abs(filled[:look].sum()) - 1e-9).mean()))
            assert repeated.any_look_p(least, looks) <= largest * 1.02


def test_where_all_pairs_were_lost_there_is_no_p_below_1():
    bounds = bound(np.zeros(8), range(8), -1, 1)
    assert sequential.largest_p_by_look(bounds, (6, 7, 8), generator=np.random.default_rng(0)) == (1.0,) * 3
    with pytest.raises(ValueError, match="a lowest and a highest value each"):
        sequential.largest_p_by_look([1.0, 2.0], (6, 7), generator=np.random.default_rng(0))


def test_p_over_looks_of_a_tiny_p_is_booles_bound() -> None:
    assert repeated.any_look_p(1e-300, (6, 20, 40)) == pytest.approx(3e-300, rel=1e-12)
    assert repeated.any_look_p(1e-99, (6, 20)) == pytest.approx(2e-99, rel=1e-6)
