"""SP, similarity-preserving distillation (Tung and Mori, ICCV 2019)."""

from collections.abc import Sequence

from torch import Tensor

from hkrun.losses import unit_rows
from hkrun.modern.recipe import with_labels
from hkrun.terms import TAP, Term


def sp_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """L_SP of the last stage: how far the similarities of a batch's images are apart, over B^2.

    The similarity of two images is the product of their flattened feature maps; each row of the
    matrix [B, B] is scaled to length 1; the loss is the squared Frobenius norm of the difference.

    Args:
        student: Feature map of each stage, [B, C, H, W], of which it takes the last.
        teacher: The same of the teacher; sizes may differ.
    """
    ours, theirs = (_similarities(stages[-1]) for stages in (student, teacher))
    return (ours - theirs.detach()).square().mean()


def _similarities(maps: Tensor) -> Tensor:
    rows = maps.flatten(1)
    return unit_rows(rows @ rows.T)


FORM = Term(
    summary="the similarities of a batch's last feature maps (Tung and Mori 2019)",
    function=sp_loss,
    student=("stages",),
    teacher=("stages",),
    over_batch=True,
    keys=(TAP,),
)
METHOD = with_labels("sp", FORM, weight=3000.0, kd=True, source="the paper; RepDistiller's scripts")
