"""Claims of figure 4, judged on means over epochs, and claims that compare two data sets."""

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from report_example import EPOCHS, TEST_IMAGES, WEIGHTS, make_cell, make_sweep, put_run, put_teacher
from rich.console import Console

from hkrun import stats
from hkrun.config import cell_from_values
from hkrun.plans import save_plan, stored_plans
from hkrun.report import (
    load_published,
    print_summary,
    publish_study,
    render_report,
    summarise,
    summary_document,
)
from hkrun.report.comparing import curve_side
from hkrun.report.documents import render_markdown
from hkrun.report.table import MINUS, NONE
from hkrun.spaces import NamedCell
from hkrun.store import open_store

pytestmark = pytest.mark.usefixtures("undrawn_figures")

CURVES = ("lower-curve", "lower-curve-after-drop", "lower-above-all-after-drop")
FULL = "L_b + L_adv + L_is"
DROP = 4  # the last of the eight epochs before the first drop, at 0.4 of them
NUM_SEEDS = 10


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def draw_curves(sweep, gains):
    """Wrong images [seeds, epochs] by cell; the full loss is better by gains (before the drop, after it)."""
    generator = np.random.default_rng(3)
    curves = {}
    for named in sweep.cells:
        level = np.repeat([300, 100], [DROP, EPOCHS - DROP])
        if named.name == FULL:
            level = level - np.repeat(gains, [DROP, EPOCHS - DROP])
        curves[named.name] = level + generator.integers(-3, 4, (len(sweep.seeds), EPOCHS))
    return curves


def put_curves(store, sweep, curves):
    for named in sweep.cells:
        for place, seed in enumerate(sweep.seeds):
            put_run(store, named, seed, errors=(100.0 * curves[named.name][place] / TEST_IMAGES).tolist())


def make_study(**changes):
    return make_sweep(**{"num_seeds": NUM_SEEDS, "published": (), "claims": CURVES, **changes})


def verdicts_of(sweep, store):
    return {verdict.claim.id: verdict for verdict in summarise(sweep, store).verdicts}


@pytest.mark.parametrize(
    ("gains", "outcomes"),
    [
        ((10, 40), ("reproduced", "reproduced", "reproduced")),
        ((40, 10), ("reproduced", "reproduced", "contradicted")),
        ((40, -10), ("reproduced", "contradicted", "contradicted")),
        ((-40, 10), ("contradicted", "reproduced", "reproduced")),
        ((0, 0), ("undecided", "undecided", "undecided")),
    ],
)
def test_the_claims_of_figure_4_follow_the_curves_before_and_after_the_drop(store, gains, outcomes):
    sweep = make_study()
    put_curves(store, sweep, draw_curves(sweep, gains))
    found = verdicts_of(sweep, store)
    assert tuple(found[claim].outcome for claim in CURVES) == outcomes


def flip_p(differences):
    """The exact share of sign flips whose mean is as far from 0."""
    signs = np.array(list(itertools.product((1, -1), repeat=len(differences))))
    means = np.abs((signs * differences).mean(axis=1))
    return float((means >= abs(differences.mean()) - 1e-12).mean())


def test_each_window_has_its_own_paired_means_and_p(store):
    sweep = make_study()
    curves = draw_curves(sweep, (2, 1))
    put_curves(store, sweep, curves)
    errors = {name: 100.0 * wrong / TEST_IMAGES for name, wrong in curves.items()}
    before, after = ({name: curve[:, span].mean(axis=1) for name, curve in errors.items()} for span in
                     (slice(0, DROP), slice(DROP, EPOCHS)))  # fmt: skip
    means = {
        "lower-curve": {name: curve.mean(axis=1) for name, curve in errors.items()},
        "lower-curve-after-drop": after,
        "lower-above-all-after-drop": {name: after[name] - before[name] for name in errors},
    }
    found = verdicts_of(sweep, store)
    for claim in CURVES:
        comparisons = found[claim].comparisons
        assert {item.reference for item in comparisons} == set(WEIGHTS) - {FULL}
        for item in comparisons:
            differences = means[claim][FULL] - means[claim][item.reference]
            np.testing.assert_allclose(item.by_seed, differences, atol=1e-12)
            assert item.p == pytest.approx(flip_p(differences), abs=1e-12)
    # The means over all epochs and over the last are claims of one family, the falls at the drop another: the
    # parts of a claim are not corrected for their number.
    largest = [max(item.p for item in found[claim].comparisons) for claim in CURVES[:2]]
    for claim, other in zip(CURVES[:2], reversed(largest), strict=True):
        for item in found[claim].comparisons:
            assert item.difference < 0
            assert item.p_holm == stats.holm([item.p, other])[0]
    falls = found[CURVES[2]].comparisons
    against = stats.holm([item.p for item in falls])
    for item, p in zip(falls, against, strict=True):
        assert item.p_holm == (item.p if item.difference < 0 else p)


def test_the_report_names_the_epochs_of_each_comparison(store):
    sweep = make_study()
    put_curves(store, sweep, draw_curves(sweep, (10, 40)))
    summary = summarise(sweep, store)
    epochs = {
        claim["id"]: {comparison["epochs"] for comparison in claim["comparisons"]}
        for claim in summary_document(summary)["claims"]
    }
    assert epochs == {
        "lower-curve": {"mean of epochs 1-8"},
        "lower-curve-after-drop": {"mean of epochs 5-8"},
        "lower-above-all-after-drop": {"mean of epochs 5-8 minus mean of epochs 1-4"},
    }
    text = render_report(summary)["report.md"].decode()
    assert "| lower-curve-after-drop | L_b + L_adv + L_is | L_b, mean of epochs 5-8 | 10 |" in text
    assert (
        "is lower after the first drop of the learning rate (the paper's epoch 240 of 600); here the mean of "
        "epochs 5-8 | figure 4 | reproduced on digits"
    ) in text
    assert "than before; here the mean of epochs 5-8 minus mean of epochs 1-4 | figure 4" in text


def test_a_claim_names_the_one_epoch_that_is_left_after_the_drop(store):
    """A mean of epochs 4-4 is no mean."""
    sweep = with_students(make_study(names=("L_b",)), **{"student.epochs": 4, "student.drops": (0.75,)})
    (side,) = sweep.cells
    put_run(store, side, 0, errors=[4.0, 3.0, 2.0, 1.0])
    (cell,) = summarise(sweep, store).cells
    assert curve_side(cell, "after drop").epochs == "error of epoch 4"
    assert curve_side(cell, "after drop, minus before").epochs == "error of epoch 4 minus mean of epochs 1-3"


def test_claims_whose_forecasts_are_one_say_it_once(store):
    sweep = make_study(num_seeds=3)
    put_curves(store, sweep, draw_curves(sweep, (0, 0)))
    shown = io.StringIO()
    print_summary(summarise(sweep, store), Console(file=shown, width=100))
    told = " ".join(shown.getvalue().split())
    assert told.count("too few seeds to say") == 1
    assert "3 undecided (each: too few seeds to say)" in told


def with_students(sweep, **values):
    """The sweep with other keys of its first cell's student."""
    first = sweep.cells[0]
    cell = make_cell(*WEIGHTS[first.name], **values)
    return replace(sweep, cells=(replace(first, cell=cell), *sweep.cells[1:]))


def test_curves_over_other_epochs_are_withheld(store):
    """The first drop of L_b is elsewhere: its mean after the drop is one over other epochs."""
    sweep = with_students(make_study(), **{"student.drops": (0.75,)})
    put_curves(store, sweep, draw_curves(sweep, (10, 40)))
    found = verdicts_of(sweep, store)
    assert found["lower-curve"].outcome == "reproduced"
    assert found["lower-curve-after-drop"].outcome == "undecided"
    reason = found["lower-curve-after-drop"].reservation
    assert reason == f"the errors are the mean of epochs 5-8 of {FULL} and the mean of epochs 7-8 of L_b"
    assert found["lower-curve-after-drop"].forecast is None


def test_without_a_drop_there_is_no_error_after_it(store):
    sweep = make_study(names=("L_b", FULL))
    cells = tuple(
        replace(named, cell=make_cell(*WEIGHTS[named.name], **{"student.drop_factor": 1.0}))
        for named in sweep.cells
    )
    sweep = replace(sweep, cells=cells)
    put_curves(store, sweep, draw_curves(sweep, (10, 40)))
    summary = summarise(sweep, store)
    found = {verdict.claim.id: verdict for verdict in summary.verdicts}
    assert found["lower-curve"].comparisons[0].supports
    assert found["lower-curve-after-drop"].outcome == "not judged"
    text = render_report(summary)["report.md"].decode()
    assert f"withheld: the learning rate of {FULL} never drops; the learning rate of L_b never drops" in text


def test_runs_without_a_result_may_have_had_any_curve(store):
    """A lost run of the better side counts as one of 100 % throughout: twelve pairs bear that, six do not."""
    for num_seeds, supports in ((6, False), (12, True)):
        sweep = make_study(names=("L_b", FULL), num_seeds=num_seeds)
        curves = draw_curves(sweep, (90, 90))
        curves["L_b"] += 600
        put_curves(store, sweep, curves)
        put_run(store, sweep.cells[1], 0, errors=[50.0], status="diverged")
        comparison = verdicts_of(sweep, store)["lower-curve"].comparisons[0]
        differences = 100.0 * (curves[FULL] - curves["L_b"]).mean(axis=1) / TEST_IMAGES
        differences[0] = 100.0 - 100.0 * curves["L_b"][0].mean() / TEST_IMAGES
        assert comparison.n == num_seeds - 1
        assert comparison.p == pytest.approx(flip_p(differences), abs=1e-12)
        assert comparison.supports == supports


# --- two data sets ------------------------------------------------------------------------------------------

GAIN = "gain-grows-with-classes"
METHODS = {"HKSANC": "hksanc", "TSCAN": "tscan", "ANC": "anc"}


def make_cifar(dataset, *, num_seeds=NUM_SEEDS, **values):
    cells = tuple(
        NamedCell(
            name=name,
            cell=cell_from_values({"dataset": dataset, "method": method, "student.epochs": EPOCHS, **values}),
        )
        for name, method in METHODS.items()
    )
    return make_sweep(
        name="baselines", dataset=dataset, cells=cells, reference="HKSANC", published=("table6",),
        num_seeds=num_seeds,
    )  # fmt: skip


def put_errors(store, sweep, errors_pct, *, seed):
    generator = np.random.default_rng(seed)
    found = {}
    for named in sweep.cells:
        noise = generator.integers(-9, 10, len(sweep.seeds)) / 100
        found[named.name] = errors_pct[named.name] + noise
        for place, run in enumerate(sweep.seeds):
            put_run(store, named, run, errors=[float(found[named.name][place])] * EPOCHS)
    return found


SMALL = {"HKSANC": 7.29, "TSCAN": 7.93, "ANC": 8.08}
LARGE = {"HKSANC": 31.35, "TSCAN": 32.57, "ANC": 32.45}


@pytest.mark.parametrize(
    ("on_100", "on_10", "outcome"),
    [
        (LARGE, SMALL, "reproduced"),
        (SMALL, LARGE, "contradicted"),
        (SMALL, SMALL, "undecided"),
    ],
)
def test_the_gain_on_one_data_set_is_compared_with_that_on_the_other_seed_by_seed(
    store, on_100, on_10, outcome
):
    fine, coarse = make_cifar("cifar100"), make_cifar("cifar10")
    errors = {
        "cifar100": put_errors(store, fine, on_100, seed=1),
        "cifar10": put_errors(store, coarse, on_10, seed=2),
    }
    for sweep in (fine, coarse):  # the report of either data set says it
        verdict = verdicts_of(sweep, store)[GAIN]
        assert verdict.outcome == outcome
        for comparison, other in zip(verdict.comparisons, ("TSCAN", "ANC"), strict=True):
            gains = [found["HKSANC"] - found[other] for found in errors.values()]
            np.testing.assert_allclose(comparison.by_seed, gains[0] - gains[1], atol=1e-9)
            assert comparison.cell == f"HKSANC on cifar100 over {other} on cifar100"
    text = render_report(summarise(fine, store))["report.md"].decode()
    assert f"| table 6 | {outcome} on cifar10 and cifar100 |" in text
    # Published: (31.35 - 32.57) - (7.29 - 7.93), in the column of CIFAR-100.
    (line,) = [
        line for line in text.splitlines() if line.startswith(f"| {GAIN} | HKSANC on cifar100 over TSCAN")
    ]
    assert line.endswith(f"| {NONE} | {MINUS}0.58 pp |")


def test_a_gain_on_data_that_was_not_run_or_run_otherwise_is_not_judged(store):
    """Other settings there are another study: their gain is no counterpart."""
    fine = make_cifar("cifar100")
    put_errors(store, fine, LARGE, seed=1)
    put_errors(store, make_cifar("cifar10", **{"student.learning_rate": 0.05}), SMALL, seed=2)
    summary = summarise(fine, store)
    verdict = next(verdict for verdict in summary.verdicts if verdict.claim.id == GAIN)
    assert (verdict.outcome, verdict.comparisons) == ("not judged", ())
    text = render_report(summary)["report.md"].decode()
    told = f"| not judged here | {NONE} | the runs of 2 comparisons, on cifar10 and cifar100 in one store |"
    assert told in text


def test_a_published_study_has_the_runs_of_the_other_data_set_too(store, tmp_path):
    fine = make_cifar("cifar100")
    put_errors(store, fine, LARGE, seed=1)
    put_errors(store, make_cifar("cifar10"), SMALL, seed=2)
    save_plan(store, fine)
    (stored,), _ = stored_plans(store)
    published = publish_study(stored, store, tmp_path / "results")
    assert next(verdict for verdict in published.verdicts if verdict.claim.id == GAIN).outcome == "reproduced"
    expected = render_markdown(summarise(fine, store))["report.md"].decode()
    folder = tmp_path / "results" / store.sweep_folder(fine.name, fine.dataset).removeprefix("sweeps/")
    assert (folder / "report.md").read_text(encoding="utf-8") == expected


def test_digits_cannot_say_whether_the_gain_grows_from_cifar_10_to_cifar_100(store):
    sweep = make_cifar("digits")
    put_errors(store, sweep, SMALL, seed=1)
    put_errors(store, make_cifar("cifar10"), SMALL, seed=2)
    put_errors(store, make_cifar("cifar100"), LARGE, seed=3)
    assert verdicts_of(sweep, store)[GAIN].outcome == "not judged"


def test_lost_runs_of_the_other_data_set_withhold_the_gain(store):
    fine, coarse = make_cifar("cifar100"), make_cifar("cifar10")
    put_errors(store, fine, LARGE, seed=1)
    put_errors(store, coarse, SMALL, seed=2)
    put_run(store, coarse.cells[1], 3, errors=[50.0], status="diverged")
    verdict = verdicts_of(fine, store)[GAIN]
    assert verdict.outcome == "undecided"
    assert verdict.reservation == "of 10 runs of TSCAN on cifar10, 1 diverged"


# --- adversarial methods against the student alone, and the teacher -----------------------------------------


@pytest.mark.parametrize(
    ("errors_pct", "outcome"),
    [
        ({"ANC": 8.08, "TSCAN": 7.93, "Student RN-20": 8.58}, "reproduced"),
        ({"ANC": 8.08, "TSCAN": 9.40, "Student RN-20": 8.58}, "contradicted"),
        ({"ANC": 8.08, "TSCAN": 8.58, "Student RN-20": 8.58}, "undecided"),
    ],
)
def test_anc_and_tscan_must_both_beat_the_student_alone(store, errors_pct, outcome):
    cells = tuple(
        NamedCell(name=name, cell=make_cell(1.0, 1.0, **{"loss.lambda_1": 1 + place / 10}))
        for place, name in enumerate(errors_pct)
    )
    sweep = make_sweep(cells=cells, reference=None, published=("table6",), num_seeds=12)
    put_errors(store, sweep, errors_pct, seed=4)
    verdict = verdicts_of(sweep, store)["adversarial-beats-supervised-cifar"]
    assert verdict.outcome == outcome
    assert {item.cell for item in verdict.comparisons} == {"ANC", "TSCAN"}


def test_on_imagenet_each_student_is_compared_with_the_same_network_alone():
    (claim,) = [
        claim for claim in load_published().claims if claim.id == "adversarial-beats-supervised-imagenet"
    ]
    assert len(claim.pairs) == 4
    for better, worse in claim.pairs:
        assert better.partition("(")[2].rstrip(")") == worse.removeprefix("Student ")


@pytest.mark.parametrize(
    ("tscan_pct", "outcome"), [(27.39, "reproduced"), (28.60, "contradicted"), (27.63, "undecided")]
)
def test_rn50_of_anc_and_tscan_are_set_against_their_teachers_one_number(store, tscan_pct, outcome):
    errors_pct = {"ANC (RN-50)": 27.48, "TSCAN (RN-50)": tscan_pct}
    cells = tuple(
        NamedCell(name=name, cell=make_cell(1.0, 1.0, **{"loss.lambda_1": 1 + place / 10}))
        for place, name in enumerate(errors_pct)
    )
    sweep = make_sweep(cells=cells, reference=None, published=("table7",), num_seeds=12)
    put_errors(store, sweep, errors_pct, seed=5)
    put_teacher(store, cells[0].cell, error_pct=27.63)
    verdict = verdicts_of(sweep, store)["rn50-adversarial-beats-teacher"]
    assert verdict.outcome == outcome
    assert {item.one_number for item in verdict.comparisons} == {"Teacher RN-152"}
