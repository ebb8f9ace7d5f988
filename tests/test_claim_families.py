"""How the tests of claims are corrected: all parts of one must hold, any part can contradict it."""

import numpy as np
import pytest

from hkrun import stats
from hkrun.report.claims import correct_claims, decide
from hkrun.report.comparison import Comparison
from hkrun.report.families import Families
from hkrun.spaces import load_sweep

SEEDS, SD = 40, 1.0
# Of the differences from the default, measured on the ten seeds of results/sensitivity-digits.
CORRELATION = 0.66


def compare(name, p, *, difference=-1.0, measure="error", margin=None, p_against=1.0):
    """A comparison with these p values; with a negative difference it speaks for its claim."""
    return Comparison(
        measure=measure,
        cell=name,
        reference="reference",
        value=difference,
        reference_value=0.0,
        p=p,
        p_holm=p,
        p_against=p_against,
        p_against_holm=p_against,
        margin=margin,
        test=(name, "reference"),
        n=SEEDS,
    )


def equate(name, differences, *, margin=0.5):
    """The equivalence test of these differences by seed."""
    found = stats.equivalence(differences, margin=margin)
    return compare(
        name,
        found.p,
        difference=found.difference,
        measure="equivalence",
        margin=margin,
        p_against=found.p_beyond,
    )


def family(**claims):
    """The comparisons of claims, as they are judged: by claim and pair."""
    return {(claim, (item.cell, item.reference)): item for claim, items in claims.items() for item in items}


def test_the_parts_of_one_claim_are_not_corrected_for_their_number():
    parts = [compare(str(place), p) for place, p in enumerate((0.04, 0.001, 0.05, 0.03))]
    corrected = correct_parts(family(claim=parts))
    assert [item.p_holm for item in corrected] == [0.04, 0.001, 0.05, 0.03]
    assert decide(corrected, complete=True) == "reproduced"
    assert decide(corrected, complete=False) == "undecided"
    weaker = [*parts[1:], compare("0", 0.0501)]
    assert decide(correct_parts(family(claim=weaker)), complete=True) == "undecided"


def test_over_several_claims_the_largest_p_of_each_is_corrected():
    first = [compare("a", 0.001), compare("b", 0.02)]
    second = [compare("c", 0.030), compare("d", 0.004)]
    corrected = correct_parts(family(first=first, second=second))
    # Holm over (0.02, 0.03): 0.04 and 0.04. Each smaller p stands where the largest would.
    assert [item.p_holm for item in corrected] == pytest.approx([0.002, 0.04, 0.04, 0.008])
    assert {decide(corrected[:2], complete=True), decide(corrected[2:], complete=True)} == {"reproduced"}
    weaker = correct_parts(family(first=[compare("a", 0.001), compare("b", 0.03)], second=second))
    assert [item.p_holm for item in weaker] == pytest.approx([0.002, 0.06, 0.06, 0.008])
    assert decide(weaker[:2], complete=True) == "undecided"


def test_a_part_that_points_the_other_way_is_corrected_over_all_parts():
    parts = [compare("a", 0.001), compare("b", 0.01, difference=1.0), compare("c", 0.02)]
    corrected = correct_parts(family(claim=parts))
    assert corrected[1].p_holm == pytest.approx(stats.holm([0.001, 0.01, 0.02])[1])
    assert decide(corrected, complete=True) == "contradicted"
    fewer = [compare("a", 0.4), compare("b", 0.02, difference=1.0), compare("c", 0.3)]
    corrected = correct_parts(family(claim=fewer))
    assert corrected[1].p_holm == pytest.approx(0.06)
    assert decide(corrected, complete=True) == "undecided"


def test_a_claim_with_a_part_that_points_the_other_way_has_no_p_to_be_reproduced_with():
    first = [compare("a", 0.001), compare("b", 0.001, difference=1.0)]
    corrected = correct_parts(family(first=first, second=[compare("c", 0.02)]))
    assert corrected[2].p_holm == pytest.approx(0.04)  # Holm over (1, 0.02)


def test_a_claim_of_one_part_is_tested_two_sided_whichever_way_it_points():
    found = family(first=[compare("a", 0.001, difference=1.0)], second=[compare("b", 0.04)])
    corrected = correct_parts(found)
    assert [item.p_holm for item in corrected] == pytest.approx(stats.holm([0.001, 0.04]))
    assert decide(corrected[:1], complete=True) == "contradicted"
    assert decide(corrected[1:], complete=True) == "reproduced"


def test_equivalences_hold_together_uncorrected_and_are_contradicted_after_holm():
    parts = [compare(str(place), 0.04, measure="equivalence", margin=0.5) for place in range(5)]
    assert decide(correct_parts(family(claim=parts)), complete=True) == "reproduced"
    against = compare("far", 0.9, measure="equivalence", margin=0.5, p_against=0.01)
    corrected = correct_parts(family(claim=[*parts, against]))
    assert corrected[-1].p_against_holm == pytest.approx(0.06)
    assert decide(corrected, complete=True) == "undecided"


def correct_parts(found):
    return correct_claims(found, Families())


def draw(generator, *, means, correlation, seeds=SEEDS, sd=SD):
    """Paired differences of points from one reference, [points, seeds]: it is common to all of them."""
    shared = generator.standard_normal((1, seeds)) * np.sqrt(correlation)
    own = generator.standard_normal((len(means), seeds)) * np.sqrt(1 - correlation)
    return sd * (shared + own) + np.asarray(means)[:, None]


def outcomes(studies, *, means, correlation=CORRELATION, correct=correct_parts, **drawn):
    """What so many studies say of "all points are equivalent"."""
    generator = np.random.default_rng(15)
    found = []
    for _ in range(studies):
        differences = draw(generator, means=means, correlation=correlation, **drawn)
        parts = [equate(str(place), values) for place, values in enumerate(differences)]
        found.append(decide(correct(family(claim=parts)), complete=True))
    return found


def by_holm(found):
    """Every part corrected for their number, as tables are."""
    p_values = stats.holm([item.p for item in found.values()])
    return [
        compare(item.cell, p, measure="equivalence", margin=item.margin)
        for item, p in zip(found.values(), p_values, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.66])
def test_a_claim_of_which_one_part_is_false_is_reproduced_in_5_of_100_studies_at_most(correlation):
    studies = 1_500
    # The hardest case: one point lies on the margin, and all others are found equivalent in every study.
    easy = equate("easy", np.full(SEEDS, 0.01))
    generator = np.random.default_rng(16)
    hard = [equate("hard", values) for values in draw(generator, means=[0.5] * studies, correlation=0.0)]
    told = [decide(correct_parts(family(claim=[easy, part])), complete=True) == "reproduced" for part in hard]
    bound = 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)
    assert 0.03 < np.mean(told) < bound
    together = outcomes(600, means=[0.5, *[0.0] * 11], correlation=correlation)
    assert together.count("reproduced") / 600 < bound


@pytest.mark.slow
def test_all_parts_at_5_percent_find_more_than_with_a_correction_inside_the_claim():
    """Twelve points that are all equivalent, margin half a standard deviation, 40 seeds: 29 and 48 %."""
    uncorrected = outcomes(600, means=[0.0] * 12).count("reproduced") / 600
    corrected = outcomes(600, means=[0.0] * 12, correct=by_holm).count("reproduced") / 600
    assert uncorrected == pytest.approx(0.46, abs=0.07)
    assert corrected == pytest.approx(0.27, abs=0.07)


@pytest.mark.slow
def test_any_of_many_parts_contradicts_a_true_claim_in_5_of_100_studies_at_most():
    studies = 1_500
    told = outcomes(studies, means=[0.5, -0.5] * 6, correlation=0.0)  # on the margin, the hardest case
    bound = 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)
    assert 0.01 < told.count("contradicted") / studies < bound


@pytest.mark.slow
@pytest.mark.parametrize("sd", [0.97, 1.13])
def test_the_shipped_sensitivity_can_say_insensitive_and_ten_seeds_cannot(sd):
    sweep = load_sweep("sensitivity")
    points = [
        named
        for named in sweep.cells
        if len(named.point) == 1 and next(iter(named.point)) != "loss.mu" and {*named.point.values()} != {1.0}
    ]
    assert (len(points), sweep.margin) == (12, 0.5)
    assert sweep.recipe.evidence["paired_difference_sd_pp"]["value"] == 0.97
    equal = [0.0] * len(points)
    told = outcomes(400, means=equal, seeds=len(sweep.seeds), sd=sd).count("reproduced") / 400
    assert told > 0.8
    assert "reproduced" not in outcomes(100, means=equal, seeds=10, sd=sd)
