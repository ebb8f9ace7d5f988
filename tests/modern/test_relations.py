"""SP, RKD, PKT and CC against explicit loops over images in float64, and torchdistill."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import normalize
from torchdistill.losses import mid_level
from torchdistill.losses.mid_level import CCKDLoss, PKTLoss, RKDLoss, SPKDLoss

from hkrun.losses import unit_rows
from hkrun.modern.cc import cc_loss
from hkrun.modern.pkt import pkt_loss
from hkrun.modern.rkd import rkd_loss
from hkrun.modern.sp import sp_loss

BATCH = 5
PATHS = {"student_output_path": "net", "teacher_output_path": "net"}
MODULES = {"student_module_path": "net", "teacher_module_path": "net"}
MODULES |= {"student_module_io": "output", "teacher_module_io": "output"}


def draw(*shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


STUDENT, TEACHER = draw(BATCH, 3, seed=0), draw(BATCH, 7, seed=1)
STUDENT_MAPS, TEACHER_MAPS = draw(BATCH, 3, 2, 2, seed=2), draw(BATCH, 5, 4, 4, seed=3)


def sp(student, teacher):
    # What comes before the last stage does not matter.
    return sp_loss([draw(BATCH, 2, 4, 4, seed=4), student], [teacher])


def rkd(student, teacher):
    return rkd_loss(student, teacher, distance=25.0, angle=50.0)


def pkt(student, teacher):
    return pkt_loss(student, teacher, self_pairs=True)


def cc(student, teacher):
    return cc_loss(student, teacher, gamma=0.4, order=2)


LOSSES = {
    "sp": (sp, STUDENT_MAPS, TEACHER_MAPS),
    "rkd": (rkd, STUDENT, TEACHER),
    "pkt": (pkt, STUDENT, TEACHER),
    "cc": (cc, STUDENT, TEACHER),
}


def dot(first, second):
    return sum(x * y for x, y in zip(first, second, strict=True))


def unit(row):
    return [value / math.sqrt(dot(row, row)) for value in row]


def huber(difference):
    return difference**2 / 2 if abs(difference) <= 1 else abs(difference) - 0.5


def divergence(teacher, student):
    return sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True))


def assert_public_agrees(ours, theirs, student, *, rtol=1e-12):
    found = []
    for function in (ours, theirs):
        values = student.clone().requires_grad_()
        loss = function(values)
        loss.backward()
        found.append((loss.item(), values.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=rtol)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=rtol, atol=rtol)


def outputs(student, teacher):
    return {"net": {"output": student}}, {"net": {"output": teacher}}


# SP


def test_sp_is_the_mean_squared_difference_of_the_rows_of_similarities():
    rows = [[image.flatten().tolist() for image in maps] for maps in (STUDENT_MAPS, TEACHER_MAPS)]
    ours, theirs = ([unit([dot(one, other) for other in images]) for one in images] for images in rows)
    expected = sum((ours[i][j] - theirs[i][j]) ** 2 for i in range(BATCH) for j in range(BATCH)) / BATCH**2
    assert sp(STUDENT_MAPS, TEACHER_MAPS).item() == pytest.approx(expected, rel=1e-12)


def test_sp_agrees_with_torchdistill_once_that_scales_rows_by_their_length(monkeypatch):
    loss = SPKDLoss(**PATHS, reduction="batchmean")
    # It calls normalize(rows, 1), whose second argument is p: the sum of absolute values becomes 1.
    rows = [maps.flatten(1) @ maps.flatten(1).T for maps in (STUDENT_MAPS, TEACHER_MAPS)]
    ours, theirs = (each / each.abs().sum(dim=1, keepdim=True) for each in rows)
    found = loss(*outputs(STUDENT_MAPS, TEACHER_MAPS))
    assert found.item() == pytest.approx((ours - theirs).square().mean().item(), rel=1e-12)
    monkeypatch.setattr(mid_level, "normalize", lambda rows, dim: normalize(rows, dim=dim))
    assert_public_agrees(
        lambda maps: sp(maps, TEACHER_MAPS), lambda maps: loss(*outputs(maps, TEACHER_MAPS)), STUDENT_MAPS
    )


# RKD


def potentials(rows):
    """The paper's distances by pairs, and cosines by triples of different images."""
    rows = rows.tolist()
    pairs = list(itertools.permutations(range(BATCH), 2))
    towards = {(i, j): [y - x for x, y in zip(rows[i], rows[j], strict=True)] for i, j in pairs}
    lengths = {pair: math.sqrt(dot(row, row)) for pair, row in towards.items()}
    mean = sum(lengths.values()) / len(pairs)
    angles = {
        (i, j, k): dot(unit(towards[j, i]), unit(towards[j, k]))
        for i, j, k in itertools.permutations(range(BATCH), 3)
    }
    return {pair: length / mean for pair, length in lengths.items()}, angles


def test_rkd_is_the_huber_distance_of_pairs_and_triples():
    (our_lengths, our_angles), (their_lengths, their_angles) = potentials(STUDENT), potentials(TEACHER)
    pairs = sum(huber(our_lengths[pair] - their_lengths[pair]) for pair in our_lengths)
    triples = sum(huber(our_angles[triple] - their_angles[triple]) for triple in our_angles)
    assert len(our_angles) == 60
    expected = 25 * pairs / BATCH**2 + 50 * triples / BATCH**3
    assert rkd(STUDENT, TEACHER).item() == pytest.approx(expected, rel=1e-12)


def test_rkd_agrees_with_torchdistill():
    loss = RKDLoss(**PATHS, dist_factor=25.0, angle_factor=50.0, reduction="mean")
    assert_public_agrees(
        lambda rows: rkd(rows, TEACHER), lambda rows: loss(*outputs(rows, TEACHER)), STUDENT, rtol=1e-9
    )


# PKT


def neighbourhoods(rows, *, self_pairs):
    rows = [unit(row) for row in rows.tolist()]
    found = []
    for i, one in enumerate(rows):
        kernel = [(1 + dot(one, other)) / 2 for j, other in enumerate(rows) if self_pairs or i != j]
        found.append([value / sum(kernel) for value in kernel])
    return found


@pytest.mark.parametrize("self_pairs", [False, True])
def test_pkt_is_the_divergence_of_the_neighbourhoods(self_pairs):
    ours, theirs = (neighbourhoods(rows, self_pairs=self_pairs) for rows in (STUDENT, TEACHER))
    expected = sum(divergence(t, s) for t, s in zip(theirs, ours, strict=True)) / BATCH**2
    found = pkt_loss(STUDENT, TEACHER, self_pairs=self_pairs)
    # The 1e-7 in its logarithms shows in the seventh digit.
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_pkt_agrees_with_torchdistill():
    loss = PKTLoss(**MODULES)
    assert_public_agrees(
        lambda rows: pkt(rows, TEACHER),
        lambda rows: loss(*outputs(rows.clone(), TEACHER.clone())),
        STUDENT,
        rtol=1e-6,
    )


# CC


def test_cc_is_the_squared_difference_of_the_kernels():
    def kernel(one, other):
        product = 2 * 0.4 * dot(one, other)
        return math.exp(-2 * 0.4) * (1 + product + product**2 / 2)

    rows = [[unit(row) for row in rows.tolist()] for rows in (STUDENT, TEACHER)]
    ours, theirs = ([[kernel(one, other) for other in images] for one in images] for images in rows)
    expected = sum((ours[i][j] - theirs[i][j]) ** 2 for i in range(BATCH) for j in range(BATCH)) / BATCH**2
    assert cc(STUDENT, TEACHER).item() == pytest.approx(expected, rel=1e-12)


def test_cc_s_series_approaches_the_gaussian_kernel():
    ours, theirs = (
        torch.exp(-0.4 * torch.cdist(unit_rows(rows), unit_rows(rows)) ** 2) for rows in (STUDENT, TEACHER)
    )
    expected = (ours - theirs).square().mean().item()
    assert cc_loss(STUDENT, TEACHER, gamma=0.4, order=12).item() == pytest.approx(expected, rel=1e-8)
    assert cc(STUDENT, TEACHER).item() != pytest.approx(expected, rel=1e-2)


def test_cc_is_the_square_of_what_torchdistill_computes():
    loss = CCKDLoss(
        student_linear_path="net",
        teacher_linear_path="net",
        kernel_config={"type": "gaussian", "gamma": 0.4, "max_p": 2},
        reduction="batchmean",
    )
    # There the distance over B^2, of features that nothing scales; in the paper the squared distance.
    assert_public_agrees(
        lambda rows: cc(rows, TEACHER),
        lambda rows: loss(*outputs(unit_rows(rows), unit_rows(TEACHER))).square() * BATCH**2,
        STUDENT,
    )


# Of all


@pytest.mark.parametrize("name", LOSSES)
def test_relations_do_not_change_with_what_preserves_them(name):
    loss, student, teacher = LOSSES[name]
    assert loss(teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    rows = teacher.flatten(1)
    rotation, _ = torch.linalg.qr(draw(rows.shape[1], rows.shape[1], seed=5))
    rotated = (3 * rows @ rotation).reshape(teacher.shape)
    assert loss(student, rotated).item() == pytest.approx(loss(student, teacher).item(), rel=1e-10)
    # RKD alone does not see where the origin is.
    moved = loss(student, teacher + 1).item()
    assert (moved == pytest.approx(loss(student, teacher).item(), rel=1e-10)) == (name == "rkd")


@pytest.mark.parametrize("name", LOSSES)
def test_images_without_features_and_twice_the_same_leave_the_gradient_finite(name):
    loss, student, teacher = LOSSES[name]
    student = student.float()
    student[:2] = 0
    student[3] = student[2]
    student.requires_grad_()
    loss(student, teacher.float()).backward()
    # torch's own `normalize` would pull the empty rows by 1e12 times the gradient of their directions.
    assert 0 < student.grad.abs().max() < 1e3
    blank = torch.zeros_like(student).requires_grad_()
    loss(blank, teacher.float()).backward()
    assert torch.isfinite(blank.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_the_teacher_gets_no_gradient(name):
    loss, student, teacher = LOSSES[name]
    student, teacher = (each.clone().requires_grad_() for each in (student, teacher))
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0
