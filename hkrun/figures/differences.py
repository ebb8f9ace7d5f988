"""Paired differences of the error, seed by seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hkrun.figures.style import (
    COLORS,
    INK,
    PAGE,
    SEED,
    Drawing,
    explain,
    new_figure,
    styled,
    typeset,
    wrap,
)

_LONGEST_SIDE = 24  # characters

# One seed: open, so that equal values show, and dark enough to print.
DOT: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 3.8,
    "markerfacecolor": "none",
    "markeredgecolor": SEED,
    "markeredgewidth": 0.9,
}


@dataclass(frozen=True, kw_only=True)
class PairedDifferences:
    """The error of one cell minus the reference's in percentage points, by seed.

    Attributes:
        name: What the figure calls the cell.
        by_seed: The differences.
        seeds: Of which seeds they are; none where that is not known.
        look: Place of the cell's colour, see `stroke_of`.
    """

    name: str
    by_seed: Sequence[float]
    mean: float
    ci95: tuple[float, float] | None
    seeds: Sequence[int] = ()
    look: int = 1


def draw_differences(differences: Sequence[PairedDifferences], *, reference: str) -> Drawing:
    """Last epoch's error minus the reference's: each seed a dot, the mean a diamond in its 95 % interval."""
    with styled():
        figure = new_figure(PAGE, 0.95 + 0.46 * len(differences))
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=0.9)
        for row, item in enumerate(differences):
            plot_difference(axes, row, item)
        axes.set_yticks(range(len(differences)), [wrap(item.name, 30) for item in differences])
        axes.set_ylim(len(differences) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(
            f"Difference in test error to {name_side(reference)}, last epoch (pp); left is better"
        )
        return figure


def name_side(reference: str) -> str:
    """What the label of an axis calls the reference: by name where there is room for it."""
    return typeset(reference) if len(reference) <= _LONGEST_SIDE else "the reference"


def plot_difference(axes: Axes, row: int, item: PairedDifferences) -> None:
    """The differences of one cell, in a row of their own."""
    # Dots side by side in seed order: no random jitter, and equal values stay visible.
    offsets = np.linspace(-0.16, 0.16, len(item.by_seed)) if len(item.by_seed) > 1 else np.zeros(1)
    (dots,) = axes.plot(item.by_seed, row + 0.12 + offsets, **DOT)
    if item.seeds:
        explain(
            dots,
            *(
                f"{item.name}, seed {seed}: {value:+.2f} pp"
                for seed, value in zip(item.seeds, item.by_seed, strict=True)
            ),
        )
    color = COLORS[item.look % len(COLORS)]
    half = ""
    if item.ci95 is not None:
        axes.plot(item.ci95, (row - 0.22,) * 2, color=color, linewidth=2.2, solid_capstyle="butt")
        half = f" ± {(item.ci95[1] - item.ci95[0]) / 2:.2f}"
    (mean,) = axes.plot(item.mean, row - 0.22, "D", color=color, markersize=5.5)
    explain(mean, f"{item.name}: {item.mean:+.2f}{half} pp on {len(item.by_seed)} seeds")
