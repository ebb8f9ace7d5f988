"""The schedule, the batches of an epoch, and evaluation."""

from unittest import mock

import pytest
import torch

from hkrun.config import learning_rate
from hkrun.data import Dataset, Split
from hkrun.data.views import Views
from hkrun.models import build_network, initialise
from hkrun.training import (
    STUDENT_DRAWS,
    Averages,
    Errors,
    ResidentEvaluationSet,
    ResidentTrainingSet,
    SingleProcess,
    find_divergence,
    move,
)
from loop.conftest import CPU

PAPER = {"first": 0.1, "epochs": 600, "drops": (0.4, 0.8), "factor": 0.1, "warmup_epochs": 0}


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.1), (239, 0.1), (240, 0.01), (479, 0.01), (480, 0.001), (599, 0.001)]
)
def test_rate_drops_at_the_papers_epochs(epoch: int, rate: float) -> None:
    assert learning_rate(epoch, **PAPER) == pytest.approx(rate, rel=1e-12)


def test_drops_scale_with_the_epochs() -> None:
    rates = [learning_rate(epoch, **{**PAPER, "epochs": 10}) for epoch in range(10)]
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 4 + [0.001] * 2)


@pytest.mark.parametrize(
    ("fraction", "epochs", "first"), [(0.7, 10, 7), (0.4, 3, 2), (0.4, 1, None), (0.1, 30, 3)]
)
def test_a_drop_is_at_the_first_epoch_that_reaches_its_fraction(
    fraction: float, epochs: int, first: int | None
) -> None:
    options = {**PAPER, "drops": (fraction,), "epochs": epochs}
    dropped = [epoch for epoch in range(epochs) if learning_rate(epoch, **options) < 0.05]
    assert dropped == ([] if first is None else list(range(first, epochs)))


def test_warmup_rises_linearly_to_the_full_rate() -> None:
    rates = [learning_rate(epoch, **{**PAPER, "warmup_epochs": 4}) for epoch in range(6)]
    assert rates == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])


def read_epoch(
    dataset: Dataset, *, seed: int = 0, epoch: int = 0, context: SingleProcess | None = None
) -> list[torch.Tensor]:
    """The images of an epoch's batches, unaugmented."""
    training_set = ResidentTrainingSet(dataset, Views(0, False), dtype=torch.float64, device=CPU)
    batches = training_set.batches(
        [seed],
        epoch,
        batch_size=16,
        draws=STUDENT_DRAWS,
        context=context or SingleProcess(),
    )
    return [batch.images[0] for batch in batches]


def test_an_epoch_sees_no_image_twice_and_drops_the_short_last_batch(dataset: Dataset) -> None:
    batches = read_epoch(dataset)
    assert [len(batch) for batch in batches] == [16, 16]
    assert len(torch.unique(torch.cat(batches).flatten(1), dim=0)) == 32


def test_labels_stay_with_their_images(dataset: Dataset) -> None:
    training_set = ResidentTrainingSet(dataset, Views(0, False), dtype=torch.float64, device=CPU)
    scale = 255 * dataset.std.view(-1, 1, 1)
    for batch in training_set.batches([3], 1, batch_size=8, draws=STUDENT_DRAWS, context=SingleProcess()):
        raw = (batch.images[0] * scale + 255 * dataset.mean.view(-1, 1, 1)).round().to(torch.uint8)
        for image, label in zip(raw, batch.labels[0], strict=True):
            (where,) = (dataset.train.images == image).all(dim=(1, 2, 3)).nonzero(as_tuple=True)
            assert dataset.train.labels[where].tolist() == [int(label)]


def test_order_depends_on_seed_and_epoch_alone(dataset: Dataset) -> None:
    first = torch.cat(read_epoch(dataset))
    torch.manual_seed(123)
    assert torch.equal(torch.cat(read_epoch(dataset)), first)
    assert not torch.equal(torch.cat(read_epoch(dataset, epoch=1)), first)
    assert not torch.equal(torch.cat(read_epoch(dataset, seed=1)), first)


@pytest.mark.parametrize("world_size", [2, 3])
def test_workers_share_each_batch_without_gap_or_overlap(dataset: Dataset, world_size: int) -> None:
    parts = [read_epoch(dataset, context=SingleProcess(rank, world_size)) for rank in range(world_size)]
    for whole, *shares in zip(read_epoch(dataset), *parts, strict=True):
        assert torch.equal(torch.cat(shares), whole)


def test_shares_of_a_batch_sum_to_one(dataset: Dataset) -> None:
    training_set = ResidentTrainingSet(dataset, Views(0, False), dtype=torch.float64, device=CPU)
    options = {"batch_size": 16, "draws": STUDENT_DRAWS}
    shares = [
        [batch.share for batch in training_set.batches([0], 0, context=SingleProcess(rank, 3), **options)]
        for rank in range(3)
    ]
    assert [sum(parts) for parts in zip(*shares, strict=True)] == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("num_classes", [10, 12])
def test_errors_are_counted_image_by_image(num_classes: int) -> None:
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (37, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, num_classes, (37,), generator=generator)
    split = Split(images, labels)
    data = Dataset(name="x", train=split, test=split, classes=tuple(map(str, range(num_classes))))
    network = build_network("preact-8-w4", num_classes=num_classes, in_channels=1).double()
    initialise(network, generator)
    network.train()
    errors = ResidentEvaluationSet(images, labels, data, dtype=torch.float64, device=CPU).evaluate(
        network, precision="float64", context=SingleProcess()
    )
    assert network.training
    network.eval()
    pixels = (images.double() / 255 - data.mean.view(1, 1, 1)) / data.std.view(1, 1, 1)
    ranked = network(pixels).logits.detach().argsort(dim=1, descending=True)
    wrong1 = sum(int(row[0]) != int(label) for row, label in zip(ranked, labels, strict=True))
    wrong5 = sum(int(label) not in row[:5].tolist() for row, label in zip(ranked, labels, strict=True))
    assert errors.top1_pct == 100 * wrong1 / 37
    assert errors.top5_pct == (None if num_classes == 10 else 100 * wrong5 / 37)


def test_averages_are_means_over_batches() -> None:
    averages = Averages(SingleProcess())
    averages.add({"a": torch.tensor([1.0, 8.0]), "b": torch.tensor([4.0, 5.0])})
    averages.add({"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([0.0, 6.0])})
    assert averages.read() == [{"a": 2.0, "b": 2.0}, {"a": 4.0, "b": 5.5}]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_itself_and_the_epoch(value: float) -> None:
    diverged = find_divergence({"loss_total": 1.0, "loss_backbone": value}, Errors(5.0, None), epoch=7)
    assert diverged is not None
    assert diverged.epoch == 7
    assert diverged.args[0] == f"loss_backbone is {value} in epoch 7"


def test_logits_that_are_not_numbers_are_a_divergence_and_finite_figures_none() -> None:
    assert find_divergence({"loss_total": 1.0}, Errors(5.0, None), epoch=7) is None
    diverged = find_divergence({"loss_total": 1.0}, Errors(5.0, None, 12.5), epoch=7)
    assert diverged is not None
    assert diverged.args[0] == "the logits of 12.50 % of the images are not numbers after epoch 7"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_only_a_gpu_is_given_pinned_memory_and_not_waited_for(device: str) -> None:
    calls = mock.MagicMock()  # there need not be a GPU
    for name in ("contiguous", "pin_memory", "to"):
        getattr(calls, name).return_value = calls
    target = torch.device(device)
    move(calls, target)
    pinned = [mock.call.contiguous(), mock.call.pin_memory(), mock.call.to(target, non_blocking=True)]
    assert calls.mock_calls == (pinned if device == "cuda" else [mock.call.to(target)])
