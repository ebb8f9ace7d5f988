"""The networks of the literature's tables for CIFAR, against public implementations."""

import pytest
import torch
from pytorchcv.models.resnet_cifar import get_resnet_cifar
from torch import Tensor, nn

from hkrun.models import BatchNorm2d, build_network, initialise
from hkrun.networks import CIFAR_NETWORKS, parse_network

# Of 100 classes; counted in the networks of CRD's public code, RepDistiller at its commit b84f547.
NUM_PARAMETERS = {
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn-40-2": 2_255_156,
    "wrn-16-2": 703_284,
    "wrn-40-1": 569_780,
    "vgg8": 3_965_028,
    "vgg13": 9_462_180,
    "mobilenetv2-half": 812_836,
    "shufflenetv1": 949_258,
    "shufflenetv2": 1_355_528,
}
# What the same code's networks answer with the weights and the image of `prepare`: the first three logits.
LOGITS = {
    "resnet8x4": (-2.61995, -2.993995, -3.404204),
    "resnet32x4": (-931.844969, 319.37579, -2348.391962),
    "wrn-16-2": (-28.419386, 8.481946, -15.170378),
    "vgg8": (4.20614, -1.277541, -4.612384),
    "vgg13": (8.379721, -0.668332, 0.302798),
    "mobilenetv2-half": (3505.382535, -5313.962493, 2390.013449),
    "shufflenetv1": (-1282.239255, -2339.496877, 3410.770287),
    "shufflenetv2": (-202.68528, 121.176317, 495.238502),
}
# The Euclidean norm of all gradients of their mean square, in training, with the same weights and images.
GRADIENT_NORMS = {
    "resnet8x4": 1.7186892757782608,
    "resnet32x4": 13.24007467399384,
    "wrn-16-2": 0.7048681006512927,
    "vgg8": 1.2857567641401746,
    "vgg13": 2.0980469319901367,
    "mobilenetv2-half": 16.77495772868487,
    "shufflenetv1": 48.65823801101219,
    "shufflenetv2": 5.2271397143740765,
}
# Channels and side of each stage's output, and of the stem's, on images of 32x32.
SHAPES = {
    "resnet56": [(16, 32), (16, 32), (32, 16), (64, 8)],
    "resnet8x4": [(32, 32), (64, 32), (128, 16), (256, 8)],
    "resnet32x4": [(32, 32), (64, 32), (128, 16), (256, 8)],
    "vgg8": [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)],
    "vgg13": [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)],
    "mobilenetv2-half": [(16, 16), (12, 16), (16, 8), (48, 4), (1280, 2)],
    "shufflenetv1": [(24, 32), (240, 16), (480, 8), (960, 4)],
    "shufflenetv2": [(24, 32), (116, 16), (232, 8), (1024, 4)],
}


def prepare(network: nn.Module) -> Tensor:
    """Sets every weight and statistic, in the order of the state_dict, and draws four images."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith("num_batches_tracked"):
            pass
        elif tensor.dim() > 1:
            tensor.normal_(std=(2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(std=0.1, generator=generator)
        else:
            tensor.uniform_(0.5, 1.5, generator=generator)
    return torch.randn(4, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_every_network_is_checked_below():
    assert NUM_PARAMETERS.keys() >= CIFAR_NETWORKS.keys()
    assert {name for name in CIFAR_NETWORKS if name[6:] not in ("20", "32", "56", "110")} <= LOGITS.keys()


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_parameters_are_as_many_as_in_the_tables_code(name):
    network = build_network(name, num_classes=100, in_channels=3)
    assert sum(parameter.numel() for parameter in network.parameters()) == NUM_PARAMETERS[name]


@pytest.mark.parametrize("name", LOGITS)
def test_logits_are_those_of_the_tables_code(name):
    network = build_network(name, num_classes=100, in_channels=3).double().eval()
    images = prepare(network)
    with torch.no_grad():
        logits = network(images).logits
    expected = torch.tensor(LOGITS[name], dtype=torch.float64)
    torch.testing.assert_close(logits[0, :3], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", GRADIENT_NORMS)
def test_gradients_are_those_of_the_tables_code(name):
    # A bias before another BatchNorm has the gradient 0; what is computed is rounding, and differs.
    network = build_network(name, num_classes=100, in_channels=3).double().train()
    network(prepare(network)).logits.square().mean().backward()
    squares = [parameter.grad.square().sum() for parameter in network.parameters()]
    assert float(sum(squares)) ** 0.5 == pytest.approx(GRADIENT_NORMS[name], rel=1e-9)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("depth", [20, 56])
def test_resnets_logits_and_gradients_equal_those_of_pytorchcv(depth, training):
    ours = build_network(f"resnet{depth}", num_classes=10, in_channels=3).double().train(training)
    theirs = get_resnet_cifar(num_classes=10, blocks=depth, bottleneck=False).double().train(training)
    images = prepare(ours)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    logits, expected = ours(images).logits, theirs(images)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    logits.square().mean().backward()
    expected.square().mean().backward()
    for parameter, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        scale = float(reference.grad.abs().max())
        torch.testing.assert_close(parameter.grad, reference.grad, rtol=1e-8, atol=1e-8 * scale)


@pytest.mark.parametrize("name", SHAPES)
def test_stages_have_the_channels_of_the_shape_and_the_sides_of_the_tables_code(name):
    network = build_network(name, num_classes=7, in_channels=3).eval()
    with torch.no_grad():
        features = network(torch.randn(2, 3, 32, 32))
    found = [(part.shape[1], part.shape[2]) for part in (features.stem, *features.stages)]
    assert found == SHAPES[name]
    shape = parse_network(name)
    assert (shape.stem_width, *shape.widths) == tuple(channels for channels, _ in SHAPES[name])
    assert len(shape.blocks) == len(shape.widths)
    assert torch.equal(features.descriptor, features.stages[-1].mean(dim=(2, 3)))
    assert network.widths == shape.widths
    assert features.logits.shape == (2, 7)


def test_vgg_pools_once_more_on_images_of_64():
    network = build_network("vgg8", num_classes=7, in_channels=3).eval()
    with torch.no_grad():
        features = network(torch.randn(1, 3, 64, 64))
    assert [stage.shape[2] for stage in features.stages] == [32, 16, 8, 4]


@pytest.mark.parametrize("name", CIFAR_NETWORKS)
def test_grey_images_of_digits_size_pass_and_every_weight_comes_from_the_generator(name):
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        network = build_network(name, num_classes=3, in_channels=1)
        initialise(network, torch.Generator().manual_seed(4))
        states.append(network.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms
    assert all(type(norm) is BatchNorm2d for norm in norms)
    features = network(torch.randn(4, 1, 8, 8))
    features.logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
