"""Synchronised BatchNorm: two processes (gloo) must compute what one process computes on the whole batch."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from worker_processes import start_workers

from hkrun.models import (
    AttentionEstimator,
    BatchNorm2d,
    DistilledNetwork,
    build_network,
    initialise,
    synchronise,
)
from hkrun.models.batchnorm import all_reduce_sum

NUM_CLASSES = 5
# Images of each of the two workers: equal shares, unequal ones, and a worker that has none.
SHARES = {"equal": (4, 4), "unequal": (5, 2), "one empty": (6, 0)}


def build_layer() -> BatchNorm2d:
    layer = BatchNorm2d(3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        layer.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    return layer


def build_distilled() -> DistilledNetwork:
    backbone = build_network("preact-8-w4", num_classes=NUM_CLASSES, in_channels=1)
    attention = AttentionEstimator(
        backbone.widths,
        descriptor_width=backbone.descriptor_width,
        connection="hierarchical",
        pool="sum",
        tap="bn_relu",
    )
    network = DistilledNetwork(backbone, attention)
    initialise(network, torch.Generator().manual_seed(0))
    return network.double()


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def train_layer(layer, images, probe):
    """Two forward passes (the statistics run), the second differentiated; all that it computes."""
    layer(2 * images.detach() + 1)
    images = images.clone().requires_grad_()
    output = layer(images)
    (output.tanh() * probe).sum().backward()
    return results(layer, images, output)


def train_distilled(network, images, probe):
    images = images.clone().requires_grad_()
    output = network(images)
    together = torch.cat([output.logits, output.knowledge], dim=1)
    (together.square() * probe).sum().backward()
    return results(network, images, together)


def results(module, images, output):
    return {
        "output": output.detach(),
        "input gradient": images.grad,
        "parameter gradients": {name: p.grad for name, p in module.named_parameters()},
        "buffers": dict(module.named_buffers()),
    }


def cases():
    for shares_name, shares in SHARES.items():
        total = sum(shares)
        # A mean a hundred times the spread: sums of squares would lose digits here.
        images = 100 + normal(total, 3, 4, 4, seed=1)
        yield (
            f"layer, {shares_name}",
            shares,
            build_layer,
            train_layer,
            images,
            normal(total, 3, 4, 4, seed=2),
        )
        images, probe = normal(total, 1, 8, 8, seed=3), normal(total, NUM_CLASSES + 28, seed=4)
        yield f"network, {shares_name}", shares, build_distilled, train_distilled, images, probe


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    found = {}
    for name, shares, build, train, images, probe in cases():
        module = build()
        synchronise(module)
        found[name] = train(module, images.split(shares)[rank], probe.split(shares)[rank])
    layer = BatchNorm2d(3)
    synchronise(layer)
    values = 1e4 + normal(8, 3, 4, 4, seed=5)
    found["float32 output"] = layer(values.float().chunk(2)[rank]).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found["bfloat16 output"] = layer(values.sub(1e4).bfloat16().chunk(2)[rank]).detach()
    layer.eval()
    found["eval output"] = (
        layer(values.float()).detach() if rank == 0 else None
    )  # must not wait for the other
    found["gradients of the sum"] = gradients_of_the_sum(rank)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def gradients_of_the_sum(rank: int) -> bool:
    # Both workers disturb the same element at the same time, so the numerical derivative of the sum is 2, and
    # the analytical one must be: it adds up what both workers' outputs pass back.
    tensor = normal(2, 3, seed=6 + rank).requires_grad_()
    first = torch.autograd.gradcheck(all_reduce_sum, tensor)
    second = torch.autograd.gradgradcheck(lambda x: all_reduce_sum(x).pow(3), tensor)
    return first and second


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """What the two processes found, by rank."""
    folder = tmp_path_factory.mktemp("gloo")
    start_workers(worker, folder, number=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def assert_equal(actual, expected):
    scale = float(expected.double().abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11 * max(scale, 1e-3))


@pytest.mark.parametrize("case", [pytest.param(case, id=case[0]) for case in cases()])
def test_two_workers_compute_what_one_computes_on_the_whole_batch(workers, case):
    name, shares, build, train, images, probe = case
    expected = train(build(), images, probe)
    found = [results[name] for results in workers]
    assert [len(part["output"]) for part in found] == list(shares)
    for key in ("output", "input gradient"):
        assert_equal(torch.cat([part[key] for part in found]), expected[key])
    for parameter, gradient in expected["parameter gradients"].items():
        assert_equal(sum(part["parameter gradients"][parameter] for part in found), gradient)
    for buffer, value in expected["buffers"].items():
        for part in found:
            assert_equal(part["buffers"][buffer], value)


def test_the_gradient_of_the_sum_is_that_of_both_workers_losses(workers):
    assert [found["gradients of the sum"] for found in workers] == [True, True]


def test_float32_keeps_the_variance_of_features_with_a_large_mean(workers):
    values = 1e4 + normal(8, 3, 4, 4, seed=5)
    expected = nn.BatchNorm2d(3).double()(values.float().double()).detach()
    found = torch.cat([results["float32 output"] for results in workers])
    assert found.dtype == torch.float32
    # float32 spaces numbers near 1e4 by 1e-3, and the mean is rounded once to that.
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-3)


def test_bfloat16_input_is_normalised_in_float32_and_given_back_in_its_own_type(workers):
    values = normal(8, 3, 4, 4, seed=5).add(1e4).sub(1e4).bfloat16()
    expected = nn.BatchNorm2d(3)(values.float()).detach()
    found = torch.cat([results["bfloat16 output"] for results in workers])
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected.bfloat16(), rtol=2**-7, atol=1e-6)


def test_eval_mode_needs_no_other_worker(workers):
    assert workers[0]["eval output"].isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_without_synchronisation_it_is_torch_s_own(training):
    ours, theirs = BatchNorm2d(3).train(training), nn.BatchNorm2d(3).train(training)
    images = normal(4, 3, 2, 2, seed=0).float()
    assert torch.equal(ours(images), theirs(images))
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)


def test_synchronise_reaches_every_layer_of_its_module_and_no_other():
    network, other = build_distilled(), build_distilled()
    synchronise(network)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(layers) == 3 * 2 + 1 + 3  # two per block, the last one, one per tap
    assert all(layer.synchronised for layer in layers)
    assert not any(layer.synchronised for layer in other.modules() if isinstance(layer, BatchNorm2d))
