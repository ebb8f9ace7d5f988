"""The discriminator: tells the teacher's logits or features from the student's, and may classify them."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

NEGATIVE_SLOPE = 0.2  # of the LeakyReLU


class DiscriminatorOutput(NamedTuple):
    """What the discriminator says of a batch of B samples; in the dtype of the weights.

    Attributes:
        source: Logit of "this is the teacher's", shape [B].
        classes: Class logits, shape [B, classes]; None without the category term.
    """

    source: Tensor
    classes: Tensor | None


class Discriminator(nn.Module):
    """Linear layers with LeakyReLU between them, no BatchNorm.

    HKSANC's is C -> C -> C -> 1 + C for C classes.

    Args:
        width: Length of what it judges.
        hidden: Widths of the hidden layers; empty for two of `width`.
        num_classes: How many classes it tells apart; 0: it has one output (table 3, without L_adv^C).
    """

    def __init__(self, width: int, *, hidden: Sequence[int] = (), num_classes: int) -> None:
        super().__init__()
        widths = [width, *(hidden or (width, width))]
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(widths))
        self.output = nn.Linear(widths[-1], 1 + num_classes)

    def forward(self, samples: Tensor) -> DiscriminatorOutput:
        """Judges what comes from the teacher or the student, shape [B, width]."""
        for layer in self.hidden:
            samples = F.leaky_relu(layer(samples), NEGATIVE_SLOPE)
        output = self.output(samples).to(self.output.weight.dtype)
        return DiscriminatorOutput(
            source=output[:, 0], classes=output[:, 1:] if output.shape[1] > 1 else None
        )
