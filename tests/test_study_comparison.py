"""Two studies side by side: which cells are compared, by which test, and what is said where none fits."""

import dataclasses
import io
import itertools
import math

import numpy as np
import pytest
import scipy.stats
from report_example import EPOCHS, make_cell, make_sweep, put_run, put_teacher
from rich.console import Console

from hkrun.cli.console import PlainConsole
from hkrun.cli.streams import REPLACING
from hkrun.config import cell_id
from hkrun.errors import InputError
from hkrun.report import ComparedStudy, compare_studies, comparison_document, print_comparison, summarise
from hkrun.spaces import NamedCell
from hkrun.store import open_store

NAMES = ("L_b", "L_b + L_is", "L_b + L_adv")


def make_errors(place, seed, *, level, epochs=EPOCHS):
    """Errors in percent by epoch: a level, what all cells share at a seed, and noise of this cell's own."""
    shared, own = np.random.default_rng(seed), np.random.default_rng([seed, place, round(10 * level)])
    return (level + shared.normal(0, 0.3) + own.normal(0, 0.2, epochs)).tolist()


def put_study(
    store, *, names=NAMES, num_seeds=6, shift=0.0, name="first", seeds=None, hash_of=None, **values
):
    """A finished study whose cells differ from those of another one by `shift` in error, and in `values`."""
    cells = tuple(
        NamedCell(name=each.name, cell=make_cell(*_weights(each), **values))
        for each in make_sweep(names=names).cells
    )
    sweep = make_sweep(names=names, num_seeds=num_seeds, name=name, cells=cells, published=())
    sweep = dataclasses.replace(sweep, seeds=tuple(seeds) if seeds is not None else sweep.seeds)
    for place, named in enumerate(cells):
        for seed in sweep.seeds:
            epochs = named.cell.student.epochs
            errors = make_errors(place, seed, level=5 + shift * (place + 1), epochs=epochs)
            put_run(store, named, seed, errors, **({"teacher_hash": hash_of} if hash_of else {}))
    return sweep


def _weights(named):
    return named.cell.loss.lambda_2, named.cell.loss.lambda_3


def read(sweep, store, label=None):
    return ComparedStudy(label=label or sweep.name, summary=summarise(sweep, store))


def errors_of(study, name):
    return study.cells[name].error_pct[:, -1]


def flip_signs(differences):
    """The exact p of a sign-flip test, by all flips one by one."""
    flips = itertools.product((1, -1), repeat=len(differences))
    means = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in flips]
    return sum(mean >= abs(sum(differences)) - 1e-12 for mean in means) / len(means)


def correct(p_values):
    """Holm's correction, word for word."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    found, largest = {}, 0.0
    for rank, place in enumerate(order):
        largest = max(largest, (len(p_values) - rank) * p_values[place])
        found[place] = min(1.0, largest)
    return [found[place] for place in range(len(p_values))]


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "one")


@pytest.fixture
def other_store(tmp_path):
    return open_store(tmp_path / "other")


# --- errors -------------------------------------------------------------------------------------------------


def test_errors_are_paired_by_seed_with_p_of_all_sign_flips_corrected_over_the_table(store):
    first = read(put_study(store), store)
    second = read(put_study(store, shift=0.4, name="second", **{"student.learning_rate": 0.02}), store)
    found = compare_studies(first, second)
    assert [pair.match.name for pair in found.pairs] == list(NAMES)
    p_values = []
    for pair in found.pairs:
        ours, theirs = (errors_of(study, pair.match.name) for study in (first, second))
        expected = scipy.stats.ttest_rel(theirs, ours).confidence_interval(0.95)
        assert pair.paired
        assert pair.seeds == (0, 1, 2, 3, 4, 5)
        assert pair.error.difference == pytest.approx(np.mean(theirs - ours))
        assert pair.error.ci95 == pytest.approx((expected.low, expected.high))
        p_values.append(flip_signs((theirs - ours).tolist()))
        assert pair.error.p == pytest.approx(p_values[-1])
    assert [pair.error.p_holm for pair in found.pairs] == pytest.approx(correct(p_values))
    assert found.pairs[0].match.keys == {"student.learning_rate": (0.1, 0.02)}


def test_only_the_seeds_that_both_finished_are_paired(store):
    first = read(put_study(store, num_seeds=8), store)
    second = read(put_study(store, num_seeds=6, name="second", shift=1.0, **{"loss.mu": 2.0}), store)
    (pair,) = [p for p in compare_studies(first, second).pairs if p.match.name == "L_b + L_adv"]
    differences = errors_of(second, "L_b + L_adv") - errors_of(first, "L_b + L_adv")[:6]
    assert (pair.seeds, pair.error.n) == (tuple(range(6)), 6)
    assert pair.error.difference == pytest.approx(differences.mean())


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"hash_of": "cd" * 32}, "other teacher"),
        ({"seeds": range(10, 16)}, "no common seed"),
        ({"seeds": range(4, 10)}, "only 2 common seeds"),
        ({"dataset": "mnist5k"}, "other data"),
    ],
)
def test_what_has_not_enough_in_common_is_compared_by_welch_over_all_runs(store, other_store, case, reason):
    first = read(put_study(store), store)
    sweep = put_study(other_store, name="second", shift=0.5, **{"student.momentum": 0.8}, **case)
    sweep = dataclasses.replace(sweep, dataset=case.get("dataset", "digits"))
    second = read(sweep, other_store)
    found = compare_studies(first, second)
    p_values = []
    for pair in found.pairs:
        ours, theirs = (errors_of(study, pair.match.name) for study in (first, second))
        expected = scipy.stats.ttest_ind(theirs, ours, equal_var=False)
        interval = expected.confidence_interval(0.95)
        assert (pair.paired, pair.why_unpaired, pair.why_no_test) == (False, reason, reason)
        assert pair.error.difference == pytest.approx(theirs.mean() - ours.mean())
        assert pair.error.ci95 == pytest.approx((interval.low, interval.high))
        assert pair.stability is None
        p_values.append(expected.pvalue)
    assert [pair.error.p for pair in found.pairs] == pytest.approx(p_values)
    assert [pair.error.p_holm for pair in found.pairs] == pytest.approx(correct(p_values))
    assert f"* Not paired: {reason}. All runs of each, Welch's t test." in show(found)


def test_a_study_without_a_finished_run_is_named_as_the_reason_and_no_mark_is_without_its_note(store):
    sweep = put_study(store)
    empty = dataclasses.replace(sweep, name="begun", seeds=(10, 11, 12))
    found = compare_studies(read(empty, store), read(sweep, store))
    assert {pair.why_unpaired for pair in found.pairs} == {"no finished run in A"}
    told = show(found)
    assert "No test: no finished run in A." in told
    assert "*" not in told
    assert "no finished run in B" in show(compare_studies(read(sweep, store), read(empty, store)))


def test_half_of_the_seeds_in_common_are_enough_to_pair(store):
    first = read(put_study(store), store)
    second = read(put_study(store, seeds=range(3, 9), name="second", **{"student.momentum": 0.8}), store)
    assert all(pair.paired and pair.seeds == (3, 4, 5) for pair in compare_studies(first, second).pairs)


def test_a_seed_without_its_own_teacher_in_common_is_not_paired_though_others_are(store, other_store):
    first = read(put_study(store, names=NAMES[:1]), store)
    sweep = put_study(other_store, names=NAMES[:1], name="second", **{"student.momentum": 0.8})
    put_run(other_store, sweep.cells[0], 5, make_errors(0, 5, level=5), teacher_hash="ab" * 32)
    assert compare_studies(first, read(sweep, other_store)).pairs[0].paired
    taught = put_study(
        other_store, names=NAMES[:1], name="third", hash_of="cd" * 32, **{"student.momentum": 0.7}
    )
    (pair,) = compare_studies(first, read(taught, other_store)).pairs
    assert not pair.paired


def test_one_configuration_with_the_same_runs_is_not_tested(store):
    first = read(put_study(store, num_seeds=6), store)
    second = read(put_study(store, num_seeds=4, name="second"), store)
    found = compare_studies(first, second)
    for pair in found.pairs:
        assert pair.match.same
        assert pair.same_runs
        assert (pair.error, pair.stability) == (None, None)
    document = comparison_document(found)
    assert document["cells"][0]["same_configuration"]
    assert document["cells"][0]["error"] == {"test": None, "reason": "same runs"}
    assert document["findings"] == [
        "One configuration with the same errors: L_b, L_b + L_is and L_b + L_adv."
    ]
    assert "same runs" in show(found)


def test_one_configuration_with_other_figures_is_tested_and_said_to_be_one(store, other_store):
    first = read(put_study(store), store)
    sweep = put_study(other_store, name="second")
    for seed in sweep.seeds:
        errors = make_errors(0, seed, level=6)
        versions = {"hkrun": "0.1.0", "torch": "2.99", "numbers": "source 0123", "source": "0123"}
        put_run(other_store, sweep.cells[0], seed, errors, versions=versions)
    found = compare_studies(first, read(sweep, other_store))
    changed, *others = found.pairs
    assert changed.match.same
    assert not changed.same_runs
    assert changed.error.p == pytest.approx(2 / 2**6)
    assert changed.error.p_holm == changed.error.p, "the others are no tests"
    assert all(pair.error is None for pair in others)
    cautions = " ".join(found.cautions)
    assert "Code: epoch 1 in A, epoch 1, source 0123 in B; other code may give other numbers." in cautions
    assert "L_b: one configuration with other figures" in cautions
    assert "cpu x86_64 with torch 2.15.0 in A, cpu x86_64 with torch 2.99 in B." in cautions


def test_runs_that_diverged_withhold_what_their_errors_could_turn(store):
    first = read(put_study(store, names=NAMES[:1]), store)
    sweep = put_study(store, names=NAMES[:1], name="second", shift=1.0, **{"student.momentum": 0.8})
    put_run(store, sweep.cells[0], 5, status="diverged", diverged_epoch=2)
    second = read(sweep, store)
    (pair,) = compare_studies(first, second).pairs
    assert pair.error.ci95 is None
    assert "of 6 runs of L_b, 1 diverged" in pair.error.reservation
    # At best the lost run speaks as the others do, at worst with 100 percentage points against them.
    assert pair.error.p == 1.0
    other = read(put_study(store, names=NAMES[:1], name="third", seeds=range(10, 16)), store)
    (unpaired,) = compare_studies(other, second).pairs
    assert (unpaired.paired, unpaired.error.withheld) == (False, True)
    assert "withheld" in show(compare_studies(other, second))


def test_a_single_run_has_no_test_and_says_so(store):
    first = read(put_study(store, names=NAMES[:1]), store)
    second = read(
        put_study(store, names=NAMES[:1], name="second", seeds=[9], **{"student.momentum": 0.8}), store
    )
    (pair,) = compare_studies(first, second).pairs
    assert (pair.error.ci95, pair.error.withheld) == (None, True)
    assert pair.error.reservation == "one run has no spread"


def test_too_few_seeds_for_any_difference_are_told(store):
    first = read(put_study(store, num_seeds=4), store)
    second = put_study(store, num_seeds=4, name="third", shift=2.0, **{"student.momentum": 0.8})
    cautions = compare_studies(first, read(second, store)).cautions
    assert cautions[-1] == (
        "With 4 common seeds no paired difference can be significant, however large: a permutation test "
        "needs 7, after Holm's correction."
    )


# --- S ------------------------------------------------------------------------------------------------------


def test_s_is_tested_by_exchanging_the_two_cells_at_each_seed(store):
    first = read(put_study(store, names=NAMES[:1]), store)
    second = read(
        put_study(store, names=NAMES[:1], name="second", shift=0.4, **{"student.momentum": 0.8}), store
    )
    (pair,) = compare_studies(first, second).pairs
    window = first.summary.sweep.window
    ours, theirs = (study.cells["L_b"].error_pct[:, -window:] for study in (first, second))

    def s_of(errors):
        ranges = errors.max(axis=0) - errors.min(axis=0)
        return ((ranges - ranges.mean()) ** 2).mean()

    level, other = (errors - np.median(errors, axis=0) for errors in (ours, theirs))

    def contrast(swapped):
        chosen = np.array(swapped)[:, None]
        one, two = s_of(np.where(chosen, other, level)), s_of(np.where(chosen, level, other))
        return abs(one - two) / (one + two)

    found = [contrast(swapped) for swapped in itertools.product((False, True), repeat=6)]
    p = sum(value >= found[0] - 1e-12 for value in found) / len(found)
    assert pair.stability.reference_value == pytest.approx(s_of(ours))
    assert pair.stability.value == pytest.approx(s_of(theirs))
    assert pair.stability.p == pytest.approx(p)


def test_s_over_other_windows_is_not_tested(store):
    sweep = put_study(store)
    first = read(sweep, store)
    second = put_study(store, name="second", **{"student.momentum": 0.8})
    second = read(dataclasses.replace(second, window=sweep.window - 1), store)
    found = compare_studies(first, second)
    assert all(pair.stability is None for pair in found.pairs)
    assert {pair.why_no_test for pair in found.pairs} == {
        "S is over windows of 5 and 4 epochs (ddof 0 and 0)"
    }


# --- which cells belong together ----------------------------------------------------------------------------


def make_axes(store, name, values, *, group, written="loss.lambda_3"):
    cells = tuple(
        NamedCell(
            name=f"{group} [{written}={value}]",
            cell=make_cell(0.0, value),
            group=group,
            point={"loss.lambda_3": value},
        )
        for value in values
    )
    sweep = make_sweep(num_seeds=2, name=name, cells=cells, published=(), reference=None)
    for place, named in enumerate(cells):
        for seed in sweep.seeds:
            put_run(store, named, seed, make_errors(place, seed, level=4))
    return sweep


def matches(first, second, *wanted):
    return [
        (pair.match.first.name, pair.match.second.name, pair.match.by)
        for pair in compare_studies(first, second, cells=wanted).pairs
    ]


def test_cells_belong_together_by_configuration_though_their_names_differ(store):
    first = read(make_axes(store, "first", [0.1, 1.0], group="kd"), store)
    second = read(make_axes(store, "second", [1.0, 3.0], group="kd", written="lambda_3"), store)
    assert matches(first, second) == [("kd [loss.lambda_3=1.0]", "kd [lambda_3=1.0]", "configuration")]


def test_cells_belong_together_by_the_values_of_their_axes(store, other_store):
    first = read(make_axes(store, "first", [0.1, 1.0], group="old"), store)
    sweep = make_axes(other_store, "second", [0.1, 1.0, 3.0], group="new")
    cells = tuple(
        dataclasses.replace(named, cell=dataclasses.replace(named.cell, precision="float64"))
        for named in sweep.cells
    )
    second = read(dataclasses.replace(sweep, cells=cells), other_store)
    assert matches(first, second) == [
        ("old [loss.lambda_3=0.1]", "new [loss.lambda_3=0.1]", "axes"),
        ("old [loss.lambda_3=1.0]", "new [loss.lambda_3=1.0]", "axes"),
    ]


def test_the_only_cells_of_two_studies_belong_together_and_others_stay_alone(store):
    one, other, both = (
        put_study(store, names=names, name="-".join(names).replace(" ", ""))
        for names in (("L_b",), ("L_b + L_adv",), ("L_b", "L_b + L_is"))
    )
    assert matches(read(one, store), read(other, store)) == [("L_b", "L_b + L_adv", "only cell")]
    found = compare_studies(read(other, store), read(both, store))
    assert (found.pairs, found.alone) == ((), (("L_b + L_adv",), ("L_b", "L_b + L_is")))
    assert "Only in B: L_b and L_b + L_is." in show(found)


def test_the_user_says_which_belong_together_also_where_names_hold_an_equals_sign(store):
    first = read(make_axes(store, "first", [0.1, 1.0], group="kd"), store)
    second = read(put_study(store, name="second", num_seeds=2), store)
    wish = "kd [loss.lambda_3=1.0]=L_b + L_is"
    assert ("kd [loss.lambda_3=1.0]", "L_b + L_is", "option") in matches(first, second, wish)
    with pytest.raises(InputError) as refusal:
        matches(first, second, "kd [loss.lambda_3=1.0]=L_b + L_iss", "L_b", wish, wish)
    assert refusal.value.problems == [
        (
            "--cells kd [loss.lambda_3=1.0]=L_b + L_iss: second has no cell 'L_b + L_iss'; it has L_b, "
            "L_b + L_is and L_b + L_adv; did you mean 'L_b + L_is'?"
        ),
        "--cells L_b: give a cell of each study, NAME=NAME",
        "--cells: kd [loss.lambda_3=1.0] is named twice",
        "--cells: L_b + L_is is named twice",
    ]


def test_cells_are_called_by_their_labels_too_and_listed_by_them(store):
    first = read(make_axes(store, "first", [0.1, 1.0], group="kd"), store)
    second = read(put_study(store, name="second", num_seeds=2), store)
    label = first.labels["kd [loss.lambda_3=1.0]"]
    assert matches(first, second, f"{label}=L_b") == [("kd [loss.lambda_3=1.0]", "L_b", "option")]
    assert f"Only in A: {first.labels['kd [loss.lambda_3=0.1]']}." in show(
        compare_studies(first, second, cells=[f"{label}=L_b"])
    )


def test_studies_without_a_cell_in_common_say_how_to_name_them(store):
    first = read(make_axes(store, "first", [0.1, 1.0], group="kd"), store)
    second = read(put_study(store, name="second", num_seeds=2, **{"student.momentum": 0.8}), store)
    found = compare_studies(first, second)
    assert found.pairs == ()
    assert "--cells NAME=NAME says which do" in show(found)


# --- forms --------------------------------------------------------------------------------------------------


def show(found, width=80):
    console = Console(width=width, file=io.StringIO(), force_terminal=False, color_system=None)
    print_comparison(found, console)
    text = console.file.getvalue()
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    return " ".join(" ".join(line.split()) for line in lines)


def test_long_names_are_shortened_in_the_middle_and_spelled_out_below_within_80_columns(store):
    long = "knowledge of the teacher with temperature 4 and alpha"
    studies = []
    for name, values in (("first", {}), ("second", {"student.momentum": 0.8})):
        sweep = put_study(store, names=NAMES[:2], name=name, **values)
        cells = [
            dataclasses.replace(named, name=f"{long} {place}") for place, named in enumerate(sweep.cells)
        ]
        studies.append(read(dataclasses.replace(sweep, cells=tuple(cells), reference=None), store))
    found = compare_studies(*studies)
    for width in (80, 100):
        text = show(found, width)
        for place in (0, 1):
            short = "know" + text.partition(f": {long} {place}")[0].rpartition("know")[2]
            assert len(short) < len(long)
            assert text.count(short) == 3, "in the table of errors, in that of S, and spelled out"


@pytest.mark.parametrize("width", [50, 60, 100])
def test_no_figure_is_cut_where_the_terminal_is_narrow(store, width):
    first = read(put_study(store, names=NAMES[:2]), store)
    found = compare_studies(first, read(put_study(store, names=NAMES[:2], name="second", shift=0.5), store))
    document = comparison_document(found)
    text = show(found, width)
    assert "…" not in text
    for pair in document["cells"]:
        error = pair["error"]
        half = error["difference"] - error["ci95"][0]
        assert f"{abs(error['difference']):.2f} ± {half:.2f}" in text
    whole = f"{document['cells'][0]['a']['error_last']['mean']:.2f} ± "
    left_out = text.partition("Left out because the terminal is narrow: ")[2].partition(";")[0]
    assert (whole in text) == ("A's error %" not in left_out) == (width == 100)
    assert (left_out == "") == (width == 100)
    assert ("intervals of S" in left_out) == ("[95 % approx.]" not in text)


def test_no_figure_is_cut_where_signs_take_two_columns(store):
    first = read(put_study(store, names=NAMES[:1]), store)
    found = compare_studies(first, read(put_study(store, names=NAMES[:1], name="second", shift=0.5), store))
    for width in range(48, 80):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=REPLACING)
        print_comparison(found, PlainConsole(file=stream, width=width, color_system=None))
        stream.seek(0)
        text = stream.read()
        assert "~" not in text
        heads = [line for line in text.splitlines() if "p, Holm" in line]
        rows = [line for line in text.splitlines() if line.startswith("|L_b")]
        for head, row in zip(heads, rows, strict=True):
            assert all(field.strip() for field in row.strip("|").split("|"))
            assert len(head) == len(row) <= width


def test_keys_that_differ_everywhere_are_told_once(store):
    first = read(put_study(store), store)
    second = read(put_study(store, name="second", **{"student.momentum": 0.8, "loss.mu": 2.0}), store)
    text = show(compare_studies(first, second))
    assert text.count("student.momentum 0.9 → 0.8") == 1
    assert "all of them student.momentum 0.9 → 0.8 L_b + L_adv loss.mu 1 → 2" in text


def test_other_epochs_and_teachers_are_told_in_a_line_each(store, other_store):
    first = read(put_study(store), store)
    second = read(
        put_study(other_store, name="second", hash_of="cd" * 32, **{"student.epochs": 6}), other_store
    )
    cautions = compare_studies(first, second).cautions
    assert "Epochs: 8 in A, 6 in B." in cautions
    assert any(line.startswith(f"Teacher: {'ab' * 6} in A, {'cd' * 6} in B;") for line in cautions)


def test_a_study_whose_teacher_is_known_compares_with_one_without(store):
    first = put_study(store, names=NAMES[:1])
    put_teacher(store, first.cells[0].cell)
    cell = dataclasses.replace(first.cells[0].cell, method="supervised")
    alone = make_sweep(names=NAMES[:1], name="alone", cells=(NamedCell(name="L_b", cell=cell),), published=())
    for seed in alone.seeds:
        put_run(store, alone.cells[0], seed, make_errors(0, seed, level=7))
    (pair,) = compare_studies(read(first, store), read(alone, store)).pairs
    assert pair.paired, "the seed decides start and order with a teacher as without"
    assert pair.match.keys["method"] == ("hksanc", "supervised")
    assert pair.match.keys["teacher.epochs"][1] is None
    assert math.isclose(pair.error.p, 2 / 2**6)
    assert cell_id(cell) != pair.match.first.cell_id
