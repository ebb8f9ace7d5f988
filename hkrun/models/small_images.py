"""Convolutions of a pack on small images, for CPUs, and what goes with their order of memory.

Activations lie with the images last, [k C, H, W, B]. Grouped convolutions of libraries work on vectors of
channels, and are far from what a processor can do where a member has few; those of `image_kernels` work on
vectors of images.

A member's numbers meet no other member's, so one that is NaN stays alone.
"""

import functools
import importlib
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from hkrun.models.layout import lay_gradient

if TYPE_CHECKING:
    from hkrun.models.compiling import Floats

logger = logging.getLogger("hkrun")

_DTYPES = (torch.float32, torch.float64)


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


@functools.cache
def _can_compile() -> bool:
    """Whether Numba is here and works with what else is; asked only where a kernel would be used."""
    try:
        importlib.import_module("hkrun.models.compiling")
    except (ImportError, OSError) as error:
        logger.warning("layers of packs are the library's, which take longer: Numba: %s", error)
        return False
    return True


def pays(maps: Tensor, weight: Tensor) -> bool:
    """Whether `convolve` is faster than a grouped convolution; it depends on the shapes alone.

    Args:
        maps: Shape [B, k C, H, W].
        weight: Shape [k, C', C, *kernel].
    """
    return are_small(maps.shape[2], weight.shape[2]) and compiles(maps)


def are_small(height: int, channels: int) -> bool:
    """Whether a convolution of images of so many rows, with so many input channels, is faster compiled."""
    return height <= 16 and channels <= (32 if height <= 4 else 8)  # measured: benchmarks/pack_forms.py


def compiles(maps: Tensor) -> bool:
    """Whether there are kernels for such numbers on their device."""
    if maps.device.type != "cpu" or torch.is_autocast_enabled("cpu") or maps.dtype not in _DTYPES:
        return False
    return _can_compile()


def images_last(maps: Tensor) -> Tensor:
    """Maps [B, C, H, W] as [C, H, W, B] in this order of memory; they may lie so already."""
    return maps.permute(1, 2, 3, 0).contiguous()


def new_maps(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """New maps [B, channels, height, width] that lie so.

    Not a view: a ReLU changes them in place, which costs autograd copies where it is one.
    """
    batch = len(like)
    strides = (1, height * width * batch, width * batch, batch)
    return like.new_empty_strided((batch, channels, height, width), strides)


def repeat_images(images: Tensor, members: int) -> Tensor:
    """The same images for each member, [B, C, H, W] -> [B, k C, H, W], as `convolve` reads them."""
    return images_last(images).repeat(members, 1, 1, 1).permute(3, 0, 1, 2)


def convolve(maps: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The convolution of each member's maps with its own weights.

    Args:
        maps: Shape [B, k C, H, W].
        weight: Shape [k, C', C, *kernel].
        geometry: The rest of the convolution.

    Returns:
        Shape [B, k C', H', W'], with the images last in memory.

    Raises:
        ValueError: Maps and weights do not fit: the kernels would read beside them.
    """
    if maps.shape[1] != weight.shape[0] * weight.shape[2] or maps.dtype != weight.dtype:
        found = f"maps of {list(maps.shape)} {maps.dtype}"
        raise ValueError(f"{found} do not fit weights of {list(weight.shape)} {weight.dtype}")
    if not torch.is_grad_enabled():
        return _convolve(maps, weight, geometry)
    outputs: Tensor = _Convolution.apply(maps, weight, geometry)
    return outputs


def lie_images_last(maps: Tensor) -> bool:
    """Whether maps [B, C, H, W] lie in memory as those that `convolve` gives."""
    return maps.device.type == "cpu" and maps.permute(1, 2, 3, 0).is_contiguous()


def pool(maps: Tensor) -> Tensor:
    """The mean over the positions of maps [B, C, H, W], shape [B, C], read in the order in which they lie."""
    if lie_images_last(maps):
        return lay_gradient(maps.permute(1, 2, 3, 0).mean(dim=(1, 2))).t().contiguous()
    return lay_gradient(maps).mean(dim=(2, 3))


def as_rows(maps: Tensor) -> Tensor:
    """Maps [B, C, H, W] with all of a channel in a row, [1, C, H W B]."""
    return images_last(maps).flatten(1)[None]


class _Convolution(torch.autograd.Function):
    """Maps [B, k C', H', W'] of maps [B, k C, H, W] and weights [k, C', C, *kernel].

    Linear in both, as are the two functions of its backward pass: the derivatives of each are the others.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.geometry = geometry
        return _convolve(maps, weight, geometry)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        maps, weight = ctx.saved_tensors
        of_maps = of_weight = None
        if ctx.needs_input_grad[0]:
            of_maps = _OfMaps.apply(gradient, weight, ctx.geometry, maps.shape)
        if ctx.needs_input_grad[1]:
            of_weight = _OfWeight.apply(maps, gradient, ctx.geometry, weight.shape)
        return of_maps, of_weight, None


class _OfMaps(torch.autograd.Function):
    """The gradient of maps of this shape, from that of the outputs, [B, k C', H', W'], and the weights."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, weight: Tensor, geometry: Geometry, shape: tuple[int, ...]
    ) -> Tensor:
        from hkrun.models import image_kernels

        ctx.save_for_backward(gradient, weight)
        ctx.geometry = geometry
        of_maps = new_maps(gradient, *shape[1:])
        image_kernels.convolve_back(
            as_lines(gradient, len(weight)),
            weight.detach().contiguous().numpy(),
            as_lines(of_maps, len(weight)),
            len(gradient),
            geometry.stride,
            geometry.padding,
        )
        return of_maps

    @staticmethod
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        gradient, weight = ctx.saved_tensors
        of_gradient = of_weight = None
        if ctx.needs_input_grad[0]:
            of_gradient = _Convolution.apply(along, weight, ctx.geometry)
        if ctx.needs_input_grad[1]:
            of_weight = _OfWeight.apply(along, gradient, ctx.geometry, weight.shape)
        return of_gradient, of_weight, None, None


class _OfWeight(torch.autograd.Function):
    """The gradient of weights of this shape, from the maps and the gradient of the outputs."""

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, gradient: Tensor, geometry: Geometry, shape: tuple[int, ...]
    ) -> Tensor:
        from hkrun.models import image_kernels

        ctx.save_for_backward(maps, gradient)
        ctx.geometry = geometry
        of_weight = maps.new_empty(shape)
        image_kernels.correlate(
            as_lines(maps, shape[0]),
            as_lines(gradient, shape[0]),
            of_weight.numpy(),
            len(maps),
            geometry.stride,
            geometry.padding,
        )
        return of_weight

    @staticmethod
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        maps, gradient = ctx.saved_tensors
        of_maps = of_gradient = None
        if ctx.needs_input_grad[0]:
            of_maps = _OfMaps.apply(gradient, along, ctx.geometry, maps.shape)
        if ctx.needs_input_grad[1]:
            of_gradient = _Convolution.apply(maps, along, ctx.geometry)
        return of_maps, of_gradient, None, None


def _convolve(maps: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """`convolve` of what fits, without a gradient."""
    from hkrun.models import image_kernels

    members, out_channels = weight.shape[:2]
    height, width = geometry.output_size((maps.shape[2], maps.shape[3]))
    outputs = new_maps(maps, members * out_channels, height, width)
    image_kernels.convolve(
        as_lines(maps, members),
        weight.detach().contiguous().numpy(),
        as_lines(outputs, members),
        len(maps),
        geometry.stride,
        geometry.padding,
    )
    return outputs


def as_lines(maps: Tensor, members: int) -> "Floats":
    """Maps [B, k C, H, W] as the kernels take them, [k, C, H, W B]; a view where the images lie last."""
    batch, channels, height, width = maps.shape
    lines: Floats = (
        images_last(maps.detach()).view(members, channels // members, height, width * batch).numpy()
    )
    return lines
