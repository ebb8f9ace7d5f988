"""What counts as the loss of another worker, and what as a mistake of this one."""

import pytest
import torch
import torch.distributed as dist

from hkrun.models.collective import PeerLostError, with_peers


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:40021"),
        RuntimeError("[gloo/transport/tcp/pair.cc:598] Read error [::1]:5: Connection reset by peer"),
        RuntimeError("[gloo/transport/tcp/pair.cc:150] writev [127.0.0.1]:5: Broken pipe"),
        RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv"),
        RuntimeError("Application timeout caused pair closure"),
        RuntimeError("connect [127.0.0.1]:1: Connection refused"),
        dist.DistBackendError("NCCL error: remote process exited"),
        dist.DistNetworkError("failed to recv, got 0 bytes"),
    ],
)
def test_what_says_that_a_worker_is_gone_is_its_loss_with_the_cause(error):
    with pytest.raises(PeerLostError) as caught, with_peers():
        raise error
    assert str(caught.value) == f"a worker of the group was lost: {error}"
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("Tensors must be contiguous"),
        NotImplementedError("the worker timed out waiting for somebody to write this"),
        ValueError("Default process group has not been initialized"),
    ],
)
def test_a_mistake_of_this_worker_stays_what_it_is(error):
    with pytest.raises(type(error)) as caught, with_peers():
        raise error
    assert caught.value is error
