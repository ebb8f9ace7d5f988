"""Draws the figures of a summary, each with what it shows."""

import base64
import functools
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hkrun import figures, stats
from hkrun.report.axis_figures import AxisFigure, draw_axes
from hkrun.report.figure_cells import (
    choose_cells,
    choose_looks,
    describe_cell,
    describe_dots,
    find_ends,
    find_reference,
    name_shortly,
)
from hkrun.report.summary import CellSummary, Summary
from hkrun.report.wording import count, take_once

if TYPE_CHECKING:
    from hkrun.figures.style import Drawing

MOST_HEALTH = 4  # cells that one figure shows


@dataclass(frozen=True, kw_only=True, repr=False)
class Figure:
    """A figure, encoded when it is asked for.

    Attributes:
        name: Its file's name without ending.
        caption: What it shows.
        section: Where it stands: "lead", above all tables, "errors", "stability" or "discriminator", by the
            tables of these.
        draw: Draws it, for a page of the width that `figures.narrow_page` sets; see `figures.Order`.
    """

    name: str
    caption: str
    section: str
    draw: "Callable[[], Drawing]"

    @functools.cached_property
    def drawn(self) -> "Drawing":
        """Itself; what its marks say is in its `notes`."""
        return self.draw()

    @functools.cached_property
    def svg(self) -> bytes:
        """The figure as SVG."""
        return figures.encode(self.drawn, "svg")

    def __repr__(self) -> str:
        return f"<Figure {self.name}>"

    def _repr_html_(self) -> str:
        """With its caption. An image, in which no script can run, whatever names are in it."""
        image = (
            f'<img style="max-width:100%;background:#fff" alt="{html.escape(self.name)}" '
            f'src="data:image/svg+xml;base64,{base64.b64encode(self.svg).decode()}">'
        )
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>"
        return f'<figure style="margin:1em 0">{image}{caption}</figure>'


@dataclass(frozen=True, kw_only=True)
class TakenFigure:
    """A figure of the report with its pictures, for a wide page and for a narrow one; else as `Figure`."""

    name: str
    caption: str
    section: str
    wide: figures.Picture
    narrow: figures.Picture


def draw_figures(summary: Summary) -> list[Figure]:
    """The figures, those that lead the report first; what the runs give no data for is not drawn."""
    over_axes = draw_axes(summary)
    curves = _summarise_curves(summary)
    return [
        *_name_axes(over_axes),
        _draw_errors(summary, over_axes, curves),
        *_draw_differences(summary, over_axes),
        *_draw_sequences(summary),
        *_draw_ranges(summary, curves),
        *_draw_health(summary),
    ]


def _name_axes(drawn: Sequence[AxisFigure]) -> list[Figure]:
    """Figures over axes with the names of their files: numbered, but for one of its kind."""
    kinds = [figure.kind for figure in drawn]
    named = []
    for place, figure in enumerate(drawn):
        number = f"-{kinds[: place + 1].count(figure.kind)}" if kinds.count(figure.kind) > 1 else ""
        named.append(
            Figure(name=f"{figure.kind}{number}", caption=figure.caption, section="lead", draw=figure.draw)
        )
    return named


def order_pictures(drawn: Sequence[Figure]) -> list[figures.Order]:
    """All pictures of a report: those for a narrow page, then those for a wide one, which take longer."""
    return [
        figures.Order(name=figure.name, draw=figure.draw, narrow=narrow)
        for narrow in (True, False)
        for figure in drawn
    ]


def place_pictures(drawn: Sequence[Figure], taken: Sequence[figures.Picture]) -> list[TakenFigure]:
    """The figures with their pictures, which are those of `order_pictures`."""
    return [
        TakenFigure(
            name=figure.name, caption=figure.caption, section=figure.section, narrow=narrow, wide=wide
        )
        for figure, narrow, wide in zip(drawn, taken[: len(drawn)], taken[len(drawn) :], strict=True)
    ]


def _summarise_curves(summary: Summary) -> dict[str, figures.CellCurves]:
    """The curves of the cells that have some in figures, by their ids."""
    names, looks = name_shortly(summary), choose_looks(summary)
    return {
        cell.cell_id: figures.CellCurves.of_runs(
            cell.error_pct[:],
            name=names[cell.name],
            diverged=cell.diverged_curves,
            look=looks[cell.cell_id],
            note=describe_cell(cell, names[cell.name]),
        )
        for cell in choose_cells(summary)
    }


def _draw_errors(
    summary: Summary, over_axes: Sequence[AxisFigure], by_id: Mapping[str, figures.CellCurves]
) -> Figure:
    window, cells = summary.sweep.window, choose_cells(summary)
    curves = [by_id[cell.cell_id] for cell in cells]
    if len(curves) > figures.MOST_BANDS:
        reference = name_shortly(summary).get(summary.sweep.reference or "", "")
        draw = functools.partial(figures.draw_error_panels, curves, window=window, reference=reference)
        lines = "Bands are one standard deviation to either side"
        lines += f", the dashed line is {reference}." if reference else "."
    else:
        draw = functools.partial(figures.draw_errors, curves, window=window)
        lines = "Thin lines in pairs, where there are any, are one standard deviation to either side."
    longest = max((cell.error_pct.shape[1] for cell in cells if cell.seeds), default=0)
    enlarged = (
        f", and enlarged the last {window} epochs, over which S is taken" if longest > window > 1 else ""
    )
    diverged = (
        " A thin line that ends in a cross is a diverged run; it is in no mean."
        if any(cell.diverged_curves for cell in cells)
        else ""
    )
    return Figure(
        name="error-curves",
        caption=f"Test error over training, mean over the finished runs{enlarged}. {lines}{diverged}"
        + _describe_left_out(summary, cells, over_axes),
        section="lead",
        draw=draw,
    )


def _describe_left_out(
    summary: Summary, cells: Sequence[CellSummary], over_axes: Sequence[AxisFigure]
) -> str:
    """Which of many cells are drawn, and where the others are; empty where all are."""
    all_ids = {cell.cell_id for cell in summary.cells}
    rest = len(all_ids) - len(cells)
    if not rest:
        return ""
    names = name_shortly(summary)
    best, worst = find_ends(summary)
    base = "default" if summary.sweep.reference is None else "reference"
    roles = {base: find_reference(summary), "best": best, "worst": worst}
    said = [f"{role} ({names[cell.name]})" for role, cell in roles.items() if cell is not None]
    on_axes = {
        cell.cell_id for figure in over_axes for crossing in figure.crossings for _, cell in crossing.cells
    }
    where = (
        "the figures above and the tables"
        if all_ids <= on_axes | {cell.cell_id for cell in cells}
        else "the tables"
    )
    lost = sum(cell.error_last is None for cell in {cell.cell_id: cell for cell in summary.cells}.values())
    none = f", {lost} of them without a finished run" if lost else ""
    return (
        f" Of {len(all_ids)} configurations it shows {', '.join(said) or 'none, for no run finished'}. Left "
        f"out: {rest}{none}; {where} have them, and MLflow (hkrun ui) their curves."
    )


def _draw_differences(summary: Summary, over_axes: Sequence[AxisFigure]) -> list[Figure]:
    """The paired differences, unless figures of dots have them all."""
    names, looks = name_shortly(summary), choose_looks(summary)
    cells = choose_cells(summary)
    compared = [(cell, found) for cell in cells if (found := summary.find_comparison(cell.name)) is not None]
    dotted = {
        cell.cell_id
        for figure in over_axes
        if figure.kind == "categories"
        for crossing in figure.crossings
        for _, cell in crossing.cells
    }
    if all(cell.cell_id in dotted for cell, _ in compared):
        return []
    reference = names.get(summary.sweep.reference or "", "")
    differences = [
        figures.PairedDifferences(
            name=names[cell.name],
            by_seed=found.by_seed,
            mean=found.difference,
            ci95=found.ci95,
            look=looks[cell.cell_id],
        )
        for cell, found in compared
    ]
    ids = {cell.name: cell.cell_id for cell in summary.cells}
    rest = len({ids[item.cell] for item in summary.comparisons}) - len(compared)
    more = f" Not drawn: {count(rest, 'configuration')} that the table compares." if rest else ""
    few = describe_dots(len(found.by_seed) for _, found in compared)
    return [
        Figure(
            name="differences",
            caption=f"Error of the last epoch minus that of {reference}, paired by seed: each seed a circle, "
            f"the mean a diamond in its 95 % interval.{few}{more}",
            section="errors",
            draw=functools.partial(figures.draw_differences, differences, reference=reference),
        )
    ]


def _draw_sequences(summary: Summary) -> list[Figure]:
    """How the differences of a sequential study closed in, those that were decided first among many."""
    monitoring, sweep = summary.monitoring, summary.sweep
    if not monitoring.sequential:
        return []
    compared = [item for item in take_once(summary.comparisons, summary) if item.n >= monitoring.looks[0]]
    compared = [item for item in compared if not item.reservation]
    if not compared:
        return []
    names, looks = name_shortly(summary), choose_looks(summary)
    ids = {cell.name: cell.cell_id for cell in summary.cells}
    shown = sorted(compared, key=lambda item: item.decided_after is None)[: figures.MOST_PANELS]
    shown = [item for item in compared if item in shown]
    sequences = [
        figures.SeedSequence(
            name=names[item.cell],
            means=(np.cumsum(item.by_seed) / np.arange(1, item.n + 1)).tolist(),
            looks=item.looks.until(item.n),
            intervals=stats.confidence_sequence(item.by_seed, item.looks.counts),
            decided_after=item.decided_after,
            look=looks.get(ids[item.cell], 1),
        )
        for item in shown
    ]
    reference = names.get(sweep.reference or "", "")
    margin = f" Behind, the margin of {sweep.margin:g} pp." if summary.equivalences else ""
    rest = len(compared) - len(shown)
    more = f" Not drawn: {count(rest, 'configuration')} that the table compares." if rest else ""
    return [
        Figure(
            name="sequences",
            caption=f"Error of the last epoch minus that of {reference} after each seed: the mean of all so "
            "far, and its 95 % confidence sequence, which holds at every number of seeds at once. A dotted "
            f"line is where a difference was decided.{margin}{more}",
            section="errors",
            draw=functools.partial(
                figures.draw_sequences,
                sequences,
                reference=reference,
                most=monitoring.looks[-1],
                margin=sweep.margin if summary.equivalences else None,
            ),
        )
    ]


def _draw_ranges(summary: Summary, by_id: Mapping[str, figures.CellCurves]) -> list[Figure]:
    cells = choose_cells(summary)
    defined = [cell for cell in cells if cell.stability]
    if not defined:
        return []
    number = len({cell.cell_id for cell in summary.cells if cell.stability})
    more = (
        f" Drawn are {len(defined)} of the {number} configurations with an S; the table has all."
        if number > len(defined)
        else ""
    )
    return [
        Figure(
            name="ranges",
            caption="What S measures: the range of the test error over runs at each epoch of the window. S "
            "is the variance of this line; the band reaches the square root of S to either side of its mean "
            f"(dashed). A line that is high but flat has a small S.{more}",
            section="stability",
            draw=functools.partial(
                figures.draw_ranges,
                [by_id[cell.cell_id] for cell in defined],
                window=summary.sweep.window,
                ddof=summary.sweep.ddof,
            ),
        )
    ]


def _draw_health(summary: Summary) -> list[Figure]:
    names, looks = name_shortly(summary), choose_looks(summary)
    found = {cell.cell_id: cell for cell in reversed(summary.cells) if cell.health}
    with_look = [cell_id for cell_id in looks if cell_id in found]
    rest_ids = [cell_id for cell_id in found if cell_id not in looks]
    chosen = [found[cell_id] for cell_id in [*with_look, *rest_ids][:MOST_HEALTH]]
    if not chosen:
        return []
    more = len(found) - len(chosen)
    rest = (
        f" {more} more {'cell has' if more == 1 else 'cells have'} one; the table holds all." if more else ""
    )
    return [
        Figure(
            name="discriminator",
            caption="The discriminator D over training: mean over seeds, band from the smallest to the "
            "largest of any seed. A share of 0.5 (dotted) means that it cannot tell teacher from student, 1 "
            "that it is never wrong. At balance it says (1 + mu) / (2 + mu) to both, but for the norms of "
            f"L_reg.{rest}",
            section="discriminator",
            draw=functools.partial(
                figures.draw_health,
                [
                    figures.CellHealth(
                        name=names[cell.name], curves=cell.health, look=looks.get(cell.cell_id, 1)
                    )
                    for cell in chosen
                ],
            ),
        )
    ]
