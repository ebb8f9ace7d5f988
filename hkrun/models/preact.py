"""Backbones for small images: pre-activation ResNets and wide ResNets.

Sources: He et al. 2016b; Zagoruyko and Komodakis 2016. Both are one architecture: a 3x3 stem without
BatchNorm, three stages of residual blocks at full, half and quarter resolution, then BN-ReLU, global average
pooling and a linear classifier. Convolutions have no bias. Where a block changes the shape, the output of its
first BN-ReLU feeds a 1x1 projection as the shortcut.
"""

from torch import Tensor, nn

from hkrun.models.backbone import Backbone
from hkrun.models.batchnorm import BatchNorm2d
from hkrun.networks import NetworkShape


class BasicBlock(nn.Module):
    """BN-ReLU-conv3x3-BN-ReLU-conv3x3, added to the shortcut. Wide ResNets have the same block.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.activation: nn.Module = _relu()
        self.norm1 = BatchNorm2d(in_channels)
        self.conv1 = _conv3x3(in_channels, out_channels, stride=stride)
        self.norm2 = BatchNorm2d(out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.projection = _projection(in_channels, out_channels, stride=stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [B, in_channels, H, W] to [B, out_channels, H/stride, W/stride]."""
        active = self.activation(self.norm1(inputs))
        shortcut = inputs if self.projection is None else self.projection(active)
        residual: Tensor = self.conv2(self.activation(self.norm2(self.conv1(active))))
        return residual.add_(shortcut)


class BottleneckBlock(nn.Module):
    """BN-ReLU-conv1x1-BN-ReLU-conv3x3-BN-ReLU-conv1x1, added to the shortcut.

    The middle has a quarter of the output's channels.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, a multiple of 4.
        stride: Of the 3x3 convolution, so that every position of the input is read.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        width = out_channels // 4
        self.activation: nn.Module = _relu()
        self.norm1 = BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=1, bias=False)
        self.norm2 = BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width, stride=stride)
        self.norm3 = BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, kernel_size=1, bias=False)
        self.projection = _projection(in_channels, out_channels, stride=stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [B, in_channels, H, W] to [B, out_channels, H/stride, W/stride]."""
        active = self.activation(self.norm1(inputs))
        shortcut = inputs if self.projection is None else self.projection(active)
        hidden = self.activation(self.norm2(self.conv1(active)))
        hidden = self.activation(self.norm3(self.conv2(hidden)))
        residual: Tensor = self.conv3(hidden)
        return residual.add_(shortcut)


BLOCKS: dict[str, type[BasicBlock] | type[BottleneckBlock]] = {
    "basic": BasicBlock,
    "wide": BasicBlock,
    "bottleneck": BottleneckBlock,
}


class PreactNetwork(Backbone):
    """A pre-activation or wide ResNet.

    Args:
        shape: From `hkrun.networks.parse_network`.
        num_classes: Length of the logits.
        in_channels: Channels of the images.
    """

    def __init__(self, shape: NetworkShape, *, num_classes: int, in_channels: int) -> None:
        super().__init__(shape.widths)
        self.stem = _conv3x3(in_channels, shape.stem_width)
        self.stages = nn.ModuleList()
        channels = shape.stem_width
        for index, (width, num_blocks) in enumerate(zip(shape.widths, shape.blocks, strict=True)):
            blocks: list[nn.Module] = []
            for position in range(num_blocks):
                stride = 2 if index > 0 and position == 0 else 1
                blocks.append(BLOCKS[shape.block](channels, width, stride=stride))
                channels = width
            self.stages.append(nn.Sequential(*blocks))
        self.norm = BatchNorm2d(channels)
        self.activation = _relu()
        self.classifier = nn.Linear(channels, num_classes)

    def finish(self, hidden: Tensor) -> Tensor:
        """BN-ReLU of the last stage's output."""
        active: Tensor = self.activation(self.norm(hidden))
        return active


def _relu() -> nn.ReLU:
    # In place: BatchNorm keeps its input for the backward pass, never its output.
    return nn.ReLU(inplace=True)


def _conv3x3(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def _projection(in_channels: int, out_channels: int, *, stride: int) -> nn.Conv2d | None:
    """The 1x1 convolution of a shortcut whose shape changes; None where the input itself is added."""
    if in_channels == out_channels and stride == 1:
        return None
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)
