"""The discriminator of HKSANC: tells the teacher's logits from the student's, and classifies them."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

NEGATIVE_SLOPE = 0.2  # of the LeakyReLU


class Verdict(NamedTuple):
    """What the discriminator says of a batch of B logits; in the dtype of the weights.

    Attributes:
        source: Logit of "these are the teacher's", shape [B].
        classes: Class logits, shape [B, classes]; None without the category term.
    """

    source: Tensor
    classes: Tensor | None


class Discriminator(nn.Module):
    """Three linear layers C -> C -> C -> 1 + C, LeakyReLU between them, no BatchNorm.

    Args:
        num_classes: C.
        category: Whether it classifies too; if not, it has one output (table 3, without L_adv^C).
    """

    def __init__(self, num_classes: int, *, category: bool) -> None:
        super().__init__()
        self.category = category
        self.hidden1 = nn.Linear(num_classes, num_classes)
        self.hidden2 = nn.Linear(num_classes, num_classes)
        self.output = nn.Linear(num_classes, 1 + num_classes if category else 1)

    def forward(self, logits: Tensor) -> Verdict:
        """Judges logits of the teacher or the student, shape [B, C]."""
        hidden = F.leaky_relu(self.hidden1(logits), NEGATIVE_SLOPE)
        hidden = F.leaky_relu(self.hidden2(hidden), NEGATIVE_SLOPE)
        output = self.output(hidden).to(self.output.weight.dtype)
        return Verdict(source=output[:, 0], classes=output[:, 1:] if self.category else None)
