"""Confidence sequences: how a paired difference closes in while seeds come."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from hkrun.figures.contents import SeedSequence
from hkrun.figures.differences import name_side
from hkrun.figures.names import wrap
from hkrun.figures.palette import BAND, COLORS, INK, MUTED, SEED
from hkrun.figures.style import Drawing, explain, new_panels, styled


def draw_sequences(
    sequences: Sequence[SeedSequence], *, reference: str, most: int, margin: float | None
) -> Drawing:
    """A panel per difference: its mean, and the band that holds the true one at every number of seeds.

    Args:
        sequences: Those that are drawn.
        reference: What the differences are from.
        most: Seeds that the plan has.
        margin: Within which errors count as equivalent, drawn behind; None where none was asked for.
    """
    with styled():
        figure, grid = new_panels(len(sequences), least_width=4.4, row_height=2.15)
        for axes, item in zip(grid.flat, sequences, strict=False):
            if margin is not None:
                axes.axhspan(-margin, margin, color=BAND, linewidth=0)
            axes.axhline(0, color=INK, linewidth=0.9)
            _plot_sequence(axes, item)
            axes.set_xlim(0.5, most + 0.5)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_title(wrap(item.name, 26))
        for axes in grid[:, 0]:
            axes.set_ylabel(f"Minus {name_side(reference)} (pp)")
        for place, axes in enumerate(grid.flat[: len(sequences)]):
            if place + grid.shape[1] >= len(sequences):
                axes.set_xlabel("Seeds")
        return figure


def _plot_sequence(axes: Axes, item: SeedSequence) -> None:
    color, pairs = COLORS[item.look % len(COLORS)], np.arange(1, len(item.means) + 1)
    known = [(look, ends) for look, ends in zip(item.looks, item.intervals, strict=True) if ends is not None]
    if known:
        at = [look for look, _ in known]
        low, high = np.array([ends for _, ends in known]).T
        axes.fill_between(at, low, high, color=color, alpha=0.22, linewidth=0)
        for side in (low, high):
            axes.plot(at, side, color=color, linewidth=1.2)
    axes.plot(pairs, item.means, color=SEED, linewidth=1.0)
    ends = dict(known)
    (dots,) = axes.plot(pairs, item.means, "o", color=color, markersize=2.6)
    explain(
        dots,
        *(
            f"{item.name}, {count} seeds: {mean:+.2f} pp"
            + (f", between {ends[count][0]:+.2f} and {ends[count][1]:+.2f}" if count in ends else "")
            for count, mean in zip(pairs.tolist(), item.means, strict=True)
        ),
    )
    if item.decided_after is not None:
        axes.axvline(item.decided_after, color=MUTED, linewidth=1.0, linestyle=(0, (2, 2)))
