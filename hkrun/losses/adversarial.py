"""The adversarial game between discriminator and student, eqs. (5) to (7).

The discriminator's source logit d says "these logits are the teacher's" with probability sigmoid(d). Binary
cross-entropies are taken from the logit, as -log sigmoid(d) and -log sigmoid(-d): they stay exact where
sigmoid(d) rounds to 0 or 1.
"""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class DiscriminatorOutput(Protocol):
    """The output of a discriminator for a batch of B logits, as in `hkrun.models.discriminator`."""

    @property
    def source(self) -> Tensor:
        """Logit of "these are the teacher's", shape [B]."""

    @property
    def classes(self) -> Tensor | None:
        """Class logits, shape [B, C]; None where the discriminator has one output only."""


def discriminator_loss(
    teacher: DiscriminatorOutput,
    student: DiscriminatorOutput,
    labels: Tensor,
    parameters: Iterable[Tensor],
    *,
    mu: float,
    category: bool,
    regularizer: bool,
    reg_reduction: str,
) -> dict[str, Tensor]:
    """What the discriminator minimises, by part; the loss is the parts' sum.

    Args:
        teacher: The output for the teacher's logits.
        student: The output for the student's logits, which carry no gradient to the student.
        labels: Shape [B].
        parameters: All of the discriminator's, weights and biases.
        mu: Weight of the regulariser; already in the part.
        category: Whether the class logits are trained (table 3, L_adv^C).
        regularizer: Whether the discriminator is regularised (table 3, L_reg).
        reg_reduction: Of the weight norms over all parameters: "mean", or "sum" as the paper writes it.

    Returns:
        source: BCE of the teacher's with 1 and of the student's with 0, eq. (5).
        category: Cross-entropies of both with the labels, eq. (7); only with `category`.
        regularizer: mu (|w|_1 + |w|_2^2 + BCE of the student's with 1), eq. (6); only with `regularizer` and
            mu above 0.
    """
    assert reg_reduction in ("mean", "sum")
    parts = {"source": -(F.logsigmoid(teacher.source) + F.logsigmoid(-student.source)).mean()}
    if category:
        parts["category"] = _class_loss(teacher, labels) + _class_loss(student, labels)
    if regularizer and mu > 0:
        weights = torch.cat([parameter.flatten() for parameter in parameters])
        norms = weights.abs() + weights.square()
        norm = norms.mean() if reg_reduction == "mean" else norms.sum()
        parts["regularizer"] = mu * (norm - F.logsigmoid(student.source).mean())
    return parts


def student_adversarial_loss(
    student: DiscriminatorOutput, labels: Tensor, *, gan: str, category: bool
) -> Tensor:
    """L_adv on the student's side, eqs. (5) and (7): what it minimises against a frozen discriminator.

    Args:
        student: The output for the student's logits.
        labels: Shape [B].
        gan: "non_saturating", -log D; or "saturating" as the paper writes it, log(1 - D).
        category: Whether the cross-entropy of the class logits with the labels is added.
    """
    assert gan in ("non_saturating", "saturating")
    if gan == "non_saturating":
        loss = -F.logsigmoid(student.source).mean()
    else:
        loss = F.logsigmoid(-student.source).mean()
    return loss + _class_loss(student, labels) if category else loss


def _class_loss(output: DiscriminatorOutput, labels: Tensor) -> Tensor:
    assert output.classes is not None, "the discriminator was built without class outputs"
    return F.cross_entropy(output.classes, labels)
