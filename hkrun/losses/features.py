"""Losses on the feature maps of a network's stages: what methods other than HKSANC transfer from inside.

Every loss is averaged over the batch, and no gradient goes to the teacher. Feature maps have the shape
[B, C_i, H_i, W_i]; the widths C_i of student and teacher may differ. Where their sizes H_i x W_i differ, the
larger one is pooled to the smaller.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-5  # least variance that `VariationalLoss` can learn
LEAST_SQUARE = 1e-12  # what a relative distance is divided by where the teacher's side is zero
FIRST_VARIANCE = 5.0  # where its variances start: wide, so that a first poor estimate is not punished hard


def read_stages(maps: Sequence[Tensor], *, tap: str, dtype: torch.dtype) -> list[Tensor]:
    """Feature maps in a type, where `knowledge.tap` reads them: "raw", as they are; "relu", after a ReLU."""
    assert tap in ("raw", "relu")
    maps = [features.to(dtype) for features in maps]
    return [features.relu() for features in maps] if tap == "relu" else maps


def attention_transfer_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """AT (Zagoruyko and Komodakis 2017): the squared distance of the attention maps, summed over stages.

    A stage's attention map is the mean of the squared features over its channels, as a vector over positions
    of length 1. The squared distance of two of them lies in [0, 2].

    Args:
        student: Feature map of each stage.
        teacher: The same of the teacher. Widths may differ; of two sizes, the larger attention map is
            averaged to the smaller before the normalisation.
    """
    losses = [_attention_distance(ours, theirs) for ours, theirs in zip(student, teacher, strict=True)]
    return torch.stack(losses).sum()


def _attention_distance(student: Tensor, teacher: Tensor) -> Tensor:
    attention = (maps.square().mean(dim=1, keepdim=True) for maps in (student, teacher.detach()))
    ours, theirs = (F.normalize(each.flatten(1), dim=1) for each in _same_size(*attention))
    return (ours - theirs).square().sum(dim=1).mean()


def fsp_matrix(first: Tensor, second: Tensor) -> Tensor:
    """The flow from one feature map to another, eq. (1) of FSP (Yim et al. 2017): [B, C_1, C_2].

    Its elements are the products of a channel of the one and a channel of the other, averaged over positions.

    Args:
        first: Shape [B, C_1, H_1, W_1]; the larger of the two sizes is max-pooled to the smaller.
        second: Shape [B, C_2, H_2, W_2].
    """
    size = _smaller_size(first, second)
    first, second = (_max_pool(maps, size).flatten(2) for maps in (first, second))
    return first @ second.transpose(1, 2) / math.prod(size)


def fsp_loss(
    student: Sequence[tuple[Tensor, Tensor]],
    teacher: Sequence[tuple[Tensor, Tensor]],
    *,
    reduction: str = "sum",
) -> Tensor:
    """FSP (Yim et al. 2017), eq. (2): the squared distance of the flow matrices, summed over stages.

    Args:
        student: Input and output of each stage, as wide as the teacher's; `FlowLoss` makes them so.
        teacher: The same of the teacher.
        reduction: As in `_squared_distance`; "sum" is the paper's squared Frobenius norm.
    """
    losses = [
        _squared_distance(fsp_matrix(*ours), fsp_matrix(*theirs), reduction)
        for ours, theirs in zip(student, teacher, strict=True)
    ]
    return torch.stack(losses).sum()


class FlowLoss(nn.Module):
    """`fsp_loss` of the stages of two networks, each stage from its input, the map before it, to its output.

    Where widths differ, a 1x1 convolution without bias maps the student's features to the teacher's width.

    Args:
        student_widths: Channels of each of the student's feature maps, the stem's first.
        teacher_widths: The same of the teacher. Where both agree, the map stays as it is.
        relative: Whether the distance is relative to the teacher's squares.
        reduction: Of a distance that is not: "mean", or "sum" for the paper's squared Frobenius norm.
    """

    def __init__(
        self, student_widths: Sequence[int], teacher_widths: Sequence[int], *, relative: bool, reduction: str
    ) -> None:
        super().__init__()
        self.maps = nn.ModuleList(
            nn.Identity() if ours == theirs else _conv1x1(ours, theirs)
            for ours, theirs in zip(student_widths, teacher_widths, strict=True)
        )
        self._reduction = "relative" if relative else reduction

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The loss of the feature maps of the stem and all stages."""
        projected = [project(maps) for project, maps in zip(self.maps, student, strict=True)]
        flows = (list(itertools.pairwise(maps)) for maps in (projected, teacher))
        return fsp_loss(*flows, reduction=self._reduction)


def nst_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """NST (Huang and Wang 2017): the squared MMD of the channels' maps, summed over stages.

    A channel's map over positions is scaled to length 1, and the kernel is k(x, y) = (x . y)^2. The squared
    maximum mean discrepancy (MMD) between the channels of student and teacher for an image is the mean of k
    over all pairs of the student's, plus that over the teacher's, minus twice that over pairs of one of each.

    Args:
        student: Feature map of each stage.
        teacher: The same of the teacher. Widths may differ; of two sizes, the larger map is averaged to the
            smaller before it is scaled.
    """
    losses = [_discrepancy(ours, theirs) for ours, theirs in zip(student, teacher, strict=True)]
    return torch.stack(losses).sum()


def _discrepancy(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared MMD by whichever products are smaller, [B, C, C] or [B, H W, H W]."""
    ours, theirs = (F.normalize(maps.flatten(2), dim=2) for maps in _same_size(student, teacher.detach()))
    if ours.shape[2] < max(ours.shape[1], theirs.shape[1]):
        # The mean of (x . y)^2 is the inner product of the mean outer products x x^T and y y^T.
        difference = _mean_outer_product(ours) - _mean_outer_product(theirs)
        return difference.square().sum() / len(ours)
    return _kernel_mean(ours, ours) + _kernel_mean(theirs, theirs) - 2 * _kernel_mean(ours, theirs)


def _mean_outer_product(channels: Tensor) -> Tensor:
    return channels.transpose(1, 2) @ channels / channels.shape[1]


def _kernel_mean(first: Tensor, second: Tensor) -> Tensor:
    return (first @ second.transpose(1, 2)).square().mean()


class HintLoss(nn.Module):
    """FitNets' first stage (Romero et al. 2015), eq. (3): half the squared distance to the teacher's hint.

    The hint is the middle stage's output, of an even number the earlier one's. The regressor is linear, a 1x1
    convolution without bias and with nothing after it: it reaches negative features as well as positive ones.

    Args:
        student_widths: Channels of each of the student's stages.
        teacher_widths: The same of the teacher.
        relative: Whether the distance is relative to the teacher's squares.
        reduction: Of a distance that is not: "mean", or "sum" for the paper's squared Euclidean norm.
    """

    def __init__(
        self, student_widths: Sequence[int], teacher_widths: Sequence[int], *, relative: bool, reduction: str
    ) -> None:
        super().__init__()
        self._middle = (len(student_widths) - 1) // 2
        self.regressor = _conv1x1(student_widths[self._middle], teacher_widths[self._middle])
        self._reduction = "relative" if relative else reduction

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The loss of the feature maps of all stages, of which it takes the middle one."""
        ours, theirs = _same_size(student[self._middle], teacher[self._middle])
        return _squared_distance(self.regressor(ours), theirs, self._reduction) / 2


class VariationalLoss(nn.Module):
    """VID (Ahn et al. 2019): how unlikely the teacher's features are, given the student's.

    Per stage 1/2 [(mu(f_S) - f_T)^2 / s^2 + log s^2], averaged over all elements, and summed over stages: the
    negative log-likelihood of a Gaussian, but for the constant. Its mean mu is three 1x1 convolutions, its
    variance s^2 one number per channel; both are parameters and have to be trained with the student.

    Args:
        student_widths: Channels of each of the student's stages.
        teacher_widths: The same of the teacher.
    """

    def __init__(self, student_widths: Sequence[int], teacher_widths: Sequence[int]) -> None:
        super().__init__()
        self.means = nn.ModuleList(
            nn.Sequential(
                _conv1x1(ours, theirs),
                nn.ReLU(),
                _conv1x1(theirs, theirs),
                nn.ReLU(),
                _conv1x1(theirs, theirs),
            )
            for ours, theirs in zip(student_widths, teacher_widths, strict=True)
        )
        self.variances = nn.ModuleList(ChannelVariance(width) for width in teacher_widths)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """The loss of the feature maps of all stages."""
        losses = []
        for stage, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
            ours, theirs = _same_size(ours, theirs.detach())
            variance = self.variances[stage]()
            error = (self.means[stage](ours) - theirs).square() / variance
            losses.append((error + variance.log()).mean() / 2)
        return torch.stack(losses).sum()


class ChannelVariance(nn.Module):
    """A positive number for each channel, s^2 = softplus(a) + 1e-5, that starts at 5.

    Args:
        width: Number of channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.unbounded = nn.Parameter(torch.empty(width))
        self.reset_constants()

    @torch.no_grad()
    def reset_constants(self) -> None:
        """Sets the parameters to their initial value; `hkrun.models.initialise` calls it."""
        self.unbounded.fill_(math.log(math.expm1(FIRST_VARIANCE - EPSILON)))

    def forward(self) -> Tensor:
        """The variances, shape [width, 1, 1]."""
        return (F.softplus(self.unbounded) + EPSILON)[:, None, None]


def _conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)


def _squared_distance(student: Tensor, teacher: Tensor, reduction: str) -> Tensor:
    """The squared distance of two tensors [B, ...], averaged over the batch.

    Args:
        student: What has the gradient.
        teacher: Of the same shape.
        reduction: Over an image's elements: "sum", "mean", or "relative": the sum over that of the teacher's
            squares. Features of pre-activation networks grow with their depth, a flow with their square. So
            only a relative distance has a gradient of one size, which one learning rate suits everywhere.
    """
    assert reduction in ("sum", "mean", "relative")
    target = teacher.detach().flatten(1)
    squares = (student.flatten(1) - target).square()
    if reduction == "mean":
        return squares.mean()
    distance = squares.sum(dim=1)
    if reduction == "relative":
        distance = distance / target.square().sum(dim=1).clamp(min=LEAST_SQUARE)
    return distance.mean()


def _smaller_size(first: Tensor, second: Tensor) -> tuple[int, int]:
    return min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3])


def _same_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both feature maps at the smaller H and W: averages over the larger's positions."""
    if first.shape[2:] == second.shape[2:]:
        return first, second
    size = _smaller_size(first, second)
    return _average_pool(first, size), _average_pool(second, size)


# torch's adaptive pooling has no deterministic gradient on a GPU; where the sizes divide, as between the
# stages of a network, a reduction over tiles is the same.


def _max_pool(maps: Tensor, size: tuple[int, int]) -> Tensor:
    tiles = _tiles(maps, size)
    return F.adaptive_max_pool2d(maps, size) if tiles is None else tiles.amax(dim=(3, 5))


def _average_pool(maps: Tensor, size: tuple[int, int]) -> Tensor:
    tiles = _tiles(maps, size)
    return F.adaptive_avg_pool2d(maps, size) if tiles is None else tiles.mean(dim=(3, 5))


def _tiles(maps: Tensor, size: tuple[int, int]) -> Tensor | None:
    """[B, C, h, H / h, w, W / w] of a map [B, C, H, W] and a size (h, w); None where it does not divide."""
    (batch, channels, height, width), (rows, columns) = maps.shape, size
    if height % rows or width % columns:
        return None
    return maps.reshape(batch, channels, rows, height // rows, columns, width // columns)
