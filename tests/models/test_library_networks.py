"""Networks of torchvision and timm, against the libraries themselves."""

import copy

import pytest
import timm
import torch
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from hkrun import user_parts
from hkrun.config import canonical, cell_id
from hkrun.data.weights import load_weights
from hkrun.errors import InputError
from hkrun.export.exporting import run_session, start_session
from hkrun.export.onnx_files import to_onnx
from hkrun.models import BatchNorm2d, build_network, initialise
from hkrun.models.library import find_network
from hkrun.models.library_stages import Tap, find_stages, watch
from hkrun.models.own import try_own
from hkrun.networks import parse_network
from hkrun.spaces import load_cell

# Channels of the stages and of what enters them, and the length of the descriptor.
SHAPES = {
    "torchvision:resnet18": (64, (64, 128, 256, 512), 512),
    "torchvision:vgg11": (64, (128, 256, 512, 512), 4096),
    "torchvision:vgg11_bn": (64, (128, 256, 512, 512), 4096),
    "torchvision:mobilenet_v2": (16, (24, 32, 96, 1280), 1280),
    "torchvision:mobilenet_v3_small": (16, (16, 24, 48, 576), 1024),
    "torchvision:efficientnet_b0": (16, (24, 40, 112, 1280), 1280),
    "torchvision:shufflenet_v2_x1_0": (24, (116, 232, 1024), 1024),
    "torchvision:densenet121": (64, (256, 512, 1024, 1024), 1024),
    "torchvision:convnext_tiny": (96, (96, 192, 384, 768), 768),
    "torchvision:regnet_y_400mf": (32, (48, 104, 208, 440), 440),
    "timm:resnet18": (64, (64, 128, 256, 512), 512),
    "timm:resnet26": (64, (256, 512, 1024, 2048), 2048),
    "timm:efficientnet_b0": (16, (24, 40, 112, 1280), 1280),
    "timm:mobilenetv3_small_100": (16, (16, 24, 48, 576), 1024),
    "timm:regnetx_002": (32, (24, 56, 152, 368), 368),
    "timm:convnext_atto": (40, (40, 80, 160, 320), 320),
}
# Modules of the libraries after which their stages end, by their documentation.
ENDS = {
    "torchvision:resnet18": ("layer1", "layer2", "layer3", "layer4"),
    "torchvision:mobilenet_v3_small": ("features.1", "features.3", "features.8", "features.12"),
    "torchvision:shufflenet_v2_x1_0": ("stage2", "stage3", "conv5"),
}
SMALL = (
    "torchvision:mobilenet_v3_small",
    "torchvision:shufflenet_v2_x1_0",
    "timm:regnetx_002",
    "timm:convnext_atto",
)


def build_theirs(name: str, *, num_classes: int) -> nn.Module:
    library, _, architecture = name.partition(":")
    if library == "timm":
        return timm.create_model(architecture, num_classes=num_classes)
    return models.get_model(architecture, weights=None, num_classes=num_classes)


def draw(side: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", SHAPES)
def test_the_stages_are_found_from_the_name_alone(name):
    found = find_network(name)
    assert (found.stem_width, found.widths, found.descriptor_width) == SHAPES[name]
    shape = parse_network(name)
    assert (shape.stem_width, shape.widths) == SHAPES[name][:2]


@pytest.mark.parametrize("name", SMALL)
def test_a_network_is_the_librarys_with_our_weights(name):
    torch.manual_seed(0)
    network = build_network(name, num_classes=3, in_channels=3)
    initialise(network, torch.Generator().manual_seed(4))
    theirs = build_theirs(name, num_classes=3)
    theirs.load_state_dict(network.state_dict())
    images = draw()
    with torch.no_grad():
        features, expected = network.eval()(images), theirs.eval()(images)
    assert torch.equal(features.logits, expected)
    assert features.stem.shape[1] == SHAPES[name][0]
    assert tuple(stage.shape[1] for stage in features.stages) == network.widths == SHAPES[name][1]
    assert features.descriptor.shape == (2, network.descriptor_width) == (2, SHAPES[name][2])
    sides = [stage.shape[2] for stage in features.stages]
    assert sides == sorted(sides, reverse=True)
    # A second build starts from the same weights: they come from the generator alone.
    again = build_network(name, num_classes=3, in_channels=3)
    initialise(again, torch.Generator().manual_seed(4))
    first = network.state_dict()
    assert all(torch.equal(value, first[key]) for key, value in again.state_dict().items())
    # Training changes every parameter, and its statistics can be those of several workers.
    network.train()(images).logits.square().sum().backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in network.parameters())
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert all(isinstance(norm, BatchNorm2d) for norm in norms)


@pytest.mark.parametrize("name", ENDS)
def test_stages_end_where_torchvisions_do(name):
    network = build_network(name, num_classes=3, in_channels=3).eval()
    theirs = build_theirs(name, num_classes=3)
    theirs.load_state_dict(network.state_dict())
    extract = create_feature_extractor(theirs.eval(), list(ENDS[name]))
    with torch.no_grad():
        features, expected = network(draw()), extract(draw())
    for stage, end in zip(features.stages, ENDS[name], strict=True):
        assert torch.equal(stage, expected[end])


@pytest.mark.parametrize("name", ["timm:resnet18", "timm:regnetx_002", "timm:convnext_atto"])
def test_stages_are_the_last_four_of_timms_features(name):
    network = build_network(name, num_classes=3, in_channels=3).eval()
    theirs = timm.create_model(name.partition(":")[2], features_only=True)
    state = network.state_dict()
    own = {key: state.get(key.replace("stages_", "stages."), state.get(key)) for key in theirs.state_dict()}
    theirs.load_state_dict({key.replace("stem_", "stem."): value for key, value in own.items()}, strict=False)
    theirs.load_state_dict(own | {key: state[key.replace("_", ".", 1)] for key in own if own[key] is None})
    with torch.no_grad():
        features, expected = network(draw()), theirs.eval()(draw())[-4:]
    assert all(torch.equal(*pair) for pair in zip(features.stages, expected, strict=True))


def test_a_stage_that_the_network_changes_in_place_is_kept_as_it_was():
    # DenseNet's forward passes the output of `features` to relu(inplace=True).
    network = build_network("torchvision:densenet121", num_classes=3, in_channels=3)
    initialise(network, torch.Generator().manual_seed(4))
    computed = []
    network.features.register_forward_hook(lambda _, __, output: computed.append(output.clone()))
    stages = network.train()(draw(64)).stages
    assert bool((stages[-1] < 0).any())
    assert torch.equal(stages[-1], computed[0])
    (gradient,) = torch.autograd.grad(stages[-1].sum(), network.features.norm5.bias)
    assert torch.equal(gradient, torch.full((1024,), 2.0 * 2 * 2))  # of every position, negative ones too


def test_what_no_later_operation_changes_is_not_copied():
    found = find_network("torchvision:densenet121")
    assert [tap.copied for tap in (found.stem, *found.stages)] == [False, False, False, False, True]
    found = find_network("torchvision:resnet18")
    assert not any(tap.copied for tap in (found.stem, *found.stages))


def test_cells_that_read_the_cell_before_the_last_too_are_taken():
    assert find_network("timm:pnasnet5large").widths == (108, 1080, 2160, 4320)


def test_an_input_that_its_own_module_changes_in_place_is_kept_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Sequential())
    network[1].extend([nn.ReLU(inplace=True), nn.Conv2d(4, 8, 3, stride=2, padding=1)])
    with torch.device("meta"):
        calls, _ = watch(network.to("meta"), torch.zeros(2, 3, 224, 224))
    (stage,) = find_stages("this", calls)
    assert stage.entry.tap == Tap("1", True, 0, copied=True)


def test_grey_images_have_a_first_convolution_of_their_own():
    for name in ("torchvision:resnet18", "torchvision:vgg11", "timm:regnetx_002"):
        with torch.device("meta"):  # shapes alone: VGG has 133 million weights
            network, whole = (
                build_network(name, num_classes=3, in_channels=1).eval(),
                build_theirs(name, num_classes=3),
            )
        assert network(draw(channels=1).to("meta")).logits.shape == (2, 3)
        first, theirs = (
            next(layer for layer in each.modules() if isinstance(layer, nn.Conv2d))
            for each in (network, whole)
        )
        assert (first.bias is None, first.stride, first.padding) == (
            theirs.bias is None,
            theirs.stride,
            theirs.padding,
        )


def test_dropout_and_stochastic_depth_are_left_out():
    network = build_network("torchvision:efficientnet_b0", num_classes=3, in_channels=3).train()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with torch.no_grad():
        network(draw())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_copy_is_a_network_of_its_own():
    network = build_network("torchvision:mobilenet_v3_small", num_classes=3, in_channels=3).eval()
    copied = copy.deepcopy(network)
    with torch.no_grad():
        expected = network(draw())
        for parameter in network.parameters():
            parameter.zero_()
        assert torch.equal(copied(draw()).stages[0], expected.stages[0])


def test_it_is_exported_with_its_logits():
    # timm's smallest: the exporter's time grows with the number of layers.
    network = build_network("timm:test_resnet", num_classes=3, in_channels=3).eval()
    session = start_session(to_onnx(copy.deepcopy(network), draw()[0], about={}), threads=1)
    with torch.no_grad():
        expected = network(draw()).logits
    torch.testing.assert_close(torch.as_tensor(run_session(session, draw().numpy())), expected)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("torchvision:resnet19", "torchvision .* has no network 'resnet19'; did you mean 'resnet18'?"),
        ("torchvision:ResNet18", "has no network 'ResNet18'; did you mean 'resnet18'?"),
        ("torchvision:fasterrcnn_resnet50_fpn", "has no network"),
        ("timm:regnetx_02", "timm .* has no network 'regnetx_02'; did you mean 'regnetx_0"),
        ("torchvision:googlenet", "it has auxiliary classifiers"),
        ("torchvision:inception_v3", "it has auxiliary classifiers"),
        ("torchvision:squeezenet1_0", "its logits are not the output of a linear layer"),
        ("torchvision:vit_b_16", "it has no stages of feature maps"),
        ("torchvision:swin_t", "it has no stages of feature maps"),
        ("timm:hrnet_w18_small", "its branches of different resolutions run side by side"),
        ("timm:hrnet_w18_small_v2", "its branches of different resolutions run side by side"),
        ("timm:vit_tiny_patch16_224", "it has no stages of feature maps"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(name, problem):
    with pytest.raises(InputError, match=f"^{name}: .*{problem}") as caught:
        parse_network(name)
    assert len(caught.value.problems) == 1


def test_images_that_are_too_small_are_refused_before_anything_trains():
    with pytest.raises(InputError, match=r"^torchvision:alexnet: fails on images of shape \(2, 1, 8, 8\): "):
        try_own("torchvision:alexnet", num_classes=10, image_shape=(1, 8, 8))
    try_own("timm:test_resnet", num_classes=10, image_shape=(1, 8, 8))


def test_a_library_has_no_data_sets():
    with pytest.raises(InputError, match="torchvision is a library of networks here, not of data sets"):
        load_cell(dataset="torchvision:CIFAR10")


# --- identity -----------------------------------------------------------------------------------------------


def test_the_librarys_public_version_is_part_of_the_cell(monkeypatch):
    name = "torchvision:mobilenet_v3_small"
    versions = {"torchvision": "0.26.0+cu130"}
    monkeypatch.setattr(user_parts.importlib.metadata, "version", versions.__getitem__)
    cells = []
    for version in ("0.26.0+cu130", "0.26.0", "0.27.0"):
        versions["torchvision"] = version
        user_parts.identify_source.cache_clear()
        cells.append(
            load_cell(overrides=[f"student.network={name}", f"teacher.network={name}"]).cells[0].cell
        )
    user_parts.identify_source.cache_clear()
    assert canonical(cells[0])["student.network.source"] == "torchvision 0.26.0"
    assert cell_id(cells[0]) == cell_id(cells[1]) != cell_id(cells[2])
    assert cells[0].teacher_descriptor_width == 1024
    with pytest.raises(InputError, match=r"\(here is torchvision 0.27.0, there was torchvision 0.26.0\)"):
        user_parts.check_source(name, "torchvision 0.26.0")
    user_parts.identify_source.cache_clear()


def test_torchvisions_weights_are_part_of_the_cell_by_the_name_of_their_file():
    settings = ["student.network=torchvision:mobilenet_v3_small", "student.file=torchvision"]
    cell = load_cell(overrides=[*settings, "teacher.network=torchvision:resnet18"]).cells[0].cell
    assert canonical(cell)["student.file"] == "mobilenet_v3_small-047dcff4.pth"
    refused = ["student.network=timm:regnetx_002", "student.file=torchvision"]
    with pytest.raises(InputError, match="torchvision has no weights of timm:regnetx_002"):
        load_cell(overrides=[*refused, "teacher.network=torchvision:resnet18"])


# --- weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "timm:regnetx_002"])
def test_a_plain_state_dict_of_the_librarys_loads(tmp_path, name):
    torch.manual_seed(0)
    theirs = build_theirs(name, num_classes=3).eval()
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "weights.pth")
    overrides = [f"{key}.network={name}" for key in ("teacher", "student")]
    cell = load_cell(overrides=[*overrides, f"student.file={tmp_path / 'weights.pth'}"]).cells[0].cell
    network = build_network(name, num_classes=3, in_channels=3).eval()
    load_weights(network, cell, "student")
    with torch.no_grad():
        assert torch.equal(network(draw()).logits, theirs(draw()))


def test_weights_of_densenets_load_with_the_keys_of_torchvisions_files(tmp_path):
    theirs = models.densenet121(weights=None, num_classes=3)
    old = theirs.state_dict()
    for key in list(old):
        for layer in ("norm1", "conv1", "norm2", "conv2"):
            if "denselayer" in key and f".{layer}." in key:
                old[key.replace(f".{layer}.", f".{layer[:4]}.{layer[4]}.")] = old.pop(key)
    torch.save(old, tmp_path / "weights.pth")
    name = "torchvision:densenet121"
    overrides = [
        f"teacher.network={name}",
        f"student.network={name}",
        f"student.file={tmp_path / 'weights.pth'}",
    ]
    network = build_network(name, num_classes=3, in_channels=3)
    load_weights(network, load_cell(overrides=overrides).cells[0].cell, "student")
    loaded = network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in theirs.state_dict().items())
