"""Sums over the workers that train one run together, and what it looks like when one of them is lost."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor


class PeerLostError(Exception):
    """This worker waited for the others, and one of them is gone. This one is not at fault."""


@contextmanager
def with_peers() -> Iterator[None]:
    """The block needs all workers.

    Raises:
        PeerLostError: One of them cannot be reached any more.
    """
    try:
        yield
    except RuntimeError as error:  # gloo raises nothing more special
        raise PeerLostError(f"a worker of the group was lost: {error}".splitlines()[0]) from error


def all_reduce(tensor: Tensor) -> None:
    """Replaces a tensor by its sum over the workers, in place.

    Raises:
        PeerLostError: One of them cannot be reached any more.
    """
    with with_peers():
        dist.all_reduce(tensor)
