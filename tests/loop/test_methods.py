"""Every method trains a student: its terms, its stages, and what each stage leaves alone."""

import copy
import io
import itertools
from collections.abc import Sequence
from functools import cache

import pytest
import torch
from _pytest.mark import ParameterSet
from dataset_example import make_dataset

from hkrun.config import Cell, cell_from_values
from hkrun.data import Dataset, load_dataset
from hkrun.distill import Run, distill, start_run
from hkrun.losses import attention_transfer_loss, fsp_loss, nst_loss
from hkrun.methods import METHODS
from hkrun.models import DistilledNetwork, Output
from hkrun.models.quantized import quantized_layers
from hkrun.objective import DataSizes, Objective
from hkrun.teacher import freeze, start_teacher, train_teachers
from hkrun.training import SingleProcess
from loop.conftest import CPU, ask, make_sets, same_state, tiny_cell

# What tables 2, 4, 6 and 7 compare, apart from HKSANC's own terms, which have tests of their own.
METHOD_CELLS: dict[str, dict[str, object]] = {
    **{name: {"method": name} for name in METHODS if name != "hksanc"},
    **{
        form: {"method": "hksanc", "loss.lambda_2": 0.0, "knowledge.form": form}
        for form in ("at", "fsp", "nst", "vid")
        if form not in METHODS
    },
    "l_is_fsp": {"method": "hksanc", "loss.lambda_2": 0.0, "knowledge.form": "fsp"},
}
WITH_TEACHER = [
    name
    for name, values in METHOD_CELLS.items()
    if cell_from_values(values).uses_teacher  # type: ignore[arg-type]
]
TWO_STAGES = [name for name, method in METHODS.items() if len(method.stages) == 2]
TINY_FIRST_STAGE = 0.67  # 2 of 3 epochs


def method_cell(name: str, **values: object) -> Cell:
    """The method's cell on the tiny data."""
    given = {key.replace(".", "__"): value for key, value in METHOD_CELLS[name].items()}
    # The tiny data's teacher is untrained, its features far from any that a student could have: small steps.
    usual = {"student__first_stage": TINY_FIRST_STAGE, "student__learning_rate": 0.01}
    return tiny_cell(**{**usual, **given, **values})


def make_teacher(cell: Cell, dataset: Dataset) -> DistilledNetwork | None:
    """A teacher in its initial state; None where the method has none."""
    return (
        freeze(start_teacher(cell, dataset, context=SingleProcess(), device=CPU).network)
        if cell.uses_teacher
        else None
    )


class StopError(Exception):
    """The loop was interrupted."""


def train(cell: Cell, dataset: Dataset, *, run: Run | None = None, epochs: int | None = None) -> Run:
    """Distils a run to its end, or to some epoch."""
    run = run or start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)

    def stop(runs: Sequence[Run]) -> None:
        if runs[0].epoch == epochs:
            raise StopError

    arguments = {
        "teach": ask(make_teacher(cell, dataset), run),
        "context": SingleProcess(),
        **make_sets(cell, dataset),
    }
    if epochs is None:
        distill([run], on_epoch=stop, **arguments)  # type: ignore[arg-type]
    else:
        with pytest.raises(StopError):
            distill([run], on_epoch=stop, **arguments)  # type: ignore[arg-type]
    return run


def curves(run: Run) -> list[dict[str, float | None]]:
    """The history without the clock."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]


def weights(run: Run) -> dict[str, torch.Tensor]:
    """A copy of the student's parameters."""
    return {name: parameter.detach().clone() for name, parameter in run.student.backbone.named_parameters()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The stem, the stages and the layers in which every parameter changed; none may have changed in part."""
    changed: dict[str, set[bool]] = {}
    for name, value in before.items():
        parts = name.split(".")
        part = ".".join(parts[:2]) if parts[0] == "stages" else parts[0]
        changed.setdefault(part, set()).add(not torch.equal(value, after[name]))
    assert all(len(answers) == 1 for answers in changed.values()), changed
    return {part for part, (answer,) in changed.items() if answer}


# Every method learns


@cache
def digits_teacher(network: str) -> DistilledNetwork:
    """A teacher that misses about 5 % of the digits."""
    cell = digits_cell({"method": "kd", "teacher.network": network})
    run = start_teacher(cell, load_dataset("digits"), context=SingleProcess(), device=CPU)
    sets = make_sets(cell, load_dataset("digits"))
    train_teachers([run], context=SingleProcess(), on_epoch=lambda _: None, **sets)  # type: ignore[arg-type]
    return freeze(run.network)


def digits_cell(values: dict[str, object]) -> Cell:
    """A run of seconds; a network that only guesses misses 90 %."""
    short = {
        "teacher.network": "preact-8-w16",
        "teacher.epochs": 12,
        "teacher.batch_size": 32,
        "student.network": "preact-8-w8",
        "student.epochs": 12,
        "student.batch_size": 32,
        "augment.padding": 0,
        "augment.flip": False,
    }
    return cell_from_values({**short, **values})  # type: ignore[dict-item]


@cache
def learn_digits(name: str) -> Run:
    """One run, from a teacher of twice the student's widths."""
    cell, dataset = digits_cell(METHOD_CELLS[name]), load_dataset("digits")
    teacher = digits_teacher(cell.teacher.network) if cell.uses_teacher else None
    run = start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)
    distill(
        [run],
        teach=ask(teacher, run),
        context=SingleProcess(),
        on_epoch=lambda _: None,
        **make_sets(cell, dataset),  # type: ignore[arg-type]
    )
    return run


# Five seconds each: one of each kind in every test run, all with `make test-all`.
LEARNED_ALWAYS = ("kd", "fsp", "ttq")


def and_slowly(name: str, *others: str) -> ParameterSet:
    """A test's parameters, behind the slow marker unless the method is always learned."""
    marks = () if name in LEARNED_ALWAYS else (pytest.mark.slow,)
    return pytest.param(name, *others, marks=marks)


@pytest.mark.parametrize("name", list(map(and_slowly, METHOD_CELLS)))
def test_every_method_learns_the_digits(name: str) -> None:
    limit = 60 if name == "xnor" else 40  # binary inputs learn far slower
    assert learn_digits(name).history[-1]["error_pct"] < limit  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "term"),
    [
        *(and_slowly(form, "loss_knowledge") for form in ("at", "l_is_fsp", "nst", "vid")),
        and_slowly("fitnets", "loss_hint"),
        and_slowly("fsp", "loss_fsp"),
        and_slowly("tscan", "loss_logits_l1"),
        and_slowly("kd", "loss_kd"),
    ],
)
def test_the_term_of_each_method_falls(name: str, term: str) -> None:
    losses = [row[term] for row in learn_digits(name).history if term in row]
    assert losses[-1] < 0.9 * losses[0]  # type: ignore[operator]


# Stages


@cache
def undisturbed(name: str) -> Run:
    """A run of the method in float32, to its end."""
    return train(method_cell(name, precision="float32"), make_dataset(40))


@pytest.mark.parametrize(
    ("name", "epochs"),
    [(name, epochs) for name in METHOD_CELLS for epochs in range(1, sum(method_cell(name).stage_epochs))],
)
def test_a_run_resumed_after_any_epoch_equals_an_undisturbed_one(
    dataset: Dataset, name: str, epochs: int
) -> None:
    """A two-stage method has two epochs of its first stage and three of its second."""
    cell = method_cell(name, precision="float32")
    saved = io.BytesIO()
    torch.save(train(cell, dataset, epochs=epochs).state_dict(), saved)
    saved.seek(0)
    resumed = start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    train(cell, dataset, run=resumed)
    expected = undisturbed(name)
    assert len(expected.history) == (5 if name in TWO_STAGES else 3)
    assert curves(resumed) == curves(expected)
    assert same_state(resumed.state_dict()["parts"], expected.state_dict()["parts"])


@pytest.mark.parametrize("name", TWO_STAGES)
def test_the_history_says_which_stage_an_epoch_is_of(dataset: Dataset, name: str) -> None:
    run = train(method_cell(name), dataset)
    assert [row["stage"] for row in run.history] == [1, 1, 2, 2, 2]
    terms = [set(filter(lambda column: column.startswith("loss_"), row)) for row in run.history]
    first, second = METHODS[name].stages
    assert terms[0] == terms[1] == {f"loss_{term.name}" for term in first.terms} | {"loss_total"}
    assert terms[2] == terms[4] == {f"loss_{term.name}" for term in second.terms} | {"loss_total"}


@pytest.mark.parametrize("name", TWO_STAGES)
def test_the_learning_rate_starts_again_in_the_second_stage(dataset: Dataset, name: str) -> None:
    cell = method_cell(name, student__drops=(0.5,), student__epochs=4, student__first_stage=0.5)
    rates = [row["learning_rate"] for row in train(cell, dataset).history]
    assert rates == pytest.approx([0.01, 0.001, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize(
    ("name", "trained"),
    [
        ("fitnets", {"stem", "stages.0", "stages.1"}),  # up to the middle stage, whose output is compared
        ("fsp", {"stem", "stages.0", "stages.1", "stages.2"}),
        ("ttq", {"stem", "stages.0", "stages.1", "stages.2", "norm", "classifier"}),
    ],
)
def test_the_first_stage_trains_only_what_its_term_reaches(
    dataset: Dataset, name: str, trained: set[str]
) -> None:
    cell = method_cell(name)
    before = weights(start_run(cell, dataset, 0, context=SingleProcess(), device=CPU))
    run = train(cell, dataset, epochs=2)
    assert moved(before, weights(run)) == trained
    after = weights(run)
    second = weights(train(cell, dataset))
    assert moved(after, second) == {"stem", "stages.0", "stages.1", "stages.2", "norm", "classifier"}


@pytest.mark.parametrize("name", ["fitnets", "fsp"])
def test_what_a_first_stage_learned_beside_the_student_is_dropped(dataset: Dataset, name: str) -> None:
    cell = method_cell(name, teacher__network="wrn-10-1")
    run = train(cell, dataset, epochs=2)
    assert list(run.objective.parameters())
    train(cell, dataset, run=run)
    assert not list(run.objective.parameters())
    optimized = {id(p) for group in run.student_optimizer.param_groups for p in group["params"]}
    assert optimized == {id(parameter) for parameter in run.student.parameters()}


def test_ternary_training_starts_from_the_full_precision_weights(dataset: Dataset) -> None:
    cell = method_cell("ttq")
    first = train(cell, dataset, epochs=2)
    full = weights(first)
    assert not quantized_layers(first.student.backbone)
    # With a learning rate near 0, the second stage changes nothing but how the layers compute.
    still = method_cell("ttq", student__learning_rate=1e-300)
    state = first.state_dict()
    run = start_run(still, dataset, 0, context=SingleProcess(), device=CPU)
    run.load_state_dict(state)
    train(still, dataset, run=run)
    assert quantized_layers(run.student.backbone)
    assert same_state(full, {name: value for name, value in weights(run).items() if name in full})


@pytest.mark.parametrize("name", ["binary_connect", "ttq", "bwn", "xnor"])
def test_the_measured_student_computes_with_few_values(dataset: Dataset, name: str) -> None:
    backbone = train(method_cell(name), dataset).student.backbone
    layers = quantized_layers(backbone)
    assert layers
    for layer in layers.values():
        for filter_weights in layer.quantizer(layer.weight).detach():
            assert len(filter_weights.unique()) <= (3 if name == "ttq" else 2)


def test_binary_connect_clips_its_real_weights_after_every_step(dataset: Dataset) -> None:
    run = train(method_cell("binary_connect", student__learning_rate=5.0), dataset)
    largest = {
        name: float(layer.weight.detach().abs().max())
        for name, layer in quantized_layers(run.student.backbone).items()
    }
    assert max(largest.values()) == 1.0
    assert all(value <= 1 for value in largest.values())


# Terms


@pytest.mark.parametrize("name", WITH_TEACHER)
def test_the_teacher_never_changes(dataset: Dataset, name: str) -> None:
    cell = method_cell(name)
    teacher = make_teacher(cell, dataset)
    assert teacher is not None
    before = copy.deepcopy(teacher.state_dict())
    run = start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)
    sets = make_sets(cell, dataset)
    distill([run], teach=ask(teacher, run), context=SingleProcess(), on_epoch=lambda _: None, **sets)  # type: ignore[arg-type]
    assert same_state(before, teacher.state_dict())


@pytest.mark.parametrize("name", METHOD_CELLS)
def test_the_total_is_the_weighted_sum_of_the_stage_s_terms(dataset: Dataset, name: str) -> None:
    cell = method_cell(name, loss__lambda_1=0.5, loss__lambda_3=3.0, loss__alpha=0.75)
    constant = {"hint": 1.0, "fsp": 1.0, "kd": 0.75, "backbone": 0.5, "logits_l1": 0.5, "knowledge": 3.0}
    for row in train(cell, dataset).history:
        entropy = 0.25 if "loss_kd" in row else 1.0
        factors = {**constant, "cross_entropy": entropy, "adversarial": 1.0}
        present = {term: row[f"loss_{term}"] for term in factors if f"loss_{term}" in row}
        assert present
        expected = sum(factors[term] * value for term, value in present.items())  # type: ignore[operator]
        assert row["loss_total"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["fitnets", "fsp", "anc", "at", "l_is_fsp", "nst", "vid"])
@pytest.mark.parametrize("teacher", ["wrn-10-2", "preact-bottleneck-11"])
def test_methods_on_features_take_teachers_of_other_widths(dataset: Dataset, name: str, teacher: str) -> None:
    cell = method_cell(name, teacher__network=teacher)
    start = start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)
    before = copy.deepcopy(dict(start.objective.named_parameters()))
    first_stage_over = cell.stage_epochs[0]
    run = train(cell, dataset, epochs=first_stage_over)
    after = dict(run.objective.named_parameters())
    assert before.keys() == after.keys()
    assert bool(after) == (name not in ("at", "nst"))  # these two compare what has no width
    assert all(not torch.equal(before[key], after[key]) for key in after)


def test_equal_widths_need_no_projection(dataset: Dataset) -> None:
    for name in ("fsp", "l_is_fsp", "anc"):
        assert not list(
            start_run(
                method_cell(name), dataset, 0, context=SingleProcess(), device=CPU
            ).objective.parameters()
        )


def random_output(widths: tuple[int, ...], seed: int) -> Output:
    """Stem and three stages of two images, their sizes halved from stage to stage."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    stem, *stages = (draw(2, width, size, size) for width, size in zip(widths, (8, 8, 4, 2), strict=True))
    return Output(
        logits=draw(2, 3), knowledge=None, stages=tuple(stages), descriptor=draw(2, widths[-1]), stem=stem
    )


@pytest.mark.parametrize("tap", ["raw", "relu"])
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("name", ["fitnets", "fsp", "at", "l_is_fsp", "nst", "vid"])
def test_each_method_compares_the_stages_that_it_names(name: str, relative: bool, tap: str) -> None:
    cell = method_cell(name, knowledge__tap=tap, knowledge__relative=relative, loss__reduction="sum")
    reduction = "relative" if relative else "sum"
    student, teacher = random_output((6, 6, 12, 24), 0), random_output((6, 6, 12, 24), 1)
    objective = Objective(cell, 0, DataSizes(3, 40)).double()
    found = objective(student, teacher, torch.tensor([0, 1]))

    def tapped(output: Output) -> list[torch.Tensor]:
        maps = [output.stem, *output.stages]
        return [features.clamp(min=0) for features in maps] if tap == "relu" else maps

    ours, theirs = tapped(student), tapped(teacher)
    learned = dict(objective.named_modules())
    if name in ("fsp", "l_is_fsp"):  # input and output of each stage
        pairs = [[(maps[stage], maps[stage + 1]) for stage in range(3)] for maps in (ours, theirs)]
        expected = fsp_loss(*pairs, reduction=reduction)
    elif name == "fitnets":  # the second of three stages
        (regressor,) = objective.parameters()
        regressed = torch.einsum("oc,bchw->bohw", regressor[:, :, 0, 0], ours[2])
        distances = (regressed - theirs[2]).square().sum(dim=(1, 2, 3))
        unit = theirs[2].square().sum(dim=(1, 2, 3)) if relative else 1
        expected = (distances / unit).mean() / 2
    elif name == "vid":
        expected = learned["_learned.vid"](ours[1:], theirs[1:])
    else:
        expected = {"at": attention_transfer_loss, "nst": nst_loss}[name](ours[1:], theirs[1:])
    term = {"fitnets": "hint", "fsp": "fsp"}.get(name, "knowledge")
    torch.testing.assert_close(found[term], expected, rtol=1e-13, atol=0)


def test_anc_judges_the_student_s_features_after_a_seeded_dropout(dataset: Dataset) -> None:
    whole, half, again = (
        train(method_cell("anc", student__epochs=1, discriminator__dropout=share), dataset).history[0]
        for share in (0.0, 0.5, 0.5)
    )
    assert whole["loss_discriminator"] != half["loss_discriminator"]
    assert again["loss_discriminator"] == half["loss_discriminator"]


def test_anc_drops_other_features_in_every_batch_and_epoch(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = method_cell("anc", student__epochs=2)
    masks: list[torch.Tensor] = []
    draw = torch.rand

    def record(*shape: int, **arguments: torch.Generator) -> torch.Tensor:
        drawn = draw(*shape, **arguments)  # type: ignore[call-overload]
        masks.append(drawn)
        return drawn  # type: ignore[no-any-return]

    monkeypatch.setattr(torch, "rand", record)
    train(cell, dataset)
    masks = [mask for mask in masks if mask.shape == (cell.student.batch_size, 24)]
    assert len(masks) == 4  # two batches in each of two epochs
    assert not any(torch.equal(*pair) for pair in itertools.combinations(masks, 2))
