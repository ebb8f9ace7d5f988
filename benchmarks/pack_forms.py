"""Ways to train k students at once: one after the other, vmap, grouped convolutions; time per step of a seed.

Forward and backward pass of the backbone on one batch of 64 random images, cross-entropy, float32. The forms
take turns within each repetition, so that what else the machine does hits all alike.

    one by one          k networks, one after the other
    vmap                torch.func.vmap over the networks' stacked parameters, which groups the convolutions
                        itself, but spreads a BatchNorm over several operations
    grouped             `PackedNetwork` with channels first
    grouped, last       `PackedNetwork` as hkrun uses it: channels last

    python benchmarks/pack_forms.py                     # preact-8-w4 at 8x8 and preact-20 at 32x32
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from hkrun.models import DistilledNetwork, build_network, initialise
from hkrun.models.packed import PackedNetwork

CASES = (("preact-8-w4", 8, 1), ("preact-20", 32, 3))  # network, side of the images, their channels
BATCH, CLASSES = 64, 10


def main() -> None:
    """Measures every form for every k, and prints a table per network."""
    parser = argparse.ArgumentParser(description="Time per step of a seed, by way of training k at once.")
    parser.add_argument("--packs", type=int, nargs="+", default=(1, 2, 4, 10, 20))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for network, side, channels in CASES:
        print(f"\n{network}, {side}x{side}, batch of {BATCH}: ms per step of a seed, median (spread)\n")
        print("| k | one by one | vmap | grouped | grouped, last |\n|---|---|---|---|---|")
        for size in options.packs:
            found = measure(network, side, channels, size, repeats=options.repeats)
            print(f"| {size} | " + " | ".join(map(describe, found)) + " |", flush=True)


def describe(milliseconds: list[float]) -> str:
    """Median, and least and largest."""
    return f"{statistics.median(milliseconds):.2f} ({min(milliseconds):.2f}-{max(milliseconds):.2f})"


def measure(network: str, side: int, channels: int, size: int, *, repeats: int) -> list[list[float]]:
    """Milliseconds per step of a seed of each form, one for each repetition."""
    images = torch.randn(size, BATCH, channels, side, side)
    labels = torch.randint(CLASSES, (size, BATCH))

    def members() -> list[nn.Module]:
        networks = []
        for seed in range(size):
            backbone = build_network(network, num_classes=CLASSES, in_channels=channels)
            initialise(backbone, torch.Generator().manual_seed(seed))
            networks.append(backbone)
        return networks

    forms = (one_by_one, mapped, grouped_first, grouped_last)
    steps = [form(members(), images, labels) for form in forms]
    seconds: list[list[float]] = [[] for _ in steps]
    for repetition in range(repeats + 1):
        for own, step in zip(seconds, steps, strict=True):
            began = time.perf_counter()
            step()
            if repetition:  # the first warms up
                own.append(1e3 * (time.perf_counter() - began) / size)
    return seconds


def one_by_one(members: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Each network by itself."""

    def step() -> None:
        for member, own, classes in zip(members, images, labels, strict=True):
            member.zero_grad()
            F.cross_entropy(member(own).logits, classes).backward()

    return step


def mapped(members: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], None]:
    """torch.func.vmap over stacked parameters and buffers."""
    parameters, buffers = stack_module_state(members)
    first = members[0]

    def forward(own: dict[str, Tensor], kept: dict[str, Tensor], views: Tensor) -> Tensor:
        logits: Tensor = functional_call(first, (own, kept), (views,)).logits
        return logits

    def step() -> None:
        for parameter in parameters.values():
            parameter.grad = None
        logits = vmap(forward)(parameters, buffers, images)
        F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").backward()

    return step


def grouped_first(members: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Grouped convolutions, the positions of a channel together."""
    return _packed(members, images, labels, torch.contiguous_format)


def grouped_last(members: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Grouped convolutions, the channels of a position together."""
    return _packed(members, images, labels, torch.channels_last)


def _packed(
    members: list[nn.Module], images: Tensor, labels: Tensor, layout: torch.memory_format
) -> Callable[[], None]:
    packed = PackedNetwork([DistilledNetwork(member) for member in members])  # type: ignore[arg-type]
    if layout is torch.contiguous_format:
        for parameter in packed.parameters():
            parameter.data = parameter.data.contiguous()

    def step() -> None:
        packed.zero_grad()
        logits = packed(images)[0].logits
        F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").backward()

    return step


if __name__ == "__main__":
    main()
