"""Terms are what they declare: those keys change identity and loss, and no others change either."""

import inspect
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_map

from hkrun import terms
from hkrun.config import Cell, KeyInfo, Value, cell_id, cell_values, find_keys, get_value, keys
from hkrun.data import Dataset
from hkrun.distill import distill, start_run
from hkrun.distill.term_checks import compare_signature
from hkrun.losses import discriminator_loss, student_adversarial_loss
from hkrun.methods import (
    METHODS,
    SHIPPED,
    SHIPPED_FORMS,
    SHIPPED_METHODS,
    TERM_KEYS,
    Adversary,
    find_form,
    find_method,
)
from hkrun.models import Output, initialise
from hkrun.objective import DataSizes, Objective
from hkrun.teacher import freeze, start_teacher
from hkrun.terms import TERMS, Term
from hkrun.training import SingleProcess
from loop.conftest import CPU, ask, make_sets, tiny_cell

ALONE = {"loss.lambda_1": 0.0, "loss.lambda_2": 0.0}
# Cells that compute one term alone; of two stages, in the first.
CELLS: dict[str, dict[str, Value]] = {
    "cross_entropy": {"method": "supervised"},
    "backbone": {"loss.lambda_2": 0.0, "loss.lambda_3": 0.0},
    "logits_l1": {"method": "tscan", "loss.lambda_2": 0.0},
    "kd": {"method": "kd", "loss.alpha": 1.0},
    "adversarial": {"loss.lambda_1": 0.0, "loss.lambda_3": 0.0},
    "hint": {"method": "fitnets", "loss.alpha": 0.0},
    **{form: {**ALONE, "knowledge.form": form} for form in (*terms.FORMS, *SHIPPED_FORMS)},
}
DECLARED = {**TERMS, **{form: find_form(form) for form in SHIPPED_FORMS}}
KNOWN = find_keys((key, name) for key in ("method", "knowledge.form") for name in SHIPPED)
SIZES = DataSizes(num_classes=3, num_images=40)
# What weighs or names a term, and so decides which are computed.
COMPOSING = {
    key
    for method in METHODS.values()
    for stage in method.stages
    for term in stage.terms
    for key in (term.weight, term.form_key)
}
# What the outputs of the networks depend on, and not the terms.
GIVEN = {"dataset", "method", "student.network", "teacher.network", "teacher.file", "student.file"}
COMPARED_KEYS = sorted(KNOWN.keys() - COMPOSING - GIVEN)
ALL_TERM_KEYS = TERM_KEYS | (KNOWN.keys() - keys().keys())


def other_value(key: str, value: Value) -> Value:
    """Another allowed value."""
    info: KeyInfo = KNOWN[key][2]
    if isinstance(value, bool):
        return not value
    if info.choices:
        return next(choice for choice in info.choices if choice != value)
    if isinstance(value, tuple):
        return (0.25,)
    assert isinstance(value, int | float)
    return value + 1 if isinstance(value, int) else value / 2 or 0.5


def change(values: dict[str, Value], key: str) -> dict[str, Value]:
    before = {key: KNOWN[key][1], **cell_values(make_cell(values))}
    return {**values, key: other_value(key, before[key])}


def make_cell(values: dict[str, Value]) -> Cell:
    return tiny_cell(
        **{"student__epochs": 1, **{key.replace(".", "__"): value for key, value in values.items()}}
    )


def declared_keys(name: str) -> set[str]:
    return {*DECLARED[name].key_names, *(Adversary().keys if name == "adversarial" else ())}


def settings(name: str) -> list[tuple[dict[str, Value], set[str]]]:
    """A term's cells, and which keys change each: where no condition holds, and where one of them does."""
    conditions = [
        (key, other, value) for key, unless in DECLARED[name].idle.items() for other, value in unless.items()
    ]
    free = {
        other: other_value(other, value)
        for _, other, value in conditions
        if get_value(make_cell(CELLS[name]), other) == value
    }
    base = {**CELLS[name], **free}
    found = [(base, declared_keys(name))]
    for _, other, value in conditions:
        idle = {key for key, *condition in conditions if condition == [other, value]}
        found.append(({**base, other: value}, declared_keys(name) - idle))
    return found


SETTINGS = [
    pytest.param(name, values, changing, id=f"{name}-{place}")
    for name in DECLARED
    for place, (values, changing) in enumerate(settings(name))
]


@cache
def make_output(seed: int) -> Output:
    """A stem and three stages of five images; no two networks have anything in common."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    maps = [draw(5, width, size, size) for width, size in zip((6, 6, 12, 24), (8, 8, 4, 2), strict=True)]
    return Output(
        logits=draw(5, 3), knowledge=draw(5, 42), descriptor=draw(5, 24), stages=tuple(maps[1:]), stem=maps[0]
    )


def evaluate(cell: Cell) -> dict[str, list[float]]:
    """The terms of the first stage, on two batches of fixed outputs: what one keeps changes the second."""
    objective = Objective(cell, 0, SIZES).double()
    initialise(objective, torch.Generator().manual_seed(0))
    labels, index = torch.arange(5) % 3, torch.arange(5)
    batches = [objective(make_output(seed), make_output(seed + 1), labels, index) for seed in (0, 2)]
    return {name: [float(found[name].detach()) for found in batches] for name in batches[0]}


def play(cell: Cell, dataset: Dataset) -> list[dict[str, object]]:
    """The losses of an epoch of two batches against the discriminator."""
    run = start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)
    teacher = freeze(start_teacher(cell, dataset, context=SingleProcess(), device=CPU).network)
    sets = make_sets(cell, dataset)
    distill([run], teach=ask(teacher, run), context=SingleProcess(), on_epoch=lambda _: None, **sets)  # type: ignore[arg-type]
    return [{name: value for name, value in row.items() if name.startswith("loss")} for row in run.history]


@pytest.mark.parametrize(("name", "values", "changing"), SETTINGS)
def test_the_keys_that_a_term_declares_change_identity_and_loss_and_no_others_do(
    dataset: Dataset, name: str, values: dict[str, Value], changing: set[str]
) -> None:
    cell = make_cell(values)
    assert list(cell.stage_terms[0].values()) == [DECLARED[name]]
    assert changing == set(cell.term_keys - COMPOSING)

    def measure(cell: Cell) -> object:
        return play(cell, dataset) if DECLARED[name].discriminator else evaluate(cell)

    expected = measure(cell)
    # What else changes a run changes its id; a discriminator's losses follow all of it.
    compared = sorted(TERM_KEYS - COMPOSING) if DECLARED[name].discriminator else COMPARED_KEYS
    for key in compared:
        changed = make_cell(change(values, key))
        # At mu = 0 the regulariser's switch stays in the id, as it always was, though it changes nothing.
        if (key, cell.loss.mu) != ("loss.regularizer", 0.0):
            assert (measure(changed) != expected) == (key in changing), key
        if key in ALL_TERM_KEYS:
            assert (cell_id(changed) != cell_id(cell)) == (key in changing), key


@pytest.mark.parametrize("key", ["discriminator.dropout", "loss.category"])
def test_the_keys_of_a_discriminator_change_only_those_that_have_them(dataset: Dataset, key: str) -> None:
    for method in ("hksanc", "anc"):
        adversary = METHODS[method].adversary
        assert adversary is not None
        values: dict[str, Value] = {"method": method, "loss.lambda_3": 0.0}
        cell, changed = make_cell(values), make_cell(change(values, key))
        assert (cell_id(cell) != cell_id(changed)) == (key in adversary.keys)
        assert (play(cell, dataset) != play(changed, dataset)) == (key in adversary.keys)


# Functions


@pytest.mark.parametrize("term", [term for term in DECLARED.values() if not term.discriminator])
def test_every_term_has_a_function_that_takes_what_it_declares(term: Term) -> None:
    assert list(compare_signature("it", term)) == []


@pytest.mark.parametrize("name", SHIPPED_METHODS)
def test_the_keys_of_a_shipped_method_change_identity_and_loss(name: str) -> None:
    cell = make_cell({"method": name})
    for key in find_method(name).key_names:
        changed = make_cell(change({"method": name}, key))
        assert cell_id(changed) != cell_id(cell), key
        assert (evaluate(changed), changed.weights_in(0, 0)) != (evaluate(cell), cell.weights_in(0, 0)), key


@pytest.mark.parametrize("name", [name for name, term in DECLARED.items() if not term.discriminator])
def test_a_term_compares_the_images_of_a_batch_where_it_says_so(name: str) -> None:
    cell = make_cell(CELLS[name])
    (column,) = cell.stage_terms[0]

    def measure(rows: slice) -> float:
        objective = Objective(cell, 0, SIZES).double()
        initialise(objective, torch.Generator().manual_seed(0))
        batch = (make_output(0), make_output(1), torch.arange(5) % 3, torch.arange(5))
        student, teacher, labels, index = tree_map(lambda part: part[rows], batch)
        return float(objective(student, teacher, labels, index)[column].detach())

    halves = (measure(slice(2)) + measure(slice(2, 4))) / 2
    assert (measure(slice(4)) != pytest.approx(halves, rel=1e-9)) == DECLARED[name].over_batch


def test_the_adversarial_losses_take_the_keys_that_their_term_and_discriminators_declare() -> None:
    functions = (discriminator_loss, student_adversarial_loss)
    taken = {
        f"loss.{parameter.name}"
        for function in functions
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind == parameter.KEYWORD_ONLY
    }
    declared = declared_keys("adversarial")
    assert taken == {key for key in declared if key.startswith("loss.")}


# Documentation


def describe(term: Term) -> str:
    """A term's row in the documentation."""
    student, teacher = (
        ", ".join(parts) or ("what is judged" if term.discriminator else "-")
        for parts in (term.student, term.teacher)
    )
    declared = ", ".join(f"`{key}`" for key in term.key_names) or "-"
    learns = "yes" if term.learns else "no"
    return f"| `{term.name}` | {term.summary} | {student} | {teacher} | {learns} | {declared} |"


def test_the_documentation_lists_the_terms_as_they_are_declared() -> None:
    page = Path(__file__).parents[2] / "docs" / "method.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    assert rows == [describe(term) for term in TERMS.values()]
