"""Quantised networks as they leave the house: their weights as bits, the real ones gone.

Layout of a layer's `packed`: the weights in C order, each as a field of 1 bit (binary: 1 is +, 0 is -) or of
2 bits (ternary: 0 is 0, 1 is +, 2 is -), the first in the lowest bits of the first byte; the last byte is
filled with zeros. `scales` says what + and - stand for, see `hkrun.models.quantized.Codes`.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hkrun.models.quantized import Codes, QuantizedConv2d, QuantizedLinear, Quantizer, quantized_layers


class PackedWeights(nn.Module):
    """The weights of a layer as bits and scales; gives the quantised weights.

    Args:
        codes: The weights, taken apart.
        bits: Per weight: 1 where no code is 0, else 2.
    """

    packed: Tensor
    scales: Tensor

    def __init__(self, codes: Codes, *, bits: int) -> None:
        super().__init__()
        self.shape, self.bits = tuple(codes.codes.shape), bits
        self.register_buffer("packed", pack_codes(codes.codes, bits=bits))
        self.register_buffer("scales", codes.scales.clone())

    def forward(self, _weight: Tensor | None = None) -> Tensor:
        """The quantised weights, in the shape of the layer's; its real weights are not needed."""
        per_byte = 8 // self.bits
        shifts = torch.arange(per_byte, dtype=torch.uint8, device=self.packed.device) * self.bits
        fields = (self.packed[:, None] >> shifts) & (2**self.bits - 1)
        fields = fields.reshape(-1)[: math.prod(self.shape)].reshape(self.shape)
        scales = self.scales.reshape(*self.scales.shape, *[1] * (len(self.shape) - 1))
        positive, negative = scales[:, 0], -scales[:, -1]
        if self.bits == 1:
            return torch.where(fields == 1, positive, negative)
        return torch.where(fields == 1, positive, torch.where(fields == 2, negative, 0.0))


def pack_codes(codes: Tensor, *, bits: int) -> Tensor:
    """Codes 1, -1 and, with 2 bits, 0 as the bytes of this module's layout, uint8."""
    fields = (codes == 1).to(torch.uint8) if bits == 1 else (codes % 3).to(torch.uint8)  # -1 is 2
    per_byte = 8 // bits
    flat = fields.flatten()
    rows = F.pad(flat, (0, -len(flat) % per_byte)).view(-1, per_byte)
    shifts = torch.arange(per_byte, dtype=torch.uint8, device=codes.device) * bits
    return (rows << shifts).sum(dim=1, dtype=torch.uint8)


def pack(backbone: nn.Module) -> dict[str, PackedWeights]:
    """Replaces the real weights of a network's quantised layers by bits, in place.

    Returns:
        The packed weights by the name of their layer; empty for a full-precision network.
    """
    packed = {}
    for name, layer in quantized_layers(backbone).items():
        packed[name] = pack_weights(layer)
        layer.quantizer = packed[name]
        del layer.weight
        # Empty, for networks that ask for its type.
        layer.register_buffer("weight", torch.empty(0, dtype=packed[name].scales.dtype), persistent=False)
    return packed


@torch.no_grad()
def pack_weights(layer: QuantizedConv2d | QuantizedLinear) -> PackedWeights:
    """The quantised weights of a layer as bits."""
    quantizer = layer.quantizer
    assert isinstance(quantizer, Quantizer)
    return PackedWeights(quantizer.encode(layer.weight), bits=1 if quantizer.is_binary else 2)
