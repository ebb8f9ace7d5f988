"""The loss terms of HKSANC, eqs. (3) to (9), and of the methods it is compared with.

They take tensors and know no network.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

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
from hkrun.losses.response import backbone_loss, cross_entropy, kd_loss, logits_l1_loss
from hkrun.losses.squeezed import knowledge_loss

# The functions of the terms that `hkrun.terms` declares. Each takes what its term reads: the parts of the
# student's output, then those of the teacher's, then the labels; and by name the keys that it declares. Of a
# term that learns it is a module, built from the student's and the teacher's widths and the keys.
FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "cross_entropy": cross_entropy,
        "backbone": backbone_loss,
        "logits_l1": logits_l1_loss,
        "kd": kd_loss,
        "squeezed": knowledge_loss,
        "at": attention_transfer_loss,
        "fsp": FlowLoss,
        "nst": nst_loss,
        "vid": VariationalLoss,
        "hint": HintLoss,
    }
)

__all__ = [
    "FUNCTIONS",
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
]
