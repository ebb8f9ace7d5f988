"""The loop of stage 2: who learns from what, and that a run is nothing but its state."""

import copy
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from hkrun.data import Dataset
from hkrun.distill import Run, distill, start_run
from hkrun.models import DistilledNetwork
from hkrun.spaces import load_cell
from hkrun.teacher import build_teacher, freeze, hash_weights, start_teacher
from hkrun.training import SingleProcess
from loop import reference
from loop.conftest import CPU, ask, make_sets, same_state, tiny_cell


def make_teacher(cell: object, dataset: Dataset) -> DistilledNetwork:
    """A teacher in its initial state: as good as any for the loop."""
    return freeze(start_teacher(cell, dataset, context=SingleProcess(), device=CPU).network)  # type: ignore[arg-type]


def train(
    cell: object, dataset: Dataset, *, seed: int = 0, run: Run | None = None, teacher: object = None
) -> Run:
    """Distils a run to its end."""
    run = run or start_run(cell, dataset, seed, context=SingleProcess(), device=CPU)  # type: ignore[arg-type]
    if teacher is None and cell.uses_teacher:  # type: ignore[attr-defined]
        teacher = make_teacher(cell, dataset)
    sets = make_sets(cell, dataset)  # type: ignore[arg-type]
    distill([run], teach=ask(teacher, run), context=SingleProcess(), on_epoch=lambda _: None, **sets)  # type: ignore[arg-type]
    return run


def curves(run: Run) -> list[dict[str, float | None]]:
    """The history without the clock."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]


def test_loop_equals_the_method_written_plainly(dataset: Dataset) -> None:
    cell = tiny_cell(augment__flip=True, student__epochs=3, student__drops=(0.4, 0.8))
    teacher = make_teacher(cell, dataset)
    expected = start_run(cell, dataset, 5, context=SingleProcess(), device=CPU)
    reference.train(expected, cell, dataset, teacher, seed=5, epochs=3)
    run = train(cell, dataset, seed=5, teacher=teacher)
    for mine, theirs in ((run.student, expected.student), (run.discriminator, expected.discriminator)):
        assert mine is not None
        assert theirs is not None
        for (name, value), other in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
            torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-11, msg=name)


def test_discriminator_step_moves_only_the_discriminator(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = tiny_cell(student__epochs=1)
    run = start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)
    monkeypatch.setattr(run.student_optimizer, "step", lambda: None)
    before = copy.deepcopy(run.student.state_dict()), copy.deepcopy(run.discriminator)
    train(cell, dataset, run=run)
    learned = dict(run.student.named_parameters())
    assert all(torch.equal(before[0][name], parameter) for name, parameter in learned.items())
    assert before[1] is not None
    assert run.discriminator is not None
    for old, new in zip(before[1].parameters(), run.discriminator.parameters(), strict=True):
        assert not torch.equal(old, new)


def test_student_step_moves_only_the_student(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = tiny_cell(student__epochs=1)
    run = start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)
    assert run.discriminator is not None
    assert run.discriminator_optimizer is not None
    monkeypatch.setattr(run.discriminator_optimizer, "step", lambda: None)
    before = (
        copy.deepcopy(run.discriminator.state_dict()),
        copy.deepcopy(dict(run.student.named_parameters())),
    )
    train(cell, dataset, run=run)
    assert same_state(before[0], run.discriminator.state_dict())
    for name, parameter in run.student.named_parameters():
        assert not torch.equal(before[1][name], parameter), name


def test_student_step_leaves_no_gradient_on_the_discriminator(dataset: Dataset) -> None:
    cell = tiny_cell(student__epochs=1, discriminator__steps=1)
    run = start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)
    assert run.discriminator is not None
    assert run.discriminator_optimizer is not None
    seen: list[list[torch.Tensor]] = []
    original = run.student_optimizer.step

    def step() -> None:
        assert run.discriminator is not None
        seen.append([parameter.grad.clone() for parameter in run.discriminator.parameters()])  # type: ignore[union-attr]
        original()

    run.student_optimizer.step = step  # type: ignore[method-assign,assignment]
    kept: list[list[torch.Tensor]] = []
    critic_step = run.discriminator_optimizer.step

    def step_critic() -> None:
        assert run.discriminator is not None
        kept.append([parameter.grad.clone() for parameter in run.discriminator.parameters()])  # type: ignore[union-attr]
        critic_step()

    run.discriminator_optimizer.step = step_critic  # type: ignore[method-assign,assignment]
    train(cell, dataset, run=run)
    assert len(seen) == len(kept) == 2
    assert same_state(seen, kept)  # what the D step left is untouched by the student's backward pass


@pytest.mark.parametrize("steps", [1, 2])
def test_batchnorm_statistics_update_once_per_student_forward(dataset: Dataset, steps: int) -> None:
    run = train(tiny_cell(student__epochs=2, student__steps=steps), dataset)
    counts = {
        int(value) for name, value in run.student.state_dict().items() if name.endswith("num_batches_tracked")
    }
    assert counts == {2 * 2 * steps}  # two epochs of two batches; the discriminator's steps add none


def test_several_discriminator_steps_share_one_student_forward(dataset: Dataset) -> None:
    run = train(tiny_cell(student__epochs=1, discriminator__steps=3), dataset)
    counts = [value for name, value in run.student.state_dict().items() if name.endswith("tracked")]
    assert set(map(int, counts)) == {2}


def test_teacher_never_changes(dataset: Dataset) -> None:
    cell = tiny_cell()
    teacher = make_teacher(cell, dataset)
    before = hash_weights(teacher)
    train(cell, dataset, teacher=teacher)
    assert hash_weights(teacher) == before
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_hash_sees_every_change_of_a_weight_or_statistic(dataset: Dataset) -> None:
    teacher = build_teacher(tiny_cell(), dataset)
    hashes = {hash_weights(teacher)}
    for tensor in teacher.state_dict().values():
        tensor.view(-1)[0] += 1
        hashes.add(hash_weights(teacher))
    assert len(hashes) == len(teacher.state_dict()) + 1


TERMS = {
    "L_b": {"loss__lambda_2": 0.0, "loss__lambda_3": 0.0},
    "L_b + L_is": {"loss__lambda_2": 0.0},
    "L_b + L_adv": {"loss__lambda_3": 0.0},
    "L_b + L_adv + L_is": {},
    "supervised": {"method": "supervised"},
}


def test_seed_means_the_same_start_in_every_cell(dataset: Dataset) -> None:
    runs = {
        name: start_run(tiny_cell(**values), dataset, 3, context=SingleProcess(), device=CPU)
        for name, values in TERMS.items()
    }
    whole = runs["L_b + L_adv + L_is"]
    for name, run in runs.items():
        assert same_state(run.student.backbone.state_dict(), whole.student.backbone.state_dict()), name
    assert whole.student.attention is not None
    assert whole.discriminator is not None
    assert runs["L_b + L_is"].student.attention is not None
    assert runs["L_b + L_adv"].discriminator is not None
    assert same_state(runs["L_b + L_is"].student.attention.state_dict(), whole.student.attention.state_dict())
    assert same_state(runs["L_b + L_adv"].discriminator.state_dict(), whole.discriminator.state_dict())


def test_every_seed_starts_from_the_students_file_and_learns_from_there(
    dataset: Dataset, tmp_path: Path
) -> None:
    source = start_run(tiny_cell(), dataset, 7, context=SingleProcess(), device=CPU).student.backbone
    torch.save({"model": source.state_dict()}, tmp_path / "student.pt")
    cell = tiny_cell(student__file=str(tmp_path / "student.pt"), student__epochs=1)
    first, second = (start_run(cell, dataset, seed, context=SingleProcess(), device=CPU) for seed in (0, 1))
    assert same_state(first.student.backbone.state_dict(), source.state_dict())
    assert same_state(second.student.backbone.state_dict(), source.state_dict())
    assert first.student.attention is not None
    assert second.student.attention is not None
    assert not same_state(first.student.attention.state_dict(), second.student.attention.state_dict())
    train(cell, dataset, run=first)
    assert not same_state(first.student.backbone.state_dict(), source.state_dict())


def test_a_term_of_weight_zero_is_not_computed(dataset: Dataset) -> None:
    columns = {name: set(train(tiny_cell(**values), dataset).history[-1]) for name, values in TERMS.items()}
    adversarial = {
        name for name in columns["L_b + L_adv"] if "adversarial" in name or "discriminator" in name
    }
    assert len(adversarial) == 7
    assert "loss_knowledge" in columns["L_b + L_is"]
    assert not columns["L_b"] & (adversarial | {"loss_knowledge", "loss_regularizer"})
    assert not columns["supervised"] & {"loss_backbone", "loss_knowledge", "loss_adversarial"}
    for name in ("L_b", "L_b + L_is", "supervised"):
        assert (
            start_run(tiny_cell(**TERMS[name]), dataset, 0, context=SingleProcess(), device=CPU).discriminator
            is None
        )
    for name in ("L_b", "L_b + L_adv", "supervised"):
        run = start_run(tiny_cell(**TERMS[name]), dataset, 0, context=SingleProcess(), device=CPU)
        assert run.student.attention is None


def test_the_total_is_the_weighted_sum_of_the_terms(dataset: Dataset) -> None:
    cell = tiny_cell(loss__lambda_1=0.5, loss__lambda_2=2.0, loss__lambda_3=3.0)
    for row in train(cell, dataset).history:
        terms = 0.5 * row["loss_backbone"] + 2.0 * row["loss_adversarial"] + 3.0 * row["loss_knowledge"]  # type: ignore[operator]
        assert row["loss_total"] == pytest.approx(terms, rel=1e-12)


def test_gradient_ratio_is_that_of_the_adversarial_term_to_the_others_at_the_logits(dataset: Dataset) -> None:
    cell = tiny_cell(
        student__batch_size=40,
        student__epochs=1,
        loss__lambda_1=0.5,
        loss__lambda_2=3.0,
        augment__padding=0,
        augment__flip=False,
    )
    run = start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)
    teacher, student = make_teacher(cell, dataset), copy.deepcopy(run.student)
    (row,) = train(cell, dataset, run=run, teacher=teacher).history
    # One batch of all images: the student judged was the initial one, the discriminator the final one.
    assert run.discriminator is not None
    mean, std = dataset.mean.view(1, -1, 1, 1), dataset.std.view(1, -1, 1, 1)
    images = (dataset.train.images.double() / 255 - mean) / std
    logits = student(images).logits.detach().requires_grad_()
    source, classes = run.discriminator(logits)
    own_class = classes.log_softmax(1)[torch.arange(40), dataset.train.labels]
    adversarial = -source.sigmoid().log().mean() - own_class.mean()
    (of_adversary,) = torch.autograd.grad(adversarial, logits)
    of_backbone = 2 * (logits - teacher(images).logits).detach() / logits.numel()
    expected = 3.0 * of_adversary.norm() / (0.5 * of_backbone.norm())
    assert row["adversarial_gradient_ratio"] == pytest.approx(float(expected), rel=1e-9)


def test_runs_repeat_to_the_bit_and_differ_by_seed(dataset: Dataset) -> None:
    cell = tiny_cell(precision="float32")
    first, second = train(cell, dataset, seed=1), train(cell, dataset, seed=1)
    assert curves(first) == curves(second)
    assert same_state(first.state_dict()["parts"], second.state_dict()["parts"])
    assert curves(first) != curves(train(cell, dataset, seed=2))


def stop_after(cell: object, dataset: Dataset, epochs: int) -> dict[str, object]:
    """The state of a run after some epochs, through the bytes of a file."""

    class StopError(Exception):
        pass

    run = start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)  # type: ignore[arg-type]
    saved = io.BytesIO()

    def stop(_runs: Sequence[Run]) -> None:
        if run.epoch == epochs:
            torch.save(run.state_dict(), saved)
            raise StopError

    with pytest.raises(StopError):
        distill(
            [run],
            teach=ask(make_teacher(cell, dataset), run),
            context=SingleProcess(),
            on_epoch=stop,
            **make_sets(cell, dataset),  # type: ignore[arg-type]
        )
    saved.seek(0)
    return torch.load(saved, weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("network", ["preact-8-w6", "preact-8"])  # the wider one is channels_last
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_resumed_run_equals_an_undisturbed_one_to_the_bit(
    dataset: Dataset, epochs: int, network: str
) -> None:
    cell = tiny_cell(precision="float32", student__network=network)
    resumed = start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)
    resumed.load_state_dict(stop_after(cell, dataset, epochs))
    assert resumed.epoch == epochs
    train(cell, dataset, run=resumed)
    undisturbed = train(cell, dataset)
    assert curves(resumed) == curves(undisturbed)
    assert same_state(resumed.state_dict()["parts"], undisturbed.state_dict()["parts"])


@pytest.mark.parametrize("missing", [0, 1, 2, 3])
def test_every_part_of_the_state_is_needed(dataset: Dataset, missing: int) -> None:
    cell = tiny_cell(precision="float32")
    state = stop_after(cell, dataset, 1)
    fresh = start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)
    state["parts"][missing] = fresh.state_dict()["parts"][missing]  # type: ignore[index]
    fresh.load_state_dict(state)
    train(cell, dataset, run=fresh)
    undisturbed = train(cell, dataset)
    assert not same_state(fresh.state_dict()["parts"], undisturbed.state_dict()["parts"])


def test_divergence_names_its_epoch_and_keeps_the_epochs_before(dataset: Dataset) -> None:
    cell = tiny_cell(student__learning_rate=1e200, student__epochs=5)
    run = start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)
    train(cell, dataset, run=run)
    assert run.diverged is not None
    assert run.diverged.epoch == run.epoch + 1 <= 5


@pytest.mark.parametrize(
    "values",
    [
        {"teacher__network": "preact-bottleneck-11"},
        {"teacher__network": "preact-bottleneck-11", "attention__width": "project"},
        {"teacher__network": "wrn-10-1", "student__network": "preact-8-w4"},
        {"attention__connection": "original", "attention__tap": "raw", "attention__pool": "avg"},
        {"loss__category": False},
        {"loss__regularizer": False},
        {"loss__gan": "saturating", "loss__distance": "cross_entropy", "loss__reg_reduction": "sum"},
        {"precision": "bfloat16"},
    ],
)
def test_every_reading_of_the_method_trains(dataset: Dataset, values: dict[str, object]) -> None:
    run = train(tiny_cell(**{"student__learning_rate": 0.02, "student__epochs": 6, **values}), dataset)
    losses = [row["loss_backbone"] for row in run.history]
    assert losses[-1] < losses[0]  # type: ignore[operator]


def test_bfloat16_keeps_weights_in_float32(dataset: Dataset) -> None:
    run = train(tiny_cell(precision="bfloat16"), dataset)
    assert {parameter.dtype for parameter in run.student.parameters()} == {torch.float32}


@pytest.mark.parametrize("method", ["hksanc", "anc"])
def test_networks_of_a_library_distil_and_two_runs_of_a_seed_are_one(dataset: Dataset, method: str) -> None:
    # Its descriptor is longer than its last stage is wide.
    name = "torchvision:mobilenet_v3_small"
    settings = [f"{section}.network={name}" for section in ("teacher", "student")]
    settings += ["student.epochs=1", "student.batch_size=16", "augment.padding=1", f"method={method}"]
    cell = load_cell(overrides=settings).cells[0].cell
    runs = [train(cell, dataset, seed=3) for _ in range(2)]
    assert same_state(runs[0].student.state_dict(), runs[1].student.state_dict())
    fresh = start_run(cell, dataset, 3, context=SingleProcess(), device=CPU)
    parameters = zip(runs[0].student.named_parameters(), fresh.student.parameters(), strict=True)
    unmoved = [name for (name, trained), initial in parameters if torch.equal(trained, initial)]
    assert not unmoved
