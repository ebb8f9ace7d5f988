"""Losses and methods of the user's own: named like hkrun's, with their keys, in identity, store and loop."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from imported_modules import modules_below
from task_example import make_task

from hkrun import user_parts
from hkrun.config import Cell, canonical, cell_id, cell_keys, get_value
from hkrun.data import Dataset
from hkrun.distill import Run, distill, start_run
from hkrun.errors import InputError
from hkrun.methods import SHIPPED, WeightedTerm
from hkrun.objective import DataSizes, Objective
from hkrun.report import render_report, summarise
from hkrun.spaces import load_cell, load_sweep, restore_sweep, sweep_document
from hkrun.store import open_store
from hkrun.teacher import freeze, start_teacher
from hkrun.terms import TERMS
from hkrun.training import SingleProcess
from hkrun.trial.run import run_task
from loop.conftest import CPU, TINY, ask, make_sets

LOSSES = """
import torch
from torch import nn
from torch.nn import functional as F
from hkrun.losses import unit_rows
from hkrun.terms import Key, Term

def similarity(student, teacher, *, power):
    ours, theirs = (unit_rows(rows @ rows.T) for rows in (student, teacher))
    return (ours - theirs).abs().pow(power).mean()

Similarity = Term(
    summary="Gram matrices of a batch",
    function=similarity,
    student=("descriptor",),
    teacher=("descriptor",),
    keys=(Key("similarity.power", 2.0, "Power of the distance.", source="Tung and Mori 2019", above=0),),
    over_batch=True,
)

def softened(student, teacher, labels, *, temperature, beta):
    ours, theirs = ((logits / temperature).softmax(dim=1) for logits in (student, teacher))
    return (theirs - ours).square().sum(dim=1).mean() + beta * F.cross_entropy(student, labels)

BETA = Key("softened.beta", 0.5, "Weight of the labels.", source="chosen", minimum=0)
SOFTENED = Term(
    summary="softened classes", function=softened, student=("logits",), teacher=("logits",), labels=True,
    keys=("loss.temperature", BETA),
)

class Project(nn.Module):
    def __init__(self, maps, descriptor, classes, *, num_images):
        super().__init__()
        assert (tuple(maps), descriptor, classes, num_images) == ((6, 12, 24), 24, 3, 40)
        self.map = nn.Linear(descriptor, classes)

    def forward(self, maps, descriptor, teacher, index):
        assert [len(each) for each in maps] == [len(descriptor)] * 3
        assert index.shape == descriptor.shape[:1]
        return F.mse_loss(self.map(descriptor), teacher)

PROJECT = Term(
    summary="", function=Project, student=("stages", "descriptor"), teacher=("logits",), index=True,
    learns=True, num_images=True,
)

def noisy(student, teacher, *, generator):
    return F.mse_loss(student, teacher + torch.randn(teacher.shape, generator=generator, dtype=teacher.dtype))


from hkrun.methods import Method, Stage, WeightedTerm
Both = Method(summary="", stages=(Stage(terms=(
    WeightedTerm(name="soft", term=SOFTENED), WeightedTerm(name="alike", term=Similarity),
)),))

NOISY = Term(summary="", function=noisy, student=("logits",), teacher=("logits",), random=True)
"""
METHODS = """
from hkrun.methods import Method, Stage, WeightedTerm
from hkrun.terms import Key
from mylosses import PROJECT, SOFTENED, Similarity

ALPHA = Key("mine.alpha", 2.0, "Weight of the softened classes.", source="chosen", minimum=0)
Mine = Method(
    summary="softened classes, then similarity too",
    keys=(ALPHA,),
    stages=(
        Stage(terms=(WeightedTerm(name="soft", term=SOFTENED, weight="mine.alpha"),)),
        Stage(terms=(
            WeightedTerm(name="cross_entropy"),
            WeightedTerm(name="alike", term=Similarity, weight=3.0),
            WeightedTerm(name="projected", term=PROJECT, weight="mine.alpha"),
        )),
    ),
)
"""
FORM = "knowledge.form=mylosses:Similarity"
PART = r'"part": ?"(\w+)"'  # in the description of a teacher table


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with the modules `mylosses` and `mymethods`, which no other test sees."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    user_parts.identify_source.cache_clear()
    (tmp_path / "mylosses.py").write_text(LOSSES)
    (tmp_path / "mymethods.py").write_text(METHODS)
    yield tmp_path
    forget(*modules_below(tmp_path))


def forget(*names: str) -> None:
    """As a new process would see it."""
    for name in names:
        sys.modules.pop(name, None)
    user_parts.identify_source.cache_clear()


def make_cell(*overrides: str) -> Cell:
    tiny = [f"{key}={str(value).lower()}" for key, value in TINY.items()]
    return load_cell(overrides=[*tiny, *overrides]).cells[0].cell


def problems(*overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load_cell(overrides=list(overrides))
    return caught.value.problems


def train(cell: Cell, dataset: Dataset, *seeds: int) -> list[Run]:
    runs = [start_run(cell, dataset, seed, context=SingleProcess(), device=CPU) for seed in seeds]
    teacher = freeze(start_teacher(cell, dataset, context=SingleProcess(), device=CPU).network)
    sets = make_sets(cell, dataset)
    distill(runs, teach=ask(teacher, *runs), context=SingleProcess(), on_epoch=lambda _: None, **sets)  # type: ignore[arg-type]
    return runs


def losses(run: Run) -> list[dict[str, float | None]]:
    return [{name: value for name, value in row.items() if name.startswith("loss_")} for row in run.history]


# Keys


def test_a_terms_own_key_is_set_like_every_key_and_part_of_the_identity() -> None:
    cells = [make_cell(FORM, *values) for values in ([], ["similarity.power=2"], ["similarity.power=3"])]
    assert [get_value(cell, "similarity.power") for cell in cells] == [2.0, 2.0, 3.0]
    assert len({cell_id(cell) for cell in cells}) == 2
    assert canonical(cells[2])["similarity.power"] == 3.0
    assert cells[0].table_parts == ("logits", "descriptor")


def test_a_key_that_the_cell_does_not_use_is_no_part_of_its_identity() -> None:
    for unused in ("method=kd", "loss.lambda_3=0.0"):
        cells = [make_cell(FORM, unused, f"similarity.power={power}") for power in (2, 3)]
        assert cell_id(cells[0]) == cell_id(cells[1])
        assert not [key for key in canonical(cells[0]) if "similarity" in key or "form" in key]


@pytest.mark.parametrize("name", SHIPPED)
def test_what_comes_as_a_file_is_one_configuration_by_either_name(name: str) -> None:
    for short, long in (
        (f"method={name}", f"method=hkrun.modern.{name}:METHOD"),
        (f"knowledge.form={name}", f"knowledge.form=hkrun.modern.{name}:FORM"),
    ):
        assert load_cell(overrides=[long]).cells[0].cell == load_cell(overrides=[short]).cells[0].cell
        assert not load_cell(overrides=[long]).cells[0].cell.own_parts


def test_a_method_brings_the_keys_of_its_weights_and_of_its_terms() -> None:
    cell = make_cell("method=mymethods:Mine", "mine.alpha=4", "softened.beta=0.25", "loss.temperature=2")
    form = canonical(cell)
    keys = ("mine.alpha", "softened.beta", "loss.temperature", "similarity.power")
    assert [form[key] for key in keys] == [4.0, 0.25, 2.0, 2.0]
    assert cell.stage_weights == ({"soft": 4.0}, {"cross_entropy": 1.0, "alike": 3.0, "projected": 4.0})
    assert not {"loss.alpha", "loss.lambda_1", "knowledge.form"} & form.keys()


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ([FORM, "similarity.powr=3"], "unknown key; did you mean 'similarity.power'?"),
        (["similarity.power=3"], "similarity.power: unknown key; "),
        ([FORM, "similarity.power=0"], "0 is out of range; above 0"),
        ([FORM, "similarity.power=high"], "'high' is not of type number"),
        (["knowledge.form=mylosses:similarity"], "must be a hkrun.terms.Term; it is of type function"),
        (["method=mylosses:Similarity"], "must be a hkrun.methods.Method; it is of type Term"),
        (["knowledge.form=mylosses:Simi"], "mylosses:Simi: module mylosses has no 'Simi'"),
        (["method=mine"], "'mine' is not allowed; one of hksanc, supervised, "),
    ],
)
def test_a_mistake_is_one_line(overrides: list[str], problem: str) -> None:
    (line,) = problems(*overrides)
    assert problem in line


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            '"similarity.power"',
            '"loss.power"',
            "mylosses:Similarity: the key 'loss.power' is in a section of",
        ),
        ('"similarity.power"', '"power"', "its import fails: ValueError: 'power' is no name of a key: "),
        (
            "function=similarity",
            "function=lambda a, b: 0",
            "its import fails: ValueError: function must be a",
        ),
        (
            'student=("descriptor",)',
            'student=("descriptr",)',
            "ValueError: student names 'descriptr'; a term",
        ),
        ('student=("descriptor",)', 'student="descriptor"', "ValueError: student must be tuples, such as"),
        (
            "keys=(Key(",
            'keys=("loss.temprature", Key(',
            "reads the key 'loss.temprature', which is neither hkrun's nor in its keys=;",
        ),
        ('("descriptor",)', '("attention_maps",)', "attention_maps are for hkrun's own term; read stages"),
        ("2.0, ", "0.0, ", "similarity.power: the default 0.0 is out of the key's own range"),
        ("2.0, ", "(1, float('nan')), ", "similarity.power: the default (1.0, nan) is out of the key's own"),
        (
            "above=0",
            "choices=('a', 'b')",
            "similarity.power: choices are a tuple of strings, for a key whose",
        ),
        ('2.0, "Power', '"a", choices="ab", doc="Power', "similarity.power: choices are a tuple of strings"),
        ("2.0, ", "('a', 1), ", "similarity.power: a tuple holds numbers; the default is ('a', 1)"),
    ],
)
def test_a_wrong_declaration_is_one_line(folder: Path, old: str, new: str, problem: str) -> None:
    assert old in LOSSES
    (folder / "mylosses.py").write_text(LOSSES.replace(old, new))
    (line,) = problems(FORM)
    assert problem in line
    assert "ValueError" not in line or "(mylosses.py:" in line


def test_a_tuple_of_integers_is_one_of_numbers(folder: Path) -> None:
    (folder / "mylosses.py").write_text(LOSSES.replace("2.0, ", "(1, 2), "))
    ids = {cell_id(make_cell(FORM, *values)) for values in ([], ["similarity.power=[1, 2]"])}
    assert len(ids) == 1


def test_a_default_of_minus_zero_is_zero(folder: Path) -> None:
    for default, set_to in (("-0.0, ", "-0.0"), ("(-0.0, 1), ", "[-0.0, 1]")):
        text = LOSSES.replace("2.0, ", default).replace(", above=0", "")
        (folder / "mylosses.py").write_text(text)
        forget("mylosses")
        ids = {cell_id(make_cell(FORM, *values)) for values in ([], [f"similarity.power={set_to}"])}
        assert len(ids) == 1


WEIGHTED = """
from hkrun.methods import Method, Stage, WeightedTerm
from hkrun.terms import TERMS, Key
OWN = Key("mine.weight", DEFAULT, "Its weight.", source="chosen"LIMITS)
Mine = Method(summary="mine", keys=KEYS, stages=(Stage(terms=(WeightedTerm(name="kd"ARGUMENTS),)),))
"""


@pytest.mark.parametrize(
    ("default", "limits", "arguments", "problem"),
    [
        ("1.0", "", 'weight="mine.weight"', "term 'kd': mine.weight must be a number key with minimum=0"),
        ("1.0", ", minimum=-1", 'weight="mine.weight"', "mine.weight must be a number key with minimum=0"),
        ("'high'", "", 'weight="mine.weight"', "mine.weight must be a number key with minimum=0"),
        (
            "0.5",
            ", minimum=0",
            'weight="mine.weight", complement=True',
            "must have maximum=1 for its complement",
        ),
        ("", "", 'weight="teacher.network"', "teacher.network must be a number key with minimum=0"),
        ("", "", 'warmup="student.network"', "student.network must be a number key with minimum=0"),
        ("", "", "weight=float('nan')", "kd: the weight must be at least 0; it is nan"),
        ("", "", "weight=None", "kd: the weight must be a number or the name of a key; it is None"),
        ("", "", "weight=''", "kd: the weight must be a number or the name of a key; it is ''"),
        ("", "", "weight=True", "kd: the weight must be a number or the name of a key; it is True"),
        ("", "", "weight=2.0, complement=True", "kd: the weight must be at most 1 for its complement"),
        ("", "", "weight=0.0", "method: every loss term has weight 0; at least one must be above 0"),
        ("", "", "warmup=3", "kd: warmup must be the name of a key; it is 3"),
        (
            "",
            "",
            'warmup="no.key"',
            "weighted:Mine: reads the key 'no.key', which is neither hkrun's nor in its keys=",
        ),
        ("", "", 'form_key="no.key"', "kd: form_key must be 'knowledge.form'; it is 'no.key'"),
        ("", "", 'form_key="method"', "kd: form_key must be 'knowledge.form'; it is 'method'"),
        ("", "", 'term=TERMS["adversarial"]', "the adversarial term has no term=: its name and the method's"),
    ],
)
def test_a_weight_is_a_number_of_at_least_0(
    folder: Path, default: str, limits: str, arguments: str, problem: str
) -> None:
    text = WEIGHTED.replace("ARGUMENTS", f", {arguments}").replace("LIMITS", limits)
    text = text.replace("DEFAULT", default or "1.0").replace("KEYS", "(OWN,)" if default else "()")
    (folder / "weighted.py").write_text(text)
    (line,) = problems("method=weighted:Mine")
    assert problem in line


def test_no_other_term_takes_the_name_of_the_discriminators() -> None:
    for given in ({"term": TERMS["kd"]}, {"form_key": "knowledge.form"}):
        with pytest.raises(ValueError, match="the adversarial term has no term=: its name and the method's"):
            WeightedTerm(name="adversarial", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("idle", "problem"),
    [
        (
            '{"similarity.power": {"loss.lamda_1": 0.0}}',
            "no key 'loss.lamda_1'; did you mean 'loss.lambda_1'?",
        ),
        ('{"loss.alpha": {"loss.kd": 0.0}}', "idle: 'loss.alpha' is none of the term's keys"),
    ],
)
def test_a_key_by_which_another_is_idle_must_be_there(folder: Path, idle: str, problem: str) -> None:
    (folder / "mylosses.py").write_text(LOSSES.replace("over_batch=True,", f"over_batch=True, idle={idle},"))
    for override, named in ((FORM, "mylosses:Similarity"), ("method=mymethods:Mine", "mymethods:Mine")):
        (line,) = problems(override)
        assert f"{named}: idle: " in line
        assert problem in line


def test_without_a_term_the_weights_of_the_method_itself_are_named() -> None:
    (line,) = problems("method=dkd", "dkd.weight=0", "dkd.cross_entropy=0")
    assert "dkd.cross_entropy: every loss term has weight 0" in line


def warm_up_warnings(caplog: pytest.LogCaptureFixture, *overrides: str) -> list[str]:
    caplog.clear()
    load_cell(overrides=overrides)
    return [message for message in caplog.messages if "is whole" in message]


@pytest.mark.parametrize("name", ["dkd", "reviewkd"])
def test_a_warmup_longer_than_the_training_is_told(name: str, caplog: pytest.LogCaptureFixture) -> None:
    method = f"method={name}"
    (line,) = warm_up_warnings(caplog, method, "student.epochs=5")
    assert line.endswith(
        f"{name}.warmup = 20: the 5 epochs of its stage end before the weight of term {name!r} is whole, "
        "at 0.25 of 1"
    )
    for sound in (["student.epochs=20"], ["student.epochs=5", f"{name}.warmup=0"], [f"{name}.weight=0"]):
        assert not warm_up_warnings(caplog, method, *sound)


def test_a_warmup_longer_than_its_first_stage_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = METHODS.replace('weight="mine.alpha"),)),', 'weight="mine.alpha", warmup="mine.rise"),)),')
    rise = 'RISE = Key("mine.rise", 2, "Epochs.", source="chosen", minimum=0)\n'
    text = text.replace("Mine =", f"{rise}Mine =").replace("(ALPHA,)", "(ALPHA, RISE)")
    (folder / "mymethods.py").write_text(text)
    settings = ["method=mymethods:Mine", "student.epochs=40", "student.first_stage=0.25", "mine.alpha=3"]
    (line,) = warm_up_warnings(caplog, *settings, "mine.rise=12")
    assert "mine.rise = 12: the 10 epochs of its stage end" in line
    assert line.endswith("at 2.5 of 3")
    assert not warm_up_warnings(caplog, *settings, "mine.rise=10")


def test_two_parts_cannot_declare_one_key_each_in_its_way(folder: Path) -> None:
    (folder / "others.py").write_text(LOSSES.replace("2.0", "1.0"))
    write_space(
        folder, '[[axes]]\nkey = "knowledge.form"\nvalues = ["mylosses:Similarity", "others:Similarity"]'
    )
    with pytest.raises(
        InputError, match=r"similarity.power: mylosses:Similarity and others:Similarity declare"
    ):
        load_sweep("mine.toml")


def write_space(folder: Path, text: str) -> None:
    (folder / "mine.toml").write_text(f'dataset = "digits"\nseeds = 2\n{text}\n')


def test_own_keys_are_axes_and_stand_in_files(folder: Path) -> None:
    write_space(
        folder,
        '[base]\nknowledge.form = "mylosses:Similarity"\nmine.alpha = 3.0\n'
        '[[cells]]\nname = "a"\n[[cells]]\nname = "b"\nmethod = "mymethods:Mine"\n'
        '[[axes]]\nkey = "similarity.power"\nvalues = [1, 2.5]',
    )
    sweep = load_sweep("mine.toml")
    assert [named.name for named in sweep.cells] == [
        f"{cell} [similarity.power={power}]" for cell in "ab" for power in (1, 2.5)
    ]
    assert len({cell_id(named.cell) for named in sweep.cells}) == 4
    assert [named.point for named in sweep.cells[:2]] == [
        {"similarity.power": 1.0},
        {"similarity.power": 2.5},
    ]
    assert get_value(sweep.cells[3].cell, "mine.alpha") == 3.0


def test_the_default_of_an_own_key_is_a_default_like_others() -> None:
    cell = make_cell("method=mymethods:Mine", "mine.alpha=4")
    defaults = {key: cell_keys(cell)[key][1] for key in ("mine.alpha", "softened.beta", "student.momentum")}
    assert defaults == {"mine.alpha": 2.0, "softened.beta": 0.5, "student.momentum": 0.9}


# Store


@pytest.mark.parametrize("override", [FORM, "method=mymethods:Mine"])
def test_a_stored_sweep_is_whole_where_the_modules_are_not(folder: Path, override: str) -> None:
    sweep = load_cell(overrides=[override, "similarity.power=3"])
    document = json.loads(json.dumps(sweep_document(sweep)))
    for name in ("mylosses", "mymethods"):
        (folder / f"{name}.py").unlink()
        forget(name)
    restored = restore_sweep(document, where="plan.json")
    assert restored == sweep
    before, after = (each.cells[0].cell for each in (sweep, restored))
    assert (cell_id(after), after.stage_weights, after.table_parts) == (
        cell_id(before),
        before.stage_weights,
        before.table_parts,
    )
    assert "mylosses" not in sys.modules


def test_the_source_of_a_term_and_of_what_a_method_imports_is_part_of_the_identity(folder: Path) -> None:
    chosen = [[FORM], ["method=mymethods:Mine"], ["method=kd", FORM]]
    before = [cell_id(make_cell(*overrides)) for overrides in chosen]
    (folder / "mylosses.py").write_text(LOSSES + "# changed\n")
    forget("mylosses", "mymethods")
    after = [cell_id(make_cell(*overrides)) for overrides in chosen]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, True]


# Loop


def test_an_own_form_and_an_own_method_train(dataset: Dataset) -> None:
    (run,) = train(make_cell(FORM, "loss.lambda_2=0.0"), dataset, 0)
    assert {"loss_backbone", "loss_knowledge"} < losses(run)[0].keys()
    (other,) = train(make_cell(FORM, "loss.lambda_2=0.0", "similarity.power=1"), dataset, 0)
    assert losses(run)[0] != losses(other)[0]
    (run,) = train(make_cell("method=mymethods:Mine"), dataset, 0)
    assert losses(run)[0].keys() == {"loss_total", "loss_soft"}
    assert losses(run)[-1].keys() == {"loss_total", "loss_cross_entropy", "loss_alike", "loss_projected"}
    total = losses(run)[-1]
    weighted = {"cross_entropy": 1.0, "alike": 3.0, "projected": 2.0}
    assert total["loss_total"] == pytest.approx(
        sum(w * total[f"loss_{name}"] for name, w in weighted.items())
    )  # type: ignore[operator]


def test_own_terms_train_in_packs_as_alone(dataset: Dataset) -> None:
    for overrides in ([FORM, "loss.lambda_2=0.0"], ["method=mymethods:Mine"]):
        cell = make_cell(*overrides)
        packed = train(cell, dataset, 3, 4)
        for run in packed:
            (alone,) = train(cell, dataset, run.seed)
            for row, own in zip(losses(alone), losses(run), strict=True):
                assert own == pytest.approx(row, rel=1e-9)


NAMED = """
from hkrun.methods import Method, Stage, WeightedTerm
from hkrun.terms import TERMS
from mylosses import PROJECT
Clash = Method(summary="", stages=(Stage(terms=(
    WeightedTerm(name="cross_entropy"),
    WeightedTerm(name="knowledge", form_key="knowledge.form"),
    WeightedTerm(name="vid", term=PROJECT),
    WeightedTerm(name="again", term=TERMS["vid"], weight=0.5),
    WeightedTerm(name="values", term=PROJECT),
)),))
"""


def test_terms_of_one_name_have_parameters_of_their_own(folder: Path, dataset: Dataset) -> None:
    (folder / "named.py").write_text(NAMED)
    cell = make_cell("method=named:Clash", "knowledge.form=vid")
    objective = Objective(cell, 0, DataSizes(num_classes=3, num_images=40))
    learned = {name: objective.learned(name) for name in cell.stage_terms[0]}
    assert [type(module).__name__ for module in learned.values()] == [
        *("Module", "VariationalLoss", "Project", "VariationalLoss", "Project")
    ]
    assert len({id(module) for module in learned.values()}) == 5
    counts = [
        sum(value.numel() for value in module.parameters()) for module in (objective, *learned.values())
    ]
    assert counts[0] == sum(counts[1:])
    for row in losses(train(cell, dataset, 0)[0]):
        assert all(value is not None for value in row.values())


def test_random_numbers_derive_from_the_seed_and_the_epoch(dataset: Dataset) -> None:
    cell = make_cell("knowledge.form=mylosses:NOISY", "loss.lambda_1=0.0", "loss.lambda_2=0.0")
    (first,), (again,), (other,) = (train(cell, dataset, seed) for seed in (1, 1, 2))
    assert losses(first) == losses(again) != losses(other)


def test_the_first_stage_has_a_learning_rate_of_its_own(dataset: Dataset) -> None:
    rates = {}
    for own in (0.0, 0.1, 0.01):
        cell = make_cell("method=fsp", "student.drops=[]", f"student.first_stage_learning_rate={own}")
        (run,) = train(cell, dataset, 0)
        rates[cell_id(cell)] = [row["learning_rate"] for row in run.history]
    assert list(rates.values()) == [[0.1] * 4, [0.01, 0.1, 0.1, 0.1]]


def test_labels_and_softened_classes_stand_beside_any_form(dataset: Dataset) -> None:
    plain = make_cell(FORM, "loss.lambda_2=0.0")
    cell = make_cell(FORM, "loss.lambda_2=0.0", "loss.cross_entropy=0.5", "loss.kd=2.0")
    assert cell_id(plain) != cell_id(cell)
    assert "loss.kd" not in canonical(plain)
    (run,) = train(cell, dataset, 0)
    row = losses(run)[0]
    weights = {"backbone": 1.0, "knowledge": 1.0, "cross_entropy": 0.5, "kd": 2.0}
    assert row["loss_total"] == pytest.approx(sum(w * row[f"loss_{name}"] for name, w in weights.items()))  # type: ignore[operator]


def test_whole_runs_of_own_losses_use_the_teacher_table_and_are_recorded(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    networks = ["teacher.network=preact-8-w4", "student.network=preact-8-w4"]
    short = ["teacher.epochs=1", "student.epochs=2", "augment.padding=0", "augment.flip=false"]
    chosen = (FORM, "method=mylosses:Both")
    cells = [load_cell(overrides=[*networks, *short, each]).cells[0].cell for each in chosen]
    for task in (make_task(store, cells[0]), *(make_task(store, cell, 0, 1) for cell in cells)):
        assert {outcome["status"] for outcome in run_task(task, SingleProcess())} == {"finished"}
    for cell, columns in zip(cells, ({"loss_knowledge"}, {"loss_soft", "loss_alike"}), strict=True):
        record = store.record(cell_id(cell), 1)
        assert record is not None
        assert record.alarms == ()
        assert columns <= set(store.curves(cell_id(cell), 1).column_names)
        assert store.cell(cell_id(cell))["similarity.power"] == 2.0
    documents = [path.read_text() for path in (tmp_path / "store").rglob("*.json")]
    assert {"logits", "descriptor"} <= {part for text in documents for part in re.findall(PART, text)}


@pytest.mark.usefixtures("undrawn_figures")
def test_a_report_scans_an_own_key_from_its_default(folder: Path) -> None:
    write_space(
        folder,
        '[base]\nknowledge.form = "mylosses:Similarity"\nteacher.network = "preact-8-w4"\n'
        'student.network = "preact-8-w4"\nteacher.epochs = 1\nstudent.epochs = 2\naugment.padding = 0\n'
        '[analysis]\nwindow = 2\n[[axes]]\nkey = "similarity.power"\nvalues = [1, 2]',
    )
    sweep, store = load_sweep("mine.toml"), open_store(folder / "store")
    cells = [named.cell for named in sweep.cells]
    for task in (make_task(store, cells[0]), *(make_task(store, cell, *sweep.seeds) for cell in cells)):
        run_task(task, SingleProcess())
    summary = summarise(sweep, store)
    pages = render_report(summary)
    assert any(b"similarity.power" in page for page in pages.values())
    (scan,) = summary.scans
    assert (scan.keys, [point.values for point in scan.points]) == (("similarity.power",), [(1.0,), (2.0,)])
    assert scan.reference is not None
    assert scan.reference.cell_id == cell_id(cells[1])
