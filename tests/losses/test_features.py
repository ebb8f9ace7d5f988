"""The losses on feature maps against hand-computed cases, explicit loops in float64, and torchdistill.

Where torchdistill computes something else than the methods' papers, a test shows by how much, and that ours
follows the paper.
"""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchdistill.losses.mid_level import ATLoss, FSPLoss, VIDLoss
from torchdistill.models.wrapper import Regressor4VID

from hkrun.losses import (
    FlowLoss,
    HintLoss,
    VariationalLoss,
    attention_transfer_loss,
    fsp_loss,
    fsp_matrix,
    nst_loss,
)
from hkrun.models import initialise

WIDTHS = ((3, 4), (5, 5), (2, 6))  # of the student's and the teacher's stages
SIZES = ((4, 4), (4, 2), (2, 2))


def draw(*shape, seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(1000 * seed + sum(shape))
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_(requires_grad)


def stages(side, *, batch=2, sizes=SIZES, requires_grad=False):
    """One feature map per stage; `side` 0 is the student, 1 the teacher."""
    return [
        draw(batch, widths[side], *size, seed=side, requires_grad=requires_grad)
        for widths, size in zip(WIDTHS, sizes, strict=True)
    ]


def flows(maps):
    return list(itertools.pairwise(maps))


def constant(*values, size=1):
    """One image whose channels are constant over size x size positions."""
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1).expand(1, len(values), size, size)


def learned(module, seed=0):
    module = module.double()
    initialise(module, torch.Generator().manual_seed(seed))
    return module


RELATIVE = {"relative": True, "reduction": "mean"}
SUM = {"relative": False, "reduction": "sum"}


def widths(*sides):
    return [[maps.shape[1] for maps in side] for side in sides]


# What the losses are of stages of unequal widths: student's, teacher's -> loss. FSP needs a projection.
def projected_fsp(student, teacher):
    return learned(FlowLoss(*widths(student, teacher), **RELATIVE))(student, teacher)


def variational(student, teacher):
    return learned(VariationalLoss(*widths(student, teacher)))(student, teacher)


def hint(student, teacher):
    return learned(HintLoss(*widths(student, teacher), **RELATIVE))(student, teacher)


LOSSES = {
    "at": attention_transfer_loss,
    "fsp": projected_fsp,
    "nst": nst_loss,
    "vid": variational,
    "hint": hint,
}


# Every loss


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_for_the_student_is_the_numerical_one(name):
    teacher = stages(1)
    student = stages(0, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *maps: LOSSES[name](maps, teacher), student)


@pytest.mark.parametrize("name", LOSSES)
def test_no_gradient_goes_to_the_teacher(name):
    student, teacher = stages(0, requires_grad=True), stages(1, requires_grad=True)
    LOSSES[name](student, teacher).backward()
    assert all(maps.grad is None for maps in teacher)
    used = student[1:2] if name == "hint" else student
    assert all(maps.grad is not None and maps.grad.any() for maps in used)


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_mean_of_those_of_the_images_alone(name):
    student, teacher = stages(0, batch=3), stages(1, batch=3)
    alone = [
        LOSSES[name]([maps[[image]] for maps in student], [maps[[image]] for maps in teacher]).item()
        for image in range(3)
    ]
    assert LOSSES[name](student, teacher).item() == pytest.approx(sum(alone) / 3, rel=1e-13)


@pytest.mark.parametrize("name", ["at", "nst", "vid", "hint"])
@pytest.mark.parametrize("larger", [0, 1])
def test_the_larger_of_two_sizes_is_pooled_to_the_smaller(name, larger):
    """Every position of the larger is doubled in both directions: averages restore it."""
    sides = [stages(0), stages(1)]
    expected = LOSSES[name](*sides)
    sides[larger] = [maps.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) for maps in sides[larger]]
    torch.testing.assert_close(LOSSES[name](*sides), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", ["at", "fsp", "nst"])
def test_equal_networks_lose_nothing(name):
    maps = stages(1)
    assert LOSSES[name](maps, maps).item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_a_dead_stage_gives_finite_gradients(name):
    student, teacher = stages(0), stages(1)
    for maps in (*student, *teacher):
        maps[0] = 0  # no channel of the first image responds
    student = [maps.requires_grad_() for maps in student]
    loss = LOSSES[name](student, teacher)
    loss.backward()
    assert loss.isfinite()
    used = student[1:2] if name == "hint" else student
    assert all(maps.grad.isfinite().all() and maps.grad[0].abs().max() < 10 for maps in used)


# AT


def test_attention_transfer_by_hand():
    # Channel means of squares 25/2, 0 and 0, 144/2: the unit vectors (1, 0) and (0, 1), distance^2 2.
    student = torch.tensor([[[[3.0, 0.0]], [[-4.0, 0.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[0.0, 0.0]], [[0.0, -12.0]]]], dtype=torch.float64)
    assert attention_transfer_loss([student], [teacher]).item() == 2
    # 3, 4 -> (0.36, 0.64)-like squares 9 and 16: the unit vector (9, 16) / sqrt(337) against (1, 0).
    student = torch.tensor([[[[3.0, 4.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[5.0, 0.0]]]], dtype=torch.float64)
    expected = 2 - 2 * 9 / math.sqrt(337)
    assert attention_transfer_loss([student], [teacher]).item() == pytest.approx(expected, rel=1e-14)


def naive_attention(maps):
    """The normalised attention map of one image [C, H, W], as a list."""
    channels, height, width = maps.shape
    values = [
        sum(maps[c, y, x].item() ** 2 for c in range(channels)) / channels
        for y in range(height)
        for x in range(width)
    ]
    length = math.sqrt(sum(value**2 for value in values))
    return [value / length for value in values]


def test_attention_transfer_is_the_explicit_sum():
    student, teacher = stages(0), stages(1)
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        for image in range(2):
            pairs = zip(naive_attention(ours[image]), naive_attention(theirs[image]), strict=True)
            total += sum((s - t) ** 2 for s, t in pairs) / 2
    assert attention_transfer_loss(student, teacher).item() == pytest.approx(total, rel=1e-13)


def test_attention_averages_the_larger_map_after_the_squares():
    # Features +1 and -1 average to 0, their attention to 1: signs must not cancel.
    student = torch.tensor([[[[1.0, -1.0, 0.0, 0.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[7.0, 0.0]]]], dtype=torch.float64)
    assert attention_transfer_loss([student], [teacher]).item() == 0


def test_attention_transfer_ignores_the_scale_of_the_features():
    student, teacher = stages(0), stages(1)
    expected = attention_transfer_loss(student, teacher)
    scaled = attention_transfer_loss([30 * maps for maps in student], [-0.2 * maps for maps in teacher])
    torch.testing.assert_close(scaled, expected, rtol=1e-13, atol=0)


def theirs_of(loss, student, teacher):
    """What a loss of torchdistill says of one pair of feature maps or of anything else in their place."""
    return loss({"s": {"output": student}}, {"t": {"output": teacher}})


PAIR = {"pair": {"student": {"path": "s", "io": "output"}, "teacher": {"path": "t", "io": "output"}}}


@pytest.mark.parametrize("stage", range(3))
def test_attention_transfer_agrees_with_torchdistill_but_for_the_mean_over_positions(stage):
    student, teacher = stages(0)[stage], stages(1)[stage]
    found = theirs_of(ATLoss(PAIR, mode="code"), student, teacher)
    positions = math.prod(SIZES[stage])
    torch.testing.assert_close(
        attention_transfer_loss([student], [teacher]), found * positions, rtol=1e-13, atol=0
    )


# FSP


def test_fsp_matrix_by_hand():
    first = torch.tensor([[[[1.0, 2.0]], [[0.0, -1.0]]]], dtype=torch.float64)
    second = torch.tensor([[[[3.0, 4.0]]]], dtype=torch.float64)
    assert fsp_matrix(first, second).tolist() == [[[(3 + 8) / 2], [-4 / 2]]]


def test_fsp_matrix_max_pools_the_larger_map():
    larger = torch.tensor([[[[1.0, -5.0], [2.0, -7.0]]]], dtype=torch.float64)
    smaller = torch.tensor([[[[10.0]]]], dtype=torch.float64)
    assert fsp_matrix(larger, smaller).tolist() == [[[20.0]]]
    assert fsp_matrix(smaller, larger).tolist() == [[[20.0]]]


@pytest.mark.parametrize(
    ("reduction", "expected"), [("sum", 10 + 4), ("mean", 10 / 4 + 4 / 2), ("relative", 10 / 5 + 4 / 13)]
)
def test_fsp_loss_by_hand(reduction, expected):
    # Flows [[1, 0], [0, 4]] and [[2, 0], [0, 1]], then [1, 2] and [3, 2]: squared distances 10 and 4.
    diagonal = torch.eye(2, dtype=torch.float64).view(1, 2, 1, 2) * math.sqrt(2)
    student = [(diagonal, diagonal * torch.tensor([1.0, 4.0]).view(1, 2, 1, 1))]
    teacher = [(diagonal, diagonal * torch.tensor([2.0, 1.0]).view(1, 2, 1, 1))]
    student.append((constant(1.0, 2.0), constant(1.0)))
    teacher.append((constant(3.0, 2.0), constant(1.0)))
    assert fsp_loss(student, teacher, reduction=reduction).item() == pytest.approx(expected, rel=1e-14)


def naive_flow(first, second):
    """[C_1][C_2] of two feature maps of one size, of one image."""
    height, width = first.shape[1:]
    return [
        [
            sum(first[i, y, x].item() * second[j, y, x].item() for y in range(height) for x in range(width))
            / (height * width)
            for j in range(len(second))
        ]
        for i in range(len(first))
    ]


@pytest.mark.parametrize("reduction", ["sum", "mean", "relative"])
def test_fsp_loss_is_the_explicit_sum(reduction):
    sizes = [(3, 3)] * 3
    student, teacher = stages(1, sizes=sizes), [maps + 0.3 for maps in stages(1, sizes=sizes)]
    total = 0.0
    for (s1, s2), (t1, t2) in zip(flows(student), flows(teacher), strict=True):
        for image in range(2):
            ours, theirs = naive_flow(s1[image], s2[image]), naive_flow(t1[image], t2[image])
            squares = [
                (s - t) ** 2 for rows in zip(ours, theirs, strict=True) for s, t in zip(*rows, strict=True)
            ]
            size = {
                "sum": 1,
                "mean": len(squares),
                "relative": sum(t**2 for row in theirs for t in row),
            }[reduction]
            total += sum(squares) / size / 2
    found = fsp_loss(flows(student), flows(teacher), reduction=reduction)
    assert found.item() == pytest.approx(total, rel=1e-13)


@pytest.mark.parametrize("scale", [1e-3, 50.0])
def test_relative_distances_do_not_depend_on_how_large_both_networks_features_are(scale):
    student, teacher = stages(0), stages(1)
    for loss in (projected_fsp, hint):
        scaled = loss([scale * maps for maps in student], [scale * maps for maps in teacher])
        torch.testing.assert_close(scaled, loss(student, teacher), rtol=1e-12, atol=0)


@pytest.mark.parametrize("second", [(2, 5, 4, 4), (2, 5, 2, 2), (2, 5, 8, 8), (2, 5, 3, 3), (2, 5, 7, 2)])
def test_fsp_matrix_agrees_with_torchdistill(second):
    first, second = draw(2, 3, 4, 4), draw(*second)
    torch.testing.assert_close(
        fsp_matrix(first, second), FSPLoss.compute_fsp_matrix(first, second), rtol=1e-14, atol=1e-15
    )


def test_fsp_loss_is_the_squared_frobenius_norm_not_torchdistill_s_sum_of_column_lengths():
    # The flows differ by [[3, 3], [4, 4]]: squared Frobenius norm 50; two columns of length 5.
    student = (constant(3.0, 4.0), constant(1.0, 1.0))
    teacher = (constant(0.0, 0.0), constant(1.0, 1.0))
    config = {
        f"{side}_{end}": {"path": side, "io": io}
        for side in ("student", "teacher")
        for end, io in (("first", "input"), ("second", "output"))
    }
    found = FSPLoss({"pair": config})(
        {"student": {"input": student[0], "output": student[1]}},
        {"teacher": {"input": teacher[0], "output": teacher[1]}},
    )
    assert found.item() == 10
    assert fsp_loss([student], [teacher], reduction="sum").item() == 50


def test_flows_are_of_maps_projected_where_they_differ_in_width_and_nowhere_else():
    module = learned(FlowLoss((3, 5, 2), (4, 5, 6), **SUM))
    weights = dict(module.named_parameters())
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        "maps.0.weight": (4, 3, 1, 1),
        "maps.2.weight": (6, 2, 1, 1),
    }
    first, second, third = stages(0)
    first, third = (
        torch.einsum("oc,bchw->bohw", weights[f"maps.{place}.weight"][:, :, 0, 0], maps)
        for place, maps in ((0, first), (2, third))
    )
    expected = fsp_loss(flows([first, second, third]), flows(stages(1)), reduction="sum")
    torch.testing.assert_close(module(stages(0), stages(1)), expected, rtol=1e-13, atol=0)


def test_the_projections_of_flows_learn():
    module = learned(FlowLoss((3, 5, 2), (4, 5, 6), **SUM))
    module(stages(0), stages(1)).backward()
    assert all(parameter.grad.any() for parameter in module.parameters())


# NST


def test_nst_by_hand():
    # Student's channels along (1, 0) twice, teacher's along (1, 0) and (0, 1): 1 + 1/2 - 2 (1/2).
    student = torch.tensor([[[[2.0, 0.0]], [[-5.0, 0.0]]]], dtype=torch.float64)
    teacher = torch.tensor([[[[1.0, 0.0]], [[0.0, 3.0]]]], dtype=torch.float64)
    assert nst_loss([student], [teacher]).item() == 0.5


def naive_discrepancy(student, teacher):
    """Squared MMD of one image's channels, pair by pair."""

    def scaled(maps):
        rows = maps.flatten(1).tolist()
        return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows]

    def kernel_mean(first, second):
        kernels = [sum(x * y for x, y in zip(a, b, strict=True)) ** 2 for a in first for b in second]
        return sum(kernels) / len(kernels)

    ours, theirs = scaled(student), scaled(teacher)
    return kernel_mean(ours, ours) + kernel_mean(theirs, theirs) - 2 * kernel_mean(ours, theirs)


# Both ways to compute it: fewer channels than positions, and more in either network.
@pytest.mark.parametrize("widths", [(3, 3), (3, 4), (11, 3), (3, 11), (12, 20)])
def test_nst_is_the_explicit_discrepancy(widths):
    student, teacher = draw(2, widths[0], 3, 3), draw(2, widths[1], 3, 3, seed=1)
    expected = sum(naive_discrepancy(student[image], teacher[image]) for image in range(2)) / 2
    assert nst_loss([student], [teacher]).item() == pytest.approx(expected, rel=1e-12)
    assert nst_loss([student] * 3, [teacher] * 3).item() == pytest.approx(3 * expected, rel=1e-12)


@pytest.mark.parametrize("widths", [(3, 4), (12, 20)])
def test_nst_does_not_depend_on_the_channels_order_scale_or_sign(widths):
    student, teacher = draw(2, widths[0], 3, 3), draw(2, widths[1], 3, 3, seed=1)
    changed = student.flip(1) * torch.linspace(-2, 3, widths[0], dtype=torch.float64).view(1, -1, 1, 1)
    torch.testing.assert_close(
        nst_loss([changed], [teacher]), nst_loss([student], [teacher]), rtol=1e-12, atol=0
    )


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.numel())
        return result


@pytest.mark.parametrize(("width", "size"), [(64, 8), (16, 16), (256, 2)])
def test_nst_builds_no_tensor_over_pairs_of_channels_and_positions(width, size):
    student = draw(2, width, size, size, requires_grad=True)
    teacher = draw(2, width, size, size, seed=1)
    with LargestTensor() as largest:
        nst_loss([student], [teacher]).backward()
    smaller_products = min(width, size * size) ** 2
    assert largest.elements == 2 * max(width * size * size, smaller_products)


# VID


def test_vid_by_hand():
    module = learned(VariationalLoss((1,), (1,)))
    with torch.no_grad():
        for layer, weight in zip(module.means[0][::2], (2.0, 0.5, -3.0), strict=True):
            layer.weight.fill_(weight)
        module.variances[0].unbounded.fill_(math.log(math.expm1(4 - 1e-5)))
    # mu(1) = -3, mu(-1) = 0 by the ReLU; the teacher's 1 and 2 are 4 and 2 away: (16 + 4) / 4 / 2 images.
    student = torch.tensor([1.0, -1.0], dtype=torch.float64).view(2, 1, 1, 1)
    teacher = torch.tensor([1.0, 2.0], dtype=torch.float64).view(2, 1, 1, 1)
    expected = (20 / 4 / 2 + math.log(4)) / 2
    assert module([student], [teacher]).item() == pytest.approx(expected, rel=1e-13)


def test_vid_agrees_with_torchdistill():
    module = learned(VariationalLoss(*zip(*WIDTHS, strict=True)))
    total = 0.0
    for stage, (ours, theirs) in enumerate(zip(stages(0), stages(1), strict=True)):
        widths = WIDTHS[stage]
        reference = Regressor4VID(widths[0], widths[1], widths[1], eps=1e-5, init_pred_var=5.0).double()
        torch.testing.assert_close(
            module.variances[stage].unbounded.detach(),
            reference.soft_plus_param.detach().double(),
            rtol=1e-6,
            atol=0,
        )
        with torch.no_grad():
            module.variances[stage].unbounded.copy_(draw(widths[1]))
            reference.soft_plus_param.copy_(draw(widths[1]))
            for index in (0, 2, 4):
                reference.regressor[index].weight.copy_(module.means[stage][index].weight)
        total += theirs_of(VIDLoss(PAIR), reference(ours), theirs)
    torch.testing.assert_close(module(stages(0), stages(1)), total, rtol=1e-13, atol=0)


def test_vid_s_variances_are_parameters_and_learn_the_error_s():
    """Where the means are 0, the most likely s^2 of a channel is the mean square of its features."""
    module = learned(VariationalLoss((2,), (3,)))
    teacher = draw(50, 3, 2, 2) * torch.tensor([0.5, 1.0, 3.0]).view(1, 3, 1, 1)
    student = torch.zeros(50, 2, 2, 2, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(
        module.parameters(), max_iter=200, tolerance_grad=1e-13, line_search_fn="strong_wolfe"
    )

    def loss():
        optimizer.zero_grad()
        value = module([student], [teacher])
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(
        module.variances[0]().flatten().detach(), teacher.square().mean(dim=(0, 2, 3)), rtol=1e-4, atol=0
    )


def test_every_parameter_of_vid_gets_its_gradient():
    module = learned(VariationalLoss((3, 2), (4, 3)))
    student, teacher = [draw(2, 3, 2, 2), draw(2, 2, 1, 1)], [draw(2, 4, 2, 2), draw(2, 3, 1, 1)]
    assert torch.autograd.gradcheck(
        lambda *parameters: torch.func.functional_call(
            module, dict(zip(dict(module.named_parameters()), parameters, strict=True)), (student, teacher)
        ),
        tuple(module.parameters()),
    )


def test_vid_s_variances_start_at_5_whatever_they_held():
    module = VariationalLoss((3,), (4,)).double()
    with torch.no_grad():
        module.variances[0].unbounded.fill_(-7)
    initialise(module, torch.Generator().manual_seed(0))
    assert module.variances[0]().flatten().tolist() == pytest.approx([5.0] * 4, rel=1e-14)


def test_vid_s_variance_stays_positive():
    module = learned(VariationalLoss((1,), (1,)))
    with torch.no_grad():
        module.variances[0].unbounded.fill_(-1e4)
    assert module.variances[0]().item() == 1e-5
    loss = module([draw(1, 1, 1, 1)], [draw(1, 1, 1, 1)])
    assert loss.isfinite()


# FitNets


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("sum", (47 + 12) / 4), ("mean", (47 + 12) / 16), ("relative", (47 / 1 + 12 / 8) / 4)],
)
def test_hint_loss_by_hand(reduction, expected):
    keys = RELATIVE if reduction == "relative" else {"relative": False, "reduction": reduction}
    module = learned(HintLoss((1,), (2,), **keys))
    with torch.no_grad():
        module.regressor.weight.copy_(torch.tensor([2.0, -1.0]).view(2, 1, 1, 1))
    student = torch.tensor([[1.0, 3.0], [0.0, -2.0]], dtype=torch.float64).view(2, 1, 1, 2)
    # Regressed 2, 6, -1, -3 and 0, -4, 0, 2: squared distances 1 + 36 + 1 + 9 and 4 + 4 + 0 + 4.
    teacher = torch.tensor([[1.0, 0.0, 0.0, 0.0], [2.0, -2.0, 0.0, 0.0]], dtype=torch.float64)
    assert module([student], [teacher.view(2, 2, 1, 2)]).item() == pytest.approx(expected, rel=1e-14)


def test_the_regressor_is_linear_and_reaches_negative_hints():
    module = learned(HintLoss((3,), (5,), **SUM))
    student = draw(2, 3, 2, 2)
    hint = torch.einsum("oc,bchw->bohw", module.regressor.weight.detach()[:, :, 0, 0], student)
    assert (hint < 0).any()
    assert module([student], [hint]).item() == pytest.approx(0, abs=1e-30)


def test_the_regressor_learns_with_the_student():
    module = learned(HintLoss((3,), (5,), **SUM))
    assert torch.autograd.gradcheck(
        lambda weight: torch.func.functional_call(
            module, {"regressor.weight": weight}, ([draw(2, 3, 2, 2)], [draw(2, 5, 2, 2)])
        ),
        tuple(module.parameters()),
    )


# Initial weights


@pytest.mark.parametrize(
    "module",
    [
        lambda: VariationalLoss((3, 4), (5, 4)),
        lambda: HintLoss((3,), (5,), **SUM),
        lambda: FlowLoss((3, 4), (5, 4), **SUM),
    ],
)
def test_the_generator_alone_decides_the_weights_of_a_loss_that_learns(module):
    states = []
    for global_seed in (0, 1):
        torch.manual_seed(global_seed)
        built = module()
        with torch.no_grad():
            for tensor in built.state_dict().values():
                tensor.uniform_()
        initialise(built, torch.Generator().manual_seed(7))
        states.append(built.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_modules_hold_no_batchnorm_that_workers_would_have_to_synchronise():
    losses = (HintLoss((3,), (4,), **SUM), FlowLoss((3,), (4,), **SUM))
    for module in (VariationalLoss((3,), (4,)), *losses):
        assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules())
