"""L_is against plain float64 sums, for every distance and reduction."""

import math

import pytest
import torch

from hkrun.losses import knowledge_loss

STUDENT = [[0.3, -1.2, 2.0, 0.7], [1.5, 0.0, -0.4, 0.1], [0.2, 0.2, 0.9, -2.0]]
TEACHER = [[0.1, -1.0, 1.0, 0.9], [1.0, 0.5, -0.9, 0.0], [0.0, 0.4, 1.0, -1.0]]


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(("reduction", "divisor"), [("sum", 3), ("mean", 12)])
@pytest.mark.parametrize(("distance", "power"), [("l2", 2), ("l1", 1)])
def test_differences_are_summed_over_elements_and_averaged_over_the_batch(
    distance, power, reduction, divisor
):
    total = sum(
        abs(s - t) ** power
        for student, teacher in zip(STUDENT, TEACHER, strict=True)
        for s, t in zip(student, teacher, strict=True)
    )
    loss = knowledge_loss(tensor(STUDENT), tensor(TEACHER), distance=distance, reduction=reduction)
    assert loss.item() == pytest.approx(total / divisor, rel=1e-14)


def softmax(row):
    exponentials = [math.exp(value) for value in row]
    return [value / sum(exponentials) for value in exponentials]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_cross_entropy_compares_the_softmax_over_the_whole_vector(reduction):
    expected = -sum(
        t * math.log(s)
        for student, teacher in zip(STUDENT, TEACHER, strict=True)
        for s, t in zip(softmax(student), softmax(teacher), strict=True)
    ) / len(STUDENT)
    loss = knowledge_loss(tensor(STUDENT), tensor(TEACHER), distance="cross_entropy", reduction=reduction)
    assert loss.item() == pytest.approx(expected, rel=1e-14)


def test_cross_entropy_has_no_gradient_where_the_vectors_agree():
    student = tensor(TEACHER).requires_grad_()
    knowledge_loss(student, tensor(TEACHER), distance="cross_entropy", reduction="mean").backward()
    torch.testing.assert_close(student.grad, torch.zeros(3, 4, dtype=torch.float64), rtol=0, atol=1e-16)


def test_cross_entropy_stays_finite_for_huge_vectors():
    student = torch.tensor([[1e4, 0.0]], requires_grad=True)
    loss = knowledge_loss(student, torch.tensor([[0.0, 1e4]]), distance="cross_entropy", reduction="mean")
    loss.backward()
    assert loss.item() == 1e4
    assert student.grad.tolist() == [[1.0, -1.0]]
