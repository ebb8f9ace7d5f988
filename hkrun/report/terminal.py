"""The summary in the terminal: one table of at most 100 columns, and the warnings under it."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hkrun.report.summary import CellSummary, Summary
from hkrun.report.wording import count, describe_teacher, describe_time, digits, interval, p_value, plus_minus

WIDTH = 100


def print_summary(summary: Summary, console: Console) -> None:
    """Prints what a sweep says in at most 100 columns, in as many where the console is no terminal."""
    found = console.width
    console.width = min(WIDTH, found) if console.is_terminal else WIDTH
    try:
        console.print(_build_table(summary))
        for line in _notes(summary):
            console.print(Padding(Text(line, style="dim"), (0, 0, 0, 1)))
        for warning in summary.warnings:
            grid = Table.grid(padding=(0, 1))
            grid.add_row(Text(" !", style="yellow"), Text(warning))
            console.print(grid)
    finally:
        console.width = found


def _build_table(summary: Summary) -> Table:
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
    table.add_column("cell", ratio=1, min_width=12, overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("error %\nlast epoch", justify="right", no_wrap=True)
    table.add_column("best\nepoch*", justify="right", no_wrap=True)
    table.add_column("S, pp²\n[95 % approx.]", justify="right", no_wrap=True)
    table.add_column("mean\nrange", justify="right", no_wrap=True)
    if summary.comparisons:
        table.add_column(f"error minus\n{_short(sweep.reference or '')}", justify="right", no_wrap=True)
        table.add_column("p\nHolm", justify="right", no_wrap=True)
    for cell in summary.cells:
        table.add_row(*_row(cell, summary))
    return table


def _short(name: str) -> str:
    return name if len(name) <= 13 else "reference"


def _row(cell: CellSummary, summary: Summary) -> list[Text]:
    total = len(summary.sweep.seeds)
    errors, best, stability = cell.error_last, cell.error_best, cell.stability
    row = [
        cell.name,
        str(len(cell.seeds)) if len(cell.seeds) == total else f"{len(cell.seeds)}/{total}",
        plus_minus(errors.mean, errors.ci95) if errors else "-",
        f"{best.mean:.2f}" if best else "-",
        f"{digits(stability.s)} {interval(stability.ci95)}".strip() if stability else "undefined",
        f"{stability.mean_range:.2f}" if stability else "-",
    ]
    texts = [Text(value) for value in row]
    if not summary.comparisons:
        return texts
    comparison = summary.find_comparison(cell.name)
    if comparison is None:
        return [*texts, Text(summary.describe_uncompared(cell)), Text("")]
    style = "bold" if comparison.significant else ""
    difference = plus_minus(comparison.difference, comparison.ci95, signed=True)
    return [*texts, Text(difference, style=style), Text(p_value(comparison.p_holm), style=style)]


def _notes(summary: Summary) -> list[str]:
    quantum = (
        f"; one test image is {digits(summary.quantum_pct)} pp" if summary.quantum_pct is not None else ""
    )
    window, ddof = summary.sweep.window, summary.sweep.ddof
    return [
        "Error: mean over seeds ± half of its 95 % interval. * The best epoch is selected on the test set.",
        f"S: eq. (10), variance of the range over seeds, last {window} epochs, ddof {ddof}{quantum}.",
        *(describe_teacher(teacher) for teacher in summary.teachers),
        *([describe_time(summary)] if summary.executions else []),
    ]
