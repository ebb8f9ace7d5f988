"""Whole runs of the methods since 2018: they learn, and tables, packs and workers change nothing."""

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from knowledge.test_curves import curves as curves_of
from knowledge.test_curves import make_cell, start_anew
from knowledge.test_curves import train as train_in_store
from loop.conftest import CPU, ask, make_sets, same_state, tiny_cell
from loop.test_methods import curves, digits_cell, digits_teacher
from loop.test_packs import SEEDS, assert_same_runs, reload, start, train
from loop.test_workers import check_agreement

from hkrun.config import Cell, Value, cell_id, get_value
from hkrun.data import Dataset, load_dataset
from hkrun.distill import distill, start_run
from hkrun.methods import SHIPPED, SHIPPED_FORMS, SHIPPED_METHODS, find_form, find_method
from hkrun.models import Output, initialise
from hkrun.objective import DataSizes, Objective
from hkrun.plans import Workers, why_alone
from hkrun.store import Store, open_store
from hkrun.terms import COMPACT_PARTS
from hkrun.training import SingleProcess

# The defaults are for 50,000 images: what 300 need less of.
FEW_NEGATIVES = {"crd.negatives": 64}
UNEVEN = {"student__batch_size": 15, "teacher__batch_size": 15}
WITH_TABLE = [name for name in SHIPPED if name not in ("sp", "reviewkd")]


def values_of(name: str) -> dict[str, Value]:
    return {"method": name, **(FEW_NEGATIVES if name == "crd" else {})}


def small_cell(name: str, **values: Value) -> Cell:
    """The method's cell on the tiny data, of whose teacher nothing is worth much: small steps."""
    given = {key.replace(".", "__"): value for key, value in values_of(name).items()}
    return tiny_cell(**{"student__learning_rate": 0.001, **given, **values})


# Declarations


def test_every_name_is_a_method_and_a_form_of_its_own_keys() -> None:
    assert SHIPPED_METHODS.keys() == SHIPPED_FORMS.keys() == {*SHIPPED}
    for name in SHIPPED:
        method, form = find_method(name), find_form(name)
        assert method.own_terms == (form,)
        sections = {key.name.partition(".")[0] for key in (*method.own_keys, *form.own_keys)}
        assert sections == {name}


def test_compact_knowledge_has_a_table_and_all_of_them_train_in_packs() -> None:
    for name in SHIPPED:
        cell = small_cell(name)
        assert bool(cell.table_parts) == (name in WITH_TABLE)
        assert {*cell.table_parts} <= {*COMPACT_PARTS}
        assert why_alone(cell, workers=Workers.exactly(1)) == ""


def test_the_documentation_says_what_each_reads_and_which_weights_it_has() -> None:
    page = Path(__file__).parents[2] / "docs" / "methods" / "modern.md"
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in page.read_text().splitlines()
        if line.startswith("| `")
    ]
    assert [row[0] for row in rows] == [f"`{name}`" for name in SHIPPED]
    for name, (_, _, reads, table, _, recipe) in zip(SHIPPED, rows, strict=True):
        form, cell = find_form(name), small_cell(name)
        parts = [*form.student, *["labels"] * form.labels, *["index"] * form.index]
        assert reads.replace("last stage", "stages") == ", ".join(parts)
        assert table == ("yes" if cell.table_parts else "no")
        weights = cell.stage_weights[0]
        shares = [
            f"{weight:g} {what}".removeprefix("1 ")
            for what, weight in (("CE", weights["cross_entropy"]), ("L", weights[name]))
        ]
        assert recipe.split(",")[0].split(";")[0] == " + ".join(shares)
        rising = dict(cell.own_values).get(f"{name}.warmup")
        assert (f"rising over {rising} of 240 epochs" in recipe) == (rising is not None)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_key_changes_the_identity_and_each_of_the_loss_the_loss(name: str) -> None:
    cell = small_cell(name)
    form, before = find_form(name), evaluate(small_cell(name))
    for key in find_method(name).own_keys:
        value = get_value(cell, key.name)
        other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value / 2
        if key.name == "crd.momentum":
            other = 0.75
        if value == 0.0:
            other = 1.0
        changed = small_cell(name, **{key.name.replace(".", "__"): other})
        assert cell_id(changed) != cell_id(cell), key.name
        assert (evaluate(changed) != before) == (key in form.own_keys), key.name


def make_output(seed: int) -> Output:
    """Four images' three stages."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(4, *shape, dtype=torch.float64, generator=generator)

    stages = tuple(draw(width, size, size) for width, size in zip((6, 12, 24), (8, 4, 2), strict=True))
    return Output(logits=draw(3), knowledge=None, descriptor=draw(24), stages=stages, stem=draw(6, 8, 8))


def evaluate(cell: Cell) -> list[float]:
    """Its own term of two batches between fixed outputs."""
    objective = Objective(cell, 0, DataSizes(3, 40)).double()
    initialise(objective, torch.Generator().manual_seed(0))
    found = []
    for batch in (0, 10):
        index = torch.arange(4) + batch
        terms = objective(make_output(batch), make_output(batch + 1), index % 3, index)
        found.append(float(terms[cell.method].detach()))
    return found


# Learning


@pytest.mark.parametrize("name", SHIPPED)
def test_every_method_learns_the_digits(name: str) -> None:
    values = {**values_of(name), "student.epochs": 6, "student.learning_rate": 0.05}
    # Six epochs of 9 batches, where the recipes have 240 of 781.
    values |= {"dkd": {"dkd.warmup": 2}, "reviewkd": {"reviewkd.warmup": 2}, "sp": {"sp.weight": 300.0}}.get(
        name, {}
    )
    cell, digits = digits_cell(values), load_dataset("digits")
    run = start_run(cell, digits, 0, context=SingleProcess(), device=CPU)
    teacher = digits_teacher(cell.teacher.network)
    distill(
        [run],
        teach=ask(teacher, run),
        context=SingleProcess(),
        on_epoch=lambda _: None,
        **make_sets(cell, digits),  # type: ignore[arg-type]
    )
    assert run.diverged is None
    last = run.history[-1]
    assert last["error_pct"] < 25  # 90 without having learned
    # Beside the cross-entropy the own term has become smaller too.
    assert last[f"loss_{name}"] < run.history[0][f"loss_{name}"]


def test_a_weight_rises_over_its_warm_up(dataset: Dataset) -> None:
    cell = small_cell("dkd", dkd__warmup=2, dkd__weight=0.5)
    rising = [cell.weights_in(0, epoch)["dkd"] for epoch in range(4)]
    assert rising == [0.25, 0.5, 0.5, 0.5]
    assert [cell.weights_in(0, epoch)["cross_entropy"] for epoch in range(2)] == [1.0, 1.0]
    assert small_cell("dkd", dkd__warmup=0).weights_in(0, 0) == {"cross_entropy": 1.0, "dkd": 1.0}
    (run,) = train(cell, dataset, start(cell, dataset, SEEDS[:1]))
    for row, weight in zip(run.history, rising, strict=False):
        expected = row["loss_cross_entropy"] + weight * row["loss_dkd"]
        assert row["loss_total"] == pytest.approx(expected, rel=1e-12)


def test_kd_stands_beside_where_it_is_asked_for(dataset: Dataset) -> None:
    assert "kd" not in small_cell("sp").stage_weights[0]
    cell = small_cell("sp", sp__kd=0.5)
    assert cell.stage_weights[0] == {"cross_entropy": 1.0, "kd": 0.5, "sp": 3000.0}
    assert cell_id(cell) != cell_id(
        dataclasses.replace(cell, loss=dataclasses.replace(cell.loss, temperature=2.0))
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_each_stands_in_hksanc_s_place_of_the_squeezed_vectors(dataset: Dataset, name: str) -> None:
    values = {key.replace(".", "__"): value for key, value in values_of(name).items() if key != "method"}
    cell = tiny_cell(
        knowledge__form=name,
        student__learning_rate=0.001,
        student__epochs=1,
        loss__cross_entropy=1.0,
        **values,
    )
    (run,) = train(cell, dataset, start(cell, dataset, SEEDS[:1]))
    assert run.diverged is None
    assert run.history[0]["loss_knowledge"] > 0


# Packs, resuming, workers


@pytest.mark.parametrize("name", SHIPPED)
def test_packed_runs_are_what_they_are_alone(dataset: Dataset, name: str) -> None:
    cell = small_cell(name, student__epochs=2)
    packed = train(cell, dataset, start(cell, dataset))
    alone = [train(cell, dataset, [run])[0] for run in start(cell, dataset)]
    assert_same_runs(packed, alone)
    assert curves(packed[0]) != curves(packed[1])


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("name", ["crd", "reviewkd"])
def test_a_resumed_run_equals_an_undisturbed_one_to_the_bit(
    dataset: Dataset, name: str, together: int
) -> None:
    cell = small_cell(name, precision="float32")
    seeds = SEEDS[:together]
    stopped = train(cell, dataset, start(cell, dataset, seeds), to=1)
    resumed = train(cell, dataset, reload(cell, dataset, stopped))
    undisturbed = train(cell, dataset, start(cell, dataset, seeds))
    for ours, theirs in zip(resumed, undisturbed, strict=True):
        assert curves(ours) == curves(theirs)
        assert same_state(ours.state_dict()["parts"], theirs.state_dict()["parts"])


def test_two_workers_compare_the_images_of_the_whole_batch(dataset: Dataset, tmp_path: Path) -> None:
    check_agreement(dataset, tmp_path, {"crd": small_cell("crd", **UNEVEN)}, (2,))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_and_three_workers_agree_with_one(dataset: Dataset, tmp_path: Path) -> None:
    check_agreement(dataset, tmp_path, {name: small_cell(name, **UNEVEN) for name in SHIPPED}, (2, 3))


# Tables


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    start_anew()


@pytest.fixture(scope="module")
def taught(few_digits: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a teacher of few digits."""
    store = open_store(tmp_path_factory.mktemp("taught") / "store")
    train_in_store(store, make_cell({}, precision="float64", **{"student.epochs": 1}))
    return Path(store.uri)


@pytest.fixture
def store(taught: Path, tmp_path: Path) -> Store:
    shutil.copytree(taught, tmp_path / "store")
    return open_store(tmp_path / "store")


@pytest.mark.parametrize("name", WITH_TABLE)
def test_with_a_table_the_curves_equal_the_live_teacher_s(store: Store, name: str) -> None:
    values = {**values_of(name), "student.learning_rate": 0.01}
    live = make_cell(values, precision="float64", teacher_table="off")
    looked_up = make_cell(values, precision="float64")
    train_in_store(store, live, 0, 1)
    train_in_store(store, looked_up, 0, 1)
    for seed in (0, 1):
        expected, found = curves_of(store, live, seed), curves_of(store, looked_up, seed)
        assert found["error_pct"] == expected["error_pct"]
        for column, figures in expected.items():
            if figures[0] is not None:
                np.testing.assert_allclose(found[column], figures, rtol=1e-6, atol=1e-9, err_msg=column)
