"""The ResNets of ImageNet against torchvision's own."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet

from hkrun.models import AttentionEstimator, BatchNorm2d, DistilledNetwork, build_network, initialise
from hkrun.networks import parse_network

TORCHVISION = {"resnet-18": resnet.resnet18, "resnet-50": resnet.resnet50, "resnet-152": resnet.resnet152}
# Published with torchvision's weights.
NUM_PARAMETERS = {"resnet-18": 11_689_512, "resnet-50": 25_557_032, "resnet-152": 60_192_808}


def perturb(network: nn.Module) -> None:
    """Gives BatchNorm statistics that a wrong order of layers would not survive."""
    generator = torch.Generator().manual_seed(3)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)


@pytest.mark.parametrize("name", TORCHVISION)
def test_parameters_are_as_many_as_torchvisions(name):
    with torch.device("meta"):
        backbone = build_network(name, num_classes=1000, in_channels=3)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == NUM_PARAMETERS[name]


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_weights_load_and_give_its_logits(name):
    torch.manual_seed(0)
    reference = TORCHVISION[name](num_classes=5).eval()
    perturb(reference)
    backbone = build_network(name, num_classes=5, in_channels=3).eval()
    backbone.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = backbone(images)
        assert torch.equal(features.logits, reference(images))
        assert torch.equal(features.descriptor, reference.avgpool(features.stages[-1]).flatten(1))


@pytest.mark.parametrize("name", TORCHVISION)
def test_four_stages_have_the_widths_of_the_shape(name):
    with torch.no_grad(), torch.device("meta"):
        backbone = build_network(name, num_classes=5, in_channels=3).eval()
        features = backbone(torch.empty(1, 3, 224, 224))
    assert backbone.widths == parse_network(name).widths
    assert [tuple(stage.shape[1:]) for stage in features.stages] == [
        (width, size, size) for width, size in zip(backbone.widths, (56, 28, 14, 7), strict=True)
    ]
    assert features.stem.shape == (1, 64, 56, 56)
    assert features.descriptor.shape == (1, backbone.descriptor_width)


def test_training_is_torchvisions_too():
    torch.manual_seed(0)
    reference = resnet.resnet18(num_classes=5).double()
    backbone = build_network("resnet-18", num_classes=5, in_channels=3).double()
    backbone.load_state_dict(reference.state_dict())
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    reference(images).square().sum().backward()
    backbone(images).logits.square().sum().backward()
    gradients = dict(backbone.named_parameters())
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-9, atol=1e-12)


def test_every_batchnorm_is_hkruns_own_so_that_workers_can_share_statistics():
    backbone = build_network("resnet-50", num_classes=5, in_channels=3)
    layers = [layer for layer in backbone.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(layers) == 53
    assert all(isinstance(layer, BatchNorm2d) for layer in layers)


def test_grey_images_have_a_stem_of_their_own():
    backbone = build_network("resnet-18", num_classes=5, in_channels=1)
    assert backbone(torch.randn(2, 1, 64, 64)).logits.shape == (2, 5)


def test_initial_weights_come_from_the_generator_alone():
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        backbone = build_network("resnet-18", num_classes=5, in_channels=3)
        initialise(backbone, torch.Generator().manual_seed(4))
        states.append(backbone.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_attention_takes_all_four_stages_of_a_teacher_to_the_students_widths():
    teacher = build_network("resnet-50", num_classes=5, in_channels=3)
    widths = parse_network("resnet-18").widths
    attention = AttentionEstimator(
        teacher.widths,
        descriptor_width=teacher.descriptor_width,
        connection="hierarchical",
        pool="sum",
        tap="bn_relu",
        squeeze_widths=widths,
    )
    output = DistilledNetwork(teacher, attention)(torch.randn(2, 3, 64, 64))
    assert output.knowledge.shape == (2, sum(widths))
