import dataclasses
import hashlib
import itertools
import json

import pytest

from hkrun.config import (
    Cell,
    LossConfig,
    Setting,
    build_cell,
    canonical,
    canonical_json,
    cell_from_values,
    cell_id,
    cell_values,
    check_setting,
    describe_range,
    describe_type,
    keys,
    teacher_canonical,
    teacher_id,
    teachers_id,
)
from hkrun.errors import InputError

# The keys of contracts.md that this version has.
CONTRACT_KEYS = {
    "": ("dataset", "method", "precision", "teacher_table", "sync_batchnorm"),
    "teacher.": (
        *("network", "seed", "seeds", "students", "file", "backbone", "epochs", "batch_size"),
        *("learning_rate", "drops"),
        "warmup_epochs",
    ),
    "student.": (
        *("network", "file", "epochs", "batch_size", "learning_rate", "momentum", "weight_decay"),
        *("drops", "drop_factor", "warmup_epochs", "steps", "first_stage"),
        "first_stage_learning_rate",
    ),
    "discriminator.": ("learning_rate", "steps", "dropout"),
    "attention.": ("connection", "pool", "tap", "width"),
    "knowledge.": ("form", "tap", "relative"),
    "loss.": (
        *(
            "lambda_1",
            "lambda_2",
            "lambda_3",
            "cross_entropy",
            "kd",
            "mu",
            "reduction",
            "distance",
            "gan",
            "category",
        ),
        *("regularizer", "reg_reduction", "alpha", "temperature"),
    ),
    "quantization.": ("scale_gradient", "center", "clamp", "scale_rate", "uniform_start"),
    "augment.": ("padding", "flip", "size"),
}

# What the paper prescribes for CIFAR; method.md gives the defaults of the points on which it is silent.
PAPER = {
    "method": "hksanc",
    "teacher.network": "preact-164",
    "teacher.warmup_epochs": 0,
    "student.network": "preact-20",
    "student.epochs": 600,
    "student.batch_size": 64,
    "student.learning_rate": 0.1,
    "student.momentum": 0.9,
    "student.weight_decay": 1e-4,
    "student.drops": (0.4, 0.8),
    "student.drop_factor": 0.1,
    "student.steps": 1,
    "discriminator.learning_rate": 1e-3,
    "discriminator.steps": 1,
    "attention.connection": "hierarchical",
    "attention.pool": "sum",
    "attention.tap": "bn_relu",
    "attention.width": "auto",
    "loss.lambda_1": 1.0,
    "loss.lambda_2": 1.0,
    "loss.lambda_3": 1.0,
    "loss.mu": 1.0,
    "loss.reduction": "mean",
    "loss.distance": "l2",
    "loss.gan": "non_saturating",
    "loss.category": True,
    "loss.regularizer": True,
    "loss.reg_reduction": "mean",
    "augment.padding": 4,
    "augment.flip": True,
    "augment.size": 224,
}


A_SECTION = "unknown key; it is a section, its keys are "


def make_cell(**values):
    return cell_from_values({key.replace("__", "."): value for key, value in values.items()})


def problems_of(key, value):
    return check_setting(Setting(key=key, value=value, where="here"))[1]


# --- keys ---------------------------------------------------------------------------------------------------


def test_the_keys_are_those_of_the_contract():
    assert set(keys()) == {section + name for section, names in CONTRACT_KEYS.items() for name in names}


def test_every_key_has_a_sentence_and_a_source_and_a_default_that_it_accepts():
    for key, (kind, default, info) in keys().items():
        assert info.doc.endswith(".") or info.choices, key
        assert info.source, key
        assert describe_type(kind), key
        assert check_setting(Setting(key=key, value=default, where="")) == (default, []), key


def test_the_defaults_are_the_papers():
    assert {key: value for key, value in cell_values(Cell()).items() if key in PAPER} == PAPER


def test_a_cell_and_its_values_are_the_same_thing():
    cell = make_cell(method="supervised", student__drops=(0.5,), augment__flip=False)
    assert cell_from_values(cell_values(cell)) == cell
    assert cell.student.drops == (0.5,)


# --- checks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("student.lerning_rate", 1, "unknown key; did you mean 'student.learning_rate'?"),
        ("epochs", 1, "unknown key; did you mean 'teacher.epochs' or 'student.epochs'?"),
        ("student.gan", 1, "unknown key; did you mean 'loss.gan'?"),
        ("zzz", 1, "unknown key; `hkrun keys` lists hkrun's, `hkrun keys MODULE:NAME` your own"),
        ("augment", 1, A_SECTION + "augment.padding, augment.flip, augment.size"),
        ("dataset_sha256", "", "unknown key; did you mean 'dataset'?"),
        ("student.epochs", "many", "'many' is not of type integer"),
        ("student.epochs", 1.0, "1.0 is not of type integer"),
        ("student.epochs", True, "true is not of type integer"),
        ("student.epochs", 0, "0 is out of range; at least 1"),
        ("student.momentum", 1.0, "1.0 is out of range; at least 0 and below 1"),
        ("student.momentum", True, "true is not of type number"),
        ("student.learning_rate", 0, "0 is out of range; above 0"),
        ("student.learning_rate", float("nan"), "nan is out of range; above 0"),
        ("student.learning_rate", 10**400, "is out of range; above 0"),
        ("student.drops", 0.4, "0.4 is not of type list of numbers"),
        ("student.drops", [0.4, "x"], "[0.4, 'x'] is not of type list of numbers"),
        ("student.drops", [0.4, 1.0], "[0.4, 1.0] is out of range; above 0 and below 1, increasing"),
        ("student.drops", [0.4, 0.4], "[0.4, 0.4] must be strictly increasing"),
        ("augment.padding", 17, "17 is out of range; at least 0 and at most 16"),
        ("augment.flip", 1, "1 is not of type true or false"),
        ("loss.gan", "saturated", "one of non_saturating, saturating; did you mean 'saturating'?"),
        ("student.network", "preact-21", "a preact network has depth 6n+2; the nearest is 'preact-20'"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_one_line_with_place_key_problem_and_what_is_allowed(key, value, problem):
    (line,) = problems_of(key, value)
    assert line.startswith(f"here: {key}: ")
    assert line.endswith(problem)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("loss.mu", 1, 1.0),
        ("student.drops", [], ()),
        ("student.drops", [0.5], (0.5,)),
        ("student.momentum", 0, 0.0),
        ("student.drop_factor", 1, 1.0),
    ],
)
def test_a_value_is_taken_in_the_type_of_its_key(key, value, expected):
    value, problems = check_setting(Setting(key=key, value=value, where="here"))
    assert (value, problems) == (expected, [])
    assert type(value) is type(expected)


def test_all_problems_of_all_settings_are_reported_at_once():
    settings = [
        Setting(key="student.epochs", value=0, where="a:1"),
        Setting(key="student.epoch", value=3, where="a:2"),
        Setting(key="loss.mu", value="x", where="b:3"),
        Setting(key="student.network", value="preact-20", where="b:4"),
    ]
    with pytest.raises(InputError) as caught:
        build_cell(settings)
    assert [line.split(": ")[:2] for line in caught.value.problems] == [
        ["a:1", "student.epochs"],
        ["a:2", "student.epoch"],
        ["b:3", "loss.mu"],
    ]


def test_later_settings_win():
    settings = [
        Setting(key="student.epochs", value=3, where="recipe"),
        Setting(key="student.epochs", value=5, where="argument"),
    ]
    assert build_cell(settings).student.epochs == 5


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (
            {"loss.lambda_1": 0, "loss.lambda_2": 0, "loss.lambda_3": 0},
            "here: loss.lambda_1: every loss term has weight 0; at least one must be above 0",
        ),
        (
            {"student.epochs": 5, "student.warmup_epochs": 5},
            "here: student.warmup_epochs: must be below student.epochs = 5",
        ),
        (
            {"method": "anc", "loss.lambda_1": 0},
            "here: loss.lambda_1: must be above 0: without it nothing in anc trains the classifier",
        ),
        ({"teacher.file": "no/such.pt"}, "here: teacher.file: no/such.pt: no such file"),
        ({"student.file": "no/such.pt"}, "here: student.file: no/such.pt: no such file"),
        (
            {"teacher.file": "torchvision"},
            (
                "here: teacher.file: torchvision has no weights of preact-164; "
                "it has of resnet-18, resnet-50, resnet-152 and most torchvision:NAME"
            ),
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(values, problem):
    with pytest.raises(InputError) as caught:
        build_cell(Setting(key=key, value=value, where="here") for key, value in values.items())
    assert caught.value.problems == [problem]


def test_what_only_a_teacher_needs_is_not_asked_of_cells_without_one():
    values = {"method": "supervised", "teacher.file": "no/such.pt", "teacher.warmup_epochs": 600}
    cell = build_cell(Setting(key=key, value=value, where="here") for key, value in values.items())
    assert not cell.uses_teacher


def test_ranges_are_described_as_they_are_checked():
    assert describe_range(keys()["student.drop_factor"][2]) == "above 0 and at most 1"
    assert describe_range(keys()["loss.category"][2]) == ""


# --- identity -----------------------------------------------------------------------------------------------


def test_the_id_is_the_start_of_the_sha256_of_sorted_compact_json():
    cell = make_cell(loss__mu=0.1)
    form = json.loads(canonical_json(cell))
    again = json.dumps(form, sort_keys=True, separators=(",", ":"))
    assert again == canonical_json(cell)
    assert '"loss.mu":0.1,' in again
    assert cell_id(cell) == hashlib.sha256(again.encode()).hexdigest()[:12]


LITERAL = {
    f"quantization__{trick}": False
    for trick in ("scale_gradient", "center", "clamp", "scale_rate", "uniform_start")
}


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (Cell(), "adea1fbb0858"),
        (make_cell(teacher_table="off"), "bcb3610a2aaf"),
        (make_cell(method="supervised"), "b9470616da6a"),
        (make_cell(method="kd"), "e033425d31ae"),
        (make_cell(method="fitnets"), "9d613e9da8c0"),
        (make_cell(method="ttq"), "ac1b9ce2dbda"),
        (make_cell(method="bwn"), "0c743a01b8dc"),
        (make_cell(method="xnor"), "eeed29bb2e68"),
        (make_cell(method="binary_connect"), "6ac93b4ff3ad"),
        # Stores are older than the keys of the authors' training: what they hold was trained without it.
        (make_cell(method="bwn", **LITERAL), "42a364387cc0"),
        (make_cell(method="xnor", **LITERAL), "793f9593d34a"),
        (make_cell(method="binary_connect", **LITERAL), "22957caf5c35"),
    ],
)
def test_ids_never_change(cell, expected):
    """Runs are found by these: another canonical form makes all earlier ones unreachable."""
    assert cell_id(cell) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset", "mnist5k"),
        ("method", "supervised"),
        ("precision", "float64"),
        ("teacher_table", "float16"),
        ("sync_batchnorm", False),
        ("teacher.network", "preact-20"),
        ("teacher.seed", 1),
        ("teacher.backbone", "shared"),
        ("teacher.epochs", 500),
        ("teacher.batch_size", 32),
        ("teacher.learning_rate", 0.05),
        ("teacher.drops", (0.5,)),
        ("teacher.warmup_epochs", 5),
        ("student.network", "preact-26"),
        ("student.epochs", 500),
        ("student.batch_size", 32),
        ("student.learning_rate", 0.05),
        ("student.momentum", 0.5),
        ("student.weight_decay", 0.0),
        ("student.drops", (0.5,)),
        ("student.drop_factor", 0.2),
        ("student.warmup_epochs", 5),
        ("student.steps", 2),
        ("discriminator.learning_rate", 0.01),
        ("discriminator.steps", 2),
        ("attention.connection", "original"),
        ("attention.pool", "avg"),
        ("attention.tap", "raw"),
        ("loss.lambda_1", 0.5),
        ("loss.lambda_2", 0.5),
        ("loss.lambda_3", 0.5),
        ("loss.mu", 0.5),
        ("loss.reduction", "sum"),
        ("loss.distance", "l1"),
        ("loss.gan", "saturating"),
        ("loss.category", False),
        ("loss.regularizer", False),
        ("loss.reg_reduction", "sum"),
        ("augment.padding", 2),
        ("augment.flip", False),
    ],
)
def test_every_switch_that_changes_numbers_changes_the_id(key, value):
    assert cell_id(cell_from_values({key: value})) != cell_id(Cell())


@pytest.mark.parametrize(
    ("methods", "tricks"),
    [
        (("bwn", "xnor"), {"scale_gradient", "center", "clamp"}),
        (("binary_connect",), {"scale_rate", "uniform_start"}),
        (("ttq", "supervised", "hksanc"), set()),
    ],
)
def test_each_trick_of_one_bit_training_changes_the_ids_of_the_methods_that_read_it(methods, tricks):
    for method, key in itertools.product(methods, LITERAL):
        changed = cell_id(make_cell(method=method, **{key: False})) != cell_id(make_cell(method=method))
        assert changed == (key.removeprefix("quantization__") in tricks), (method, key)


def test_students_that_start_from_a_file_have_no_uniform_start(tmp_path):
    file = tmp_path / "weights.pt"
    file.write_bytes(b"weights")
    cells = [
        make_cell(method="binary_connect", student__file=str(file), quantization__uniform_start=uniform)
        for uniform in (True, False)
    ]
    assert cell_id(cells[0]) == cell_id(cells[1])


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({}, ("logits", "knowledge")),
        ({"loss__lambda_3": 0.0}, ("logits",)),
        ({"loss__lambda_1": 0.0, "loss__lambda_2": 0.0}, ("knowledge",)),
        ({"method": "kd"}, ("logits",)),
        ({"method": "kd", "loss__alpha": 0.0}, ()),
        ({"method": "tscan"}, ("logits",)),
        ({"method": "anc"}, ("logits", "descriptor")),
        ({"method": "anc", "loss__lambda_2": 0.0}, ("logits",)),
        ({"knowledge__form": "at"}, ("logits", "attention_maps")),
        *(({"knowledge__form": form}, ()) for form in ("fsp", "nst", "vid")),
        *(({"method": method}, ()) for method in ("fsp", "fitnets", "supervised", "bwn")),
        ({"dataset": "imagenet"}, ()),
    ],
)
def test_a_table_holds_what_the_terms_compare_unless_it_is_whole_feature_maps(values, parts):
    assert make_cell(**values).table_parts == parts


def test_keys_that_cannot_change_the_result_are_not_in_the_id():
    supervised = make_cell(method="supervised")
    assert cell_id(supervised) == cell_id(make_cell(method="supervised", teacher__seed=3, loss__mu=9.0))
    assert not [
        key for key in canonical(supervised) if key.startswith(("teacher", "attention", "loss", "disc"))
    ]

    flows = make_cell(knowledge__form="fsp")
    assert cell_id(flows) == cell_id(make_cell(knowledge__form="fsp", teacher_table="float16"))

    without_adversarial = make_cell(loss__lambda_2=0.0)
    assert cell_id(without_adversarial) == cell_id(
        make_cell(loss__lambda_2=0.0, loss__gan="saturating", loss__mu=0.5, discriminator__steps=3)
    )
    without_knowledge = make_cell(loss__lambda_3=0.0)
    assert cell_id(without_knowledge) == cell_id(make_cell(loss__lambda_3=0.0, loss__distance="l1"))
    without_regularizer = make_cell(loss__regularizer=False)
    assert cell_id(without_regularizer) == cell_id(
        make_cell(loss__regularizer=False, loss__mu=0.5, loss__reg_reduction="sum")
    )


def test_a_number_has_one_id_however_it_is_written():
    written = [Setting(key="loss.mu", value=value, where="") for value in (2, 2.0)]
    assert len({cell_id(build_cell([setting])) for setting in written}) == 1
    zeros = [Setting(key="student.weight_decay", value=value, where="") for value in (0, 0.0, -0.0)]
    assert len({cell_id(build_cell([setting])) for setting in zeros}) == 1


def test_widths_that_agree_are_one_configuration_whatever_the_key_says():
    ids = {cell_id(make_cell(attention__width=width)) for width in ("auto", "student", "project")}
    assert len(ids) == 1
    narrow = {
        width: cell_id(make_cell(student__network="preact-8-w8", attention__width=width))
        for width in ("auto", "student", "project")
    }
    assert narrow["auto"] == narrow["student"] != narrow["project"]


def test_a_teacher_file_is_known_by_its_content(tmp_path):
    first, copy, other = (tmp_path / name for name in ("a.pt", "b.pt", "c.pt"))
    first.write_bytes(b"weights")
    copy.write_bytes(b"weights")
    other.write_bytes(b"others")
    ids = [cell_id(make_cell(teacher__file=str(path))) for path in (first, copy, other)]
    assert ids[0] == ids[1] != ids[2]
    first.write_bytes(b"changed")
    assert cell_id(make_cell(teacher__file=str(first))) != ids[0]


def test_a_student_file_is_known_by_its_content_and_only_where_it_is_set(tmp_path):
    first, copy, other = (tmp_path / name for name in ("a.pt", "b.pt", "c.pt"))
    first.write_bytes(b"weights")
    copy.write_bytes(b"weights")
    other.write_bytes(b"others")
    cells = [make_cell(student__file=str(path)) for path in (first, copy, other)]
    assert cell_id(cells[0]) == cell_id(cells[1]) != cell_id(cells[2])
    assert cell_id(cells[0]) != cell_id(Cell())
    assert "student.file" not in canonical(Cell())
    # The teacher knows nothing of the student's weights: all of them share one.
    assert {teacher_id(cell) for cell in cells} == {teacher_id(Cell())}
    network = {"teacher__network": "resnet-152", "student__network": "resnet-18"}
    form = canonical(make_cell(student__file="torchvision", **network))
    assert form["student.file"] == "resnet18-f37072fd.pth"


def test_torchvision_s_weights_are_known_by_their_file():
    network = {"teacher__network": "resnet-152", "student__network": "resnet-18"}
    form = canonical(make_cell(teacher__file="torchvision", **network))
    assert form["teacher.file"] == "resnet152-394f9c45.pth"


def test_networks_of_unequally_many_stages_leave_the_teacher_as_it_is_alone():
    alone = make_cell(method="kd", teacher__network="wrn-40-2", student__network="wrn-40-2")
    for width in ("auto", "student", "project"):
        cell = make_cell(
            method="kd", teacher__network="wrn-40-2", student__network="vgg8", attention__width=width
        )
        assert cell.squeeze_widths == (32, 64, 128)
        assert canonical(cell)["attention.width"] == "native"
        assert teacher_id(cell) == teacher_id(alone)


def test_images_have_a_size_on_imagenet_and_a_padding_elsewhere():
    for dataset, key in (("imagenet", "augment.size"), ("digits", "augment.padding")):
        (other,) = {"augment.size", "augment.padding"} - {key}
        form = canonical(make_cell(dataset=dataset))
        assert key in form
        assert other not in form


@pytest.mark.parametrize("dataset", ["folder", "imagenet"])
def test_the_content_of_a_data_set_is_part_of_the_id(dataset):
    cell = make_cell(dataset=dataset)
    assert cell_id(cell) != cell_id(dataclasses.replace(cell, dataset_sha256="1" * 64))
    assert teacher_id(cell) != teacher_id(dataclasses.replace(cell, dataset_sha256="1" * 64))


def test_the_number_of_workers_is_in_the_id_only_without_synchronised_batchnorm():
    assert cell_id(Cell(), world_size=2) == cell_id(Cell())
    apart = make_cell(sync_batchnorm=False)
    assert cell_id(apart, world_size=2) != cell_id(apart, world_size=1)


# --- teachers -----------------------------------------------------------------------------------------------


def test_cells_that_differ_in_the_student_or_its_loss_share_a_teacher():
    cells = [
        Cell(),
        make_cell(loss__lambda_2=0.0),
        make_cell(loss__lambda_3=0.0, loss__reduction="sum"),
        make_cell(student__epochs=5, student__learning_rate=0.01),
        make_cell(student__network="preact-26", attention__width="project"),
    ]
    assert len({teacher_id(cell) for cell in cells}) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"dataset": "mnist5k"},
        {"precision": "float64"},
        {"teacher.seed": 1},
        {"teacher.network": "preact-20"},
        {"attention.connection": "original"},
        {"augment.padding": 1},
        {
            "student.network": "preact-8-w8"
        },  # the estimator inside the teacher projects to the student's widths
    ],
)
def test_what_changes_the_teachers_weights_makes_another_teacher(values):
    assert teacher_id(cell_from_values(values)) != teacher_id(Cell())


def test_only_a_projection_inside_the_teacher_ties_it_to_the_students_widths():
    projecting = make_cell(student__network="preact-8-w8", attention__width="project")
    assert teacher_id(projecting) == teacher_id(make_cell(attention__width="project"))
    form = teacher_canonical(make_cell(student__network="preact-8-w8"))
    assert form["squeeze_widths"] == [8, 16, 32]


def test_a_teacher_for_each_seed_is_another_cell_whose_teachers_are_those_of_one():
    assert "teacher.seeds" not in canonical(Cell())
    paired = make_cell(teacher__seeds="paired", teacher__seed=3)
    assert canonical(paired)["teacher.seeds"] == "paired"
    assert cell_id(paired) != cell_id(make_cell(teacher__seed=3))
    assert teacher_id(paired.with_teacher_of(2)) == teacher_id(make_cell(teacher__seed=5))
    assert paired.with_teacher_of(2) == make_cell(teacher__seed=5)
    assert Cell().with_teacher_of(2) == Cell()
    with pytest.raises(ValueError, match="several teachers"):
        teacher_id(paired)


def test_students_of_one_teacher_are_consecutive_seeds():
    shared = make_cell(teacher__seeds="paired", teacher__students=4)
    assert [shared.with_teacher_of(seed).teacher.seed for seed in range(9)] == [0] * 4 + [1] * 4 + [2]
    assert canonical(shared)["teacher.students"] == 4
    assert "teacher.students" not in canonical(make_cell(teacher__seeds="paired"))


def test_all_teachers_of_a_cell_have_an_id_that_knows_their_first_seed_and_their_students():
    assert teachers_id(Cell()) == teacher_id(Cell())
    paired = make_cell(teacher__seeds="paired", teacher__seed=3, teacher__students=2)
    common, first, students = teachers_id(paired).split("-")
    assert (first, students) == ("3", "2")
    assert teachers_id(make_cell(teacher__seeds="paired")) == f"{common}-0-1"
    assert teachers_id(make_cell(teacher__seeds="paired", loss__lambda_2=0.0)) == f"{common}-0-1"
    assert not teachers_id(make_cell(teacher__seeds="paired", teacher__epochs=7)).startswith(common)


def test_a_cell_without_a_teacher_has_none_for_its_seeds():
    alone = make_cell(method="supervised", teacher__seeds="paired")
    assert cell_id(alone) == cell_id(make_cell(method="supervised"))
    assert not alone.has_teachers


def test_one_backbone_makes_no_several_teachers():
    values = {"teacher.seeds": "paired", "teacher.file": "backbone.pt"}
    with pytest.raises(InputError, match=r"teacher\.seeds: paired needs teachers trained here"):
        build_cell([Setting(key=key, value=value, where="argument") for key, value in values.items()])


def test_students_of_each_teacher_need_several_teachers():
    with pytest.raises(
        InputError, match=r"teacher\.students: 4 students of each teacher need teacher\.seeds"
    ):
        build_cell([Setting(key="teacher.students", value=4, where="argument")])
    build_cell(
        [
            Setting(key="teacher.students", value=4, where="argument"),
            Setting(key="teacher.seeds", value="paired", where="argument"),
        ]
    )


def test_a_cell_without_a_teacher_has_no_teacher_id():
    with pytest.raises(ValueError, match="uses no teacher"):
        teacher_id(make_cell(method="supervised"))


# --- loss terms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "weights"),
    [
        (Cell(), {"backbone": 1.0, "adversarial": 1.0, "knowledge": 1.0}),
        (Cell(loss=LossConfig(lambda_2=0.0)), {"backbone": 1.0, "knowledge": 1.0}),
        (Cell(loss=LossConfig(lambda_1=0.5, lambda_3=0.0)), {"backbone": 0.5, "adversarial": 1.0}),
        (Cell(method="supervised"), {"cross_entropy": 1.0}),
    ],
)
def test_a_term_of_weight_zero_is_not_computed(cell, weights):
    assert cell.stage_weights == (weights,)
    assert cell.weight("knowledge") == weights.get("knowledge", 0.0)
