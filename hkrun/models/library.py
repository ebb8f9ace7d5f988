"""Networks of torchvision and timm, `torchvision:NAME` and `timm:NAME`, with the interface of a `Backbone`.

Where the stages of a network end is found by running it once, on a 224x224 image, and watching its modules. A
module that lowers the resolution, and none of whose parts lowers it further, divides the network. What lies
between two of them and has a convolution is a stage. Before the stages comes the stem: the first convolution,
or the block that it is in. Of more than four stages the last four are taken, as many as ResNets have, and
what enters the first of them is the stem's output. The descriptor is the input of the last linear layer.

The modules keep the library's names, so that its weights load as they are, and ours load into its networks.
Dropout and stochastic depth are left out: a run depends on nothing but its seed.
"""

import functools
import importlib.metadata
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from hkrun.config import nearest
from hkrun.errors import InputError
from hkrun.models.batchnorm import BatchNorm2d
from hkrun.models.initialisation import has_rule
from hkrun.models.preact import Features

_MOST_STAGES = 4
_PROBED_SIDE = 224
_PROBED_CLASSES = 7
# What torch, torchvision and timm call the share that layers such as Dropout leave out at random.
_RATES = ("p", "drop_rate", "drop_prob")


class Tap(NamedTuple):
    """A value in a network: the input or the output of a module, when it is called for the n-th time."""

    path: str
    is_input: bool
    call: int


class LibraryNetwork(NamedTuple):
    """A network of a library, built when it is called with `num_classes` and `in_channels`.

    Attributes:
        name: `library:architecture`.
        stem: What enters the first stage.
        stages: The output of each stage.
        classifier: The input of the last linear layer.
        stem_width: Channels of what enters the first stage.
        widths: Channels of each stage's output.
        descriptor_width: Length of the descriptor.
        weights_file: The name of torchvision's file of ImageNet weights; empty where it has none.
    """

    name: str
    stem: Tap
    stages: tuple[Tap, ...]
    classifier: Tap
    stem_width: int
    widths: tuple[int, ...]
    descriptor_width: int
    weights_file: str

    def __call__(self, *, num_classes: int, in_channels: int) -> nn.Module:
        """Builds the network; `initialise` then gives it its weights."""
        network = _build(self.name, num_classes=num_classes, in_channels=in_channels)
        _keep_constants(network)
        network.__class__ = _adapt(type(network))  # type: ignore[arg-type]
        adapted = cast("_Adapted", network)
        adapted.library, adapted.widths, adapted.descriptor_width = self, self.widths, self.descriptor_width
        return adapted


@functools.cache
def find_network(name: str) -> LibraryNetwork:
    """Looks a network up, and finds its stages.

    Args:
        name: `torchvision:NAME` or `timm:NAME`.

    Raises:
        InputError: The library is not installed or has no such network, or hkrun cannot use it.
    """
    library, _, architecture = name.partition(":")
    listed = _list_networks(library)
    if architecture not in listed:
        version = importlib.metadata.version(library)
        raise InputError(
            f"{name}: {library} {version} has no network {architecture!r}{nearest(architecture, listed)}"
        )
    network = _build_meta(name)
    if getattr(network, "aux_logits", False):
        raise InputError(f"{name}: it has auxiliary classifiers, which hkrun does not train")
    images = torch.zeros(2, 3, _PROBED_SIDE, _PROBED_SIDE, device="meta")
    try:
        calls, output = _watch(network, images)
    except Exception as error:  # a library's code may raise anything
        told = " ".join(str(error).split())
        size = f"{_PROBED_SIDE}x{_PROBED_SIDE}"
        raise InputError(f"{name}: fails on images of {size}: {type(error).__name__}: {told}") from error
    stages = _find_stages(calls)
    if not stages:
        raise InputError(
            f"{name}: it has no stages of feature maps [B, C, H, W] between which the resolution falls; "
            "transformers that work on tokens are not supported"
        )
    last = next((call for call in reversed(calls) if isinstance(call.module, nn.Linear)), None)
    if last is None or last.output is not output or last.output.dim() != 2:
        raise InputError(f"{name}: its logits are not the output of a linear layer")
    return LibraryNetwork(
        name=name,
        stem=stages[0].entry.tap,
        stages=tuple(stage.exit.tap for stage in stages),
        classifier=Tap(last.path, True, last.number),
        stem_width=stages[0].entry.value.shape[1],
        widths=tuple(stage.exit.value.shape[1] for stage in stages),
        descriptor_width=last.module.in_features,
        weights_file=_find_weights_file(architecture) if library == "torchvision" else "",
    )


class _Adapted(nn.Module):
    """Stands before a library's class, and makes its `forward` return `Features`."""

    library: LibraryNetwork
    widths: tuple[int, ...]
    descriptor_width: int

    def forward(self, images: Tensor) -> Features:
        """Runs normalised images, shape [B, channels, H, W]."""
        found = self.library
        taps = {found.stem, *found.stages, found.classifier}
        seen: dict[tuple[str, bool], list[Tensor]] = {(tap.path, tap.is_input): [] for tap in taps}
        handles = []
        try:
            for (path, is_input), values in seen.items():
                module = self.get_submodule(path)
                if is_input:
                    handles.append(module.register_forward_pre_hook(_keep_input(values)))
                else:
                    handles.append(module.register_forward_hook(_keep_output(values)))
            logits = super().forward(images)
        finally:
            for handle in handles:
                handle.remove()

        def read(tap: Tap) -> Tensor:
            return seen[tap.path, tap.is_input][tap.call]

        classifier = cast("nn.Linear", self.get_submodule(found.classifier.path))
        return Features(
            logits=logits.to(classifier.weight.dtype),
            stages=tuple(read(tap) for tap in found.stages),
            descriptor=read(found.classifier),
            stem=read(found.stem),
        )


def _keep_input(values: list[Tensor]) -> Callable[..., None]:
    return lambda _, inputs: values.append(inputs[0])


def _keep_output(values: list[Tensor]) -> Callable[..., None]:
    return lambda _, __, output: values.append(output)


@functools.cache
def _adapt(kind: type[nn.Module]) -> type[nn.Module]:
    return type(kind.__name__, (_Adapted, kind), {})


class _NormActivation(BatchNorm2d):
    """timm's BatchNorm with its activation, on hkrun's BatchNorm."""

    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        outputs: Tensor = self.act(super().forward(input))
        return outputs


# --- building -----------------------------------------------------------------------------------------------


def _list_networks(library: str) -> Sequence[str]:
    if library == "torchvision":
        from torchvision import models

        return models.list_models(module=models)  # type: ignore[no-any-return]
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise InputError("timm:NAME needs hkrun[timm]: pip install 'hkrun[timm]'") from None
    return timm.list_models()


def _build(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    library, _, architecture = name.partition(":")
    network: nn.Module
    if library == "timm":
        import timm

        network = timm.create_model(architecture, num_classes=num_classes, in_chans=in_channels)
    else:
        from torchvision import models

        with warnings.catch_warnings():  # of initial weights, which are drawn anew
            warnings.simplefilter("ignore")
            network = models.get_model(architecture, weights=None, num_classes=num_classes)
        if in_channels != 3:
            _replace_first(network, in_channels)
    for path, layer in list(network.named_modules()):
        for rate in _RATES:
            if isinstance(getattr(layer, rate, None), float):
                setattr(layer, rate, 0.0)
        if isinstance(layer, nn.BatchNorm2d):
            network.set_submodule(path, _convert(layer))
    return network


def _build_meta(name: str) -> nn.Module:
    """The network without values, which takes neither time nor memory."""
    try:
        with torch.device("meta"):
            return _build(name, num_classes=_PROBED_CLASSES, in_channels=3)
    except NotImplementedError:  # some compute their sizes with tensors
        return _build(name, num_classes=_PROBED_CLASSES, in_channels=3).to("meta")


def _replace_first(network: nn.Module, in_channels: int) -> None:
    """Gives the first convolution another number of input channels."""
    path, first = next((path, each) for path, each in network.named_modules() if isinstance(each, nn.Conv2d))
    other = nn.Conv2d(
        in_channels,
        first.out_channels,
        kernel_size=first.kernel_size,  # type: ignore[arg-type]
        stride=first.stride,  # type: ignore[arg-type]
        padding=first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    network.set_submodule(path, other)


def _convert(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """BatchNorm whose statistics can be those of several workers; of another kind the norm itself."""
    activation = getattr(norm, "act", None)
    if type(norm) is not nn.BatchNorm2d and activation is None:
        return norm
    kind = BatchNorm2d if activation is None else _NormActivation
    converted = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    if activation is not None:
        converted.act = activation
    return converted


@torch.no_grad()
def _keep_constants(network: nn.Module) -> None:
    """Lets parameters of layers that `initialise` does not know start from the library's constants."""
    for layer in network.modules():
        own = {} if has_rule(layer) else dict(layer.named_parameters(recurse=False))
        values = {name: float(parameter.flatten()[0]) for name, parameter in own.items()}
        if own and all(bool((parameter == values[name]).all()) for name, parameter in own.items()):
            layer.reset_constants = functools.partial(_fill, layer, values)  # type: ignore[assignment]


@torch.no_grad()
def _fill(layer: nn.Module, values: dict[str, float]) -> None:
    for name, value in values.items():
        layer.get_parameter(name).fill_(value)


def _find_weights_file(architecture: str) -> str:
    from torchvision import models

    weights = getattr(models.get_model_weights(architecture), "IMAGENET1K_V1", None)
    return "" if weights is None else str(weights.url).rpartition("/")[2]


# --- finding the stages -------------------------------------------------------------------------------------


class _Call(NamedTuple):
    """A call of a module: its n-th, and when it began and ended."""

    path: str
    module: Any
    number: int
    begin: int
    end: int
    input: object
    output: Any

    @property
    def levels(self) -> tuple[int | None, int | None]:
        """How often the sides of its input and of its output were halved; None where they are no maps."""
        return _level(self.input), _level(self.output)

    @property
    def reduces(self) -> bool:
        """Whether a map goes in and a smaller one comes out."""
        before, after = self.levels
        return before is not None and after is not None and after > before

    def holds(self, other: "_Call") -> bool:
        """Whether the other call was a part of this one."""
        return self.begin < other.begin and other.end < self.end


class _Value(NamedTuple):
    tap: Tap
    value: Tensor


class _Stage(NamedTuple):
    entry: _Value
    exit: _Value


def _watch(network: nn.Module, images: Tensor) -> tuple[list[_Call], Any]:
    """Runs a network in training; returns its modules' calls, by their ends, and its output."""
    clock = itertools.count()
    begun: list[int] = []
    calls: list[_Call] = []
    counts: dict[str, int] = {}

    def note(path: str, module: nn.Module, inputs: Sequence[object], output: object) -> None:
        number = counts.get(path, 0)
        counts[path] = number + 1
        first = inputs[0] if inputs else None
        calls.append(_Call(path, module, number, begun.pop(), next(clock), first, output))

    for path, module in network.named_modules():
        if path:
            module.register_forward_pre_hook(lambda *_: begun.append(next(clock)))
            module.register_forward_hook(functools.partial(note, path))
    return calls, network.train()(images)


def _level(value: object) -> int | None:
    if not isinstance(value, Tensor) or value.dim() != 4 or not value.shape[2] == value.shape[3] > 1:
        return None
    return round(math.log2(_PROBED_SIDE / value.shape[2]))


def _find_stages(calls: Sequence[_Call]) -> list[_Stage]:
    """Divides a network where the resolution falls; see the module."""
    divisions = _find_divisions(calls)
    convolutions = [
        call for call in calls if isinstance(call.module, nn.Conv2d) and _level(call.output) is not None
    ]
    maps = [call for call in calls if _level(call.output) is not None]
    if not divisions:
        return []
    ends = [(_enter(call), call.begin) for call in divisions]
    ends.append((_leave(maps[-1]), maps[-1].end))
    # What comes before the first division has no entry but the images.
    parts: list[tuple[_Stage | None, list[_Call]]] = []
    parts.append((None, [each for each in convolutions if each.begin < divisions[0].begin]))
    for division, (leaving, end) in zip(divisions, ends[1:], strict=True):
        learns = any(each is division or division.holds(each) for each in convolutions)
        entry = _enter(division) if learns else _leave(division)
        inside = [each for each in convolutions if division.begin <= each.begin < end]
        rest = [each for each in inside if each.begin > division.end]
        if learns and rest and not any(learned for _, learned in parts):
            # The first convolution lowers the resolution, and a stage follows at this resolution.
            parts.append((None, [each for each in inside if each.begin <= division.end]))
            entry, inside = _leave(division), rest
        parts.append((_Stage(entry, leaving), inside))
    learned = [stage for stage, found in parts if found]
    return [stage for stage in learned[1:] if stage is not None][-_MOST_STAGES:]


def _find_divisions(calls: Sequence[_Call]) -> list[_Call]:
    """The outermost modules that lower the resolution once, in the order of their calls."""
    level = [call for call in calls if None not in call.levels and call.levels[0] == call.levels[1]]
    reducing = [call for call in calls if call.reduces and not any(other.holds(call) for other in level)]
    once = [
        call
        for call in reducing
        if len({call.levels, *(other.levels for other in reducing if call.holds(other))}) == 1
    ]
    outermost = [call for call in once if not any(other.holds(call) for other in once)]
    divisions: list[_Call] = []
    for call in sorted(outermost, key=lambda call: call.begin):
        if not divisions or cast("int", call.levels[1]) > cast("int", divisions[-1].levels[1]):
            divisions.append(call)
    return divisions


def _enter(call: _Call) -> _Value:
    return _Value(Tap(call.path, True, call.number), cast("Tensor", call.input))


def _leave(call: _Call) -> _Value:
    return _Value(Tap(call.path, False, call.number), call.output)
