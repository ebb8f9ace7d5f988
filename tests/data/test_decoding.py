"""Which image files are read, and as which pixels: compared with pypng and OpenCV."""

import io
import struct
import warnings
from collections.abc import Callable

import cv2
import numpy as np
import png
import pytest
import torch
from image_examples import (
    animated_png,
    exif,
    jpeg,
    lossless_jpeg,
    png_chunk,
    random_samples,
    smooth,
    with_chunks,
    with_segment,
    write_png,
)
from numpy.typing import NDArray
from PIL import Image

from hkrun.data import decoding
from hkrun.data.decoding import decode, decode_rgb, is_turned
from hkrun.data.image_files import ImageError, read_orientation

GREY, RGB = random_samples(9, 7, 1), random_samples(9, 7, 3)
PALETTE = [tuple(colour) for colour in random_samples(1, 256, 3, seed=1)[0].tolist()]


def read(content: bytes) -> NDArray[np.uint8]:
    """What hkrun makes of a file, [H, W, C]; a warning of Pillow's is an error in tests."""
    return decode(content).permute(1, 2, 0).numpy()


def refusal(content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(content)
    return str(caught.value)


def by_pypng(content: bytes) -> NDArray[np.int64]:
    """Samples over 0 to 255, palettes resolved, [H, W, C]."""
    width, height, rows, info = png.Reader(bytes=content).read()
    samples = np.array([list(row) for row in rows]).reshape(height, width, -1)
    if "palette" in info:
        return np.array([colour[:3] for colour in info["palette"]])[samples[..., 0]]
    samples = samples * 255 // (2 ** info["bitdepth"] - 1)
    return samples[..., :-1] if info["alpha"] else samples


def by_opencv(content: bytes) -> NDArray[np.uint8]:
    """RGB, [H, W, 3], turned as the orientation tag says."""
    return cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)


# --- PNG ----------------------------------------------------------------------------------------------------

PNG_KINDS = [
    *[("grey", depth, {}) for depth in (1, 2, 4, 8)],
    *[("palette", depth, {}) for depth in (1, 2, 4, 8)],
    ("grey", 8, {"alpha": True}),
    ("RGB", 8, {}),
    ("RGB", 8, {"alpha": True}),
]


@pytest.mark.parametrize("interlace", [False, True], ids=["plain", "interlaced"])
@pytest.mark.parametrize(("colours", "depth", "options"), PNG_KINDS, ids=str)
@pytest.mark.parametrize(("height", "width"), [(9, 7), (1, 1), (3, 17)])
def test_png_pixels_are_those_of_independent_decoders(colours, depth, options, interlace, height, width):
    samples = random_samples(height, width, 3 if colours == "RGB" else 1, depth=depth)
    if options.get("alpha"):
        samples = np.concatenate((samples, np.full((height, width, 1), 255)), axis=2)
    if colours == "palette":
        options = {**options, "palette": PALETTE[: 2**depth]}
    content = write_png(samples, bitdepth=depth, interlace=interlace, **options)

    expected = by_pypng(content)
    np.testing.assert_array_equal(read(content), expected)
    np.testing.assert_array_equal(by_opencv(content), np.broadcast_to(expected, (height, width, 3)))


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_more_than_8_bits_a_channel_are_refused_whatever_they_hold(channels, interlace):
    samples = random_samples(9, 7, channels, depth=16) % 1000  # whose high bytes are 0 to 3
    content = write_png(samples, bitdepth=16, interlace=interlace)

    assert refusal(content) == "has 16 bits a channel; allowed are 8: convert it by a scale of your own"


OPAQUE_AND_NOT = {
    "grey and alpha": lambda alpha: write_png(np.concatenate((GREY, alpha), axis=2)),
    "RGB and alpha": lambda alpha: write_png(np.concatenate((RGB, alpha), axis=2)),
    # Entry 3 is transparent: every pixel that is not opaque gets it.
    "palette": lambda alpha: write_png(
        np.where(alpha == 255, GREY % 3, 3),
        palette=[(*colour, 255) for colour in PALETTE[:3]] + [(9, 9, 9, int(alpha.min()) // 2)],
    ),
    "grey key": lambda alpha: write_png(np.where(alpha == 255, GREY % 200, 250), transparent=250),
    "RGB key": lambda alpha: write_png(np.where(alpha == 255, RGB % 200, 250), transparent=(250, 250, 250)),
    **{
        f"grey key, {depth} bits": lambda alpha, depth=depth: write_png(
            np.where(alpha == 255, 2**depth - 1, 2**depth // 2 - 1),
            bitdepth=depth,
            transparent=2**depth // 2 - 1,
        )
        for depth in (1, 2, 4)
    },
}


@pytest.mark.parametrize("make", OPAQUE_AND_NOT.values(), ids=OPAQUE_AND_NOT)
def test_transparency_is_refused_where_it_shows_however_it_is_declared(make: Callable[[np.ndarray], bytes]):
    opaque = np.full((9, 7, 1), 255)
    nearly = opaque.copy()
    nearly[8, 6] = 254

    np.testing.assert_array_equal(read(make(opaque)), by_pypng_without_alpha(make(opaque)))
    assert (
        refusal(make(nearly)) == "has transparent pixels; allowed are opaque ones: lay it over a background"
    )
    *_, rows, _ = png.Reader(bytes=make(nearly)).asRGBA8()
    alpha = np.array([list(row)[3::4] for row in rows])
    assert alpha[8, 6] < 255  # pypng agrees
    assert (alpha == 255).sum() == 62


def by_pypng_without_alpha(content: bytes) -> NDArray[np.int64]:
    """As `by_pypng`, of a file that declares a transparent value."""
    width, height, rows, info = png.Reader(bytes=content).read()
    if "palette" in info or info["alpha"]:
        return by_pypng(content)
    return (
        np.array([list(row) for row in rows]).reshape(height, width, -1) * 255 // (2 ** info["bitdepth"] - 1)
    )


def test_a_key_of_one_channel_alone_is_not_transparent():
    samples = np.full((4, 4, 3), 7)
    samples[..., 2] = 8
    assert (read(write_png(samples, transparent=(7, 7, 7))) == samples).all()


@pytest.mark.parametrize(
    "chunks",
    [
        {b"gAMA": struct.pack(">I", 220000)},
        {b"sRGB": b"\0", b"cHRM": bytes(32)},
        {b"cICP": bytes([9, 16, 0, 1])},
        {b"iCCP": b"profile\0\0no profile"},
        {b"bKGD": bytes(6), b"pHYs": struct.pack(">IIB", 1, 9, 1)},
        {b"tEXt": b"Comment\0" + bytes(2000)},
        {b"zTXt": b"Comment\0\0no zlib"},
        {b"acTL": bytes(8)},  # an animation without frames, of which Pillow warns
        {b"eXIf": b"no TIFF"},
        {b"PLTE": bytes(range(30))},  # which colours to choose where few can be shown
    ],
    ids=lambda chunks: "+".join(name.decode() for name in chunks),
)
def test_what_describes_a_png_changes_no_pixel(chunks):
    np.testing.assert_array_equal(read(with_chunks(write_png(RGB), chunks)), RGB)


@pytest.mark.parametrize("default_image", [False, True])
def test_of_an_animation_the_image_that_every_reader_sees_is_read(default_image):
    frames = [random_samples(9, 7, 3, seed=seed) for seed in range(3)]
    content = animated_png(frames, default_image=default_image)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 3
    np.testing.assert_array_equal(read(content), frames[0])
    np.testing.assert_array_equal(by_pypng(content), frames[0])


# --- JPEG ---------------------------------------------------------------------------------------------------

PICTURE = smooth(37, 43)

JPEG_KINDS = {
    "RGB": jpeg(PICTURE, quality=90),
    "4:4:4": jpeg(PICTURE, quality=90, subsampling=0),
    "progressive": jpeg(PICTURE, quality=90, progressive=True),
    "restarts": jpeg(PICTURE, quality=90, restart_marker_blocks=2),
    "grey": jpeg(PICTURE[..., :1], quality=90),
    "stored as RGB": jpeg(PICTURE, quality=90, keep_rgb=True),
    "16-bit tables": jpeg(PICTURE, quality=1),
}


@pytest.mark.parametrize("content", JPEG_KINDS.values(), ids=JPEG_KINDS)
def test_jpeg_pixels_are_those_of_an_independent_decoder(content):
    seen, expected = decode_rgb(content).permute(1, 2, 0).numpy().astype(int), by_opencv(content).astype(int)
    assert np.abs(seen - expected).max() <= 1  # what two versions of libjpeg may differ by
    assert np.abs(seen - expected).mean() < 0.1


def test_grey_images_have_one_channel_in_a_folder_and_three_equal_ones_in_a_stream():
    content = jpeg(PICTURE[..., :1])
    assert decode(content).shape == (1, 37, 43)
    assert torch.equal(decode_rgb(content), decode(content).expand(3, -1, -1))


@pytest.mark.parametrize("mode", ["CMYK", "YCCK"])
def test_adobe_s_four_channels_become_rgb(mode):
    ink = np.concatenate((255 - PICTURE, np.full((37, 43, 1), 40, dtype=np.uint8)), axis=2)
    content = four_channels(ink, mode)
    light = 255 - 40
    expected = light - (255 - PICTURE.astype(int)) * light / 255
    assert np.abs(read(content) - expected).max() < 12
    assert np.abs(read(content) - expected).mean() < 2


def four_channels(ink: NDArray[np.uint8], mode: str) -> bytes:
    """A JPEG file of cyan, magenta, yellow and black, inverted as Adobe stores them."""
    if mode == "CMYK":
        buffer = io.BytesIO()
        Image.fromarray(ink, "CMYK").save(buffer, "JPEG", quality=95)
        return buffer.getvalue()
    # YCbCr of what is stored inverted twice: by Adobe, and by the definition of YCCK.
    ycc = np.array(Image.fromarray(ink[..., :3]).convert("YCbCr"))
    return four_channels(np.concatenate((255 - ycc, ink[..., 3:]), axis=2), "CMYK").replace(
        b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2"
    )


def test_four_channels_that_nothing_explains_are_refused():
    content = jpeg(PICTURE, mode="CMYK")
    start = content.index(b"\xff\xeeadobe".replace(b"adobe", b"\0\x0eAdobe"))
    assert refusal(content[:start] + content[start + 16 :]) == (
        "has four channels, and no Adobe segment says what they mean; convert it to RGB"
    )


def test_a_lossless_jpeg_of_8_bits_is_read_and_one_of_12_is_refused():
    np.testing.assert_array_equal(read(lossless_jpeg(GREY[..., 0])), GREY)
    assert refusal(lossless_jpeg(GREY[..., 0] * 16, depth=12)).startswith("has 12 bits a channel")


@pytest.mark.parametrize("marker", [0xC5, 0xC7, 0xCB, 0xCF])
def test_a_jpeg_that_is_coded_as_none_is_read_is_refused_by_its_kind(marker):
    content = lossless_jpeg(GREY[..., 0], marker=marker)
    assert refusal(content) == f"is a JPEG file of a kind that is not read (SOF{marker - 0xC0})"


@pytest.mark.parametrize(
    ("marker", "data"),
    [
        (0xE1, b"Exif\0\0" + exif(1)[:20]),
        (0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff"),
        (0xE1, b"Exif\0\0"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>tiff:Orientation='6'</x:xmpmeta>"),
        (0xE2, b"MPF\0" + bytes(30)),  # further pictures, of which Pillow would warn
        (0xE2, b"ICC_PROFILE\0\1\1" + bytes(40)),
        (0xED, b"Photoshop 3.0\x008BIM" + bytes(9)),
        (0xFE, b"a comment"),
    ],
)
def test_what_describes_a_jpeg_changes_no_pixel(marker, data):
    content = jpeg(PICTURE, quality=90)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read(with_segment(content, marker, data)), read(content))


def test_padding_between_segments_is_passed_over():
    content = jpeg(PICTURE, quality=90)
    padded = content[:2] + b"\xff\xff\xff" + content[2:20] + b"\0\0" + content[20:]
    np.testing.assert_array_equal(read(padded), read(content))


# --- orientation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"], ids=["Intel", "Motorola"])
@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("side", [9, 7])
def test_images_are_turned_as_their_orientation_tag_says(side, orientation, order):
    samples = random_samples(9, side, 3)
    tag = exif(orientation, order=order)
    for content in (
        with_chunks(write_png(samples), {b"eXIf": tag}),
        with_chunks(write_png(samples), {b"eXIf": tag}, before=b"IEND"),
        with_segment(jpeg(samples.astype(np.uint8), subsampling=0), 0xE1, b"Exif\0\0" + tag),
    ):
        expected = by_opencv(content)
        assert expected.shape == ((side, 9, 3) if 5 <= orientation <= 8 else (9, side, 3))
        assert np.abs(read(content).astype(int) - expected).max() <= 1
        assert is_turned(content) == (2 <= orientation <= 8)
    assert read_orientation(tag) == (orientation if 1 <= orientation <= 8 else 1)


def test_what_is_no_orientation_turns_nothing():
    assert read_orientation(exif(6, kind=2)) == 1
    assert all(read_orientation(exif(6)[:length]) in (1, 6) for length in range(40))
    assert not is_turned(b"no image")


# --- damage, other formats, bombs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [write_png(RGB), write_png(GREY, interlace=True), jpeg(PICTURE), jpeg(PICTURE, progressive=True)],
    ids=["PNG", "interlaced PNG", "JPEG", "progressive JPEG"],
)
def test_a_file_that_is_cut_short_anywhere_is_refused(content):
    end = len(content) - (12 if content.startswith(b"\x89PNG") else 0)  # the end mark costs no pixel
    whole = read(content)
    for length in [*range(1, end, 7), end - 1]:
        assert refusal(content[:length]) in ("is damaged or cut short", "is no PNG or JPEG file")
    np.testing.assert_array_equal(read(content[:end]), whole)


def test_every_changed_bit_of_a_png_s_pixels_is_seen():
    content = write_png(RGB, compression=0)
    first, last = content.index(b"IHDR"), content.index(b"IEND") - 8
    for place in range(first, last, 5):
        changed = bytearray(content)
        changed[place] ^= 0x10
        assert refusal(bytes(changed)) == "is damaged or cut short"


@pytest.mark.parametrize(
    ("header", "chunks"),
    [
        ((7, 9, 3, 2, 0, 0, 0), {}),  # no depth of RGB
        ((7, 9, 16, 3, 0, 0, 0), {}),
        ((7, 9, 8, 5, 0, 0, 0), {}),  # no colour type
        ((7, 9, 8, 2, 1, 0, 0), {}),
        ((7, 9, 8, 2, 0, 1, 0), {}),
        ((7, 9, 8, 2, 0, 0, 2), {}),
        ((0, 9, 8, 2, 0, 0, 0), {}),
        ((7, 0, 8, 2, 0, 0, 0), {}),
        ((7, 9, 8, 3, 0, 0, 0), {}),  # no palette
        ((7, 9, 8, 3, 0, 0, 0), {b"PLTE": bytes(4)}),
        ((7, 9, 8, 3, 0, 0, 0), {b"PLTE": bytes(9)}),  # which the pixels exceed
        ((7, 9, 8, 2, 0, 0, 0), {b"tRNS": bytes(5)}),
        ((7, 9, 8, 2, 0, 0, 0), {b"IHDR": struct.pack(">IIBBBBB", 7, 9, 8, 2, 0, 0, 0)}),
    ],
)
def test_a_png_that_says_what_none_may_is_refused(header, chunks):
    content = write_png(RGB)
    content = content.replace(content[8:33], png_chunk(b"IHDR", struct.pack(">IIBBBBB", *header)))
    assert refusal(with_chunks(content, chunks)) == "is damaged or cut short"


def test_a_palette_comes_once_and_before_the_pixels():
    content = write_png(random_samples(2, 2, 1, depth=1), bitdepth=1, palette=[(1, 2, 3), (4, 5, 6)])
    assert decode(content).shape == (3, 2, 2)
    assert refusal(with_chunks(content, {b"PLTE": bytes(6)})) == "is damaged or cut short"
    assert refusal(with_chunks(write_png(RGB), {b"PLTE": bytes(6)}, before=b"IEND")) == (
        "is damaged or cut short"
    )


@pytest.mark.parametrize("before", [b"IHDR", b"IDAT", b"IEND"])
def test_a_chunk_that_pixels_may_depend_on_and_nobody_knows_is_refused_by_name(before):
    content = with_chunks(write_png(RGB), {b"CgBI": bytes(4)}, before=before)  # Apple's, whose pixels differ
    assert refusal(content) == "has a PNG chunk CgBI that none may pass over; write it anew"


def test_the_content_says_the_format_and_others_are_named():
    assert refusal(b"") == "is empty, or gone"
    assert refusal(b"<html>not found</html>") == "is no PNG or JPEG file"
    for name, known in (
        ("GIF", "GIF"),
        ("WEBP", "WebP"),
        ("BMP", "BMP"),
        ("TIFF", "TIFF"),
        ("JPEG2000", "JPEG 2000"),
    ):
        buffer = io.BytesIO()
        Image.fromarray(PICTURE).save(buffer, name)
        assert refusal(buffer.getvalue()) == f"is a {known} file; PNG and JPEG are read"


def test_an_image_beyond_the_limit_is_refused_before_it_is_decoded(monkeypatch):
    content = write_png(RGB)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 63)
    read(content)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 62)
    assert refusal(content) == "has 7 x 9 pixels; allowed are 62"
    header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    huge = content.replace(content[8:33], png_chunk(b"IHDR", header))
    monkeypatch.undo()
    assert refusal(huge) == "has 2147483647 x 2147483647 pixels; allowed are 178,956,970"


def test_a_large_image_within_the_limit_is_read_without_a_warning(monkeypatch):
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 10
    )  # from where on Pillow warns, and refuses at twice as many
    np.testing.assert_array_equal(read(write_png(RGB)), RGB)
