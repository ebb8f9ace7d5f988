"""Ways to train k students at once: one after the other, vmap, grouped convolutions; time per step of a seed.

Forward and backward pass of the backbone on one batch of 64 random images, cross-entropy, float32. The forms
take turns within each repetition, so that what else the machine does hits all alike. Times are the
processor's.

    one by one          k networks, one after the other
    vmap                torch.func.vmap over the networks' stacked parameters, which groups the convolutions
                        itself, but spreads a BatchNorm over several operations
    grouped             `PackedNetwork` of grouped convolutions alone, channels first
    grouped, last       the same, channels last
    as hkrun does       `PackedNetwork`: compiled convolutions where images are small, else channels last

    python benchmarks/pack_forms.py                     # preact-8-w4 at 8x8 and preact-20 at 32x32
    python benchmarks/pack_forms.py --convolutions      # forms of one convolution of twenty members

Forms of a convolution, without gradients and with its backward pass:

    grouped             of the library, channels last
    im2col              all that the kernel covers copied together, one product for each member
    offsets             a product for each of the kernel's offsets, and no copies
    whole images        a matrix between whole images for each member, mostly zeros
    blocks of 16        members merged to 16 channels, one's weights for another's channels being zeros. It is
                        not to be used: zero times NaN is NaN, so one member that diverges takes others along
    compiled            hkrun's (hkrun/models/image_kernels.py): loops over the images of a batch
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from hkrun.models import DistilledNetwork, build_network, initialise, small_images
from hkrun.models import packed as packed_module
from hkrun.models.packed import PackedNetwork

CASES = (("preact-8-w4", 8, 1), ("preact-20", 32, 3))  # network, side of the images, their channels
BATCH, CLASSES = 64, 10


def main() -> None:
    """Measures every form for every k, and prints a table per network."""
    parser = argparse.ArgumentParser(description="Time per step of a seed, by way of training k at once.")
    parser.add_argument("--packs", type=int, nargs="+", default=(1, 2, 4, 10, 20))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--convolutions", action="store_true", help="forms of one convolution instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.convolutions:
        print_convolutions(max(options.packs), repeats=options.repeats)
        return
    for network, side, channels in CASES:
        print(f"\n{network}, {side}x{side}, batch of {BATCH}: ms per step of a seed, median (spread)\n")
        print("| k | one by one | vmap | grouped | grouped, last | as hkrun does |")
        print("|---|---|---|---|---|---|")
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

    forms = (one_by_one, mapped, grouped_first, grouped_last, as_hkrun_does)
    steps = [form(members(), images, labels) for form in forms]
    seconds: list[list[float]] = [[] for _ in steps]
    for repetition in range(repeats + 1):
        for own, step in zip(seconds, steps, strict=True):
            began = time.process_time()
            step()
            if repetition:  # the first warms up
                own.append(1e3 * (time.process_time() - began) / size)
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


def as_hkrun_does(members: list[nn.Module], images: Tensor, labels: Tensor) -> Callable[[], None]:
    """As hkrun does."""
    return _packed(members, images, labels, None)


def _packed(
    members: list[nn.Module], images: Tensor, labels: Tensor, layout: torch.memory_format | None
) -> Callable[[], None]:
    packed = PackedNetwork([DistilledNetwork(member) for member in members])  # type: ignore[arg-type]
    if layout is torch.contiguous_format:
        for parameter in packed.parameters():
            parameter.data = parameter.data.contiguous()
    pays = small_images.pays if layout is None else lambda *_: False

    def step() -> None:
        packed.zero_grad()
        with mock.patch.object(packed_module, "pays", pays):
            logits = packed(images)[0].logits
        F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").backward()

    return step


# --- one convolution ----------------------------------------------------------------------------------------

# Channels in and out, side of the image, stride: those of preact-8-w4 on digits, and beyond.
CONVOLUTIONS = (
    *((1, 4, 8, 1), (4, 4, 8, 1), (4, 8, 8, 2), (8, 8, 4, 1), (8, 16, 4, 2), (16, 16, 2, 1)),
    *((2, 2, 16, 1), (8, 8, 8, 1), (16, 16, 4, 1), (32, 32, 2, 1)),
)
Convolution = Callable[[Tensor, Tensor, int], Tensor]  # of maps [B, k C, H, W], weights and the stride


def print_convolutions(members: int, *, repeats: int) -> None:
    """Prints a table of the forms, a row per shape: milliseconds forward, and of both passes."""
    print(
        f"\nA 3x3 convolution of {members} members, batch of {BATCH}: ms forward / with backward, medians\n"
    )
    print(f"| channels, side, stride | {' | '.join(FORMS)} |\n|---{'|---' * len(FORMS)}|")
    for channels, out_channels, side, stride in CONVOLUTIONS:
        weight = torch.randn(members, out_channels, channels, 3, 3, requires_grad=True)
        maps = torch.randn(BATCH, members * channels, side, side)
        times = measure_convolutions(maps, weight, stride, repeats=repeats)
        columns = " | ".join(
            f"{statistics.median(forward):.2f} / {statistics.median(both):.2f}" for forward, both in times
        )
        print(f"| {channels} to {out_channels}, {side}, {stride} | {columns} |", flush=True)


def measure_convolutions(
    maps: Tensor, weight: Tensor, stride: int, *, repeats: int
) -> list[tuple[list[float], list[float]]]:
    """Milliseconds of the forward pass and of both passes of each form, which take turns."""
    found: list[tuple[list[float], list[float]]] = [([], []) for _ in FORMS]
    # Each form gets its maps, and the gradient of its output, as the form before it would have left them.
    held = [lay_out(maps, form).requires_grad_() for form in FORMS.values()]
    shape = grouped(maps, weight.detach(), stride).shape
    gradients = [lay_out(torch.randn(shape), form) for form in FORMS.values()]
    for repetition in range(repeats + 1):
        for own, form, inputs, gradient in zip(found, FORMS.values(), held, gradients, strict=True):
            began = time.process_time()
            with torch.no_grad():
                form(inputs, weight, stride)
            between = time.process_time()
            torch.autograd.grad(form(inputs, weight, stride), (inputs, weight), gradient)
            if repetition:  # the first warms up
                own[0].append(1e3 * (between - began))
                own[1].append(1e3 * (time.process_time() - between))
    return found


def lay_out(maps: Tensor, form: Convolution) -> Tensor:
    """Maps [B, C, H, W] in the order of memory of a form's own outputs."""
    if form in (compiled, offsets):
        return maps.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    if form in (grouped, blocks):
        return maps.contiguous(memory_format=torch.channels_last)
    return maps.clone()


def grouped(maps: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The library's."""
    weights = weight.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return F.conv2d(maps, weights, stride=stride, padding=1, groups=len(weight))


def im2col(maps: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A product per member of its weights [C', 9 C] and copies of what the kernel covers."""
    members, batch, side = len(weight), len(maps), maps.shape[3] // stride
    covered = F.unfold(maps, 3, padding=1, stride=stride)
    covered = covered.view(batch, members, -1, side * side).permute(1, 2, 0, 3).flatten(2)
    outputs = torch.bmm(weight.flatten(2), covered)
    return outputs.view(-1, batch, side, side).transpose(0, 1)


def offsets(maps: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A product per offset of the kernel, members being the batch of each, with the images last."""
    members, out_channels, channels = weight.shape[:3]
    height, width, batch = maps.shape[2], maps.shape[3], maps.shape[0]
    padded = F.pad(maps.permute(1, 2, 3, 0), (0, 0, 1, 1, 1, 1))
    total = None
    for row, column in itertools.product(range(3), repeat=2):
        read = padded[:, row : row + height : stride, column : column + width : stride]
        product = torch.bmm(weight[..., row, column], read.reshape(members, channels, -1))
        total = product if total is None else total + product
    assert total is not None
    outputs = total.view(members * out_channels, height // stride, width // stride, batch)
    return outputs.permute(3, 0, 1, 2)


def whole_images(maps: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A product per member of its images [B, C H W] and one matrix [C H W, C' H' W']."""
    members, out_channels, channels = weight.shape[:3]
    batch, side = len(maps), maps.shape[3]
    units = torch.eye(channels * side * side).view(-1, channels, side, side)
    # What each unit gives is a row of the matrix.
    rows = F.conv2d(units, weight.flatten(0, 1), stride=stride, padding=1).unflatten(1, (members, -1))
    matrices = rows.transpose(0, 1).flatten(2)
    outputs = torch.bmm(maps.view(batch, members, -1).transpose(0, 1), matrices)
    return outputs.transpose(0, 1).reshape(batch, members * out_channels, side // stride, side // stride)


def blocks(maps: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Members merged to blocks of 16 channels in and out at least; each reads the others' times zero."""
    members, out_channels, channels = weight.shape[:3]
    merged = next(size for size in range(max(1, 16 // out_channels), 0, -1) if members % size == 0)
    own = torch.eye(merged).view(1, merged, 1, merged, 1, 1, 1)
    weights = weight.view(-1, merged, out_channels, 1, channels, 3, 3) * own
    weights = weights.reshape(-1, merged * channels, 3, 3).contiguous(memory_format=torch.channels_last)
    return F.conv2d(maps, weights, stride=stride, padding=1, groups=members // merged)


def compiled(maps: Tensor, weight: Tensor, stride: int) -> Tensor:
    """What hkrun does."""
    return small_images.convolve(maps, weight, small_images.Geometry((3, 3), (stride, stride), (1, 1)))


FORMS: dict[str, Convolution] = {
    "grouped": grouped,
    "im2col": im2col,
    "offsets": offsets,
    "whole images": whole_images,
    "blocks of 16": blocks,
    "compiled": compiled,
}


if __name__ == "__main__":
    main()
