"""What a dry run says that a study's seeds can decide."""

import dataclasses
import itertools
import math
import statistics

import numpy as np
import pytest
import scipy
from report_example import TEST_IMAGES, make_cell, make_sweep, put_run

from hkrun import stats
from hkrun.plans import describe_power, foresee_power, make_plan
from hkrun.spaces import NamedCell, load_sweep
from hkrun.stats.noncentral import noncentral_share, share_by_noncentrality, upper_quantile
from hkrun.store import open_store


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


@pytest.mark.parametrize(("pairs", "level"), [(2, 0.05), (10, 0.05), (20, 0.05 / 3)])
def test_the_detectable_effect_has_a_power_of_80_percent(pairs, level):
    d_z = stats.detectable_effect(pairs, level=level)
    assert stats.paired_power(d_z, pairs=pairs, level=level) == pytest.approx(0.8, abs=1e-9)
    if pairs > 2:
        assert stats.pairs_for_difference(1.001 * d_z, level=level) == pairs


def test_the_detectable_margin_has_a_power_of_80_percent_where_errors_are_equal():
    margin = stats.detectable_margin(20, level=0.01)
    assert stats.equivalence_power(0.0, 1.0, margin=margin, pairs=20, level=0.01) == pytest.approx(0.8)
    assert stats.pairs_for_equivalence(0.0, 0.6, margin=1.001 * 0.6 * margin, level=0.01) == 20


def test_without_runs_the_recipe_tells_what_the_shipped_study_decides(store):
    power = foresee_power(make_plan(load_sweep("stability"), store))
    recipe = load_sweep("stability").recipe.evidence
    sd, s2_sd = recipe["paired_difference_sd_pp"]["value"], recipe["s2_log_ratio_sd"]["value"]
    d_z = stats.detectable_effect(20, level=0.05 / 3)
    assert (power.seeds, power.comparisons, power.sd_pp) == (20, 3, sd)
    assert power.difference_pp == pytest.approx(d_z * sd)
    assert power.s2_ratio == pytest.approx(math.exp(d_z * s2_sd))
    assert power.margin_pp == pytest.approx(stats.detectable_margin(20, level=0.05 / 3) * sd)
    assert power.asked_margin_pp is None
    told = describe_power(power)
    assert told.startswith(
        "Power (80 %): 20 seeds and 3 comparisons find a difference of 0.76 points and an S2 1.9"
    )
    assert "recipe digits, measured (2026-11-29" in told
    of_few_seeds = describe_power(dataclasses.replace(power, s2_ratio=12_345.6, s2_factor=2512.3))
    assert "an S2 12,000 times the reference's" in of_few_seeds
    assert "equal S2 within a factor of 2,500" in of_few_seeds


def test_another_student_than_the_recipes_has_no_known_spread(store):
    assert foresee_power(make_plan(load_sweep("narrow"), store)) is None


def test_a_margin_that_the_seeds_cannot_show_is_told_with_the_seeds_that_can(store):
    power = foresee_power(make_plan(load_sweep("sensitivity", seeds="10"), store))
    assert (power.difference_pp, power.needed_seeds) == (
        None,
        stats.smallest_runs(0.05 / power.comparisons),
    )
    assert power.comparisons == 32
    # All must be equivalent: each at 5 %, and all together in 80 %.
    needed = stats.pairs_for_equivalence(0.0, power.sd_pp, margin=0.5, tests=32)
    told = describe_power(power)
    assert f"find no difference of errors, however large (that needs {power.needed_seeds} seeds)" in told
    assert "show errors that are all equal to be so within 1.46 points" in told
    assert f"its margin of 0.5 points needs {needed} seeds" in told


def test_the_shipped_sensitivity_can_show_its_margin(store):
    sweep = load_sweep("sensitivity")
    power = foresee_power(make_plan(sweep, store))
    assert power.margin_pp < power.asked_margin_pp == sweep.margin
    assert power.asked_margin_seeds <= len(sweep.seeds)
    assert "needs" not in describe_power(power)


def test_so_many_pairs_show_all_of_several_equivalences_in_80_percent_of_studies():
    pairs = stats.pairs_for_equivalence(0.0, 1.0, margin=0.5, tests=12)
    enough, fewer = (
        stats.equivalence_power(0.0, 1.0, margin=0.5, pairs=number) for number in (pairs, pairs - 1)
    )
    assert fewer < 1 - 0.2 / 12 <= enough
    assert stats.detectable_margin(pairs, tests=12) <= 0.5 < stats.detectable_margin(pairs - 1, tests=12)


def test_stored_runs_tell_the_spread_and_without_a_reference_there_is_nothing_to_tell(store):
    sweep = make_sweep(num_seeds=12)
    generator = np.random.default_rng(4)
    errors = {
        named.name: 100 * generator.integers(40, 60 + 10 * place, 8) / TEST_IMAGES
        for place, named in enumerate(sweep.cells)
    }
    for named in sweep.cells:
        for seed, error in enumerate(errors[named.name]):
            put_run(store, named, seed, [90.0] * 7 + [float(error)])
    power = foresee_power(make_plan(sweep, store))
    base = errors[sweep.reference]
    sds = [statistics.stdev(errors[named.name] - base) for named in sweep.cells[1:]]
    assert power.sd_pp == pytest.approx(statistics.median(sds))
    assert (power.basis, power.seeds, power.s2_ratio) == ("stored runs", 12, None)
    assert foresee_power(make_plan(make_sweep(num_seeds=12, reference=None), store)) is None


def test_runs_that_are_too_few_or_diverged_tell_no_spread(store):
    sweep = make_sweep(num_seeds=12)
    for named in sweep.cells:
        for seed in range(8):
            lost = {"status": "diverged", "diverged_epoch": 3} if seed > 3 else {}
            put_run(store, named, seed, [90.0] * 7 + [5.0 + seed], **lost)
    assert foresee_power(make_plan(sweep, store)) is None


def test_names_of_one_configuration_count_once(store):
    cells = tuple(
        NamedCell(name=name, cell=make_cell(1.0, weight))
        for name, weight in (("a", 1.0), ("b", 0.5), ("c", 0.5))
    )
    sweep = make_sweep(cells=cells, num_seeds=6, reference="a")
    for place, named in enumerate(cells[:2]):
        for seed in range(6):
            put_run(store, named, seed, [90.0] * 7 + [5.0 + (seed * (1 + place)) % 4])
    assert foresee_power(make_plan(sweep, store)).comparisons == 1


@pytest.mark.parametrize("pairs", [2, 3, 5, 8, 20, 200, 2_500])
def test_the_power_is_that_of_scipys_noncentral_t_far_out_too(pairs):
    sizes, levels = (0.0, 0.01, 0.3, 1.0, 2.5, 5.0, 20.0, 100.0), (0.05, 0.05 / 3, 1e-4)
    for d_z, level in itertools.product(sizes, levels):
        critical, noncentrality = scipy.stats.t.isf(level / 2, pairs - 1), d_z * np.sqrt(pairs)
        found = scipy.stats.nct.sf(critical, pairs - 1, noncentrality)
        wrong = 1 - scipy.stats.nct.sf(-critical, pairs - 1, noncentrality)
        power = stats.paired_power(d_z, pairs=pairs, level=level)
        assert power == pytest.approx(found + wrong, rel=1e-9, abs=1e-12), (d_z, level)


@pytest.mark.parametrize("degrees", [1, 2, 3, 7.5, 19, 2_499, 9_999])
def test_shares_and_quantiles_of_t_are_scipys_to_rounding(degrees):
    for share in (0.4, 0.025, 0.05 / 6, 1e-4, 1e-6):
        assert upper_quantile(share, degrees) == pytest.approx(scipy.stats.t.isf(share, degrees), rel=1e-13)
    for noncentrality, t in itertools.product((-2.0, 0.5, 8.0, 60.0), (-1.0, 0.0, 3.0, 12.0, 200.0)):
        share = scipy.stats.nct.cdf(t, degrees, noncentrality)
        assert noncentral_share(t, degrees, noncentrality) == pytest.approx(share, abs=1e-12)
        for most in (abs(noncentrality), 100.0):
            found = share_by_noncentrality(t, degrees, most=most)(noncentrality)
            assert found == pytest.approx(share, abs=1e-12)


def test_an_effect_without_bound_has_an_exact_power():
    inf = float("inf")
    for d_z, pairs in itertools.product((inf, -inf, 1e308, -1e300), (2, 20)):
        assert stats.paired_power(d_z, pairs=pairs) == 1.0
    assert stats.pairs_for_difference(-inf) == stats.smallest_runs(0.05) == 6
    assert stats.equivalence_power(0.0, 1.0, margin=inf, pairs=2) == 1.0
    assert stats.equivalence_power(inf, 1.0, margin=1.0, pairs=2) == 0.0
    for size in (1e308, inf):
        assert [noncentral_share(3.0, 4, side) for side in (size, -size)] == [0.0, 1.0]


@pytest.mark.parametrize("pairs", [1, 0, -3])
def test_fewer_than_two_pairs_have_no_power(pairs):
    for tell in (
        lambda: stats.paired_power(0.5, pairs=pairs),
        lambda: stats.equivalence_power(0.0, 1.0, margin=1.0, pairs=pairs),
        lambda: stats.detectable_effect(pairs),
        lambda: stats.detectable_margin(pairs),
    ):
        with pytest.raises(ValueError, match=f"^a paired t test needs at least 2 pairs, not {pairs}$"):
            tell()


def test_what_is_not_a_number_has_no_power():
    nan, inf = float("nan"), float("inf")
    for tell in (
        lambda: stats.paired_power(nan, pairs=5),
        lambda: stats.pairs_for_difference(nan),
        lambda: stats.equivalence_power(nan, 1.0, margin=1.0, pairs=5),
        lambda: stats.equivalence_power(0.0, nan, margin=1.0, pairs=5),
        lambda: stats.equivalence_power(inf, 1.0, margin=inf, pairs=5),
    ):
        with pytest.raises(ValueError, match="the size of the difference is not a number"):
            tell()


@pytest.mark.parametrize("level", [float("nan"), 0.0, 1.0, -0.1])
def test_a_level_that_is_none_is_refused_and_not_searched_for(level):
    for tell in (stats.detectable_effect, stats.detectable_margin):
        with pytest.raises(ValueError, match=r"it must be between 0 and 0\.5"):
            tell(5, level=level)


def test_a_share_too_steep_for_the_sum_still_lies_where_its_spread_does():
    # With one degree of freedom the spread is that of |z|: half of its values lie below 0.674.
    t = 1e6 / scipy.stats.norm.isf(0.25)
    assert noncentral_share(t, 1, 1e6) == pytest.approx(0.5, abs=1e-4)
    assert share_by_noncentrality(t, 1, most=1e6)(1e6) == pytest.approx(0.5, abs=1e-4)
