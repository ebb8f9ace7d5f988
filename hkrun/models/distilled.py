"""A backbone with its attention sub-network: what teacher and student of HKSANC are while they train."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hkrun.models.attention import AttentionEstimator
from hkrun.models.backbone import Backbone


class Output(NamedTuple):
    """What teacher and student are compared by, for a batch of B images.

    Attributes:
        logits: Shape [B, classes], in the dtype of the weights.
        knowledge: The squeezed vectors g~_1..g~_N one after another, shape [B, sum of C_i], in the dtype of
            the weights; None where the network has no attention sub-network.
        descriptor: The pooled features before the classifier, shape [B, C_N].
        stages: Raw output of each stage, shapes [B, C_i, H_i, W_i].
        stem: Input of the first stage, shape [B, C_0, H_1, W_1].
    """

    logits: Tensor
    knowledge: Tensor | None
    descriptor: Tensor
    stages: tuple[Tensor, ...]
    stem: Tensor


# Convolutions on fewer channels are faster with each channel's positions together, and others with each
# position's channels together: by a quarter on 16 to 64 channels at 32x32 (CPU, benchmarks/README.md).
CHANNELS_LAST_FROM = 16


class DistilledNetwork(nn.Module):
    """A backbone and, where squeezed knowledge is compared, its attention sub-network.

    Inference, export and parameter counts use `backbone` alone.
    """

    def __init__(self, backbone: Backbone, attention: AttentionEstimator | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.attention = attention

    def lay_out(self) -> None:
        """Lays the weights in memory as computing with them is fastest. Their values stay.

        A network that leaves a pack has the pack's layout, channels_last. With fewer than eight channels a
        strided 1x1 convolution of torch 2.15 on a CPU writes beyond its gradient in that layout.
        """
        wide = self.backbone.widths[0] >= CHANNELS_LAST_FROM
        self.to(memory_format=torch.channels_last if wide else torch.contiguous_format)

    def forward(self, images: Tensor) -> Output:
        """Runs normalised images, shape [B, channels, H, W]."""
        features = self.backbone(images)
        knowledge = None
        if self.attention is not None:
            squeezed = self.attention(features.stages, features.descriptor)
            knowledge = torch.cat(squeezed, dim=1).to(features.logits.dtype)
        return Output(
            logits=features.logits,
            knowledge=knowledge,
            descriptor=features.descriptor,
            stages=features.stages,
            stem=features.stem,
        )
