"""Names of backbone networks, and the shapes they stand for. Pure data: `hkrun.models` builds them.

preact-D               pre-activation ResNet of basic blocks, D = 6n+2 (He et al. 2016b)
preact-D-wW            the same with stage widths W, 2W, 4W instead of 16, 32, 64
preact-bottleneck-D    pre-activation ResNet of bottleneck blocks, D = 9n+2, stage outputs 64, 128, 256
wrn-D-K                wide ResNet, D = 6n+4, stage widths 16K, 32K, 64K (Zagoruyko and Komodakis 2016)
resnet20, resnet8x4 .. the tables' networks for CIFAR, as CRD's public code has them, see CIFAR_NETWORKS
resnet-18, -50, -152   the ResNets of ImageNet (He et al. 2016a) with four stages, as torchvision builds them
torchvision:NAME       a network of torchvision's by its name there, such as torchvision:mobilenet_v2
timm:NAME              one of timm's (extra `timm`), such as timm:regnetx_002
package.module:name    a network of the user's own, see docs/own-parts.md
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hkrun.errors import InputError
from hkrun.user_parts import is_own, library_of, load_part, read_shape

# Images per forward pass of an evaluation. On a CPU the activations should stay in the cache (on digits, 256
# images at a time take half as long as all 1,107 at once); a GPU wants many.
EVALUATION_BATCH: Mapping[str, int] = {"cpu": 256, "cuda": 2048}

# Without leading zeros: one network has one name, and so one cell_id.
_NAME = re.compile(
    r"(?P<family>preact-bottleneck|preact|wrn)-(?P<depth>[1-9]\d{0,4})(-(?P<mark>w?)(?P<width>0|[1-9]\d{0,3}))?",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """What a network's name stands for.

    Attributes:
        block: "basic", "bottleneck" or "wide"; one of ImageNet's: "resnet-basic" or "resnet-bottleneck"; one
            of CIFAR_NETWORKS': "cifar-" and the family; or "own" for those that are not built in.
        blocks: Number of blocks of each stage, first to last, of VGG its convolutions; empty for an own
            network.
        stem_width: Channels after the first convolution.
        widths: Output channels of each stage, first to last.
    """

    block: str
    blocks: tuple[int, ...]
    stem_width: int
    widths: tuple[int, ...]


IMAGENET_NETWORKS: Mapping[str, NetworkShape] = MappingProxyType(
    {
        "resnet-18": NetworkShape(
            block="resnet-basic", blocks=(2, 2, 2, 2), stem_width=64, widths=(64, 128, 256, 512)
        ),
        "resnet-50": NetworkShape(
            block="resnet-bottleneck", blocks=(3, 4, 6, 3), stem_width=64, widths=(256, 512, 1024, 2048)
        ),
        "resnet-152": NetworkShape(
            block="resnet-bottleneck", blocks=(3, 8, 36, 3), stem_width=64, widths=(256, 512, 1024, 2048)
        ),
    }
)


def _cifar_resnet(depth: int, *, stem_width: int, width: int) -> NetworkShape:
    return NetworkShape(
        block="cifar-resnet",
        blocks=((depth - 2) // 6,) * 3,
        stem_width=stem_width,
        widths=(width, 2 * width, 4 * width),
    )


# The pairs of CRD's tables (Tian et al. 2020), which most papers since then report. Their wide ResNets are
# wrn-40-2, wrn-40-1 and wrn-16-2. resnet20 and its like are He et al.'s (2016a), with 1x1 projections.
CIFAR_NETWORKS: Mapping[str, NetworkShape] = MappingProxyType(
    {
        **{f"resnet{depth}": _cifar_resnet(depth, stem_width=16, width=16) for depth in (20, 32, 56, 110)},
        **{f"resnet{depth}x4": _cifar_resnet(depth, stem_width=32, width=64) for depth in (8, 32)},
        "vgg8": NetworkShape(
            block="cifar-vgg", blocks=(1, 1, 1, 1), stem_width=64, widths=(128, 256, 512, 512)
        ),
        "vgg13": NetworkShape(
            block="cifar-vgg", blocks=(2, 2, 2, 2), stem_width=64, widths=(128, 256, 512, 512)
        ),
        "mobilenetv2-half": NetworkShape(
            block="cifar-mobilenet", blocks=(3, 3, 7, 4), stem_width=16, widths=(12, 16, 48, 1280)
        ),
        "shufflenetv1": NetworkShape(
            block="cifar-shuffle-v1", blocks=(4, 8, 4), stem_width=24, widths=(240, 480, 960)
        ),
        "shufflenetv2": NetworkShape(
            block="cifar-shuffle-v2", blocks=(4, 8, 4), stem_width=24, widths=(116, 232, 1024)
        ),
    }
)
NAME_FORMS = (
    "preact-D, preact-D-wW (D = 6n+2), preact-bottleneck-D (D = 9n+2), wrn-D-K (D = 6n+4), "
    f"{', '.join([*CIFAR_NETWORKS, *IMAGENET_NETWORKS])}, torchvision:NAME, timm:NAME, "
    "package.module:name (your own)"
)
# What these do to their channels keeps no pack's members apart.
SHUFFLING = frozenset({"shufflenetv1", "shufflenetv2"})

# What "torchvision" as a teacher.file or student.file stands for: its IMAGENET1K_V1 weights, those of the
# paper's time. The name of each file holds the first eight hex digits of its SHA-256.
FROM_TORCHVISION = "torchvision"
PRETRAINED_FILES: Mapping[str, str] = MappingProxyType(
    {
        "resnet-18": "resnet18-f37072fd.pth",
        "resnet-50": "resnet50-0676ba61.pth",
        "resnet-152": "resnet152-394f9c45.pth",
    }
)


def pretrained_file(network: str) -> str:
    """The name of torchvision's file of ImageNet weights for a network; empty where it has none.

    Raises:
        InputError: There is no such network of torchvision's.
    """
    if library_of(network) == "torchvision":
        return str(load_part(network).weights_file)  # type: ignore[attr-defined]
    return PRETRAINED_FILES.get(network, "")


def parse_network(name: str) -> NetworkShape:
    """Reads a network's name.

    Raises:
        InputError: The name has none of the known forms, or a depth that its form cannot have; or an own
            network is not there.
    """
    if is_own(name):
        own = read_shape(name)
        return NetworkShape(block="own", blocks=(), stem_width=own.stem_width, widths=own.widths)
    if name in IMAGENET_NETWORKS:
        return IMAGENET_NETWORKS[name]
    if name in CIFAR_NETWORKS:
        return CIFAR_NETWORKS[name]
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(f"{name!r} is no network; the forms are {NAME_FORMS}")
    family, depth, mark = match["family"], int(match["depth"]), match["mark"]
    width = int(match["width"]) if match["width"] else None
    if (family == "wrn") != (width is not None and mark == "") or (
        family == "preact-bottleneck" and width is not None
    ):
        raise InputError(f"{name!r} is no network; the forms are {NAME_FORMS}")
    if width == 0:
        raise InputError(f"{name!r}: the width must be at least 1")
    step, rest = {"preact": (6, 2), "preact-bottleneck": (9, 2), "wrn": (6, 4)}[family]
    blocks, remainder = divmod(depth - rest, step)
    if remainder or blocks < 1:
        nearest = name.replace(match["depth"], str(step * max(1, round((depth - rest) / step)) + rest), 1)
        raise InputError(f"{name!r}: a {family} network has depth {step}n+{rest}; the nearest is {nearest!r}")
    if family == "preact-bottleneck":
        return NetworkShape(block="bottleneck", blocks=(blocks,) * 3, stem_width=16, widths=(64, 128, 256))
    if family == "wrn":
        assert width is not None
        stage = tuple(16 * width * scale for scale in (1, 2, 4))
        return NetworkShape(block="wide", blocks=(blocks,) * 3, stem_width=16, widths=stage)
    base = width or 16
    return NetworkShape(
        block="basic", blocks=(blocks,) * 3, stem_width=base, widths=(base, 2 * base, 4 * base)
    )
