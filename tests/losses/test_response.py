"""L_b and the cross-entropy against plain float64 sums."""

import math

import pytest
import torch

from hkrun.losses import backbone_loss, cross_entropy

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
