"""Verdicts that are read more than once: tests over all looks, and studies that end when all is decided."""

import io

import numpy as np
import pytest
import report_example
import scipy.stats
from rich.console import Console

from hkrun import stats
from hkrun.config import cell_id
from hkrun.plans import Looks, SequentialPlan, save_looks
from hkrun.report import (
    describe_next,
    describe_open,
    describe_price,
    open_questions,
    print_summary,
    render_report,
    summarise,
    summary_document,
)
from hkrun.report.drawing import draw_figures
from hkrun.report.monitoring import PairedLooks, margin_over_looks
from hkrun.stats.looks import nominal_level, p_over_looks
from hkrun.store import open_store
from hkrun.sweep.rounds import take_look

NAMES = ("L_b", "L_b + L_is")
WEIGHED = ("L_b", "L_b + L_is", "L_b + L_adv", "L_b + L_adv + L_is")
IMAGE = 100 / report_example.TEST_IMAGES
EPOCHS = report_example.EPOCHS


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "hkrun-store")


def identity(name):
    return cell_id(report_example.make_cell(*report_example.WEIGHTS[name]))


def put(store, sweep, name, seeds, shift=0.0, noise=6.0, wobble=3.0):
    """Runs of a cell: wrong images around a level of the seed's own, which wobbles over the epochs."""
    (named,) = (cell for cell in sweep.cells if cell.name == name)
    for seed in seeds:
        own = np.random.default_rng([seed, len(name)])
        common = np.random.default_rng(seed).normal(60, 8)
        level = common + shift + noise * own.standard_normal()
        errors = np.maximum(1, np.round(level + wobble * own.standard_normal(EPOCHS))) * IMAGE
        report_example.put_run(store, named, seed, errors=errors.tolist())


def make_sweep(num_seeds, names=NAMES, **changes):
    return report_example.make_sweep(names, num_seeds=num_seeds, **changes)


# --- second looks -------------------------------------------------------------------------------------------


def test_a_second_look_corrects_every_p_for_both_and_widens_each_interval(store):
    sweep = make_sweep(20)
    put(store, sweep, "L_b", range(20))
    put(store, sweep, "L_b + L_is", range(20), shift=-4)
    first = summarise(sweep, store)
    save_looks(store, sweep, Looks(ordinary=(12, 20)))
    second = summarise(sweep, store)

    (before,), (after,) = first.comparisons, second.comparisons
    assert (before.p_nominal, after.p_nominal) == (None, before.p)
    assert after.p == p_over_looks(before.p, (12, 20))
    assert after.p_holm == after.p
    differences = np.array(after.by_seed)
    half = scipy.stats.t.isf(nominal_level((12, 20)) / 2, 19) * differences.std(ddof=1) / np.sqrt(20)
    assert after.ci95 == pytest.approx((differences.mean() - half, differences.mean() + half))
    low, high = stats.equivalence(
        differences, margin=1.0, level=nominal_level((12, 20), two_sided=False)
    ).ci90
    assert after.within_pp == max(-low, high)
    assert after.effect.ci95[0] < before.effect.ci95[0] < before.effect.ci95[1] < after.effect.ci95[1]

    for found in ("stability_comparisons", "s2_ratios", "deviation_ratios"):
        (before,), (after,) = getattr(first, found), getattr(second, found)
        assert after.p == pytest.approx(p_over_looks(before.p, (12, 20)))
        assert after.p_nominal == before.p
        if before.ci95 is not None:
            assert after.ci95[0] < before.ci95[0] < before.ci95[1] < after.ci95[1]
    for before, after in zip(first.verdicts, second.verdicts, strict=True):
        for one, other in zip(before.comparisons, after.comparisons, strict=True):
            assert other.p == pytest.approx(p_over_looks(one.p, (12, 20)))
    assert first.cells[0].error_last == second.cells[0].error_last


def test_an_equivalence_is_corrected_for_one_side():
    pairs = np.random.default_rng(4).standard_normal(14) / 3
    looks, alone = PairedLooks(counts=(7, 14)), PairedLooks(counts=(14,))
    for one_sided in (True, False):
        once = margin_over_looks(pairs, alone, margin=0.3, one_sided=one_sided)
        twice = margin_over_looks(pairs, looks, margin=0.3, one_sided=one_sided)
        assert twice.p == p_over_looks(once.p, (7, 14), two_sided=False)
        assert twice.p_nominal == once.p
        assert twice.ci[0] < once.ci[0] < once.ci[1] < twice.ci[1]
        assert once.p_against <= twice.p_against <= 2 * once.p_against


@pytest.mark.parametrize(
    ("ordinary", "lost", "looks"),
    [
        ((8,), (), (8, 12)),
        ((8, 12), (), (8, 12)),  # the present number is the last look
        ((8, 20), (), (8, 12)),  # a later look is none of these seeds
        ((8,), (2, 9), (7, 10)),  # of pairs
        ((8,), (8, 9, 10, 11), (8,)),  # none has come since
        ((), (), (12,)),
    ],
)
def test_looks_are_counted_in_pairs_of_runs(store, ordinary, lost, looks):
    sweep = make_sweep(12)
    put(store, sweep, "L_b", range(12))
    put(store, sweep, "L_b + L_is", [seed for seed in range(12) if seed not in lost])
    save_looks(store, sweep, Looks(ordinary=ordinary))
    (comparison,) = summarise(sweep, store).comparisons
    assert comparison.looks.counts == looks
    assert (comparison.p_nominal is None) == (len(looks) == 1)


def test_a_study_copied_without_its_looks_keeps_its_p(store):
    sweep = make_sweep(12)
    report_example.fill(store, sweep)
    before = summary_document(summarise(sweep, store))
    assert "looks" not in before
    save_looks(store, sweep, Looks(ordinary=(12,)))
    assert summary_document(summarise(sweep, store)) == before
    assert "p_nominal" not in before["comparisons"][0]


def test_the_document_has_looks_and_p_before_and_after(store):
    sweep = make_sweep(12)
    report_example.fill(store, sweep)
    save_looks(store, sweep, Looks(ordinary=(7,)))
    document = summary_document(summarise(sweep, store))
    assert (document["looks"], document["sequential"]) == ([7, 12], False)
    for name in ("comparisons", "s2_ratios", "sd_last_ratios", "stability_comparisons"):
        (found,) = document[name]
        if found["p"] is not None:
            assert found["p"] == pytest.approx(p_over_looks(found["p_nominal"], (7, 12)))


@pytest.mark.usefixtures("undrawn_figures")
def test_lost_looks_are_told_and_p_allows_for_one_after_every_seed(store):
    sweep = make_sweep(12)
    put(store, sweep, "L_b", range(12))
    put(store, sweep, "L_b + L_is", range(12), shift=-4)
    before = summarise(sweep, store)
    save_looks(store, sweep, Looks(ordinary=(12,)))
    folder = store.local_path / "sweeps" / "stability-digits"
    (folder / "looks.json").write_text('{"ordinary": [12')
    summary = summarise(sweep, store)
    (alone,), (comparison,) = before.comparisons, summary.comparisons
    assert comparison.p == p_over_looks(alone.p, tuple(range(6, 13)))
    (warning,) = [warning for warning in summary.warnings if "looked at" in warning]
    assert "sweeps/stability-digits/looks.json is damaged" in warning
    document = summary_document(summary)
    assert warning in document["warnings"]
    assert document["looks_lost"] == "sweeps/stability-digits/looks.json is damaged"
    assert document["looks"] == list(range(6, 13))
    assert warning in " ".join(read_markdown(summary).split())
    assert "Earlier looks are not known" in print_terminal(summary)


# --- sequential studies -------------------------------------------------------------------------------------


def put_sequential(store, *, most=12, decided=None, ours=9, shift=-25.0, names=NAMES, **changes):
    sweep = make_sweep(most, names, **changes)
    put(store, sweep, "L_b", range(ours))
    for name in names[1:]:
        put(store, sweep, name, range(ours), shift=shift)
    plan = SequentialPlan(
        most=most, decided={identity(name): count for name, count in (decided or {}).items()}
    )
    save_looks(store, sweep, Looks(plan=plan))
    return sweep


def test_a_sequential_study_tests_at_every_look_of_its_plan(store):
    sweep = put_sequential(store, shift=-6.0)
    summary = summarise(sweep, store)
    looks = stats.plan_looks(12)
    (error,), (s2,), (sd,), (s,) = (
        summary.comparisons,
        summary.s2_ratios,
        summary.deviation_ratios,
        summary.stability_comparisons,
    )
    told = stats.sequential_difference(error.by_seed, looks)
    assert (error.p, error.ci95, error.n) == (told.p, told.ci95, 9)
    assert error.within_pp == max(
        map(abs, stats.confidence_sequence(error.by_seed, looks, two_sided=False)[-1])
    )
    cells = [cell.error_pct[:] for cell in reversed(summary.cells)]

    def nominal(compare):
        return min(compare(look).p for look in (6, 7, 8, 9))

    smallest = nominal(
        lambda look: stats.compare_pair_stability(*(c[:look, -5:] for c in cells), window=5, ddof=0)
    )
    assert s2.p == pytest.approx(p_over_looks(smallest, looks), rel=5e-3)
    smallest = nominal(lambda look: stats.compare_deviation(*(c[:look, -1] for c in cells)))
    assert sd.p == pytest.approx(p_over_looks(smallest, looks), rel=5e-3)
    assert s.p == pytest.approx(p_over_looks(s.p_nominal, looks))


def test_pairs_are_in_the_order_in_which_the_study_has_its_seeds(store):
    order = (9, 1, 4, 0, 7, 2, 8, 11, 3)
    sweep = make_sweep(12, seeds=order)
    for name in NAMES:
        put(store, sweep, name, range(12))
    save_looks(store, sweep, Looks(plan=SequentialPlan(most=9)))
    summary = summarise(sweep, store)
    ours, theirs = (dict(zip(cell.seeds, cell.error_pct[:, -1], strict=True)) for cell in summary.cells)
    (comparison,) = summary.comparisons
    assert comparison.by_seed == pytest.approx([theirs[seed] - ours[seed] for seed in order])


def test_a_cell_that_ended_because_all_is_decided_lacks_no_runs(store):
    sweep = put_sequential(store, decided=dict.fromkeys(NAMES, 9))
    summary = summarise(sweep, store)
    assert [cell.missing for cell in summary.cells] == [(), ()]
    assert [cell.spared for cell in summary.cells] == [(9, 10, 11)] * 2
    assert not [warning for warning in summary.warnings if "missing" in warning]


def test_a_cell_that_still_matters_lacks_its_runs(store):
    sweep = put_sequential(store, decided={"L_b + L_is": 9})
    cells = summarise(sweep, store).cells
    assert [cell.missing for cell in cells] == [(9, 10, 11), ()]


def test_a_study_that_went_beyond_its_plan_is_corrected_for_all_its_looks(store):
    put_sequential(store, decided=dict.fromkeys(NAMES, 9))
    sweep = make_sweep(14)
    put(store, sweep, "L_b", range(9, 14))
    put(store, sweep, "L_b + L_is", range(9, 14), shift=-4)
    summary = summarise(sweep, store)
    (error,) = summary.comparisons
    assert error.looks.counts == (6, 7, 8, 9, 10, 11, 12, 14)
    assert error.p == p_over_looks(error.p_nominal, error.looks.counts)
    assert not summary.monitoring.sequential


def read_markdown(summary):
    return render_report(summary)["report.md"].decode()


def print_terminal(summary, width=100):
    console = Console(file=io.StringIO(), width=width)
    print_summary(summary, console)
    return " ".join(console.file.getvalue().split())


@pytest.mark.usefixtures("undrawn_figures")
@pytest.mark.parametrize(
    ("ordinary", "sentence"),
    [
        ((), ""),
        ((12,), ""),
        ((8,), "Looked at 8 and 12 seeds: p and intervals are corrected for both looks."),
        ((7, 8), "Looked at 7, 8 and 12 seeds: p and intervals are corrected for all 3 looks."),
        (
            (6, 7, 8, 9, 10),
            "Looked at 6 numbers of seeds from 6 to 12: p and intervals are corrected for all 6 looks.",
        ),
    ],
)
def test_earlier_looks_are_told_on_the_first_screen_and_in_the_report(store, ordinary, sentence):
    sweep = make_sweep(12)
    report_example.fill(store, sweep)
    save_looks(store, sweep, Looks(ordinary=ordinary))
    summary = summarise(sweep, store)
    told, written = print_terminal(summary), read_markdown(summary)
    for text in (told, written):
        assert "Looked at" not in text or sentence
        assert sentence in text
    assert ("Verdicts were read at" in written) == bool(sentence)


@pytest.mark.usefixtures("undrawn_figures")
def test_a_sequential_study_says_after_how_many_seeds_it_decided_and_what_is_open(store):
    names = ("L_b", "L_b + L_is", "L_b + L_adv")
    sweep = put_sequential(store, names=names, decided={"L_b + L_is": 9})
    put(store, sweep, "L_b + L_adv", range(9), shift=0.5)
    summary = summarise(sweep, store)
    lower, open_ = summary.comparisons
    assert lower.decided_after in range(6, 10)
    first = stats.sequential_difference(lower.by_seed[: lower.decided_after], lower.looks.counts)
    assert first.p <= 0.05 * lower.p / lower.p_holm
    before = stats.sequential_difference(lower.by_seed[: lower.decided_after - 1], lower.looks.counts)
    assert before.p > 0.05 * lower.p / lower.p_holm
    assert open_.decided_after is None
    for text in (print_terminal(summary), read_markdown(summary)):
        assert f"decided after {lower.decided_after} of at most 12 seeds" in text
        assert "hold at every look" in text
        assert "comparisons may end at any number of seeds from 6 to 12." in " ".join(text.split())
        assert "away from no effect" in text
        assert "Ended early, since all about them is decided: L_b + L_is after 9 of 12 seeds." in text
    written = read_markdown(summary)
    assert "27 of 36 runs finished, 3 spared" in written
    assert ("t over all looks" in written, "sign-flip" in written) == (True, False)
    assert "Intervals of single cells" in written
    for name, content in render_report(summary).items():
        if name.endswith((".md", ".html", ".tex")):
            assert b"sign-flip permutation" not in content
    findings = summary_document(summary)["findings"]
    assert any("is shown for L_b + L_adv (open at 9 of 12 seeds)" in finding for finding in findings)
    assert describe_next(summary)[0] == "hkrun resume stability --dataset digits"
    document = summary_document(summary)
    assert [found["decided_after"] for found in document["comparisons"]] == [lower.decided_after, None]
    assert document["cells"][1]["spared"] == [9, 10, 11]


def test_the_figure_of_a_sequential_study_draws_each_difference_seed_by_seed(store):
    sweep = put_sequential(store, margin=5.0, asks_equivalence=True)
    figures = {figure.name: figure for figure in draw_figures(summarise(sweep, store))}
    assert "the margin of 5 pp" in figures["sequences"].caption
    (panel,) = figures["sequences"].drawn.axes
    (comparison,) = summarise(sweep, store).comparisons
    means = next(line for line in panel.lines if line.get_marker() == "o")
    assert means.get_xdata().tolist() == list(range(1, 10))
    assert means.get_ydata()[-1] == pytest.approx(comparison.difference)
    drawn = [line.get_ydata()[-1] for line in panel.lines if len(line.get_xdata()) == 4]
    assert drawn == pytest.approx(list(comparison.ci95))
    save_looks(store, sweep, Looks())
    assert "sequences" not in {figure.name for figure in draw_figures(summarise(sweep, store))}


def test_the_steadiest_cell_is_chosen_on_the_seeds_that_all_share(store):
    sweep = put_sequential(store, decided={"L_b + L_is": 9})
    put(store, sweep, "L_b", range(9, 12))
    told = (
        "L_b + L_is after 9 of 12 seeds; a difference is of the seeds that both cells have, and not that of"
    )
    assert f"{told} their means." in print_terminal(summarise(sweep, store))
    summary = summarise(sweep, store)
    best = next(best for best in summary.best if best.measure == "stability")
    shared = [stats.stability(cell.error_pct[:9], window=5) for cell in summary.cells]
    assert best.value == min(shared)
    assert best.left_out == ()
    assert "on the seeds that all share" in " ".join(summary_document(summary)["findings"])


# --- what is decided ----------------------------------------------------------------------------------------


def test_questions_of_a_study_of_stability_are_error_and_s2_of_each_cell_and_the_claims(store):
    names = ("L_b", "L_b + L_is", "L_b + L_adv")
    summary = summarise(put_sequential(store, names=names, shift=0.0), store)
    found = open_questions(summary)
    texts = [question.text for question in found]
    assert texts[:4] == [
        "error of L_b + L_is against L_b",
        "S2 of L_b + L_is against L_b",
        "error of L_b + L_adv against L_b",
        "S2 of L_b + L_adv against L_b",
    ]
    assert all(question.cells == (identity("L_b + L_is"), identity("L_b")) for question in found[:2])
    assert {question.n for question in found} == {9}
    assert describe_open(found).startswith(f"0 of {len(found)} questions decided; open: error of L_b + L_is")


def test_a_claim_that_lacks_one_of_its_cells_is_not_asked_and_keeps_no_cell_running(store):
    names = ("L_b", "L_b + L_adv")  # table 5 sets L_b + L_adv beside L_b + L_adv + L_is too
    (whole, partial) = (open_questions(summarise(make_sweep(12, found), store)) for found in (NAMES, names))
    assert [question.text[:5] for question in whole] == ["error", "S2 of", "“inte"]
    assert [question.text[:5] for question in partial] == ["error", "S2 of"]
    sweep = make_sweep(20, names)
    put(store, sweep, "L_b", range(10), wobble=8.0)
    put(store, sweep, "L_b + L_adv", range(10), shift=-30.0, wobble=1.0)
    save_looks(store, sweep, Looks(plan=SequentialPlan(most=20)))
    summary = summarise(sweep, store)
    assert any(verdict.missing for verdict in summary.s2_verdicts)
    assert [question.decided for question in open_questions(summary)] == ["lower", "steadier"]
    look = take_look(sweep, store, world_size=1)
    assert (look.needs, look.decided) == ((), {identity(name): 10 for name in names})


def test_questions_stay_the_same_from_look_to_look_and_a_difference_decides(store):
    sweep = make_sweep(12)
    texts, decided = set(), []
    for ours in range(0, 10, 3):
        put_sequential(store, ours=ours)
        found = open_questions(summarise(sweep, store))
        texts.add(tuple(question.text for question in found))
        decided.append(found[0].decided)
        assert found[0].n == ours
    assert len(texts) == 1
    assert decided == ["", "", "lower", "lower"]


def test_equivalence_decides_where_the_search_space_sets_a_margin(store):
    for asked, answer in ((False, ""), (True, "within 5 pp")):
        sweep = put_sequential(store, shift=0.5, margin=5.0, asks_equivalence=asked)
        assert open_questions(summarise(sweep, store))[0].decided == answer


def test_a_claim_ends_when_all_that_it_compares_is_shown_to_be_equal(store):
    def decided(**analysis):
        sweep = put_sequential(store, names=WEIGHED, shift=0.0, claims=("lower-curve",), **analysis)
        summary = summarise(sweep, store)
        return [question.decided for question in open_questions(summary) if "“" in question.text]

    assert not any(decided())
    assert "equal within a factor of 1e+06" in decided(s2_factor=1e6)
    assert "equal within a factor of 1.01" not in decided(s2_factor=1.01)
    asked = decided(margin=50.0, asks_equivalence=True)
    assert "equal within 50 pp" in asked
    assert not any(decided(margin=50.0, asks_equivalence=False))


def test_equal_s2_decides_where_the_search_space_sets_a_factor(store):
    for factor, answer in ((None, ""), (1.1, ""), (20.0, "as steady within a factor of 20")):
        summary = summarise(put_sequential(store, s2_factor=factor), store)
        questions = {question.text: question.decided for question in open_questions(summary)}
        assert questions["S2 of L_b + L_is against L_b"] == answer
    (ratio,) = summary.s2_ratios
    low, high = ratio.within.ci90
    assert 1 / 20 < low < ratio.ratio < high < 20
    # Each look's own p is smaller than what it comes to over all looks of the plan.
    ours, theirs = (cell.error_pct[:] for cell in reversed(summary.cells))
    fixed = stats.equate_pair_stability(ours, theirs, factor=20.0, window=5)
    assert max(fixed.p_above, fixed.p_below) < ratio.within.p < 0.05


def test_a_second_look_corrects_the_p_of_equal_s2_too(store):
    sweep = make_sweep(20, s2_factor=3.0)
    for name in NAMES:
        put(store, sweep, name, range(20))
    (before,) = summarise(sweep, store).s2_ratios
    save_looks(store, sweep, Looks(ordinary=(12, 20)))
    (after,) = summarise(sweep, store).s2_ratios
    assert (before.within.p_nominal, after.within.p_nominal) == (None, before.within.p)
    assert after.within.p == p_over_looks(before.within.p, (12, 20), two_sided=False)
    assert after.within.ci90[0] < before.within.ci90[0] < before.within.ci90[1] < after.within.ci90[1]


def test_runs_that_diverged_leave_a_question_open(store):
    sweep = put_sequential(store)
    report_example.put_run(store, sweep.cells[1], 4, errors=[], status="diverged", diverged_epoch=1)
    summary = summarise(sweep, store)
    (comparison,) = summary.comparisons
    assert (comparison.p, comparison.withheld) == (1.0, True)
    assert open_questions(summary)[0].decided == ""


def test_without_reference_and_claims_there_is_no_question(store):
    sweep = put_sequential(store, reference=None, published=())
    assert open_questions(summarise(sweep, store)) == ()
    assert describe_open(()) == "0 of 0 questions decided."


def test_differences_that_drift_with_the_seeds_leave_verdicts_withheld(store):
    sweep = make_sweep(20, margin=5.0, asks_equivalence=True)
    put(store, sweep, "L_b", range(20), noise=1.0)
    put(store, sweep, "L_b + L_is", range(7), shift=20.0, noise=1.0)
    save_looks(store, sweep, Looks(plan=SequentialPlan(most=20)))
    (higher,) = summarise(sweep, store).comparisons
    assert (higher.opposes, higher.withheld, higher.decided_after) == (True, False, 6)
    put(store, sweep, "L_b + L_is", range(7, 20), shift=-20.0, noise=1.0)
    summary = summarise(sweep, store)
    assert np.mean(summary.comparisons[0].by_seed) < 0
    for found in (*summary.comparisons, *summary.equivalences):
        assert (found.withheld, found.significant, found.ci95) == (True, False, None)
        assert "the differences drift with the seeds" in found.reservation
    assert open_questions(summary)[0].decided == ""
    assert "withheld: the differences drift with the seeds" in print_terminal(summary)
    assert "within 5 pp" not in print_terminal(summary)


# --- the price of a further look ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "percent"),
    [
        (Looks(), "6.5"),
        (Looks(ordinary=(20,)), "6.5"),
        (Looks(ordinary=(10,)), "7.8"),
        (Looks(plan=SequentialPlan(most=20)), "5.8"),
        (Looks(lost="looks.json is damaged"), ""),
        (Looks(ordinary=(14,), plan=SequentialPlan(most=20)), ""),
        (Looks(plan=SequentialPlan(most=12)), ""),
    ],
)
def test_who_goes_on_is_told_how_often_chance_shows_a_difference(store, kept, percent):
    sweep = make_sweep(20, published=())
    save_looks(store, sweep, kept)
    for name in NAMES:
        put(store, sweep, name, range(20))
    told = describe_price(summarise(sweep, store), kept)
    assert told.startswith(f"a further look: with it {percent}" if percent else "")
    assert bool(told) == bool(percent)


@pytest.mark.parametrize("name", ["s2_ratios", "deviation_ratios"])
def test_a_ratio_that_has_left_its_own_interval_is_withheld_whatever_early_looks_showed(store, name):
    sweep = make_sweep(16)
    for seeds, theirs, ours in ((range(9), 1.5, 20.0), (range(9, 16), 20.0, 8.0)):
        put(store, sweep, "L_b", seeds, shift=200.0, noise=theirs, wobble=theirs)
        put(store, sweep, "L_b + L_is", seeds, shift=200.0, noise=ours, wobble=ours)
    save_looks(store, sweep, Looks(plan=SequentialPlan(most=16)))
    (found,) = getattr(summarise(sweep, store), name)
    assert (found.p, found.ci95, found.significant) == (1.0, None, False)
    assert found.reservation.startswith(
        f"looks at fewer seeds contradict the ratio of all 16, {found.ratio:.2g}"
    )


# --- the command to go on with ------------------------------------------------------------------------------


def test_a_study_in_rounds_goes_on_in_rounds_for_what_is_open(store):
    sweep = make_sweep(20, published=())
    save_looks(store, sweep, Looks(plan=SequentialPlan(most=20)))
    for name in NAMES:
        put(store, sweep, name, range(20))
    command, reason = describe_next(summarise(sweep, store))
    assert command.endswith(" --until decided --max-seeds 28")
    assert reason == (
        "rounds of up to 28 seeds find about what 20 at once do; only what is open goes on, and nothing is "
        "repeated"
    )


def test_a_study_in_rounds_that_is_decided_may_make_the_runs_that_were_spared(store):
    sweep = make_sweep(20, published=())
    decided = dict.fromkeys(map(identity, NAMES), 8)
    save_looks(store, sweep, Looks(plan=SequentialPlan(most=20, decided=decided)))
    for name, shift in zip(NAMES, (0, -40), strict=True):
        put(store, sweep, name, range(8), shift=shift)
    command, reason = describe_next(summarise(sweep, store))
    assert command.endswith(" --seeds 20")
    assert reason == "makes the runs that were spared, for closer intervals; all is decided without"
