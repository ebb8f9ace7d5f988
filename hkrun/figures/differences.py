"""Paired differences of the error, seed by seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hkrun.figures.contents import MOST_DOTS, PairedDifferences
from hkrun.figures.names import typeset, wrap
from hkrun.figures.palette import COLORS, INK, PAGE, SEED
from hkrun.figures.style import Drawing, explain, new_figure, styled

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


def draw_differences(differences: Sequence[PairedDifferences], *, reference: str) -> Drawing:
    """Last epoch's error minus the reference's: each seed a dot, the mean a diamond in its 95 % interval.

    Of more seeds than `MOST_DOTS` those are drawn that `choose_dots` gives.
    """
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


def choose_dots(values: Sequence[float]) -> list[int]:
    """Which values to draw: all, or `MOST_DOTS` of them at even ranks from the smallest to the largest."""
    if len(values) <= MOST_DOTS:
        return list(range(len(values)))
    ranks = np.linspace(0, len(values) - 1, MOST_DOTS).round().astype(int)
    return sorted(np.argsort(values, kind="stable")[ranks].tolist())


def plot_dots(axes: Axes, row: int, values: Sequence[float]) -> tuple[Line2D, list[int]]:
    """The dots of one cell's seeds in its row, and the places of those drawn.

    They stand side by side in seed order: no random jitter, and equal values stay visible.
    """
    offsets = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(1)
    chosen = choose_dots(values)
    (dots,) = axes.plot([values[place] for place in chosen], row + 0.12 + offsets[chosen], **DOT)
    return dots, chosen


def plot_difference(axes: Axes, row: int, item: PairedDifferences) -> None:
    """The differences of one cell, in a row of their own."""
    dots, chosen = plot_dots(axes, row, item.by_seed)
    if item.seeds:
        explain(
            dots,
            *(f"{item.name}, seed {item.seeds[place]}: {item.by_seed[place]:+.2f} pp" for place in chosen),
        )
    color = COLORS[item.look % len(COLORS)]
    half = ""
    if item.ci95 is not None:
        axes.plot(item.ci95, (row - 0.22,) * 2, color=color, linewidth=2.2, solid_capstyle="butt")
        half = f" ± {(item.ci95[1] - item.ci95[0]) / 2:.2f}"
    (mean,) = axes.plot(item.mean, row - 0.22, "D", color=color, markersize=5.5)
    explain(mean, f"{item.name}: {item.mean:+.2f}{half} pp on {len(item.by_seed)} seeds")
