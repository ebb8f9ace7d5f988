"""Sums over the workers that train one run together, and what it looks like when one of them is lost."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor

# What gloo says in a plain RuntimeError when it cannot reach another worker.
GLOO_SAYS = (
    "connection closed by peer",
    "connection reset",
    "connection refused",
    "connection timed out",
    "broken pipe",
    "timed out waiting",
    "timeout caused pair closure",
    "read timeout",
    "write timeout",
    "connect timeout",
    "socket timeout",
    "socket closed",
    "socket unexpectedly closed",
    "pair is not connected",
    "no route to host",
    "host is unreachable",
    "network is unreachable",
    "read error",
    "connectfullmesh failed",
)


class PeerLostError(Exception):
    """This worker waited for the others, and one of them is gone. This one is not at fault."""


@contextmanager
def with_peers() -> Iterator[None]:
    """The block needs all workers.

    Raises:
        PeerLostError: One of them cannot be reached any more.
        RuntimeError: Another mistake of this worker's own, such as too little memory, as it was raised.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_of_peers(error):
            raise
        raise PeerLostError(f"a worker of the group was lost: {error}".splitlines()[0]) from error


def _is_of_peers(error: RuntimeError) -> bool:
    if isinstance(error, dist.DistError):
        return True
    # Subclasses, such as torch.OutOfMemoryError, have causes of their own; gloo raises none.
    return type(error) is RuntimeError and any(text in str(error).lower() for text in GLOO_SAYS)


def all_reduce(tensor: Tensor) -> None:
    """Replaces a tensor by its sum over the workers, in place.

    Raises:
        PeerLostError: One of them cannot be reached any more.
    """
    assert tensor.is_contiguous()  # gloo adds up memory, whatever the strides say
    with with_peers():
        dist.all_reduce(tensor)
