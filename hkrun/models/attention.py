"""The task-driven attention estimator of HKSANC, eqs. (1) and (2), figures 2 and 3."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hkrun.config import Cell
from hkrun.models.backbone import Backbone
from hkrun.models.batchnorm import BatchNorm2d
from hkrun.models.layout import lay_gradient


class BlockAttention(nn.Module):
    """Squeezes the output of one stage into one vector.

    Args:
        width: Channels of the stage's output.
        guide_width: Length of the guide u_i.
        squeeze_width: Length C_i of the squeezed vector; where it differs from `width`, a learned 1x1
            convolution maps the stage's output to it before all else.
        pool: As in `AttentionEstimator`.
        tap: As in `AttentionEstimator`.
    """

    def __init__(self, width: int, *, guide_width: int, squeeze_width: int, pool: str, tap: str) -> None:
        super().__init__()
        assert pool in ("sum", "avg")
        assert tap in ("bn_relu", "raw")
        layers: list[nn.Module] = []
        if squeeze_width != width:
            layers.append(nn.Conv2d(width, squeeze_width, kernel_size=1, bias=False))
        if tap == "bn_relu":
            layers += [BatchNorm2d(squeeze_width), nn.ReLU(inplace=True)]
        self.tap = nn.Sequential(*layers)
        self.align = nn.Linear(guide_width, squeeze_width, bias=False)  # A_i
        self.score = nn.Linear(squeeze_width, 1, bias=False)  # W_i
        self.average = pool == "avg"

    def forward(self, stage: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
        """Squeezes a batch of B images.

        Args:
            stage: Raw stage output, shape [B, width, H, W].
            guide: u_i, shape [B, guide_width].

        Returns:
            The squeezed vector g~_i, shape [B, C_i], and the attention map M_i, shape [B, H, W].
        """
        height, width = stage.shape[2:]
        features = lay_gradient(self.tap(stage)).flatten(2)  # L_i, [B, C_i, H*W]
        # W_i as a batched product: a convolution with one output channel is several times slower.
        scores = torch.bmm(self.score.weight.expand(len(features), 1, -1), features)
        attention = scores.softmax(dim=2)
        squeezed = torch.bmm(features, attention.transpose(1, 2))[:, :, 0] + self.align(guide)
        if self.average:
            squeezed = squeezed / (height * width)
        return squeezed, attention.view(-1, height, width)


class AttentionEstimator(nn.Module):
    """Squeezes the output L_i of each stage into one vector g~_i, guided by what lies behind it.

    With u_i the guide, the global descriptor g_b and, where the connection is hierarchical, g~_N..g~_{i+1}:

        gh_i = A_i u_i                                  channel alignment
        Lh_i = L_i + gh_i                               gh_i is the same at all H*W positions
        M_i  = softmax over the positions of W_i . Lh_i
        g~_i = sum over the positions of M_i Lh_i       divided by H*W where pool is "avg"

    W_i . gh_i is one constant for all positions, which a softmax does not see, and M_i sums to 1. So M_i is
    the softmax of W_i . L_i, and g~_i is the sum of M_i L_i, plus gh_i: Lh_i itself is never built.

    Args:
        widths: Channels of each stage's output.
        descriptor_width: Length of g_b.
        connection: "hierarchical", or "original" (Jetley et al. 2018): g_b alone guides every block.
        pool: "sum" or "avg".
        tap: What L_i is: "bn_relu", the stage's output after a BatchNorm of its own and ReLU, or "raw".
        squeeze_widths: Lengths C_i of the squeezed vectors, see `BlockAttention`. None: the stages' widths.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        descriptor_width: int,
        connection: str,
        pool: str,
        tap: str,
        squeeze_widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        assert connection in ("hierarchical", "original")
        self.hierarchical = connection == "hierarchical"
        self.squeeze_widths = tuple(widths if squeeze_widths is None else squeeze_widths)
        self.blocks = nn.ModuleList()
        for index, (width, squeeze_width) in enumerate(zip(widths, self.squeeze_widths, strict=True)):
            later = sum(self.squeeze_widths[index + 1 :]) if self.hierarchical else 0
            self.blocks.append(
                BlockAttention(
                    width,
                    guide_width=descriptor_width + later,
                    squeeze_width=squeeze_width,
                    pool=pool,
                    tap=tap,
                )
            )

    def forward(self, stages: Sequence[Tensor], descriptor: Tensor) -> list[Tensor]:
        """Squeezes the stages of a batch of B images.

        Args:
            stages: Raw stage outputs, shapes [B, widths[i], H_i, W_i].
            descriptor: The global descriptor g_b, shape [B, descriptor_width].

        Returns:
            The squeezed vectors g~_1..g~_N, shapes [B, C_i].
        """
        squeezed, _ = self.attend(stages, descriptor)
        return squeezed

    def attend(self, stages: Sequence[Tensor], descriptor: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What `forward` returns, and the attention maps M_1..M_N, shapes [B, H_i, W_i]."""
        squeezed: list[Tensor] = []
        maps: list[Tensor] = []
        guide = descriptor
        # The last block comes first: its vector guides those before it.
        for block, stage in zip(reversed(self.blocks), reversed(stages), strict=True):
            vector, attention = block(stage, guide)
            squeezed.append(vector)
            maps.append(attention)
            if self.hierarchical and len(squeezed) < len(stages):
                guide = torch.cat([guide, vector], dim=-1)
        return squeezed[::-1], maps[::-1]


def build_attention(cell: Cell, backbone: Backbone) -> AttentionEstimator:
    """The attention sub-network of a cell's teacher or student, which has that backbone.

    With `attention.width` "project" the student's vectors become as long as the teacher's; else the teacher's
    estimator adapts.
    """
    return AttentionEstimator(
        backbone.widths,
        descriptor_width=backbone.descriptor_width,
        connection=cell.attention.connection,
        pool=cell.attention.pool,
        tap=cell.attention.tap,
        squeeze_widths=cell.squeeze_widths,
    )
