"""Binary and ternary weights: forward values and gradients against the papers' formulas, worked by hand."""

import io
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hkrun.config import QuantizationConfig
from hkrun.models import BatchNorm2d, build_network, initialise, synchronise
from hkrun.models.preact import BasicBlock
from hkrun.models.quantized import (
    QuantizedConv2d,
    QuantizedLinear,
    ScaledSigns,
    SignActivation,
    Signs,
    TernaryWeights,
    clip_weights,
    glorot_factor,
    prepare_weights,
    quantize,
    quantized_layers,
    start_uniform,
)

SCHEMES = ["binary_connect", "ttq", "bwn", "xnor"]
NETWORKS = ["preact-8-w4", "preact-bottleneck-11", "wrn-10-1", "resnet-18"]


def build(name="preact-8-w4", scheme=None, *, seed=0, dtype=torch.float64):
    backbone = build_network(name, num_classes=5, in_channels=1)
    initialise(backbone, torch.Generator().manual_seed(seed))
    backbone.to(dtype)
    if scheme is not None:
        quantize(backbone, scheme)
    return backbone


def real_weights(backbone):
    return [(layer.quantizer, layer.weight) for layer in quantized_layers(backbone).values()]


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def leaf(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def images(backbone, number=4):
    size = 8 if hasattr(backbone, "stem") else 32
    return normal(number, 1, size, size).to(next(backbone.parameters()).dtype)


# --- values and gradients by hand ---------------------------------------------------------------------------


def test_binary_connect_takes_signs_and_passes_the_gradient_whatever_the_weight():
    weight = leaf([[0.3, 0.0], [-0.0, -2.0]])
    values = Signs()(weight)
    assert values.tolist() == [[1.0, 1.0], [1.0, -1.0]]
    gradient = normal(2, 2)
    values.backward(gradient)
    assert torch.equal(weight.grad, gradient)


def test_bwn_scales_the_signs_of_each_filter_by_its_mean_size():
    weight = leaf([[0.5, -0.25, 0.0, -0.25], [2.0, -1.0, 4.0, 1.0]])
    values = ScaledSigns()(weight)
    assert values.tolist() == [[0.25, -0.25, 0.25, -0.25], [2.0, -2.0, 2.0, 2.0]]
    values.backward(leaf([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]).detach())
    # 1/n + alpha [|W| < 1]: 1/4 + 1/4 in the first filter; the second has no weight within 1.
    assert weight.grad.tolist() == [[0.5, 1.0, 1.5, 2.0], [1.25, 1.5, 1.75, 2.0]]


def test_a_filter_is_all_that_makes_one_output_channel():
    weight = normal(3, 2, 3, 3).requires_grad_()
    values = ScaledSigns()(weight)
    for row, filter_weights in zip(values, weight.detach(), strict=True):
        alpha = sum(abs(float(value)) for value in filter_weights.flatten()) / 18
        torch.testing.assert_close(row.abs(), torch.full_like(row, alpha), rtol=1e-14, atol=0)
    gradient = normal(3, 2, 3, 3, seed=2)
    values.backward(gradient)
    alpha = values.detach().abs()
    expected = gradient * (1 / 18 + torch.where(weight.detach().abs() < 1, alpha, 0.0))
    torch.testing.assert_close(weight.grad, expected, rtol=1e-13, atol=0)


def test_the_authors_gradient_of_bwn_is_the_papers_times_n_and_what_centring_leaves():
    weight = leaf([[0.5, -0.25, 0.0, -0.25], [2.0, -1.0, 4.0, 1.0]])
    gradient = leaf([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]).detach()
    ScaledSigns(scale_gradient=True)(weight).backward(gradient)
    # n = c = 4: times 4 (1 - 1/4) = 3 of the values above.
    assert weight.grad.tolist() == [[1.5, 3.0, 4.5, 6.0], [3.75, 4.5, 5.25, 6.0]]
    weight = normal(3, 2, 3, 3).requires_grad_()
    gradient = normal(3, 2, 3, 3, seed=2)
    ScaledSigns(scale_gradient=True)(weight).backward(gradient)
    for number, own in enumerate(weight.detach()):
        alpha = sum(abs(float(value)) for value in own.flatten()) / 18
        for place in itertools.product(range(2), range(3), range(3)):
            inside = alpha if abs(float(own[place])) < 1 else 0.0
            expected = float(gradient[(number, *place)]) * (inside + 1 / 18) * (1 - 1 / 2) * 18
            assert float(weight.grad[(number, *place)]) == pytest.approx(expected, rel=1e-13)


def test_real_weights_of_bwn_are_centred_over_their_input_channels_and_then_clamped():
    weight = torch.tensor([[[[3.0]], [[1.0]]], [[[0.5]], [[-0.25]]]], dtype=torch.float64)
    ScaledSigns(center=True, clamp=True).prepare(weight)
    # 3 and 1 become 1 and -1; clamped first, both would be 0.
    assert weight.flatten(1).tolist() == [[1.0, -1.0], [0.375, -0.375]]
    weight = 2 * normal(4, 3, 2, 2)
    before = weight.clone()
    ScaledSigns(center=True, clamp=True).prepare(weight)
    for number, y, x in itertools.product(range(4), range(2), range(2)):
        own = [float(value) for value in before[number, :, y, x]]
        expected = [min(max(value - sum(own) / 3, -1.0), 1.0) for value in own]
        assert weight[number, :, y, x].tolist() == pytest.approx(expected, rel=1e-13, abs=1e-15)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [[3.0, 1.0]]),
        ({"center": True}, [[1.0, -1.0]]),
        ({"clamp": True}, [[1.0, 1.0]]),
        ({"scale_gradient": True}, [[3.0, 1.0]]),
    ],
)
def test_centring_and_clamping_are_apart(settings, expected):
    weight = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    ScaledSigns(**settings).prepare(weight)
    assert weight.tolist() == expected


def test_filters_of_one_input_channel_keep_their_weights_and_gradients():
    # Centred they would all be 0, and 1 - 1/c is 0.
    weight = 0.1 * normal(4, 1, 3, 3)
    before = weight.clone()
    quantizer = ScaledSigns(scale_gradient=True, center=True, clamp=True)
    quantizer.prepare(weight)
    assert torch.equal(weight, before)
    gradient = normal(4, 1, 3, 3, seed=2)
    quantizer(weight.requires_grad_()).backward(gradient)
    alpha = before.abs().mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(weight.grad, gradient * (1 / 9 + alpha) * 9, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Linear(32, 10), 42 / 1.5),
        (nn.Conv2d(4, 8, 3), (4 + 8) * 9 / 1.5),
        (nn.Conv2d(4, 8, (1, 3)), (4 + 8) * 3 / 1.5),
        (nn.Conv2d(4, 8, 3, groups=2), (2 + 4) * 9 / 1.5),  # each input feeds the outputs of its group
    ],
)
def test_binary_connects_factor_is_one_over_the_square_of_glorots_coefficient(layer, expected):
    assert glorot_factor(layer) == pytest.approx(expected, rel=1e-15)
    nn.init.xavier_uniform_(layer.weight, gain=0.5)  # sqrt(6 / sum) / 2 = sqrt(1.5 / sum)
    if isinstance(layer, nn.Linear) or layer.groups == 1:
        assert float(layer.weight.detach().abs().max()) == pytest.approx(
            glorot_factor(layer) ** -0.5, rel=0.1
        )


def test_binary_connect_multiplies_the_gradient_with_its_factor():
    weight = leaf([[0.3, 0.0], [-0.5, -2.0]])
    gradient = normal(2, 2)
    Signs(28.0)(weight).backward(gradient)
    assert torch.equal(weight.grad, gradient * 28.0)


@pytest.fixture
def ternary():
    quantizer = TernaryWeights(leaf([1.0, -1.0]))
    quantizer.positive.data.fill_(0.5)
    quantizer.negative.data.fill_(0.75)
    return quantizer


def test_ttq_has_three_values_around_a_twentieth_of_the_largest_weight(ternary):
    # max |w| = 2, so the threshold is 0.1; a weight on it is 0.
    weight = leaf([[-2.0, 0.11, 0.1], [-0.1, -0.11, 0.0]])
    assert ternary(weight).tolist() == [[-0.75, 0.5, 0.0], [0.0, -0.75, 0.0]]


def test_ttq_scales_the_gradients_of_weights_and_learns_both_scales(ternary):
    weight = leaf([[-2.0, 0.11, 0.1], [-0.1, -0.11, 0.0]])
    ternary(weight).backward(leaf([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).detach())
    assert weight.grad.tolist() == [[0.75, 1.0, 3.0], [4.0, 3.75, 6.0]]
    assert ternary.positive.grad == 2.0
    assert ternary.negative.grad == -6.0  # minus (1 + 5)


def test_the_gradients_of_ttqs_scales_are_derivatives(ternary):
    # Both scales enter the values linearly: finite differences are exact but for rounding.
    weight, target = normal(4, 3), normal(4, 3, seed=2)

    def loss(positive, negative):
        above, below = weight > 0.05 * weight.abs().max(), weight < -0.05 * weight.abs().max()
        return float((target * (positive * above.double() - negative * below.double())).sum())

    (target * ternary(weight)).sum().backward()
    assert float(ternary.positive.grad) == pytest.approx((loss(1.0, 0.0) - loss(0.0, 0.0)), rel=1e-12)
    assert float(ternary.negative.grad) == pytest.approx((loss(0.0, 1.0) - loss(0.0, 0.0)), rel=1e-12)


def test_a_step_against_its_gradient_moves_the_negative_scale_the_right_way():
    # The target is -2 where the weight is negative: W_n must grow from 1. Without the minus it would shrink.
    quantizer = TernaryWeights(leaf([1.0, -1.0]))
    F.mse_loss(quantizer(leaf([1.0, -1.0])), leaf([1.0, -2.0]).detach()).backward()
    assert float(quantizer.negative.detach() - 0.1 * quantizer.negative.grad) > 1.0


def test_the_sign_of_inputs_passes_gradients_only_within_one():
    inputs = leaf([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5])
    outputs = SignActivation()(inputs)
    assert outputs.tolist() == [-1, -1, -1, 1, 1, 1, 1]
    outputs.backward(leaf([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]).detach())
    assert inputs.grad.tolist() == [0, 0, 3, 4, 5, 0, 0]


@pytest.mark.parametrize(
    "quantizer", [Signs(), ScaledSigns(), TernaryWeights(torch.ones(1)), SignActivation()]
)
def test_what_is_no_number_does_not_become_one(quantizer):
    assert quantizer(torch.tensor([[1.0, float("nan"), -1.0]])).isnan().any()


@pytest.mark.parametrize("quantizer", [Signs(), ScaledSigns(), TernaryWeights(torch.ones(1).double())])
def test_codes_and_scales_are_the_weights_taken_apart(quantizer):
    weight = normal(4, 3, 2, 2)
    weight[0, 0, 0] = torch.tensor([0.0, 0.001])
    if isinstance(quantizer, TernaryWeights):
        quantizer.positive.data.fill_(0.5)
        quantizer.negative.data.fill_(0.75)
    codes = quantizer.encode(weight)
    assert codes.codes.dtype == torch.int8
    positive, negative = (codes.scales[:, side, None, None, None] for side in (0, -1))
    put_together = (codes.codes == 1) * positive - (codes.codes == -1) * negative
    assert torch.equal(put_together, quantizer(weight).detach())


# --- networks -----------------------------------------------------------------------------------------------


def weight_layers(backbone):
    return [name for name, layer in backbone.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_layers_are_quantised_but_the_first_and_the_last(name, scheme):
    plain = weight_layers(build(name))
    assert plain[0] in ("stem", "conv1")
    assert plain[-1] in ("classifier", "fc")
    expected = plain if scheme == "binary_connect" else plain[1:-1]
    assert list(quantized_layers(build(name, scheme))) == expected


@pytest.mark.parametrize("name", ["preact-8-w4", "preact-bottleneck-11"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scheme", ["binary_connect", "ttq", "bwn"])
def test_a_network_computes_as_one_whose_weights_are_the_quantised_ones(name, scheme, training):
    quantised, plain = build(name, scheme).train(training), build(name).train(training)
    for layer_name, layer in quantized_layers(quantised).items():
        plain.get_submodule(layer_name).weight.data = layer.quantizer(layer.weight).detach()
    features, expected = quantised(images(quantised)), plain(images(plain))
    assert torch.equal(features.logits, expected.logits)
    assert not torch.equal(features.logits, build(name).train(training)(images(plain)).logits)


@pytest.mark.parametrize("training", [True, False])
def test_an_xnor_block_is_batchnorm_sign_binary_convolution(training):
    backbone = build("preact-8-w4", "xnor").train(training)
    block = backbone.stages[1][0]
    assert type(block) is BasicBlock
    for norm in (block.norm1, block.norm2):  # binary sums are often 0: without a bias, rounding has the say
        norm.bias.data = 0.3 * normal(len(norm.bias), seed=2)
    inputs = normal(3, 4, 8, 8)

    def signs(values):
        return torch.where(values >= 0, 1.0, -1.0).double()

    def convolve(layer, values, **options):
        alpha = layer.weight.detach().abs().mean(dim=(1, 2, 3))
        return F.conv2d(values, signs(layer.weight), **options) * alpha[:, None, None]

    def normalise(norm, values):
        variance, mean = torch.var_mean(values, dim=(0, 2, 3), keepdim=True, correction=0)
        if not training:
            variance, mean = torch.ones(()), torch.zeros(())
        return (values - mean) / (variance + 1e-5).sqrt() + norm.bias.detach()[:, None, None]

    active = signs(normalise(block.norm1, inputs))
    hidden = signs(normalise(block.norm2, convolve(block.conv1, active, stride=2, padding=1)))
    expected = convolve(block.conv2, hidden, padding=1) + convolve(block.projection, active, stride=2)
    torch.testing.assert_close(block(inputs), expected, rtol=1e-12, atol=1e-12)


def test_xnor_leaves_the_relu_before_the_classifier():
    backbone = build("preact-8-w4", "xnor")
    assert (backbone(images(backbone)).descriptor > 0).any()
    assert (backbone(images(backbone)).descriptor % 1 != 0).any()


def test_xnor_gives_convolutions_of_other_blocks_the_signs_of_their_normalised_inputs():
    backbone = build("resnet-18", "xnor").train()
    seen = {}
    for name, layer in quantized_layers(backbone).items():
        layer.first.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    backbone(images(backbone))
    assert list(seen) == list(quantized_layers(backbone))
    for outputs in seen.values():
        assert set(outputs.unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("synchronised", [True, False])
def test_batchnorms_that_xnor_adds_are_synchronised_as_the_others_are(synchronised):
    backbone = build("resnet-18")
    if synchronised:
        synchronise(backbone)
    quantize(backbone, "xnor")
    norms = [layer for layer in backbone.modules() if isinstance(layer, BatchNorm2d)]
    assert len(norms) == 20 + 19  # of the network, and of the convolutions behind its first
    assert {norm.synchronised for norm in norms} == {synchronised}


@pytest.mark.parametrize(
    ("name", "scheme"), [*itertools.product(NETWORKS[:3], SCHEMES), ("resnet-18", "xnor")]
)
def test_every_parameter_learns(name, scheme):
    backbone = build(name, scheme)
    # Logits of random images with a random target: no gradient is zero by symmetry.
    backbone(images(backbone)).logits.mul(normal(4, 5, seed=3)).sum().backward()
    for parameter_name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


def test_ttq_adds_two_learned_scales_per_layer_that_start_at_one():
    backbone, plain = build(scheme="ttq"), build()
    added = dict(backbone.named_parameters()).keys() - dict(plain.named_parameters()).keys()
    expected = {
        f"{name}.quantizer.{side}" for name in quantized_layers(backbone) for side in ("positive", "negative")
    }
    assert added == expected
    assert all(backbone.get_parameter(name).tolist() == 1.0 for name in added)
    assert all(backbone.get_parameter(name).dtype == torch.float64 for name in added)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_real_weights_keep_their_names_values_and_identity(scheme):
    backbone = build()
    before = dict(backbone.named_parameters())
    values = {name: parameter.detach().clone() for name, parameter in before.items()}
    quantize(backbone, scheme)
    after = dict(backbone.named_parameters())
    assert all(after[name] is before[name] for name in before)
    assert all(torch.equal(after[name].detach(), values[name]) for name in before)


@pytest.mark.parametrize("name", ["preact-8-w4", "preact-bottleneck-11"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_state_dict_brings_a_network_back(name, scheme):
    trained = build(name, scheme)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    trained(images(trained)).logits.square().sum().backward()
    optimizer.step()
    buffer = io.BytesIO()
    torch.save(trained.state_dict(), buffer)
    buffer.seek(0)
    loaded = build(name, scheme, seed=9)
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(loaded.eval()(images(loaded)).logits, trained.eval()(images(trained)).logits)


def test_binary_connect_clips_all_real_weights_and_only_those():
    backbone = build(scheme="binary_connect")
    for parameter in backbone.parameters():
        parameter.data.fill_(1.5)
    backbone.stem.weight.data.fill_(-1.5)
    backbone.stages[0][0].conv1.weight.data.fill_(0.25)
    clip_weights(real_weights(backbone))
    assert (backbone.stem.weight == -1).all()
    assert (backbone.stages[0][0].conv1.weight == 0.25).all()
    assert (backbone.classifier.weight == 1).all()
    assert (backbone.classifier.bias == 1.5).all()
    assert (backbone.norm.weight == 1.5).all()


@pytest.mark.parametrize("scheme", ["bwn", "xnor"])
def test_all_real_weights_of_bwn_are_prepared_and_only_those(scheme):
    backbone = build(scheme=scheme)
    before = {name: parameter.detach().clone() for name, parameter in backbone.named_parameters()}
    prepare_weights(real_weights(backbone))
    quantised = {f"{name}.weight" for name in quantized_layers(backbone)}
    for name, parameter in backbone.named_parameters():
        if name in quantised:
            expected = before[name] - before[name].mean(dim=1, keepdim=True)
            assert torch.equal(parameter.detach(), expected.clamp(-1, 1))
        else:
            assert torch.equal(parameter.detach(), before[name])


@pytest.mark.parametrize("scheme", [None, "ttq", "binary_connect"])
def test_preparing_leaves_other_networks_alone(scheme):
    backbone = build(scheme=scheme)
    before = {name: parameter.detach().clone() for name, parameter in backbone.named_parameters()}
    prepare_weights(real_weights(backbone))
    assert all(torch.equal(parameter, before[name]) for name, parameter in backbone.named_parameters())


def test_a_uniform_start_draws_all_weights_of_layers_and_nothing_else():
    backbone, plain = build("preact-20"), build("preact-20")
    start_uniform(backbone, torch.Generator().manual_seed(3))
    layers = weight_layers(backbone)
    drawn = torch.cat([backbone.get_submodule(name).weight.detach().flatten() for name in layers])
    assert 0.999 < float(drawn.abs().max()) <= 1
    assert float(drawn.mean()) == pytest.approx(0, abs=5e-3)  # 270,000 of them: 4 deviations of the mean
    assert float(drawn.var()) == pytest.approx(1 / 3, abs=3e-3)
    weights = {f"{name}.weight" for name in layers}
    for name, parameter in backbone.named_parameters():
        assert torch.equal(parameter, plain.get_parameter(name)) == (name not in weights), name
    again = build("preact-20", seed=9, dtype=torch.float32)
    start_uniform(again, torch.Generator().manual_seed(3))
    assert all(
        torch.equal(again.get_parameter(name).double(), backbone.get_parameter(name)) for name in weights
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_how_weights_are_trained_is_not_what_a_layer_computes(scheme):
    literal = QuantizationConfig(scale_gradient=False, center=False, clamp=False, scale_rate=False)
    networks = [build() for _ in range(2)]
    for network, training in zip(networks, (literal, QuantizationConfig()), strict=True):
        quantize(network, scheme, training)
    first, second = (network(images(network)).logits for network in networks)
    assert torch.equal(first, second)


@pytest.mark.parametrize("scheme", [None, "ttq", "bwn", "xnor"])
def test_clipping_leaves_other_networks_alone(scheme):
    backbone = build(scheme=scheme)
    for parameter in backbone.parameters():
        parameter.data.fill_(1.5)
    clip_weights(real_weights(backbone))
    assert all((parameter == 1.5).all() for parameter in backbone.parameters())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_bfloat16_autocast_trains(scheme):
    backbone = build(scheme=scheme, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = backbone(images(backbone))
    assert features.logits.dtype == torch.float32
    features.logits.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())


def test_grouped_and_biased_layers_keep_their_settings():
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=1, groups=2, padding_mode="reflect").double()
    quantised = QuantizedConv2d(layer, Signs())
    inputs = normal(2, 4, 7, 7)
    layer_of_signs = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, padding_mode="reflect").double()
    layer_of_signs.load_state_dict({"weight": Signs()(layer.weight), "bias": layer.bias})
    assert torch.equal(quantised(inputs), layer_of_signs(inputs))
    linear = nn.Linear(4, 3).double()
    rows = normal(2, 4)
    expected = rows @ torch.where(linear.weight >= 0, 1.0, -1.0).double().T + linear.bias
    torch.testing.assert_close(QuantizedLinear(linear, Signs())(rows), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_small_network_learns_what_is_easy_with_quantised_weights(scheme):
    labels = torch.arange(60) % 3
    bright = normal(60, 1, 8, 8).float()
    bright[:, 0, 0:4] += 2.0 * labels[:, None, None]
    backbone = build(scheme=scheme, dtype=torch.float32)
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1, momentum=0.9)
    for step in range(80):
        optimizer.param_groups[0]["lr"] = 0.1 if step < 50 else 0.001
        optimizer.zero_grad()
        F.cross_entropy(backbone(bright).logits, labels).backward()
        optimizer.step()
        clip_weights(real_weights(backbone))
    assert (backbone.eval()(bright).logits.argmax(1) == labels).float().mean() > 0.9
