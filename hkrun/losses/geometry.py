"""Directions of vectors."""

import torch
from torch import Tensor


def unit_rows(rows: Tensor) -> Tensor:
    """Vectors [..., D] scaled to length 1; a zero vector stays, and has no gradient.

    `torch.nn.functional.normalize` gives a zero vector a gradient 1e12 times that of its direction: one image
    whose features are all 0 after a ReLU would end the training.
    """
    squares = rows.square().sum(dim=-1, keepdim=True)
    some = squares > 0
    # The root has no gradient at 0: there it is taken of 1, and then left out.
    return rows * torch.where(some, torch.where(some, squares, 1).rsqrt(), 0)
