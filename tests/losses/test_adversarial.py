"""The adversarial losses against plain float64 sums, and the game that they make."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from hkrun.losses import discriminator_loss, student_adversarial_loss
from hkrun.models import Discriminator, initialise


class DiscriminatorOutput(NamedTuple):
    source: Tensor
    classes: Tensor | None


TEACHER_SOURCE, STUDENT_SOURCE = [0.7, -1.1, 2.0], [-0.4, 0.9, -3.0]
TEACHER_CLASSES = [[0.5, -1.0], [2.0, 0.3], [0.0, 0.1]]
STUDENT_CLASSES = [[-0.2, 0.4], [1.0, 1.5], [-2.0, 0.6]]
LABELS = [0, 1, 1]
PARAMETERS = [[[0.5, -2.0], [0.0, 1.0]], [3.0, -0.25]]
L1_NORM, SQUARED_L2_NORM, NUM_PARAMETERS = 6.75, 14.3125, 6


def output_of(source, classes):
    return DiscriminatorOutput(
        torch.tensor(source, dtype=torch.float64),
        None if classes is None else torch.tensor(classes, dtype=torch.float64),
    )


def parts(*, teacher=None, student=None, parameters=None, **keys):
    keys = {"mu": 1.0, "category": True, "regularizer": True, "reg_reduction": "mean"} | keys
    return discriminator_loss(
        teacher or output_of(TEACHER_SOURCE, TEACHER_CLASSES),
        student or output_of(STUDENT_SOURCE, STUDENT_CLASSES),
        torch.tensor(LABELS),
        parameters or [torch.tensor(values, dtype=torch.float64) for values in PARAMETERS],
        **keys,
    )


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def cross_entropy(classes):
    return mean(
        -math.log(math.exp(row[label]) / sum(math.exp(value) for value in row))
        for row, label in zip(classes, LABELS, strict=True)
    )


REAL = mean(-math.log(sigmoid(d)) for d in TEACHER_SOURCE)  # BCE(d_T, 1)
FAKE = mean(-math.log(1 - sigmoid(d)) for d in STUDENT_SOURCE)  # BCE(d_S, 0)
CONFUSING = mean(-math.log(sigmoid(d)) for d in STUDENT_SOURCE)  # BCE(d_S, 1)


def test_source_part_is_equation_5():
    assert parts()["source"].item() == pytest.approx(REAL + FAKE, rel=1e-14)


def test_category_part_is_equation_7_minimised_for_both():
    expected = cross_entropy(TEACHER_CLASSES) + cross_entropy(STUDENT_CLASSES)
    assert parts()["category"].item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(("reg_reduction", "divisor"), [("mean", NUM_PARAMETERS), ("sum", 1)])
@pytest.mark.parametrize("mu", [1.0, 0.3])
def test_regularizer_part_is_equation_6_times_mu(mu, reg_reduction, divisor):
    expected = mu * ((L1_NORM + SQUARED_L2_NORM) / divisor + CONFUSING)
    found = parts(mu=mu, reg_reduction=reg_reduction)["regularizer"]
    assert found.item() == pytest.approx(expected, rel=1e-14)


def test_mean_reduction_divides_by_all_parameters_biases_included():
    network = Discriminator(10, num_classes=10).double()
    initialise(network, torch.Generator().manual_seed(0))
    values = [value for parameter in network.parameters() for value in parameter.detach().flatten().tolist()]
    assert len(values) == 341
    expected = mean(abs(value) + value**2 for value in values) + CONFUSING
    found = parts(parameters=list(network.parameters()))["regularizer"].item()
    assert found == pytest.approx(expected, rel=1e-13)


def test_without_the_category_term_no_class_output_is_needed():
    teacher, student = output_of(TEACHER_SOURCE, None), output_of(STUDENT_SOURCE, None)
    found = parts(teacher=teacher, student=student, category=False)
    full = parts()
    assert set(found) == {"source", "regularizer"}
    assert found["source"].item() == full["source"].item()
    assert found["regularizer"].item() == full["regularizer"].item()


@pytest.mark.parametrize("keys", [{"regularizer": False}, {"mu": 0.0}])
def test_without_the_regularizer_all_terms_of_mu_are_gone(keys):
    found, full = parts(**keys), parts()
    assert set(found) == {"source", "category"}
    assert found["source"].item() == full["source"].item()
    assert found["category"].item() == full["category"].item()


@pytest.mark.parametrize("reg_reduction", ["mean", "sum"])
def test_weight_norms_raise_the_loss_and_pull_every_weight_towards_zero(reg_reduction):
    weights = torch.tensor([0.5, -2.0, 1e-3, -0.1], dtype=torch.float64, requires_grad=True)
    small = parts(parameters=[weights], reg_reduction=reg_reduction)["regularizer"]
    large = parts(parameters=[1.01 * weights], reg_reduction=reg_reduction)["regularizer"]
    assert large > small
    small.backward()
    divisor = len(weights) if reg_reduction == "mean" else 1
    expected = (weights.detach().sign() + 2 * weights.detach()) / divisor
    torch.testing.assert_close(weights.grad, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0, 3.0])
def test_the_pointwise_optimum_for_equal_distributions_is_1_plus_mu_over_2_plus_mu(mu):
    source = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    same = DiscriminatorOutput(source, None)
    for _ in range(60):  # Newton's method: the loss is convex in the source logit
        found = discriminator_loss(
            same,
            same,
            torch.zeros(1, dtype=torch.int64),
            [torch.zeros(1, dtype=torch.float64)],  # the norms left out
            mu=mu,
            category=False,
            regularizer=True,
            reg_reduction="mean",
        )
        (slope,) = torch.autograd.grad(sum(found.values()), source, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), source)
        with torch.no_grad():
            source -= slope.detach() / curvature
    assert source.sigmoid().item() == pytest.approx((1 + mu) / (2 + mu), rel=1e-14)


@pytest.mark.parametrize(("gan", "expected"), [("non_saturating", CONFUSING), ("saturating", -FAKE)])
def test_student_s_source_term(gan, expected):
    student = output_of(STUDENT_SOURCE, None)
    found = student_adversarial_loss(student, torch.tensor(LABELS), gan=gan, category=False)
    assert found.item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("gan", ["non_saturating", "saturating"])
def test_the_category_term_adds_the_student_s_cross_entropy(gan):
    student, labels = output_of(STUDENT_SOURCE, STUDENT_CLASSES), torch.tensor(LABELS)
    without = student_adversarial_loss(student, labels, gan=gan, category=False)
    found = student_adversarial_loss(student, labels, gan=gan, category=True)
    assert (found - without).item() == pytest.approx(cross_entropy(STUDENT_CLASSES), rel=1e-13)


@pytest.mark.parametrize(
    ("gan", "slope"), [("non_saturating", lambda p: p - 1), ("saturating", lambda p: -p)]
)
def test_both_forms_push_the_student_towards_the_teacher_s_side(gan, slope):
    source = torch.tensor(STUDENT_SOURCE, dtype=torch.float64, requires_grad=True)
    loss = student_adversarial_loss(
        DiscriminatorOutput(source, None), torch.tensor(LABELS), gan=gan, category=False
    )
    loss.backward()
    expected = [slope(sigmoid(value)) / 3 for value in STUDENT_SOURCE]
    assert source.grad.tolist() == pytest.approx(expected, rel=1e-13)
    assert source.grad.max() < 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_discriminator_that_is_certain_gives_exact_losses_and_finite_gradients(dtype):
    def certain(source):
        return torch.full((3,), source, dtype=dtype, requires_grad=True)

    labels = torch.tensor(LABELS)
    keys = {"mu": 1.0, "category": False, "regularizer": False, "reg_reduction": "mean"}
    wrong = discriminator_loss(
        DiscriminatorOutput(certain(-500.0), None),
        DiscriminatorOutput(certain(500.0), None),
        labels,
        [],
        **keys,
    )
    assert wrong["source"].item() == 1000.0
    right = discriminator_loss(
        DiscriminatorOutput(certain(500.0), None),
        DiscriminatorOutput(certain(-500.0), None),
        labels,
        [],
        **keys,
    )
    assert right["source"].item() == pytest.approx(0.0, abs=1e-200)
    source = certain(-500.0)
    loss = student_adversarial_loss(
        DiscriminatorOutput(source, None), labels, gan="non_saturating", category=False
    )
    loss.backward()
    assert loss.item() == 500.0
    torch.testing.assert_close(source.grad, torch.full((3,), -1 / 3, dtype=dtype))


@pytest.mark.parametrize("category", [True, False])
@pytest.mark.parametrize("regularizer", [True, False])
def test_every_part_s_gradient_is_the_numerical_one(category, regularizer):
    network = Discriminator(3, num_classes=3 if category else 0).double()
    initialise(network, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    teacher, student = (torch.randn(4, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    parameters = tuple(network.parameters())

    def loss(*_):
        found = discriminator_loss(
            network(teacher),
            network(student),
            torch.tensor([0, 2, 1, 1]),
            parameters,
            mu=0.7,
            category=category,
            regularizer=regularizer,
            reg_reduction="sum",
        )
        return sum(found.values())

    assert torch.autograd.gradcheck(loss, parameters)
