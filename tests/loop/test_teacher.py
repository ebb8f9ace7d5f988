"""Stage 1: what trains when, and what a teacher file may be."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

from hkrun.config import Cell
from hkrun.data import Dataset
from hkrun.errors import InputError
from hkrun.plans import Workers, why_teachers_alone
from hkrun.teacher import TeacherRun, num_epochs, start_teacher, train_teachers
from hkrun.training import EvaluationSet, SingleProcess
from loop.conftest import CPU, make_sets, same_state, tiny_cell


def train(cell: object, dataset: Dataset, seen: list[dict[str, torch.Tensor]] | None = None) -> TeacherRun:
    run = start_teacher(cell, dataset, context=SingleProcess(), device=CPU)  # type: ignore[arg-type]

    def keep(_: Sequence[TeacherRun]) -> None:
        if seen is not None:
            seen.append({name: value.clone() for name, value in run.network.state_dict().items()})

    train_teachers([run], context=SingleProcess(), on_epoch=keep, **make_sets(cell, dataset))  # type: ignore[arg-type]
    return run


def part(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if key.startswith(name)}


def test_joint_trains_backbone_and_attention_together(dataset: Dataset) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    run = train(tiny_cell(), dataset, seen)
    assert set(run.history[0]) >= {"loss_backbone", "loss_auxiliary"}
    for name in ("backbone", "attention"):
        assert not same_state(part(seen[0], name), part(seen[1], name))


def test_both_classifiers_learn(dataset: Dataset) -> None:
    history = train(tiny_cell(teacher__epochs=12), dataset).history
    for name in ("loss_backbone", "loss_auxiliary"):
        assert history[-1][name] < 0.7 * history[0][name]  # type: ignore[operator]


def test_shared_freezes_the_backbone_for_the_second_phase(dataset: Dataset) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    cell = tiny_cell(teacher__backbone="shared")
    run = train(cell, dataset, seen)
    assert run.epoch == num_epochs(cell) == 4
    first, last = seen[1], seen[3]
    assert same_state(part(first, "backbone"), part(last, "backbone"))  # BatchNorm statistics too
    assert not same_state(part(first, "attention"), part(last, "attention"))
    assert same_state(part(seen[0], "attention"), part(seen[1], "attention"))
    assert "loss_auxiliary" not in run.history[0]
    assert "loss_backbone" not in run.history[2]


def test_a_frozen_backbone_is_evaluated_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[object] = []

    original = EvaluationSet.evaluate_each

    def evaluate(*args: object, **options: object) -> object:
        evaluated.append(args[0])
        return original(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(EvaluationSet, "evaluate_each", evaluate)
    history = train(tiny_cell(teacher__backbone="shared"), dataset).history
    assert len(evaluated) == 3
    assert history[1]["error_pct"] == history[2]["error_pct"] == history[3]["error_pct"]


def test_shared_gives_every_connection_the_same_backbone(dataset: Dataset) -> None:
    states = [
        train(tiny_cell(teacher__backbone="shared", attention__connection=connection), dataset).network
        for connection in ("hierarchical", "original")
    ]
    assert same_state(states[0].backbone.state_dict(), states[1].backbone.state_dict())


def test_a_teacher_file_is_used_as_it_is(dataset: Dataset, tmp_path: Path) -> None:
    source = train(tiny_cell(), dataset).network.backbone
    torch.save(source.state_dict(), tmp_path / "backbone.pt")
    run = train(tiny_cell(teacher__file=str(tmp_path / "backbone.pt")), dataset)
    assert same_state(run.network.backbone.state_dict(), source.state_dict())
    assert run.epoch == 2


@pytest.mark.parametrize("content", [b"", b"not weights", None], ids=["empty", "text", "another network"])
def test_a_file_of_something_else_is_refused_in_one_line(
    dataset: Dataset, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "backbone.pt"
    if content is None:
        torch.save({"fc.weight": torch.zeros(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"teacher\.file: .*backbone\.pt: not weights of this") as caught:
        start_teacher(tiny_cell(teacher__file=str(path)), dataset, context=SingleProcess(), device=CPU)
    assert len(caught.value.problems) == 1


def test_the_optimizer_begins_anew_with_each_phase(dataset: Dataset) -> None:
    run = train(tiny_cell(teacher__backbone="shared"), dataset)
    trained = {id(parameter) for parameter in run.optimizer.param_groups[0]["params"]}
    assert trained.isdisjoint(id(parameter) for parameter in run.network.backbone.parameters())


def test_teacher_repeats_to_the_bit_and_ignores_the_global_generator(dataset: Dataset) -> None:
    first = train(tiny_cell(precision="float32"), dataset)
    torch.manual_seed(99)
    second = train(tiny_cell(precision="float32"), dataset)
    assert same_state(first.network.state_dict(), second.network.state_dict())
    third = train(tiny_cell(precision="float32", teacher__seed=1), dataset)
    assert not same_state(first.network.state_dict(), third.network.state_dict())


def test_a_file_of_torchvisions_network_trains_the_attention_on_all_four_stages(
    dataset: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    source = resnet18(num_classes=3)
    source.conv1 = torch.nn.Conv2d(2, 64, kernel_size=7, stride=2, padding=3, bias=False)
    torch.save(source.state_dict(), tmp_path / "resnet18.pth")
    cell = tiny_cell(
        teacher__network="resnet-18",
        teacher__file=str(tmp_path / "resnet18.pth"),
        student__network="resnet-18",
        precision="float32",
    )
    seen: list[dict[str, torch.Tensor]] = []
    run = train(cell, dataset, seen)
    assert run.epoch == 2
    assert same_state(run.network.backbone.state_dict(), source.state_dict())
    assert not any(parameter.requires_grad for parameter in run.network.backbone.parameters())
    trained = [name for name in part(seen[0], "attention") if not torch.equal(seen[0][name], seen[1][name])]
    assert {name.split(".")[2] for name in trained} == {"0", "1", "2", "3"}
    assert "loss_backbone" not in run.history[0]


# --- teachers trained together ------------------------------------------------------------------------------

SEEDS = (3, 0, 11)


def start(cell: Cell, dataset: Dataset, seeds: Sequence[int] = SEEDS) -> list[TeacherRun]:
    own = [replace(cell, teacher=replace(cell.teacher, seed=seed)) for seed in seeds]
    return [start_teacher(cell, dataset, context=SingleProcess(), device=CPU) for cell in own]


def learn(
    runs: Sequence[TeacherRun],
    dataset: Dataset,
    on_epoch: Callable[[Sequence[TeacherRun]], None] = lambda _: None,
) -> None:
    sets = make_sets(runs[0].cell, dataset)
    train_teachers(runs, context=SingleProcess(), on_epoch=on_epoch, **sets)  # type: ignore[arg-type]


def assert_close(first: object, second: object) -> None:
    torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-8)


def assert_same(packed: TeacherRun, alone: TeacherRun) -> None:
    for ours, theirs in zip(packed.history, alone.history, strict=True):
        assert ours["error_pct"] == theirs["error_pct"]
        for name in set(theirs) - {"seconds", "error_top5_pct"}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-8)
    ours_state, theirs_state = packed.state_dict()["parts"], alone.state_dict()["parts"]
    for ours_part, theirs_part in zip(ours_state, theirs_state, strict=True):  # type: ignore[call-overload]
        assert_close(ours_part, theirs_part)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"attention__connection": "original"},
        {"teacher__network": "wrn-10-1", "attention__tap": "raw"},
        {"teacher__network": "resnet8x4"},
        {"student__network": "preact-8-w4"},  # the estimator projects
    ],
)
def test_teachers_trained_together_are_what_they_are_alone(
    dataset: Dataset, values: dict[str, object]
) -> None:
    cell = tiny_cell(**values)
    assert not why_teachers_alone(cell, workers=Workers.exactly(1))
    packed, alone = start(cell, dataset), start(cell, dataset)
    learn(packed, dataset)
    for run in alone:
        learn([run], dataset)
    for ours, theirs in zip(packed, alone, strict=True):
        assert_same(ours, theirs)
    assert packed[0].history[0]["loss_total"] != packed[1].history[0]["loss_total"]


def test_packed_teachers_go_on_from_their_states(dataset: Dataset) -> None:
    cell = tiny_cell(teacher__epochs=3)
    saved: list[bytes] = []

    def keep(runs: Sequence[TeacherRun]) -> None:
        if runs[0].epoch == 2:
            for run in runs:
                buffer = io.BytesIO()
                torch.save(run.state_dict(), buffer)
                saved.append(buffer.getvalue())

    undisturbed, resumed = start(cell, dataset), start(cell, dataset)
    learn(undisturbed, dataset, keep)
    for run, content in zip(resumed, saved, strict=True):
        run.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
    learn(resumed, dataset)
    for ours, theirs in zip(resumed, undisturbed, strict=True):
        assert same_state(ours.state_dict()["parts"], theirs.state_dict()["parts"])


def test_a_teacher_that_diverges_ends_alone(dataset: Dataset) -> None:
    cell = tiny_cell(teacher__epochs=3)
    packed, alone = start(cell, dataset), start(cell, dataset)[::2]

    def break_one(runs: Sequence[TeacherRun]) -> None:
        if len(runs) == 3 and runs[0].epoch == 1:
            with torch.no_grad():
                packed[1].classifier.weight.fill_(float("nan"))

    learn(packed, dataset, break_one)
    assert packed[1].diverged is not None
    assert packed[1].diverged.epoch == 2
    assert [run.epoch for run in packed] == [3, 1, 3]
    for run in alone:
        learn([run], dataset)
    for ours, theirs in zip(packed[::2], alone, strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"teacher__backbone": "shared"}, "one after the other"),
        ({"teacher__network": "shufflenetv1", "student__network": "shufflenetv1"}, "shuffles its channels"),
        ({"dataset": "imagenet"}, "decoded for each teacher"),
    ],
)
def test_teachers_that_cannot_be_packed_say_why(values: dict[str, object], reason: str) -> None:
    assert reason in why_teachers_alone(tiny_cell(**values), workers=Workers.exactly(1))
    assert why_teachers_alone(tiny_cell(), workers=Workers.exactly(2)) == "several workers train one teacher"
