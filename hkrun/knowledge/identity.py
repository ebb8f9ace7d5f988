"""What decides the bits of a teacher table: two tables of one id hold the same."""

import hashlib
import json
from collections.abc import Mapping

from torch import Tensor

from hkrun.digests import short_digest

FORMAT = 1  # of the rows


def describe_table(part: str, **known: object) -> dict[str, object]:
    """All that decides a table's content, by name.

    Args:
        part: What of the teacher's output it holds.
        known: The teacher, the images, their views, the arithmetic and where it was done.
    """
    return {"format": FORMAT, "part": part, **known}


def table_id(description: Mapping[str, object]) -> str:
    """The first 12 hex digits of the SHA-256 of a description."""
    return short_digest(json.dumps(description, sort_keys=True, separators=(",", ":")))


def hash_images(images: Tensor, mean: Tensor, std: Tensor) -> str:
    """SHA-256 in hex of images, uint8 [N, C, H, W], and of what they are normalised with."""
    digest = hashlib.sha256(str(tuple(images.shape)).encode())
    for tensor in (images, mean, std):
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
