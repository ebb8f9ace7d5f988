"""hkrun's optimiser is torch's, step by step and byte by byte."""

import copy

import pytest
import torch
from torch import nn

from hkrun.models.sgd import SGD


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_and_states_are_torch_s(momentum: float) -> None:
    generator = torch.Generator().manual_seed(3)
    ours = nn.Linear(5, 4)
    theirs = copy.deepcopy(ours)
    options = {"lr": 0.1, "momentum": momentum, "weight_decay": 1e-2, "fused": True}
    optimizers = SGD(ours.parameters(), **options), torch.optim.SGD(theirs.parameters(), **options)
    for step in range(4):
        images = torch.randn(8, 5, generator=generator)
        for network, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
            optimizer.zero_grad()
            network(images).square().sum().backward()
            optimizer.step()
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.bias, theirs.bias)
    states = [optimizer.state_dict() for optimizer in optimizers]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    for index, state in states[1]["state"].items():
        for name, value in state.items():
            assert torch.equal(states[0]["state"][index][name], value) if value is not None else True
    fresh = SGD(ours.parameters(), lr=1.0, momentum=momentum)
    fresh.load_state_dict(states[1])
    assert fresh.param_groups[0]["lr"] == 0.1 / 4
    if momentum:
        assert torch.equal(
            fresh.state[ours.weight]["momentum_buffer"],
            optimizers[1].state[theirs.weight]["momentum_buffer"],
        )


def test_a_loaded_momentum_steps_as_its_parameter_lies_in_memory() -> None:
    generator = torch.Generator().manual_seed(5)
    weight, gradient, momentum = (torch.randn(16, 16, 3, 3, generator=generator) for _ in range(3))
    parameter = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
    parameter.grad = gradient.contiguous(memory_format=torch.channels_last)
    optimizer = SGD([parameter], lr=0.1, momentum=0.9, fused=True)
    state = optimizer.state_dict()
    optimizer.load_state_dict({**state, "state": {0: {"momentum_buffer": momentum}}})
    optimizer.step()
    expected = weight - 0.1 * (0.9 * momentum + gradient)
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=1e-6)
