"""The loss terms of HKSANC, eqs. (3) to (9). They take tensors and know no network."""

from hkrun.losses.adversarial import discriminator_loss, student_adversarial_loss
from hkrun.losses.response import backbone_loss, cross_entropy
from hkrun.losses.squeezed import knowledge_loss

__all__ = [
    "backbone_loss",
    "cross_entropy",
    "discriminator_loss",
    "knowledge_loss",
    "student_adversarial_loss",
]
