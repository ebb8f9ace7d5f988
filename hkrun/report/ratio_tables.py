"""Tables of S2 and of standard deviations over seeds, each cell's over that of the reference."""

from collections.abc import Callable, Sequence

from hkrun.report.comparison import Ratio
from hkrun.report.monitoring import Interval
from hkrun.report.result_tables import name_reference
from hkrun.report.summary import CellSummary, Summary
from hkrun.report.table import NONE, Entry, Field, Table, make_cell_table
from hkrun.report.wording import digits, interval, p_value

Figure = tuple[float | None, Interval | None]


def tabulate_s2(summary: Summary) -> Table:
    """S2 by cell."""

    def figure(cell: CellSummary) -> Figure:
        found = cell.pair_stability
        return (found.s2, found.ci95) if found else (None, None)

    return _tabulate("s2", "S2 (pp²)", figure, summary.s2_ratios, summary)


def tabulate_deviations(summary: Summary) -> Table:
    """Standard deviations over seeds of the last epoch's error by cell."""

    def figure(cell: CellSummary) -> Figure:
        found = cell.deviation
        return (found.sd, found.ci95) if found else (None, None)

    return _tabulate("deviations", "Sd over seeds (pp)", figure, summary.deviation_ratios, summary)


def _tabulate(
    identity: str,
    heading: str,
    figure: Callable[[CellSummary], Figure],
    ratios: Sequence[Ratio],
    summary: Summary,
) -> Table:
    columns = ["Runs", heading, "95 %"]
    if ratios:
        columns += [f"Over that of {name_reference(summary)}", "95 % of it", "p", "p, Holm"]
    if within := next((ratio.within for ratio in ratios if ratio.within is not None), None):
        columns += [f"p, {within}, Holm", "Verdict"]
    by_cell = {ratio.cell: ratio for ratio in ratios}
    rows = []
    for cell in summary.cells:
        value, ends = figure(cell)
        row: list[Field] = [
            len(cell.seeds),
            Entry(text="undefined" if value is None else digits(value), value=value, ends=ends),
            interval(ends) or NONE,
        ]
        if ratios:
            row += _describe(by_cell.get(cell.name), cell, summary)
        if within:
            row += _judge(by_cell.get(cell.name))
        rows.append((cell.name, row))
    return make_cell_table(identity, columns, rows, naming=summary.columns)


def _describe(ratio: Ratio | None, cell: CellSummary, summary: Summary) -> list[Field]:
    if ratio is None:
        return [summary.describe_uncompared(cell), "", "", ""]
    if ratio.reservation:
        return ["withheld", "", "", ""]
    value = NONE if ratio.ratio is None else digits(ratio.ratio)
    strong = ratio.significant
    return [
        Entry(text=value, value=ratio.ratio, ends=ratio.ci95, strong=strong),
        interval(ratio.ci95) or NONE,
        Entry(text=p_value(ratio.p), value=ratio.p),
        Entry(text=p_value(ratio.p_holm), value=ratio.p_holm, strong=strong),
    ]


def _judge(ratio: Ratio | None) -> list[Field]:
    """Whether S2 is equal within a factor, and the verdict of both tests."""
    if ratio is None or ratio.within is None or ratio.reservation:
        return ["", ""]
    within, verdict = ratio.within, ratio.verdict or "open"
    if ratio.significant and within.shown:
        verdict += f", {within}"
    return [Entry(text=p_value(within.p_holm), value=within.p_holm, strong=within.shown), verdict]
