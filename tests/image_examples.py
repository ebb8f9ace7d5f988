"""Small image files of every kind, made chunk by chunk or by pypng; what Pillow would not write too."""

import io
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import png
from numpy.typing import NDArray
from PIL import Image

Samples = NDArray[np.int64]  # [H, W, C]


def random_samples(height: int, width: int, channels: int, *, depth: int = 8, seed: int = 0) -> Samples:
    """Random samples of so many bits."""
    return np.random.default_rng(seed).integers(2**depth, size=(height, width, channels))


def write_png(samples: Samples, **options: object) -> bytes:
    """A PNG file, by pypng: `bitdepth`, `alpha`, `interlace`, `palette`, `transparent`, `gamma`."""
    height, width, channels = samples.shape
    options.setdefault("greyscale", channels < 3 and "palette" not in options)
    options.setdefault("alpha", channels in (2, 4))
    buffer = io.BytesIO()
    writer = png.Writer(width=width, height=height, **options)
    rows = samples.reshape(height, -1).tolist()
    if options.get("interlace"):
        writer.write_array(buffer, [value for row in rows for value in row])
    else:
        writer.write(buffer, rows)
    return buffer.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk with its length and sum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_chunks(content: bytes, chunks: Mapping[bytes, bytes], *, before: bytes = b"IDAT") -> bytes:
    """A PNG file with further chunks before another."""
    place = content.index(before) - 4
    return content[:place] + b"".join(png_chunk(*chunk) for chunk in chunks.items()) + content[place:]


def with_segment(content: bytes, marker: int, data: bytes) -> bytes:
    """A JPEG file with a further segment at its beginning."""
    return content[:2] + b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data + content[2:]


def exif(orientation: int, *, order: str = "<", kind: int = 3) -> bytes:
    """A TIFF structure with a resolution unit and an orientation."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, 2)
    value = struct.pack(f"{order}HH", orientation, 0) if kind == 3 else struct.pack(f"{order}I", orientation)
    entries = struct.pack(f"{order}HHI", 0x0112, kind, 1) + value
    return start + entries + struct.pack(f"{order}HHIHH", 0x0128, 3, 1, 2, 0) + bytes(4)


def jpeg(pixels: NDArray[np.uint8], *, mode: str | None = None, **options: object) -> bytes:
    """A JPEG file, by Pillow: `quality`, `progressive`, `subsampling`."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels.squeeze())
    (image.convert(mode) if mode else image).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def smooth(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    """A picture without noise, each channel another."""
    rows, columns = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(rows / (3 + c) + 2 * c) * np.cos(columns / (5 - c)) for c in range(channels)]
    return np.stack(waves, axis=2).astype(np.uint8)


def lossless_jpeg(samples: NDArray[np.int64], *, depth: int = 8, marker: int = 0xC3) -> bytes:
    """A lossless grey JPEG file (ISO/IEC 10918-1, annex H): the predictor is the left neighbour."""
    height, width = samples.shape
    bits = ""
    for row in range(height):
        for column in range(width):
            if column:
                predicted = samples[row, column - 1]
            else:
                predicted = samples[row - 1, 0] if row else 2 ** (depth - 1)
            difference = int(samples[row, column] - predicted)
            category = abs(difference).bit_length()
            bits += f"{category:05b}"  # as the table below has it
            if category:
                coded = difference if difference > 0 else difference + 2**category - 1
                bits += f"{coded:0{category}b}"
    bits += "1" * (-len(bits) % 8)
    data = bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits), 8))
    content = b"\xff\xd8\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0)
    content += data.replace(b"\xff", b"\xff\0") + b"\xff\xd9"
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    content = with_segment(content, 0xC4, table)
    return with_segment(content, marker, struct.pack(">BHHB", depth, height, width, 1) + bytes([1, 0x11, 0]))


def animated_png(frames: Sequence[Samples], *, default_image: bool) -> bytes:
    """An animation; its first frame is the image that other readers see, or comes after that."""
    first, *others = [write_png(frame) for frame in frames]
    height, width, _ = frames[0].shape

    def control(number: int) -> bytes:
        return struct.pack(">IIIIIHHBB", number, width, height, 0, 0, 1, 10, 0, 0)

    chunks = {b"acTL": struct.pack(">II", len(frames) - default_image, 0)}
    number = 0
    if not default_image:
        chunks[b"fcTL"], number = control(0), 1
    content = with_chunks(first, chunks)
    for other in others:
        start = other.index(b"IDAT")
        (length,) = struct.unpack_from(">I", other, start - 4)
        data = struct.pack(">I", number + 1) + other[start + 4 : start + 4 + length]
        content = with_chunks(content, {b"fcTL": control(number), b"fdAT": data}, before=b"IEND")
        number += 2
    return content
