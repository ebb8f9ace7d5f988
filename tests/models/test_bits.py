"""Weights as bits: the documented layout by hand, and networks that compute the same from it."""

import numpy as np
import pytest
import torch

from hkrun.models import build_network, initialise
from hkrun.models.bits import PackedWeights, pack, pack_codes
from hkrun.models.quantized import Codes, quantize

SCHEMES = ["binary_connect", "ttq", "bwn", "xnor"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_binary_codes_fill_bytes_from_their_lowest_bit():
    codes = torch.tensor([1, -1, -1, 1, -1, -1, -1, -1, 1, 1], dtype=torch.int8)
    assert pack_codes(codes, bits=1).tolist() == [0b00001001, 0b00000011]


def test_ternary_codes_take_two_bits_each():
    codes = torch.tensor([1, -1, 0, -1, 0, 1], dtype=torch.int8)
    assert pack_codes(codes, bits=2).tolist() == [0b10_00_10_01, 0b00_00_01_00]


@pytest.mark.parametrize("number", [1, 7, 8, 9, 64])
def test_the_layout_is_numpys_little_endian_bits(number):
    codes = 2 * torch.randint(0, 2, (number,), generator=generator()).to(torch.int8) - 1
    expected = np.packbits(codes.numpy() == 1, bitorder="little")
    assert pack_codes(codes, bits=1).numpy().tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ([[1.0]], [[1.0, -1.0], [-1.0, 1.0]]),
        ([[0.5], [2.0]], [[0.5, -0.5], [-2.0, 2.0]]),
        ([[0.5, 0.75]], [[0.5, -0.75], [-0.75, 0.5]]),
    ],
)
@pytest.mark.parametrize("bits", [1, 2])
def test_scales_are_of_all_filters_or_each_and_of_both_signs_or_each(scales, expected, bits):
    codes = torch.tensor([[1, -1], [-1, 1]], dtype=torch.int8)
    assert PackedWeights(Codes(codes, torch.tensor(scales)), bits=bits)().tolist() == expected


def test_a_ternary_zero_stays_zero():
    codes = torch.tensor([[0, 1, -1]], dtype=torch.int8)
    assert PackedWeights(Codes(codes, torch.tensor([[0.5, 0.75]])), bits=2)().tolist() == [[0.0, 0.5, -0.75]]


@pytest.mark.parametrize("name", ["preact-8-w4", "preact-bottleneck-11"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_packed_network_computes_to_the_bit_what_it_computed(name, scheme):
    backbone = build_network(name, num_classes=5, in_channels=3)
    initialise(backbone, generator())
    quantize(backbone, scheme)
    images = torch.randn(2, 3, 32, 32, generator=generator(1))
    backbone(images)  # BatchNorm statistics of its own
    before = backbone.eval()(images).logits
    weights = {layer for layer in dict(backbone.named_parameters()) if "weight" in layer}
    packed = pack(backbone)
    assert torch.equal(backbone(images).logits, before)
    assert weights - dict(backbone.named_parameters()).keys() >= {f"{layer}.weight" for layer in packed}


@pytest.mark.parametrize(("scheme", "bits"), [("binary_connect", 1), ("ttq", 2), ("bwn", 1), ("xnor", 1)])
def test_the_state_holds_bits_and_scales_alone(scheme, bits):
    backbone = build_network("preact-8-w4", num_classes=5, in_channels=3)
    initialise(backbone, generator())
    quantize(backbone, scheme)
    pack(backbone)
    state = backbone.state_dict()
    layer = "stages.1.0.conv2"  # 8 filters of 8x3x3
    assert [name for name in state if name.startswith(f"{layer}.")] == [
        f"{layer}.quantizer.packed",
        f"{layer}.quantizer.scales",
    ]
    assert state[f"{layer}.quantizer.packed"].dtype == torch.uint8
    assert state[f"{layer}.quantizer.packed"].numel() == 8 * 72 * bits // 8
