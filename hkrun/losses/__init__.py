"""The loss terms of HKSANC, eqs. (3) to (9), and of the methods it is compared with.

They take tensors and know no network.
"""

from hkrun.losses.adversarial import discriminator_loss, student_adversarial_loss
from hkrun.losses.features import (
    FlowLoss,
    HintLoss,
    VariationalLoss,
    attention_transfer_loss,
    fsp_loss,
    fsp_matrix,
    nst_loss,
    read_stages,
)
from hkrun.losses.geometry import unit_rows
from hkrun.losses.response import backbone_loss, cross_entropy, kd_loss, logits_l1_loss
from hkrun.losses.squeezed import knowledge_loss

__all__ = [
    "FlowLoss",
    "HintLoss",
    "VariationalLoss",
    "attention_transfer_loss",
    "backbone_loss",
    "cross_entropy",
    "discriminator_loss",
    "fsp_loss",
    "fsp_matrix",
    "kd_loss",
    "knowledge_loss",
    "logits_l1_loss",
    "nst_loss",
    "read_stages",
    "student_adversarial_loss",
    "unit_rows",
]
