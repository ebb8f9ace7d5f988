import json
import shutil
import textwrap
from pathlib import Path

import pytest

from hkrun.cli.program import call
from hkrun.config import canonical, cell_id, describe_range, get_value, keys
from hkrun.errors import InputError
from hkrun.spaces import (
    load_cell,
    load_sweep,
    restore_sweep,
    sweep_document,
    sweep_names,
    with_content,
)
from hkrun.spaces.key_effects import describe_duplicates
from hkrun.spaces.toml_tables import locate, read_document

REPOSITORY = Path(__file__).parents[1]

SPACE = """\
title = "A title"
question = "A question?"
dataset = "tiny"
seeds = 3
reference = "plain"

[base]
method = "hksanc"

[[cells]]
name = "plain"
loss.lambda_2 = 0.0

[[cells]]
name = "with adversary"
loss.mu = 0.5
"""
RECIPE = """\
teacher.epochs = 7

[student]
network = "preact-8-w8"
epochs = 10
drops = [0.5]

[analysis]
window = 4

[evidence]
seconds_per_run = { value = 2.0, label = "measured (2025-01-01, a laptop)" }
teacher_error_pct = { label = "not run here" }
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the search space `space` on digits, whose recipe is RECIPE."""
    monkeypatch.chdir(tmp_path)
    write("search_spaces/recipes/digits.toml", RECIPE)
    write("search_spaces/space.toml", SPACE.replace("tiny", "digits"))
    return tmp_path


def write(path, text):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def problems(name="space", **arguments):
    with pytest.raises(InputError) as caught:
        load_sweep(name, **arguments)
    return caught.value.problems


def space_with(old, new):
    """The search space of the fixture, changed."""
    text = SPACE.replace("tiny", "digits")
    assert old in text
    return write("search_spaces/space.toml", text.replace(old, new))


# --- what a cell is made of ---------------------------------------------------------------------------------


def test_a_sweep_holds_what_the_file_says(folder):
    sweep = load_sweep("space")
    assert (sweep.name, sweep.title, sweep.question) == ("space", "A title", "A question?")
    assert (sweep.dataset, sweep.seeds, sweep.reference) == ("digits", (0, 1, 2), "plain")
    assert (sweep.window, sweep.ddof, sweep.published) == (4, 0, ())
    assert sweep.source == "search_spaces/space.toml"
    assert [named.name for named in sweep.cells] == ["plain", "with adversary"]
    assert sweep.recipe.evidence["seconds_per_run"]["value"] == 2.0
    assert sweep.recipe.cell.student.epochs == 10


def test_layers_are_recipe_then_base_then_cell_then_arguments(folder):
    write(
        "search_spaces/recipes/digits.toml", RECIPE + "\n[loss]\nmu = 0.1\nlambda_3 = 0.1\nlambda_2 = 0.1\n"
    )
    space_with('method = "hksanc"', "loss.mu = 0.2\nloss.lambda_3 = 0.2\nloss.reduction = 'sum'")
    plain, adversary = (
        named.cell.loss for named in load_sweep("space", overrides=["loss.lambda_3=0.4"]).cells
    )
    assert (plain.mu, adversary.mu) == (0.2, 0.5)
    assert (plain.lambda_2, adversary.lambda_2) == (0.0, 0.1)
    assert plain.lambda_3 == adversary.lambda_3 == 0.4
    assert plain.reduction == "sum"
    assert plain.lambda_1 == 1.0


def test_nested_tables_and_dotted_keys_mean_the_same(folder):
    dotted = load_sweep("space").cells[1].cell
    space_with("loss.mu = 0.5\n", "[cells.loss]\nmu = 0.5\n")
    assert load_sweep("space").cells[1].cell == dotted
    space_with("loss.mu = 0.5\n", "loss = { mu = 0.5 }\n")
    assert load_sweep("space").cells[1].cell == dotted


def test_the_window_of_the_space_comes_before_the_recipes(folder):
    space_with("[base]", "[analysis]\nwindow = 9\nddof = 1\n\n[published]\ntable = 'table5'\n\n[base]")
    sweep = load_sweep("space")
    assert (sweep.window, sweep.ddof, sweep.published) == (9, 1, ("table5",))
    assert sweep.recipe.window == 4


@pytest.mark.parametrize("called", ["loss.lambda_3=1, loss.mu=0.5", "lambda_3 = 1, mu = 0.5"])
def test_the_reference_is_named_as_its_cell_or_as_the_label_that_reports_show(folder, called):
    write(
        "search_spaces/axes.toml",
        f"""
        dataset = "digits"
        seeds = 3
        reference = "{called}"
        base.method = "hksanc"
        [[axes]]
        key = "loss.lambda_3"
        values = [1, 2.5]
        [[axes]]
        key = "loss.mu"
        values = [0.5, 1.5]
        """,
    )
    sweep = load_sweep("search_spaces/axes.toml")
    assert sweep.reference == "loss.lambda_3=1, loss.mu=0.5"
    assert sweep.reference in {named.name for named in sweep.cells}


def test_title_question_and_reference_may_be_missing(folder):
    write("search_spaces/space.toml", 'dataset = "digits"\nseeds = 1\n[[cells]]\nname = "one"\n')
    sweep = load_sweep("space")
    assert (sweep.title, sweep.question, sweep.reference) == ("space", "", None)


def test_two_names_may_stand_for_one_configuration(folder):
    space_with("loss.mu = 0.5", "loss.lambda_2 = 0")
    first, second = load_sweep("space").cells
    assert first.name != second.name
    assert cell_id(first.cell) == cell_id(second.cell)


# --- axes ---------------------------------------------------------------------------------------------------


def test_axes_are_crossed_with_the_cells(folder):
    axes = """
        [[axes]]
        key = "loss.lambda_3"
        values = [0.1, 1]

        [[axes]]
        key = "student.drops"
        values = [[0.4, 0.8], []]
        """
    space_with("reference", "# reference")
    text = Path("search_spaces/space.toml").read_text()
    write("search_spaces/space.toml", text + textwrap.dedent(axes))
    sweep = load_sweep("space")
    assert [named.name for named in sweep.cells[:4]] == [
        "plain [loss.lambda_3=0.1, student.drops=[0.4, 0.8]]",
        "plain [loss.lambda_3=0.1, student.drops=[]]",
        "plain [loss.lambda_3=1, student.drops=[0.4, 0.8]]",
        "plain [loss.lambda_3=1, student.drops=[]]",
    ]
    assert len(sweep.cells) == 8
    assert sweep.cells[1].cell.student.drops == ()
    assert sweep.cells[1].cell.loss.lambda_2 == 0.0
    assert sweep.cells[2].cell.loss.lambda_3 == 1.0


def test_axes_alone_make_cells_named_after_their_values(folder):
    write(
        "search_spaces/space.toml",
        """\
        dataset = "digits"
        seeds = 1
        reference = "loss.gan=saturating"
        [[axes]]
        key = "loss.gan"
        values = ["saturating", "non_saturating"]
        """,
    )
    assert [named.name for named in load_sweep("space").cells] == [
        "loss.gan=saturating",
        "loss.gan=non_saturating",
    ]


def test_an_axis_may_vary_some_cells_only(folder):
    write(
        "search_spaces/space.toml",
        """\
        dataset = "digits"
        seeds = 1
        reference = "center"
        [[cells]]
        name = "center"
        [[cells]]
        name = "first"
        [[cells]]
        name = "grid"
        [[axes]]
        key = "loss.mu"
        values = [0.1, 1]
        cells = ["first", "grid"]
        [[axes]]
        key = "loss.lambda_2"
        values = [2, 3]
        cells = "grid"
        """,
    )
    cells = load_sweep("space").cells
    assert [(named.name, named.group, dict(named.point)) for named in cells] == [
        ("center", "center", {}),
        ("first [loss.mu=0.1]", "first", {"loss.mu": 0.1}),
        ("first [loss.mu=1]", "first", {"loss.mu": 1.0}),
        ("grid [loss.mu=0.1, loss.lambda_2=2]", "grid", {"loss.mu": 0.1, "loss.lambda_2": 2.0}),
        ("grid [loss.mu=0.1, loss.lambda_2=3]", "grid", {"loss.mu": 0.1, "loss.lambda_2": 3.0}),
        ("grid [loss.mu=1, loss.lambda_2=2]", "grid", {"loss.mu": 1.0, "loss.lambda_2": 2.0}),
        ("grid [loss.mu=1, loss.lambda_2=3]", "grid", {"loss.mu": 1.0, "loss.lambda_2": 3.0}),
    ]
    for named in cells:
        assert {key: get_value(named.cell, key) for key in named.point} == named.point


def test_one_key_may_be_several_axes_of_different_cells(folder):
    axes = """
        [[axes]]
        key = "loss.lambda_3"
        values = [0.1]
        cells = ["plain"]
        [[axes]]
        key = "loss.lambda_3"
        values = [0.2, 0.3]
        cells = ["with adversary"]
        """
    path = space_with('reference = "plain"\n', "")
    write(path, path.read_text() + textwrap.dedent(axes))
    assert [named.cell.loss.lambda_3 for named in load_sweep("space").cells] == [0.1, 0.2, 0.3]
    write(path, path.read_text().replace('["plain"]', '["plain", "with adversary"]'))
    assert problems() == [
        "search_spaces/space.toml:22: axes.key: loss.lambda_3 is an axis of the same cells already"
    ]


def test_an_axis_over_what_the_cell_sets_is_refused_where_the_cell_sets_it(folder):
    path = space_with('reference = "plain"\n', "")
    write(path, path.read_text() + '\n[[axes]]\nkey = "loss.mu"\nvalues = [1.0, 2.0]\n')
    assert problems() == [
        (
            "search_spaces/space.toml:15: loss.mu: an axis varies it in this cell, "
            "so the cell cannot set it; `cells = [...]` in the axis names those that it varies"
        )
    ]


def test_a_product_too_large_to_mean_is_refused_before_it_is_made(folder):
    path = space_with('reference = "plain"\n', "")
    values = [round(0.01 * number, 2) for number in range(1, 102)]
    for key in ("lambda_1", "lambda_3", "temperature"):
        write(path, path.read_text() + f'\n[[axes]]\nkey = "loss.{key}"\nvalues = {values}\n')
    assert problems()[0] == (
        "search_spaces/space.toml:17: axes: 101 x 101 x 101 = 1030301 points of 'plain'; at most 10000"
    )


# --- several names, and keys of one data set ----------------------------------------------------------------


def test_a_list_of_names_gives_one_configuration_several_names(folder):
    space_with('name = "plain"', 'name = ["plain", "L_b + L_is"]')
    cells = load_sweep("space").cells
    assert [named.name for named in cells] == ["plain", "L_b + L_is", "with adversary"]
    assert cells[0].cell == cells[1].cell
    space_with('name = "plain"', 'name = ["plain", "with adversary", "plain"]')
    assert problems() == [
        "search_spaces/space.toml:11: cells.name: 'plain' is repeated",
        "search_spaces/space.toml:11: cells.name: 'plain' is the name of another cell too",
        "search_spaces/space.toml:15: cells.name: 'with adversary' is the name of another cell too",
    ]


def test_keys_of_one_data_set_come_last_in_their_table_and_hold_there_alone(folder):
    write("search_spaces/recipes/mnist5k.toml", "[analysis]\nwindow = 6\n[student]\nepochs = 20\n")
    space_with(
        'method = "hksanc"',
        "on.digits = { loss.mu = 3.0, loss.lambda_1 = 3.0 }\nloss.mu = 2.0\nloss.lambda_1 = 2.0\n"
        'on.mnist5k.student.network = "preact-14"',
    )
    plain, adversary = (named.cell for named in load_sweep("space").cells)
    assert (plain.loss.mu, plain.loss.lambda_1, plain.student.network) == (3.0, 3.0, "preact-8-w8")
    assert (adversary.loss.mu, adversary.loss.lambda_1) == (0.5, 3.0)
    plain, adversary = (named.cell for named in load_sweep("space", dataset="mnist5k").cells)
    assert (plain.loss.mu, plain.loss.lambda_1, plain.student.network) == (2.0, 2.0, "preact-14")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("on.digit.loss.mu = 1", "8: dataset: 'digit' is not allowed; one of digits, "),
        ("on.cifar10.loss.nu = 1", "8: loss.nu: unknown key; did you mean 'loss.mu'?"),
        ("on.digits = 3", "8: base.on.digits: must be a table, [base.on.digits]"),
        ("on = 3", "8: base.on: must be a table, [base.on]"),
        ('on.cifar10.dataset = "digits"', "8: base.on.cifar10.dataset: all cells of a search space share"),
    ],
)
def test_a_mistake_in_the_keys_of_one_data_set_is_named_whichever_is_used(folder, line, problem):
    space_with('method = "hksanc"', line)
    (found,) = problems()
    assert found.startswith(f"search_spaces/space.toml:{problem}")


@pytest.mark.parametrize(
    ("written", "tables"),
    [('table = "table5"', ("table5",)), ('tables = ["table1", "table2"]', ("table1", "table2"))],
)
def test_a_space_is_set_against_one_table_or_several(folder, written, tables):
    space_with("[base]", f"[published]\n{written}\n[base]")
    sweep = load_sweep("space")
    assert sweep.published == tables
    assert restore_sweep(json.loads(json.dumps(sweep_document(sweep))), where="plan.json") == sweep
    space_with("[base]", "[published]\ntable = 'table1'\ntables = ['table2']\n[base]")
    assert problems() == ["search_spaces/space.toml:9: published.tables: give either table or tables"]


def test_a_sweep_of_a_store_that_is_older_than_a_key_is_what_it_was(folder):
    space_with('method = "hksanc"', 'method = "binary_connect"')
    document = json.loads(json.dumps(sweep_document(load_sweep("space"))))
    for stored in (document["recipe"]["cell"], *(named["cell"] for named in document["cells"])):
        for key in [key for key in stored if key.startswith("quantization.")]:
            del stored[key]
        del stored["student.first_stage_learning_rate"]
    restored = restore_sweep(document, where="plan.json")
    for named in restored.cells:
        assert named.cell.quantization.scale_rate is False
        assert named.cell.quantization.uniform_start is False
        assert named.cell.student.first_stage_learning_rate == 0.0
        assert not [key for key in canonical(named.cell) if key.startswith("quantization.")]


# --- mistakes in axes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "problem"),
    [
        (
            'key = "loss.lambda_3"\nvalues = [1]\ncells = ["plan"]',
            "20: axes.cells: 'plan' is no cell; cells: plain, with adversary; did you mean 'plain'?",
        ),
        ('key = "loss.lambda_3"\nvalues = [1]\ncells = []', "20: axes.cells: must have at least one item"),
        ('key = "loss.lambda_3"\nvalues = [1]\ncells = [1]', "20: axes.cells: 1 is not a line of text"),
        (
            'key = "loss.lamda_3"\nvalues = [1]',
            "18: loss.lamda_3: unknown key; did you mean 'loss.lambda_3'?",
        ),
        ('key = "loss.mu"\nvalues = []', "19: axes.values: must be a list of at least one value"),
        ('key = "loss.mu"', "17: axes.values: must be a list of at least one value"),
        ("values = [1]", "17: axes.key: missing; the key of a cell that the axis varies"),
        ('key = "loss.mu"\nvalues = [1, -1]', "19: loss.mu: -1 is out of range; at least 0"),
        ('key = "loss.mu"\nvalues = [1,\n2,\n1.0]', "21: loss.mu: 1.0 is repeated"),
        (
            'key = "dataset"\nvalues = ["digits"]',
            "18: axes.key: a data set is no axis: its recipe changes with it",
        ),
        ('key = "loss.mu"\nvalues = [1]\nvalue = 2', "20: axes.value: unknown key; did you mean 'values'?"),
    ],
)
def test_a_wrong_axis_is_refused_with_its_line(folder, axis, problem):
    space_with('reference = "plain"\n', "")
    text = Path("search_spaces/space.toml").read_text()
    write("search_spaces/space.toml", f"{text}\n[[axes]]\n{axis}\n")
    assert any(line.startswith(f"search_spaces/space.toml:{problem}") for line in problems()), problems()


def test_an_axis_cannot_be_set_from_the_command_line(folder):
    text = SPACE.replace("tiny", "digits").replace('reference = "plain"\n', "")
    write("search_spaces/space.toml", text + '\n[[axes]]\nkey = "loss.lambda_3"\nvalues = [1.0]\n')
    (line,) = problems(overrides=["loss.lambda_3=2"])
    assert (
        line
        == "argument 'loss.lambda_3=2': loss.lambda_3: is an axis of this search space, so it cannot be set"
    )


# --- arguments ----------------------------------------------------------------------------------------------


def test_epochs_are_the_students_and_mistakes_name_the_option(folder):
    assert {named.cell.student.epochs for named in load_sweep("space", epochs="7").cells} == {7}
    assert load_cell(epochs="7").cells[0].cell.student.epochs == 7
    (line,) = problems(epochs="many")
    assert line == "--epochs: student.epochs: 'many' is not of type integer"
    (line,) = problems(epochs="7", overrides=["student.epochs=8"])
    assert line == "--epochs: student.epochs: given twice, with different values"


def test_a_folder_is_no_search_space(folder):
    assert problems(str(folder)) == [f"{folder}: is a folder; give the path of a .toml file"]


def test_dataset_moves_the_question_to_another_recipe(folder):
    write("search_spaces/recipes/mnist5k.toml", "[analysis]\nwindow = 6\n[student]\nepochs = 20\n")
    for arguments in ({"dataset": "mnist5k"}, {"overrides": ["dataset=mnist5k"]}):
        sweep = load_sweep("space", **arguments)
        assert (sweep.dataset, sweep.window) == ("mnist5k", 6)
        assert {named.cell.dataset for named in sweep.cells} == {"mnist5k"}
        assert {named.cell.student.epochs for named in sweep.cells} == {20}
    assert load_sweep("space", dataset="mnist5k", overrides=["dataset=mnist5k"]).dataset == "mnist5k"
    (line,) = problems(dataset="digits", overrides=["dataset=mnist5k"])
    assert line == "argument 'dataset=mnist5k': dataset: given twice, with different values"


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("2", (0, 1)),
        ("7,3,11", (7, 3, 11)),
        ("5,", (5,)),
        (" 2 ", (0, 1)),
        ("9223372036854775807,", (2**63 - 1,)),
    ],
)
def test_seeds_are_a_number_or_a_list(folder, text, seeds):
    assert load_sweep("space", seeds=text).seeds == seeds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("many", "'many' is neither a number of seeds such as 20 nor a list such as 0,1,2"),
        ("", "'' is neither a number of seeds such as 20 nor a list such as 0,1,2"),
        ("1,,2", "'1,,2' is neither a number of seeds such as 20 nor a list such as 0,1,2"),
        (",", "',' is neither a number of seeds such as 20 nor a list such as 0,1,2"),
        ("1.5", "'1.5' is neither a number of seeds such as 20 nor a list such as 0,1,2"),
        ("0", "0 is out of range; a number of seeds from 1 to 100000"),
        ("-3", "-3 is out of range; a number of seeds from 1 to 100000"),
        ("100001", "100001 is out of range; a number of seeds from 1 to 100000"),
        ("1,2,1", "seed 1 is repeated"),
        ("1,-2", "-2 is no seed; seeds are integers from 0 to 2**63 - 1"),
        ("9223372036854775808,", "9223372036854775808 is no seed; seeds are integers from 0 to 2**63 - 1"),
    ],
)
def test_wrong_seeds_are_refused(folder, text, problem):
    assert problems(seeds=text) == [f"--seeds: {problem}"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("true", "True is neither a number of seeds such as 20 nor a list such as [0, 1, 2]"),
        ("0", "0 is out of range; a number of seeds from 1 to 100000"),
        ("2.0", "2.0 is neither a number of seeds such as 20 nor a list such as [0, 1, 2]"),
        ('"3"', "'3' is neither a number of seeds such as 20 nor a list such as [0, 1, 2]"),
        ("[]", "a list of 0 seeds; it must have 1 to 100000"),
        ("[1, 1]", "seed 1 is repeated"),
        ("[-1]", "-1 is no seed; seeds are integers from 0 to 2**63 - 1"),
        ("[0, true]", "True is no seed; seeds are integers from 0 to 2**63 - 1"),
        ("[1.0]", "1.0 is no seed; seeds are integers from 0 to 2**63 - 1"),
    ],
)
def test_wrong_seeds_in_a_file_are_refused_with_their_line(folder, value, problem):
    space_with("seeds = 3", f"seeds = {value}")
    assert problems() == [f"search_spaces/space.toml:4: seeds: {problem}"]


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("student.epochs=30", "student.epochs", 30),
        ("student.epochs = 30", "student.epochs", 30),
        ("loss.mu=1", "loss.mu", 1.0),
        ("loss.mu=1e-1", "loss.mu", 0.1),
        ("student.drops=[0.3, 0.6]", "student.drops", (0.3, 0.6)),
        ("augment.flip=false", "augment.flip", False),
        ("loss.gan=saturating", "loss.gan", "saturating"),
        ('loss.gan="saturating"', "loss.gan", "saturating"),
        ("teacher.file=", "teacher.file", ""),
        ("student.network=preact-14-w4", "student.network", "preact-14-w4"),
    ],
)
def test_an_override_is_a_toml_value_or_a_bare_word(folder, argument, key, value):
    section, name = key.split(".")
    for named in load_sweep("space", overrides=[argument]).cells:
        assert getattr(getattr(named.cell, section), name) == value


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("student.epochs", "overrides are written key.path=value, such as student.epochs=30"),
        ("=3", "overrides are written key.path=value, such as student.epochs=30"),
        (
            "--sead=3",
            "--sead: unknown key; `hkrun keys` lists hkrun's, `hkrun keys MODULE:NAME` your own",
        ),
        ("seeds=3", "seeds are no key of a cell; use --seeds 3"),
        ("student.drops=[0.4", "student.drops: '[0.4' is not a TOML value"),
        ("student.epochs=30 20", "student.epochs: '30 20' is not of type integer"),
        ("augment.flip=True", "augment.flip: 'True' is not of type true or false"),
        ("loss.mu=1\nx=2", "loss.mu: '1\\nx=2' is not of type number"),
    ],
)
def test_a_wrong_override_is_refused(folder, argument, problem):
    assert problems(overrides=[argument]) == [f"argument {argument!r}: {problem}"]


def test_an_override_given_twice_must_say_the_same(folder):
    assert load_sweep("space", overrides=["loss.mu=2", "loss.mu=2"]).cells[0].cell.loss.mu == 2.0
    (line,) = problems(overrides=["loss.mu=2", "loss.mu=3"])
    assert line == "argument 'loss.mu=3': loss.mu: given twice, with different values"


# --- mistakes -----------------------------------------------------------------------------------------------


def test_every_mistake_of_both_files_and_all_arguments_is_reported_at_once(folder):
    write(
        "search_spaces/recipes/digits.toml", RECIPE.replace("epochs = 10", "epoch = 10").replace("= 4", "= 1")
    )
    write(
        "search_spaces/space.toml",
        """\
        titel = "x"
        dataset = "digits"
        seeds = [1, 1]
        student.epochs = 5

        [base]
        method = "hksank"
        loss.mu = [
            1,
        ]

        [[cells]]
        name = "a"
        loss.lambda_2 = -1

        [[cells]]
        name = "a"

        [[cells]]
        loss.lambda_2 = "x"
        """,
    )
    assert problems(seeds="x", overrides=["loss.nu=3", "student.epochs=0"]) == [
        "argument 'loss.nu=3': loss.nu: unknown key; did you mean 'loss.mu'?",
        "argument 'student.epochs=0': student.epochs: 0 is out of range; at least 1",
        "--seeds: 'x' is neither a number of seeds such as 20 nor a list such as 0,1,2",
        "search_spaces/space.toml:1: titel: unknown key; did you mean 'title'?",
        "search_spaces/space.toml:4: student: unknown key; keys of a cell belong in [base] or [[cells]]",
        "search_spaces/space.toml:3: seeds: seed 1 is repeated",
        (
            "search_spaces/space.toml:7: method: 'hksank' is not allowed; "
            f"{describe_range(keys()['method'][2])}; did you mean 'hksanc'?"
        ),
        (
            "search_spaces/space.toml:8: loss.mu: [1] is not of type number; several values are an axis, "
            "under [[axes]]"
        ),
        "search_spaces/space.toml:14: loss.lambda_2: -1 is out of range; at least 0",
        "search_spaces/space.toml:17: cells.name: 'a' is the name of another cell too",
        "search_spaces/space.toml:20: loss.lambda_2: 'x' is not of type number",
        "search_spaces/space.toml:19: cells.name: missing",
        "search_spaces/recipes/digits.toml:9: analysis.window: 1 is not an integer at least 2",
        "search_spaces/recipes/digits.toml:5: student.epoch: unknown key; did you mean 'student.epochs'?",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "dataset = digits",
            ':1: dataset: not valid TOML: Invalid value (column 11); text stands in quotes: "digits"',
        ),
        (
            "augment.flip = True  # no",
            ":1: augment.flip: not valid TOML: Invalid value (column 16); write true",
        ),
        ("seeds = range(3)", ":1: seeds: not valid TOML: Invalid value (column 9)"),
        ("dataset: digits", ":1: not valid TOML: Expected '=' after a key in a key/value pair (column 8)"),
    ],
)
def test_what_is_no_toml_is_answered_with_what_to_write(folder, text, problem):
    path = write("search_spaces/space.toml", text)
    assert problems() == [f"search_spaces/space.toml{problem}"]
    path.write_text("seeds = 1\n" + text)
    assert problems()[0].startswith("search_spaces/space.toml:2: ")


def test_values_that_are_wrong_together_are_told_beside_those_that_are_wrong_alone(folder):
    write(
        "search_spaces/space.toml",
        """
title = "x"
dataset = "digits"
seeds = 2
tittle = "x"
[[cells]]
name = "a"
student.epochs = 3
loss.lambda_1 = 0.0
loss.lambda_2 = 0.0
loss.lambda_3 = 0.0
[[cells]]
name = "b"
loss.lambda_1 = -1
loss.lambda_2 = 0.0
loss.lambda_3 = 0.0
""".lstrip(),
    )
    found = problems()
    assert found[:2] == [
        "search_spaces/space.toml:4: tittle: unknown key; did you mean 'title'?",
        "search_spaces/space.toml:13: loss.lambda_1: -1 is out of range; at least 0",
    ]
    (together,) = found[2:]  # of the cell b nothing is said: its weight is not known
    assert together.startswith("search_spaces/space.toml:8: loss.lambda_1: every loss term has weight 0")


def test_lines_that_are_no_toml_are_all_named_beside_the_other_mistakes(folder):
    write(
        "search_spaces/space.toml",
        """
title = A title
dataset = "digits"
seeds = 2
reference = "b"
tittle = "x"
[base]
method = kd
loss.lambda_1 = -1
[[cells]]
name = "a"
student.epochs = 3
student.epochs = 4
[[cells]]
name = b
loss.nu = [0.1, 0.2 0.3,
  0.4]
""".lstrip(),
    )
    assert problems() == [
        "search_spaces/space.toml:1: title: not valid TOML: Invalid value (column 9)",
        (
            "search_spaces/space.toml:7: method: not valid TOML: Invalid value (column 10); text stands in "
            'quotes: "kd"'
        ),
        "search_spaces/space.toml:12: student.epochs: not valid TOML: Cannot overwrite a value (column 19)",
        (
            "search_spaces/space.toml:14: name: not valid TOML: Invalid value (column 8); text stands in "
            'quotes: "b"'
        ),
        "search_spaces/space.toml:15: loss.nu: not valid TOML: Unclosed array (column 21)",
        "search_spaces/space.toml:5: tittle: unknown key; did you mean 'title'?",
        "search_spaces/space.toml:8: loss.lambda_1: -1 is out of range; at least 0",
    ]


def test_a_byte_order_mark_is_no_mistake(folder):
    path = Path("search_spaces/space.toml")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_sweep("space").title == "A title"


def test_what_belongs_to_the_top_but_stands_below_a_table_is_sent_there(folder):
    path = Path("search_spaces/space.toml")
    path.write_text(path.read_text().replace('reference = "plain"\n', "") + 'reference = "plain"\n')
    (line,) = problems()
    assert line == (
        "search_spaces/space.toml:16: cells.reference: belongs to the top of the file, "
        "above [base] and [[cells]]"
    )


def test_an_axis_that_changes_nothing_is_refused(folder):
    path = space_with('reference = "plain"\n', "")
    path.write_text(path.read_text() + '\n[[axes]]\nkey = "loss.temperature"\nvalues = [1.0, 2.0]\n')
    (line,) = problems()
    assert line == (
        "search_spaces/space.toml:18: axes.key: loss.temperature changes nothing in these cells: "
        "no term of theirs uses it"
    )


TWINS = """\
dataset = "digits"
seeds = 1
base.method = "kd"
[[cells]]
name = "without"
loss.lambda_3 = 0.0
[[cells]]
name = "warm"
loss.temperature = 3.5
[[cells]]
name = "with"
loss.lambda_3 = 1.0
"""


def test_cells_that_differ_in_keys_without_effect_are_named(folder):
    write("search_spaces/space.toml", TWINS)
    (line,) = describe_duplicates(load_sweep("space").cells)
    assert line == (
        "'without' and 'with' are one configuration: what they were given for loss.lambda_3 changes nothing, "
        "so no difference between them can be shown"
    )


def test_a_plan_warns_of_cells_without_a_difference_outside_of_its_document(folder, capsys):
    write("search_spaces/space.toml", TWINS)
    assert call(["sweep", "space", "--dry-run", "--json"]) == 0
    told = capsys.readouterr()
    assert len({cell["cell_id"] for cell in json.loads(told.out)["cells"]}) == 2
    assert told.err.count("'without' and 'with' are one configuration") == 1


def test_of_many_cells_without_a_difference_the_first_are_named(folder):
    cells = [f'[[cells]]\nname = "{number}"\nloss.lambda_3 = {number}.0\n' for number in range(9)]
    write("search_spaces/space.toml", TWINS[: TWINS.index("[[")] + "".join(cells))
    (line,) = describe_duplicates(load_sweep("space").cells)
    assert line.startswith("'0', '1', '2', '3', '4' and 4 more are one configuration: ")


MERGED = """\
dataset = "digits"
seeds = 1
[[cells]]
name = "plain"
loss.lambda_2 = 0.0
[[cells]]
name = "adversarial"
loss.lambda_2 = 0.5
[[cells]]
name = ["both", "all"]
loss.lambda_2 = 1.0
loss.mu = 2.0
"""


def test_an_override_that_makes_cells_one_is_refused_by_key_cells_and_values(folder):
    write("search_spaces/space.toml", MERGED)
    (line,) = problems(overrides=["loss.lambda_2=0.5"])
    assert line == (
        "argument 'loss.lambda_2=0.5': loss.lambda_2: cannot be set, for it makes one configuration of "
        "'plain' (loss.lambda_2 = 0.0) and 'adversarial' (loss.lambda_2 = 0.5)"
    )
    (line,) = problems(overrides=["loss.lambda_2=0", "loss.lambda_3=0.3"])
    assert line.startswith("argument 'loss.lambda_2=0': loss.lambda_2: cannot be set")
    assert line.endswith(
        "(loss.lambda_2 = 0.5, loss.mu = 1.0) and 'both' (loss.lambda_2 = 1.0, loss.mu = 2.0)"
    )


def test_an_override_that_merges_cells_ends_the_command_with_2(folder, capsys):
    write("search_spaces/space.toml", MERGED)
    assert call(["sweep", "space", "loss.lambda_2=0.5", "--dry-run"]) == 2
    assert "makes one configuration of 'plain'" in capsys.readouterr().err


def test_an_override_without_which_cells_would_be_one_too_is_allowed(folder, caplog):
    write("search_spaces/space.toml", MERGED)
    load_sweep("space", overrides=["loss.lambda_3=0.3"], epochs="7")
    assert not caplog.text


def test_an_override_that_replaces_different_values_says_whose(folder, caplog):
    write("search_spaces/space.toml", MERGED.replace("loss.mu = 2.0", "loss.mu = 2.0\nloss.lambda_3 = 0.7"))
    sweep = load_sweep("space", overrides=["loss.mu=3"])
    assert len({cell_id(named.cell) for named in sweep.cells}) == 3
    (message,) = caplog.messages
    assert message == (
        "argument 'loss.mu=3': loss.mu: replaces 1.0 of 'plain', 1.0 of 'adversarial', 2.0 of 'both', 2.0 of "
        "'all'"
    )


@pytest.mark.parametrize(
    ("place", "where"),
    [
        ("base", "search_spaces/space.toml:3"),
        ("cell", "search_spaces/space.toml:6"),
        ("override", "argument 'loss.lambda_3=0.5'"),
    ],
)
def test_a_key_that_changes_nothing_in_any_cell_is_named_wherever_it_stands(folder, caplog, place, where):
    lines = ['dataset = "digits"', "seeds = 1", 'base.method = "kd"', "[[cells]]", 'name = "x"']
    if place == "base":
        lines[2] = 'base = {method = "kd", loss.lambda_3 = 0.5}'
    write("search_spaces/space.toml", "\n".join(lines + ["loss.lambda_3 = 0.5"] * (place == "cell")) + "\n")
    load_sweep("space", overrides=["loss.lambda_3=0.5"] if place == "override" else [])
    assert caplog.messages == [
        f"{where}: loss.lambda_3: changes nothing in any cell of this sweep: no term of theirs uses it"
    ]


def test_a_key_that_changes_nothing_in_a_single_run_is_named(folder, caplog):
    load_cell(overrides=["method=kd", "loss.lambda_3=10.0"])
    assert [message.split(": changes")[0] for message in caplog.messages] == [
        "argument 'loss.lambda_3=10.0': loss.lambda_3"
    ]


def test_a_key_that_changes_one_cell_is_not_idle(folder, caplog):
    write("search_spaces/space.toml", MERGED.replace("seeds = 1", "seeds = 1\nbase.loss.mu = 0.5"))
    load_sweep("space")
    assert not caplog.text


@pytest.mark.parametrize("dataset", [None, "digits", "cifar10"])
@pytest.mark.parametrize("name", sorted(path.stem for path in (REPOSITORY / "search_spaces").glob("*.toml")))
def test_no_shipped_search_space_has_idle_keys(name, dataset, caplog):
    load_sweep(str(REPOSITORY / "search_spaces" / f"{name}.toml"), dataset=dataset)
    assert not caplog.text


def test_several_names_for_the_same_values_are_on_purpose(folder):
    write("search_spaces/space.toml", TWINS.replace("loss.lambda_3 = 1.0", "loss.lambda_3 = 0"))
    sweep = load_sweep("space")
    assert len({cell_id(named.cell) for named in sweep.cells}) == 2
    assert list(describe_duplicates(sweep.cells)) == []


@pytest.mark.parametrize("name", sorted(path.stem for path in (REPOSITORY / "search_spaces").glob("*.toml")))
def test_no_shipped_search_space_has_cells_without_a_difference(name):
    sweep = load_sweep(str(REPOSITORY / "search_spaces" / f"{name}.toml"))
    assert list(describe_duplicates(sweep.cells)) == []


def test_a_table_or_claim_that_the_paper_does_not_have_is_refused(folder):
    space_with("[base]", "[published]\ntable = 'table9'\nclaims = ['mu-two']\n[base]")
    table, claim = problems()
    assert table.startswith(
        "search_spaces/space.toml:8: published.table: 'table9' is not in the paper; one of table1,"
    )
    assert claim.startswith(
        "search_spaces/space.toml:9: published.claims: 'mu-two' is not in the paper; one of hierarchy,"
    )
    assert claim.endswith("did you mean 'mu-one'?")


def test_a_name_in_other_letters_is_recognised(folder):
    space_with('"hksanc"', '"HKSANC"')
    assert problems()[0].endswith("; did you mean 'hksanc'?")


def test_a_reference_that_is_no_cell_is_told_with_the_other_problems(folder):
    space_with('= "plain"\n\n[base]', '= "plan"\n\n[analysis]\nwindw = 4\nmargin = -1\n\n[base]')
    assert [line.split(": ")[1] for line in problems()] == ["analysis.windw", "analysis.margin", "reference"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('dataset = "digits"\n', "", "space.toml: dataset: missing; name it here or give --dataset"),
        ("seeds = 3\n", "", "space.toml: seeds: missing; a number such as 20 here, or --seeds"),
        ('"digits"', '"digit"', "space.toml:3: dataset: 'digit' is not allowed; one of digits, mnist5k,"),
        ('"digits"', "3", "space.toml:3: dataset: 3 is not of type string"),
        (
            '= "plain"\n\n[base]',
            '= "plan"\n\n[base]',
            "space.toml:5: reference: 'plan' is no cell; cells: plain and with",
        ),
        (
            "[base]",
            "[analysis]\nwindow = 1\n[base]",
            "space.toml:8: analysis.window: 1 is not an integer at least 2",
        ),
        (
            "[base]",
            "[analysis]\nddof = 2\n[base]",
            "space.toml:8: analysis.ddof: 2 is not an integer from 0 to 1",
        ),
        (
            "[base]",
            "[analysis]\ns2_factor = 1\n[base]",
            "space.toml:8: analysis.s2_factor: 1 is not",
        ),
        (
            "[base]",
            "[analysis]\nddof = true\n[base]",
            "space.toml:8: analysis.ddof: True is not an integer from 0",
        ),
        (
            "[base]",
            "[analysis]\nwindw = 3\n[base]",
            "space.toml:8: analysis.windw: unknown key; did you mean 'window'",
        ),
        (
            "[base]",
            "[published]\ntable = 5\n[base]",
            "space.toml:8: published.table: 5 is not a line of text",
        ),
        (
            "[base]",
            "[base.student]\nepoch = 3\n[base]",
            "space.toml:8: student.epoch: unknown key; did you mean",
        ),
        ("[base]", "[base.studnt]\n[base]", "space.toml:7: studnt: unknown key; did you mean"),
        (
            "[base]",
            '[base]\ndataset = "digits"',
            "space.toml:8: base.dataset: all cells of a search space share one",
        ),
        ('[base]\nmethod = "hksanc"', "base = 3", "space.toml:7: base: must be a table, [base]"),
        ('"A title"', '"two\\nlines"', "space.toml:1: title: 'two\\nlines' is not a line of text"),
        ('name = "plain"', 'name = " "', "space.toml:11: cells.name: ' ' is not a line of text"),
    ],
)
def test_a_mistake_in_a_space_is_named_with_its_line(folder, old, new, problem):
    space_with(old, new)
    assert any(problem in line for line in problems()), problems()


def test_a_space_without_cells_is_refused(folder):
    write("search_spaces/space.toml", 'dataset = "digits"\nseeds = 1\n')
    assert problems() == [
        "search_spaces/space.toml: cells: missing; each configuration stands under its own [[cells]]"
    ]
    write("search_spaces/space.toml", 'dataset = "digits"\nseeds = 1\n[cells]\nname = "a"\n')
    assert problems() == ["search_spaces/space.toml:3: cells: must be tables, each under its own [[cells]]"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("[analysis]\nwindow = 4\n", "", "analysis.window: missing; how many last epochs"),
        (
            "[student]",
            'dataset = "digits"\n[student]',
            "3: dataset: a recipe is for the data set that its file",
        ),
        (
            'label = "not run here"',
            "",
            "13: evidence.teacher_error_pct.label: must be measured (date, machine),",
        ),
        (
            '"not run here"',
            '"measured"',
            "13: evidence.teacher_error_pct.label: must be measured (date, machine),",
        ),
        (
            'label = "not',
            'value = 3, label = "not',
            "13: evidence.teacher_error_pct.value: belongs to every figure",
        ),
        ("value = 2.0, ", "", "12: evidence.seconds_per_run.value: belongs to every figure"),
        (
            "epochs = 10",
            "epochs = 10\nwarmup_epochs = 10",
            "6: student.warmup_epochs: must be below student.epochs",
        ),
    ],
)
def test_a_mistake_in_a_recipe_is_named_with_its_line(folder, old, new, problem):
    assert old in RECIPE
    write("search_spaces/recipes/digits.toml", RECIPE.replace(old, new))
    assert any(problem in line and "recipes/digits.toml" in line for line in problems()), problems()


def test_values_that_do_not_go_together_are_named_where_they_were_written(folder):
    space_with("loss.mu = 0.5", "loss.lambda_1 = 0\nloss.lambda_2 = 0\nloss.lambda_3 = 0")
    problem = "loss.lambda_1: every loss term has weight 0; at least one must be above 0"
    assert problems() == [f"search_spaces/space.toml:16: {problem}"]
    (line,) = problems(overrides=["loss.lambda_1=0", "loss.lambda_2=0", "loss.lambda_3=0"])
    assert line.startswith("argument 'loss.lambda_1=0': loss.lambda_1: every loss term has weight 0")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('title = "x"\nseeds = = 3\n', ":2: seeds: not valid TOML: Invalid value (column 9)"),
        ('title = "x"\nseeds = [1,\n', ":2: not valid TOML: "),
        ("[base]\nx = 1\nx = 2\n", ":3: x: not valid TOML: Cannot overwrite a value (column 6)"),
    ],
)
def test_a_syntax_error_is_named_with_its_line_beside_the_mistakes_in_arguments(folder, text, problem):
    write("search_spaces/space.toml", text)
    first, second, *_ = problems(overrides=["loss.nu=1"])
    assert "loss.nu" in first
    assert second.startswith(f"search_spaces/space.toml{problem}")


def test_a_file_that_is_no_text_is_refused(folder):
    Path("search_spaces/space.toml").write_bytes(b"title = '\xff'")
    assert problems() == ["search_spaces/space.toml: not a text file in UTF-8"]


# --- where files are found ----------------------------------------------------------------------------------


def test_an_unknown_name_lists_what_there_is_and_the_nearest(folder):
    (line,) = problems("spac")
    assert line.startswith("spac: no such search space; give the path of a .toml file or one of: ")
    assert "space, stability" in line
    assert line.endswith("did you mean 'space'?")
    assert problems("no/such.toml") == ["no/such.toml: no such file"]
    assert problems("no.toml") == ["no.toml: no such file"]


def test_the_working_directory_comes_before_the_package(folder):
    assert load_sweep("stability").title == "Convergence stability"
    shutil.copy("search_spaces/space.toml", "search_spaces/stability.toml")
    assert load_sweep("stability").title == "A title"
    assert sweep_names() == sorted({"space", *sweep_names()})


def test_a_file_may_lie_anywhere_and_bring_its_recipes(folder, tmp_path):
    path = write(tmp_path / "elsewhere" / "mine.toml", SPACE.replace("tiny", "digits"))
    assert load_sweep(str(path)).recipe.window == 4
    write(tmp_path / "elsewhere" / "recipes" / "digits.toml", RECIPE.replace("window = 4", "window = 8"))
    assert load_sweep(str(path)).recipe.window == 8
    assert load_sweep(str(path)).name == "mine"


def test_a_files_name_must_be_fit_for_a_folder_of_the_store(folder):
    path = write("odd name.toml", SPACE.replace("tiny", "digits"))
    assert problems(str(path)) == ["odd name.toml: the name must be of letters, digits, '.', '_' and '-'"]


# --- one cell -----------------------------------------------------------------------------------------------


def test_a_single_cell_is_the_recipe_with_overrides(folder):
    sweep = load_cell(overrides=["method=supervised", "student.epochs=5"], seeds="2")
    (named,) = sweep.cells
    assert named.name == "digits [method=supervised, student.epochs=5]"
    assert (named.cell.method, named.cell.student.epochs, named.cell.student.network) == (
        "supervised",
        5,
        "preact-8-w8",
    )
    assert sweep.seeds == (0, 1)
    assert sweep.name == f"run-{cell_id(named.cell)}"
    assert load_cell().cells[0].name == "digits"
    assert load_cell().seeds == (0,)


def test_all_mistakes_of_a_single_cell_are_reported(folder):
    with pytest.raises(InputError) as caught:
        load_cell(dataset="digit", seeds="x", overrides=["loss.nu=1"])
    assert [line.partition(":")[0] for line in caught.value.problems] == [
        "--dataset",
        "argument 'loss.nu=1'",
        "--seeds",
    ]


# --- documents ----------------------------------------------------------------------------------------------


def test_a_sweep_survives_the_store(folder):
    sweep = with_content(load_sweep("space", overrides=["student.drops=[0.3, 0.6]"]), "ab" * 32)
    text = json.dumps(sweep_document(sweep))
    assert restore_sweep(json.loads(text), where="plan.json") == sweep
    assert {named.cell.dataset_sha256 for named in sweep.cells} == {"ab" * 32}


def test_a_document_of_another_version_is_refused_with_what_is_unknown(folder):
    document = sweep_document(load_sweep("space"))
    document["cells"][0]["cell"]["loss.eta"] = 1.0
    with pytest.raises(InputError, match=r"^plan.json: loss.eta: unknown key"):
        restore_sweep(document, where="plan.json")


# --- line numbers -------------------------------------------------------------------------------------------


def test_lines_are_found_in_every_form_that_toml_has():
    text = textwrap.dedent(
        '''\
        # comment with [brackets] = and "quotes
        plain = 1  # [not.a.table]
        "quoted key".'b c' = """
        [not.a.table]
        x = 1 \\""" still
        """""
        literal = \'\'\'
        y = 'quoted'
        \'\'\'
        array = [  # comment ]
          1, [2,
              3], { a = "]", b.c = 4 },
        ]

        [table . "dotted" ]
        date = 1979-05-27 07:32:00
        inline = { first = [1, 2], second = { third = "}" } }

        [[tables]]
        name = "one"
        [tables.inner]
        x = 1
        [[tables.deep]]
        y = 1
        [[tables.deep]]
        y = 2

        [[tables]]
        inner.x = 2
        inner.z = "#"
        '''
    )
    lines = locate(text)
    expected = {
        ("plain",): 2,
        ("quoted key", "b c"): 3,
        ("literal",): 7,
        ("array",): 10,
        ("array", 0): 11,
        ("array", 1): 11,
        ("array", 1, 1): 12,
        ("array", 2): 12,
        ("array", 2, "b", "c"): 12,
        ("table", "dotted"): 15,
        ("table", "dotted", "date"): 16,
        ("table", "dotted", "inline", "second", "third"): 17,
        ("tables",): 19,
        ("tables", 0): 19,
        ("tables", 0, "name"): 20,
        ("tables", 0, "inner"): 21,
        ("tables", 0, "inner", "x"): 22,
        ("tables", 0, "deep", 0, "y"): 24,
        ("tables", 0, "deep", 1): 25,
        ("tables", 0, "deep", 1, "y"): 26,
        ("tables", 1): 28,
        ("tables", 1, "inner"): 29,
        ("tables", 1, "inner", "z"): 30,
    }
    assert {path: lines.get(path) for path in expected} == expected


def every_path(value, path=()):
    """The path of every key and array element of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from every_path(item, (*path, key))


@pytest.mark.parametrize(
    "path",
    [*sorted((REPOSITORY / "search_spaces").rglob("*.toml")), REPOSITORY / "pyproject.toml"],
    ids=lambda path: path.name,
)
def test_every_key_of_real_files_has_a_line_that_shows_it(path):
    document = read_document(path)
    lines = path.read_text().splitlines()
    for key in every_path(document.data):
        where = document.lines[key]
        if isinstance(key[-1], str):
            assert key[-1] in lines[where - 1], key
