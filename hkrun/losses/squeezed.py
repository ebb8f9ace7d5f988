"""The loss on the squeezed intermediate knowledge."""

from torch import Tensor
from torch.nn import functional as F


def knowledge_loss(
    student_knowledge: Tensor, teacher_knowledge: Tensor, *, distance: str, reduction: str
) -> Tensor:
    """L_is, eq. (9): the distance of the squeezed vectors of student and teacher, averaged over the batch.

    Args:
        student_knowledge: All blocks' vectors one after another, shape [B, K].
        teacher_knowledge: The same of the teacher.
        distance: "l2", squared differences; "l1", absolute differences; "cross_entropy", of the student's
            softmax over all K elements with the teacher's.
        reduction: Of the K differences: "mean", or "sum" as the paper writes it. A cross-entropy is a sum by
            its nature and does not depend on it.
    """
    assert distance in ("l2", "l1", "cross_entropy")
    assert reduction in ("mean", "sum")
    if distance == "cross_entropy":
        return F.cross_entropy(student_knowledge, teacher_knowledge.softmax(dim=1))
    difference = F.mse_loss if distance == "l2" else F.l1_loss
    total = difference(student_knowledge, teacher_knowledge, reduction=reduction)
    return total / len(student_knowledge) if reduction == "sum" else total
