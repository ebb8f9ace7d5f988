"""Names of backbone networks, and the shapes they stand for. Pure data: `hkrun.models` builds them.

preact-D               pre-activation ResNet of basic blocks, D = 6n+2 (He et al. 2016b)
preact-D-wW            the same with stage widths W, 2W, 4W instead of 16, 32, 64
preact-bottleneck-D    pre-activation ResNet of bottleneck blocks, D = 9n+2, stage outputs 64, 128, 256
wrn-D-K                wide ResNet, D = 6n+4, stage widths 16K, 32K, 64K (Zagoruyko and Komodakis 2016)
"""

import re
from dataclasses import dataclass

from hkrun.errors import InputError

FORMS = "preact-D, preact-D-wW (D = 6n+2), preact-bottleneck-D (D = 9n+2), wrn-D-K (D = 6n+4)"
# Without leading zeros: one network has one name, and so one cell_id.
_NAME = re.compile(
    r"(?P<family>preact-bottleneck|preact|wrn)-(?P<depth>[1-9]\d{0,4})(-(?P<mark>w?)(?P<width>0|[1-9]\d{0,3}))?",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """What a network's name stands for.

    Attributes:
        block: "basic", "bottleneck" or "wide".
        blocks_per_stage: n of the depth formula.
        stem_width: Channels after the first convolution.
        widths: Output channels of each stage, first to last.
    """

    block: str
    blocks_per_stage: int
    stem_width: int
    widths: tuple[int, ...]


def parse_network(name: str) -> NetworkShape:
    """Reads a network's name.

    Raises:
        InputError: The name has none of the known forms, or a depth that its form cannot have.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(f"{name!r} is no network; the forms are {FORMS}")
    family, depth, mark = match["family"], int(match["depth"]), match["mark"]
    width = int(match["width"]) if match["width"] else None
    if (family == "wrn") != (width is not None and mark == "") or (
        family == "preact-bottleneck" and width is not None
    ):
        raise InputError(f"{name!r} is no network; the forms are {FORMS}")
    if width == 0:
        raise InputError(f"{name!r}: the width must be at least 1")
    step, rest = {"preact": (6, 2), "preact-bottleneck": (9, 2), "wrn": (6, 4)}[family]
    blocks, remainder = divmod(depth - rest, step)
    if remainder or blocks < 1:
        nearest = name.replace(match["depth"], str(step * max(1, round((depth - rest) / step)) + rest), 1)
        raise InputError(f"{name!r}: a {family} network has depth {step}n+{rest}; the nearest is {nearest!r}")
    if family == "preact-bottleneck":
        return NetworkShape(block="bottleneck", blocks_per_stage=blocks, stem_width=16, widths=(64, 128, 256))
    if family == "wrn":
        assert width is not None
        stage = tuple(16 * width * scale for scale in (1, 2, 4))
        return NetworkShape(block="wide", blocks_per_stage=blocks, stem_width=16, widths=stage)
    base = width or 16
    return NetworkShape(
        block="basic", blocks_per_stage=blocks, stem_width=base, widths=(base, 2 * base, 4 * base)
    )
