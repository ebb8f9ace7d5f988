"""k networks of one architecture as one network, numerically each as it is alone.

Their channels lie side by side, [B, k C, H, W]: convolutions are grouped, BatchNorm normalises k C channels
(so each member's own), and linear layers are batched products. Nothing mixes two members. On small images
convolutions and BatchNorm are compiled (small_images.py, small_blocks.py). A layer's k weights are one
parameter [k, ...], of which each member's own parameter is a view: members are read, saved and exported as
ever, and what one step changes, the members have.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hkrun.models.attention import AttentionEstimator, BlockAttention
from hkrun.models.backbone import Backbone, Features
from hkrun.models.batchnorm import BatchNorm2d
from hkrun.models.cifar import InvertedResidual, LargeMapPool, PostActivationBlock
from hkrun.models.distilled import DistilledNetwork, Output
from hkrun.models.joining import Join, join_buffers, join_parameters
from hkrun.models.layout import lay_gradient
from hkrun.models.preact import BasicBlock, BottleneckBlock
from hkrun.models.quantized import (
    QuantizedConv2d,
    QuantizedLinear,
    SignActivation,
    TernaryWeights,
    ternary_weights,
)
from hkrun.models.small_blocks import (
    Activation,
    BlockWeights,
    batch_norm,
    block_pays,
    normalises,
    residual_block,
)
from hkrun.models.small_images import (
    as_rows,
    convolve,
    find_geometry,
    lie_images_last,
    pays,
    repeat_images,
)


class PackedNetwork(nn.Module):
    """k networks of one architecture, in training, as one.

    Args:
        members: Backbones of one architecture that can be packed, with or without attention sub-networks.

    Attributes:
        joins: Its parameters, and what they are of each member.
    """

    def __init__(self, members: Sequence[DistilledNetwork]) -> None:
        super().__init__()
        self.joins: list[Join] = []
        self._size = len(members)
        self._backbone = _pack([member.backbone for member in members], self.joins)
        self._attention: nn.Module | None = None
        if members[0].attention is not None:
            estimators = [member.attention for member in members if member.attention is not None]
            self._attention = _pack(estimators, self.joins)

    def forward(self, images: Tensor) -> tuple[Output, Output]:
        """Runs each member's own images, [k, B, channels, H, W].

        Returns:
            The output, all of it with a leading k; and the same with the members' channels side by side, as
            the network computes it.
        """
        features: Features = self._backbone(images.transpose(0, 1).flatten(1, 2))
        descriptor = _members(features.descriptor, self._size)
        knowledge = None
        if self._attention is not None:
            squeezed = self._attention(features.stages, descriptor)
            knowledge = torch.cat(squeezed, dim=-1).to(features.logits.dtype).transpose(0, 1)
        output = Output(
            logits=self._split(features.logits),
            knowledge=knowledge,
            descriptor=descriptor.transpose(0, 1),
            stages=tuple(self._split(stage) for stage in features.stages),
            stem=self._split(features.stem),
        )
        held = Output(features.logits, None, features.descriptor, features.stages, features.stem)
        return output, held

    def classify(self, images: Tensor) -> Tensor:
        """Each member's logits, [k, B, classes], of the same images, [B, channels, H, W]."""
        on_cpu = images.device.type == "cpu"
        each = repeat_images(images, self._size) if on_cpu else images.repeat(1, self._size, 1, 1)
        features: Features = self._backbone(each)
        return self._split(features.logits)

    def quantized_weights(self) -> list[tuple[nn.Module, Tensor]]:
        """The quantisers that treat each filter by itself, with all members' real weights, [k filters, ...].

        Changed in place, these change the members'.
        """
        return [
            (layer.quantizer.each, layer.weight.detach().view(-1, *layer.weight.shape[2:]))
            for layer in self._backbone.modules()
            if isinstance(layer, _PackedConv2d | _PackedLinear) and isinstance(layer.quantizer, _PackedRows)
        ]

    def _split(self, values: Tensor) -> Tensor:
        """[k, B, C, ...] of [B, k C, ...], without a copy."""
        return _members(values, self._size).transpose(0, 1)


def _members(values: Tensor, number: int) -> Tensor:
    """[B, k, C, ...] of [B, k C, ...], without a copy."""
    batch, channels, *rest = values.shape
    return values.view(batch, number, channels // number, *rest)


def _pack(members: Sequence[nn.Module], joins: list[Join]) -> nn.Module:
    """Packs modules of one type, and what is in them.

    Raises:
        TypeError: The type is none that keeps its members apart when packed.
    """
    first = members[0]
    if isinstance(first, _CHANNELWISE):
        return first
    for kind, packed in _PACKED.items():
        if isinstance(first, kind):
            module: nn.Module = packed(members, joins)
            return module
    if not isinstance(first, _COMPOSED):
        raise TypeError(f"a {type(first).__name__} cannot be packed")
    return _compose(members, joins)


def _compose(members: Sequence[nn.Module], joins: list[Join]) -> nn.Module:
    """A module like the members, made of what theirs are packed to."""
    composed = copy.copy(members[0])
    composed._modules = {
        name: None if child is None else _pack([member.get_submodule(name) for member in members], joins)
        for name, child in members[0]._modules.items()
    }
    return composed


# What treats every channel alike, and what only calls the modules that it is made of.
_CHANNELWISE = (nn.ReLU, nn.Identity, nn.MaxPool2d, LargeMapPool, SignActivation)
_COMPOSED = (
    *(Backbone, BottleneckBlock),
    *(PostActivationBlock, InvertedResidual),
    *(AttentionEstimator, nn.Sequential, nn.ModuleList),
)


class _PackedConv2d(nn.Module):
    def __init__(self, members: Sequence[nn.Conv2d], joins: list[Join]) -> None:
        super().__init__()
        first = members[0]
        self.weight = join_parameters([member.weight for member in members], joins)
        self._bias = None
        if first.bias is not None:
            self._bias = join_parameters(
                [member.bias for member in members if member.bias is not None], joins
            )
        assert first.padding_mode == "zeros"
        self._options: dict[str, Any] = {
            "stride": first.stride,
            "padding": first.padding,
            "dilation": first.dilation,
            "groups": first.groups * len(members),
        }
        self.geometry = find_geometry(first)
        self.quantizer = _pack_quantizers(members, joins)
        self._first = None
        if isinstance(first, QuantizedConv2d) and first.first is not None:
            self._first = _pack([member.get_submodule("first") for member in members], joins)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [B, k in_channels, H, W]."""
        if self._first is not None:
            inputs = self._first(inputs)
        weight = self.find_weight()
        if self.geometry is not None and pays(inputs, weight):
            outputs = convolve(inputs, weight, self.geometry)
            return outputs if self._bias is None else outputs + self._bias.flatten()[:, None, None]
        bias = None if self._bias is None else self._bias.flatten()
        return F.conv2d(inputs, weight.flatten(0, 1), bias, **self._options)

    def find_weight(self) -> Tensor:
        """The weights that it convolves with, [k, out_channels, in_channels, *kernel]."""
        return self.weight if self.quantizer is None else self.quantizer(self.weight)


class _PackedLinear(nn.Module):
    def __init__(self, members: Sequence[nn.Linear], joins: list[Join]) -> None:
        super().__init__()
        self.weight = join_parameters([member.weight for member in members], joins)
        self._bias = None
        if members[0].bias is not None:
            self._bias = join_parameters([member.bias for member in members], joins)
        self.quantizer = _pack_quantizers(members, joins)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [B, k in_features]."""
        weight = self.weight if self.quantizer is None else self.quantizer(self.weight)
        own = _members(inputs, len(weight)).transpose(0, 1)
        if self._bias is None:
            outputs = torch.bmm(own, weight.transpose(1, 2))
        else:
            outputs = torch.baddbmm(self._bias[:, None], own, weight.transpose(1, 2))
        return outputs.transpose(0, 1).flatten(1)


class _PackedBatchNorm2d(nn.Module):
    def __init__(self, members: Sequence[BatchNorm2d], joins: list[Join]) -> None:
        super().__init__()
        assert not members[0].synchronised
        self._weight = join_parameters([member.weight for member in members], joins)
        self._bias = join_parameters([member.bias for member in members], joins)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, join_buffers(members, name))
        self._momentum, self._eps = members[0].momentum, members[0].eps

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalises [B, k C, H, W]."""
        if self.training:
            self.get_buffer("num_batches_tracked").add_(1)
        assert self._momentum is not None
        weight, bias = self._weight.flatten(), self._bias.flatten()
        mean, variance = (self.get_buffer(name).flatten() for name in ("running_mean", "running_var"))
        if not (self.training and normalises(inputs)):
            small = lie_images_last(inputs)
            outputs = F.batch_norm(
                as_rows(inputs) if small else inputs,
                mean,
                variance,
                weight,
                bias,
                training=self.training,
                momentum=self._momentum,
                eps=self._eps,
            )
            return outputs.as_strided(inputs.shape, inputs.stride()) if small else outputs
        outputs, own_mean, own_variance = batch_norm(inputs, weight, bias, self._eps)
        number = inputs.numel() // inputs.shape[1]
        mean.lerp_(own_mean, self._momentum)
        variance.lerp_(own_variance * (number / (number - 1)), self._momentum)
        return outputs

    def find_activation(self) -> Activation:
        """What it and the ReLU after it make of maps in eval mode."""
        scale = self._weight.detach() * (self.get_buffer("running_var") + self._eps).rsqrt()
        mean = self.get_buffer("running_mean")
        return Activation(scale, torch.addcmul(self._bias.detach(), mean, scale, value=-1))


class _PackedBasicBlock(nn.Module):
    """`BasicBlock`; its layers are evaluated together where its convolutions are compiled."""

    def __init__(self, members: Sequence[BasicBlock], joins: list[Join]) -> None:
        super().__init__()
        self._block = _compose(members, joins)
        self._rectifies = isinstance(members[0].activation, nn.ReLU)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [B, k in_channels, H, W]."""
        block: Any = self._block
        if self._rectifies and not self.training and not torch.is_grad_enabled():
            projection = None if block.projection is None else block.projection.find_weight()
            weights = BlockWeights(block.conv1.find_weight(), block.conv2.find_weight(), projection)
            stride = block.conv1.geometry.stride
            if block_pays(inputs, weights, stride):
                activations = (block.norm1.find_activation(), block.norm2.find_activation())
                return residual_block(inputs, activations, weights, stride)
        outputs: Tensor = block(inputs)
        return outputs


class _PackedBlockAttention(nn.Module):
    """`BlockAttention`, with one more dimension for the members."""

    def __init__(self, members: Sequence[BlockAttention], joins: list[Join]) -> None:
        super().__init__()
        self._tap = _pack([member.tap for member in members], joins)
        self._align = join_parameters([member.align.weight for member in members], joins)
        self._score = join_parameters([member.score.weight for member in members], joins)
        self._average = members[0].average

    def forward(self, stage: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        """Squeezes raw stage outputs [B, k width, H, W], guided by [B, k, guide_width]; see `BlockAttention`.

        Returns:
            The squeezed vectors [B, k, C_i] and the attention maps [B, k, H, W].
        """
        height, width = stage.shape[2:]
        maps = lay_gradient(self._tap(stage))
        features = _members(maps.flatten(2), len(self._score))
        if lie_images_last(maps):
            columns = features.permute(1, 2, 3, 0)  # [k, C_i, H*W, B], as it lies
            scores = torch.bmm(self._score, columns.flatten(2)).view(len(columns), height * width, -1)
            weights = scores.softmax(dim=1)
            pooled = lay_gradient((columns * weights[:, None]).sum(dim=2)).permute(2, 0, 1)
            attention = weights.permute(2, 0, 1)
        else:
            attention = (self._score @ features).softmax(dim=3)  # [B, k, 1, H*W]
            pooled = (features @ attention.transpose(2, 3))[..., 0]
        aligned = torch.bmm(guide.transpose(0, 1), self._align.transpose(1, 2)).transpose(0, 1)
        squeezed = pooled + aligned
        if self._average:
            squeezed = squeezed / (height * width)
        return squeezed, attention.reshape(*squeezed.shape[:2], height, width)


class _PackedTernary(nn.Module):
    def __init__(self, members: Sequence[TernaryWeights], joins: list[Join]) -> None:
        super().__init__()
        self._positive = join_parameters([member.positive for member in members], joins)
        self._negative = join_parameters([member.negative for member in members], joins)

    def forward(self, weight: Tensor) -> Tensor:
        own = zip(weight.unbind(), self._positive.unbind(), self._negative.unbind(), strict=True)
        return torch.stack([ternary_weights(*each) for each in own])


class _PackedRows(nn.Module):
    """A quantiser that treats each filter by itself."""

    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.each = quantizer

    def forward(self, weight: Tensor) -> Tensor:
        rows: Tensor = self.each(weight.flatten(0, 1))
        return rows.view(weight.shape)


def _pack_quantizers(members: Sequence[nn.Module], joins: list[Join]) -> nn.Module | None:
    if not isinstance(members[0], QuantizedConv2d | QuantizedLinear):
        return None
    quantizers = [member.get_submodule("quantizer") for member in members]
    if isinstance(quantizers[0], TernaryWeights):
        return _PackedTernary(quantizers, joins)  # type: ignore[arg-type]
    return _PackedRows(quantizers[0])


_PACKED: dict[type[nn.Module], Any] = {
    nn.Conv2d: _PackedConv2d,
    nn.Linear: _PackedLinear,
    BatchNorm2d: _PackedBatchNorm2d,
    BasicBlock: _PackedBasicBlock,
    BlockAttention: _PackedBlockAttention,
}
