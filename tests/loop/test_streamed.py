"""Images that are decoded while a loop runs: batches, workers, evaluation, and a run from end to end."""

import dataclasses
from pathlib import Path

import pytest
import torch
from imagenet_example import damage, make_tree
from torch import nn

from hkrun.config import Cell, cell_from_values, cell_id, teacher_id
from hkrun.data import StreamedDataset, load_dataset
from hkrun.data.cropping import TestView, TrainingView
from hkrun.data.shards import Place, write_shards
from hkrun.data.streams import ImageStream
from hkrun.data.views import normalise
from hkrun.errors import DataError
from hkrun.models import Features, build_network, initialise
from hkrun.seeding import Purpose, derive
from hkrun.store import open_store
from hkrun.training import STUDENT_DRAWS, Batch, SingleProcess, StreamedEvaluationSet, StreamedTrainingSet
from hkrun.trial import Task, progress
from hkrun.trial.run import run_task
from hkrun.trial.run_warnings import find_damage_warnings
from loop.conftest import CPU

SIZE = 16


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    make_tree(tmp_path)
    return tmp_path


def make_training_set(data_dir: Path) -> StreamedTrainingSet:
    dataset = load_dataset("imagenet", data_dir=data_dir)
    assert isinstance(dataset, StreamedDataset)
    return StreamedTrainingSet(dataset, size=SIZE, flip=True, dtype=torch.float64, device=CPU)


def read_epoch(
    training_set: StreamedTrainingSet, *, seed: int = 0, epoch: int = 0, context: SingleProcess | None = None
) -> list[Batch]:
    batches = training_set.batches(
        [seed],
        epoch,
        batch_size=20,
        draws=STUDENT_DRAWS,
        context=context or SingleProcess(),
    )
    return list(batches)


def equal(first: list[Batch], second: list[Batch]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)


def test_batches_are_full_and_every_image_is_seen_once(data_dir):
    batches = read_epoch(make_training_set(data_dir))
    assert [tuple(batch.images.shape) for batch in batches] == [(1, 20, 3, SIZE, SIZE)] * 4  # of 90 images
    assert len({image.numpy().tobytes() for batch in batches for image in batch.images[0]}) == 80
    assert {batch.share for batch in batches} == {1.0}


def test_each_image_has_its_label_and_its_own_view(data_dir):
    training_set = make_training_set(data_dir)
    dataset = load_dataset("imagenet", data_dir=data_dir)
    view = TrainingView(derive(0, Purpose.AUGMENTATION, 2), Purpose.AUGMENTATION, size=SIZE, flip=True)
    expected = {}
    for number, image in ImageStream(dataset.train).read([torch.arange(90)], view):
        pixels = normalise(image[None], mean=dataset.mean, std=dataset.std, dtype=torch.float64)
        expected[pixels.numpy().tobytes()] = int(dataset.train.labels[number])
    for batch in read_epoch(training_set, epoch=2):
        for image, label in zip(batch.images[0], batch.labels[0], strict=True):
            assert expected[image[None].numpy().tobytes()] == label


def test_an_epoch_repeats_and_epochs_and_seeds_differ(data_dir):
    training_set = make_training_set(data_dir)
    first = read_epoch(training_set, epoch=1)
    read_epoch(training_set, epoch=0)
    assert equal(read_epoch(make_training_set(data_dir), epoch=1), first)
    assert not equal(read_epoch(training_set, epoch=2), first)
    assert not equal(read_epoch(training_set, seed=1, epoch=1), first)


@pytest.mark.parametrize("world_size", [2, 3])
def test_workers_share_each_batch_without_gap_or_overlap(data_dir, world_size):
    training_set = make_training_set(data_dir)
    parts = [read_epoch(training_set, context=SingleProcess(rank, world_size)) for rank in range(world_size)]
    for number, whole in enumerate(read_epoch(training_set)):
        assert torch.equal(torch.cat([part[number].images for part in parts], dim=1), whole.images)
        assert torch.equal(torch.cat([part[number].labels for part in parts], dim=1), whole.labels)
        assert sum(part[number].share for part in parts) == pytest.approx(1)


def test_shards_give_the_same_batches_as_the_folder(data_dir, tmp_path_factory):
    packed = tmp_path_factory.mktemp("packed")
    damage(data_dir / "imagenet", 4, 50)
    write_shards(
        load_dataset("imagenet", data_dir=data_dir), Place.below(packed, "imagenet"), images_per_shard=64
    )
    assert equal(read_epoch(make_training_set(packed)), read_epoch(make_training_set(data_dir)))


@pytest.mark.parametrize("world_size", [1, 2])
def test_damaged_images_are_replaced_the_same_way_for_any_number_of_workers(data_dir, world_size):
    whole = read_epoch(make_training_set(data_dir))
    names = damage(data_dir / "imagenet", 4, 50, 51)
    training_set = make_training_set(data_dir)
    parts = [read_epoch(training_set, context=SingleProcess(rank, world_size)) for rank in range(world_size)]
    joined = [torch.cat([part[number].images for part in parts], dim=1) for number in range(4)]
    changed = [
        not torch.equal(a, b)
        for batch, original in zip(joined, whole, strict=True)
        for a, b in zip(batch[0], original.images[0], strict=True)
    ]
    assert sum(changed) == len(training_set.unusable)
    assert training_set.unusable <= set(names)
    (alarm,) = find_damage_warnings({"train": training_set}, SingleProcess())
    assert alarm.startswith(f"{len(training_set.unusable)} unusable image(s) passed over: train/n0")


def test_many_damaged_images_are_counted_and_some_are_named(data_dir):
    training_set = make_training_set(data_dir)
    training_set.unusable.update(f"n/{number:02d}.JPEG" for number in range(12))
    (alarm,) = find_damage_warnings({"train": training_set}, SingleProcess())
    assert alarm.startswith("12 unusable image(s) passed over: train/n/00.JPEG, ")
    assert alarm.endswith("train/n/09.JPEG and 2 more")
    assert find_damage_warnings({"train": make_training_set(data_dir)}, SingleProcess()) == []


class Corner(nn.Module):
    """Answers with the class whose brightness the corner has."""

    def forward(self, images):
        dataset_mean, dataset_std = 0.485, 0.229
        red = (images[:, 0, 1:4, 1:4].mean(dim=(1, 2)) * dataset_std + dataset_mean) * 255
        logits = -(red[:, None] - torch.tensor([30.0, 110.0, 190.0])).abs()
        return Features(logits=logits, stages=(), descriptor=logits, stem=images)


def test_evaluation_sees_every_image_once_and_knows_its_label(data_dir):
    dataset = load_dataset("imagenet", data_dir=data_dir)
    images = StreamedEvaluationSet(dataset.test, dataset, size=SIZE, dtype=torch.float32, device=CPU)
    errors = images.evaluate(Corner(), precision="float32", context=SingleProcess())
    assert errors == (0.0, None, 0.0)
    view = TestView(SIZE)
    centres = dict(ImageStream(dataset.test).read([torch.arange(24)], view))
    assert all(image.shape == (3, SIZE, SIZE) for image in centres.values())


def test_damaged_images_do_not_count_in_an_error(data_dir):
    wrong, gone = sorted((data_dir / "imagenet/val/n01440764").glob("*"))[:2]
    bright = next((data_dir / "imagenet/val/n02084071").glob("*"))
    wrong.write_bytes(bright.read_bytes())
    gone.write_bytes(b"")
    dataset = load_dataset("imagenet", data_dir=data_dir)
    images = StreamedEvaluationSet(dataset.test, dataset, size=SIZE, dtype=torch.float32, device=CPU)
    errors = images.evaluate(Corner(), precision="float32", context=SingleProcess())
    assert errors.top1_pct == pytest.approx(100 / 23)
    assert images.unusable == {f"n01440764/{gone.name}"}


def test_nothing_to_evaluate_on_is_an_error_of_the_data(data_dir):
    for path in (data_dir / "imagenet/val").glob("*/*"):
        path.write_bytes(b"")
    dataset = load_dataset("imagenet", data_dir=data_dir)
    images = StreamedEvaluationSet(dataset.test, dataset, size=SIZE, dtype=torch.float32, device=CPU)
    with pytest.raises(DataError, match="no image to evaluate on can be used"):
        images.evaluate(Corner(), precision="float32", context=SingleProcess())


# --- whole runs ---------------------------------------------------------------------------------------------


def make_task(data_dir: Path, cell: Cell, *seeds: int) -> Task:
    """The task of some runs, or of the teacher."""
    return Task(
        cell=cell,
        cell_id=cell_id(cell) if seeds else teacher_id(cell),
        seeds=seeds,
        store=str(data_dir / "store"),
        data_dir=str(data_dir),
        threads=1,
        device="cpu",
    )


def test_a_pretrained_teacher_and_a_student_of_four_stages_train_and_name_the_damage(data_dir):
    names = damage(data_dir / "imagenet", 4)
    weights = build_network("resnet-18", num_classes=3, in_channels=3)
    initialise(weights, torch.Generator().manual_seed(0))
    for layer in weights.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    weights(torch.randn(30, 3, 32, 32, generator=torch.Generator().manual_seed(1)))  # sets the statistics
    torch.save(weights.state_dict(), data_dir / "resnet18.pth")
    cell = cell_from_values(
        {
            "dataset": "imagenet",
            "teacher.network": "resnet-18",
            "teacher.file": str(data_dir / "resnet18.pth"),
            "teacher.epochs": 1,
            "teacher.batch_size": 30,
            "student.network": "resnet-18",
            "student.epochs": 2,
            "student.batch_size": 30,
            "student.learning_rate": 1e-3,
            "teacher.learning_rate": 1e-2,
            "augment.size": 32,
        }
    )
    store = open_store(data_dir / "store")
    (outcome,) = run_task(make_task(data_dir, cell), SingleProcess())
    assert outcome["status"] == "finished"
    (outcome,) = run_task(make_task(data_dir, cell, 0), SingleProcess())
    assert outcome["status"] == "finished"
    record = store.record(cell_id(cell), 0)
    assert record.epochs == 2
    assert f"1 unusable image(s) passed over: train/{names[0]}" in record.alarms
    curves = store.curves(cell_id(cell), 0)
    assert {"loss_backbone", "loss_knowledge", "loss_adversarial"} <= set(curves.column_names)


def test_a_resumed_run_sees_what_an_undisturbed_one_sees(data_dir, monkeypatch):
    cell = cell_from_values(
        {
            "dataset": "imagenet",
            "method": "supervised",
            "student.network": "preact-8-w4",
            "student.epochs": 3,
            "student.batch_size": 30,
            "augment.size": 16,
        }
    )
    monkeypatch.setattr(progress, "CHECKPOINT_EVERY_S", 0.0)

    class Kill(BaseException):
        pass

    class Stopping(SingleProcess):
        def report(self, figures):
            if figures["epoch"] == 2:
                raise Kill

    curves = []
    for name in ("undisturbed", "resumed"):
        task = dataclasses.replace(make_task(data_dir, cell, 0), store=str(data_dir / name))
        if name == "resumed":
            monkeypatch.setattr(progress, "REPORT_EVERY_S", 0.0)
            with pytest.raises(Kill):
                run_task(task, Stopping())
        run_task(task, SingleProcess())
        store = open_store(task.store)
        assert store.record(cell_id(cell), 0).resumed == (name == "resumed")
        curves.append(store.curves(cell_id(cell), 0).drop(["seconds"]).to_pydict())
    assert curves[0] == curves[1]
