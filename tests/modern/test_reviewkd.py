"""ReviewKD against explicit loops in float64, and torchdistill's blocks and loss."""

import pytest
import torch
from torchdistill.losses.mid_level import HierarchicalContextLoss
from torchdistill.models.wrapper import AttentionBasedFusion

from hkrun.models import initialise
from hkrun.modern.reviewkd import Fusion, ReviewLoss, context_loss

OURS, THEIRS = (4, 6, 8), (5, 7, 9)
SIZES, TEACHER_SIZES = (8, 4, 2), (16, 8, 2)


def draw(*shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make_outputs(sizes=SIZES, teacher_sizes=TEACHER_SIZES):
    student = [draw(5, width, size, size, seed=size) for width, size in zip(OURS, sizes, strict=True)]
    teacher = [
        draw(5, width, size, size, seed=100 + size) for width, size in zip(THEIRS, teacher_sizes, strict=True)
    ]
    return student, draw(5, OURS[-1], seed=1), teacher, draw(5, THEIRS[-1], seed=2)


def make_loss():
    loss = ReviewLoss(OURS, OURS[-1], THEIRS, THEIRS[-1]).double()
    initialise(loss, torch.Generator().manual_seed(0))
    return loss


@pytest.mark.parametrize(
    ("side", "levels"), [(8, (8, 4, 2, 1)), (4, (4, 2, 1)), (6, (6, 4, 2, 1)), (1, (1,))]
)
def test_the_context_loss_is_the_weighted_mean_over_grids(side, levels):
    student, teacher = draw(2, 3, side, side, seed=0), draw(2, 3, side, side, seed=1)
    total, weights = 0.0, [0.5**level for level in range(len(levels))]
    for weight, level in zip(weights, levels, strict=True):
        squares = []
        for image in range(2):
            for channel in range(3):
                for row in range(level):
                    for column in range(level):
                        # The cells of torch's adaptive pooling, which overlap where the sides do not divide.
                        cells = [
                            slice(place * side // level, -(-(place + 1) * side // level))
                            for place in (row, column)
                        ]
                        means = [
                            maps[image, channel][tuple(cells)].mean().item() for maps in (student, teacher)
                        ]
                        squares.append((means[0] - means[1]) ** 2)
        total += weight / sum(weights) * sum(squares) / len(squares)
    assert context_loss(student, teacher).item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("side", [8, 7, 4, 2, 1])
def test_the_context_loss_agrees_with_torchdistill(side):
    student, teacher = draw(2, 3, side, side, seed=0), draw(2, 3, side, side, seed=1)
    loss = HierarchicalContextLoss("net", "output", "net", "output")
    expected = loss({"net": {"output": (student, None)}}, {"net": {"output": teacher}})
    assert context_loss(student, teacher).item() == pytest.approx(expected.item(), rel=1e-13)


def make_fusion(seed, **arguments):
    fusion = Fusion(4, 6, 5, **arguments).double()
    initialise(fusion, torch.Generator().manual_seed(seed))
    public = AttentionBasedFusion(4, 6, 5, uses_attention=not arguments["first"]).double()
    names = {"enter": "conv1", "leave": "conv2", "attention": "attention_conv.0"}
    state = {}
    for name, value in fusion.state_dict().items():
        block, _, rest = name.partition(".")
        state[f"{names[block]}.{rest}"] = value
    missing, unexpected = public.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("running" in name or "num_batches" in name for name in missing)
    return fusion, public


@pytest.mark.parametrize("first", [True, False])
def test_a_fusion_agrees_with_torchdistill_s(first):
    fusion, public = make_fusion(0, first=first)
    maps, deeper = draw(3, 4, 4, 4, seed=1), None if first else draw(3, 6, 2, 2, seed=2)
    found, expected = fusion(maps, deeper, (4, 4)), public(maps, deeper, 4)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_maps_are_reviewed_from_the_deepest_to_the_first_at_the_teacher_s_size():
    loss, (student, descriptor, teacher, teacher_descriptor) = make_loss(), make_outputs()
    # Where student and teacher are not of one size, the map is resized before the last convolution.
    deeper, total = None, 0.0
    steps = zip(
        reversed(loss.fusions),
        reversed([*student, descriptor[:, :, None, None]]),
        reversed([*teacher, teacher_descriptor[:, :, None, None]]),
        strict=True,
    )
    for fusion, maps, target in steps:
        maps = fusion.enter(maps)
        if deeper is not None:
            repeat = maps.shape[2] / deeper.shape[2]
            places = torch.arange(maps.shape[2]).div(repeat, rounding_mode="floor").long()
            deeper = deeper[:, :, places][:, :, :, places]
            scores = fusion.attention(torch.cat([maps, deeper], dim=1))
            maps = maps / (1 + (-scores[:, :1]).exp()) + deeper / (1 + (-scores[:, 1:]).exp())
        places = torch.arange(target.shape[2]) * maps.shape[2] // target.shape[2]
        deeper = maps[:, :, places][:, :, :, places]
        total += context_loss(fusion.leave(deeper), target).item()
    found = loss(student, descriptor, teacher, teacher_descriptor)
    assert found.item() == pytest.approx(total, rel=1e-12)


def test_every_map_and_parameter_has_a_gradient_and_the_teacher_none():
    loss = make_loss()
    student, descriptor, teacher, teacher_descriptor = make_outputs()
    for values in (*student, descriptor):
        values.requires_grad_()
    expected = loss(student, descriptor, teacher, teacher_descriptor)
    expected.backward()
    for values in (*student, descriptor):
        assert values.grad.abs().max() > 0
    assert all(parameter.grad.abs().max() > 0 for parameter in loss.parameters())
    assert all(values.grad is None for values in (*teacher, teacher_descriptor))


def test_it_keeps_no_running_statistics():
    assert not list(make_loss().buffers())
