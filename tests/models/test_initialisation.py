"""Initial weights: one generator decides them all, and nothing else does."""

import functools
import math

import pytest
import torch
from torch import nn
from torchvision.models import get_model, vgg

from hkrun.models import (
    AttentionEstimator,
    Discriminator,
    DistilledNetwork,
    build_network,
    initialise,
)


def build(name="preact-8-w4", *, attention=False):
    backbone = build_network(name, num_classes=10, in_channels=1)
    if not attention:
        return DistilledNetwork(backbone)
    return DistilledNetwork(
        backbone,
        AttentionEstimator(
            backbone.widths,
            descriptor_width=backbone.descriptor_width,
            connection="hierarchical",
            pool="sum",
            tap="bn_relu",
            squeeze_widths=(3, 8, 16),
        ),
    )


def generator(seed):
    return torch.Generator().manual_seed(seed)


NETWORKS = {
    "backbone": lambda: build("preact-8-w4"),
    "bottleneck": lambda: build("preact-bottleneck-11"),
    "wide": lambda: build("wrn-10-2"),
    "attention": lambda: build(attention=True),
    "discriminator": lambda: Discriminator(10, num_classes=10),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_generator_alone_decides_every_bit(kind):
    states = []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        network = NETWORKS[kind]()
        # Whatever a layer held before, running statistics included, must not show.
        for tensor in network.state_dict().values():
            tensor.copy_(torch.randint(2, 9, tensor.shape))
        initialise(network, generator(5))
        states.append(network.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


@pytest.mark.parametrize("kind", NETWORKS)
def test_another_seed_gives_every_weight_matrix_another_value(kind):
    first, second = NETWORKS[kind](), NETWORKS[kind]()
    initialise(first, generator(0))
    initialise(second, generator(1))
    drawn = [
        (name, parameter)
        for name, parameter in first.named_parameters()
        if parameter.dim() > 1 or "classifier" in name or kind == "discriminator"
    ]
    assert drawn
    others = dict(second.named_parameters())
    assert all(not torch.equal(parameter, others[name]) for name, parameter in drawn)


def test_the_global_generator_is_left_alone():
    network = build(attention=True)
    before = torch.get_rng_state()
    initialise(network, generator(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_backbone_weights_do_not_depend_on_the_attention_sub_network():
    plain, attended = build(), build(attention=True)
    initialise(plain, generator(3))
    initialise(attended, generator(3))
    ours = attended.backbone.state_dict()
    for name, tensor in plain.backbone.state_dict().items():
        assert torch.equal(tensor, ours[name]), name


def test_a_network_starts_from_the_same_weights_in_float64():
    single, double = build(attention=True), build(attention=True).double()
    initialise(single, generator(3))
    initialise(double, generator(3))
    for expected, parameter in zip(single.parameters(), double.parameters(), strict=True):
        assert parameter.dtype == torch.float64
        assert torch.equal(parameter, expected.double())


def test_convolutions_are_he_normal_over_their_outputs():
    network = build("preact-20-w32").backbone
    initialise(network, generator(0))
    layer = network.stages[2][0].conv1  # 64 -> 128 channels, 73,728 weights
    assert layer.weight.shape == (128, 64, 3, 3)
    expected = math.sqrt(2 / (128 * 9))
    # The sd of a sample sd is expected / sqrt(2 n): four of them are 1.04 %.
    assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.0105)
    assert abs(float(layer.weight.detach().mean())) < 4 * expected / math.sqrt(73_728)
    beyond = (layer.weight.detach().abs() > 2 * expected).double().mean()
    assert float(beyond) == pytest.approx(math.erfc(2 / math.sqrt(2)), rel=0.1)  # normal, not uniform


def test_biases_of_convolutions_start_at_zero_and_draw_nothing():
    plain, biased = nn.Conv2d(2, 3, 3, bias=False), nn.Conv2d(2, 3, 3, bias=True)
    initialise(plain, generator(0))
    initialise(biased, generator(0))
    assert torch.equal(biased.weight, plain.weight)
    assert biased.bias.tolist() == [0.0, 0.0, 0.0]


TORCHVISIONS = {
    "vgg11_bn": lambda: vgg.make_layers(vgg.cfgs["A"], batch_norm=True),  # without its 120 million weights
    **{
        name: functools.partial(get_model, name, weights=None, num_classes=2)
        for name in ("efficientnet_b0", "mobilenet_v3_small", "squeezenet1_1")
    },
}


@pytest.mark.parametrize("name", TORCHVISIONS)
def test_torchvisions_networks_with_biases_are_initialised(name):
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = TORCHVISIONS[name]()
        initialise(network, generator(5))
        states.append(network.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_linear_layers_are_uniform_within_one_over_the_root_of_their_inputs():
    network = Discriminator(100, num_classes=100)
    initialise(network, generator(0))
    for layer in (network.hidden[0], network.hidden[1], network.output):
        for parameter in (layer.weight, layer.bias):
            largest = float(parameter.detach().abs().max())
            assert 0.09 < largest <= 0.1
        assert float(layer.weight.detach().std()) == pytest.approx(0.1 / math.sqrt(3), rel=0.02)


def test_batchnorm_starts_as_the_identity():
    network = build(attention=True)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        for tensor in norm.state_dict().values():
            tensor.fill_(7)
    initialise(network, generator(0))
    for norm in norms:
        assert torch.equal(norm.weight, torch.ones(norm.num_features))
        assert torch.equal(norm.bias, torch.zeros(norm.num_features))
        assert torch.equal(norm.running_mean, torch.zeros(norm.num_features))
        assert torch.equal(norm.running_var, torch.ones(norm.num_features))
        assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("layer", [nn.PReLU(), nn.Conv1d(1, 1, 1)])
def test_a_layer_without_a_rule_is_refused(layer):
    with pytest.raises(TypeError, match=type(layer).__name__):
        initialise(nn.Sequential(layer), generator(0))


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.rand(3))

    def reset_constants(self):
        nn.init.constant_(self.factor, 4.0)


def test_a_layer_that_starts_constant_sets_its_own_parameters_and_draws_nothing():
    given = generator(0)
    scale = nn.Sequential(Scale())
    initialise(scale, given)
    assert scale[0].factor.tolist() == [4.0, 4.0, 4.0]
    assert torch.equal(given.get_state(), generator(0).get_state())


@pytest.mark.parametrize("layer", [nn.LayerNorm(3), nn.GroupNorm(1, 3)])
def test_normalisations_start_as_the_identity(layer):
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    initialise(layer, torch.Generator().manual_seed(0))
    assert torch.equal(layer.weight, torch.ones(3))
    assert torch.equal(layer.bias, torch.zeros(3))
