"""A rehearsal loses the students that the runs will lose, and names why."""

import pytest
import torch

from hkrun.config import Cell
from hkrun.data import Dataset
from hkrun.plans import Rehearsal
from hkrun.trial import rehearsal
from hkrun.trial.rehearsal import Inputs, rehearse
from loop.conftest import CPU, ask_one, make_sets, same_state, tiny_cell
from loop.test_distill import train
from loop.test_methods import make_teacher


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "STEPS", 12)


def rehearsed(cell: Cell, dataset: Dataset, seeds: tuple[int, ...] = (70, 71)) -> Rehearsal:
    inputs = Inputs(
        dataset=dataset,
        images=make_sets(cell, dataset)["images"],
        teach=ask_one(make_teacher(cell, dataset)),
        device=CPU,
        seeds=seeds,
    )
    return rehearse(cell, inputs)


def test_a_harmless_cell_loses_no_student(dataset: Dataset) -> None:
    found = rehearsed(tiny_cell(student__learning_rate=0.01), dataset)
    assert found == Rehearsal(steps=12, students=2)


def test_a_weight_beyond_the_limit_is_named_with_its_curvature_and_a_value_that_holds(
    dataset: Dataset,
) -> None:
    cell = tiny_cell(loss__lambda_3=1e3)
    found = rehearsed(cell, dataset)
    assert (found.lost, found.how, found.key, found.value) == (2, "diverged", "loss.lambda_3", 1e3)
    assert found.limit == pytest.approx(38.0)
    assert found.curvature is not None
    assert found.curvature > found.limit
    assert found.holds is not None
    held = tiny_cell(loss__lambda_3=found.holds)
    assert rehearsed(held, dataset).lost == 0


def test_a_literal_first_stage_is_named_by_its_learning_rate(dataset: Dataset) -> None:
    cell = tiny_cell(
        method="fitnets",
        knowledge__relative=False,
        loss__reduction="sum",
        student__first_stage_learning_rate=3.0,
    )
    found = rehearsed(cell, dataset)
    assert (found.stage, found.key, found.value) == (0, "student.first_stage_learning_rate", 3.0)
    assert found.limit == pytest.approx(2 * 1.9 / 3.0)
    assert found.lost == 2


def test_both_stages_of_a_method_are_rehearsed(dataset: Dataset) -> None:
    cell = tiny_cell(method="fitnets", student__learning_rate=0.01)
    assert rehearsed(cell, dataset) == Rehearsal(steps=24, students=2)


def test_weights_without_a_second_derivative_have_no_curvature(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("derivative for it is not implemented")

    monkeypatch.setattr(rehearsal, "measure_sharpness", refuse)
    found = rehearsed(tiny_cell(loss__lambda_3=1e3), dataset)
    assert found.lost
    assert found.curvature is None
    assert found.key == "student.learning_rate"


def test_a_student_that_says_the_same_of_every_image_has_collapsed(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "MOST_HALVINGS", 0)
    begun = rehearsal.Step.train

    def train_and_die(self, batch):  # type: ignore[no-untyped-def]
        figures = begun(self, batch)
        with torch.no_grad():
            for run in self._pack.runs:
                run.student.backbone.classifier.weight.zero_()
        return figures

    monkeypatch.setattr(rehearsal.Step, "train", train_and_die)
    found = rehearsed(tiny_cell(student__learning_rate=0.01), dataset)
    assert (found.how, found.lost, found.first_step) == ("collapsed", 2, 5)


def test_a_long_warm_up_is_compressed_so_that_its_full_rate_is_reached(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = []
    set_rates = rehearsal.set_rates

    def note(pack, stage, epoch):  # type: ignore[no-untyped-def]
        epochs.append(epoch)
        return set_rates(pack, stage, epoch)

    monkeypatch.setattr(rehearsal, "set_rates", note)
    cell = tiny_cell(student__learning_rate=0.01, student__epochs=600, student__warmup_epochs=60)
    assert rehearsed(cell, dataset).steps == 12
    assert epochs[0] == 0
    assert epochs[-1] >= 60
    assert epochs == sorted(epochs)


def test_a_rehearsal_changes_no_run(dataset: Dataset) -> None:
    cell = tiny_cell(precision="float32")
    before = train(cell, dataset)
    rehearsed(cell, dataset)
    after = train(cell, dataset)
    assert same_state(before.state_dict()["parts"], after.state_dict()["parts"])
