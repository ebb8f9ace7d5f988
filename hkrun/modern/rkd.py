"""RKD, relational knowledge distillation (Park, Kim, Lu and Cho, CVPR 2019)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from hkrun.losses import unit_rows
from hkrun.modern.recipe import with_labels
from hkrun.terms import Key, Term


def rkd_loss(
    student_descriptor: Tensor, teacher_descriptor: Tensor, *, distance: float, angle: float
) -> Tensor:
    """L_RKD-D and L_RKD-A: the Huber distance of pairs' distances and of triples' angles, weighted.

    A distance is relative to the mean one of the batch's pairs; an angle is its cosine. As in the authors'
    code, the sums over pairs and triples are divided by B^2 and B^3. Two images with one descriptor have
    distance 0 and no direction, and neither has a gradient.

    Args:
        student_descriptor: Pooled features, shape [B, D_S].
        teacher_descriptor: Shape [B, D_T].
        distance: Weight of the pairs.
        angle: Weight of the triples.
    """
    our_lengths, our_directions = _relations(student_descriptor)
    their_lengths, their_directions = _relations(teacher_descriptor.detach())
    pairs = F.smooth_l1_loss(_relative(our_lengths), _relative(their_lengths))
    triples = F.smooth_l1_loss(_cosines(our_directions), _cosines(their_directions))
    return distance * pairs + angle * triples


def _relations(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Length and direction from each row to each other one, [B, B] and [B, B, D]."""
    differences = rows[None] - rows[:, None]
    directions = unit_rows(differences)
    return (differences * directions).sum(dim=2), directions


def _relative(lengths: Tensor) -> Tensor:
    pairs = len(lengths) * (len(lengths) - 1)
    return lengths / (lengths.sum() / pairs).clamp(min=torch.finfo(lengths.dtype).tiny)


def _cosines(directions: Tensor) -> Tensor:
    """Of the angle at each row between any two others, [B, B, B]."""
    return directions @ directions.transpose(1, 2)


_SOURCE = "the authors, as RepDistiller has them"
FORM = Term(
    summary="distances and angles between a batch's descriptors (Park et al. 2019)",
    function=rkd_loss,
    student=("descriptor",),
    teacher=("descriptor",),
    over_batch=True,
    keys=(
        Key("rkd.distance", 25.0, "Weight of the distances of pairs.", source=_SOURCE, minimum=0),
        Key("rkd.angle", 50.0, "Weight of the angles of triples.", source=_SOURCE, minimum=0),
    ),
)
METHOD = with_labels("rkd", FORM, weight=1.0, kd=True, source="RepDistiller's scripts")
