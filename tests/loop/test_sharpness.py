"""The sharpness of a loss is the largest eigenvalue of its Hessian, as other ways give it."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

from hkrun.config import Cell
from hkrun.data import Dataset
from hkrun.distill import Pack, Step, measure_sharpness, start_run
from hkrun.distill.sharpness import largest_eigenpair
from hkrun.models.sgd import SGD
from hkrun.training import STUDENT_DRAWS, Batch, SingleProcess
from loop.conftest import CPU, ask_one, make_sets, tiny_cell
from loop.test_methods import make_teacher


def make_step(cell: Cell, dataset: Dataset, seeds: tuple[int, ...] = (0,)) -> tuple[Pack, Step, Batch]:
    pack = Pack([start_run(cell, dataset, seed, context=SingleProcess(), device=CPU) for seed in seeds])
    pack.train()
    batches = make_sets(cell, dataset)["images"].training.batches(
        seeds, 0, batch_size=cell.student.batch_size, draws=STUDENT_DRAWS, context=SingleProcess()
    )
    return pack, Step(pack, 0, ask_one(make_teacher(cell, dataset)), SingleProcess()), next(batches)


def measure(step: Step, batch: Batch, parameters: list[nn.Parameter]) -> tuple[float, dict[str, float]]:
    found = measure_sharpness(step, batch, parameters, generator=torch.Generator().manual_seed(1))
    return found.curvature, dict(found.shares)


def test_the_algebraically_largest_eigenvalue_is_found_beside_larger_negative_ones() -> None:
    generator = torch.Generator().manual_seed(2)
    turn, _ = torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64))
    values = torch.cat([torch.tensor([-90.0, 38.0]), torch.linspace(-2, 2, 38)]).double()
    matrix = turn @ values.diag() @ turn.T
    start = torch.randn(40, generator=generator, dtype=torch.float64)
    value, vector = largest_eigenpair(lambda each: matrix @ each, start, products=15)
    assert value == pytest.approx(38.0, rel=1e-9)
    torch.testing.assert_close(matrix @ vector, 38.0 * vector, rtol=1e-4, atol=1e-4)


def test_a_matrix_smaller_than_the_products_and_one_of_zeros() -> None:
    start = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert largest_eigenpair(lambda each: each * torch.tensor([2.0, 5.0]), start)[0] == pytest.approx(5.0)
    assert largest_eigenpair(torch.zeros_like, start)[0] == 0.0


@pytest.mark.parametrize("values", [{}, {"method": "kd"}, {"knowledge__form": "fsp", "loss__lambda_2": 0.0}])
def test_sharpness_is_the_largest_eigenvalue_that_arpack_finds_of_the_hessian(
    dataset: Dataset, values: dict[str, object]
) -> None:
    cell = tiny_cell(student__network="preact-8-w2", loss__lambda_3=3.0, **values)
    pack, step, batch = make_step(cell, dataset)
    parameters = pack.student_optimizer.param_groups[0]["params"]
    loss = torch.stack([term.sum() for term in step.weigh(batch).values()]).sum()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    gradient = torch.cat([each.flatten() for each in gradients])

    def multiply(vector: np.ndarray) -> np.ndarray:
        product = torch.autograd.grad(
            gradient @ torch.from_numpy(vector), parameters, retain_graph=True, materialize_grads=True
        )
        return torch.cat([each.flatten() for each in product]).numpy()

    hessian = LinearOperator((len(gradient), len(gradient)), multiply, dtype=np.float64)
    start = np.random.default_rng(2).normal(size=len(gradient))
    expected = float(eigsh(hessian, k=1, which="LA", v0=start, tol=1e-12, return_eigenvectors=False)[0])
    curvature, shares = measure(step, batch, parameters)
    assert curvature == pytest.approx(expected, rel=1e-2)
    assert curvature <= expected * (1 + 1e-9)
    assert sum(shares.values()) == pytest.approx(curvature, rel=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_curvature_of_l_b_at_the_classifier_is_that_of_its_features(
    dataset: Dataset, reduction: str
) -> None:
    cell = tiny_cell(loss__lambda_1=4.0, loss__lambda_2=0.0, loss__lambda_3=0.0, loss__reduction=reduction)
    pack, step, batch = make_step(cell, dataset)
    with torch.no_grad():
        features = pack.forward(batch.images)[0].descriptor[0]
    extended = torch.cat([features, torch.ones(len(features), 1, dtype=features.dtype)], dim=1)
    moments = extended.T @ extended / len(extended)
    per_class = 1 / dataset.num_classes if reduction == "mean" else 1.0
    expected = 4.0 * 2 * per_class * float(torch.linalg.eigvalsh(moments)[-1])
    curvature, _ = measure(step, batch, list(pack.runs[0].student.backbone.classifier.parameters()))
    assert curvature == pytest.approx(expected, rel=1e-8)


def test_the_sharpness_of_a_pack_is_that_of_its_sharpest_run(dataset: Dataset) -> None:
    cell = tiny_cell(student__network="preact-8-w2")
    alone = []
    for seed in (0, 1):
        pack, step, batch = make_step(cell, dataset, (seed,))
        alone.append(measure(step, batch, pack.student_optimizer.param_groups[0]["params"])[0])
    pack, step, batch = make_step(cell, dataset, (0, 1))
    together = measure(step, batch, pack.student_optimizer.param_groups[0]["params"])[0]
    assert together == pytest.approx(max(alone), rel=2e-2)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_momentum_sgd_leaves_a_parabola_above_its_limit_and_not_below(momentum: float) -> None:
    limit = 2 * (1 + momentum) / 0.1
    distances = {}
    for curvature in (0.98 * limit, 1.02 * limit):
        parameter = nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = SGD([parameter], lr=0.1, momentum=momentum, fused=True)
        path = []
        for _ in range(2000):
            parameter.grad = curvature * parameter.detach()
            optimizer.step()
            path.append(abs(float(parameter.detach())))
        distances[curvature] = path
    below, above = distances.values()
    assert below[-1] < 1e-3
    assert above[-1] > 1e6
    assert all(later > earlier for earlier, later in pairwise(above[100::100]))
