"""Divergence is an outcome: its rates are compared, paired by seed, and told first."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from report_example import EPOCHS, make_cell, make_sweep, put_run

from hkrun.plans import Looks, SequentialPlan, save_looks
from hkrun.report import describe_next, open_questions, summarise, summary_document
from hkrun.spaces import NamedCell
from hkrun.stats import any_look_rates_p, compare_rates, holm
from hkrun.store import open_store
from hkrun.sweep.rounds import take_look

NAMES = ("calm", "wild", "rare")


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def fill(store, lost, *, num_seeds=12, failed=(), missing=()):
    """Runs of which those in `lost` diverged, by cell; `failed` and `missing` are (name, seed)."""
    cells = tuple(
        NamedCell(name=name, cell=make_cell(1.0, 1.0, **{"loss.lambda_1": 1 + place / 10}))
        for place, name in enumerate(NAMES)
    )
    sweep = make_sweep(cells=cells, num_seeds=num_seeds, reference="calm", published=())
    for named in cells:
        for seed in sweep.seeds:
            if (named.name, seed) in missing:
                continue
            errors = [90.0] * (EPOCHS - 1) + [5.0 + seed % 3]
            if (named.name, seed) in failed:
                put_run(store, named, seed, errors[:2], status="failed", traceback="OSError: gone")
            elif seed in lost.get(named.name, ()):
                put_run(store, named, seed, errors[:3], status="diverged", diverged_epoch=3)
            else:
                put_run(store, named, seed, errors)
    return sweep


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        ({0, 1, 2, 3, 4, 5, 6, 7}, set(), 2 / 2**8),
        (set(), {1, 2}, 0.5),
        ({1, 2, 3, 9}, {9}, 2 / 2**3),  # a seed that diverged in both says nothing
        ({1, 2}, {3, 4}, 1.0),
        ({4}, {4}, 1.0),
        (set(), set(), 1.0),
    ],
)
def test_rates_are_compared_by_the_binomial_distribution_of_the_seeds_that_differ(first, second, p):
    assert compare_rates(first, second) == pytest.approx(p)


def test_the_test_is_the_exact_tail_on_both_sides():
    first, second = set(range(9)), {20, 21}
    tail = sum(math.comb(11, number) for number in (0, 1, 2)) / 2**11
    assert compare_rates(first, second) == pytest.approx(2 * tail)
    assert compare_rates(second, first) == compare_rates(first, second)


@pytest.mark.parametrize(
    ("nominal", "looks"), [(0.05, (8, 12)), (2 / 2**8, range(1, 13)), (0.2, (5,)), (0.07, (3, 9, 10))]
)
def test_the_error_of_rates_over_looks_is_the_share_of_all_series_of_tosses(nominal, looks):
    heads = np.cumsum(list(itertools.product((0, 1), repeat=max(looks))), axis=1)  # [series, tosses]
    crossed = np.zeros(len(heads), dtype=bool)
    for look in looks:
        p = [compare_rates(range(first), range(first, look)) for first in range(look + 1)]
        crossed |= np.array(p)[heads[:, look - 1]] <= nominal * (1 + 1e-9)
    assert any_look_rates_p(nominal, looks) == pytest.approx(crossed.mean(), rel=1e-12)


def test_one_look_at_rates_is_the_exact_test_itself():
    assert any_look_rates_p(2 / 2**8, [8]) == 2 / 2**8
    assert any_look_rates_p(2 / 2**8, [0, 8, 8]) == 2 / 2**8
    assert any_look_rates_p(1.0, []) == 1.0
    with pytest.raises(ValueError, match=r"p is 1\.5"):
        any_look_rates_p(1.5, [8])


@pytest.mark.parametrize("most", [20, 40, 80])
def test_equal_rates_are_called_different_in_5_percent_of_studies_at_most_looked_at_after_every_seed(most):
    generator, studies = np.random.default_rng(3), 1_500
    ours, theirs = generator.random((2, studies, most)) < 0.3
    corrected, plain = 0, 0
    for first, second in zip(ours, theirs, strict=True):
        apart = np.flatnonzero(first != second)
        heads, number = np.cumsum(first[apart]), np.arange(1, len(apart) + 1)
        p = 2 * scipy.stats.binom.cdf(np.minimum(heads, number - heads), number, 0.5)
        plain += bool((p <= 0.05).any())
        corrected += any_look_rates_p(float(min(1, p.min(initial=1))), range(1, len(apart) + 1)) <= 0.05
    assert plain / studies > 0.04  # and more with more seeds: 14 % of 80
    assert corrected / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_rates_are_tested_over_all_looks_at_a_study(store):
    sweep = fill(store, {"wild": range(8)})
    save_looks(store, sweep, Looks(ordinary=(7, 12)))
    (found,) = summarise(sweep, store).divergence
    assert found.p_holm == pytest.approx(2 * any_look_rates_p(2 / 2**8, [7, 8]))
    save_looks(store, sweep, Looks(plan=SequentialPlan(most=16)))
    (found,) = summarise(sweep, store).divergence
    # Four of the sixteen seeds are to come, and each may count.
    assert found.p_holm == pytest.approx(2 * any_look_rates_p(2 / 2**8, range(1, 13)))


def test_rates_that_once_were_apart_stay_so_in_a_sequential_study(store):
    sweep = fill(store, {"wild": range(9), "calm": (9, 10, 11)})
    save_looks(store, sweep, Looks(plan=SequentialPlan(most=12)))
    found = next(item for item in summarise(sweep, store).divergence if item.cell == "wild")
    assert found.p_holm == pytest.approx(2 * any_look_rates_p(2 / 2**9, range(1, 13)))


def test_a_cell_that_diverges_more_often_is_told_first_with_its_test(store):
    summary = summarise(fill(store, {"wild": range(8), "rare": [3]}), store)
    corrected = holm([scipy.stats.binomtest(8, 8).pvalue, 1.0])
    wild, rare = summary.divergence
    assert (wild.cell, wild.diverged, wild.reference_diverged, wild.n) == ("wild", 8, 0, 12)
    assert (wild.p_holm, rare.p_holm) == (pytest.approx(corrected[0]), 1.0)
    test = "(exact paired test, Holm's correction over 2 comparisons)."
    assert summary.warnings[:2] == (
        f"Divergence is not as frequent as that of calm: 8 of 12 runs of wild against 0 (p = 0.016) {test}",
        f"How often runs diverge cannot be told from calm: 1 of 12 runs of rare against 0 (p = 1) {test}",
    )
    assert summary_document(summary)["divergence"][0] == {
        "cell": "wild",
        "reference": "calm",
        "diverged": 8,
        "reference_diverged": 0,
        "n": 12,
        "p_holm": corrected[0],
        "tests": 2,
        "out_of_reach": False,
    }
    first = summary_document(summary)["findings"][0]
    assert first.startswith(
        "8 of 12 runs of wild diverged (0 of 12 of calm), p = 0.016; 1 of 12 runs of rare"
    )
    command, reason = describe_next(summary)
    assert command.endswith("--seeds 12 --check")
    assert "more seeds do not change that" in reason


@pytest.mark.parametrize(
    ("lost", "answers", "wanted"),
    [
        # The worst case of one run that diverged is far above what the others differ by.
        ({"wild": [2]}, {"error": "withheld", "divergence": "withheld"}, False),
        ({"wild": range(12)}, {"error": "withheld", "divergence": "diverges more often"}, False),
        # Six of twelve may yet come to be told apart from none, in twenty.
        ({"wild": range(6)}, {"error": "withheld", "divergence": ""}, True),
    ],
)
def test_a_sequential_study_ends_cells_that_only_divergence_leaves_undecided(store, lost, answers, wanted):
    sweep = fill(store, lost)
    save_looks(store, sweep, Looks(plan=SequentialPlan(most=20)))
    look = take_look(sweep, store, world_size=1)
    told = {text.split()[0]: answer for text, answer in look.answers.items() if "of wild" in text}
    assert {what: answer.split(":")[0] for what, answer in told.items()} == answers
    wild = summarise(sweep, store).cells[1].cell_id
    assert (wild in look.wanted) == wanted
    assert (wild in look.decided) != wanted
    assert f"{sum(map('withheld'.__eq__, answers.values()))} withheld for runs that diverged" in look.summary


def test_before_the_first_look_and_beside_failed_runs_no_question_is_given_up(store):
    sweep = fill(store, {"wild": range(3)}, missing={(name, seed) for name in NAMES for seed in range(5, 12)})
    save_looks(store, sweep, Looks(plan=SequentialPlan(most=20)))
    assert not any(question.withheld for question in open_questions(summarise(sweep, store)))
    sweep = fill(store, {"wild": range(3)}, failed={("wild", 7)})
    assert not any(question.withheld for question in open_questions(summarise(sweep, store)))


def test_a_reference_that_diverges_is_told_against_the_cells_that_do_not(store):
    summary = summarise(fill(store, {"calm": range(9)}), store)
    for found in summary.divergence:
        assert (found.diverged, found.reference_diverged, found.n) == (0, 9, 12)
        assert found.p_holm == pytest.approx(2 * 2 / 2**9)


def test_failed_and_missing_runs_are_no_data_of_divergence(store):
    gone = {("wild", 0), ("calm", 1)}
    summary = summarise(fill(store, {"wild": range(8)}, failed=gone, missing={("wild", 2)}), store)
    (found,) = summary.divergence
    assert (found.diverged, found.n) == (5, 9)  # seeds 3 to 7; and without seeds 0, 1 and 2


def test_where_nothing_diverged_or_there_is_no_reference_nothing_is_told(store):
    sweep = fill(store, {})
    assert summarise(sweep, store).divergence == ()
    assert summary_document(summarise(sweep, store))["divergence"] == []
    fill(store, {"wild": range(8)})
    alone = make_sweep(cells=sweep.cells, num_seeds=12, reference=None, published=())
    assert summarise(alone, store).divergence == ()
