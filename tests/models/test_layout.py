"""How weights lie in memory changes no value, and no file."""

import pytest
import torch

from hkrun.models import AttentionEstimator, DistilledNetwork, build_network, initialise
from hkrun.teacher import dump_weights, hash_weights


def build(name: str) -> DistilledNetwork:
    backbone = build_network(name, num_classes=10, in_channels=3)
    attention = AttentionEstimator(
        backbone.widths,
        descriptor_width=backbone.descriptor_width,
        connection="hierarchical",
        pool="sum",
        tap="bn_relu",
    )
    network = DistilledNetwork(backbone, attention).double()
    initialise(network, torch.Generator().manual_seed(5))
    return network.eval()


@pytest.mark.parametrize(("name", "channels_last"), [("preact-8", True), ("preact-8-w4", False)])
def test_the_layout_changes_neither_values_nor_hash(name: str, channels_last: bool) -> None:
    plain, laid_out = build(name), build(name)
    laid_out.lay_out()
    weight = laid_out.backbone.get_submodule("stages.0.0.conv1").weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(plain(images).logits, laid_out(images).logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(plain(images).knowledge, laid_out(images).knowledge, rtol=1e-12, atol=1e-12)
    assert hash_weights(plain) == hash_weights(laid_out)
    assert dump_weights(plain) == dump_weights(laid_out)
