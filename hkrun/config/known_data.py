"""What is known of a data set before it is read: of those that are the same for everybody."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class KnownData:
    """Sizes of a data set.

    Attributes:
        num_train: Training images; None where many use a part.
        num_test: Test images.
        num_classes: Classes.
        side: Height and width of the images as networks see them; None where a key says it.
    """

    num_train: int | None
    num_test: int
    num_classes: int
    side: int | None


KNOWN_DATA: Mapping[str, KnownData] = MappingProxyType(
    {
        "digits": KnownData(num_train=300, num_test=1107, num_classes=10, side=8),
        "mnist5k": KnownData(num_train=4000, num_test=1000, num_classes=10, side=32),
        "cifar10": KnownData(num_train=50_000, num_test=10_000, num_classes=10, side=32),
        "cifar100": KnownData(num_train=50_000, num_test=10_000, num_classes=100, side=32),
        "imagenet": KnownData(num_train=None, num_test=50_000, num_classes=1000, side=None),
    }
)
