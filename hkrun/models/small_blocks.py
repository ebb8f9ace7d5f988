"""BatchNorm and residual blocks of a pack on small images, for CPUs: see `small_images`."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hkrun.models.small_images import (
    Geometry,
    are_small,
    as_lines,
    as_rows,
    compiles,
    convolve,
    lie_images_last,
    new_maps,
    pays,
)


class Activation(NamedTuple):
    """What BatchNorm in eval mode and ReLU make of maps: `(maps * scale + shift)`, cut off below zero.

    Attributes:
        scale: Of each channel of each member, [k, C].
        shift: The same.
    """

    scale: Tensor
    shift: Tensor


class BlockWeights(NamedTuple):
    """The weights of a residual block's convolutions.

    Attributes:
        first: Shape [k, C', C, 3, 3].
        second: Shape [k, C', C', 3, 3].
        projection: Of the shortcut, [k, C', C, 1, 1]; None where the shortcut is the block's input itself.
    """

    first: Tensor
    second: Tensor
    projection: Tensor | None


def normalises(maps: Tensor) -> bool:
    """Whether `batch_norm` is for maps [B, C, H, W]: they lie with the images last, and kernels are there."""
    return lie_images_last(maps) and compiles(maps)


def batch_norm(maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalises maps [B, C, H, W] that lie with the images last by their own statistics.

    Returns:
        The maps, and each channel's mean and variance, [C], without gradients.

    Raises:
        ValueError: Maps, weight and bias do not fit: the kernels would read beside them. Or a channel has
            fewer than two numbers.
    """
    channels = maps.shape[1]
    if any(value.shape != (channels,) or value.dtype != maps.dtype for value in (weight, bias)):
        found, *own = (f"{list(value.shape)} {value.dtype}" for value in (maps, weight, bias))
        raise ValueError(f"maps of {found} do not fit BatchNorm's weight and bias of {' and '.join(own)}")
    if maps.numel() < 2 * channels:
        raise ValueError(f"BatchNorm needs two numbers of each channel, not maps of {list(maps.shape)}")
    outputs: tuple[Tensor, Tensor, Tensor] = _BatchNorm.apply(maps, weight, bias, eps)
    return outputs


def block_pays(maps: Tensor, weights: BlockWeights, stride: tuple[int, int]) -> bool:
    """Whether `residual_block` is faster than its layers one by one: where each convolution pays."""
    out_height = -(-maps.shape[2] // stride[0])
    return pays(maps, weights.first) and are_small(out_height, weights.second.shape[2])


def residual_block(
    maps: Tensor, activations: tuple[Activation, Activation], weights: BlockWeights, stride: tuple[int, int]
) -> Tensor:
    """The output of a block of BN-ReLU-conv3x3-BN-ReLU-conv3x3 in eval mode, without a gradient.

    The numbers are those of its layers one by one. Here they are a member's one after the other, so that what
    is between two layers is still in the cache when the next one reads it.

    Args:
        maps: Shape [B, k C, H, W].
        activations: What is before each of the two convolutions; the projection reads the first, too.
        weights: Of the convolutions.
        stride: Of the first convolution and of the projection.

    Returns:
        Shape [B, k C', H', W'], with the images last in memory.

    Raises:
        ValueError: Maps, activations and weights do not fit: the kernels would read beside them.
    """
    from hkrun.models import block_kernels

    members, out_channels, channels = weights.first.shape[:3]
    before, between = activations
    projection = weights.projection
    if projection is None:
        projection = weights.first.new_empty(0, out_channels, channels, 1, 1)
    wanted = [
        *((value, (members, channels)) for value in before),
        *((value, (members, out_channels)) for value in between),
        (weights.first, (members, out_channels, channels, 3, 3)),
        (weights.second, (members, out_channels, out_channels, 3, 3)),
        (projection, (len(projection) and members, out_channels, channels, 1, 1)),
        (maps, (len(maps), members * channels, *maps.shape[2:])),
    ]
    fit = all(value.shape == shape and value.dtype == maps.dtype for value, shape in wanted)
    if weights.projection is None:
        fit = fit and channels == out_channels and stride == (1, 1)
    if not fit:
        raise ValueError(f"maps of {list(maps.shape)} {maps.dtype} do not fit the block's weights")
    height, width = (-(-side // step) for side, step in zip(maps.shape[2:], stride, strict=True))
    outputs = new_maps(maps, members * out_channels, height, width)
    block_kernels.residual_block(
        as_lines(maps, members),
        (before.scale.numpy(), before.shift.numpy(), between.scale.numpy(), between.shift.numpy()),
        tuple(value.detach().contiguous().numpy() for value in (weights.first, weights.second, projection)),
        as_lines(outputs, members),
        len(maps),
        (stride, (1, 1), stride),
        ((1, 1), (1, 1), (0, 0)),
    )
    return outputs


def compile_ahead() -> None:
    """Compiles what packs in float32 take, unless that is done; else the first of them waits for it."""
    maps, weight = torch.zeros(2, 1, 1, 1, requires_grad=True), torch.zeros(1, 1, 1, 1, 1, requires_grad=True)
    outputs = convolve(maps, weight, Geometry((1, 1), (1, 1), (0, 0)))
    torch.autograd.grad(outputs, (maps, weight), torch.ones_like(outputs))
    kernels = torch.zeros(1, 1, 1, 3, 3)
    activation = Activation(torch.zeros(1, 1), torch.zeros(1, 1))
    residual_block(maps.detach(), (activation, activation), BlockWeights(kernels, kernels, None), (1, 1))
    normalised, _, _ = batch_norm(maps, torch.ones(1), torch.zeros(1), 1e-5)
    torch.autograd.grad(normalised, maps, torch.ones_like(maps))


class _BatchNorm(torch.autograd.Function):
    """Maps that lie with the images last, normalised by their own statistics; and these, without gradients.

    torch takes the mean and variance of long rows one number after another.
    """

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        from hkrun.models import block_kernels

        outputs = new_maps(maps, *maps.shape[1:])
        mean, variance, scale = maps.new_empty(3, maps.shape[1]).unbind()
        block_kernels.normalise(
            as_rows(maps)[0].numpy(),
            weight.detach().numpy(),
            bias.detach().numpy(),
            eps,
            as_rows(outputs)[0].numpy(),
            (mean.numpy(), variance.numpy(), scale.numpy()),
        )
        ctx.save_for_backward(maps, weight, mean, scale)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return outputs, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        maps, weight, mean, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # it is differentiated once more, as torch can its own
            of_rows, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                as_rows(gradient), as_rows(maps), weight, None, None, mean, scale, True, ctx.eps, [True] * 3
            )
            batch, channels, height, width = maps.shape
            of_maps = of_rows.view(channels, height, width, batch).permute(3, 0, 1, 2)
            return of_maps, of_weight, of_bias, None
        from hkrun.models import block_kernels

        of_maps = new_maps(maps, *maps.shape[1:])
        of_weight, of_bias = torch.empty_like(weight), torch.empty_like(weight)
        block_kernels.normalise_back(
            as_rows(gradient)[0].numpy(),
            as_rows(maps)[0].numpy(),
            weight.numpy(),
            (mean.numpy(), scale.numpy()),
            as_rows(of_maps)[0].numpy(),
            of_weight.numpy(),
            of_bias.numpy(),
        )
        return of_maps, of_weight, of_bias, None
