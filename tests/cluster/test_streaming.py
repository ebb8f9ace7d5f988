"""Shards that stream through Ray Data: what a worker sees is what it would have read itself."""

import pytest
import ray
import torch
from fake_tasks import FakeTask, digest_epoch, run
from imagenet_example import damage, make_tree
from ray.data import DataContext
from ray.exceptions import RayTaskError

from hkrun.cluster import TaskList, run_tasks
from hkrun.cluster.trials.streaming import carry_with_ray_data
from hkrun.data import load_dataset
from hkrun.data.cropping import TrainingView
from hkrun.data.shards import Place, write_shards
from hkrun.data.streams import BlockReader, carry_in_threads
from hkrun.errors import DataError
from hkrun.seeding import Purpose
from hkrun.training import SingleProcess

pytestmark = [
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


class FakeRayData:
    """Stands in for Ray's tasks: its read tasks are done in this process, one after the other."""

    def __init__(self, source, **options):
        self.tasks, self.options = source.get_read_tasks(parallelism=1), options

    def iter_rows(self):
        for task in self.tasks:
            try:
                blocks = list(task())
            except Exception as error:
                told = RayTaskError("read", "its traceback", error)
                raise RuntimeError("Ray Data broke off") from told
            yield from (row for block in blocks for row in block.to_pylist())


@pytest.fixture
def read_datasource(monkeypatch):
    """What Ray Data is asked for; nothing of Ray runs."""
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(DataContext.get_current().execution_options, "preserve_order", False)
    asked = []

    def read_datasource(source, **options):
        asked.append(FakeRayData(source, **options))
        return asked[-1]

    monkeypatch.setattr(ray.data, "read_datasource", read_datasource)
    return asked


def fake_view(image_id):
    """An image that its number tells; every third one cannot be used."""
    return (
        f"is no image {image_id}" if image_id % 3 == 0 else torch.full((3, 2, 2), image_id, dtype=torch.uint8)
    )


def read_fakes(request):
    if 99 in request:
        raise DataError("image 99: not there")
    return [fake_view(image_id) for image_id in request]


def test_each_request_is_one_read_task_and_its_images_come_back_in_order(read_datasource):
    requests = [(70, 64, 95), (3,), tuple(range(40)), (63, 0)]
    streamed = list(carry_with_ray_data(read_fakes, requests))
    for request, views in zip(requests, streamed, strict=True):
        for image_id, view in zip(request, views, strict=True):
            expected = fake_view(image_id)
            if isinstance(expected, str):
                assert view == expected
            else:
                assert torch.equal(view, expected)
                assert view.dtype == torch.uint8
    (asked,) = read_datasource
    assert len(asked.tasks) == len(requests)
    # Workers that wait for the tasks may hold all CPUs, and Ray Data must keep the order by itself.
    assert asked.options == {"override_num_blocks": 4, "num_cpus": 0, "concurrency": 4}
    assert DataContext.get_current().execution_options.preserve_order


def test_no_requests_ask_ray_data_for_nothing(read_datasource):
    assert list(carry_with_ray_data(read_fakes, [])) == []
    assert read_datasource == []


def test_an_error_of_the_data_comes_out_of_ray_datas_wrapping(read_datasource):
    images = carry_with_ray_data(read_fakes, [(1, 2), (99,)])
    assert len(next(images)) == 2
    with pytest.raises(DataError, match=r"^image 99: not there$") as caught:
        next(images)
    assert type(caught.value) is DataError


@pytest.mark.cluster
@pytest.mark.slow
def test_ray_data_gives_what_threads_give_in_the_same_order(connected, packed):
    dataset = load_dataset("imagenet", data_dir=packed)
    read = BlockReader(dataset.train.reader, TrainingView(5, Purpose.AUGMENTATION, size=16, flip=True))
    streamed = list(carry_with_ray_data(read, REQUESTS))
    for views, expected in zip(streamed, carry_in_threads(read, REQUESTS), strict=True):
        for view, original in zip(views, expected, strict=True):
            assert type(view) is type(original)  # a string says why an image cannot be used
            assert view == original if isinstance(view, str) else torch.equal(view, original)
    assert list(carry_with_ray_data(read, [])) == []


@pytest.mark.cluster
@pytest.mark.slow
def test_a_shard_that_cannot_be_read_is_an_error_of_the_data(connected, packed):
    dataset = load_dataset("imagenet", data_dir=packed)
    (packed / "imagenet/train-00001.parquet").unlink()
    read = BlockReader(dataset.train.reader, TrainingView(5, Purpose.AUGMENTATION, size=16, flip=True))
    with pytest.raises(DataError, match=r"train-00001\.parquet") as caught:
        list(carry_with_ray_data(read, REQUESTS))
    assert type(caught.value) is DataError


@pytest.mark.cluster
@pytest.mark.slow
def test_two_workers_see_the_batches_of_the_local_reader(joined, observer, packed):
    task = FakeTask(name="stream", does="stream", folder=str(packed))
    (result,) = run_tasks(
        TaskList(tasks=[task], workers=2, log_folder=packed / "logs", function=run), observer
    )
    (outcome,) = result.outcomes
    assert outcome["digests"] == [digest_epoch(packed, SingleProcess(rank, 2)) for rank in range(2)]
