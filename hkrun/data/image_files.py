"""What the structure of a PNG or JPEG file says of its pixels, before any are decoded.

Both readers also give the file without what pixels do not depend on: text, profiles, thumbnails, further
frames. A decoder that gets only that cannot fail for the rest, warn of it, or take another picture for it.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

CUT_SHORT = "is damaged or cut short"

# PNG's colour types, and the bits a channel that each may have (ISO/IEC 15948, table 11.1).
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_DEPTHS = {
    GREY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    RGB_ALPHA: (8, 16),
}
_PNG_DECODED = (b"IHDR", b"PLTE", b"IDAT")
_PNG_END = b"\0\0\0\0IEND" + zlib.crc32(b"IEND").to_bytes(4, "big")

# JPEG's markers (ISO/IEC 10918-1, table B.1).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Neither hierarchical nor lossless and arithmetic.
_DECODED_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA))
_WITHOUT_LENGTH = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))
_END, _SCAN, _EXIF, _ADOBE, _COMMENT = 0xD9, 0xDA, 0xE1, 0xEE, 0xFE
# APP0 (JFIF) and APP14 (Adobe) say what the channels mean; the other segments for applications are left out.
_LEFT_OUT = frozenset((*range(0xE1, 0xEE), 0xEF, _COMMENT))

_ORIENTATION = 0x0112  # a tag of Exif
_SHORT = 3  # a type of TIFF


class ImageError(Exception):
    """An image cannot be used; the message says what it is or has, to follow its name."""


@dataclass(frozen=True, kw_only=True)
class PngFile:
    """A PNG file; width and height in pixels.

    Attributes:
        depth: Bits a channel, or of an index into the palette.
        colour_type: One of those above.
        palette: Red, green and blue of each entry.
        transparency: What the tRNS chunk holds; None where there is none.
        orientation: 1 to 8, as Exif has it.
        essence: The file with nothing but header, palette and pixels.
    """

    width: int
    height: int
    depth: int
    colour_type: int
    palette: bytes
    transparency: bytes | None
    orientation: int
    essence: bytes


@dataclass(frozen=True, kw_only=True)
class JpegFile:
    """A JPEG file; width and height in pixels, depth in bits a channel.

    Attributes:
        by_adobe: Whether Adobe's segment says what they mean.
        orientation: 1 to 8, as Exif has it.
        essence: The file without comments, profiles and the like.
    """

    width: int
    height: int
    depth: int
    num_channels: int
    by_adobe: bool
    orientation: int
    essence: bytes


def read_png(content: bytes) -> PngFile:
    """Reads the chunks of a PNG file, of which those that pixels depend on must have the right sum.

    Raises:
        ImageError: They are damaged, or say what PNG does not allow.
    """
    palette, transparency, orientation = b"", None, 1
    kept = [PNG_SIGNATURE]
    header = b""
    for name, data, chunk in _chunks(content):
        if _is_critical(name) and name not in _PNG_DECODED:
            raise ImageError(f"has a PNG chunk {name.decode('ascii')} that none may pass over; write it anew")
        if (name == b"IHDR") == bool(header):  # it comes once, and first
            raise ImageError(CUT_SHORT)
        if name == b"PLTE" and (palette or kept[-1][4:8] == b"IDAT"):  # it comes once, and before the pixels
            raise ImageError(CUT_SHORT)
        if name in _PNG_DECODED:
            kept.append(chunk)
        if name == b"IHDR":
            header = data
        elif name == b"PLTE":
            palette = data
        elif name == b"tRNS":
            transparency = data
        elif name == b"eXIf":
            orientation = read_orientation(data)
    if len(header) != 13:
        raise ImageError(CUT_SHORT)
    width, height, depth, colour_type, compression, filtering, interlace = struct.unpack(">IIBBBBB", header)
    known = (
        depth in _DEPTHS.get(colour_type, ()) and (compression, filtering) == (0, 0) and interlace in (0, 1)
    )
    if not known or (colour_type == PALETTE and (not palette or len(palette) % 3)):
        raise ImageError(CUT_SHORT)
    return PngFile(
        width=width,
        height=height,
        depth=depth,
        colour_type=colour_type,
        palette=palette,
        transparency=transparency,
        orientation=orientation,
        essence=b"".join((*kept, _PNG_END)),
    )


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Name, data and the whole of each chunk; the end may be missing, which costs no pixel."""
    start = len(PNG_SIGNATURE)
    while start + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, start)
        end = start + 12 + length
        chunk = content[start:end]
        if name == b"IEND":
            return
        whole = end <= len(content) and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if not whole and (name == b"tRNS" or _is_critical(name)):
            raise ImageError(CUT_SHORT)
        yield name, chunk[8 : 8 + length], chunk
        start = end


def _is_critical(name: bytes) -> bool:
    """Whether the pixels may depend on a chunk (ISO/IEC 15948, 5.4): a capital letter begins its name."""
    return name.isalpha() and name[:1].isupper()


def read_jpeg(content: bytes) -> JpegFile:
    """Reads the segments of a JPEG file up to its first scan. Padding between them is passed over.

    Raises:
        ImageError: They are damaged, there is no picture, or it is compressed in a way that nothing decodes.
    """
    frame, by_adobe, orientation = b"", False, None
    kept = [JPEG_SIGNATURE[:2]]
    for marker, data, segment in _segments(content):
        if marker not in _LEFT_OUT:
            kept.append(segment)
        if marker in _FRAMES - _DECODED_FRAMES:
            raise ImageError(f"is a JPEG file of a kind that is not read (SOF{marker - 0xC0})")
        if marker in _DECODED_FRAMES:
            frame = data
        elif marker == _ADOBE and data.startswith(b"Adobe"):
            by_adobe = True
        elif marker == _EXIF and data.startswith(b"Exif\0\0") and orientation is None:
            orientation = read_orientation(data)
    if len(frame) < 6:
        raise ImageError(CUT_SHORT)
    depth, height, width, num_channels = struct.unpack_from(">BHHB", frame)
    return JpegFile(
        width=width,
        height=height,
        depth=depth,
        num_channels=num_channels,
        by_adobe=by_adobe,
        orientation=orientation or 1,
        essence=b"".join(kept),
    )


def _segments(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Marker, data and the whole of each segment; that of the first scan reaches to the end of the file."""
    position = len(JPEG_SIGNATURE) - 1
    while (position := content.find(b"\xff", position)) >= 0:
        while content[position : position + 1] == b"\xff":
            position += 1
        marker = content[position : position + 1]
        position += 1
        if not marker or marker[0] == _END:
            break
        if marker[0] in _WITHOUT_LENGTH:
            continue
        end = position + int.from_bytes(content[position : position + 2], "big")
        if not position + 2 <= end <= len(content):
            break
        last = marker[0] == _SCAN
        yield (
            marker[0],
            content[position + 2 : end],
            b"\xff" + marker + content[position : None if last else end],
        )
        if last:
            return
        position = end
    raise ImageError(CUT_SHORT)


def read_orientation(exif: bytes) -> int:
    """How an image must be turned to be seen upright: the tag of Exif 2.32, 4.6.4.

    The TIFF structure may stand behind the name of JPEG's segment. From 1 to 8; 1, which is upright, also
    where there is none, or what is there cannot be read.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (num_entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(num_entries):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * entry)
            if (tag, kind) == (_ORIENTATION, _SHORT):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass  # cut short
    return 1
