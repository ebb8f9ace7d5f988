"""The summary in the terminal: the answer, one table, the verdicts, and the warnings under it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hkrun.report.answers import write_answer
from hkrun.report.look_wording import explain_looks
from hkrun.report.open_comparisons import explain_table
from hkrun.report.paper_tables import describe_forecast
from hkrun.report.result_tables import describe_scan
from hkrun.report.summary import CellSummary, Summary
from hkrun.report.wording import (
    OUTCOMES,
    count,
    count_on_s2,
    count_outcomes,
    describe_family,
    describe_scope,
    describe_teacher,
    describe_time,
    digits,
    interval,
    p_value,
    plus_minus,
)
from hkrun.spaces import FittedColumns, fit_columns, wrap_words

WIDTH = 100
NAMES, LEAST_NAMES = (
    20,
    14,
)  # columns that names have as long as there is a figure that matters less; and last
BEST, RANGE, INTERVAL, S = "best epoch", "mean range", "interval of S", "S"
DIFFERENCE = "difference in error"
P_OF_S = "p of S"
S2_RATIO = "S2 over that of the reference"
# What a narrow terminal goes without, in this order, by what the question is about.
DISPENSABLE = {
    "error": (BEST, RANGE, INTERVAL, S, DIFFERENCE),
    "stability": (RANGE, INTERVAL, P_OF_S, DIFFERENCE),
}
# The order of the columns; who asks about stability is not asked to look at the best epoch.
_ORDER = {
    "error": ("n", "error", BEST, S, RANGE, DIFFERENCE, "p"),
    "stability": ("n", S2_RATIO, "p of S2", S, P_OF_S, RANGE, "error", DIFFERENCE, "p"),
}
_MOST_CLAIMS = 8
_LONGEST_IN_HEADING = 13  # columns of the reference's name


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column of figures: its heading, and what it says of a cell, maybe in bold."""

    heading: str
    write: Callable[[CellSummary], tuple[str, bool]]


def print_summary(summary: Summary, console: Console) -> None:
    """Prints what a sweep says in the console's columns, prose in 100 at most.

    No figure is cut and no name is broken: a terminal that is too narrow for the table goes without the
    columns that matter least, names lose their middle, and lines below say so. Where that is not enough, the
    table is wider than the terminal.
    """
    found = console.width
    without, names = _fit(summary, console, found)
    table = _build_table(summary, console, names, without=without)
    prose = min(WIDTH, found)
    try:
        console.width = prose
        for text in _head(summary):
            console.print(Padding(Text(wrap_words(text.plain, prose), style=text.style), 0))
        console.width = max(found, _measure(table, console))
        console.print(table)
        console.width = prose
        for line in (*_scan_verdicts(summary), *_claim_verdicts(summary)):
            console.print(Padding(line, (0, 0, 0, 1)))
        for line in _notes(summary, names, without=without):
            text = Text(wrap_words(line, console.width - 1), style="dim")
            console.print(Padding(text, (0, 0, 0, 1)))
        for warning in summary.warnings:
            grid = Table.grid(padding=(0, 1))
            grid.add_row(Text(" !", style="yellow"), Text(wrap_words(warning, console.width - 3)))
            console.print(grid)
    finally:
        console.width = found


def _head(summary: Summary) -> Iterator[Text]:
    """Title, question and answer, which stand before all figures."""
    sweep = summary.sweep
    yield Text(f"{sweep.heading}, {count(len(sweep.seeds), 'seed')}")
    if sweep.subtitle:
        yield Text(sweep.subtitle, style="dim")
    answer = list(write_answer(summary))
    if answer:
        yield Text("")
    for sentence in answer:
        yield Text(sentence)


def _scan_verdicts(summary: Summary) -> Iterator[RenderableType]:
    """Whether the result is the same along each curve and grid."""
    for scan in summary.scans:
        yield Text(describe_scan(scan, summary.sweep))
    if summary.scans:
        yield ""


def _claim_verdicts(summary: Summary) -> Iterator[RenderableType]:
    """What the study says of the paper's claims; those that it decides come first."""
    judged, on_s2 = (
        [verdict for verdict in verdicts if verdict.outcome in OUTCOMES]
        for verdicts in (summary.verdicts, summary.s2_verdicts)
    )
    if not judged:
        return
    ordered = sorted(judged, key=lambda verdict: OUTCOMES.index(verdict.outcome))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    outcomes = count_outcomes([verdict.outcome for verdict in judged])
    shown = (*ordered[:_MOST_CLAIMS], *on_s2)
    forecasts = [describe_forecast(verdict) if verdict.outcome == "undecided" else "" for verdict in shown]
    of_all = forecasts[0] if len(forecasts) > 1 and len({*forecasts}) == 1 else ""
    for verdict, forecast in zip(shown, forecasts, strict=True):
        outcome = f"{verdict.outcome}{verdict.condition}"
        about = {"S": "on S, as published: ", "S2": "on S2: "}.get(verdict.claim.judged_on, "")
        own = f" ({forecast})" if forecast and not of_all else ""
        grid.add_row(Text(outcome), Text(f"{about}{verdict.statement}{own}"))
    all_of_them = f" (each: {of_all})" if of_all else ""
    yield Text(
        f"The paper's claims on {summary.sweep.dataset}: {outcomes}{all_of_them}. "
        f"{count_on_s2(summary)}".strip()
    )
    yield grid
    if len(ordered) > _MOST_CLAIMS:
        rest = count_outcomes([verdict.outcome for verdict in ordered[_MOST_CLAIMS:]])
        yield Text(f"and {rest}: report.html has all")
    yield ""


def _fit(summary: Summary, console: Console, limit: int) -> tuple[tuple[str, ...], FittedColumns]:
    """What the table goes without, and what names its cells, so that it fits into so many columns.

    Figures give way first, then names. Where even so the axes have no place in columns of their own, a cell
    has them all in one.
    """
    dispensable = DISPENSABLE[summary.measure]
    ways = [(summary.columns, dispensable[:number], NAMES) for number in range(len(dispensable))]
    ways.append((summary.columns, ways[-1][1], LEAST_NAMES))
    ways += [(columns, dispensable, LEAST_NAMES) for columns in (summary.columns, summary.columns.in_one())]
    for columns, without, width in ways:
        short = fit_columns(columns, columns.at_least(width))
        spare = limit - _measure(_build_table(summary, console, short, without=without), console)
        if spare >= 0:
            break
    return without, fit_columns(columns, short.width + max(0, spare))


def _measure(table: Table, console: Console) -> int:
    """Columns that the table takes with all of it in one line."""
    unbounded = console.options.update(max_width=100_000)
    return Measurement.get(console, unbounded, table).maximum


def _build_table(
    summary: Summary, console: Console, names: FittedColumns, *, without: tuple[str, ...]
) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="none", pad_edge=False, padding=(0, 1, 0, 0))
    for heading, justify in zip(names.headings, _justify(names.fields), strict=True):
        table.add_column(_render(console, heading), justify=justify, no_wrap=True)
    columns = _columns(summary, without=without)
    for column in columns:
        table.add_column(_render(console, column.heading), justify="right", no_wrap=True)
    for cell in summary.cells:
        written = (column.write(cell) for column in columns)
        figures = (_render(console, text, style="bold" if strong else "") for text, strong in written)
        table.add_row(*(_render(console, text) for text in names.fields[cell.name]), *figures)
    return table


def _justify(fields: Mapping[str, tuple[str, ...]]) -> list[JustifyMethod]:
    """Columns of numbers to the right, as the figures beside them."""
    return [
        "right" if all(map(_is_number, column)) else "left" for column in zip(*fields.values(), strict=True)
    ]


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return True


def _columns(summary: Summary, *, without: tuple[str, ...]) -> list[_Column]:
    """The columns of figures."""
    total = len(summary.sweep.seeds)
    columns = {
        "n": _plain("n", lambda cell: _share(len(cell.seeds), total)),
        "error": _plain(
            "error %\nlast epoch",
            lambda cell: plus_minus(cell.error_last.mean, cell.error_last.ci95) if cell.error_last else "-",
        ),
        BEST: _plain("best\nepoch*", lambda cell: f"{cell.error_best.mean:.2f}" if cell.error_best else "-"),
        S: _plain("S, pp²", lambda cell: digits(cell.stability.s) if cell.stability else "undefined")
        if INTERVAL in without
        else _plain("S, pp²\n[95 % approx.]", _stability),
        RANGE: _plain(
            "mean\nrange", lambda cell: f"{cell.stability.mean_range:.2f}" if cell.stability else "-"
        ),
    }
    if summary.stability_comparisons:
        columns[P_OF_S] = _Column(heading="p of S\nHolm", write=lambda cell: _p(cell, summary, "stability"))
    reference = summary.label(summary.sweep.reference or "")
    named = reference if len(reference) <= _LONGEST_IN_HEADING else "reference"
    if summary.s2_ratios:
        columns[S2_RATIO] = _Column(
            heading=f"S2 over that\nof {named}", write=lambda cell: _s2_ratio(cell, summary)
        )
        columns["p of S2"] = _Column(heading="p of S2\nHolm", write=lambda cell: _p_of_s2(cell, summary))
    if summary.comparisons and DIFFERENCE not in without:
        columns[DIFFERENCE] = _Column(
            heading=f"error minus\n{named}", write=lambda cell: _difference(cell, summary)
        )
        columns["p"] = _Column(heading="p\nHolm", write=lambda cell: _p(cell, summary, "error"))
    return [columns[name] for name in _ORDER[summary.measure] if name in columns and name not in without]


def _plain(heading: str, write: Callable[[CellSummary], str]) -> _Column:
    return _Column(heading=heading, write=lambda cell: (write(cell), False))


def _share(number: int, total: int) -> str:
    return str(number) if number == total else f"{number}/{total}"


def _stability(cell: CellSummary) -> str:
    found = cell.stability
    return f"{digits(found.s)} {interval(found.ci95)}".strip() if found else "undefined"


def _s2_ratio(cell: CellSummary, summary: Summary) -> tuple[str, bool]:
    found = next((ratio for ratio in summary.s2_ratios if ratio.cell == cell.name), None)
    if found is None:
        return summary.describe_uncompared(cell), False
    if found.ratio is None or found.reservation:
        return "-", False
    return f"{digits(found.ratio)} {interval(found.ci95)}".strip(), found.significant


def _p_of_s2(cell: CellSummary, summary: Summary) -> tuple[str, bool]:
    found = next((ratio for ratio in summary.s2_ratios if ratio.cell == cell.name), None)
    if found is None:
        return "", False
    return "withheld" if found.reservation else p_value(found.p_holm), found.significant


def _difference(cell: CellSummary, summary: Summary) -> tuple[str, bool]:
    comparison = summary.find_comparison(cell.name)
    if comparison is None:
        return summary.describe_uncompared(cell), False
    return plus_minus(comparison.difference, comparison.ci95, signed=True), comparison.significant


def _p(cell: CellSummary, summary: Summary, measure: str) -> tuple[str, bool]:
    comparison = summary.find_comparison(cell.name, measure=measure)
    if comparison is None:
        return "", False
    return "withheld" if comparison.withheld else p_value(comparison.p_holm), comparison.significant


def _render(console: Console, text: str, *, style: str = "") -> Text:
    """Text as it is, with the signs that the console can show."""
    return console.render_str(text, style=style, markup=False, emoji=False, highlight=False)


def _notes(summary: Summary, names: FittedColumns, *, without: tuple[str, ...]) -> list[str]:
    quantum = (
        f"; one test image is {digits(summary.quantum_pct)} pp" if summary.quantum_pct is not None else ""
    )
    window, ddof = summary.sweep.window, summary.sweep.ddof
    shown = summary.measure == "error" and BEST not in without
    best = " * The best epoch is selected on the test set." if shown else ""
    gone = [what for what in without if what != INTERVAL or S not in without]
    missing = f"Left out because the terminal is narrow: {', '.join(gone)}; report.html has "
    scope, family = describe_scope(summary), describe_family(summary)
    keys = summary.columns.explanation
    s2 = summary.measure == "stability" and summary.s2_ratios
    return [
        *names.notes,
        *([f"Keys: {keys}"] if keys else []),
        *([missing + ("it." if len(gone) == 1 else "them.")] if without else []),
        f"Error: mean over seeds ± half of its 95 % interval.{best}",
        *(["S2 over that of the reference [95 %]: the steadier cell is below 1."] if s2 else []),
        f"S: eq. (10), variance of the range over seeds, last {window} epochs, ddof {ddof}{quantum}.",
        *(explain_table(summary) if DIFFERENCE not in without else []),
        *([scope] if scope else []),
        *([family] if family else []),
        *([explain_looks(summary)] if summary.monitoring.sequential else []),
        *(describe_teacher(teacher) for teacher in summary.teachers),
        *([describe_time(summary)] if summary.executions else []),
    ]
