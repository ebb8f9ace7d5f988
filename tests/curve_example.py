"""Curves of two cells of five seeds as a data frame, and as the accuracies that other tools log."""

from decimal import Decimal

import numpy as np
import pandas as pd

EPOCHS = 12
SEEDS = (0, 1, 2, 3, 7)
CELLS = ("L_b", "L_b + L_is")


def make_frame() -> pd.DataFrame:
    """A row per cell, seed and epoch: `error_pct` in hundredths, as text files hold them."""
    generator = np.random.default_rng(5)
    rows = [
        (cell, seed, epoch, round(80 / epoch + 3 + (1 + place) * generator.random(), 2))
        for place, cell in enumerate(CELLS)
        for seed in SEEDS
        for epoch in range(1, EPOCHS + 1)
    ]
    return pd.DataFrame(rows, columns=["cell", "seed", "epoch", "error_pct"])


def accuracy_of(error_pct: float) -> float:
    """The accuracy as a fraction: the double nearest to the decimal, as a tool logs correct / images."""
    return float((100 - Decimal(repr(error_pct))) / 100)
