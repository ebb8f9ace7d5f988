"""Tiny trees in ILSVRC's layout: small JPEG files of unlike sizes, whole and damaged."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n01440764", "n01443537", "n02084071")


def jpeg(seed: int, *, width: int, height: int, mode: str = "RGB", label: int = 0) -> bytes:
    """A JPEG file of coarse random blocks; one corner is the brighter the larger the label."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 160, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    pixels = np.kron(blocks, np.ones((8, 8, 1), dtype=np.uint8))[:height, :width]
    pixels[: height // 2, : width // 2] = 30 + 80 * label
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def file_name(part: str, wnid: str, number: int) -> str:
    """As the archives name their files."""
    return f"{wnid}_{number}.JPEG" if part == "train" else f"ILSVRC2012_val_{number:08d}.JPEG"


def make_tree(data_dir: Path, *, train: int = 30, val: int = 8) -> Path:
    """Makes a tree of three classes with so many images each below DIR/imagenet, which it returns."""
    root = data_dir / "imagenet"
    seed = 0
    for part, number in (("train", train), ("val", val)):
        for label, wnid in enumerate(WNIDS):
            folder = root / part / wnid
            folder.mkdir(parents=True)
            for _ in range(number):
                mode = {5: "L", 7: "CMYK"}.get(seed % 11, "RGB")  # ImageNet has some of these
                content = jpeg(seed, width=40 + seed % 17, height=36 + seed % 13, mode=mode, label=label)
                (folder / file_name(part, wnid, seed)).write_bytes(content)
                seed += 1
    return root


def damage(root: Path, *places: int) -> list[str]:
    """Damages training images in turn: cut short, emptied, or replaced by text; returns their names."""
    files = sorted((root / "train").glob("*/*.JPEG"))
    for turn, place in enumerate(places):
        content = files[place].read_bytes()
        files[place].write_bytes((content[: len(content) // 2], b"", b"<html>not found</html>")[turn % 3])
    return [files[place].relative_to(root / "train").as_posix() for place in places]
