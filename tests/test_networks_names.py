import pytest

from hkrun.errors import InputError
from hkrun.networks import NetworkShape, parse_network


@pytest.mark.parametrize(
    ("name", "block", "blocks", "stem_width", "widths"),
    [
        ("preact-20", "basic", (3,) * 3, 16, (16, 32, 64)),
        ("preact-164", "basic", (27,) * 3, 16, (16, 32, 64)),
        ("preact-8", "basic", (1,) * 3, 16, (16, 32, 64)),
        ("preact-8-w8", "basic", (1,) * 3, 8, (8, 16, 32)),
        ("preact-20-w32", "basic", (3,) * 3, 32, (32, 64, 128)),
        ("preact-bottleneck-164", "bottleneck", (18,) * 3, 16, (64, 128, 256)),
        ("preact-bottleneck-11", "bottleneck", (1,) * 3, 16, (64, 128, 256)),
        ("wrn-16-2", "wide", (2,) * 3, 16, (32, 64, 128)),
        ("wrn-28-10", "wide", (4,) * 3, 16, (160, 320, 640)),
        ("wrn-40-2", "wide", (6,) * 3, 16, (32, 64, 128)),
        ("resnet56", "cifar-resnet", (9,) * 3, 16, (16, 32, 64)),
        ("resnet8x4", "cifar-resnet", (1,) * 3, 32, (64, 128, 256)),
        ("resnet32x4", "cifar-resnet", (5,) * 3, 32, (64, 128, 256)),
        ("vgg13", "cifar-vgg", (2,) * 4, 64, (128, 256, 512, 512)),
        ("resnet-18", "resnet-basic", (2, 2, 2, 2), 64, (64, 128, 256, 512)),
        ("resnet-50", "resnet-bottleneck", (3, 4, 6, 3), 64, (256, 512, 1024, 2048)),
        ("resnet-152", "resnet-bottleneck", (3, 8, 36, 3), 64, (256, 512, 1024, 2048)),
    ],
)
def test_a_name_stands_for_a_shape(name, block, blocks, stem_width, widths):
    expected = NetworkShape(block=block, blocks=blocks, stem_width=stem_width, widths=widths)
    assert parse_network(name) == expected


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("preact-21", "preact-20"),
        ("preact-2", "preact-8"),
        ("preact-19-w8", "preact-20-w8"),
        ("preact-bottleneck-166", "preact-bottleneck-164"),
        ("wrn-27-10", "wrn-28-10"),
        ("wrn-4-4", "wrn-10-4"),
    ],
)
def test_an_impossible_depth_is_refused_with_the_nearest_possible_one(name, nearest):
    with pytest.raises(InputError, match=f"the nearest is '{nearest}'$"):
        parse_network(name)
    parse_network(nearest)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "resnet-20",
        "preact",
        "preact-",
        "preact-20-8",
        "preact-20-w",
        "preact-20-w8 ",
        "preact-bottleneck-164-w8",
        "wrn-28",
        "wrn-28-w10",
        "PREACT-20",
        "preact-20\n",
        "preact-٢٠",
        "preact-020",
        "preact-20-w08",
        "preact-0",
    ],
)
def test_a_name_of_no_known_form_is_refused_with_the_forms(name):
    with pytest.raises(InputError, match=r"the forms are preact-D, preact-D-wW"):
        parse_network(name)


@pytest.mark.parametrize("name", ["preact-20-w0", "wrn-28-0"])
def test_a_network_without_channels_is_refused(name):
    with pytest.raises(InputError, match="at least 1"):
        parse_network(name)
