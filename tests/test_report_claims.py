import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
from report_example import EPOCHS, TEST_IMAGES, fill, make_cell, make_sweep, put_levels, put_run, put_teacher

from hkrun import stats
from hkrun.config import cell_from_values, teacher_id
from hkrun.report import load_published, render_report, summarise, wording
from hkrun.report.result_tables import describe_scan
from hkrun.spaces import NamedCell, load_sweep
from hkrun.store import open_store

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def make_rows(*names, **changes):
    """A sweep of cells with these names, each a configuration of its own."""
    cells = tuple(
        NamedCell(name=name, cell=make_cell(1.0, 1.0, **{"loss.lambda_1": 1 + place / 10}))
        for place, name in enumerate(names)
    )
    return make_sweep(cells=cells, **{"reference": None, "published": (), **changes})


def put_wrong(store, sweep, wrong):
    """Puts runs with so many wrong images at the end, by cell, a number or one per seed."""
    for named in sweep.cells:
        for place, seed in enumerate(sweep.seeds):
            number = wrong[named.name]
            number = number[place] if isinstance(number, list) else number + seed % 4
            put_run(store, named, seed, errors=[100 * number / TEST_IMAGES] * EPOCHS)


def verdicts_of(sweep, store):
    return {verdict.claim.id: verdict for verdict in summarise(sweep, store).verdicts}


# --- errors -------------------------------------------------------------------------------------------------


def test_one_significant_pair_the_other_way_contradicts_a_claim_of_many(store):
    forms = {f"L_b + L_is [{form}]": 40 for form in ("AT", "VID", "FSP", "NST")}
    names = {"L_b": 60, **forms, "L_b + L_is [ours]": 30}
    sweep = make_rows(*names, num_seeds=12, published=("table2",))
    put_wrong(store, sweep, names)
    found = verdicts_of(sweep, store)
    assert {name: verdict.outcome for name, verdict in found.items()} == {
        "any-transfer-helps": "reproduced",
        "squeezed-beats-others": "reproduced",
    }
    assert [len(verdict.comparisons) for verdict in found.values()] == [5, 4]
    put_wrong(store, sweep, names | {"L_b + L_is [VID]": 20})
    found = verdicts_of(sweep, store)
    assert found["any-transfer-helps"].outcome == "reproduced"
    assert found["squeezed-beats-others"].outcome == "contradicted"
    assert found["squeezed-beats-others"].forecast is None


def test_the_claims_of_a_table_are_corrected_together(store):
    sweep = make_rows("L_b", "L_b + L_is [AT]", "L_b + L_is [ours]", num_seeds=8, published=("table2",))
    generator = np.random.default_rng(1)
    wrong = {named.name: (50 + generator.integers(-8, 8, 8)).tolist() for named in sweep.cells}
    put_wrong(store, sweep, wrong)
    helps, beats = verdicts_of(sweep, store).values()
    (at, ours), (alone,) = helps.comparisons, beats.comparisons
    assert [item.difference < 0 for item in (at, ours, alone)] == [True, True, False]
    assert alone.p_holm == stats.holm([at.p, ours.p, alone.p])[2]  # against its claim
    # For their claim, each in the place of its largest p; that of the other claim is its only one.
    assert [at.p_holm, ours.p_holm] == [stats.holm([item.p, alone.p])[0] for item in (at, ours)]


def test_a_claim_with_a_row_that_was_not_run_is_never_reproduced_but_may_be_contradicted(store):
    sweep = make_rows("L_b + L_is", "L_b + L_adv + L_is", num_seeds=8, published=("table4",))
    put_wrong(store, sweep, {"L_b + L_is": 60, "L_b + L_adv + L_is": 30})
    verdict = verdicts_of(sweep, store)["all-terms-best"]
    assert verdict.outcome == "undecided"
    assert verdict.missing == (("L_b + L_adv + L_is", "L_b + L_adv"), ("L_b + L_adv + L_is", "L_b"))
    assert verdict.forecast is None
    put_wrong(store, sweep, {"L_b + L_is": 30, "L_b + L_adv + L_is": 60})
    assert verdicts_of(sweep, store)["all-terms-best"].outcome == "contradicted"


def test_two_names_of_one_configuration_do_not_judge_a_claim(store):
    cell = make_cell(1.0, 1.0)
    cells = tuple(NamedCell(name=name, cell=cell) for name in ("L_b + L_is", "L_b + L_adv"))
    sweep = make_sweep(cells=cells, reference=None, published=("table4",), num_seeds=8)
    put_levels(store, sweep, {"L_b + L_is": 40, "L_b + L_adv": 40})
    assert verdicts_of(sweep, store)["is-beats-adv"].outcome == "not judged"


# --- the teacher, and gains ---------------------------------------------------------------------------------


def test_a_teacher_is_one_number_against_every_seed(store):
    sweep = make_rows("HKSANC", "TSCAN", "ANC", "KD", num_seeds=10, published=("table6",))
    put_wrong(store, sweep, {"HKSANC": 40, "TSCAN": 45, "ANC": 46, "KD": 50})
    put_teacher(store, sweep.cells[0].cell, error_pct=2.0)
    summary = summarise(sweep, store)
    verdict = next(item for item in summary.verdicts if item.claim.id == "students-below-teacher-cifar")
    assert verdict.outcome == "reproduced"
    comparison = verdict.comparisons[0]
    assert (comparison.cell, comparison.one_number) == ("Teacher RN-164", "Teacher RN-164")
    errors = [100 * (40 + seed % 4) / TEST_IMAGES for seed in sweep.seeds]
    assert comparison.difference == pytest.approx(2.0 - np.mean(errors), abs=1e-12)
    interval = scipy.stats.ttest_1samp(errors, 2.0).confidence_interval()
    assert comparison.ci95 == pytest.approx(
        (2.0 - np.mean(errors)) + np.array([-1, 1]) * (interval.high - interval.low) / 2
    )
    text = render_report(summary)["report.md"].decode()
    assert "| Teacher RN-164 (cited) | 1 teacher | 2.00 |" in text
    assert "one training and so one number" in text


@pytest.fixture
def imagenet(store):
    """The shipped space of ImageNet, its runs made, and its two teachers' (id, a cell that uses it)."""
    sweep = load_sweep("imagenet", seeds="3", epochs=str(EPOCHS))
    users = {teacher_id(named.cell): named.cell for named in sweep.cells if named.cell.uses_teacher}
    assert len(users) == 2, "RN-18 and RN-50 have attention sub-networks of different widths"
    for named in sweep.cells:
        place = list(users).index(teacher_id(named.cell)) if named.cell.uses_teacher else 0
        for seed in sweep.seeds:
            errors = [100 * (300 + len(named.name) + 40 * seed) / TEST_IMAGES] * EPOCHS
            changes = {"teacher_hash": f"{place}{place}" * 32} if named.cell.uses_teacher else {}
            put_run(store, named, seed, errors=errors, error_top5_last_pct=5.0, **changes)
    return sweep, list(users.items())


def put_teachers(store, users, errors_pct):
    for place, ((_, cell), error_pct) in enumerate(zip(users, errors_pct, strict=True)):
        put_teacher(store, cell, teacher_hash=f"{place}{place}" * 32, error_pct=error_pct)


def teacher_lines(sweep, store):
    text = render_report(summarise(sweep, store))["report.md"].decode()
    return [line.split(" | ")[:3] for line in text.splitlines() if line.startswith("| Teacher RN-152")], text


def test_teachers_of_equal_error_are_one_row_of_the_shipped_imagenet_space(store, imagenet):
    sweep, users = imagenet
    put_teachers(store, users, (21.69, 21.69))
    lines, text = teacher_lines(sweep, store)
    assert lines == [["| Teacher RN-152 (cited)", "1 teacher", "21.69"]]
    assert "one training and so one number" in text
    rows = {row.published.name: row for row in summarise(sweep, store).paper[0].rows}
    comparison = rows["Teacher RN-152"].comparison
    assert comparison.reference == "HKSANC (RN-18)"
    hksanc = np.mean([100 * (300 + len("HKSANC (RN-18)") + 40 * seed) / TEST_IMAGES for seed in (0, 1, 2)])
    assert comparison.difference == pytest.approx(21.69 - hksanc, abs=1e-12)


def test_teachers_of_different_error_have_a_line_each(store, imagenet):
    sweep, users = imagenet
    put_teachers(store, users, (21.69, 23.0))
    lines, text = teacher_lines(sweep, store)
    assert lines == [
        [f"| Teacher RN-152 (cited): {identity}", "1 teacher", error]
        for (identity, _), error in zip(users, ("21.69", "23.00"), strict=True)
    ]
    assert "stands for 2 teachers of the measured rows" in text
    rows = {row.published.name: row for row in summarise(sweep, store).paper[0].rows}
    assert rows["Teacher RN-152"].comparison is None


def test_both_columns_of_imagenet_are_on_the_measured_data(store, imagenet):
    sweep, _ = imagenet
    text = render_report(summarise(sweep, store))["report.md"].decode()
    assert "The columns ImageNet, top-1; and ImageNet, top-5 are on the data of the measured ones." in text
    assert "across data" not in text


def test_a_teacher_that_the_store_lost_judges_nothing(store):
    sweep = make_rows("HKSANC", "TSCAN", num_seeds=6, published=("table6",))
    put_wrong(store, sweep, {"HKSANC": 40, "TSCAN": 45})
    assert verdicts_of(sweep, store)["students-below-teacher-cifar"].outcome == "not judged"


def test_a_gain_is_a_difference_of_paired_differences(store):
    names = [f"{method} (RN-{depth})" for depth in (18, 50) for method in ("TSCAN", "HKSANC")]
    sweep = make_rows(*names, num_seeds=8, published=("table7",))
    generator = np.random.default_rng(2)
    wrong = {
        name: (level + generator.integers(-2, 3, 8)).tolist()
        for name, level in zip(names, (90, 60, 50, 45), strict=True)
    }
    put_wrong(store, sweep, wrong)
    verdict = verdicts_of(sweep, store)["gain-grows-with-gap"]
    (comparison,) = verdict.comparisons
    gains = [
        np.subtract(wrong[f"HKSANC (RN-{depth})"], wrong[f"TSCAN (RN-{depth})"]) * 100 / TEST_IMAGES
        for depth in (18, 50)
    ]
    np.testing.assert_allclose(comparison.by_seed, gains[0] - gains[1], atol=1e-12)
    assert verdict.outcome == "reproduced"
    evidence = render_report(summarise(sweep, store))["report.md"].decode()
    # Published: (31.34 - 32.72) - (26.72 - 27.39) in top-1.
    assert f"| {chr(0x2212)}0.71 pp | " in evidence


# --- equivalence --------------------------------------------------------------------------------------------


VALUES = (0.1, 1.0, 10.0)


def make_scan(key, *, margin=0.5, num_seeds=8, claims=(), reference=None):
    cells = tuple(
        NamedCell(
            name=f"{key} [{key}={value}]",
            cell=make_cell(1.0, 1.0, **{key: value}),
            group=key,
            point={key: value},
        )
        for value in VALUES
    )
    return make_sweep(
        cells=cells, reference=reference, published=(), claims=claims, margin=margin, num_seeds=num_seeds
    )


def put_scan(store, sweep, levels, *, jitter=2):
    generator = np.random.default_rng(4)
    put_wrong(
        store,
        sweep,
        {
            named.name: (level + generator.integers(0, jitter, len(sweep.seeds))).tolist()
            for named, level in zip(sweep.cells, levels, strict=True)
        },
    )


@pytest.mark.parametrize(
    ("levels", "outcome"),
    [((51, 50, 49), "reproduced"), ((51, 50, 70), "contradicted"), ((51, 50, 56), "undecided")],
)
def test_insensitive_means_that_every_value_is_within_the_margin_of_the_default(store, levels, outcome):
    sweep = make_scan("loss.lambda_2", margin=6 * 100 / TEST_IMAGES, claims=("insensitive-lambdas",))
    put_scan(store, sweep, levels)
    verdict = verdicts_of(sweep, store)["insensitive-lambdas"]
    assert verdict.outcome == outcome
    assert [item.reference for item in verdict.comparisons] == [sweep.cells[1].name] * 2
    assert {item.measure for item in verdict.comparisons} == {"equivalence"}


@pytest.mark.parametrize(
    ("levels", "outcome"), [((70, 50, 51), "reproduced"), ((50, 50, 30), "contradicted")]
)
def test_a_compromise_is_no_worse_than_any_other_value(store, levels, outcome):
    sweep = make_scan("loss.mu", margin=6 * 100 / TEST_IMAGES, claims=("mu-one",))
    put_scan(store, sweep, levels)
    verdict = verdicts_of(sweep, store)["mu-one"]
    assert verdict.outcome == outcome
    assert [item.cell for item in verdict.comparisons] == [sweep.cells[1].name] * 2


def test_the_interval_of_an_equivalence_is_the_90_percent_one(store):
    sweep = make_scan("loss.mu", margin=0.4)
    put_scan(store, sweep, (51, 50, 53), jitter=6)
    (scan,) = summarise(sweep, store).scans
    point = scan.points[0]
    result = scipy.stats.ttest_1samp(point.comparison.by_seed, 0.0).confidence_interval(0.9)
    assert point.comparison.ci95 == pytest.approx((result.low, result.high), abs=1e-12)
    assert (scan.keys, scan.reference.name) == (("loss.mu",), "loss.mu [loss.mu=1.0]")
    assert scan.points[1].comparison is None


def test_seeds_that_are_too_few_for_the_margin_are_warned_of_with_those_that_do(store):
    sweep = make_scan("loss.lambda_2", margin=0.2)
    put_scan(store, sweep, (51, 50, 50), jitter=12)
    summary = summarise(sweep, store)
    points = [point.comparison for point in summary.scans[0].points if point.comparison is not None]
    sd = np.median([np.std(item.by_seed, ddof=1) for item in points])
    shown = sd * stats.detectable_margin(8, tests=2)
    needed = stats.pairs_for_equivalence(0.0, sd, margin=0.2, tests=2)
    assert shown > 0.2
    (warning,) = [text for text in summary.warnings if "too few for the margin" in text]
    assert warning.startswith("8 seeds are too few for the margin of 0.2 pp")
    assert f"within {shown:.2f} pp, and within the margin with {needed} seeds" in warning
    wide = dataclasses.replace(sweep, margin=1.01 * shown)
    assert not [text for text in summarise(wide, store).warnings if "too few for the margin" in text]


def test_a_curve_is_the_same_everywhere_where_each_point_is_equivalent_without_a_correction(store):
    sweep = make_scan("loss.lambda_2", margin=0.4)
    put_scan(store, sweep, (51, 50, 50))
    (scan,) = summarise(sweep, store).scans

    def tell(p, family="table"):
        points = tuple(
            point
            if point.comparison is None
            else dataclasses.replace(
                point,
                comparison=dataclasses.replace(point.comparison, p=p, p_holm=2 * p, p_against_holm=1.0),
            )
            for point in scan.points
        )
        told = describe_scan(
            dataclasses.replace(scan, points=points), dataclasses.replace(sweep, family=family)
        )
        return told.partition(": ")[2].partition(", within")[0]

    assert (tell(0.04), tell(0.06)) == ("the same everywhere", "undecided at 8 seeds")
    # Where all tests of the study are one family, so are these.
    assert (tell(0.04, "all"), tell(0.02, "all")) == ("undecided at 8 seeds", "the same everywhere")


def test_curves_and_grids_have_figures_and_tables(store):
    grid = tuple(
        NamedCell(
            name=f"grid [loss.lambda_2={one}, loss.mu={other}]",
            cell=make_cell(one, 1.0, **{"loss.mu": other}),
            group="grid",
            point={"loss.lambda_2": one, "loss.mu": other},
        )
        for one in (0.1, 1.0)
        for other in (0.1, 1.0)
    )
    curve = make_scan("loss.lambda_3", num_seeds=4)
    sweep = dataclasses.replace(curve, cells=(*curve.cells, *grid))
    put_wrong(store, sweep, {named.name: 50 + place for place, named in enumerate(sweep.cells)})
    summary = summarise(sweep, store)
    assert [scan.keys for scan in summary.scans] == [("loss.lambda_3",), ("loss.lambda_2", "loss.mu")]
    assert summary.scans[1].reference.name == "grid [loss.lambda_2=1.0, loss.mu=1.0]"
    files = render_report(summary)
    assert {"sensitivity.png", "grid.png"} <= files.keys()
    text = files["report.md"].decode()
    assert "## Sensitivity" in text
    assert "| lambda_2 | mu | n |" in text


def test_one_value_or_three_keys_are_no_curve(store):
    lone = NamedCell(name="a", cell=make_cell(1, 1), group="a", point={"loss.mu": 1.0})
    point = {"loss.mu": 1.0, "loss.lambda_1": 1.0, "loss.lambda_2": 1.0}
    cube = tuple(
        NamedCell(
            name=f"{mu}", cell=make_cell(1, 1, **{"loss.mu": mu}), group="b", point=point | {"loss.mu": mu}
        )
        for mu in (0.1, 1.0)
    )
    sweep = make_sweep(cells=(lone, *cube), reference=None, published=(), num_seeds=2)
    fill(store, sweep)
    assert summarise(sweep, store).scans == ()


# --- names --------------------------------------------------------------------------------------------------


def test_a_claim_without_a_table_is_judged_where_a_space_names_it(store):
    names = ("distance = l2", "distance = l1", "distance = cross_entropy")
    sweep = make_rows(*names, num_seeds=8, claims=("l2-best-distance",))
    put_wrong(store, sweep, dict(zip(names, (40, 50, 60), strict=True)))
    assert verdicts_of(sweep, store)["l2-best-distance"].outcome == "reproduced"


def test_rows_of_other_networks_and_cited_rows_are_marked(store):
    sweep = make_rows("HKSANC", "FitNets", "KD", num_seeds=4, published=("table6",))
    fill(store, sweep)
    text = render_report(summarise(sweep, store))["report.md"].decode()
    assert "| FitNets (cited, another network) | 4 |" in text
    assert "FitNets was published on a thin deep network of 2.5M parameters" in text
    assert "| HKSANC | 4 |" in text


@pytest.mark.parametrize("relative", [True, False])
def test_rows_at_a_relative_distance_are_marked(store, relative):
    methods = {"FSP": "fsp", "FitNets": "fitnets", "KD": "kd"}
    cells = []
    for name, method in methods.items():
        values = {"method": method, "student.epochs": EPOCHS}
        values |= {} if method == "kd" else {"knowledge.relative": relative}
        cells.append(NamedCell(name=name, cell=cell_from_values(values)))
    sweep = make_sweep(cells=tuple(cells), reference=None, published=("table6",), num_seeds=2)
    for named in cells:
        for seed in sweep.seeds:
            put_run(store, named, seed, errors=[5.0 + seed] * sum(named.cell.stage_epochs))
    text = render_report(summarise(sweep, store))["report.md"].decode()
    mark = ", relative distance" if relative else ""
    assert f"| FSP (cited{mark}) | 2 |" in text
    assert f"| FitNets (cited, another network{mark}) | 2 |" in text
    assert "| KD (cited) | 2 |" in text
    assert ("relative to the teacher's own squares here, not absolutely" in text) == relative


def test_the_form_fsp_is_marked_in_table_2(store):
    forms = {"L_b + L_is [FSP]": "fsp", "L_b + L_is [ours]": "squeezed"}
    cells = tuple(
        NamedCell(name=name, cell=make_cell(0.0, 1.0, **{"knowledge.form": form}))
        for name, form in forms.items()
    )
    sweep = make_sweep(cells=cells, reference=None, published=("table2",), num_seeds=2)
    fill(store, sweep)
    text = render_report(summarise(sweep, store))["report.md"].decode()
    assert r"| L_b + L_is \[FSP\] (relative distance) | 2 |" in text
    assert r"| L_b + L_is \[ours\] | 2 |" in text


def test_every_claim_names_rows_of_its_table_and_known_keys():
    published = load_published()
    for claim in published.claims:
        if claim.table in published.tables:
            names = {row.name for row in published.tables[claim.table].rows}
            parts = [part for pair in claim.pairs for name in pair for part in name.split(" over ")]
            asked = {part.partition(" on ")[0] for part in parts}
            assert {part.partition(" on ")[2] for part in parts} == set(claim.datasets or ("",))
            assert asked
            assert asked <= names
        else:
            assert claim.pairs or claim.keys
    assert len(published.claims) == 26
    assert sum(len(table.rows) for table in published.tables.values()) == 45
    for table in published.tables.values():
        assert table.reference in {row.name for row in table.rows}
    assert math.inf not in next(claim for claim in published.claims if claim.id == "mu-one").between


# --- what a reader is told first ----------------------------------------------------------------------------


@pytest.mark.parametrize(("num_seeds", "warned"), [(3, True), (6, True), (7, False)])
def test_too_few_seeds_for_any_significance_are_warned_of(store, num_seeds, warned):
    # Two comparisons: 2 / 2^n must be at most 0.05 / 2, so seven seeds are needed.
    sweep = make_rows("a", "b", "c", num_seeds=num_seeds, reference="a")
    put_wrong(store, sweep, {"a": 60, "b": 40, "c": 30})
    summary = summarise(sweep, store)
    found = [warning for warning in summary.warnings if "needs 7 seeds" in warning]
    assert bool(found) == warned
    assert any(comparison.significant for comparison in summary.comparisons) != warned


def test_the_verdicts_are_counted_among_the_findings(store):
    sweep = make_rows("L_b + L_is", "L_b + L_adv", num_seeds=6, published=("table4",))
    put_wrong(store, sweep, {"L_b + L_is": 30, "L_b + L_adv": 60})
    text = render_report(summarise(sweep, store))["report.md"].decode()
    assert "- Of 1 claim of the paper that this sweep can judge on digits: 1 reproduced." in text


def test_a_difference_that_rounds_to_nothing_has_no_minus_and_a_cut_interval_shows_its_ends():
    assert wording.plus_minus(-0.001, (-0.101, 0.099), signed=True) == "+0.00 \N{PLUS-MINUS SIGN} 0.10"
    assert wording.plus_minus(40.0, (0.0, 100.0)) == "40.00 [0.00, 100.00]"
