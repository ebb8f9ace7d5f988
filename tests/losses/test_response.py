"""The losses on logits against plain float64 sums, and KD against torchdistill."""

import math

import pytest
import torch
from torchdistill.losses.mid_level import KDLoss

from hkrun.losses import backbone_loss, cross_entropy, kd_loss, logits_l1_loss

STUDENT = [[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]]
TEACHER = [[0.0, 1.0, 0.5], [2.0, 2.5, -3.0]]


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64, requires_grad=True)


def test_backbone_loss_by_hand():
    # Squared differences: 1, 9, 0 and 4, 0.25, 4; 18.25 together, two images, three classes.
    assert backbone_loss(tensor(STUDENT), tensor(TEACHER), reduction="sum").item() == 18.25 / 2
    assert backbone_loss(tensor(STUDENT), tensor(TEACHER), reduction="mean").item() == 18.25 / 6


@pytest.mark.parametrize(("reduction", "elements"), [("sum", 2), ("mean", 6)])
def test_backbone_loss_pulls_each_logit_by_twice_its_difference(reduction, elements):
    student = tensor(STUDENT)
    backbone_loss(student, tensor(TEACHER).detach(), reduction=reduction).backward()
    expected = 2 * (torch.tensor(STUDENT) - torch.tensor(TEACHER)).double() / elements
    torch.testing.assert_close(student.grad, expected, rtol=1e-15, atol=0)


def test_cross_entropy_is_the_mean_negative_log_of_the_label_s_softmax():
    expected = 0.0
    for row, label in zip(STUDENT, (2, 0), strict=True):
        expected -= math.log(math.exp(row[label]) / sum(math.exp(value) for value in row)) / 2
    assert cross_entropy(tensor(STUDENT), torch.tensor([2, 0])).item() == pytest.approx(expected, rel=1e-14)


def test_cross_entropy_of_huge_logits_is_their_difference():
    logits = torch.tensor([[2e4, 0.0], [0.0, 0.0]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx((2e4 + math.log(2)) / 2, rel=1e-6)
    loss.backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, -0.5], [-0.25, 0.25]]))


def softmax(row, temperature):
    exponentials = [math.exp(value / temperature) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def divergence(temperature):
    """KL(teacher || student) of the softened classes, averaged over the two images."""
    return sum(
        t * math.log(t / s) / 2
        for student, teacher in zip(STUDENT, TEACHER, strict=True)
        for s, t in zip(softmax(student, temperature), softmax(teacher, temperature), strict=True)
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kd_is_t_squared_times_the_divergence_summed_over_classes(temperature):
    found = kd_loss(tensor(STUDENT), tensor(TEACHER), temperature=temperature)
    assert found.item() == pytest.approx(temperature**2 * divergence(temperature), rel=1e-13)


def test_kd_by_hand():
    # Teacher 1/2, 1/2; student 1/4, 3/4 at temperature 2: log(2) / 2 + log(2/3) / 2, times 4.
    student = torch.tensor([[0.0, 2 * math.log(3)]], dtype=torch.float64)
    found = kd_loss(student, torch.zeros(1, 2, dtype=torch.float64), temperature=2.0)
    assert found.item() == pytest.approx(2 * math.log(4 / 3), rel=1e-14)


def test_kd_pulls_by_the_temperature_times_the_difference_of_the_softened_classes():
    student = tensor(STUDENT)
    kd_loss(student, tensor(TEACHER), temperature=4.0).backward()
    rows = zip(STUDENT, TEACHER, strict=True)
    expected = [
        [4.0 * (s - t) / 2 for s, t in zip(softmax(student, 4.0), softmax(teacher, 4.0), strict=True)]
        for student, teacher in rows
    ]
    torch.testing.assert_close(student.grad, torch.tensor(expected).double(), rtol=1e-6, atol=0)


def test_kd_agrees_with_torchdistill_s_mixture():
    labels = torch.tensor([2, 0])
    student, teacher = tensor(STUDENT), tensor(TEACHER)
    theirs = KDLoss("net", "output", "net", "output", temperature=4.0, alpha=0.1)
    found = theirs({"net": {"output": student}}, {"net": {"output": teacher}}, labels)
    ours = 0.1 * cross_entropy(student, labels) + 0.9 * kd_loss(student, teacher, temperature=4.0)
    torch.testing.assert_close(ours, found, rtol=1e-14, atol=0)


def test_kd_keeps_t_squared_and_sums_over_classes_where_torchdistill_need_not():
    student, teacher = tensor(STUDENT), tensor(TEACHER)
    ours = kd_loss(student, teacher, temperature=4.0)
    ios = {"net": {"output": student}}, {"net": {"output": teacher}}
    found = KDLoss("net", "output", "net", "output", temperature=4.0, alpha=0)(*ios)
    torch.testing.assert_close(ours, 4.0**2 * found, rtol=1e-13, atol=0)
    averaged = KDLoss("net", "output", "net", "output", temperature=4.0, alpha=0, reduction="mean")
    with pytest.warns(UserWarning, match="batchmean"):
        found = averaged(*ios)
    torch.testing.assert_close(ours, 4.0**2 * 3 * found, rtol=1e-13, atol=0)


def test_kd_of_huge_logits_stays_finite():
    student = torch.tensor([[4e4, 0.0]], requires_grad=True)
    loss = kd_loss(student, torch.tensor([[0.0, 4e4]]), temperature=4.0)
    loss.backward()
    assert loss.item() == 4 * 4e4
    assert student.grad.tolist() == [[4.0, -4.0]]


@pytest.mark.parametrize(("reduction", "elements"), [("sum", 2), ("mean", 6)])
def test_logits_l1_by_hand(reduction, elements):
    # Absolute differences: 1, 3, 0 and 2, 0.5, 2; 8.5 together.
    student = tensor(STUDENT)
    loss = logits_l1_loss(student, tensor(TEACHER), reduction=reduction)
    assert loss.item() == pytest.approx(8.5 / elements, rel=1e-15)
    loss.backward()
    signs = torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(student.grad, signs / elements, rtol=1e-15, atol=0)


@pytest.mark.parametrize(
    "loss",
    [
        lambda student, teacher: kd_loss(student, teacher, temperature=4.0),
        lambda student, teacher: logits_l1_loss(student, teacher, reduction="mean"),
    ],
)
def test_no_gradient_goes_to_the_teacher_s_logits(loss):
    teacher = tensor(TEACHER)
    loss(tensor(STUDENT), teacher).backward()
    assert teacher.grad is None
