"""LSKD, KD on standardised logits (Sun, Ren, Li, Wang and Cao, CVPR 2024)."""

from torch import Tensor

from hkrun.modern.recipe import with_labels
from hkrun.terms import Key, Term

SMALL = 1e-7  # the authors'


def lskd_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, unbiased: bool
) -> Tensor:
    """Algorithm 2: KD between the Z-scores of both networks' logits, T^2 KL, averaged over the batch.

    The Z-score of an image's logits is their distance from their mean in standard deviations (Algorithm 1).

    Args:
        student_logits: Shape [B, C].
        teacher_logits: Shape [B, C].
        temperature: T, above 0: the base temperature.
        unbiased: Whether the variance is a sum over C - 1, as in the authors' code; else over C, as in the
            paper. The first is the second at a temperature higher by the root of C / (C - 1).
    """
    ours, theirs = (
        (_standardise(logits, unbiased=unbiased) / temperature).log_softmax(dim=1)
        for logits in (student_logits, teacher_logits.detach())
    )
    return temperature**2 * (theirs.exp() * (theirs - ours)).sum(dim=1).mean()


def _standardise(logits: Tensor, *, unbiased: bool) -> Tensor:
    deviation = logits.std(dim=1, keepdim=True, correction=int(unbiased))
    return (logits - logits.mean(dim=1, keepdim=True)) / (deviation + SMALL)


_SOURCE = "the authors' code"
FORM = Term(
    summary="the divergence of the softened standardised logits (Sun et al. 2024)",
    function=lskd_loss,
    student=("logits",),
    teacher=("logits",),
    keys=(
        Key("lskd.temperature", 2.0, "Base temperature.", source=_SOURCE, above=0),
        Key(
            "lskd.unbiased",
            True,
            "Whether the variance of an image's logits is over the classes less one; if not, over all.",
            source=f"{_SOURCE}; false is the paper's",
        ),
    ),
)
METHOD = with_labels("lskd", FORM, weight=9.0, cross_entropy=0.1, source=_SOURCE)
