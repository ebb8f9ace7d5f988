"""PKT, probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018)."""

import torch
from torch import Tensor

from hkrun.losses import unit_rows
from hkrun.modern.recipe import with_labels
from hkrun.terms import Key, Term

SMALL = 1e-7  # the authors'


def pkt_loss(student_descriptor: Tensor, teacher_descriptor: Tensor, *, self_pairs: bool) -> Tensor:
    """The divergence of the images' neighbourhoods, over B^2.

    An image's neighbourhood is a distribution over the batch: its similarities to the images, (1 + cosine) /
    2, over their sum.

    Args:
        student_descriptor: Pooled features, shape [B, D_S].
        teacher_descriptor: Shape [B, D_T].
        self_pairs: Whether an image is its own neighbour too, as in the authors' code; not so in the paper.
    """
    ours, theirs = (
        _neighbourhoods(rows, self_pairs=self_pairs)
        for rows in (student_descriptor, teacher_descriptor.detach())
    )
    return (theirs * ((theirs + SMALL) / (ours + SMALL)).log()).mean()


def _neighbourhoods(rows: Tensor, *, self_pairs: bool) -> Tensor:
    rows = unit_rows(rows)
    similarities = (1 + rows @ rows.T) / 2
    if not self_pairs:
        similarities = similarities * (1 - torch.eye(len(rows), dtype=rows.dtype, device=rows.device))
    return similarities / similarities.sum(dim=1, keepdim=True)


FORM = Term(
    summary="the neighbourhoods of a batch's descriptors (Passalis and Tefas 2018)",
    function=pkt_loss,
    student=("descriptor",),
    teacher=("descriptor",),
    over_batch=True,
    keys=(
        Key(
            "pkt.self_pairs",
            True,
            "Whether an image is in its own neighbourhood.",
            source="the authors' code; false is the paper's",
        ),
    ),
)
METHOD = with_labels("pkt", FORM, weight=30000.0, kd=True, source="RepDistiller's scripts")
