"""The attention estimator against eqs. (1) and (2) written as plain loops, and the properties they imply."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hkrun.models import AttentionEstimator, DistilledNetwork, build_network, initialise

WIDTHS = (3, 4, 6)
SIDES = (4, 3, 2)
DESCRIPTOR_WIDTH = 6
NUM_IMAGES = 3


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def build(*, connection="hierarchical", pool="sum", tap="bn_relu", squeeze_widths=None):
    estimator = AttentionEstimator(
        WIDTHS,
        descriptor_width=DESCRIPTOR_WIDTH,
        connection=connection,
        pool=pool,
        tap=tap,
        squeeze_widths=squeeze_widths,
    ).double()
    generator = torch.Generator().manual_seed(0)
    initialise(estimator, generator)
    for layer in estimator.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.data.uniform_(0.5, 2, generator=generator)
            layer.bias.data.uniform_(-1, 1, generator=generator)
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
    return estimator


def inputs(*, requires_grad=False):
    stages = [normal(NUM_IMAGES, w, s, s, seed=s) for w, s in zip(WIDTHS, SIDES, strict=True)]
    descriptor = normal(NUM_IMAGES, DESCRIPTOR_WIDTH, seed=9)
    for tensor in (*stages, descriptor):
        tensor.requires_grad_(requires_grad)
    return stages, descriptor


def dot(left, right):
    return sum(a * b for a, b in zip(left, right, strict=True))


def literal_estimator(estimator, stages, descriptor, *, connection, pool):
    """Eqs. (1) and (2) in Python floats, Lh_i and all: vectors and maps by [image][block].

    `stages` are L_i as the tap gives them, nested lists by [block][image][channel][position].
    """
    vectors, maps = [], []
    for image, global_descriptor in enumerate(descriptor):
        squeezed = [None] * len(stages)
        attention = [None] * len(stages)
        guide = list(global_descriptor)
        for index in reversed(range(len(stages))):
            block = estimator.blocks[index]
            aligned = [dot(row, guide) for row in block.align.weight.detach().tolist()]
            score = block.score.weight.detach().tolist()[0]
            features = [
                [value + gh for value in channel]
                for channel, gh in zip(stages[index][image], aligned, strict=True)
            ]
            num_positions = len(features[0])
            exponentials = [
                math.exp(dot(score, [channel[position] for channel in features]))
                for position in range(num_positions)
            ]
            attention[index] = [value / sum(exponentials) for value in exponentials]
            squeezed[index] = [dot(attention[index], channel) for channel in features]
            if pool == "avg":
                squeezed[index] = [value / num_positions for value in squeezed[index]]
            if connection == "hierarchical":
                guide = guide + squeezed[index]
        vectors.append(squeezed)
        maps.append(attention)
    return vectors, maps


def tapped(estimator, stages, *, tap):
    """L_i from its definition: the projection where there is one, then BN (running statistics) and ReLU."""
    results = []
    for block, stage in zip(estimator.blocks, stages, strict=True):
        layers = list(block.tap)
        hidden = stage
        if layers and isinstance(layers[0], nn.Conv2d):
            hidden = torch.einsum("oc,bchw->bohw", layers[0].weight[:, :, 0, 0], hidden)
        if tap == "bn_relu":
            (norm,) = (layer for layer in layers if isinstance(layer, nn.BatchNorm2d))
            shape = (1, -1, 1, 1)
            hidden = (hidden - norm.running_mean.view(shape)) / (norm.running_var.view(shape) + 1e-5).sqrt()
            hidden = (hidden * norm.weight.view(shape) + norm.bias.view(shape)).clamp(min=0)
        results.append(hidden.flatten(2).detach().tolist())
    return results


@pytest.mark.parametrize("squeeze_widths", [None, (3, 2, 5), (2, 2, 2)])
@pytest.mark.parametrize("connection", ["hierarchical", "original"])
@pytest.mark.parametrize("pool", ["sum", "avg"])
@pytest.mark.parametrize("tap", ["bn_relu", "raw"])
def test_vectors_and_maps_equal_the_equations_written_as_loops(connection, pool, tap, squeeze_widths):
    estimator = build(connection=connection, pool=pool, tap=tap, squeeze_widths=squeeze_widths).eval()
    stages, descriptor = inputs()
    vectors, maps = estimator.attend(stages, descriptor)
    expected_vectors, expected_maps = literal_estimator(
        estimator, tapped(estimator, stages, tap=tap), descriptor.tolist(), connection=connection, pool=pool
    )
    for image in range(NUM_IMAGES):
        for index, side in enumerate(SIDES):
            assert vectors[index][image].detach().tolist() == pytest.approx(
                expected_vectors[image][index], rel=1e-11, abs=1e-13
            )
            attention = maps[index][image]
            assert attention.shape == (side, side)
            assert attention.detach().flatten().tolist() == pytest.approx(
                expected_maps[image][index], rel=1e-11, abs=1e-13
            )
    assert all(torch.equal(a, b) for a, b in zip(estimator(stages, descriptor), vectors, strict=True))


def test_the_gradient_is_that_of_the_equations_with_the_aligned_features_built():
    estimator = build().train()
    stages, descriptor = inputs(requires_grad=True)
    probes = [normal(NUM_IMAGES, width, seed=20 + width) for width in WIDTHS]

    def literal():
        guide, squeezed = descriptor, []
        for block, stage in zip(list(estimator.blocks)[::-1], stages[::-1], strict=True):
            norm = block.tap[0]
            local = F.relu(F.batch_norm(stage, None, None, norm.weight, norm.bias, training=True))
            aligned = local + F.linear(guide, block.align.weight)[:, :, None, None]
            scores = torch.einsum("c,bchw->bhw", block.score.weight[0], aligned)
            attention = scores.flatten(1).softmax(dim=1).view_as(scores)
            squeezed.insert(0, torch.einsum("bhw,bchw->bc", attention, aligned))
            guide = torch.cat([guide, squeezed[0]], dim=1)
        return squeezed

    def gradients(vectors):
        loss = sum((vector * probe).sum() for vector, probe in zip(vectors, probes, strict=True))
        return torch.autograd.grad(loss, [*stages, descriptor, *estimator.parameters()])

    for ours, expected in zip(gradients(estimator(stages, descriptor)), gradients(literal()), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("connection", ["hierarchical", "original"])
def test_the_maps_do_not_change_with_the_descriptor_but_the_vectors_do(connection):
    estimator = build(connection=connection).eval()
    stages, descriptor = inputs()
    vectors, maps = estimator.attend(stages, descriptor)
    other_vectors, other_maps = estimator.attend(stages, 10 * normal(NUM_IMAGES, DESCRIPTOR_WIDTH, seed=77))
    for before, after in zip(maps, other_maps, strict=True):
        torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-14)
    for before, after in zip(vectors, other_vectors, strict=True):
        assert (before - after).abs().min() > 1e-3


def test_each_image_s_map_sums_to_one_over_its_own_positions():
    estimator = build().eval()
    stages, descriptor = inputs()
    _, maps = estimator.attend(stages, descriptor)
    for attention, side in zip(maps, SIDES, strict=True):
        assert attention.shape == (NUM_IMAGES, side, side)
        torch.testing.assert_close(
            attention.sum(dim=(1, 2)), torch.ones(NUM_IMAGES, dtype=torch.float64), rtol=1e-13, atol=0
        )
        assert attention.min() > 0
    changed = [stage.clone() for stage in stages]
    for stage in changed:
        stage[0] += normal(*stage.shape[1:], seed=5)
    _, changed_maps = estimator.attend(changed, descriptor)
    for before, after in zip(maps, changed_maps, strict=True):
        assert not torch.equal(before[0], after[0])
        torch.testing.assert_close(before[1:], after[1:], rtol=1e-13, atol=0)


def gradient_of_first_vector(estimator, wanted):
    stages, descriptor = inputs(requires_grad=True)
    first = estimator(stages, descriptor)[0]
    loss = (first * normal(*first.shape, seed=3)).sum()
    return torch.autograd.grad(loss, wanted(stages, descriptor), allow_unused=True)


def test_the_hierarchy_reaches_block_1_from_every_later_block():
    estimator = build(connection="hierarchical").eval()
    later = [parameter for block in estimator.blocks[1:] for parameter in block.parameters()]
    gradients = gradient_of_first_vector(estimator, lambda stages, _: [*stages[1:], *later])
    assert all(gradient is not None and gradient.abs().max() > 1e-6 for gradient in gradients)


def test_the_original_connection_does_not_reach_block_1_from_later_blocks():
    estimator = build(connection="original").eval()
    later = [parameter for block in estimator.blocks[1:] for parameter in block.parameters()]
    gradients = gradient_of_first_vector(estimator, lambda stages, _: [*stages[1:], *later])
    assert gradients == (None,) * len(gradients)
    (descriptor_gradient,) = gradient_of_first_vector(estimator, lambda _, descriptor: [descriptor])
    assert descriptor_gradient.abs().max() > 1e-6


@pytest.mark.parametrize("connection", ["hierarchical", "original"])
def test_the_last_block_depends_on_no_earlier_one(connection):
    estimator = build(connection=connection).eval()
    stages, descriptor = inputs(requires_grad=True)
    last = estimator(stages, descriptor)[-1]
    assert torch.autograd.grad(last.sum(), stages[:-1], allow_unused=True) == (None, None)


def test_guides_grow_by_the_later_blocks_lengths_only_where_hierarchical():
    hierarchical = [block.align.in_features for block in build(connection="hierarchical").blocks]
    assert hierarchical == [6 + 6 + 4, 6 + 6, 6]
    assert [block.align.in_features for block in build(connection="original").blocks] == [6, 6, 6]


def test_average_pooling_divides_the_sum_by_the_number_of_positions():
    stages, descriptor = inputs()
    total = build(connection="original", pool="sum").eval()(stages, descriptor)
    average = build(connection="original", pool="avg").eval()(stages, descriptor)
    for summed, averaged, side in zip(total, average, SIDES, strict=True):
        torch.testing.assert_close(summed, averaged * side**2, rtol=1e-14, atol=0)


def test_raw_tap_reads_the_stage_as_it_is_and_has_no_batchnorm():
    estimator = build(tap="raw")
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in estimator.modules())
    assert sum(p.numel() for p in estimator.parameters()) == (16 * 3 + 12 * 4 + 6 * 6) + (3 + 4 + 6)
    with_norm = build(tap="bn_relu")
    norms = [layer for layer in with_norm.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == list(WIDTHS)


def test_only_a_differing_squeeze_width_gets_a_projection():
    estimator = build(squeeze_widths=(3, 2, 6))
    shapes = [tuple(layer.weight.shape) for layer in estimator.modules() if isinstance(layer, nn.Conv2d)]
    assert shapes == [(2, 4, 1, 1)]
    vectors = estimator(*inputs())
    assert [vector.shape[1] for vector in vectors] == [3, 2, 6]
    assert estimator.squeeze_widths == (3, 2, 6)


def test_the_stages_are_left_as_they_are():
    for tap in ("raw", "bn_relu"):
        stages, descriptor = inputs()
        copies = [stage.clone() for stage in stages]
        build(tap=tap)(stages, descriptor)
        assert all(torch.equal(stage, copy) for stage, copy in zip(stages, copies, strict=True))


def distilled(**keys):
    backbone = build_network("preact-8-w4", num_classes=10, in_channels=1)
    keys = {"connection": "hierarchical", "pool": "sum", "tap": "bn_relu"} | keys
    attention = AttentionEstimator(backbone.widths, descriptor_width=backbone.descriptor_width, **keys)
    network = DistilledNetwork(backbone, attention)
    initialise(network, torch.Generator().manual_seed(0))
    return network


def test_a_distilled_network_gives_all_squeezed_vectors_in_block_order():
    network = distilled().double()
    images = normal(5, 1, 8, 8, seed=1)
    network.eval()
    output = network(images)
    features = network.backbone(images)
    squeezed = network.attention(features.stages, features.descriptor)
    assert torch.equal(output.logits, features.logits)
    assert torch.equal(output.knowledge, torch.cat(squeezed, dim=1))
    assert output.knowledge.shape == (5, 4 + 8 + 16)


def test_the_backbone_s_logits_do_not_depend_on_the_attention_sub_network():
    network = distilled().double()
    alone = DistilledNetwork(network.backbone)
    images = normal(5, 1, 8, 8, seed=1)
    output = alone(images)
    assert output.knowledge is None
    torch.testing.assert_close(network(images).logits, output.logits, rtol=1e-13, atol=1e-13)


def test_teacher_and_student_of_other_widths_squeeze_to_equal_lengths():
    student = distilled()
    teacher_backbone = build_network("preact-bottleneck-11", num_classes=10, in_channels=1)
    teacher = DistilledNetwork(
        teacher_backbone,
        AttentionEstimator(
            teacher_backbone.widths,
            descriptor_width=teacher_backbone.descriptor_width,
            connection="hierarchical",
            pool="sum",
            tap="bn_relu",
            squeeze_widths=student.backbone.widths,
        ),
    )
    images = normal(2, 1, 8, 8, seed=1).float()
    assert teacher(images).knowledge.shape == student(images).knowledge.shape


@pytest.mark.parametrize("tap", ["bn_relu", "raw"])
def test_bfloat16_autocast_trains_and_gives_knowledge_in_float32(tap):
    network = distilled(tap=tap, squeeze_widths=(4, 6, 16))
    images = normal(8, 1, 8, 8, seed=1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(images)
    assert output.knowledge.dtype == torch.float32
    (output.knowledge.square().mean() + output.logits.square().mean()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
    reference = distilled(tap=tap, squeeze_widths=(4, 6, 16))(images).knowledge.detach()
    torch.testing.assert_close(
        output.knowledge.detach(), reference, rtol=0, atol=0.05 * float(reference.abs().max())
    )
