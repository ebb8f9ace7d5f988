"""A backbone with its attention sub-network: what teacher and student of HKSANC are while they train."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hkrun.models.attention import AttentionEstimator
from hkrun.models.preact import Backbone


class Output(NamedTuple):
    """What teacher and student are compared by, for a batch of B images; in the dtype of the weights.

    Attributes:
        logits: Shape [B, classes].
        knowledge: The squeezed vectors g~_1..g~_N one after another, shape [B, sum of C_i]; None where the
            network has no attention sub-network.
    """

    logits: Tensor
    knowledge: Tensor | None


class DistilledNetwork(nn.Module):
    """A backbone and, where intermediate knowledge is compared, its attention sub-network.

    Inference, export and parameter counts use `backbone` alone.
    """

    def __init__(self, backbone: Backbone, attention: AttentionEstimator | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.attention = attention

    def forward(self, images: Tensor) -> Output:
        """Runs normalised images, shape [B, channels, H, W]."""
        features = self.backbone(images)
        if self.attention is None:
            return Output(logits=features.logits, knowledge=None)
        squeezed = self.attention(features.stages, features.descriptor)
        return Output(logits=features.logits, knowledge=torch.cat(squeezed, dim=1).to(features.logits.dtype))
