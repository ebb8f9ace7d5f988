"""Losses on the backbone's logits, averaged over the batch."""

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


def logits_l1_loss(student_logits: Tensor, teacher_logits: Tensor, *, reduction: str) -> Tensor:
    """TSCAN's response term (Xu et al. 2018): the absolute difference of the logits, averaged over the batch.

    Args:
        student_logits: Shape [B, C].
        teacher_logits: Shape [B, C].
        reduction: Over the classes: "mean", or "sum" for the l1 norm that the paper writes.
    """
    assert reduction in ("mean", "sum")
    total = F.l1_loss(student_logits, teacher_logits.detach(), reduction=reduction)
    return total / len(student_logits) if reduction == "sum" else total


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """KD (Hinton et al. 2015): T^2 KL(softmax(l_T / T) || softmax(l_S / T)), averaged over the batch.

    A divergence is a sum over classes. T^2 makes up for the temperature's 1 / T^2 in the gradient.

    Args:
        student_logits: l_S, shape [B, C].
        teacher_logits: l_T, shape [B, C].
        temperature: T, above 0.
    """
    ours = (student_logits / temperature).log_softmax(dim=1)
    theirs = (teacher_logits.detach() / temperature).log_softmax(dim=1)
    divergence = (theirs.exp() * (theirs - ours)).sum(dim=1)
    return temperature**2 * divergence.mean()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits [B, C] with labels [B], averaged over the batch."""
    return F.cross_entropy(logits, labels)
