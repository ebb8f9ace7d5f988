"""The networks of the literature's tables on CIFAR, as CRD's public code (Tian et al. 2020) has them.

Post-activation ResNets (He et al. 2016a), VGG with BatchNorm and one linear layer (Simonyan and Zisserman
2015), MobileNetV2 of half the width (Sandler et al. 2018), ShuffleNetV1 with three groups (Zhang et al. 2018)
and ShuffleNetV2 (Ma et al. 2018), all for images of 32x32. The pooled output of the last stage is the global
descriptor: the last 1x1 convolution of MobileNetV2 and of ShuffleNetV2 belongs to that stage. Stages end
after a ReLU, but those of MobileNetV2 before the last have none.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hkrun.models.backbone import Backbone
from hkrun.models.batchnorm import BatchNorm2d
from hkrun.networks import NetworkShape

# The least side of a map that VGG pools before its last stage: it does on images of 64x64, not of 32x32.
_POOLED_SIDE = 8
# MobileNetV2's expansion, and the blocks of each of its stages: output channels, number, stride of the first.
_EXPANSION = 6
_INVERTED = (((8, 1, 1), (12, 2, 1)), ((16, 3, 2),), ((32, 4, 2), (48, 3, 1)), ((80, 3, 2), (160, 1, 1)))


class CifarNetwork(Backbone):
    """A network for CIFAR.

    Args:
        shape: From `hkrun.networks.parse_network`.
        num_classes: Length of the logits.
        in_channels: Channels of the images.
    """

    def __init__(self, shape: NetworkShape, *, num_classes: int, in_channels: int) -> None:
        super().__init__(shape.widths)
        stem, stages = _PARTS[shape.block](shape, in_channels)
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.classifier = nn.Linear(self.descriptor_width, num_classes)


class PostActivationBlock(nn.Module):
    """conv3x3-BN-ReLU-conv3x3-BN, added to the shortcut, then ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Of the first convolution, and of the 1x1 projection where the shape changes.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_conv_norm(in_channels, out_channels, kernel=3, stride=stride),
            nn.ReLU(inplace=True),
            *_conv_norm(out_channels, out_channels, kernel=3),
        )
        self.projection: nn.Module = nn.Identity()
        if in_channels != out_channels or stride != 1:
            self.projection = nn.Sequential(*_conv_norm(in_channels, out_channels, stride=stride))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [B, in_channels, H, W] to [B, out_channels, H/stride, W/stride]."""
        outputs: Tensor = self.activation(self.residual(inputs) + self.projection(inputs))
        return outputs


class InvertedResidual(nn.Module):
    """conv1x1-BN-ReLU, depthwise conv3x3-BN-ReLU, conv1x1-BN, added to the input where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.layers = nn.Sequential(
            *_conv_norm(in_channels, width),
            nn.ReLU(inplace=True),
            *_conv_norm(width, width, kernel=3, stride=stride, groups=width),
            nn.ReLU(inplace=True),
            *_conv_norm(width, out_channels),
        )
        self.added = stride == 1 and in_channels == out_channels

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [B, in_channels, H, W] to [B, out_channels, H/stride, W/stride]."""
        outputs: Tensor = self.layers(inputs)
        return inputs + outputs if self.added else outputs


class GroupedUnit(nn.Module):
    """ShuffleNetV1's unit: grouped conv1x1, shuffle, depthwise conv3x3, grouped conv1x1, and the shortcut.

    Where it halves the resolution, the pooled input is joined to the outputs instead of added.
    """

    def __init__(self, in_channels: int, out_channels: int, *, first_groups: int, groups: int) -> None:
        super().__init__()
        self.halves = in_channels != out_channels
        added = out_channels - in_channels if self.halves else out_channels
        width = added // 4
        self.groups = first_groups
        self.reduce = nn.Sequential(*_conv_norm(in_channels, width, groups=first_groups))
        self.depthwise = nn.Sequential(
            *_conv_norm(width, width, kernel=3, stride=2 if self.halves else 1, groups=width)
        )
        self.expand = nn.Sequential(*_conv_norm(width, added, groups=groups))

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [B, in_channels, H, W]."""
        hidden = _shuffle(F.relu(self.reduce(inputs)), self.groups)
        outputs: Tensor = self.expand(F.relu(self.depthwise(hidden)))
        if self.halves:
            shortcut = F.avg_pool2d(inputs, kernel_size=3, stride=2, padding=1)
            return F.relu(torch.cat([outputs, shortcut], dim=1))
        return F.relu(outputs + inputs)


class SplitUnit(nn.Module):
    """ShuffleNetV2's unit: one half of the channels passes, the other goes through three convolutions.

    Where it halves the resolution, both branches read all channels, and both have convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.halves = in_channels != out_channels
        self.left: nn.Module = nn.Identity()
        if self.halves:
            self.left = nn.Sequential(
                *_conv_norm(in_channels, in_channels, kernel=3, stride=2, groups=in_channels),
                *_conv_norm(in_channels, half),
                nn.ReLU(inplace=True),
            )
        self.right = nn.Sequential(
            *_conv_norm(in_channels if self.halves else half, half),
            nn.ReLU(inplace=True),
            *_conv_norm(half, half, kernel=3, stride=2 if self.halves else 1, groups=half),
            *_conv_norm(half, half),
            nn.ReLU(inplace=True),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [B, in_channels, H, W]."""
        left, right = (inputs, inputs) if self.halves else inputs.chunk(2, dim=1)
        return _shuffle(torch.cat([self.left(left), self.right(right)], dim=1), 2)


class LargeMapPool(nn.Module):
    """Max pooling of maps that are large enough; smaller ones pass."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [B, C, H, W] to [B, C, H/2, W/2] or to itself."""
        return F.max_pool2d(inputs, 2) if min(inputs.shape[2:]) >= _POOLED_SIDE else inputs


Parts = tuple[nn.Module, list[nn.Module]]


def _resnet(shape: NetworkShape, in_channels: int) -> Parts:
    stem = nn.Sequential(*_conv_norm(in_channels, shape.stem_width, kernel=3), nn.ReLU(inplace=True))
    stages: list[nn.Module] = []
    channels = shape.stem_width
    for index, (width, blocks) in enumerate(zip(shape.widths, shape.blocks, strict=True)):
        layers = []
        for position in range(blocks):
            stride = 2 if index > 0 and position == 0 else 1
            layers.append(PostActivationBlock(channels, width, stride=stride))
            channels = width
        stages.append(nn.Sequential(*layers))
    return stem, stages


def _vgg(shape: NetworkShape, in_channels: int) -> Parts:
    def convolutions(inputs: int, outputs: int, number: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for position in range(number):
            layers += [
                nn.Conv2d(outputs if position else inputs, outputs, kernel_size=3, padding=1),
                BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        return layers

    # The stem is a block like the others, of as many convolutions as the first stage.
    stem = nn.Sequential(*convolutions(in_channels, shape.stem_width, shape.blocks[0]))
    inputs = (shape.stem_width, *shape.widths)
    pools = [nn.MaxPool2d(2), nn.MaxPool2d(2), nn.MaxPool2d(2), LargeMapPool()]
    return stem, [
        nn.Sequential(pool, *convolutions(before, width, number))
        for pool, before, width, number in zip(pools, inputs, shape.widths, shape.blocks, strict=False)
    ]


def _mobilenet(shape: NetworkShape, in_channels: int) -> Parts:
    channels = shape.stem_width
    stem = nn.Sequential(*_conv_norm(in_channels, channels, kernel=3, stride=2), nn.ReLU(inplace=True))
    stages: list[nn.Module] = []
    expansion = 1  # of the first block alone
    for groups in _INVERTED:
        layers: list[nn.Module] = []
        for width, number, first_stride in groups:
            for position in range(number):
                stride = first_stride if position == 0 else 1
                layers.append(InvertedResidual(channels, width, stride=stride, expansion=expansion))
                channels = width
            expansion = _EXPANSION
        stages.append(nn.Sequential(*layers))
    head = nn.Sequential(*_conv_norm(channels, shape.widths[-1]), nn.ReLU(inplace=True))
    stages[-1] = nn.Sequential(stages[-1], head)
    return stem, stages


def _shuffle_v1(shape: NetworkShape, in_channels: int) -> Parts:
    channels = shape.stem_width
    stages: list[nn.Module] = []
    for width, number in zip(shape.widths, shape.blocks, strict=True):
        layers = []
        for _ in range(number):
            first = 1 if channels == shape.stem_width else 3
            layers.append(GroupedUnit(channels, width, first_groups=first, groups=3))
            channels = width
        stages.append(nn.Sequential(*layers))
    return _narrow_stem(shape, in_channels), stages


def _shuffle_v2(shape: NetworkShape, in_channels: int) -> Parts:
    head_width = shape.widths[-1]
    channels = shape.stem_width
    stages: list[nn.Module] = []
    for width, number in zip((*shape.widths[:-1], _SHUFFLE_V2_LAST), shape.blocks, strict=True):
        layers = []
        for _ in range(number):
            layers.append(SplitUnit(channels, width))
            channels = width
        stages.append(nn.Sequential(*layers))
    head = nn.Sequential(*_conv_norm(channels, head_width), nn.ReLU(inplace=True))
    stages[-1] = nn.Sequential(stages[-1], head)
    return _narrow_stem(shape, in_channels), stages


# Channels of ShuffleNetV2's last units, which its last convolution widens.
_SHUFFLE_V2_LAST = 464

_PARTS: Mapping[str, Callable[[NetworkShape, int], Parts]] = {
    "cifar-resnet": _resnet,
    "cifar-vgg": _vgg,
    "cifar-mobilenet": _mobilenet,
    "cifar-shuffle-v1": _shuffle_v1,
    "cifar-shuffle-v2": _shuffle_v2,
}


def _narrow_stem(shape: NetworkShape, in_channels: int) -> nn.Module:
    return nn.Sequential(*_conv_norm(in_channels, shape.stem_width), nn.ReLU(inplace=True))


def _conv_norm(
    in_channels: int, out_channels: int, *, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        bias=False,
    )
    return [convolution, BatchNorm2d(out_channels)]


def _shuffle(values: Tensor, groups: int) -> Tensor:
    """The channels of each group, dealt out one by one."""
    batch, channels, height, width = values.shape
    dealt = values.view(batch, groups, channels // groups, height, width).transpose(1, 2)
    return dealt.reshape(batch, channels, height, width)
