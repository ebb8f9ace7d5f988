"""Initial weights, from one explicit generator and nothing else."""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class StartsConstant(Protocol):
    """A layer whose own parameters start from constants."""

    def reset_constants(self) -> None:
        """Sets them to these constants."""


@runtime_checkable
class StartsRandom(Protocol):
    """A layer whose buffers, or parameters of no known kind, start from random values."""

    def reset_random(self, generator: torch.Generator) -> None:
        """Sets them, all drawn from a CPU generator."""


# Normalisations, whose weights start at 1 and biases at 0.
_NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def has_rule(layer: nn.Module) -> bool:
    """Whether `initialise` has a rule for layers of this kind."""
    return isinstance(layer, (nn.Conv2d, nn.Linear, StartsConstant, StartsRandom, *_NORMS))


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Gives every parameter its initial value and resets the running statistics.

    Convolutions are He-normal over their outputs (He et al. 2015) and their biases 0, linear layers uniform
    in +-1/sqrt(inputs), weight and bias alike (torch's own default), normalisations are the identity, and a
    layer that `StartsConstant` or `StartsRandom` sets its own.

    Args:
        module: Any of this package's networks, or a loss that learns, on any device. Values are drawn in
            float32 on the CPU: it starts from the same weights in every precision and on every device.
        generator: A CPU generator; it is used in the order of `module.modules()`.

    Raises:
        TypeError: A layer is of no known kind: its parameters would keep what the global generator gave them.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * math.prod(layer.kernel_size)
            deviation = math.sqrt(2 / fan_out)
            _assign(layer.weight, _like(layer.weight).normal_(std=deviation, generator=generator))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            bound = 1 / math.sqrt(layer.in_features)
            for parameter in layer.parameters():
                draw_uniform(parameter, bound, generator)
        elif isinstance(layer, _NORMS):
            layer.reset_parameters()
        elif isinstance(layer, StartsConstant):
            layer.reset_constants()
        elif isinstance(layer, StartsRandom):
            layer.reset_random(generator)
        elif next(layer.parameters(recurse=False), None) is not None:
            raise TypeError(f"initialise: no rule for the parameters of {type(layer).__name__}")


def draw_uniform(parameter: Tensor, bound: float, generator: torch.Generator) -> None:
    """Draws a parameter anew, uniform in [-bound, bound]."""
    _assign(parameter, _like(parameter).uniform_(-bound, bound, generator=generator))


def _like(parameter: Tensor) -> Tensor:
    return torch.empty(parameter.shape, dtype=torch.float32)


@torch.no_grad()
def _assign(parameter: Tensor, values: Tensor) -> None:
    parameter.copy_(values)
