"""CC, correlation congruence (Peng, Jin, Liu, Zhou, Wu, Liu, Li and Zhang, ICCV 2019)."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from hkrun.losses import unit_rows
from hkrun.modern.recipe import with_labels
from hkrun.terms import Key, Term


def cc_loss(student_descriptor: Tensor, teacher_descriptor: Tensor, *, gamma: float, order: int) -> Tensor:
    """L_CC: the squared distance of the images' correlations, over B^2.

    Two images' correlation is the Gaussian kernel exp(-gamma |x - y|^2) of their features, scaled to length
    1, by its Taylor series in x . y up to a power.

    Args:
        student_descriptor: Pooled features, shape [B, D_S].
        teacher_descriptor: Shape [B, D_T].
        gamma: Of the kernel.
        order: The last power of the series, from 1.
    """
    ours, theirs = (
        _correlations(rows, gamma=gamma, order=order)
        for rows in (student_descriptor, teacher_descriptor.detach())
    )
    return F.mse_loss(ours, theirs)


def _correlations(rows: Tensor, *, gamma: float, order: int) -> Tensor:
    rows = unit_rows(rows)
    products = 2 * gamma * (rows @ rows.T)
    terms = [products**power / math.factorial(power) for power in range(1, order + 1)]
    return math.exp(-2 * gamma) * (1 + torch.stack(terms).sum(dim=0))


FORM = Term(
    summary="the correlations of a batch's descriptors (Peng et al. 2019)",
    function=cc_loss,
    student=("descriptor",),
    teacher=("descriptor",),
    over_batch=True,
    keys=(
        Key("cc.gamma", 0.4, "Of the Gaussian kernel.", source="the paper", above=0),
        Key("cc.order", 2, "Last power of the kernel's series.", source="the paper", minimum=1, maximum=20),
    ),
)
METHOD = with_labels("cc", FORM, weight=100.0, kd=True, source="Knowledge-Distillation-Zoo's scripts")
