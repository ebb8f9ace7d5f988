"""ReviewKD, knowledge review (Chen, Liu, Zhao and Jia, CVPR 2021)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hkrun.modern.recipe import with_labels
from hkrun.terms import TAP, Term

LEVELS = (4, 2, 1)  # sides of the pyramid's grids, below the map's own


class ReviewLoss(nn.Module):
    """ReviewKD: each teacher map is learned from the student's of the same stage and of all later ones.

    From the deepest map to the first, an attention-based fusion joins the student's map with
    what came from the deeper ones; a convolution brings it to the teacher's width, and the hierarchical
    context loss compares the two. The deepest map is the descriptor, of one position.

    Args:
        student_widths: Channels of each of the student's stages.
        student_width: Of its descriptor.
        teacher_widths: Channels of each of the teacher's stages, which are as many.
        teacher_width: Of its descriptor.
    """

    def __init__(
        self,
        student_widths: Sequence[int],
        student_width: int,
        teacher_widths: Sequence[int],
        teacher_width: int,
    ) -> None:
        super().__init__()
        between = min(512, student_width)
        widths = zip((*student_widths, student_width), (*teacher_widths, teacher_width), strict=True)
        deepest = len(student_widths)
        self.fusions = nn.ModuleList(
            Fusion(ours, between, theirs, first=stage == deepest)
            for stage, (ours, theirs) in enumerate(widths)
        )

    def forward(
        self,
        student: Sequence[Tensor],
        student_descriptor: Tensor,
        teacher: Sequence[Tensor],
        teacher_descriptor: Tensor,
    ) -> Tensor:
        """The loss of all maps, a sum over stages of means over elements.

        Args:
            student: Feature map of each stage, [B, C, H, W].
            student_descriptor: Pooled features, [B, C].
            teacher: The same of the teacher; of another size, the student's is brought to it.
            teacher_descriptor: Shape [B, C].
        """
        ours = [*student, student_descriptor[:, :, None, None]]
        theirs = [*teacher, teacher_descriptor[:, :, None, None]]
        losses, deeper = [], None
        for fusion, maps, target in reversed(list(zip(self.fusions, ours, theirs, strict=True))):
            reviewed, deeper = fusion(maps, deeper, target.shape[2:])
            losses.append(context_loss(reviewed, target.detach()))
        return torch.stack(losses).sum()


class Fusion(nn.Module):
    """The paper's ABF: a map and what came from the deeper ones, weighted by attention at each position.

    Args:
        width: Channels of the map.
        between: Of what goes on to the shallower maps.
        teacher_width: Of the teacher's map.
        first: Whether nothing is deeper.
    """

    def __init__(self, width: int, between: int, teacher_width: int, *, first: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(width, between, 1, bias=False), _norm(between))
        self.leave = nn.Sequential(
            nn.Conv2d(between, teacher_width, 3, padding=1, bias=False), _norm(teacher_width)
        )
        self.attention = None if first else nn.Conv2d(2 * between, 2, 1)

    def forward(self, maps: Tensor, deeper: Tensor | None, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """What is compared with the teacher's map of a size [H, W], and what goes on."""
        maps = self.enter(maps)
        if self.attention is not None:
            assert deeper is not None
            deeper = F.interpolate(deeper, tuple(maps.shape[2:]), mode="nearest")
            attention = self.attention(torch.cat([maps, deeper], dim=1)).sigmoid()
            maps = maps * attention[:, :1] + deeper * attention[:, 1:]
        if maps.shape[2:] != size:
            maps = F.interpolate(maps, tuple(size), mode="nearest")
        return self.leave(maps), maps


def context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """HCL: the mean squared difference of two maps [B, C, H, W], and of their averages on coarser grids.

    Level by level, each has half the weight of the one before; the weights are scaled to sum to 1.
    """
    losses, weights = [F.mse_loss(student, teacher)], [1.0]
    for side in LEVELS:
        if side < student.shape[2]:
            losses.append(F.mse_loss(_grid(student, side), _grid(teacher, side)))
            weights.append(weights[-1] / 2)
    total = sum(weights)
    return torch.stack([weight / total * loss for weight, loss in zip(weights, losses, strict=True)]).sum()


def _grid(maps: Tensor, side: int) -> Tensor:
    """Averages on a grid [side, side]; adaptive pooling has no deterministic gradient on a GPU."""
    height, width = maps.shape[2:]
    if height % side or width % side:
        return F.adaptive_avg_pool2d(maps, side)
    return F.avg_pool2d(maps, (height // side, width // side))


def _norm(width: int) -> nn.BatchNorm2d:
    """It is used in training alone: it needs no running statistics."""
    return nn.BatchNorm2d(width, track_running_stats=False)


_SOURCE = "the authors' code; from 0.6 to 8 for CIFAR-100's pairs, of 240 epochs"
FORM = Term(
    summary="each map from its own and all deeper ones (Chen et al. 2021)",
    function=ReviewLoss,
    student=("stages", "descriptor"),
    teacher=("stages", "descriptor"),
    learns=True,
    by_stage=True,
    over_batch=True,
    keys=(TAP,),
)
METHOD = with_labels("reviewkd", FORM, weight=1.0, warmup=20, source=_SOURCE)
