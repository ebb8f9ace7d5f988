"""How curved the loss of students is: the largest eigenvalue of its Hessian, and which term it comes from.

Gradient descent with momentum m leaves a minimum along a direction of curvature above 2 (1 + m) / rate, the
stability limit of its step (Polyak 1964). By Lanczos' method, from products of the Hessian with vectors.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hkrun.distill.step import Step
from hkrun.training import Batch

# The largest eigenvalues of a loss lie apart from the others: so few products give them to a percent.
PRODUCTS = 20


class Sharpness(NamedTuple):
    """The largest curvature of a loss.

    Attributes:
        curvature: The largest eigenvalue of the Hessian.
        shares: What each term adds to it, by the term's name.
    """

    curvature: float
    shares: Mapping[str, float]


def largest_eigenpair(
    multiply: Callable[[Tensor], Tensor], start: Tensor, *, products: int = PRODUCTS
) -> tuple[float, Tensor]:
    """The algebraically largest eigenvalue of a symmetric matrix, from below, and its vector of length 1.

    Args:
        multiply: The product of the matrix with a vector [n].
        start: A vector [n] that is not at a right angle to the eigenvector.
        products: How many products it may take; n of them give the eigenvalue but for rounding.
    """
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    size = min(products, len(start))
    while True:
        image = multiply(basis[-1])
        diagonal.append(float(image @ basis[-1]))
        for _ in range(2):  # once leaves what rounding put along the others
            held = torch.stack(basis)
            image = image - held.T @ (held @ image)
        length = float(image.norm())
        if len(diagonal) == size or length <= 1e-6 * max(map(abs, diagonal)):
            break
        beside.append(length)
        basis.append(image / length)
    below = torch.tensor(beside, dtype=torch.float64).diag(-1)
    values, vectors = torch.linalg.eigh(torch.tensor(diagonal, dtype=torch.float64).diag() + below + below.T)
    vector = torch.stack(basis).T @ vectors[:, -1].to(start)
    return float(values[-1]), vector


def measure_sharpness(
    step: Step, batch: Batch, parameters: Sequence[nn.Parameter], *, generator: torch.Generator
) -> Sharpness:
    """The sharpness of the weighted loss of a step's students on one batch: of k, of the sharpest.

    Args:
        step: Whose students; BatchNorm's running statistics see the batch.
        batch: The images.
        parameters: Those that the loss is minimised over.
        generator: Of the start of the search, on the CPU.

    Raises:
        RuntimeError: A function of the loss has no second derivative.
    """
    terms = step.weigh(batch)
    gradients = {
        name: torch.autograd.grad(term.sum(), parameters, create_graph=True, materialize_grads=True)
        for name, term in terms.items()
    }

    def multiply(names: Sequence[str], vector: Tensor) -> Tensor:
        """The product of the Hessian of these terms' sum with a vector."""
        parts = torch.split(vector, [parameter.numel() for parameter in parameters])
        along = [
            (gradient * part.view_as(gradient)).sum()
            for name in names
            for gradient, part in zip(gradients[name], parts, strict=True)
            if gradient.requires_grad
        ]
        if not along:  # a loss that is linear
            return torch.zeros_like(vector)
        products = torch.autograd.grad(
            torch.stack(along).sum(), parameters, retain_graph=True, materialize_grads=True
        )
        return torch.cat([product.flatten() for product in products])

    size = sum(parameter.numel() for parameter in parameters)
    start = torch.randn(size, generator=generator, dtype=torch.float64).to(parameters[0])
    curvature, vector = largest_eigenpair(lambda each: multiply(tuple(terms), each), start)
    return Sharpness(curvature, {name: float(vector @ multiply((name,), vector)) for name in terms})
