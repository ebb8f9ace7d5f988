"""Which cells too large a step will lose, as a plan knows it."""

import pytest
from study_example import make_study

from hkrun.config import build_cell, cell_from_values, cell_id
from hkrun.plans import (
    Rehearsal,
    find_weight_key,
    foresee_limits,
    load_rehearsal,
    save_rehearsal,
    stability_limit,
)
from hkrun.spaces import load_cell, load_sweep
from hkrun.store import open_store


def foresee(sweep, rehearsals=None):
    cells = [(named.name, cell_id(named.cell), named.cell) for named in sweep.cells]
    return foresee_limits(cells, sweep.recipe, rehearsals or {})


def lost(*overrides):
    return [(warning.key, warning.value) for warning in foresee(load_cell(overrides=overrides))]


def cell_of(**values):
    return cell_from_values({key.replace("__", "."): value for key, value in values.items()})


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ({}, 38.0),
        ({"student__momentum": 0.0}, 20.0),
        ({"student__learning_rate": 0.01}, 380.0),
        ({"student__epochs": 10, "student__warmup_epochs": 3}, 38.0),
        # The rate drops at epoch 4 of 10, when the warm-up of 9 has come to 4 tenths of it.
        ({"student__epochs": 10, "student__warmup_epochs": 9}, 95.0),
    ],
)
def test_the_limit_is_that_of_the_highest_learning_rate(values, limit):
    assert stability_limit(cell_of(**values), 0) == pytest.approx(limit)


def test_a_first_stage_has_the_limit_of_its_own_learning_rate():
    cell = cell_of(method="fsp", student__first_stage_learning_rate=0.02)
    assert [stability_limit(cell, stage) for stage in (0, 1)] == pytest.approx([190.0, 38.0])


def test_a_term_is_named_by_the_key_that_weighs_it_or_by_the_learning_rate():
    cell = cell_of(loss__lambda_3=10.0, loss__lambda_2=0.5)
    assert find_weight_key(cell, 0, "knowledge") == ("loss.lambda_3", 10.0)
    assert find_weight_key(cell, 0, "adversarial") == ("loss.lambda_2", 0.5)
    fitnets = cell_of(method="fitnets", student__first_stage_learning_rate=0.02)
    assert find_weight_key(fitnets, 0, "hint") == ("student.first_stage_learning_rate", 0.02)
    assert find_weight_key(fitnets, 1, "cross_entropy") == ("student.learning_rate", 0.1)


def test_sensitivity_s_lost_cells_are_those_that_were_measured_to_be():
    found = {warning.key: warning for warning in foresee(load_sweep("sensitivity"))}
    assert {(key, warning.value) for key, warning in found.items()} == {
        ("loss.lambda_1", 10.0),
        ("loss.lambda_3", 10.0),
    }
    assert found["loss.lambda_1"].cells == ("lambda_1 [loss.lambda_1=10.0]",)
    assert len(found["loss.lambda_3"].cells) == 6
    assert all("loss.lambda_3=10.0" in name for name in found["loss.lambda_3"].cells)
    assert 4 <= found["loss.lambda_3"].holds < 5
    assert found["loss.lambda_3"].limit == pytest.approx(38.0)


def test_form_weights_lost_cells_are_those_that_were_measured_to_be():
    found = [(warning.cells, warning.value) for warning in foresee(load_sweep("form_weights"))]
    assert found == [
        (("VID [loss.lambda_3=100.0]",), 100.0),
        (("FSP [loss.lambda_3=10.0]",), 10.0),
        (("FSP [loss.lambda_3=100.0]",), 100.0),
    ]


@pytest.mark.parametrize(
    "name", ["stability", "tables", "losses", "knowledge_forms", "connection", "baselines", "modern"]
)
def test_studies_whose_runs_hold_are_warned_of_nothing(name):
    assert foresee(load_sweep(name)) == ()


def test_the_recipe_s_figures_hold_for_its_own_networks_and_the_squeezed_form_alone():
    assert lost("loss.lambda_3=10") == [("loss.lambda_3", 10.0)]
    for other in (
        "student.network=preact-8",
        "loss.reduction=sum",
        "attention.pool=avg",
        "knowledge.form=at",
    ):
        assert lost("loss.lambda_3=10", other) == [], other


def test_a_lower_learning_rate_moves_the_limit():
    assert lost("loss.lambda_3=10", "student.learning_rate=0.03") == []
    (warning,) = foresee(load_cell(overrides=("loss.lambda_3=10", "student.learning_rate=0.05")))
    assert warning.limit == pytest.approx(76.0)
    assert warning.holds == pytest.approx(76.0 / 9.4, abs=1e-3)


@pytest.mark.parametrize("key", ["loss.lambda_1", "loss.lambda_3"])
@pytest.mark.parametrize("rate", [0.1, 0.05, 0.7])
def test_what_a_warning_recommends_is_warned_of_no_more(key, rate):
    settings = (f"student.learning_rate={rate}",)
    (warning,) = foresee(load_cell(overrides=(f"{key}=50", *settings)))
    assert warning.key == key
    held = load_cell(overrides=(f"{key}={warning.holds}", *settings))
    assert [each for each in foresee(held) if each.key == key] == []


REHEARSED = Rehearsal(
    steps=28,
    students=3,
    lost=1,
    how="diverged",
    first_step=25,
    key="loss.lambda_3",
    value=10.0,
    curvature=100.0,
    limit=38.0,
    holds=5.0,
)


def test_a_rehearsal_comes_before_the_recipe():
    sweep = load_cell(overrides=("loss.lambda_3=10",))
    identity = cell_id(sweep.cells[0].cell)
    assert foresee(sweep, {identity: Rehearsal(steps=120, students=3)}) == ()
    (warning,) = foresee(sweep, {identity: REHEARSED})
    assert not warning.certain
    assert warning.sentence == (
        f"May diverge or collapse: {sweep.cells[0].name}: loss.lambda_3 = 10 has curvature 100 and passes "
        "the stability limit 38 of the step, 2 (1 + momentum) / learning rate; loss.lambda_3 = 5 holds "
        "(rehearsed: 1 of 3 students diverged, the first at step 25)"
    )


def test_a_plan_tells_what_the_store_has_rehearsed(tmp_path):
    sweep = load_cell(overrides=("method=supervised",))
    store = open_store(str(tmp_path), create=True)
    assert make_study(sweep, store).document()["limits"] == []
    identity = cell_id(sweep.cells[0].cell)
    save_rehearsal(store, identity, REHEARSED)
    assert load_rehearsal(store, identity) == REHEARSED
    (told,) = make_study(sweep, store).document()["limits"]
    assert told["cells"] == [sweep.cells[0].name]
    assert (told["key"], told["curvature"], told["limit"], told["holds"]) == (
        "loss.lambda_3",
        100.0,
        38.0,
        5.0,
    )


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"steps": 1}', b'{"unknown": 1, "steps": 1, "students": 1}'])
def test_a_rehearsal_that_cannot_be_understood_is_none(tmp_path, text):
    store = open_store(str(tmp_path), create=True)
    store.commit("rehearsals/0123456789ab", {"rehearsal.json": text})
    assert load_rehearsal(store, "0123456789ab") is None


def test_ids_do_not_depend_on_what_a_recipe_knows_of_the_curvature():
    assert cell_id(build_cell([])) == cell_id(cell_from_values({}))
