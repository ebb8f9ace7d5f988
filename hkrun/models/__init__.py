"""The networks of HKSANC: backbones, attention sub-network, discriminator, and their initial weights."""

from hkrun.models.attention import AttentionEstimator, build_attention
from hkrun.models.backbone import Backbone, Features
from hkrun.models.batchnorm import BatchNorm2d, synchronise
from hkrun.models.cifar import CifarNetwork
from hkrun.models.discriminator import Discriminator, DiscriminatorOutput
from hkrun.models.distilled import DistilledNetwork, Output
from hkrun.models.initialisation import initialise
from hkrun.models.own import build_own
from hkrun.models.preact import PreactNetwork
from hkrun.networks import CIFAR_NETWORKS, IMAGENET_NETWORKS, parse_network
from hkrun.user_parts import is_own

__all__ = [
    "AttentionEstimator",
    "Backbone",
    "BatchNorm2d",
    "Discriminator",
    "DiscriminatorOutput",
    "DistilledNetwork",
    "Features",
    "Output",
    "build_attention",
    "build_network",
    "initialise",
    "synchronise",
]


def build_network(name: str, *, num_classes: int, in_channels: int) -> Backbone:
    """Builds a backbone from its name; `initialise` then gives it its weights.

    Args:
        name: Such as preact-20; `hkrun.networks` lists the forms.
        num_classes: Length of the logits.
        in_channels: Channels of the images.

    Raises:
        InputError: There is no such network, or an own one cannot be built.
    """
    if is_own(name):
        return build_own(name, num_classes=num_classes, in_channels=in_channels)
    shape = parse_network(name)
    if name in IMAGENET_NETWORKS:
        library_name = f"torchvision:{name.replace('-', '')}"
        return build_own(library_name, num_classes=num_classes, in_channels=in_channels)
    if name in CIFAR_NETWORKS:
        return CifarNetwork(shape, num_classes=num_classes, in_channels=in_channels)
    return PreactNetwork(shape, num_classes=num_classes, in_channels=in_channels)
