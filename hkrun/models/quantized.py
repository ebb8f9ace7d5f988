"""Networks with binary or ternary weights, trained as such: Binary-Connect, TTQ, BWN and XNOR-Net.

Every layer keeps real weights, which the optimiser updates, and computes with quantised ones, in training
and in evaluation alike. Quantising has no useful derivative: each scheme's paper says what takes its place.
What their authors do beyond these papers' formulas is `QuantizationConfig`.

Sources: Courbariaux et al. 2015 (Binary-Connect), Zhu et al. 2017 (TTQ), Rastegari et al. 2016 (BWN, XNOR).
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hkrun.config import QuantizationConfig
from hkrun.models.batchnorm import BatchNorm2d, synchronise
from hkrun.models.initialisation import draw_uniform
from hkrun.models.preact import BasicBlock, BottleneckBlock

THRESHOLD = 0.05  # of TTQ, a share of a layer's largest weight


class Codes(NamedTuple):
    """A layer's quantised weights taken apart: a code of 1, -1 or 0 for each, and what the codes stand for.

    Attributes:
        codes: int8, in the shape of the weights.
        scales: What a code of 1 stands for, [:, 0], and -1 without its minus, [:, -1]; shape [filters or 1,
            1 or 2], 1 where it is the same for all filters or for both codes.
    """

    codes: Tensor
    scales: Tensor


class Signs(nn.Module):
    """Binary-Connect: sign(W), with sign(0) = 1; the gradient passes as it is, or times a factor.

    Args:
        factor: What the gradient is multiplied with, see `glorot_factor`.
    """

    is_binary = True

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, weight: Tensor) -> Tensor:
        """The weights that the layer computes with, in the shape of the real ones."""
        return _StraightThrough.apply(weight, self.factor)  # type: ignore[no-any-return]

    def encode(self, weight: Tensor) -> Codes:
        """What `forward` returns, taken apart."""
        return Codes(_signs(weight).to(torch.int8), weight.new_ones(1, 1))


class ScaledSigns(nn.Module):
    """BWN and XNOR: alpha sign(W), with alpha the mean of |W| over each filter's n weights.

    The gradient of W_i is that of the quantised W_i times (1/n + alpha [|W_i| < 1]), as the paper has it. The
    derivative of alpha has terms of the filter's other weights too, which the paper leaves out.

    A filter of a single input channel has no mean over channels to lose: it is never centred, and its factor
    is n.

    Args:
        scale_gradient: Whether the gradient is multiplied with n (1 - 1/c) too; c is the number of a filter's
            input channels.
        center: Whether `prepare` takes the mean over its input channels from each filter.
        clamp: Whether `prepare` clamps the real weights to [-1, 1].
    """

    is_binary = True

    def __init__(self, *, scale_gradient: bool = False, center: bool = False, clamp: bool = False) -> None:
        super().__init__()
        self.scale_gradient, self.center, self.clamp = scale_gradient, center, clamp

    def forward(self, weight: Tensor) -> Tensor:
        """The weights that the layer computes with, in the shape of the real ones."""
        filters, channels = weight.shape[:2]
        factor = 1.0
        if self.scale_gradient:
            factor = weight.numel() / filters * (1 - 1 / channels if channels > 1 else 1.0)
        return _ScaledSigns.apply(weight, factor)  # type: ignore[no-any-return]

    def prepare(self, weight: Tensor) -> None:
        """Centres and clamps real weights [filters, channels, ...] in place."""
        if self.center and weight.shape[1] > 1:
            weight.sub_(weight.mean(dim=1, keepdim=True))
        if self.clamp:
            weight.clamp_(-1, 1)

    def encode(self, weight: Tensor) -> Codes:
        """What `forward` returns, taken apart."""
        return Codes(_signs(weight).to(torch.int8), _filter_means(weight).flatten(1))


class TernaryWeights(nn.Module):
    """TTQ: W_p where W > Delta, -W_n where W < -Delta, else 0; Delta is 0.05 times the layer's largest |W|.

    W_p and W_n are learned. With g the gradient of the quantised weights, that of W is W_p g above the
    threshold, W_n g below and g between. That of W_p is the sum of g above it; that of W_n is minus the sum
    of g below, for W_n stands for its negative (the paper prints no minus).

    Both start at 1, as in the authors' code; the paper is silent. Their gradients are sums over a layer, so
    scales as small as the full-precision weights are thrown about: started from those weights' means, a
    preact-8-w8 on digits ended at 83 % error, and from 1 at 8 % (measured 2026-11-22, CPU, 12 epochs at a
    learning rate of 0.1).

    Args:
        weight: The layer's full-precision weights; their type and device are the scales'.
    """

    is_binary = False

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.positive = nn.Parameter(weight.new_ones(()))
        self.negative = nn.Parameter(weight.new_ones(()))

    def forward(self, weight: Tensor) -> Tensor:
        """The weights that the layer computes with, in the shape of the real ones."""
        return ternary_weights(weight, self.positive, self.negative)

    def encode(self, weight: Tensor) -> Codes:
        """What `forward` returns, taken apart."""
        above, below = _beyond(weight)
        codes = above.to(torch.int8) - below.to(torch.int8)
        return Codes(codes, torch.stack([self.positive, self.negative]).detach()[None])


Quantizer = Signs | ScaledSigns | TernaryWeights


class QuantizedConv2d(nn.Conv2d):
    """A convolution that computes with quantised weights; `weight` stays the real ones.

    Args:
        layer: The convolution whose place it takes, and whose parameters it takes over.
        quantizer: From real weights to quantised ones.
        first: What the input passes before; nothing by default.
    """

    def __init__(self, layer: nn.Conv2d, quantizer: Quantizer, first: nn.Module | None = None) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            stride=layer.stride,  # type: ignore[arg-type]
            padding=layer.padding,  # type: ignore[arg-type]
            dilation=layer.dilation,  # type: ignore[arg-type]
            groups=layer.groups,
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
            device="meta",
        )
        self.weight, self.bias = layer.weight, layer.bias
        self.quantizer: nn.Module = quantizer
        self.first = first

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Maps [B, in_channels, H, W] as a convolution does."""
        if self.first is not None:
            input = self.first(input)  # noqa: A001
        output: Tensor = self._conv_forward(input, self.quantizer(self.weight), self.bias)
        return output


class QuantizedLinear(nn.Linear):
    """A linear layer that computes with quantised weights; its bias is real.

    Args:
        layer: As in `QuantizedConv2d`.
        quantizer: As in `QuantizedConv2d`.
    """

    def __init__(self, layer: nn.Linear, quantizer: Quantizer) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.quantizer: nn.Module = quantizer

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Maps [B, in_features] as a linear layer does."""
        return F.linear(input, self.quantizer(self.weight), self.bias)


class SignActivation(nn.Module):
    """sign(x), with sign(0) = 1; the gradient passes where |x| < 1. XNOR's, in the place of ReLU."""

    def forward(self, inputs: Tensor) -> Tensor:
        """The signs, in the shape and type of the inputs."""
        return _ClippedStraightThrough.apply(inputs)  # type: ignore[no-any-return]


def glorot_factor(layer: nn.Conv2d | nn.Linear) -> float:
    """(fan in + fan out) / 1.5: what Binary-Connect multiplies a layer's learning rate with under SGD.

    It is one over the square of Glorot's coefficient sqrt(1.5 / (fan in + fan out)). A step on sign(W) with
    it is the step of a network whose weights are the coefficient times sign(W).
    """
    fan_in = math.prod(layer.weight.shape[1:])
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    fan_out = math.prod(layer.weight.shape[2:]) * layer.weight.shape[0] // groups
    return (fan_in + fan_out) / 1.5


def _make_signs(layer: nn.Conv2d | nn.Linear, training: QuantizationConfig) -> Signs:
    return Signs(glorot_factor(layer) if training.scale_rate else 1.0)


def _make_ternary(layer: nn.Conv2d | nn.Linear, _training: QuantizationConfig) -> TernaryWeights:
    return TernaryWeights(layer.weight)


def _make_scaled(_layer: nn.Conv2d | nn.Linear, training: QuantizationConfig) -> ScaledSigns:
    return ScaledSigns(scale_gradient=training.scale_gradient, center=training.center, clamp=training.clamp)


_QUANTIZERS: dict[str, Callable[[nn.Conv2d | nn.Linear, QuantizationConfig], Quantizer]] = {
    "binary_connect": _make_signs,
    "ttq": _make_ternary,
    "bwn": _make_scaled,
    "xnor": _make_scaled,
}


def quantize(backbone: nn.Module, scheme: str, training: QuantizationConfig | None = None) -> None:
    """Makes the layers of a network compute with quantised weights from now on, in place.

    Their real weights keep their names and values. `ttq` adds two parameters per layer, so an optimiser must
    be made after this.

    Args:
        backbone: A network whose layers were created in the order in which data passes them, `initialise`d.
        scheme: One of

            binary_connect  all layers, as in its paper;
            ttq, bwn, xnor  all but the first convolution and the classifier;
            xnor            also gives convolutions the signs of their BatchNorm'd inputs. Pre-activation
                            blocks become BN-sign-conv in the place of BN-ReLU-conv; other convolutions get
                            a BatchNorm of their own before the sign, and what follows them stays. The
                            scale of the inputs, which the paper finds to matter little, is left out, as in
                            the authors' code.
        training: How the real weights are trained; what the layers compute is the same with any.
    """
    assert not quantized_layers(backbone)
    for name, layer in _layers_to_quantize(backbone, scheme).items():
        parent = backbone.get_submodule(name.rpartition(".")[0])
        quantizer = _QUANTIZERS[scheme](layer, training or QuantizationConfig())
        replacement: QuantizedConv2d | QuantizedLinear
        if isinstance(layer, nn.Linear):
            replacement = QuantizedLinear(layer, quantizer)
        elif scheme == "xnor":
            replacement = QuantizedConv2d(layer, quantizer, _sign_inputs(parent, layer))
        else:
            replacement = QuantizedConv2d(layer, quantizer)
        setattr(parent, name.rpartition(".")[2], replacement)
    if any(norm.synchronised for norm in backbone.modules() if isinstance(norm, BatchNorm2d)):
        synchronise(backbone)  # XNOR's own BatchNorms, as those that were there


def start_uniform(backbone: nn.Module, generator: torch.Generator) -> None:
    """Draws the weights that Binary-Connect makes signs of anew, uniform in [-1, 1]; biases stay.

    Args:
        backbone: A network that is not quantised yet.
        generator: A CPU generator.
    """
    for layer in _layers_to_quantize(backbone, "binary_connect").values():
        draw_uniform(layer.weight, 1.0, generator)


def _layers_to_quantize(backbone: nn.Module, scheme: str) -> dict[str, nn.Conv2d | nn.Linear]:
    layers = {
        name: layer for name, layer in backbone.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    }
    kept = list(layers) if scheme == "binary_connect" else list(layers)[1:-1]
    return {name: layers[name] for name in kept}


def ternary_weights(weight: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """`TernaryWeights` as a function of the weights of one layer and its two scales."""
    return _Ternary.apply(weight, positive, negative)  # type: ignore[no-any-return]


@torch.no_grad()
def prepare_weights(quantized: Iterable[tuple[nn.Module, Tensor]]) -> None:
    """Centres and clamps the real weights of BWN and XNOR, before each forward pass in training.

    A network is evaluated with what its last step left, as in the authors' code.

    Args:
        quantized: Quantisers with the real weights that they quantise, [filters, channels, ...], which are
            changed in place.
    """
    for quantizer, weight in quantized:
        if isinstance(quantizer, ScaledSigns):
            quantizer.prepare(weight)


@torch.no_grad()
def clip_weights(quantized: Iterable[tuple[nn.Module, Tensor]]) -> None:
    """Clips the real weights of Binary-Connect to [-1, 1], after each step.

    Beyond 1 a weight's size has no effect on its sign, and it would need the longer to come back.

    Args:
        quantized: As in `prepare_weights`.
    """
    for quantizer, weight in quantized:
        if isinstance(quantizer, Signs):
            weight.clamp_(-1, 1)


def quantized_layers(backbone: nn.Module) -> dict[str, QuantizedConv2d | QuantizedLinear]:
    """The layers that compute with quantised weights, by name; empty for a full-precision network."""
    return {
        name: layer
        for name, layer in backbone.named_modules()
        if isinstance(layer, QuantizedConv2d | QuantizedLinear)
    }


def _sign_inputs(parent: nn.Module, layer: nn.Conv2d) -> nn.Module | None:
    """Makes the inputs of a convolution binary: within its block, or by what it returns, put before it."""
    if isinstance(parent, BasicBlock | BottleneckBlock):
        parent.activation = SignActivation()
        return None
    norm = BatchNorm2d(layer.in_channels, device=layer.weight.device, dtype=layer.weight.dtype)
    return nn.Sequential(norm, SignActivation())


def _signs(values: Tensor) -> Tensor:
    signs = torch.where(values < 0, -1.0, 1.0).to(values.dtype)
    return torch.where(values.isnan(), values, signs)  # NaN stays, see _Ternary


def _filter_means(weight: Tensor) -> Tensor:
    """The scale alpha of each filter, shape [filters, 1, ...]."""
    return weight.abs().mean(dim=tuple(range(1, weight.dim())), keepdim=True)


def _threshold(weight: Tensor) -> Tensor:
    return THRESHOLD * weight.abs().max()


def _beyond(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Where a weight is above the threshold, and where below its negative."""
    threshold = _threshold(weight)
    return weight > threshold, weight < -threshold


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return _signs(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


class _ClippedStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values.abs() < 1)
        return _signs(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (passes,) = ctx.saved_tensors
        passed: Tensor = gradient * passes
        return passed


class _ScaledSigns(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, factor: float) -> Tensor:
        scales = _filter_means(weight)
        ctx.save_for_backward(weight, scales)
        ctx.factor = factor
        return scales * _signs(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        weight, scales = ctx.saved_tensors
        factors: Tensor = (1 / weight[0].numel() + scales * (weight.abs() < 1)) * ctx.factor
        return gradient * factors, None


class _Ternary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        above, below = _beyond(weight)
        ctx.save_for_backward(above, below, positive, negative)
        zero = 0 * _threshold(weight)  # NaN where a weight is: a run that diverged must show it
        return torch.where(above, positive, torch.where(below, -negative, zero))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        above, below, positive, negative = ctx.saved_tensors
        one = torch.ones_like(positive)
        factors = torch.where(above, positive, torch.where(below, negative, one))
        return gradient * factors, (gradient * above).sum(), -(gradient * below).sum()
