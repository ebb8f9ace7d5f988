"""What all backbones have in common: a stem, stages, and a linear layer on the pooled output of the last."""

from typing import NamedTuple

from torch import Tensor, nn

from hkrun.models.small_images import pool


class Features(NamedTuple):
    """What a backbone computes from a batch of B images.

    Attributes:
        logits: Shape [B, classes], in the dtype of the weights also under autocast.
        stages: Raw output of each stage, the residual sums L_1..L_N, shapes [B, C_i, H_i, W_i].
        descriptor: The global descriptor g_b, shape [B, C_N]: the last stage after BN-ReLU and pooling.
        stem: The stem's output, which is the first stage's input, shape [B, C_0, H_1, W_1].
    """

    logits: Tensor
    stages: tuple[Tensor, ...]
    descriptor: Tensor
    stem: Tensor


class Backbone(nn.Module):
    """A backbone; a subclass makes its parts, in the order in which the data passes them.

    Args:
        widths: Channels C_i of each stage's output.

    Attributes:
        descriptor_width: Length of the global descriptor, C_N.
    """

    stem: nn.Module
    stages: nn.ModuleList
    classifier: nn.Linear

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = widths
        self.descriptor_width = widths[-1]

    def forward(self, images: Tensor) -> Features:
        """Runs normalised images, shape [B, channels, H, W]."""
        stem = self.stem(images)
        hidden = stem
        stages = []
        for stage in self.stages:
            hidden = stage(hidden)
            stages.append(hidden)
        descriptor = pool(self.finish(hidden))
        logits = self.classifier(descriptor).to(self.classifier.weight.dtype)
        return Features(logits=logits, stages=tuple(stages), descriptor=descriptor, stem=stem)

    def finish(self, hidden: Tensor) -> Tensor:
        """What is pooled of the last stage's output, shape [B, C_N, H_N, W_N]; here all of it as it is."""
        return hidden
