"""Ray Data: shards are read and decoded wherever the cluster has time, for workers that train.

Each worker of Ray Train streams its own images, in the order that the run's seed gives. `hkrun.data.streams`
cuts the work into requests, each of them is a read task here, and their results come in order: a worker sees
what it would have read itself, and a resumed run what an undisturbed one sees.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import DataContext
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.exceptions import RayTaskError

from hkrun.data.streams import BlockIds, BlockViews, ReadBlock
from hkrun.errors import DataError

# Read tasks of one worker at a time. They ask for no CPU: the workers that wait for them may hold all.
MAX_READS = 16

_SCHEMA = pa.schema([("shape", pa.list_(pa.int64())), ("pixels", pa.binary())])


def carry_with_ray_data(function: ReadBlock, requests: Sequence[BlockIds]) -> Iterator[BlockViews]:
    """A `hkrun.data.streams.Carrier`: tasks of Ray Data, a block of Ray's for each request.

    Raises:
        DataError: A task raised it.
    """
    if not requests:
        return
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    dataset = ray.data.read_datasource(
        _Requests(function, requests),
        override_num_blocks=len(requests),
        num_cpus=0,
        concurrency=min(MAX_READS, len(requests)),
    )
    rows = iter(dataset.iter_rows())
    for request in requests:
        try:
            # By images, not by blocks: Ray Data may join or split those.
            views = [_to_view(next(rows)) for _ in request]
        except Exception as error:
            raise _unwrap(error) from error
        yield views


def _unwrap(error: BaseException) -> BaseException:
    """The DataError that Ray Data and Ray have wrapped, or the error itself where it is another."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RayTaskError):
            cause = cause.cause
        if isinstance(cause, DataError):
            return DataError(cause.message)
        cause = cause.__cause__ if cause is not None else None
    return error


class _Requests(Datasource):
    """Requests as what Ray Data reads."""

    def __init__(self, function: ReadBlock, requests: Sequence[BlockIds]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._function, self._requests = ray.put(function), requests

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown before the images are decoded."""
        return None

    def get_read_tasks(self, parallelism: int, *_args: object, **_options: object) -> list[ReadTask]:  # noqa: ARG002
        """One task for each request, in order."""
        return [
            ReadTask(
                _reading(self._function, request),
                BlockMetadata(num_rows=len(request), size_bytes=None, input_files=None, exec_stats=None),
            )
            for request in self._requests
        ]


def _reading(function: "ray.ObjectRef[ReadBlock]", request: BlockIds) -> Callable[[], Iterator[pa.Table]]:
    def read() -> Iterator[pa.Table]:
        rows = [_to_row(view) for view in ray.get(function)(request)]
        yield pa.Table.from_pylist(rows, schema=_SCHEMA)

    return read


def _to_row(view: torch.Tensor | str) -> dict[str, object]:
    """An image as a row; what is wrong with one that cannot be used has no shape."""
    if isinstance(view, str):
        return {"shape": [], "pixels": view.encode()}
    return {"shape": list(view.shape), "pixels": view.numpy().tobytes()}


def _to_view(row: Mapping[str, Any]) -> torch.Tensor | str:
    shape = tuple(int(size) for size in row["shape"])
    if not shape:
        return bytes(row["pixels"]).decode()
    return torch.from_numpy(np.frombuffer(bytearray(row["pixels"]), dtype=np.uint8)).view(shape)
