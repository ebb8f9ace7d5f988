"""DKD, decoupled knowledge distillation (Zhao, Cui, Song, Qiu and Liang, CVPR 2022)."""

import torch
from torch import Tensor

from hkrun.modern.recipe import with_labels
from hkrun.terms import Key, Term


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float,
) -> Tensor:
    """Eq. (7): T^2 (alpha TCKD + beta NCKD), averaged over the batch.

    TCKD is the divergence between teacher and student of the pair (the label's class, all others), NCKD that
    of the other classes among themselves. With alpha = 1, and 1 - p_T(label) of each image for beta, it is
    KD, eq. (6). All is computed from logarithms: a class of probability 0 in float32 keeps its gradient.

    Args:
        student_logits: Shape [B, C].
        teacher_logits: Shape [B, C].
        labels: Shape [B].
        alpha: Weight of TCKD.
        beta: Weight of NCKD.
        temperature: T, above 0; T^2 is of the authors' code, as KD has it.
    """
    ours = (student_logits / temperature).log_softmax(dim=1)
    theirs = (teacher_logits.detach() / temperature).log_softmax(dim=1)
    target = labels[:, None] == torch.arange(ours.shape[1], device=ours.device)
    (our_target, our_others), (their_target, their_others) = (
        _binary(logs, target) for logs in (ours, theirs)
    )
    tckd = their_target.exp() * (their_target - our_target)
    tckd = tckd + their_others.exp() * (their_others - our_others)
    # Among the others: the logarithms less that of their sum. The label's class has no part in it.
    weights = (theirs - their_others[:, None]).masked_fill(target, -torch.inf).exp()
    nckd = (weights * ((theirs - their_others[:, None]) - (ours - our_others[:, None]))).sum(dim=1)
    return temperature**2 * (alpha * tckd + beta * nckd).mean()


def _binary(logs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithms of the probability of the label's class and of all others together, [B] each."""
    others = logs.masked_fill(target, -torch.inf).logsumexp(dim=1)
    return logs.masked_fill(~target, 0).sum(dim=1), others


_SOURCE = "the authors' code (mdistiller)"
FORM = Term(
    summary="the label's class and the others by themselves (Zhao et al. 2022)",
    function=dkd_loss,
    student=("logits",),
    teacher=("logits",),
    labels=True,
    keys=(
        Key(
            "dkd.alpha",
            1.0,
            "Weight of TCKD, the label's class against the others.",
            source=_SOURCE,
            minimum=0,
        ),
        Key(
            "dkd.beta",
            8.0,
            "Weight of NCKD, the other classes among themselves.",
            source=f"{_SOURCE}, resnet32x4/8x4; from 2 to 8 for CIFAR-100's other pairs",
            minimum=0,
        ),
        Key("dkd.temperature", 4.0, "Temperature of the softened classes.", source=_SOURCE, above=0),
    ),
)
METHOD = with_labels("dkd", FORM, weight=1.0, warmup=20, source=f"{_SOURCE}, of 240 epochs")
