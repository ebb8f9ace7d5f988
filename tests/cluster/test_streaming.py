"""Shards that stream through Ray Data: what a worker sees is what it would have read itself."""

import pytest
import ray
import torch
from fake_tasks import FakeTask, digest_epoch, run
from imagenet_example import damage, make_tree

from hkrun.cluster import run_tasks
from hkrun.cluster.streaming import carry_with_ray_data
from hkrun.data import load_dataset
from hkrun.data.decoding import TrainingView
from hkrun.data.places import Place
from hkrun.data.shards import write_shards
from hkrun.data.streams import BlockReader, carry_in_threads
from hkrun.errors import DataError
from hkrun.seeding import Purpose
from hkrun.training import Alone

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    # Ray Data warns of settings of its own that nobody made.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def packed(tmp_path):
    """A directory with shards of 96 images, three of them damaged."""
    damage(make_tree(tmp_path / "original", train=32), 4, 5, 80)
    dataset = load_dataset("imagenet", data_dir=tmp_path / "original")
    write_shards(dataset, Place.below(tmp_path, "imagenet"), images_per_shard=64)
    return tmp_path


@pytest.fixture
def connected(joined):
    ray.init(log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


REQUESTS = [(70, 64, 95), (3,), tuple(range(40)), (63, 0)]


def test_ray_data_gives_what_threads_give_in_the_same_order(connected, packed):
    dataset = load_dataset("imagenet", data_dir=packed)
    read = BlockReader(dataset.train.reader, TrainingView(5, Purpose.AUGMENTATION, size=16, flip=True))
    streamed = list(carry_with_ray_data(read, REQUESTS))
    for views, expected in zip(streamed, carry_in_threads(read, REQUESTS), strict=True):
        for view, original in zip(views, expected, strict=True):
            assert (view is None) == (original is None)
            assert view is None or torch.equal(view, original)
    assert list(carry_with_ray_data(read, [])) == []


@pytest.mark.slow
def test_a_shard_that_cannot_be_read_is_an_error_of_the_data(connected, packed):
    dataset = load_dataset("imagenet", data_dir=packed)
    (packed / "imagenet/train-00001.parquet").unlink()
    read = BlockReader(dataset.train.reader, TrainingView(5, Purpose.AUGMENTATION, size=16, flip=True))
    with pytest.raises(DataError, match=r"train-00001\.parquet") as caught:
        list(carry_with_ray_data(read, REQUESTS))
    assert type(caught.value) is DataError


@pytest.mark.slow
def test_two_workers_see_the_batches_of_the_local_reader(joined, observer, packed):
    task = FakeTask(name="stream", does="stream", folder=str(packed))
    (result,) = run_tasks(
        [task], workers=2, observer=observer, fail_fast=False, log_folder=packed / "logs", function=run
    )
    (outcome,) = result.outcomes
    assert outcome["digests"] == [digest_epoch(packed, Alone(rank, 2)) for rank in range(2)]
