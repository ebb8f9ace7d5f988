"""Networks that are not built in: built from `package.module:name`, and tried before anything trains."""

from typing import cast

import torch
from torch import Tensor, nn

from hkrun.errors import InputError
from hkrun.models.backbone import Backbone, Features
from hkrun.models.initialisation import initialise
from hkrun.user_parts import load_part, read_shape


def build_own(name: str, *, num_classes: int, in_channels: int) -> Backbone:
    """Builds an own network: calls its class or function with `num_classes` and `in_channels`.

    Returns:
        A module that works like a `Backbone`, with its `widths` and `descriptor_width`.

    Raises:
        InputError: It cannot be built, or has layers that `initialise` does not know.
    """
    shape = read_shape(name)
    try:
        network = load_part(name)(num_classes=num_classes, in_channels=in_channels)
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        raise _failed(name, "cannot be built", error) from error
    if not isinstance(network, nn.Module):
        raise InputError(f"{name}: must give a torch.nn.Module; it gives a {type(network).__name__}")
    network.widths = shape.widths  # type: ignore[assignment]
    network.descriptor_width = shape.descriptor_width  # type: ignore[assignment]
    return cast("Backbone", network)


def try_own(name: str, *, num_classes: int, image_shape: tuple[int, int, int]) -> None:
    """Builds an own network and checks what it makes of two images, black ones and noise.

    Args:
        name: `package.module:name`.
        num_classes: Classes of the data set.
        image_shape: Channels, height and width of its images.

    Raises:
        InputError: Every way in which the network is not what docs/own-parts.md asks for, one per line.
    """
    network = build_own(name, num_classes=num_classes, in_channels=image_shape[0])
    try:
        initialise(network, torch.Generator().manual_seed(0))
    except TypeError as error:
        raise InputError(f"{name}: {error}") from error
    images = torch.zeros(2, *image_shape)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            features = network.eval()(images)
            repeated = [network.train()(noise) for _ in range(2)]
    except (Exception, SystemExit) as error:
        raise _failed(name, f"fails on images of shape {_show(images)}", error) from error
    if not isinstance(features, Features):
        raise InputError(f"{name}: must return hkrun.models.Features; it returns a {type(features).__name__}")
    problems = _check_features(features, name=name, num_classes=num_classes)
    if not problems and not torch.equal(repeated[0].logits, repeated[1].logits):
        problems.append(
            "gives other logits for the same images in training, at random; a run must depend on its seed "
            "alone: leave out layers such as Dropout"
        )
    if problems:
        raise InputError("\n".join(f"{name}: {problem}" for problem in problems))


def _check_features(features: Features, *, name: str, num_classes: int) -> list[str]:
    shape = read_shape(name)
    problems = []
    for part, width in (("logits", num_classes), ("descriptor", shape.descriptor_width)):
        found = getattr(features, part)
        if _shape(found) != (2, width):
            problems.append(f"{part} of two images must have shape (2, {width}); they have {_show(found)}")
    maps = [("stem", features.stem, shape.stem_width)]
    if len(features.stages) == len(shape.widths):
        maps += [
            (f"stages[{index}]", stage, width)
            for index, (stage, width) in enumerate(zip(features.stages, shape.widths, strict=True))
        ]
    else:
        problems.append(f"widths names {len(shape.widths)} stages; it returns {len(features.stages)}")
    for part, found, width in maps:
        if len(_shape(found)) != 4 or _shape(found)[:2] != (2, width):
            problems.append(
                f"{part} of two images must have shape (2, {width}, height, width); it has {_show(found)}"
            )
    return problems


def _shape(value: object) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def _show(value: object) -> str:
    return str(_shape(value)) if isinstance(value, Tensor) else f"none, being a {type(value).__name__}"


def _failed(name: str, what: str, error: Exception | SystemExit) -> InputError:
    told = " ".join(str(error).split())
    return InputError(f"{name}: {what}: {type(error).__name__}: {told}")
