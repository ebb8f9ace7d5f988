import functools
import itertools
import math
import re
import tomllib
from pathlib import Path

import pytest

from hkrun.config import cell_id, teacher_id
from hkrun.errors import InputError
from hkrun.plans import estimate_time, make_plan
from hkrun.spaces import load_sweep as load_anew

REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / "search_spaces"
SPACES = sorted(path.stem for path in FOLDER.glob("*.toml"))
DATASETS = sorted(path.stem for path in (FOLDER / "recipes").glob("*.toml"))
PUBLISHED = tomllib.loads((REPOSITORY / "hkrun" / "published.toml").read_text(encoding="utf-8"))
load_sweep = functools.cache(load_anew)  # which nothing changes, and many tests ask for
# CRD remembers each training image, and those of ImageNet have no number.
PLACES = [
    (space, dataset) for space in SPACES for dataset in DATASETS if (space, dataset) != ("modern", "imagenet")
]
LABEL = re.compile(r"measured \(\d{4}-\d\d-\d\d, .+?\)|estimated \(.+?\)|published|not run here", re.DOTALL)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working directory without search spaces of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_window_of_a_recipe_lies_after_its_last_drop(dataset):
    """Else S holds the step of the learning rate too."""
    sweep = load_sweep("stability", dataset=dataset)
    for named in sweep.cells:
        student = named.cell.student
        assert student.epochs - sweep.window >= math.ceil(max(student.drops) * student.epochs - 1e-9)


def header(space):
    """The labelled parts of the comment that a file opens with, without line breaks."""
    parts, label = {}, ""
    for line in (FOLDER / f"{space}.toml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return {label: " ".join(text) for label, text in parts.items()}
        match = re.fullmatch(r"# (?P<label>\w*) {2,}(?P<text>\S.*)", line)
        assert match is not None, line
        label = match["label"] or label
        parts.setdefault(label, []).append(match["text"])
    raise AssertionError("the file is all comment")


def row_names(table):
    return [row["name"] for row in PUBLISHED[table]["rows"] if not row["name"].startswith("Teacher")]


def configurations(sweep):
    return {named.name: cell_id(named.cell) for named in sweep.cells}


def test_the_shipped_spaces_are_those_of_the_papers_evaluation():
    assert set(SPACES) >= {
        "stability", "connection", "knowledge_forms", "adversarial", "losses", "baselines", "tables",
        "distance", "wrn", "imagenet", "sensitivity",
    }  # fmt: skip


@pytest.mark.parametrize(("space", "dataset"), PLACES)
def test_every_space_moves_to_every_data_set(space, dataset):
    home, sweep = load_sweep(space), load_sweep(space, dataset=dataset)
    assert [named.name for named in sweep.cells] == [named.name for named in home.cells]
    assert {named.cell.dataset for named in sweep.cells} == {sweep.dataset} == {dataset}
    assert sweep.window == sweep.recipe.window
    for one, other in zip(home.cells, sweep.cells, strict=True):
        assert one.cell.stage_weights == other.cell.stage_weights, "the question is another one"
        assert other.cell.student.epochs == sweep.recipe.cell.student.epochs
    plan = make_plan(sweep, None)
    assert plan.num_to_run == len(plan.distinct_cells) * len(sweep.seeds)
    assert all(teacher.cell.dataset == dataset for teacher in plan.teachers)


@pytest.mark.parametrize(
    ("space", "dataset"), [pair for pair in PLACES if pair[0] not in ("wrn", "imagenet", "narrow")]
)
def test_the_networks_are_the_recipes_unless_they_are_the_question(space, dataset):
    sweep = load_sweep(space, dataset=dataset)
    own = sweep.recipe.cell
    assert {named.cell.student.network for named in sweep.cells} == {own.student.network}
    assert {named.cell.teacher.network for named in sweep.cells} == {own.teacher.network}


def test_a_space_that_a_data_set_cannot_run_is_refused_in_one_line():
    with pytest.raises(
        InputError, match="the images of imagenet are streamed, and a term reads their numbers"
    ):
        load_sweep("modern", dataset="imagenet")


@pytest.mark.parametrize("space", SPACES)
def test_the_cells_are_named_as_the_rows_of_the_tables(space):
    sweep = load_sweep(space)
    if sweep.published:
        rows = [name for table in sweep.published for name in row_names(table)]
        beside = {"KD"} if space == "narrow" else set()
        assert {named.name for named in sweep.cells} - beside == set(rows)


def test_every_row_of_the_paper_but_the_teachers_is_in_some_space():
    known = {table for space in SPACES for table in load_sweep(space).published}
    assert known >= {name for name, table in PUBLISHED.items() if "rows" in table}


def test_every_claim_is_judged_by_some_space_that_has_its_rows():
    sweeps = [load_sweep(space) for space in SPACES]
    for claim in PUBLISHED["claims"]:
        sides = [claim.get("better", []), claim.get("worse", [])]
        rows = [row for side in sides for row in ([side] if isinstance(side, str) else side)]
        rows = [row for both in rows for row in both.split(" over ") if not row.startswith("Teacher")]
        rows = [row.partition(" on ")[0] for row in rows]
        judges = [
            sweep for sweep in sweeps if claim["table"] in sweep.published or claim["id"] in sweep.claims
        ]
        assert judges, claim["id"]
        for sweep in judges:
            assert {named.name for named in sweep.cells} >= set(rows), (claim["id"], sweep.name)


def test_tables_one_to_five_are_twelve_configurations():
    for dataset in DATASETS:
        sweep = load_sweep("tables", dataset=dataset)
        assert len(set(configurations(sweep).values())) == 12
        assert len(sweep.cells) == len({name for table in sweep.published for name in row_names(table)}) == 15
        assert make_plan(load_sweep("tables", seeds="3"), None).num_to_run == 36
        teachers = {teacher_id(named.cell) for named in sweep.cells if named.cell.uses_teacher}
        assert len(teachers) == 2, "the original connection needs a teacher of its own"


@pytest.mark.parametrize(("space", "rows"), [("baselines", 1), ("imagenet", 2)])
def test_tscan_has_the_regulariser_whose_terms_are_its_authors(space, rows):
    cells = [named.cell for named in load_sweep(space).cells if named.cell.method == "tscan"]
    assert [cell.loss.regularizer for cell in cells] == [True] * rows


@pytest.mark.parametrize("dataset", ["digits", "cifar10"])
def test_a_row_is_one_configuration_in_every_space(dataset):
    found = {}
    for space in ("tables", "stability", "connection", "knowledge_forms", "adversarial", "losses"):
        for name, identity in configurations(load_sweep(space, dataset=dataset)).items():
            assert found.setdefault(name, identity) == identity, (space, name)
    baselines = configurations(load_sweep("baselines", dataset=dataset))
    assert baselines["L2-Ba"] == found["L_b"]
    assert baselines["HKSANC"] == found["L_b + L_adv + L_is"]
    assert baselines["Student RN-20"] == found["supervised learning"]
    assert configurations(load_sweep("distance", dataset=dataset))["distance = l2"] == found["L_b + L_is"]
    assert len(set(baselines.values())) == len(baselines)


def test_the_rows_of_table_5_compute_what_they_are_named_after():
    sweep = load_sweep("stability")
    assert [set(named.cell.stage_weights[0]) for named in sweep.cells] == [
        {"backbone"},
        {"backbone", "knowledge"},
        {"backbone", "adversarial"},
        {"backbone", "adversarial", "knowledge"},
    ]
    assert (sweep.reference, sweep.seeds) == ("L_b", tuple(range(20)))
    assert len({teacher_id(named.cell) for named in sweep.cells}) == 1


def test_the_rows_of_table_3_differ_in_the_discriminators_parts_alone():
    cells = {named.name.removeprefix("L_b + L_is"): named.cell for named in load_sweep("adversarial").cells}
    parts = {
        name: (cell.weight("adversarial") > 0, cell.loss.category, cell.loss.regularizer)
        for name, cell in cells.items()
    }
    assert parts == {
        "": (False, True, True),
        " + L_adv^o + L_reg": (True, False, True),
        " + L_adv^o + L_adv^C": (True, True, False),
        " + L_adv": (True, True, True),
    }


def test_sensitivity_is_four_curves_and_a_grid_through_one_center():
    sweep = load_sweep("sensitivity")
    center = configurations(sweep)["all at 1"]
    groups = {
        group: list(cells) for group, cells in itertools.groupby(sweep.cells, key=lambda named: named.group)
    }
    axes = {name: tuple(cells[0].point) for name, cells in groups.items()}
    assert axes == {
        "all at 1": (),
        "lambda_1": ("loss.lambda_1",),
        "lambda_2": ("loss.lambda_2",),
        "lambda_3": ("loss.lambda_3",),
        "mu": ("loss.mu",),
        "lambda_2 x lambda_3": ("loss.lambda_2", "loss.lambda_3"),
    }
    for name, cells in groups.items():
        assert center in {cell_id(named.cell) for named in cells}, name
        for key in axes[name]:
            steps = sorted({math.log10(named.point[key]) for named in cells})
            assert steps == pytest.approx([-1, -0.5, 0, 0.5, 1], abs=1e-3)
    assert len(set(configurations(sweep).values())) == 33


def test_narrow_halves_the_students_width_on_digits_alone():
    for dataset in DATASETS:
        networks = {named.cell.student.network for named in load_sweep("narrow", dataset=dataset).cells}
        own = load_sweep("losses", dataset=dataset).cells[0].cell.student.network
        assert networks == {"preact-8-w2" if dataset == "digits" else own}


def test_wrn_has_wide_networks_for_every_data_set():
    for dataset in DATASETS:
        for named in load_sweep("wrn", dataset=dataset).cells:
            assert named.cell.teacher.network.startswith("wrn-")
            assert named.cell.student.network.startswith("wrn-")


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_the_cifar_recipes_are_the_papers(dataset):
    sweep = load_sweep("stability", dataset=dataset)
    cell = sweep.cells[-1].cell
    assert (cell.teacher.network, cell.student.network, sweep.window) == ("preact-164", "preact-20", 100)
    assert (cell.student.epochs, cell.student.batch_size, cell.student.drops) == (600, 64, (0.4, 0.8))
    assert (cell.student.learning_rate, cell.discriminator.learning_rate) == (0.1, 1e-3)
    assert (cell.augment.padding, cell.augment.flip) == (4, True)


@pytest.mark.parametrize("space", SPACES)
def test_every_space_opens_with_question_command_cost_and_expected_result_all_labelled(space):
    parts = header(space)
    assert list(parts) == ["Question", "Command", "Cost", "Expected"]
    assert f"hkrun sweep {space}" in parts["Command"]
    for name in ("Cost", "Expected"):
        assert LABEL.search(parts[name]), name


@pytest.mark.parametrize("space", SPACES)
def test_the_cost_in_a_header_is_that_of_the_runs_that_the_space_plans(space):
    num_runs = make_plan(load_sweep(space), None).num_runs
    assert header(space)["Cost"].startswith(f"{num_runs} runs")


ESTIMATED = re.compile(r"(\d+):(\d\d) minutes on 2 CPU cores, estimated \(by its dry run")


@pytest.mark.parametrize("space", [space for space in SPACES if ESTIMATED.search(header(space)["Cost"])])
def test_a_cost_in_a_header_that_is_estimated_is_what_the_dry_run_says(space):
    sweep = load_sweep(space)
    pack = int(sweep.recipe.evidence["pack_cpu"]["value"])
    plan = make_plan(sweep, None).in_packs({cell_id(named.cell): pack for named in sweep.cells}, slots=2)
    minutes, seconds = map(int, ESTIMATED.search(header(space)["Cost"]).groups())
    assert 60 * minutes + seconds == pytest.approx(estimate_time(plan).seconds, abs=1.0)


def test_the_search_space_in_the_docs_is_one(tmp_path):
    text = (REPOSITORY / "docs" / "search-spaces.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    whole, axes = blocks[0], next(block for block in blocks if '"center"' in block)
    (tmp_path / "mine.toml").write_text(whole)
    assert [named.name for named in load_anew("mine.toml").cells] == ["sum", "avg"]
    (tmp_path / "curves.toml").write_text('dataset = "digits"\nseeds = 5\n' + axes)
    sweep = load_anew("curves.toml")
    assert (len(sweep.cells), len(set(configurations(sweep).values()))) == (1 + 3 + 9, 9)
