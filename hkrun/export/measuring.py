"""What a network costs: parameters, multiply-adds, and measured latency."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hkrun.models.quantized import quantized_layers


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network costs for one image.

    Attributes:
        parameters: Values that were learned, biases and BatchNorm included; a binary weight counts as one.
        quantised_parameters: Those of them that are binary or ternary weights.
        multiply_adds: Of convolutions and linear layers.
        quantised_multiply_adds: Those of them with binary or ternary weights, which need no multiplication.
    """

    parameters: int
    quantised_parameters: int
    multiply_adds: int
    quantised_multiply_adds: int


@torch.no_grad()
def count_cost(backbone: nn.Module, image: Tensor) -> Cost:
    """Counts what a backbone in eval mode costs for one image, [C, H, W]."""
    counts: dict[nn.Module, int] = {}

    def count(layer: Any, _inputs: object, output: Tensor) -> None:
        # Each output of a layer is a sum over one filter.
        counts[layer] = counts.get(layer, 0) + output[0].numel() * layer.weight[0].numel()

    hooks = [
        layer.register_forward_hook(count)
        for layer in backbone.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    try:
        backbone(image[None])
    finally:
        for hook in hooks:
            hook.remove()
    quantised = quantized_layers(backbone).values()
    return Cost(
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        quantised_parameters=sum(layer.weight.numel() for layer in quantised),
        multiply_adds=sum(counts.values()),
        quantised_multiply_adds=sum(counts.get(layer, 0) for layer in quantised),
    )


def measure_latency(
    calls: Sequence[Callable[[], object]], *, rounds: int = 200, at_most_s: float = 10.0
) -> tuple[list[float], int]:
    """Times calls in turn, round by round, so that whatever else the machine does hits all alike.

    The first tenth of the rounds warm up and do not count; after `at_most_s` none begins, but for the first
    that counts.

    Returns:
        The median of each call in seconds, and the number of rounds that count.
    """
    warmup = max(1, rounds // 10)
    times: list[list[float]] = [[] for _ in calls]
    started = time.perf_counter()
    for number in range(warmup + rounds):
        late = time.perf_counter() - started > at_most_s
        if late and times[0]:
            break
        for call, taken in zip(calls, times, strict=True):
            before = time.perf_counter()
            call()
            if number >= warmup or late:
                taken.append(time.perf_counter() - before)
    return [statistics.median(taken) for taken in times], len(times[0])
