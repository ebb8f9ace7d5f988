"""Networks of torchvision and timm, `torchvision:NAME` and `timm:NAME`, with the interface of a `Backbone`.

`library_stages` finds where the stages end. The descriptor is the input of the last linear layer.

The modules keep the library's names, so that its weights load as they are, and ours load into its networks.
Dropout and stochastic depth are left out: a run depends on nothing but its seed.
"""

import functools
import importlib.metadata
import warnings
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from hkrun.config import nearest
from hkrun.errors import InputError
from hkrun.models.backbone import Features
from hkrun.models.batchnorm import BatchNorm2d
from hkrun.models.initialisation import has_rule
from hkrun.models.library_stages import PROBED_SIDE, Tap, find_stages, watch

_PROBED_CLASSES = 7
# What torch, torchvision and timm call the share that layers such as Dropout leave out at random.
_RATES = ("p", "drop_rate", "drop_prob")


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
    images = torch.zeros(2, 3, PROBED_SIDE, PROBED_SIDE, device="meta")
    try:
        calls, output = watch(network, images)
    except Exception as error:  # a library's code may raise anything
        told = " ".join(str(error).split())
        size = f"{PROBED_SIDE}x{PROBED_SIDE}"
        raise InputError(f"{name}: fails on images of {size}: {type(error).__name__}: {told}") from error
    stages = find_stages(name, calls)
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
                copied = any(tap.copied for tap in taps if tap[:2] == (path, is_input))
                keep = functools.partial(_keep, values, copied)
                if is_input:
                    handles.append(module.register_forward_pre_hook(keep))
                else:
                    handles.append(module.register_forward_hook(keep))
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


def _keep(
    values: list[Tensor], copied: bool, _: nn.Module, inputs: Sequence[Tensor], *output: Tensor
) -> None:
    value = (output or inputs)[0]
    values.append(value.clone() if copied else value)


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
        raise InputError("timm:NAME needs the package timm; run: pip install timm") from None
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
