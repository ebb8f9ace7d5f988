"""Runs trained together are each as it is alone."""

import contextlib
import copy
import io
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from hkrun.config import Cell
from hkrun.data import Dataset
from hkrun.distill import Run, distill, start_run
from hkrun.models.packed import _pack
from hkrun.plans import Workers, why_alone
from hkrun.teacher import dump_weights
from hkrun.training import SingleProcess
from loop.conftest import CPU, ask, make_sets, same_state, tiny_cell
from loop.test_methods import METHOD_CELLS, curves, make_teacher, method_cell

SEEDS = (3, 0, 11)

# Grouped sums have another order of additions. What that changes is at the last bit of a float64, and grows
# in the few steps of a test by no more than this.
TOLERANCE = 1e-8


def train(cell: Cell, dataset: Dataset, runs: Sequence[Run], *, to: int | None = None) -> Sequence[Run]:
    """Trains runs together, to their end or until all are at least at epoch `to`."""

    class StopError(Exception):
        pass

    def stop(_: Sequence[Run]) -> None:
        if to is not None and all(run.epoch >= to for run in runs):
            raise StopError

    with contextlib.suppress(StopError):
        distill(
            runs,
            teach=ask(make_teacher(cell, dataset), *runs),
            context=SingleProcess(),
            on_epoch=stop,
            **make_sets(cell, dataset),  # type: ignore[arg-type]
        )
    return runs


def start(cell: Cell, dataset: Dataset, seeds: Sequence[int] = SEEDS) -> list[Run]:
    return [start_run(cell, dataset, seed, context=SingleProcess(), device=CPU) for seed in seeds]


def assert_close(first: object, second: object) -> None:
    """Two nested states are equal but for rounding."""
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        torch.testing.assert_close(first, second, rtol=TOLERANCE, atol=TOLERANCE)
    elif isinstance(first, dict):
        assert isinstance(second, dict)
        assert first.keys() == second.keys()
        for name in first:
            assert_close(first[name], second[name])
    elif isinstance(first, list | tuple):
        assert isinstance(second, list | tuple)
        assert len(first) == len(second)
        for ours, theirs in zip(first, second, strict=True):
            assert_close(ours, theirs)
    elif isinstance(first, float):
        assert first == pytest.approx(second, rel=TOLERANCE, abs=TOLERANCE, nan_ok=True)
    else:
        assert first == second


def assert_same_runs(first: Sequence[Run], second: Sequence[Run]) -> None:
    """Runs are equal but for rounding: their errors to the last image."""
    for ours, theirs in zip(first, second, strict=True):
        assert [row["error_pct"] for row in ours.history] == [row["error_pct"] for row in theirs.history]
        assert_close(curves(ours), curves(theirs))
        assert_close(ours.state_dict()["parts"], theirs.state_dict()["parts"])


@pytest.mark.parametrize("name", METHOD_CELLS)
def test_packed_runs_are_what_they_are_alone(dataset: Dataset, name: str) -> None:
    cell = method_cell(name, student__epochs=2)
    packed = train(cell, dataset, start(cell, dataset))
    alone = [train(cell, dataset, [run])[0] for run in start(cell, dataset)]
    assert_same_runs(packed, alone)
    assert curves(packed[0]) != curves(packed[1])


@pytest.mark.parametrize(
    "values",
    [
        {"student__network": "preact-bottleneck-11"},
        {"student__network": "wrn-10-1"},
        {"teacher__network": "wrn-10-1", "attention__width": "project"},
        {"attention__connection": "original", "attention__tap": "raw", "attention__pool": "avg"},
        {"loss__category": False, "loss__regularizer": False},
        {"loss__gan": "saturating", "loss__distance": "cross_entropy", "loss__reg_reduction": "sum"},
        {"discriminator__steps": 2, "student__steps": 2, "student__momentum": 0.0},
    ],
)
def test_hksanc_s_packed_runs_are_what_they_are_alone(dataset: Dataset, values: dict[str, object]) -> None:
    cell = tiny_cell(student__learning_rate=0.01, student__epochs=2, **values)
    packed = train(cell, dataset, start(cell, dataset))
    alone = [train(cell, dataset, [run])[0] for run in start(cell, dataset)]
    assert_same_runs(packed, alone)


@pytest.mark.parametrize(
    ("network", "method"),
    [("resnet8x4", "hksanc"), ("vgg8", "kd"), ("mobilenetv2-half", "kd"), ("resnet8x4", "bwn")],
)
def test_the_tables_networks_trained_together_are_what_they_are_alone(
    dataset: Dataset, network: str, method: str
) -> None:
    cell = tiny_cell(student__network=network, method=method, student__learning_rate=0.01, student__epochs=1)
    assert not why_alone(cell, workers=Workers.exactly(1))
    packed = train(cell, dataset, start(cell, dataset, SEEDS[:2]))
    alone = [train(cell, dataset, [run])[0] for run in start(cell, dataset, SEEDS[:2])]
    assert_same_runs(packed, alone)


@pytest.mark.parametrize("network", ["shufflenetv1", "shufflenetv2"])
def test_networks_that_shuffle_their_channels_train_alone(dataset: Dataset, network: str) -> None:
    cell = tiny_cell(student__network=network, method="kd", student__learning_rate=0.01, student__epochs=1)
    assert why_alone(cell, workers=Workers.exactly(1)) == f"{network} shuffles its channels"
    (run,) = start(cell, dataset, SEEDS[:1])
    before = dump_weights(run.student.backbone)
    train(cell, dataset, [run])
    assert dump_weights(run.student.backbone) != before
    with pytest.raises(TypeError, match="cannot be packed"):
        train(cell, dataset, start(cell, dataset, SEEDS[:2]))


def reload(cell: Cell, dataset: Dataset, runs: Sequence[Run]) -> list[Run]:
    """The runs, from the bytes of their states."""
    reloaded = []
    for run in runs:
        saved = io.BytesIO()
        torch.save(run.state_dict(), saved)
        saved.seek(0)
        (fresh,) = start(cell, dataset, [run.seed])
        fresh.load_state_dict(torch.load(saved, weights_only=True))
        reloaded.append(fresh)
    return reloaded


@pytest.mark.parametrize(
    ("name", "epochs"), [("hksanc", 1), ("hksanc", 2), ("bwn", 1), ("xnor", 2), ("binary_connect", 1)]
)
def test_a_resumed_pack_equals_an_undisturbed_one_to_the_bit(
    dataset: Dataset, name: str, epochs: int
) -> None:
    cell = tiny_cell(precision="float32", method=name)
    stopped = train(cell, dataset, start(cell, dataset), to=epochs)
    resumed = train(cell, dataset, reload(cell, dataset, stopped))
    undisturbed = train(cell, dataset, start(cell, dataset))
    for ours, theirs in zip(resumed, undisturbed, strict=True):
        assert curves(ours) == curves(theirs)
        assert same_state(ours.state_dict()["parts"], theirs.state_dict()["parts"])


@pytest.mark.parametrize("name", ["hksanc", "fitnets", "ttq", "vid"])
def test_a_pack_goes_on_as_smaller_packs(dataset: Dataset, name: str) -> None:
    cell = tiny_cell(student__epochs=4) if name == "hksanc" else method_cell(name, student__epochs=4)
    stopped = reload(cell, dataset, train(cell, dataset, start(cell, dataset), to=2))
    apart = [*train(cell, dataset, stopped[:2]), *train(cell, dataset, stopped[2:])]
    assert_same_runs(apart, train(cell, dataset, start(cell, dataset)))


def test_the_state_of_a_packed_run_is_as_large_as_that_of_one_alone(dataset: Dataset) -> None:
    cell = tiny_cell()
    sizes: list[tuple[int, int]] = []
    for seeds in (SEEDS, SEEDS[:1]):
        saved = io.BytesIO()
        run = train(cell, dataset, start(cell, dataset, seeds), to=1)[0]
        torch.save(run.state_dict(), saved)
        sizes.append((len(saved.getvalue()), len(dump_weights(run.student.backbone))))
    assert sizes[0] == sizes[1]


def test_runs_that_are_behind_catch_up_and_then_go_on_with_the_others(dataset: Dataset) -> None:
    cell = tiny_cell()
    runs = start(cell, dataset)
    train(cell, dataset, runs[:1], to=2)
    together: list[list[int]] = []
    distill(
        runs,
        teach=ask(make_teacher(cell, dataset), *runs),
        context=SingleProcess(),
        on_epoch=lambda those: together.append([run.seed for run in those]),
        **make_sets(cell, dataset),  # type: ignore[arg-type]
    )
    assert together == [[0, 11], [0, 11], [3, 0, 11]]
    assert_same_runs(runs, [train(cell, dataset, [run])[0] for run in start(cell, dataset)])


def test_a_run_that_diverges_leaves_the_others_as_they_are_alone(dataset: Dataset) -> None:
    cell = tiny_cell()
    runs = start(cell, dataset)
    with torch.no_grad():
        next(runs[1].student.backbone.parameters()).fill_(float("nan"))
    train(cell, dataset, runs)
    assert runs[1].diverged is not None
    assert runs[1].diverged.epoch == 1
    assert runs[1].history == []
    others = [train(cell, dataset, [run])[0] for run in start(cell, dataset, (SEEDS[0], SEEDS[2]))]
    assert_same_runs([runs[0], runs[2]], others)


def test_a_run_that_a_pack_leaves_behind_goes_on_as_from_its_checkpoint(dataset: Dataset) -> None:
    cell = tiny_cell(precision="float32")
    runs, resumed = start(cell, dataset, (3, 0)), start(cell, dataset, (3,))
    with torch.no_grad():
        next(runs[1].student.backbone.parameters()).fill_(float("nan"))
    train(cell, dataset, runs, to=1)
    assert runs[1].diverged is not None
    resumed[0].load_state_dict(copy.deepcopy(runs[0].state_dict()))
    train(cell, dataset, runs[:1])
    train(cell, dataset, resumed)
    for weight in runs[0].student.parameters():
        assert weight.is_contiguous()
        assert runs[0].student_optimizer.state[weight]["momentum_buffer"].is_contiguous()
    assert same_state(runs[0].state_dict()["parts"], resumed[0].state_dict()["parts"])


def test_a_layer_that_would_mix_the_members_is_refused() -> None:
    members = [torch.nn.Sequential(torch.nn.LayerNorm(4)) for _ in range(2)]
    with pytest.raises(TypeError, match="a LayerNorm cannot be packed"):
        _pack(members, [])


@pytest.mark.parametrize("seeds", [(3,), (3, 0)], ids=["alone", "packed"])
def test_the_gradient_ratio_of_anc_is_that_at_the_features_of_each_member(
    dataset: Dataset, seeds: tuple[int, ...]
) -> None:
    cell = method_cell(
        "anc",
        student__batch_size=40,
        student__epochs=1,
        loss__lambda_1=0.5,
        loss__lambda_2=3.0,
        discriminator__dropout=0.0,
        augment__padding=0,
        augment__flip=False,
    )
    runs = start(cell, dataset, seeds)
    students, teacher = [copy.deepcopy(run.student) for run in runs], make_teacher(cell, dataset)
    assert teacher is not None
    train(cell, dataset, runs)
    mean, std = dataset.mean.view(1, -1, 1, 1), dataset.std.view(1, -1, 1, 1)
    images = (dataset.train.images.double() / 255 - mean) / std
    # One batch of all images: the student judged was the initial one, the discriminator the final one.
    for run, student in zip(runs, students, strict=True):
        assert run.discriminator is not None
        features = student(images).descriptor.detach().requires_grad_()
        logits = student.backbone.get_submodule("classifier")(features)
        adversarial = -run.discriminator(features).source.sigmoid().log().mean()
        of_backbone = (logits - teacher(images).logits.detach()).square().mean()
        (ours,) = torch.autograd.grad(3.0 * adversarial, features)
        (others,) = torch.autograd.grad(0.5 * of_backbone, features)
        expected = float(ours.norm() / others.norm())
        assert run.history[0]["adversarial_gradient_ratio"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["hksanc", "anc", "vid", "ttq"])
def test_packs_compute_in_bfloat16_too(dataset: Dataset, name: str) -> None:
    values = {"precision": "bfloat16", "student__epochs": 2}
    cell = tiny_cell(**values) if name == "hksanc" else method_cell(name, **values)
    for run in train(cell, dataset, start(cell, dataset)):
        assert run.diverged is None
        assert all(math.isfinite(float(str(row["loss_total"]))) for row in run.history)
        assert all(float(str(row.get("adversarial_gradient_ratio", 0))) < 1e6 for row in run.history)


# --- a teacher for each run ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hksanc", "anc", "kd", "at", "fsp"])
def test_packed_runs_with_teachers_of_their_own_are_what_they_are_alone(dataset: Dataset, name: str) -> None:
    few = {"student__epochs": 2, "student__learning_rate": 0.01}
    cell = tiny_cell(**few) if name == "hksanc" else method_cell(name, **few)
    seeds = (*SEEDS, 4)
    teachers = {
        seed: make_teacher(replace(cell, teacher=replace(cell.teacher, seed=own)), dataset)
        for seed, own in zip(seeds, (5, 6, 6, 5), strict=True)  # two in a row share one
    }

    def learn(runs: Sequence[Run]) -> None:
        asked = {teacher: ask(teacher, *runs) for teacher in set(teachers.values())}
        distill(
            runs,
            teach={run.seed: asked[teachers[run.seed]][run.seed] for run in runs},
            context=SingleProcess(),
            on_epoch=lambda _: None,
            **make_sets(cell, dataset),  # type: ignore[arg-type]
        )

    packed, alone, shared = (start(cell, dataset, seeds) for _ in range(3))
    learn(packed)
    for run in alone:
        learn([run])
    assert_same_runs(packed, alone)
    train(cell, dataset, shared)  # all of one other teacher
    assert all(curves(own) != curves(other) for own, other in zip(packed, shared, strict=True))
