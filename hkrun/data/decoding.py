"""From the bytes of an image file to its pixels: one rule for `folder`, `imagenet`, shards and `data verify`.

Read are 8 bits a channel and opaque pixels, upright; docs/image-files.md has the rule as a table. What would
lose something without a word is refused with its reason: the user decides what it should become.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hkrun.data import image_files
from hkrun.data.image_files import CUT_SHORT, ImageError, JpegFile, PngFile, read_jpeg, read_png

if TYPE_CHECKING:
    from PIL import ImageFile

Pixels = NDArray[np.uint8]  # [H, W, C]

# What Pillow opens by default, so that a small file cannot fill the memory.
MAX_PIXELS = 178_956_970

# What other formats begin with, for a reason that helps: offset, bytes, name.
_OTHER_FORMATS = (
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftyp", "HEIF or AVIF"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
)

# By orientation of Exif: whether rows and columns change places; which axes of [C, H, W] are mirrored then.
_TURNS: dict[int, tuple[bool, list[int]]] = {
    2: (False, [2]),
    3: (False, [1, 2]),
    4: (False, [1]),
    5: (True, []),
    6: (True, [2]),
    7: (True, [1, 2]),
    8: (True, [1]),
}


def decode(content: bytes) -> Tensor:
    """Decodes a PNG or JPEG file, whatever its name, with Pillow: torchvision will remove its own decoders.

    Returns:
        uint8, shape [1, H, W] of a grey image, else [3, H, W]; turned as its orientation tag says.

    Raises:
        ImageError: It is damaged, or holds what the rule refuses. Wrong bits within a JPEG file of the right
            length show as wrong pixels, which nothing notices.
    """
    file = _read(content)
    if not file.width or not file.height:
        raise ImageError(CUT_SHORT)
    if file.width * file.height > MAX_PIXELS:
        raise ImageError(f"has {file.width} x {file.height} pixels; allowed are {MAX_PIXELS:,}")
    if file.depth > 8:
        raise ImageError(f"has {file.depth} bits a channel; allowed are 8: convert it by a scale of your own")
    pixels = _decode_png(file) if isinstance(file, PngFile) else _decode_jpeg(file)
    # Not made contiguous: torchvision resizes both layouts, and what it has seen so far was this one.
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    if file.orientation in _TURNS:
        transposed, mirrored = _TURNS[file.orientation]
        image = (image.transpose(1, 2) if transposed else image).flip(mirrored)
    return image


def decode_rgb(content: bytes) -> Tensor:
    """Decodes as `decode` does; a grey image gets three equal channels: uint8, shape [3, H, W]."""
    image = decode(content)
    if image.shape[0] == 3:
        return image
    return image.permute(1, 2, 0).repeat(1, 1, 3).permute(2, 0, 1)


def is_turned(content: bytes) -> bool:
    """Whether an image has an orientation tag by which `decode` turns it; False where it cannot be read."""
    try:
        return _read(content).orientation in _TURNS
    except ImageError:
        return False


def _read(content: bytes) -> PngFile | JpegFile:
    if content.startswith(image_files.PNG_SIGNATURE):
        return read_png(content)
    if content.startswith(image_files.JPEG_SIGNATURE):
        return read_jpeg(content)
    if not content:
        raise ImageError("is empty, or gone")
    for offset, signature, name in _OTHER_FORMATS:
        if content.startswith(signature, offset):
            raise ImageError(f"is a {name} file; PNG and JPEG are read")
    raise ImageError("is no PNG or JPEG file")


def _decode_png(file: PngFile) -> Pixels:
    from PIL.PngImagePlugin import PngImageFile

    with _opened(PngImageFile, file.essence) as image:
        # One bit of grey is a mode of its own in Pillow. Of a palette's image, the array has the indices.
        pixels = np.array(image.convert("L") if file.colour_type == image_files.GREY else image)
    pixels = pixels.reshape(file.height, file.width, -1)
    if file.colour_type == image_files.PALETTE:
        colours = np.frombuffer(file.palette, dtype=np.uint8).reshape(-1, 3)
        indices = pixels[..., 0]
        if indices.max() >= len(colours):
            raise ImageError(CUT_SHORT)
        pixels, opaque = colours[indices], _is_opaque_palette(indices, file)
    elif file.colour_type in (image_files.GREY_ALPHA, image_files.RGB_ALPHA):
        pixels, opaque = pixels[..., :-1], bool((pixels[..., -1] == 255).all())
    else:
        opaque = _lacks_key(pixels, file)
    if not opaque:
        raise ImageError("has transparent pixels; allowed are opaque ones: lay it over a background")
    return pixels


def _is_opaque_palette(indices: NDArray[np.uint8], file: PngFile) -> bool:
    """Whether no pixel has a transparent colour of the palette."""
    alpha = np.full(256, 255, dtype=np.uint8)
    declared = np.frombuffer((file.transparency or b"")[:256], dtype=np.uint8)
    alpha[: len(declared)] = declared
    return bool((alpha[indices] == 255).all())


def _lacks_key(pixels: Pixels, file: PngFile) -> bool:
    """Whether no pixel has the one value that a grey or colour image declares transparent."""
    if file.transparency is None:
        return True
    if len(file.transparency) != 2 * pixels.shape[2]:
        raise ImageError(CUT_SHORT)
    # Declared as samples of the file's depth, which decoding spreads over 0 to 255.
    key = np.frombuffer(file.transparency, dtype=">u2").astype(np.int64) * (255 // (2**file.depth - 1))
    return not bool((pixels == key).all(axis=2).any())


def _decode_jpeg(file: JpegFile) -> Pixels:
    if file.num_channels == 4 and not file.by_adobe:
        raise ImageError("has four channels, and no Adobe segment says what they mean; convert it to RGB")
    from PIL.JpegImagePlugin import JpegImageFile

    with _opened(JpegImageFile, file.essence) as image:
        pixels = np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    return pixels.reshape(file.height, file.width, -1)


@contextlib.contextmanager
def _opened(kind: "type[ImageFile.ImageFile]", content: bytes) -> "Iterator[ImageFile.ImageFile]":
    """An image as Pillow reads it; `Image.open` would warn of large ones."""
    try:
        with kind(io.BytesIO(content)) as image:
            image.load()
            yield image
    # What Pillow raises for damaged PNG and JPEG files, found by damaging some at random.
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(CUT_SHORT) from error
