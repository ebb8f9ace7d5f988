"""The summary in the terminal: one table, of at most 100 columns where it fits, and the warnings under it."""

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hkrun.report.summary import CellSummary, Summary
from hkrun.report.wording import (
    count,
    describe_scope,
    describe_teacher,
    describe_time,
    digits,
    interval,
    p_value,
    plus_minus,
)

WIDTH = 100
NAME_WIDTH = 12  # a longer name may be folded to it
BEST, RANGE = "best epoch", "mean range"
DISPENSABLE = (BEST, RANGE)  # what a narrow terminal goes without, in this order


def print_summary(summary: Summary, console: Console) -> None:
    """Prints what a sweep says in at most 100 columns, in as many where the console is no terminal.

    No figure is ever cut: a terminal that is too narrow for the table goes without the columns that matter
    least, and a line says so; where that is not enough, the table is wider than the terminal.
    """
    found = console.width
    width = min(WIDTH, found) if console.is_terminal else WIDTH
    table, left_out = _build_table(summary, console), 0
    if console.is_terminal:
        while _least_width(table, console) > found and left_out < len(DISPENSABLE):
            left_out += 1
            table = _build_table(summary, console, without=DISPENSABLE[:left_out])
    without = DISPENSABLE[:left_out]
    try:
        console.width = max(width, _least_width(table, console))
        console.print(table)
        console.width = width
        for line in _notes(summary, without=without):
            console.print(Padding(Text(line, style="dim"), (0, 0, 0, 1)))
        for warning in summary.warnings:
            grid = Table.grid(padding=(0, 1))
            grid.add_row(Text(" !", style="yellow"), Text(warning))
            console.print(grid)
    finally:
        console.width = found


def _least_width(table: Table, console: Console) -> int:
    """Columns that the table takes with the names folded and all else in one line."""
    unbounded = console.options.update(max_width=100_000)
    names = max((cell_len(str(name)) for name in table.columns[0].cells), default=0)
    return Measurement.get(console, unbounded, table).maximum - max(0, names - NAME_WIDTH)


def _build_table(summary: Summary, console: Console, *, without: tuple[str, ...] = ()) -> Table:
    sweep = summary.sweep
    title = Text(f"{sweep.title}, {sweep.dataset}, {count(len(sweep.seeds), 'seed')}", style="none")
    table = Table(
        box=SIMPLE_HEAD,
        title=title,
        title_justify="left",
        header_style="none",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("cell", ratio=1, min_width=NAME_WIDTH, overflow="fold")
    headings = ["n", "error %\nlast epoch"]
    headings += ["best\nepoch*"] if BEST not in without else []
    headings += ["S, pp²\n[95 % approx.]"]
    headings += ["mean\nrange"] if RANGE not in without else []
    if summary.comparisons:
        reference = sweep.reference or ""
        headings += [f"error minus\n{reference if len(reference) <= 13 else 'reference'}", "p\nHolm"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for cell in summary.cells:
        table.add_row(*_row(cell, summary, console, without=without))
    return table


def _row(cell: CellSummary, summary: Summary, console: Console, *, without: tuple[str, ...]) -> list[Text]:
    total = len(summary.sweep.seeds)
    errors, best, stability = cell.error_last, cell.error_best, cell.stability
    row = [
        cell.name,
        str(len(cell.seeds)) if len(cell.seeds) == total else f"{len(cell.seeds)}/{total}",
        plus_minus(errors.mean, errors.ci95) if errors else "-",
    ]
    row += [f"{best.mean:.2f}" if best else "-"] if BEST not in without else []
    row += [f"{digits(stability.s)} {interval(stability.ci95)}".strip() if stability else "undefined"]
    row += [f"{stability.mean_range:.2f}" if stability else "-"] if RANGE not in without else []
    texts = [_render(console, value) for value in row]
    if not summary.comparisons:
        return texts
    comparison = summary.find_comparison(cell.name)
    if comparison is None:
        return [*texts, Text(summary.describe_uncompared(cell)), Text("")]
    style = "bold" if comparison.significant else ""
    difference = plus_minus(comparison.difference, comparison.ci95, signed=True)
    p = "withheld" if comparison.withheld else p_value(comparison.p_holm)
    return [*texts, _render(console, difference, style=style), Text(p, style=style)]


def _render(console: Console, text: str, *, style: str = "") -> Text:
    """Text as it is, with the signs that the console can show."""
    return console.render_str(text, style=style, markup=False, emoji=False, highlight=False)


def _notes(summary: Summary, *, without: tuple[str, ...]) -> list[str]:
    quantum = (
        f"; one test image is {digits(summary.quantum_pct)} pp" if summary.quantum_pct is not None else ""
    )
    window, ddof = summary.sweep.window, summary.sweep.ddof
    best = " * The best epoch is selected on the test set." if BEST not in without else ""
    missing = f"Left out, for the terminal is narrow: {', '.join(without)}; report.html and a wider one have "
    scope = describe_scope(summary)
    return [
        *([missing + ("it." if len(without) == 1 else "them.")] if without else []),
        f"Error: mean over seeds ± half of its 95 % interval.{best}",
        f"S: eq. (10), variance of the range over seeds, last {window} epochs, ddof {ddof}{quantum}.",
        *([scope] if scope else []),
        *(describe_teacher(teacher) for teacher in summary.teachers),
        *([describe_time(summary)] if summary.executions else []),
    ]
