"""Backbones: parameter counts, shapes, and the forward pass against independent implementations."""

import pytest
import torch
from pytorchcv.models.preresnet_cifar import get_preresnet_cifar
from pytorchcv.models.wrn_cifar import get_wrn_cifar
from torch import Tensor, nn
from torch.nn import functional as F

from hkrun.errors import InputError
from hkrun.models import BatchNorm2d, Features, build_network, initialise
from hkrun.models.preact import BasicBlock, BottleneckBlock


def build(name, *, num_classes=10, in_channels=3, seed=0):
    network = build_network(name, num_classes=num_classes, in_channels=in_channels)
    initialise(network, torch.Generator().manual_seed(seed))
    return network


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "num_classes", "parameters"),
    [
        ("preact-20", 10, 272_282),
        ("preact-20", 100, 278_132),
        ("preact-164", 10, 2_605_466),
        ("preact-164", 100, 2_611_316),
        ("preact-bottleneck-164", 10, 1_703_258),
        ("preact-bottleneck-164", 100, 1_726_388),
    ],
)
def test_parameter_counts_are_the_published_ones(name, num_classes, parameters):
    assert count(build_network(name, num_classes=num_classes, in_channels=3)) == parameters


@pytest.mark.parametrize(
    ("name", "millions"), [("wrn-16-2", "0.69"), ("wrn-28-10", "36.5"), ("wrn-40-2", "2.24")]
)
def test_parameter_counts_of_wide_networks_round_to_the_published_ones(name, millions):
    parameters = count(build_network(name, num_classes=10, in_channels=3))
    decimals = len(millions.split(".")[1])
    assert f"{parameters / 1e6:.{decimals}f}" == millions


def pytorchcv_network(name, num_classes):
    *family, depth = name.split("-")
    if family[0] == "wrn":
        return get_wrn_cifar(num_classes=num_classes, blocks=int(family[1]), width_factor=int(depth))
    return get_preresnet_cifar(num_classes=num_classes, blocks=int(depth), bottleneck="bottleneck" in family)


PYTORCHCV_NAMES = ["preact-20", "preact-56", "preact-bottleneck-29", "wrn-16-2", "wrn-10-1", "wrn-40-2"]


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize("name", [*PYTORCHCV_NAMES, "preact-164", "preact-bottleneck-164", "wrn-28-10"])
def test_parameters_have_the_shapes_of_pytorchcv_in_its_order(name, num_classes):
    ours = build_network(name, num_classes=num_classes, in_channels=3)
    theirs = pytorchcv_network(name, num_classes)
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", PYTORCHCV_NAMES)
def test_logits_and_gradients_equal_those_of_pytorchcv(name, training):
    generator = torch.Generator().manual_seed(1)
    ours = build(name).double().train(training)
    theirs = pytorchcv_network(name, 10).double().train(training)
    for buffer_name, buffer in ours.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.normal_(generator=generator)
        elif buffer_name.endswith("running_var"):
            buffer.uniform_(0.5, 2, generator=generator)
    for parameter_name, parameter in ours.named_parameters():
        if "norm" in parameter_name:
            parameter.data.normal_(generator=generator)
    state = ours.state_dict()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    images = normal(4, 3, 32, 32)

    logits = ours(images).logits
    expected = theirs(images)
    torch.testing.assert_close(
        logits, expected, rtol=1e-10, atol=1e-10 * float(expected.detach().abs().max())
    )

    logits.square().mean().backward()
    expected.square().mean().backward()
    for parameter, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        scale = float(reference.grad.abs().max())
        torch.testing.assert_close(parameter.grad, reference.grad, rtol=1e-8, atol=1e-8 * scale)
    for buffer, reference in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(buffer, reference, rtol=1e-10, atol=1e-10)


def weight_layers(network, *, projections):
    return sum(
        isinstance(module, nn.Conv2d | nn.Linear) and (projections or "projection" not in name)
        for name, module in network.named_modules()
    )


@pytest.mark.parametrize("name", ["preact-8", "preact-20", "preact-bottleneck-11", "preact-bottleneck-29"])
def test_depth_counts_the_weight_layers_without_projections(name):
    network = build_network(name, num_classes=10, in_channels=3)
    assert weight_layers(network, projections=False) == int(name.split("-")[-1])


@pytest.mark.parametrize("name", ["wrn-10-2", "wrn-16-2", "wrn-40-4"])
def test_depth_of_a_wide_network_counts_its_convolutions_with_projections(name):
    # Their paper counts the stem, 6n convolutions and the three projections, not the classifier.
    network = build_network(name, num_classes=10, in_channels=3)
    assert weight_layers(network, projections=True) - 1 == int(name.split("-")[1])


@pytest.mark.parametrize(
    ("name", "in_channels", "size", "shapes"),
    [
        ("preact-20", 3, 32, [(16, 32), (32, 16), (64, 8)]),
        ("preact-bottleneck-11", 3, 32, [(64, 32), (128, 16), (256, 8)]),
        ("wrn-10-2", 3, 32, [(32, 32), (64, 16), (128, 8)]),
        ("preact-20", 1, 28, [(16, 28), (32, 14), (64, 7)]),
        ("preact-8-w8", 1, 8, [(8, 8), (16, 4), (32, 2)]),
        ("preact-20-w32", 1, 8, [(32, 8), (64, 4), (128, 2)]),
        ("wrn-16-1", 1, 8, [(16, 8), (32, 4), (64, 2)]),
    ],
)
def test_stages_have_the_widths_of_the_name_and_halve_the_resolution(name, in_channels, size, shapes):
    network = build(name, num_classes=7, in_channels=in_channels)
    features = network(normal(2, in_channels, size, size, dtype=torch.float32))
    assert [tuple(stage.shape) for stage in features.stages] == [
        (2, width, side, side) for width, side in shapes
    ]
    assert network.widths == tuple(width for width, _ in shapes)
    assert features.descriptor.shape == (2, network.descriptor_width)
    assert network.descriptor_width == shapes[-1][0]
    assert features.logits.shape == (2, 7)


@pytest.mark.parametrize("name", ["preact-20", "preact-bottleneck-11", "wrn-10-2"])
def test_stem_has_no_batchnorm_and_convolutions_no_bias(name):
    network = build(name)
    assert type(network.stem) is nn.Conv2d
    assert all(layer.bias is None for layer in network.modules() if isinstance(layer, nn.Conv2d))
    assert network.classifier.bias is not None
    norms = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(type(norm) is BatchNorm2d for norm in norms)


def norm_relu(norm: nn.BatchNorm2d, inputs: Tensor) -> Tensor:
    """BN-ReLU in training, from its definition."""
    mean = inputs.mean(dim=(0, 2, 3), keepdim=True)
    variance = (inputs - mean).square().mean(dim=(0, 2, 3), keepdim=True)
    normalised = (inputs - mean) / (variance + 1e-5).sqrt()
    return (normalised * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)


def prepared_block(block):
    initialise(block, torch.Generator().manual_seed(0))
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
            layer.bias.data.uniform_(-1, 1, generator=torch.Generator().manual_seed(2))
    return block.double()


@pytest.mark.parametrize(("in_channels", "stride"), [(8, 1), (4, 1), (8, 2), (4, 2)])
def test_basic_block_adds_two_convolutions_to_its_shortcut(in_channels, stride):
    block = prepared_block(BasicBlock(in_channels, 8, stride=stride))
    inputs = normal(3, in_channels, 6, 6)
    active = norm_relu(block.norm1, inputs)
    hidden = F.conv2d(active, block.conv1.weight, stride=stride, padding=1)
    residual = F.conv2d(norm_relu(block.norm2, hidden), block.conv2.weight, padding=1)
    if (in_channels, stride) == (8, 1):
        assert block.projection is None
        shortcut = inputs
    else:
        shortcut = F.conv2d(active, block.projection.weight, stride=stride)
    torch.testing.assert_close(block(inputs), residual + shortcut, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("in_channels", "stride"), [(8, 1), (4, 1), (8, 2)])
def test_bottleneck_block_narrows_to_a_quarter_and_strides_at_its_3x3_convolution(in_channels, stride):
    block = prepared_block(BottleneckBlock(in_channels, 8, stride=stride))
    inputs = normal(3, in_channels, 6, 6)
    active = norm_relu(block.norm1, inputs)
    hidden = F.conv2d(active, block.conv1.weight)
    assert hidden.shape[1] == 2
    hidden = F.conv2d(norm_relu(block.norm2, hidden), block.conv2.weight, stride=stride, padding=1)
    residual = F.conv2d(norm_relu(block.norm3, hidden), block.conv3.weight)
    if (in_channels, stride) == (8, 1):
        assert block.projection is None
        shortcut = inputs
    else:
        shortcut = F.conv2d(active, block.projection.weight, stride=stride)
    torch.testing.assert_close(block(inputs), residual + shortcut, rtol=1e-12, atol=1e-12)


def test_features_are_the_raw_stage_outputs_and_the_pooled_descriptor():
    network = build("preact-14-w4").double().eval()
    images = normal(2, 3, 16, 16)
    features = network(images)
    hidden = network.stem(images)
    assert torch.equal(features.stem, hidden)
    for stage, output in zip(network.stages, features.stages, strict=True):
        hidden = stage(hidden)
        assert torch.equal(output, hidden)
        assert output.min() < 0  # before any ReLU
    descriptor = F.relu(network.norm(hidden)).flatten(2).mean(dim=2)
    torch.testing.assert_close(features.descriptor, descriptor, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(features.logits, network.classifier(descriptor), rtol=1e-14, atol=1e-14)


def test_each_image_is_computed_alone_in_eval_mode():
    network = build("preact-8-w4", in_channels=1).double().eval()
    images = normal(3, 1, 8, 8)
    together = network(images).logits
    alone = torch.cat([network(images[i : i + 1]).logits for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_bfloat16_autocast_trains_and_gives_logits_in_float32():
    network = build("preact-8-w4", in_channels=1)
    images = normal(8, 1, 8, 8, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features: Features = network(images)
    assert features.stages[0].dtype == torch.bfloat16
    assert features.logits.dtype == torch.float32
    features.logits.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    reference = build("preact-8-w4", in_channels=1)(images).logits.detach()
    torch.testing.assert_close(
        features.logits.detach(), reference, rtol=0, atol=0.05 * float(reference.abs().max())
    )


@pytest.mark.parametrize("name", ["preact-21", "resnet-20", "wrn-16", "preact-bottleneck-21", "wrn-17-2"])
def test_a_name_that_is_no_network_is_refused(name):
    with pytest.raises(InputError, match=name):
        build_network(name, num_classes=10, in_channels=3)
