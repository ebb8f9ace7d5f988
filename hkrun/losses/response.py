"""Losses on the backbone's logits."""

from torch import Tensor
from torch.nn import functional as F


def backbone_loss(student_logits: Tensor, teacher_logits: Tensor, *, reduction: str) -> Tensor:
    """L_b, eq. (4): the squared difference of the logits, averaged over the batch.

    Args:
        student_logits: Shape [B, C].
        teacher_logits: Shape [B, C].
        reduction: Over the classes: "mean", or "sum" as the paper writes it.
    """
    assert reduction in ("mean", "sum")
    total = F.mse_loss(student_logits, teacher_logits, reduction=reduction)
    return total / len(student_logits) if reduction == "sum" else total


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits [B, C] with labels [B], averaged over the batch."""
    return F.cross_entropy(logits, labels)
