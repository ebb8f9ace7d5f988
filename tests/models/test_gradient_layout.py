"""Gradients lie in memory as what they are of, whatever is done with it afterwards."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hkrun.models import AttentionEstimator, DistilledNetwork, build_network, initialise
from hkrun.models.attention import BlockAttention
from hkrun.models.joining import Join
from hkrun.models.layout import lay_gradient
from hkrun.models.packed import _PackedBlockAttention
from hkrun.models.small_images import lie_images_last, pool

ORDERS = {
    "contiguous": lambda maps: maps.contiguous(),
    "channels last": lambda maps: maps.contiguous(memory_format=torch.channels_last),
    "images last": lambda maps: maps.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
}


def lies_as(values: torch.Tensor, order: str) -> bool:
    if order == "images last":
        return lie_images_last(values)
    formats = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
    return values.is_contiguous(memory_format=formats[order])


# A network alone has no maps with the images last.
@pytest.mark.parametrize(
    ("reads", "order"),
    [
        *(("attention", order) for order in ("contiguous", "channels last")),
        *((reads, order) for reads in ("pool", "packed attention") for order in ORDERS),
    ],
)
def test_the_gradient_of_maps_lies_as_they_do(reads: str, order: str) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = ORDERS[order](torch.randn(5, 12, 4, 4, generator=generator)).requires_grad_()
    if reads == "pool":
        values = pool(maps)
    elif reads == "attention":
        attention = BlockAttention(12, guide_width=6, squeeze_width=12, pool="sum", tap="raw")
        values, _ = attention(maps, torch.randn(5, 6, generator=generator))
    else:
        joins: list[Join] = []
        each = [BlockAttention(4, guide_width=6, squeeze_width=4, pool="sum", tap="raw") for _ in range(3)]
        values, _ = _PackedBlockAttention(each, joins)(maps, torch.randn(5, 3, 6, generator=generator))
    together = torch.cat([torch.zeros_like(values), values], dim=1)  # its gradient is part of a longer one
    (gradient,) = torch.autograd.grad(together.square().sum(), maps)
    assert lies_as(gradient, order)


def test_only_the_order_changes_and_derivatives_of_any_degree_pass() -> None:
    values = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    along = torch.randn(5, 4, 3, dtype=torch.float64).permute(2, 1, 0)
    (gradient,) = torch.autograd.grad(lay_gradient(values * 2), values, along)
    assert torch.equal(gradient, 2 * along)
    assert torch.autograd.gradgradcheck(lambda inputs: lay_gradient(inputs * 2).square(), values)
    constant = torch.zeros(2)
    assert lay_gradient(constant) is constant


class Orders(TorchDispatchMode):
    """Notes in which order of memory each ReLU's output and its gradient meet in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.threshold_backward.default:
            self.met.append((args[0].stride(), args[1].stride()))
        return func(*args, **kwargs or {})


def test_a_network_with_attention_goes_back_through_its_relus_in_one_order_of_memory() -> None:
    backbone = build_network("preact-8-w16", num_classes=10, in_channels=3)
    attention = AttentionEstimator(
        backbone.widths,
        descriptor_width=backbone.descriptor_width,
        connection="hierarchical",
        pool="sum",
        tap="bn_relu",
    )
    network = DistilledNetwork(backbone, attention)
    initialise(network, torch.Generator().manual_seed(0))
    network.lay_out()
    output = network(torch.randn(2, 3, 8, 8))
    with Orders() as orders:
        (output.logits.square().sum() + output.knowledge.square().sum()).backward()
    assert len(orders.met) == 10  # two of each of three blocks, the last one, and three taps
    assert all(of_gradient == of_output for of_gradient, of_output in orders.met)
