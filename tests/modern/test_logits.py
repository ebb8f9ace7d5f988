"""DKD, DIST and LSKD against plain float64 sums as the papers write them, and torchdistill."""

import math

import pytest
import torch
from torchdistill.losses.mid_level import DISTLoss, LogitStdKDLoss

from hkrun.losses import kd_loss
from hkrun.modern.dist import dist_loss
from hkrun.modern.dkd import dkd_loss
from hkrun.modern.lskd import lskd_loss

STUDENT = [[1.0, -2.0, 0.5, 3.0], [0.0, 3.0, -1.0, 0.25], [2.0, 0.0, 1.0, -4.0]]
TEACHER = [[0.0, 1.0, 0.5, 2.0], [2.0, 2.5, -3.0, 1.0], [4.0, -1.0, 0.0, 0.5]]
LABELS = [3, 0, 2]
WHOLE = {"student_module_path": "net", "teacher_module_path": "net"}
WHOLE |= {"student_module_io": "output", "teacher_module_io": "output"}


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64, requires_grad=True)


def softmax(row, temperature=1.0):
    exponentials = [math.exp(value / temperature) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def divergence(teacher, student):
    return sum(t * math.log(t / s) for t, s in zip(teacher, student, strict=True))


def loss_and_gradient(function, student):
    values = student.detach().clone().requires_grad_()
    loss = function(values)
    loss.backward()
    return loss.item(), values.grad


def public(loss):
    """What a loss of torchdistill says of the outputs of two networks."""

    def evaluate(student):
        return loss({"net": {"output": student}}, {"net": {"output": tensor(TEACHER).detach()}})

    return evaluate


# DKD


def decoupled(student, teacher, label, temperature):
    """TCKD and NCKD of one image, sections 3.1 and 3.2 of the paper."""
    p, q = softmax(student, temperature), softmax(teacher, temperature)
    tckd = divergence([q[label], 1 - q[label]], [p[label], 1 - p[label]])
    others = [i for i in range(len(p)) if i != label]
    nckd = divergence(
        softmax([teacher[i] for i in others], temperature), softmax([student[i] for i in others], temperature)
    )
    return tckd, nckd


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_dkd_is_the_weighted_sum_of_its_two_divergences(temperature):
    expected = 0.0
    for student, teacher, label in zip(STUDENT, TEACHER, LABELS, strict=True):
        tckd, nckd = decoupled(student, teacher, label, temperature)
        expected += temperature**2 * (1.5 * tckd + 8.0 * nckd) / 3
    found = dkd_loss(
        tensor(STUDENT), tensor(TEACHER), torch.tensor(LABELS), alpha=1.5, beta=8.0, temperature=temperature
    )
    assert found.item() == pytest.approx(expected, rel=1e-13)


def test_dkd_with_the_teacher_s_doubt_for_beta_is_kd():
    # Eq. (6) of the paper, image by image: what KD hides is that NCKD has weight 1 - p_T(label).
    for student, teacher, label in zip(STUDENT, TEACHER, LABELS, strict=True):
        doubt = 1 - softmax(teacher, 4.0)[label]
        rows = tensor([student]), tensor([teacher])
        found = dkd_loss(*rows, torch.tensor([label]), alpha=1.0, beta=doubt, temperature=4.0)
        assert found.item() == pytest.approx(kd_loss(*rows, temperature=4.0).item(), rel=1e-13)


def test_dkd_s_gradient_is_finite_where_float32_has_no_other_class_left():
    student = torch.tensor([[300.0, 0.0, -1.0]], requires_grad=True)
    teacher = torch.tensor([[-200.0, 100.0, 400.0]])
    loss = dkd_loss(student, teacher, torch.tensor([0]), alpha=1.0, beta=8.0, temperature=1.0)
    loss.backward()
    # The pair: teacher (0, 1), student (1, e^-300): 300. The others: teacher (0, 1), student e^0 : e^-1.
    assert loss.item() == pytest.approx(300 - math.log(1 + math.exp(-1)) + 8 * math.log(1 + math.e), rel=1e-6)
    assert torch.isfinite(student.grad).all()
    assert student.grad[0, 0].item() == pytest.approx(1.0, rel=1e-4)


def test_the_teacher_gets_no_gradient():
    labels = torch.tensor(LABELS)
    for function in (
        lambda s, t: dkd_loss(s, t, labels, alpha=1.0, beta=8.0, temperature=4.0),
        lambda s, t: dist_loss(s, t, beta=2.0, gamma=2.0, temperature=4.0),
        lambda s, t: lskd_loss(s, t, temperature=2.0, unbiased=True),
    ):
        teacher = tensor(TEACHER)
        function(tensor(STUDENT), teacher).backward()
        assert teacher.grad is None


# DIST


def pearson(first, second):
    means = sum(first) / len(first), sum(second) / len(second)
    pairs = [(x - means[0], y - means[1]) for x, y in zip(first, second, strict=True)]
    lengths = math.sqrt(sum(x * x for x, _ in pairs)), math.sqrt(sum(y * y for _, y in pairs))
    return sum(x * y for x, y in pairs) / (lengths[0] * lengths[1] + 1e-8)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dist_is_one_less_the_correlations_over_classes_and_over_images(temperature):
    student, teacher = ([softmax(row, temperature) for row in rows] for rows in (STUDENT, TEACHER))
    inter = sum(1 - pearson(*rows) for rows in zip(student, teacher, strict=True)) / 3
    columns = zip(zip(*student, strict=True), zip(*teacher, strict=True), strict=True)
    intra = sum(1 - pearson(*pair) for pair in columns) / 4
    found = dist_loss(tensor(STUDENT), tensor(TEACHER), beta=2.0, gamma=0.5, temperature=temperature)
    assert found.item() == pytest.approx(temperature**2 * (2 * inter + 0.5 * intra), rel=1e-13)


def test_dist_does_not_see_the_scale_of_the_teacher_s_probabilities():
    # The same correlation for the probabilities moved towards 1/C: what the paper relaxes KD by.
    student = tensor(STUDENT)
    blurred = (tensor(TEACHER).softmax(dim=1) + 0.25) / 2
    expected = dist_loss(student, tensor(TEACHER), beta=1.0, gamma=1.0, temperature=1.0)
    found = dist_loss(student, blurred.log(), beta=1.0, gamma=1.0, temperature=1.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_dist_agrees_with_torchdistill():
    loss = public(DISTLoss(**WHOLE, beta=2.0, gamma=0.5, tau=4.0))
    expected, gradient = loss_and_gradient(loss, tensor(STUDENT))
    ours, own_gradient = loss_and_gradient(
        lambda s: dist_loss(s, tensor(TEACHER), beta=2.0, gamma=0.5, temperature=4.0), tensor(STUDENT)
    )
    # 1e-8 is added to the product of the lengths here, and is the least length of each there.
    assert ours == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(own_gradient, gradient, rtol=1e-5, atol=1e-6)


# LSKD


def z_scores(row, *, degrees):
    mean = sum(row) / len(row)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in row) / (len(row) - degrees))
    return [(value - mean) / (deviation + 1e-7) for value in row]


@pytest.mark.parametrize("unbiased", [False, True])
def test_lskd_is_kd_of_the_z_scores(unbiased):
    student, teacher = (
        [softmax(z_scores(row, degrees=int(unbiased)), 2.0) for row in rows] for rows in (STUDENT, TEACHER)
    )
    expected = sum(4 * divergence(t, s) for t, s in zip(teacher, student, strict=True)) / 3
    found = lskd_loss(tensor(STUDENT), tensor(TEACHER), temperature=2.0, unbiased=unbiased)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_lskd_with_the_paper_s_variance_is_the_code_s_at_a_lower_temperature():
    root = math.sqrt(4 / 3)
    paper = lskd_loss(tensor(STUDENT), tensor(TEACHER), temperature=2.0 * root, unbiased=False)
    code = lskd_loss(tensor(STUDENT), tensor(TEACHER), temperature=2.0, unbiased=True)
    assert paper.item() == pytest.approx(code.item() * root**2, rel=1e-6)


def test_lskd_does_not_see_the_scale_of_the_logits():
    expected = lskd_loss(tensor(STUDENT), tensor(TEACHER), temperature=2.0, unbiased=True)
    found = lskd_loss(3 * tensor(STUDENT) + 5, tensor(TEACHER) / 2 - 1, temperature=2.0, unbiased=True)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def test_lskd_agrees_with_torchdistill():
    labels = torch.tensor(LABELS)
    loss = LogitStdKDLoss(**WHOLE, temperature=2.0, alpha=1e-9, beta=1.0)

    def evaluate(student):
        outputs = {"net": {"output": student}}, {"net": {"output": tensor(TEACHER).detach()}}
        return loss(*outputs, targets=labels) - 1e-9 * loss.cross_entropy_loss(student, labels)

    expected, gradient = loss_and_gradient(evaluate, tensor(STUDENT))
    ours, own_gradient = loss_and_gradient(
        lambda s: lskd_loss(s, tensor(TEACHER), temperature=2.0, unbiased=True), tensor(STUDENT)
    )
    assert ours == pytest.approx(expected, rel=1e-13)
    torch.testing.assert_close(own_gradient, gradient, rtol=1e-12, atol=1e-15)


def test_lskd_keeps_t_squared_where_torchdistill_without_labels_drops_it():
    loss = public(LogitStdKDLoss(**WHOLE, temperature=2.0, alpha=0.0, beta=9.0))
    ours = lskd_loss(tensor(STUDENT), tensor(TEACHER), temperature=2.0, unbiased=True)
    assert loss(tensor(STUDENT)).item() == pytest.approx(ours.item() / 4, rel=1e-13)
