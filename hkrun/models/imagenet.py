"""Backbones for ImageNet: torchvision's ResNets of 18, 50 and 152 layers (He et al. 2016a).

Unlike the pre-activation networks, they take a 224x224 image to a quarter of its size before the first stage
(7x7 convolution, BN-ReLU, max pooling), have four stages, and end each block with a ReLU: so do the stages'
outputs, and the pooled last one is the global descriptor. The modules have torchvision's names, so that its
weights load as they are.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from hkrun.models.batchnorm import BatchNorm2d
from hkrun.models.preact import Features
from hkrun.networks import NetworkShape

BLOCKS: dict[str, Any] = {"resnet-basic": resnet.BasicBlock, "resnet-bottleneck": resnet.Bottleneck}


class ResNet(resnet.ResNet):  # type: ignore[misc]  # torchvision carries no types
    """torchvision's ResNet with the interface of `hkrun.models.Backbone`.

    Args:
        shape: From `hkrun.networks.parse_network`.
        num_classes: Length of the logits.
        in_channels: Channels of the images.

    Attributes:
        widths: Channels C_i of each stage's output.
        descriptor_width: Length of the global descriptor, C_N.
    """

    def __init__(self, shape: NetworkShape, *, num_classes: int, in_channels: int) -> None:
        super().__init__(
            BLOCKS[shape.block], list(shape.blocks), num_classes=num_classes, norm_layer=BatchNorm2d
        )
        self.widths = shape.widths
        self.descriptor_width = shape.widths[-1]
        if in_channels != 3:
            self.conv1 = nn.Conv2d(
                in_channels, shape.stem_width, kernel_size=7, stride=2, padding=3, bias=False
            )

    def forward(self, images: Tensor) -> Features:
        """Runs normalised images, shape [B, channels, H, W]."""
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        hidden = stem
        stages = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            hidden = stage(hidden)
            stages.append(hidden)
        descriptor = torch.flatten(self.avgpool(hidden), 1)
        logits = self.fc(descriptor).to(self.fc.weight.dtype)
        return Features(logits=logits, stages=tuple(stages), descriptor=descriptor, stem=stem)
