"""Draws the figures of a summary, each with what it shows."""

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from hkrun import figures
from hkrun.report.result_tables import describe_keys
from hkrun.report.summary import CellSummary, Scan, Summary
from hkrun.spaces import write_value

MOST_HEALTH = 4  # cells that one figure shows


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure, encoded when it is asked for.

    Attributes:
        name: Its file's name without ending.
        caption: What it shows.
        section: Where it stands: "lead", above all tables, "errors", "stability" or "discriminator", by the
            tables of these.
        drawn: Itself; what its marks say is in its `notes`.
    """

    name: str
    caption: str
    section: str
    drawn: figures.Drawing

    @functools.cached_property
    def svg(self) -> bytes:
        """The figure as SVG."""
        return figures.encode(self.drawn, "svg")

    @functools.cached_property
    def png(self) -> bytes:
        """The figure as PNG."""
        assert self.svg  # which lays the figure out: doing it again takes a fifth of the report
        self.drawn.set_layout_engine("none")
        return figures.encode(self.drawn, "png")

    @property
    def width_pct(self) -> int:
        """Its share of the page's width."""
        return min(100, round(100 * self.drawn.get_figwidth() / figures.PAGE))


def draw_figures(summary: Summary) -> list[Figure]:
    """The figures, those that lead the report first; what the runs give no data for is not drawn."""
    sweep = summary.sweep
    cells = _choose_cells(summary)
    curves = [
        figures.CellCurves(name=cell.name, error_pct=cell.error_pct, diverged=cell.diverged_curves)
        for cell in cells
    ]
    defined = [curve for curve, cell in zip(curves, cells, strict=True) if cell.stability]
    compared = [
        comparison for cell in cells if (comparison := summary.find_comparison(cell.name)) is not None
    ]
    drawn = [
        *_draw_scans(summary),
        _figure(
            "error-curves",
            "Test error over training, mean over the finished runs. Right: the last "
            f"{sweep.window} epochs, over which S is taken. Thin lines in pairs, where there are any, "
            "are one standard deviation to either side. A thin line that ends in a cross is a diverged run; "
            "it is in no mean.",
            figures.draw_errors(curves, window=sweep.window),
            section="lead",
        ),
    ]
    if compared:
        drawn.append(
            _figure(
                "differences",
                f"Error of the last epoch minus that of {sweep.reference}, paired by seed: each seed a "
                "circle, the mean a diamond in its 95 % interval.",
                figures.draw_differences(
                    [
                        figures.PairedDifferences(
                            name=item.cell, by_seed=item.by_seed, mean=item.difference, ci95=item.ci95
                        )
                        for item in compared
                    ],
                    reference=sweep.reference or "",
                ),
                section="errors",
            )
        )
    if defined:
        drawn.append(
            _figure(
                "ranges",
                "What S measures: the range of the test error over runs at each epoch of the window. S is "
                "the variance of this line; the band reaches the square root of S to either side of its "
                "mean (dashed). A line that is high but flat has a small S.",
                figures.draw_ranges(defined, window=sweep.window, ddof=sweep.ddof),
                section="stability",
            )
        )
    return drawn + _draw_health(summary)


def _figure(name: str, caption: str, drawn: figures.Drawing, *, section: str) -> Figure:
    return Figure(name=name, caption=caption, section=section, drawn=drawn)


def _choose_cells(summary: Summary) -> list[CellSummary]:
    """The cells that have lines of their own: each configuration once, and none that a curve or grid shows.

    The reference points of these stay, so that the figures of a search space of axes alone are not empty.
    """
    scanned = {point.cell.name for scan in summary.scans for point in scan.points}
    kept = {scan.reference.name for scan in summary.scans if scan.reference is not None}
    chosen = [cell for cell in summary.cells if cell.name not in scanned or cell.name in kept]
    first: dict[str, CellSummary] = {}
    for cell in chosen or summary.cells:
        first.setdefault(cell.cell_id, cell)
    return list(first.values())


def _draw_scans(summary: Summary) -> list[Figure]:
    drawn = []
    curves = [scan for scan in summary.scans if len(scan.keys) == 1]
    if curves:
        drawn.append(
            _figure(
                "sensitivity",
                "Test error of the last epoch over the values of one key: mean over seeds in its 95 % "
                "interval. The full point is the reference, the grey band the margin of "
                f"{summary.sweep.margin:g} pp.",
                figures.draw_curves([_curve(scan) for scan in curves], margin=summary.sweep.margin),
                section="lead",
            )
        )
    for number, scan in enumerate([scan for scan in summary.scans if len(scan.keys) == 2], start=1):
        drawn.append(
            _figure(
                f"grid-{number}",
                f"Test error of the last epoch over {scan.keys[0]} and {scan.keys[1]}: mean over seeds ± "
                "half of its 95 % interval. The frame is the reference; a star marks what is shown to differ "
                f"from it by more than {summary.sweep.margin:g} pp.",
                figures.draw_grid(_grid(scan)),
                section="lead",
            )
        )
    return drawn


def _curve(scan: Scan) -> figures.ScanCurve:
    values = [point.values[0] for point in scan.points]
    numbers = [float(value) for value in values if isinstance(value, int | float) and value > 0]
    return figures.ScanCurve(
        title=describe_keys(scan),
        labels=[write_value(value) for value in values],
        positions=numbers if len(numbers) == len(values) else (),
        mean=[point.cell.error_last.mean if point.cell.error_last else np.nan for point in scan.points],
        ci95=[point.cell.error_last.ci95 if point.cell.error_last else None for point in scan.points],
        reference=next(
            (place for place, point in enumerate(scan.points) if point.cell is scan.reference), None
        ),
    )


def _grid(scan: Scan) -> figures.ScanGrid:
    first, second = (list(dict.fromkeys(point.values[place] for point in scan.points)) for place in (0, 1))
    shape = len(first), len(second)
    mean, half, differs = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, dtype=np.bool_)
    reference = None
    for point in scan.points:
        place = first.index(point.values[0]), second.index(point.values[1])
        errors = point.cell.error_last
        if errors is not None:
            mean[place] = errors.mean
            half[place] = (errors.ci95[1] - errors.ci95[0]) / 2 if errors.ci95 else np.nan
        differs[place] = point.comparison is not None and point.comparison.opposes
        if point.cell is scan.reference:
            reference = place
    return figures.ScanGrid(
        title=scan.group,
        keys=(scan.keys[0], scan.keys[1]),
        labels=([write_value(value) for value in first], [write_value(value) for value in second]),
        mean=mean.tolist(),
        half=half.tolist(),
        reference=reference,
        differs=differs.tolist(),
    )


def _draw_health(summary: Summary) -> list[Figure]:
    cells = {cell.name: cell.health for cell in summary.cells if cell.health}
    if not cells:
        return []
    more = len(cells) - MOST_HEALTH
    rest = f" {more} more cells have one; the table holds all." if more > 0 else ""
    return [
        _figure(
            "discriminator",
            "The discriminator D over training: mean over seeds, band from the smallest to the largest of "
            "any seed. A share of 0.5 (dotted) means that it cannot tell teacher from student, 1 that it is "
            "never wrong. At balance it says (1 + mu) / (2 + mu) to both, but for the norms of L_reg." + rest,
            figures.draw_health(dict(itertools.islice(cells.items(), MOST_HEALTH))),
            section="discriminator",
        )
    ]
