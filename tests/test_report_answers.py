"""What a report answers first: the best cell, how sure that is, the next command; one verdict for a pair."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
import scipy.stats
from report_example import EPOCHS, make_cell, make_sweep, put_run
from rich.console import Console

from hkrun import stats
from hkrun.errors import InputError
from hkrun.report import describe_next, print_summary, render_report, summarise, summary_document
from hkrun.report.answers import write_answer
from hkrun.report.comparing import cell_side, compare_equivalence
from hkrun.report.open_comparisons import explain_table
from hkrun.report.verdict import PowerForecast
from hkrun.spaces import NamedCell, load_sweep
from hkrun.store import open_store

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def make_cells(*names, **changes):
    cells = tuple(
        NamedCell(name=name, cell=make_cell(0.1 * place, 0.0)) for place, name in enumerate(names, start=1)
    )
    return make_sweep(cells=cells, published=(), **{"reference": None, **changes})


def put_errors(store, sweep, errors_pct, *, lost=()):
    """Runs whose error is the cell's at every epoch, one a seed."""
    for named in sweep.cells:
        for seed, error_pct in zip(sweep.seeds, errors_pct[named.name], strict=True):
            changes = {"status": "diverged", "diverged_epoch": 3} if (named.name, seed) in lost else {}
            put_run(store, named, seed, errors=[error_pct] * (3 if changes else EPOCHS), **changes)


def draw(*means, num_seeds, spread=0.1):
    generator = np.random.default_rng(5)
    return [(mean + spread * generator.standard_normal(num_seeds)).tolist() for mean in means]


def flip_p(first, second):
    """Two-sided, over all sign flips."""
    differences = np.subtract(first, second)
    flips = np.array(list(itertools.product((1, -1), repeat=len(differences))))
    means = np.abs((flips * differences).mean(axis=1))
    return float(np.mean(means >= abs(differences.mean()) - 1e-12))


# --- the best cell ------------------------------------------------------------------------------------------


def test_the_best_cell_is_named_with_its_p_against_the_reference(store):
    sweep = make_cells("ref", "low", "high", num_seeds=8, reference="ref")
    put_errors(store, sweep, dict(zip(("ref", "low", "high"), draw(5, 4, 6, num_seeds=8), strict=True)))
    summary = summarise(sweep, store)
    (best,) = summary.best
    assert (best.measure, best.cell, best.num_running) == ("error", "low", 3)
    assert best.value == summary.cells[1].error_last.mean
    (answer,) = write_answer(summary)
    comparison = summary.find_comparison("low")
    assert comparison.p_holm == pytest.approx(2 * 2 / 2**8)
    assert answer.startswith(f"Best: low ({best.value:.2f} %), p = 0.016 against the reference, ref (-")
    assert "no difference is shown" not in answer
    assert answer.endswith("As the lowest of 3 it is likely too low. It is told from each of the 2 others.")


def test_a_best_cell_that_no_test_tells_from_the_reference_says_so(store):
    sweep = make_cells("ref", "low", num_seeds=8, reference="ref")
    put_errors(store, sweep, {"ref": [5.0] * 8, "low": [3.0, 6.0, 4.5, 5.5, 4.0, 5.5, 3.5, 5.0]})
    found = scipy.stats.ttest_1samp(np.array([3.0, 6.0, 4.5, 5.5, 4.0, 5.5, 3.5, 5.0]) - 5.0, 0.0)
    within = max(map(abs, found.confidence_interval(0.9)))
    summary = summarise(sweep, store)
    (answer,) = write_answer(summary)
    assert answer == (
        "Best: low (4.62 %), p = 0.44 against the reference, ref (-0.38 ± 0.89 pp): no difference is shown, "
        f"within {within:.2f} pp (90 %)."
    )
    document = summary_document(summary)
    assert document["comparisons"][0]["within_pp"] == pytest.approx(within)
    assert (
        f"In test error, no difference from ref is shown for low: within {within:.2f} pp (90 %)."
        in document["findings"]
    )


def test_the_reference_may_be_the_best(store):
    sweep = make_cells("ref", "high", num_seeds=8, reference="ref")
    errors = draw(4, 6, num_seeds=8)
    put_errors(store, sweep, dict(zip(("ref", "high"), errors, strict=True)))
    mean_pct = np.mean(errors[0])
    assert list(write_answer(summarise(sweep, store))) == [
        f"Best: ref ({mean_pct:.2f} %), the reference. It is told from the other cell."
    ]


def test_the_best_of_many_is_tested_as_one_of_all_pairs(store):
    names = [f"cell {number}" for number in range(5)]
    num_seeds = 9
    errors = dict(zip(names, draw(5.0, 5.05, 5.3, 5.6, 7, num_seeds=num_seeds, spread=0.15), strict=True))
    sweep = make_cells(*names, num_seeds=num_seeds)
    put_errors(store, sweep, errors)
    (best,) = summarise(sweep, store).best
    p = [flip_p(errors["cell 0"], errors[name]) for name in names[1:]]
    assert p == [274 / 512, 4 / 512, 2 / 512, 2 / 512]
    # Holm over the four tests with the best alone would tell three: 2 * 4 / 512 is below 5 %.
    assert sum(corrected <= stats.LEVEL for corrected in stats.holm(p)) == 3
    # Over all ten pairs it is 8 * 4 / 512 = 0.0625.
    assert (best.cell, best.told, best.untold) == ("cell 0", ("cell 3", "cell 4"), ("cell 1", "cell 2"))


@pytest.mark.parametrize(("num_seeds", "possible"), [(7, False), (8, False), (9, True)])
def test_seeds_too_few_to_tell_any_two_cells_apart_are_named_as_the_reason(store, num_seeds, possible):
    names = [f"cell {number}" for number in range(5)]
    sweep = make_cells(*names, num_seeds=num_seeds)
    put_errors(store, sweep, dict(zip(names, draw(1, 20, 30, 40, 50, num_seeds=num_seeds), strict=True)))
    (answer,) = write_answer(summarise(sweep, store))
    assert (10 * 2 / 2**num_seeds <= stats.LEVEL) == possible  # the smallest p, Holm over all ten pairs
    reason = (
        f"These seeds tell it from none of the 4 others. With {num_seeds} seeds no two cells can be told "
        "apart, however large their difference, after Holm's correction over 10 pairs: a permutation test "
        "needs 9 seeds."
    )
    assert answer.endswith(reason) != possible
    assert ("however large" in answer) != possible


def test_a_pair_alone_is_not_corrected(store):
    sweep = make_cells("one", "other", num_seeds=5)
    put_errors(store, sweep, {"one": [1.0] * 5, "other": [9.0] * 5})
    (answer,) = write_answer(summarise(sweep, store))
    reason = "With 5 seeds no two cells can be told apart, however large their difference: a permutation test"
    assert reason + " needs 6 seeds." in answer


def test_a_comparison_with_the_reference_is_no_pair_of_the_others(store):
    sweep = make_cells("ref", "low", num_seeds=5, reference="ref")
    put_errors(store, sweep, {"ref": [9.0] * 5, "low": [1.0] * 5})
    (answer,) = write_answer(summarise(sweep, store))
    assert "however large" not in answer  # the warning of the comparisons says it


@pytest.mark.parametrize(("num_seeds", "by_warning"), [(5, True), (7, False)])
def test_that_seeds_are_too_few_is_said_once(store, num_seeds, by_warning):
    """Seven seeds can tell a cell from the reference, and no two others apart: 7 > log2(2 * 3 / 0.05)."""
    names = ("ref", "a", "b", "c")
    sweep = make_cells(*names, num_seeds=num_seeds, reference="ref")
    put_errors(store, sweep, dict(zip(names, draw(5, 6, 7, 4, num_seeds=num_seeds), strict=True)))
    summary = summarise(sweep, store)
    said = [text for text in (*write_answer(summary), *summary.warnings) if "however large" in text]
    assert len(said) == by_warning
    assert all(text in summary.warnings for text in said)


# Of eight pairs, one against the others: p = 4 / 256 by itself, and four times that after Holm's correction.
UNEQUAL = [-0.6, -0.5, -0.4, -0.7, -0.3, -0.5, -0.6, 0.2]


def test_an_interval_without_0_beside_no_difference_is_explained_by_the_correction(store):
    names = ("ref", "low", "a", "b", "c")
    sweep = make_cells(*names, num_seeds=8, reference="ref")
    errors = {name: [5.0 + 0.01 * seed * place for seed in range(8)] for place, name in enumerate(names)}
    errors |= {"ref": [5.0] * 8, "low": [5.0 + difference for difference in UNEQUAL]}
    put_errors(store, sweep, errors)
    summary = summarise(sweep, store)
    comparison = summary.find_comparison("low")
    assert comparison.ci95[1] < 0
    assert comparison.p <= stats.LEVEL < comparison.p_holm
    answer = next(iter(write_answer(summary)))
    assert "no difference is shown" in answer
    assert "; the interval is of one comparison alone, and p is corrected over 4." in answer


def test_an_interval_without_0_beside_no_difference_is_explained_by_the_test(store):
    """Of four pairs the smallest p is 2 / 16, whatever the t interval says."""
    sweep = make_cells("ref", "high", "low", num_seeds=4, reference="ref")
    put_errors(store, sweep, dict(zip(("ref", "high", "low"), draw(5, 9, 1, num_seeds=4), strict=True)))
    summary = summarise(sweep, store)
    why = "the interval is of a t test, and the permutation test has p = 0.12"
    assert f"; {why}." in next(iter(write_answer(summary)))
    # The table's other rows have it below the table: of the best the answer says it.
    assert explain_table(summary) == [
        f"high: no difference is shown though the interval excludes 0, for {why}."
    ]
    assert explain_table(summary)[0] in render_report(summary)["report.md"].decode()


def test_a_question_that_is_the_title_is_not_said_twice(store):
    sweep = make_cells("a", "b", num_seeds=2, title="How much does it matter?")
    put_errors(store, sweep, dict(zip(("a", "b"), draw(1, 2, num_seeds=2), strict=True)))
    for question, number in (("how much does it matter?", 1), ("Does it?", 2)):
        shown = io.StringIO()
        asked = dataclasses.replace(sweep, question=question)
        print_summary(summarise(asked, store), Console(file=shown, width=100))
        head = shown.getvalue().partition("Best:")[0]
        assert len(head.strip().splitlines()) == number


def test_a_cell_with_lost_runs_is_not_in_the_running(store):
    sweep = make_cells("a", "b", "lucky", num_seeds=6)
    errors = dict(zip(("a", "b", "lucky"), draw(5, 6, 1, num_seeds=6), strict=True))
    put_errors(store, sweep, errors, lost={("lucky", 2)})
    summary = summarise(sweep, store)
    (best,) = summary.best
    assert (best.cell, best.left_out) == ("a", ("lucky",))
    (answer,) = write_answer(summary)
    assert answer.endswith("Not in the running, for want of runs with a result: lucky.")


def test_one_cell_alone_is_no_best(store):
    sweep = make_cells("a", num_seeds=3)
    put_errors(store, sweep, {"a": [1.0, 2.0, 3.0]})
    assert summarise(sweep, store).best == ()


# --- what the question is about -----------------------------------------------------------------------------

SPACE = """
dataset = "digits"
seeds = 4
[analysis]
{analysis}
[published]
tables = {tables}
[[cells]]
name = "L_b"
"""


@pytest.mark.parametrize(
    ("analysis", "tables", "measure"),
    [
        ("", "[]", "error"),
        ("", '["table5"]', "stability"),
        ("", '["table4", "table5"]', "error"),
        ('measure = "stability"', '["table4"]', "stability"),
        ('measure = "error"', '["table5"]', "error"),
    ],
)
def test_the_measure_is_declared_or_that_of_the_first_table(store, tmp_path, analysis, tables, measure):
    file = tmp_path / "mine.toml"
    text = SPACE.format(analysis=analysis, tables=tables)
    file.write_text(text.replace("[published]\ntables = []\n", ""))
    summary = summarise(load_sweep(str(file)), store)
    assert summary.measure == summary_document(summary)["measure"] == measure


def test_a_measure_that_is_none_is_refused_with_its_line(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(SPACE.format(analysis='measure = "stabilty"', tables='["table5"]'))
    with pytest.raises(InputError) as caught:
        load_sweep(str(file))
    (problem,) = caught.value.problems
    assert problem.endswith(
        "mine.toml:5: analysis.measure: 'stabilty' is not one of error, stability; did you mean 'stability'?"
    )


def test_a_study_of_steadiness_opens_with_s(store):
    sweep = make_sweep(["L_b", "L_b + L_is"], num_seeds=6)
    generator = np.random.default_rng(0)
    for named, spread in zip(sweep.cells, (2.0, 0.1), strict=True):
        for seed in sweep.seeds:
            errors = 5 + spread * generator.random(EPOCHS) + (named.name == "L_b + L_is")
            put_run(store, named, seed, errors=errors.tolist())
    summary = summarise(sweep, store)
    assert [best.measure for best in summary.best] == ["stability", "error"]
    by_s2, smallest, lowest = write_answer(summary)
    (ratio,) = summary.s2_ratios
    assert ratio.p_holm < 0.001
    assert by_s2.startswith(f"By S2, L_b + L_is is steadier than L_b ({ratio.ratio:.4f}"[:48])
    assert smallest.startswith("Smallest S: L_b + L_is (")
    assert lowest.startswith("Lowest error: L_b (")
    assert [text for text in summary_document(summary)["findings"] if text.startswith("By S2")] == [by_s2]
    stream = io.StringIO()
    print_summary(summary, Console(file=stream, width=100))
    head = next(line for line in stream.getvalue().splitlines() if " cell " in line).split()
    assert head.index("of") < head.index("last")


@pytest.mark.parametrize("names", [("L_b", "L_b + L_is"), ("L_b", "L_b + L_is", "L_b + L_adv")])
@pytest.mark.parametrize("width", [80, 100])
def test_a_study_that_shows_nothing_steadier_says_so_first_and_tables_s2(store, names, width):
    sweep = make_sweep(list(names), num_seeds=6)
    generator = np.random.default_rng(0)
    for named in sweep.cells:
        for seed in sweep.seeds:
            put_run(store, named, seed, errors=(5 + generator.random(EPOCHS)).tolist())
    summary = summarise(sweep, store)
    assert not any(ratio.significant for ratio in summary.s2_ratios)
    others = "the other cell" if len(names) == 2 else "any other cell"
    first = f"No configuration is shown to be steadier than L_b: neither S2 nor S tells {others} from it."
    assert next(iter(write_answer(summary))) == first
    stream = io.StringIO()
    print_summary(summary, Console(file=stream, width=width, force_terminal=True, color_system=None))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert " ".join(lines[3:5]).startswith(first)
    assert max(map(len, lines)) <= width
    assert any("S2 over that" in line and "p of S2" in line for line in lines)
    row = next(line for line in lines if line.startswith(" L_b + L_is "))
    assert f"{summary.s2_ratios[0].ratio:.2g} [" in row


def test_without_a_reference_the_smallest_of_like_s_is_not_called_steadier(store):
    sweep = dataclasses.replace(make_sweep(["L_b", "L_b + L_is"], num_seeds=6), reference=None)
    generator = np.random.default_rng(0)
    for named in sweep.cells:
        for seed in sweep.seeds:
            put_run(store, named, seed, errors=(5 + generator.random(EPOCHS)).tolist())
    first, *_ = write_answer(summarise(sweep, store))
    assert first == "No configuration is shown to be steadier than another."


def test_cells_that_the_family_of_all_tests_leaves_out_are_not_called_alike(store):
    sweep = make_cells("ref", "low", "high", num_seeds=9, reference="ref", family="all")
    put_errors(store, sweep, dict(zip(("ref", "low", "high"), draw(50, 5, 90, num_seeds=9), strict=True)))
    summary = summarise(sweep, store)
    (best,) = summary.best
    assert (best.cell, best.told, best.untold, best.untested) == ("low", ("ref",), (), ("high",))
    assert summary_document(summary)["best"][0]["not_tested_against"] == ["high"]
    (answer,) = write_answer(summary)
    assert answer.endswith(
        "These seeds tell it from ref. It is not tested against high, which the family of all tests leaves "
        "out."
    )


# --- first of all -------------------------------------------------------------------------------------------


def test_the_answer_stands_first_in_terminal_and_report(store):
    sweep = make_cells("ref", "low", num_seeds=8, reference="ref")
    put_errors(store, sweep, dict(zip(("ref", "low"), draw(5, 4, num_seeds=8), strict=True)))
    summary = summarise(sweep, store)
    (answer,) = write_answer(summary)
    stream = io.StringIO()
    print_summary(summary, Console(file=stream, width=100))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert lines[:3] == ["Convergence stability, digits, 8 seeds", "Does it help?", ""]
    assert " ".join(lines[3:6]).startswith(answer)
    report = render_report(summary)["report.md"].decode()
    findings = [line for line in report.splitlines() if line.startswith("- ")]
    assert findings[0].startswith("- Best: low (")
    assert summary_document(summary)["findings"][0] == answer


# --- the command to go on with ------------------------------------------------------------------------------


def test_runs_that_are_missing_come_first(store):
    sweep = make_cells("a", "b", num_seeds=4)
    for named in sweep.cells:
        put_run(store, named, 0)
    assert describe_next(summarise(sweep, store)) == (
        "hkrun resume stability --dataset digits",
        "makes the 6 runs without a result",
    )


@pytest.mark.parametrize(
    ("seeds", "option"), [(tuple(range(4)), "7"), ((3, 9, 11, 12), "3,9,11,12,13,14,15")]
)
def test_too_few_seeds_to_show_anything_are_made_enough(store, seeds, option):
    sweep = make_cells("a", "b", "c", reference="a", seeds=seeds)
    put_errors(store, sweep, dict(zip("abc", draw(5, 4, 6, num_seeds=4), strict=True)))
    command, reason = describe_next(summarise(sweep, store))
    assert command == f"hkrun sweep stability --dataset digits --seeds {option}"
    assert reason == "7 seeds are the fewest that can show a difference"
    assert stats.smallest_runs(stats.LEVEL / 2) == 7


def test_seeds_that_would_decide_a_claim_come_before_ten_more(store):
    sweep = make_sweep(num_seeds=12, published=("table4",))
    put_errors(store, sweep, {named.name: draw(5, num_seeds=12)[0] for named in sweep.cells})
    summary = summarise(sweep, store)
    changed = [
        dataclasses.replace(
            verdict,
            forecast=PowerForecast(fewest=13, most=most, limit=10_000, outcome="reproduced"),
        )
        for verdict, most in zip(summary.verdicts, (60, 61, None), strict=False)
    ]
    statement = changed[0].claim.statement
    reason = (
        f"60 seeds would decide “{statement}” in 80 % of such studies, were the effect at the weak end of "
    )
    assert describe_next(dataclasses.replace(summary, verdicts=tuple(changed))) == (
        "hkrun sweep stability --dataset digits --seeds 60",
        f"{reason}its interval",
    )
    # 61 are more than five times those that there are.
    assert describe_next(dataclasses.replace(summary, verdicts=tuple(changed[1:])))[0].endswith("--seeds 22")


def test_where_all_is_decided_there_are_ten_more_seeds(store):
    sweep = make_cells("a", "b", num_seeds=8, reference="a")
    put_errors(store, sweep, dict(zip("ab", draw(5, 4, num_seeds=8), strict=True)))
    command, reason = describe_next(summarise(sweep, store))
    assert (command, reason) == (
        "hkrun sweep stability --dataset digits --seeds 18",
        "ten more seeds per cell; nothing is repeated",
    )


# --- one verdict for a pair ---------------------------------------------------------------------------------


def make_curve(store, errors_pct, *, num_seeds, claims=()):
    cells = tuple(
        NamedCell(name=f"loss.lambda_3={value}", cell=make_cell(1.0, value), point={"loss.lambda_3": value})
        for value in (1.0, 10.0)
    )
    sweep = make_sweep(cells=cells, num_seeds=num_seeds, reference=cells[0].name, published=(), claims=claims)
    put_errors(store, sweep, {named.name: errors_pct[place] for place, named in enumerate(cells)})
    return summarise(sweep, store)


def verdict_in(summary):
    (row,) = [
        line
        for line in render_report(summary)["report.md"].decode().splitlines()
        if line.startswith("| 10 |") and ("open" in line or "differ" in line or "equivalent" in line)
    ]
    return row.split(" | ")[5]


@pytest.mark.parametrize("named", [True, False])
def test_the_point_with_default_values_is_called_the_reference_only_where_the_space_names_it(store, named):
    cells = tuple(
        NamedCell(name=f"loss.lambda_3={value}", cell=make_cell(1.0, value), point={"loss.lambda_3": value})
        for value in (1.0, 10.0)
    )
    reference = cells[0].name if named else None
    sweep = make_sweep(cells=cells, num_seeds=3, reference=reference, published=(), claims=())
    put_errors(store, sweep, {cells[0].name: [5.0, 5.1, 5.2], cells[1].name: [8.0, 8.2, 8.1]})
    text = render_report(summarise(sweep, store))["report.md"].decode()
    assert ("The ring is the reference" in text, "The ring is the default" in text) == (named, not named)
    row = next(line for line in text.splitlines() if line.startswith("| 1 | 3 |") and line.count("|") == 8)
    assert ("| reference |" in row, "| default |" in row) == (named, not named)
    assert ("pp of the default, lambda_3 = 1." in text) != named
    assert ("the reference" in text) == named


def test_a_key_and_its_value_stay_on_one_line_of_the_page_and_data_has_plain_spaces(store):
    files = render_report(make_curve(store, [[5.0, 5.1, 5.2], [8.0, 8.2, 8.1]], num_seeds=3))
    page = files["report.html"].decode()
    assert '<li>Best: lambda_3<span class="pair"> = </span>1 (5.10 %), the reference.' in page
    assert ".pair { white-space: nowrap; }" in page
    for name in ("report.md", "report.csv", "report.tex"):
        assert "<span" not in files[name].decode()


def test_three_seeds_are_not_called_different_by_one_test_and_not_by_another(store):
    summary = make_curve(
        store, [[5.0, 5.1, 5.2], [8.0, 8.2, 8.1]], num_seeds=3, claims=("insensitive-lambdas",)
    )
    alone = compare_equivalence(*map(cell_side, reversed(summary.cells)), margin=0.5, one_sided=False)
    assert alone.opposes  # the t test by itself: "different", beyond half a point
    assert summary.comparisons[0].p == 0.25  # all that three seeds can show
    assert verdict_in(summary) == "open"
    (verdict,) = summary.verdicts
    assert verdict.outcome == "undecided"
    findings = " ".join(summary_document(summary)["findings"])
    assert "no difference from lambda_3 = 1 is shown for lambda_3 = 10" in findings


def test_what_both_tests_show_is_different(store):
    errors = draw(5, 8, num_seeds=8)
    summary = make_curve(store, errors, num_seeds=8, claims=("insensitive-lambdas",))
    assert verdict_in(summary) == "different"
    assert summary.verdicts[0].outcome == "contradicted"


def test_a_difference_within_the_margin_is_said_to_be_both(store):
    ours = draw(5, num_seeds=8, spread=0.02)[0]
    theirs = [error + 0.1 + 0.01 * place for place, error in enumerate(ours)]
    summary = make_curve(store, [ours, theirs], num_seeds=8, claims=("insensitive-lambdas",))
    assert summary.comparisons[0].significant
    assert verdict_in(summary) == "differs within the margin"
    assert summary.verdicts[0].outcome == "reproduced"
