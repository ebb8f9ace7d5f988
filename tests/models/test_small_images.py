"""Compiled convolutions of small images are the library's, member by member."""

import math
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hkrun.models import DistilledNetwork, block_kernels, build_network, initialise, small_images
from hkrun.models.packed import PackedNetwork
from hkrun.models.quantized import quantize
from hkrun.models.small_blocks import (
    Activation,
    BlockWeights,
    batch_norm,
    block_pays,
    normalises,
    residual_block,
)
from hkrun.models.small_images import (
    Geometry,
    convolve,
    find_geometry,
    lie_images_last,
    pays,
    pool,
    repeat_images,
)

# Members, channels in and out, height and width; kernel, stride and padding, (height, width) each.
SHAPES = {
    "five channels": (2, 5, 6, 4, 4, (3, 3), (1, 1), (1, 1)),
    "seven channels, strided": (2, 7, 5, 6, 6, (3, 3), (2, 2), (1, 1)),
    "wider than a row's part": (1, 4, 4, 3, 500, (3, 3), (1, 1), (1, 1)),
    "padding beyond the kernel": (1, 2, 2, 3, 3, (1, 1), (1, 1), (2, 2)),
    "stride beyond the image": (2, 2, 3, 2, 2, (3, 3), (5, 5), (1, 1)),
    "one column": (2, 4, 4, 5, 1, (3, 3), (1, 1), (1, 1)),
    "wide kernel": (2, 3, 4, 7, 7, (5, 5), (1, 1), (2, 2)),
    "3x3": (3, 2, 3, 4, 4, (3, 3), (1, 1), (1, 1)),
    "strided": (2, 2, 3, 4, 4, (3, 3), (2, 2), (1, 1)),
    "strided on odd sides": (2, 1, 2, 5, 7, (3, 3), (2, 2), (1, 1)),
    "strided 1x1": (2, 3, 2, 4, 3, (1, 1), (2, 2), (0, 0)),
    "wide stride": (1, 2, 2, 7, 5, (5, 5), (3, 3), (2, 2)),
    "smaller than the kernel": (2, 2, 2, 1, 1, (3, 3), (1, 1), (1, 1)),
    "without padding": (2, 2, 2, 4, 4, (3, 3), (1, 1), (0, 0)),
    "more padding than reaches": (2, 2, 2, 3, 3, (3, 3), (2, 2), (2, 2)),
    "not square": (2, 2, 2, 4, 3, (1, 3), (2, 1), (0, 1)),
    "even kernel": (2, 2, 2, 4, 4, (2, 2), (2, 2), (0, 0)),
}


def draw(name: str) -> tuple[Tensor, Tensor, Geometry]:
    """Maps and weights in float64, with gradients."""
    members, channels, out_channels, height, width, kernel, stride, padding = SHAPES[name]
    generator = torch.Generator().manual_seed(0)
    numbers = {"generator": generator, "dtype": torch.float64}
    maps = torch.randn(2, members * channels, height, width, **numbers)  # type: ignore[call-overload]
    weight = torch.randn(members, out_channels, channels, *kernel, **numbers)  # type: ignore[call-overload]
    return maps.requires_grad_(), weight.requires_grad_(), Geometry(kernel, stride, padding)


def grouped(maps: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """The same by the library."""
    return F.conv2d(
        maps, weight.flatten(0, 1), stride=geometry.stride, padding=geometry.padding, groups=len(weight)
    )


@pytest.mark.parametrize("name", SHAPES)
def test_they_are_the_grouped_convolution_with_its_gradients(name: str) -> None:
    maps, weight, geometry = draw(name)
    ours, expected = convolve(maps, weight, geometry), grouped(maps, weight, geometry)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    assert lie_images_last(ours)
    along = torch.randn_like(expected)
    found = torch.autograd.grad(ours, (maps, weight), along)
    for gradient, theirs in zip(found, torch.autograd.grad(expected, (maps, weight), along), strict=True):
        torch.testing.assert_close(gradient, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 3, 800])
def test_they_are_so_for_batches_of_any_size_and_maps_of_any_order_of_memory(batch: int) -> None:
    maps, weight, geometry = draw("seven channels, strided")
    many = maps.detach()[:1].expand(batch, -1, -1, -1) + torch.arange(batch)[:, None, None, None]
    for laid_out in (many, many.contiguous(memory_format=torch.channels_last), many.mT.contiguous().mT):
        inputs = [laid_out.requires_grad_(), weight]
        ours, expected = convolve(*inputs, geometry), grouped(*inputs, geometry)
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-9)
        along = torch.randn_like(expected)
        found = torch.autograd.grad(ours, inputs, along)
        for gradient, theirs in zip(found, torch.autograd.grad(expected, inputs, along), strict=True):
            torch.testing.assert_close(gradient, theirs, rtol=1e-12, atol=1e-8)


def test_what_does_not_fit_is_refused_before_a_kernel_reads_beside_it() -> None:
    maps, weight, geometry = draw("3x3")
    with pytest.raises(ValueError, match="do not fit weights"):
        convolve(maps[:, :-1], weight, geometry)
    with pytest.raises(ValueError, match="do not fit weights"):
        convolve(maps.float(), weight, geometry)


def test_in_float32_they_are_those_of_float64_but_for_rounding() -> None:
    maps, weight, geometry = draw("3x3")
    wide = maps.detach().repeat(40, 1, 1, 1)  # a batch of many vectors
    along = torch.randn_like(grouped(wide, weight, geometry))
    found = []
    for dtype in (torch.float32, torch.float64):
        own = [value.detach().to(dtype).requires_grad_() for value in (wide, weight)]
        outputs = convolve(*own, geometry)
        found.append([outputs, *torch.autograd.grad(outputs, own, along.to(dtype))])
    for single, double in zip(*found, strict=True):
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-4)


def test_without_a_numba_that_works_layers_are_the_library_s(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    maps, weight = torch.randn(2, 8, 8, 8), torch.randn(2, 4, 4, 3, 3)
    monkeypatch.setitem(sys.modules, "hkrun.models.compiling", None)
    small_images._can_compile.cache_clear()
    try:
        assert not pays(maps, weight)
        assert not normalises(images_last(maps))
    finally:
        small_images._can_compile.cache_clear()
    assert len(caplog.messages) == 1
    assert "which take longer: Numba: " in caplog.messages[0]


@pytest.mark.parametrize("name", ["3x3", "strided on odd sides"])
def test_they_have_second_derivatives_for_the_sharpness(name: str) -> None:
    maps, weight, geometry = draw(name)
    assert torch.autograd.gradgradcheck(lambda *args: convolve(*args, geometry), (maps, weight))


def images_last(maps: Tensor) -> Tensor:
    """The same maps with the images last in memory."""
    return maps.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)


def test_its_batchnorm_is_torch_s_with_all_derivatives() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = images_last(torch.randn(3, 4, 2, 2, generator=generator, dtype=torch.float64) + 5)
    weight, bias = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    inputs = [maps.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()]
    ours, mean, variance = batch_norm(*inputs, 1e-5)
    torch.testing.assert_close(ours, F.batch_norm(maps, None, None, weight, bias, training=True, eps=1e-5))
    torch.testing.assert_close(mean, maps.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(variance, maps.var(dim=(0, 2, 3), correction=0))
    assert lie_images_last(ours)
    assert torch.autograd.gradcheck(lambda *args: batch_norm(*args, 1e-5)[0], inputs)
    assert torch.autograd.gradgradcheck(lambda *args: batch_norm(*args, 1e-5)[0], inputs)


def test_its_batchnorm_keeps_the_variance_of_values_far_from_zero() -> None:
    """The mean of squares less the square of the mean would lose it in float32."""
    values = torch.tensor([-1.0, 1.0]).repeat(32)
    maps = images_last((10_000 + values).view(4, 1, 4, 4))
    _, _, variance = batch_norm(maps, torch.ones(1), torch.zeros(1), 1e-5)
    assert variance.item() == pytest.approx(1.0, rel=1e-6)


def test_its_batchnorm_in_float32_is_that_of_float64_but_for_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = images_last(torch.randn(64, 6, 8, 8, generator=generator, dtype=torch.float64) * 3 + 2)
    weight, bias, along = (
        torch.randn(*shape, generator=generator).double() for shape in ((6,), (6,), maps.shape)
    )
    found = []
    for dtype in (torch.float32, torch.float64):
        own = [value.to(dtype).requires_grad_() for value in (maps, weight, bias)]
        outputs, mean, variance = batch_norm(*own, 1e-5)
        found.append(
            [outputs, mean, variance, *torch.autograd.grad(outputs, own, images_last(along.to(dtype)))]
        )
    for single, double in zip(*found, strict=True):
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("value", [3.3, 1000.1, -54321.7])
def test_its_batchnorm_makes_a_constant_channel_its_bias(value: float) -> None:
    """The sum of its 65,536 numbers in float32 is rounded, by far more than eps lets be."""
    maps = images_last(torch.full((256, 2, 16, 16), value))
    outputs, mean, variance = batch_norm(maps, torch.ones(2), torch.tensor([0.5, -2.0]), 1e-5)
    assert torch.equal(outputs[:, 0], torch.full((256, 16, 16), 0.5))
    assert torch.equal(outputs[:, 1], torch.full((256, 16, 16), -2.0))
    assert torch.equal(mean, maps[0, :, 0, 0])
    assert torch.equal(variance, torch.zeros(2))


@pytest.mark.parametrize("mean", [0.0, 30.0, 3000.0])
def test_its_batchnorm_of_long_rows_in_float32_is_as_exact_as_the_mean_can_be(mean: float) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = images_last(torch.randn(1024, 1, 16, 16, generator=generator) + mean)
    outputs, _, _ = batch_norm(maps, torch.ones(1), torch.zeros(1), 1e-5)
    exact = F.batch_norm(maps.double(), None, None, training=True, eps=1e-5)
    half_ulp = 0.5 * torch.finfo(torch.float32).eps * 2.0 ** math.floor(math.log2(max(mean, 1.0)))
    torch.testing.assert_close(outputs.double(), exact, rtol=2e-6, atol=1.5 * half_ulp + 1e-6)


def test_a_channel_that_is_not_a_number_touches_no_other_in_its_batchnorm() -> None:
    maps = torch.randn(5, 3, 4, 4)
    whole = [*batch_norm(images_last(maps), torch.ones(3), torch.zeros(3), 1e-5)]
    maps[2, 1, 0, 0] = torch.nan
    broken = [*batch_norm(images_last(maps), torch.ones(3), torch.zeros(3), 1e-5)]
    assert broken[0][:, 1].isnan().all()
    assert broken[1][1].isnan()
    assert broken[2][1].isnan()
    assert torch.equal(broken[0][:, [0, 2]], whole[0][:, [0, 2]])


def test_what_does_not_fit_its_batchnorm_is_refused_before_a_kernel_reads_beside_it() -> None:
    maps = images_last(torch.randn(5, 3, 4, 4))
    three, two = torch.ones(3), torch.ones(2)
    for weight, bias in ((two, three), (three, two), (three.double(), three), (three, three.double())):
        with pytest.raises(ValueError, match="do not fit BatchNorm's weight and bias"):
            batch_norm(maps, weight, bias, 1e-5)


def test_its_batchnorm_refuses_one_number_of_a_channel_as_torch_s_does() -> None:
    packed = PackedNetwork(build_members("preact-8-w4", 2))
    with pytest.raises(ValueError, match=r"two numbers of each channel, not maps of \[1, 16, 1, 1\]"):
        packed.train()(torch.randn(2, 1, 1, 2, 2))


def test_its_batchnorm_is_of_cpus_and_full_precision_alone() -> None:
    maps = images_last(torch.randn(5, 3, 4, 4))
    assert normalises(maps)
    assert not normalises(maps.contiguous())
    assert not normalises(maps.bfloat16())
    assert not normalises(maps.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not normalises(maps)


@pytest.mark.parametrize("order", ["images last", "channels last", "contiguous"])
def test_pooling_is_the_mean_over_positions_with_all_derivatives(order: str) -> None:
    maps = torch.randn(3, 4, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if order == "images last":
        maps = maps.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    elif order == "channels last":
        maps = maps.contiguous(memory_format=torch.channels_last)
    assert lie_images_last(maps) == (order == "images last")
    torch.testing.assert_close(pool(maps), maps.mean(dim=(2, 3)), rtol=1e-14, atol=0)
    assert torch.autograd.gradgradcheck(pool, maps.requires_grad_())
    assert torch.autograd.gradcheck(pool, maps)


# Members, channels in and out, side, stride, batch.
BLOCKS = {
    "the same shape": (3, 4, 4, 5, 1, 7),
    "more channels": (2, 3, 5, 4, 1, 6),
    "half the side": (2, 4, 8, 6, 2, 5),
    "half of an odd side": (2, 2, 3, 5, 2, 1),
    "more than a row's part": (1, 4, 4, 2, 1, 900),
}


def draw_block(name: str) -> tuple[Tensor, tuple[Activation, Activation], BlockWeights, tuple[int, int]]:
    """What a block computes with, in float64."""
    members, channels, out_channels, side, stride, batch = BLOCKS[name]
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    activations = tuple(
        Activation(draw(members, width), draw(members, width)) for width in (channels, out_channels)
    )
    projection = None
    if (channels, stride) != (out_channels, 1):
        projection = draw(members, out_channels, channels, 1, 1)
    first = draw(members, out_channels, channels, 3, 3)
    weights = BlockWeights(first, draw(members, out_channels, out_channels, 3, 3), projection)
    maps = images_last(draw(batch, members * channels, side, side))
    return maps, activations, weights, (stride, stride)  # type: ignore[return-value]


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_evaluated_at_once_is_its_layers_one_by_one(name: str) -> None:
    maps, activations, weights, stride = draw_block(name)

    def activate(values: Tensor, activation: Activation) -> Tensor:
        scale, shift = (each.flatten()[:, None, None] for each in activation)
        return F.relu(values * scale + shift)

    active = activate(maps, activations[0])
    hidden = activate(grouped(active, weights.first, Geometry((3, 3), stride, (1, 1))), activations[1])
    shortcut = maps
    if weights.projection is not None:
        shortcut = grouped(active, weights.projection, Geometry((1, 1), stride, (0, 0)))
    expected = grouped(hidden, weights.second, Geometry((3, 3), (1, 1), (1, 1))) + shortcut
    before = maps.clone()
    outputs = residual_block(maps, activations, weights, stride)
    torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-12)
    assert lie_images_last(outputs)
    assert torch.equal(maps, before)


def test_a_block_that_does_not_fit_is_refused_before_a_kernel_reads_beside_it() -> None:
    maps, (before, between), weights, stride = draw_block("half the side")
    one_less = BlockWeights(weights.first, weights.second[:, :-1], weights.projection)
    for arguments in (
        (maps[:, :-1], (before, between), weights, stride),
        (maps.float(), (before, between), weights, stride),
        (maps, (between, before), weights, stride),
        (maps, (before, between), one_less, stride),
        (maps, (before, between), weights._replace(projection=None), stride),
    ):
        with pytest.raises(ValueError, match="do not fit the block's weights"):
            residual_block(*arguments)
    same = draw_block("the same shape")
    with pytest.raises(ValueError, match="do not fit the block's weights"):
        residual_block(*same[:3], (2, 2))


def test_a_block_is_evaluated_at_once_where_all_of_its_convolutions_are_compiled() -> None:
    maps, _, weights, stride = draw_block("half the side")
    assert block_pays(maps, weights, stride)
    wide = BlockWeights(weights.first, torch.randn(2, 16, 16, 3, 3), weights.projection)
    assert not block_pays(images_last(torch.randn(2, 8, 16, 16)), wide, stride)
    assert block_pays(images_last(torch.randn(2, 8, 8, 8)), wide, stride)
    assert not block_pays(images_last(torch.randn(2, 8, 32, 32)), weights, stride)


def test_images_are_repeated_for_each_member() -> None:
    images = torch.arange(24.0).view(2, 1, 3, 4)
    repeated = repeat_images(images, 5)
    assert torch.equal(repeated, images.repeat(1, 5, 1, 1))
    assert lie_images_last(repeated)


def build_members(network: str, number: int, *, channels: int = 1) -> list[DistilledNetwork]:
    members = []
    for seed in range(number):
        backbone = build_network(network, num_classes=10, in_channels=channels)
        initialise(backbone, torch.Generator().manual_seed(seed))
        members.append(DistilledNetwork(backbone))
    return members


@pytest.mark.parametrize(("network", "side"), [("preact-8-w4", 8), ("resnet8x4", 8), ("preact-8-w16", 32)])
@pytest.mark.parametrize("training", [True, False])
def test_a_member_that_is_not_a_number_touches_no_other_in_any_form(
    network: str, side: int, training: bool
) -> None:
    members = build_members(network, 3)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 6, 1, side, side, generator=generator)
    if not training:
        images = images[:1].expand(3, -1, -1, -1, -1)

    def compute() -> tuple[Tensor, list[Tensor]]:
        packed = PackedNetwork([*members]).train(training)
        logits = packed(images)[0].logits if training else packed.classify(images[0])
        gradients = torch.autograd.grad(logits.square().sum(), [join.packed for join in packed.joins])
        return logits.detach(), list(gradients)

    members_before = [{name: value.clone() for name, value in one.state_dict().items()} for one in members]
    logits, gradients = compute()
    for one, state in zip(members, members_before, strict=True):
        one.load_state_dict(state)
    with torch.no_grad():
        for parameter in members[1].parameters():
            parameter.fill_(float("nan"))
    broken, broken_gradients = compute()
    assert broken[1].isnan().all()
    assert logits.isfinite().all()
    for ours, theirs in zip([broken, *broken_gradients], [logits, *gradients], strict=True):
        assert torch.equal(ours[[0, 2]], theirs[[0, 2]])


def train_a_little(packed: PackedNetwork) -> None:
    """Gives the members' BatchNorms statistics of their own."""
    for _ in range(2):
        packed.train()(torch.randn(packed._size, 6, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    packed.eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_evaluation_gives_the_numbers_of_the_layers_one_by_one(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = build_members("preact-14-w4", 3)
    packed = PackedNetwork(members)
    train_a_little(packed)
    with torch.no_grad():
        for parameter in members[1].parameters():
            parameter.fill_(float("nan"))
    packed.to(dtype)
    images = torch.randn(9, 1, 8, 8, dtype=dtype)
    one_by_one = packed.classify(images).detach()
    blocks: list[int] = []
    kernel = block_kernels.residual_block
    monkeypatch.setattr(block_kernels, "residual_block", lambda *args: (blocks.append(1), kernel(*args)))
    with torch.no_grad():
        at_once = packed.classify(images)
    assert len(blocks) == 6
    assert at_once[1].isnan().all()
    assert at_once[[0, 2]].isfinite().all()
    assert torch.equal(at_once[[0, 2]], one_by_one[[0, 2]])
    for own, member in zip(at_once, members, strict=True):
        alone = member.to(dtype).eval()(images).logits
        torch.testing.assert_close(own, alone, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("scheme", ["binary_connect", "ttq", "bwn", "xnor"])
def test_quantised_networks_are_evaluated_with_their_quantised_weights_and_activations(scheme: str) -> None:
    members = build_members("preact-8-w4", 2)
    for member in members:
        quantize(member.backbone, scheme)
    packed = PackedNetwork(members)
    train_a_little(packed)
    packed.double()  # in float32, rounding turns signs of what is about 0
    images = torch.randn(9, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        evaluated = packed.classify(images)
        for own, member in zip(evaluated, members, strict=True):
            torch.testing.assert_close(own, member.double().eval()(images).logits, rtol=1e-9, atol=1e-9)


def test_the_networks_of_digits_compute_with_images_last_and_those_of_cifar_do_not() -> None:
    small = PackedNetwork(build_members("preact-8-w4", 3))
    output, held = small(torch.randn(3, 5, 1, 8, 8))
    assert all(lie_images_last(stage) for stage in held.stages)
    assert output.stages[0].shape == (3, 5, 4, 8, 8)
    large = PackedNetwork(build_members("preact-20", 2, channels=3))
    _, held = large(torch.randn(2, 5, 3, 32, 32))
    assert not any(lie_images_last(stage) for stage in held.stages)


def test_they_are_of_cpus_and_full_precision_alone() -> None:
    maps, weight = torch.randn(2, 8, 8, 8), torch.randn(2, 4, 4, 3, 3)
    assert pays(maps, weight)
    assert not pays(maps.to("meta"), weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not pays(maps, weight)
    assert not pays(torch.randn(2, 8, 32, 32), weight)
    assert not pays(torch.randn(2, 32, 8, 8), torch.randn(2, 4, 16, 3, 3))
    assert pays(torch.randn(2, 32, 4, 4), torch.randn(2, 4, 16, 3, 3))


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 4, 3, padding="same")],
)
def test_layers_with_groups_or_dilation_are_the_library_s(layer: nn.Conv2d) -> None:
    assert find_geometry(layer) is None
