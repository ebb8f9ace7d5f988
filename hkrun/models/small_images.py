"""Convolutions of a pack on small images as batched matrix products, for CPUs.

Activations lie with the images last, [k C, H, W, B]. A column of a member's image is a vector of C H
numbers, and for each column of the kernel a matrix [C' H', C H] maps it to its part of a column of the
output: it holds the weights of the kernel's column, and zeros elsewhere. A convolution is then as many
batched products as its kernel is wide, over the columns of all images at once. Shifts along the width are
where a product reads and writes, so nothing is copied. The zeros are multiplied too, which makes the
arithmetic up to H / 3 times as much. It pays where channels are few: there grouped convolutions of libraries,
which work on vectors of channels, are far slower than products.

A member's numbers meet no other member's in any product, so one that is NaN stays alone.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Geometry(NamedTuple):
    """A convolution without groups or dilation, [height, width] each.

    Attributes:
        kernel: Size of the kernel.
        stride: Of the output's positions in the input.
        padding: Zeros at each edge.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the output for those of the input."""
        height, width = (
            (side + 2 * padding - kernel) // stride + 1
            for side, kernel, stride, padding in zip(size, *self, strict=True)
        )
        return height, width


def find_geometry(layer: nn.Conv2d) -> Geometry | None:
    """That of a layer; None where it has groups or dilation."""
    padding = layer.padding
    if layer.groups > 1 or layer.dilation != (1, 1) or isinstance(padding, str):
        return None
    return Geometry(*((int(one), int(other)) for one, other in (layer.kernel_size, layer.stride, padding)))


def pays(maps: Tensor, weight: Tensor) -> bool:
    """Whether `convolve` is faster than a grouped convolution; it depends on the shapes alone.

    Args:
        maps: Shape [B, k C, H, W].
        weight: Shape [k, C', C, *kernel].
    """
    if maps.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    channels, height = weight.shape[2], maps.shape[2]
    # Measured in packs of 5 to 20 (benchmarks/pack_forms.py). On two rows a product has few zeros.
    return height <= 16 and channels * height <= (128 if height <= 2 else 32)


class _Shift(NamedTuple):
    """Where the product of one of the kernel's columns reads and writes.

    Attributes:
        phase: Which of the input's columns, those of this remainder by the stride.
        read: Which of them, one after another.
        written: The output's columns.
    """

    phase: int
    read: slice
    written: slice


def _images_last(maps: Tensor) -> Tensor:
    """Maps [B, C, H, W] as [C, H, W, B] in this order of memory; they may lie so already."""
    return maps.permute(1, 2, 3, 0).contiguous()


def _empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """New maps [B, channels, height, width] that lie so.

    Not a view: a ReLU changes them in place, which costs autograd copies where it is one.
    """
    batch = len(like)
    strides = (1, height * width * batch, width * batch, batch)
    return like.new_empty_strided((batch, channels, height, width), strides)


def repeat_images(images: Tensor, members: int) -> Tensor:
    """The same images for each member, [B, C, H, W] -> [B, k C, H, W], as `convolve` reads them."""
    return _images_last(images).repeat(members, 1, 1, 1).permute(3, 0, 1, 2)


def convolve(maps: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The convolution of each member's maps with its own weights.

    Args:
        maps: Shape [B, k C, H, W].
        weight: Shape [k, C', C, *kernel].
        geometry: The rest of the convolution.

    Returns:
        Shape [B, k C', H', W'], with the images last in memory.
    """
    matrices = _column_matrices(weight, maps.shape[2], geometry)
    outputs: Tensor = _Convolution.apply(maps, matrices, geometry)
    return outputs


def lie_images_last(maps: Tensor) -> bool:
    """Whether maps [B, C, H, W] lie in memory as those that `convolve` gives."""
    return maps.device.type == "cpu" and maps.permute(1, 2, 3, 0).is_contiguous()


def as_rows(maps: Tensor) -> Tensor:
    """Maps [B, C, H, W] with all of a channel in a row, [1, C, H W B]."""
    return _images_last(maps).flatten(1)[None]


def batch_norm(maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalises maps [B, C, H, W] that lie with the images last by their own statistics.

    Returns:
        The maps, and each channel's mean and variance, [C], without gradients.
    """
    outputs: tuple[Tensor, Tensor, Tensor] = _BatchNorm.apply(maps, weight, bias, eps)
    return outputs


def _column_matrices(weight: Tensor, height: int, geometry: Geometry) -> Tensor:
    """What maps a column of the input to its part of one of the output, [kernel's width, k, C' H', C H]."""
    members, out_channels, channels = weight.shape[:3]
    out_height, _ = geometry.output_size((height, height))
    there, back = _find_places(tuple(weight.shape[1:]), height, geometry)
    spread: Tensor = _Spread.apply(weight.flatten(1), there, back)
    return spread.view(members, -1, out_channels * out_height, channels * height).transpose(0, 1)


@functools.cache
def _find_places(shape: tuple[int, ...], height: int, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Which weight each element of a member's matrices is, and which elements each weight is.

    Returns:
        Numbers of weights, [elements], where their number stands for a zero; and the elements of each weight,
        [weights, H'], where their number stands for none.
    """
    out_channels, channels, rows, columns = shape
    out_height, _ = geometry.output_size((height, height))
    number = torch.arange(out_channels * channels * rows * columns).view(shape)
    there = torch.full((columns, out_channels, out_height, channels, height), number.numel())
    for place in range(out_height):
        for row in range(rows):
            read = place * geometry.stride[0] - geometry.padding[0] + row
            if 0 <= read < height:
                there[:, :, place, :, read] = number[:, :, row].permute(2, 0, 1)
    held = there.flatten()
    order = held.argsort(stable=True)
    weights = held[order]
    first = torch.searchsorted(weights, torch.arange(number.numel() + 1))
    back = torch.full((number.numel() + 1, out_height), held.numel())
    kept = weights < number.numel()
    back[weights[kept], (torch.arange(held.numel()) - first[weights])[kept]] = order[kept]
    return held, back[:-1]


class _Spread(torch.autograd.Function):
    """Values [k, n] at places of a larger array [k, m] that is zero elsewhere."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, there: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(there, back)
        return F.pad(values, (0, 1)).index_select(1, there)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        _, back = ctx.saved_tensors
        # Whole rows are taken faster than single numbers, so that the members go last for it.
        rows = F.pad(gradient.T, (0, 0, 0, 1))
        taken = rows.index_select(0, back.flatten()).view(*back.shape, -1)
        return taken.sum(dim=1).T, None, None


@functools.cache
def _find_shifts(geometry: Geometry, width: int, out_width: int) -> tuple[_Shift, ...]:
    """Where the products of the kernel's columns read and write."""
    stride, padding = geometry.stride[1], geometry.padding[1]
    shifts = []
    for offset in range(-padding, geometry.kernel[1] - padding):
        reached = [column for column in range(out_width) if 0 <= column * stride + offset < width]
        first, after = (reached[0], reached[-1] + 1) if reached else (0, 0)
        blocks, phase = divmod(offset, stride)
        shifts.append(_Shift(phase, slice(first + blocks, after + blocks), slice(first, after)))
    return tuple(shifts)


class _Convolution(torch.autograd.Function):
    """Maps [B, k C', H', W'] of maps [B, k C, H, W] and the matrices between their columns.

    Its backward has derivatives too.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, matrices: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(maps, matrices)
        ctx.geometry = geometry
        members, rows = matrices.shape[1:3]
        height, width = geometry.output_size((maps.shape[2], maps.shape[3]))
        shifts = _find_shifts(geometry, maps.shape[3], width)
        phases = _split(_columns(maps, members), geometry.stride[1])
        outputs = _empty(maps, members * rows // height, height, width)
        _add_products(
            _columns(outputs, members),
            [
                (shift.written, matrix, phases[shift.phase][:, :, shift.read])
                for matrix, shift in zip(matrices, shifts, strict=True)
            ],
        )
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        maps, matrices = ctx.saved_tensors
        members, stride = matrices.shape[1], ctx.geometry.stride[1]
        shifts = _find_shifts(ctx.geometry, maps.shape[3], gradient.shape[3])
        columns = _columns(gradient, members)
        of_maps = of_matrices = None
        phases = _split(_columns(maps, members), stride)
        if ctx.needs_input_grad[0]:
            of_phases = [torch.empty_like(phase) for phase in phases]
            for number, own in enumerate(of_phases):
                _add_products(
                    own,
                    [
                        (shift.read, matrix.transpose(1, 2), columns[:, :, shift.written])
                        for matrix, shift in zip(matrices, shifts, strict=True)
                        if shift.phase == number
                    ],
                )
            of_maps = _merge(of_phases, maps)
        if ctx.needs_input_grad[1]:
            of_matrices = torch.stack(
                [
                    columns[:, :, shift.written].flatten(2)
                    @ phases[shift.phase][:, :, shift.read].flatten(2).transpose(1, 2)
                    for shift in shifts
                ]
            )
        return of_maps, of_matrices, None


def _columns(maps: Tensor, members: int) -> Tensor:
    """Maps [B, k C, H, W] as [k, C H, W, B], a view where they lie with the images last."""
    batch, channels, height, width = maps.shape
    return _images_last(maps).view(members, channels // members * height, width, batch)


def _split(columns: Tensor, stride: int) -> list[Tensor]:
    """The columns [k, K, W, B] by their remainder, [k, K, ceil(W / stride), B] each."""
    if stride == 1:
        return [columns]
    missing = -columns.shape[2] % stride
    whole = F.pad(columns, (0, 0, 0, missing)) if missing else columns
    return [whole[:, :, phase::stride].contiguous() for phase in range(stride)]


def _merge(phases: Sequence[Tensor], like: Tensor) -> Tensor:
    """Maps like those whose columns were split."""
    batch, channels, height, width = like.shape
    columns = phases[0] if len(phases) == 1 else torch.stack(tuple(phases), dim=3).flatten(2, 3)
    return columns[:, :, :width].reshape(channels, height, width, batch).permute(3, 0, 1, 2)


def _add_products(outputs: Tensor, products: Sequence[tuple[slice, Tensor, Tensor]]) -> None:
    """Writes sums of products, whatever there was before.

    Args:
        outputs: Shape [k, M, W', B].
        products: The columns that each writes, its matrices [k, M, K], and what they multiply, [k, K, W, B].
    """
    width = outputs.shape[2]
    # One that writes everything goes first: it needs no zeros to add to.
    order = sorted(products, key=lambda product: product[0].stop - product[0].start < width)
    fills = bool(order) and order[0][0].stop - order[0][0].start == width
    if not fills:
        outputs.zero_()
    for place, (written, matrix, operand) in enumerate(order):
        part = outputs[:, :, written].flatten(2)
        part.baddbmm_(matrix, operand.flatten(2), beta=0 if fills and place == 0 else 1)


class _BatchNorm(torch.autograd.Function):
    """Maps that lie with the images last, normalised by their own statistics; and these, without gradients.

    It is torch's with other sums: torch takes the mean and variance of long rows one number after another.
    """

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = as_rows(maps)[0]
        mean = rows.mean(dim=1)
        centred = rows - mean[:, None]
        variance = torch.linalg.vector_norm(centred, dim=1).square() / rows.shape[1]
        scale = (variance + eps).rsqrt()
        outputs = _empty(maps, *maps.shape[1:])
        written = as_rows(outputs)[0]
        torch.mul(centred, (weight * scale)[:, None], out=written)
        written += bias[:, None]
        ctx.save_for_backward(maps, weight, mean, scale)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return outputs, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        maps, weight, mean, scale = ctx.saved_tensors
        of_rows, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            as_rows(gradient), as_rows(maps), weight, None, None, mean, scale, True, ctx.eps, [True] * 3
        )
        batch, channels, height, width = maps.shape
        of_maps = of_rows.view(channels, height, width, batch).permute(3, 0, 1, 2)
        return of_maps, of_weight, of_bias, None
