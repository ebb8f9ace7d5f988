"""DIST, distillation from a stronger teacher (Huang, You, Wang, Qian and Xu, NeurIPS 2022)."""

from torch import Tensor

from hkrun.modern.recipe import with_labels
from hkrun.terms import Key, Term

SMALL = 1e-8  # the authors': keeps the correlation of two constant vectors finite


def dist_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, beta: float, gamma: float, temperature: float
) -> Tensor:
    """L_inter and L_intra: beta L_inter + gamma L_intra, each 1 less a mean correlation, times T^2.

    Between the softened classes of student and teacher, the Pearson correlation is taken of each image over
    the classes (L_inter), and of each class over the images of the batch (L_intra).

    Args:
        student_logits: Shape [B, C].
        teacher_logits: Shape [B, C].
        beta: Weight of L_inter.
        gamma: Weight of L_intra.
        temperature: T, above 0; T^2 is of the authors' code.
    """
    ours = (student_logits / temperature).softmax(dim=1)
    theirs = (teacher_logits.detach() / temperature).softmax(dim=1)
    inter, intra = (1 - _correlation(ours, theirs, dim=dim).mean() for dim in (1, 0))
    return temperature**2 * (beta * inter + gamma * intra)


def _correlation(first: Tensor, second: Tensor, *, dim: int) -> Tensor:
    """Pearson's correlation along a dimension."""
    first, second = (each - each.mean(dim=dim, keepdim=True) for each in (first, second))
    lengths: Tensor = first.norm(dim=dim) * second.norm(dim=dim)
    return (first * second).sum(dim=dim) / (lengths + SMALL)


_SOURCE = "the authors' code, CIFAR-100"
FORM = Term(
    summary="correlations over classes and over images (Huang et al. 2022)",
    function=dist_loss,
    student=("logits",),
    teacher=("logits",),
    over_batch=True,
    keys=(
        Key("dist.beta", 1.0, "Weight of the correlation over classes.", source=_SOURCE, minimum=0),
        Key("dist.gamma", 1.0, "Weight of the correlation over images.", source=_SOURCE, minimum=0),
        Key(
            "dist.temperature",
            4.0,
            "Temperature of the softened classes.",
            source=f"{_SOURCE}; 1 on ImageNet",
            above=0,
        ),
    ),
)
METHOD = with_labels("dist", FORM, weight=2.0, source=_SOURCE)
