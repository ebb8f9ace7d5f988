"""The report as files: HTML that needs nothing beside it, Markdown, LaTeX, CSV, and the figures."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hkrun import stats
from hkrun.errors import StoreError
from hkrun.report import paper_tables, ratio_tables, result_tables, run_tables, variance
from hkrun.report.answers import write_answer
from hkrun.report.commands import describe_command, describe_next
from hkrun.report.kept_statistics import describe_makers
from hkrun.report.look_wording import explain_looks
from hkrun.report.open_comparisons import explain_table
from hkrun.report.picturing import second_process, taking_pictures
from hkrun.report.seed_table import tabulate_seeds
from hkrun.report.summary import CellSummary, PaperTable, Summary
from hkrun.report.table import Table
from hkrun.report.wording import (
    count,
    describe_scope,
    describe_teacher,
    describe_time,
    digits,
    duration,
    write_findings,
)
from hkrun.spaces import CellColumns, Sweep
from hkrun.store import DamagedError, NotCommittedError, Record, Store

# What a spreadsheet takes for the start of a formula (OWASP, "CSV Injection"), with the full-width forms; and
# the mark that is put in front of it.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")
MARKDOWN = "report.md"
_TEMPLATES = (MARKDOWN, "report.tex")
RECEIPT_FILE = "report-receipt.json"


@dataclass(frozen=True, kw_only=True)
class PaperSection:
    """What the report says of one published table."""

    title: str
    columns: str
    reference: str
    table: Table
    marks: str


def write_report(summary: Summary, store: Store) -> dict[str, str]:
    """Writes the report into the sweep's folder of the store, beside what else is there.

    Nothing is written where the folder holds this very report already.

    Returns:
        Where each file is, by name: a path on a local store, else a URI.
    """
    files = render_report(summary)
    folder = store.sweep_folder(summary.sweep.name, summary.sweep.dataset)
    if any(_read_file(store, folder, name) != content for name, content in files.items()):
        store.commit(folder, files, keep=None)
    place = str(store.local_path / folder) if store.local_path else f"{store.place}/{folder}"
    return {name: f"{place}/{name}" for name in files}


def _read_file(store: Store, folder: str, name: str) -> bytes | None:
    """A file of the report; None where it is not there whole."""
    try:
        return store.read(folder, name)
    except (DamagedError, NotCommittedError):
        return None


def render_report(summary: Summary) -> dict[str, bytes]:
    """The report's files by name: report.html, .md, .tex and .csv, and each figure as .png and .svg.

    All forms hold the same tables; that of single runs is in HTML and CSV alone. The same summary gives
    the same bytes.
    """
    with taking_pictures() as pictures:
        # Only here: a report that is there already needs none of it.
        from hkrun.report import drawing
        from hkrun.report.page import PAGE, render_page
        from hkrun.report.rendering import render_template

        drawn = drawing.draw_figures(summary)
        pictures.order(drawing.order_pictures(drawn))
        content = _gather(summary)
        files = {"report.csv": _write_csv(content, summary.columns)}
        taken = pictures.collect()
    content["figures"] = figures = drawing.place_pictures(drawn, taken)
    files |= {name: render_template(name, content) for name in _TEMPLATES}
    files[PAGE] = render_page(summary, content, figures)
    for figure in figures:
        files |= {f"{figure.name}.{kind}": content for kind, content in figure.wide.files.items()}
    return files


def render_markdown(summary: Summary) -> dict[str, bytes]:
    """The report as Markdown alone: report.md, and each figure as .svg."""
    from hkrun.report import drawing
    from hkrun.report.rendering import render_template

    drawn = drawing.draw_figures(summary)
    report = {MARKDOWN: render_template(MARKDOWN, {**_gather(summary), "figures": drawn})}
    return report | {f"{figure.name}.svg": figure.svg for figure in drawn}


def _write_csv(content: Mapping[str, object], naming: CellColumns) -> bytes:
    """Every table of the report, a line per field: its text, and the unrounded number behind it.

    The values of the axes that vary the row's cell stand in columns of their own.
    Text that a spreadsheet would take for a formula has an apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    axes = tuple(naming.short.values())
    writer.writerow(["table", "row", "column", "text", "value", "low", "high", "significant", *axes])
    for table in _find_tables(content.values()):
        words = table.words if table.words < len(table.columns) else table.names
        for place, row in enumerate(table.rows):
            named = [table.cells[place]] if table.cells else [entry.text for entry in row[: table.names]]
            name = " | ".join([*named, *(entry.text for entry in row[table.names : words])])
            point = naming.points[table.cells[place]] if table.cells else {}
            values = [_quote_formula(point.get(key, "")) for key in axes]
            for column, entry in zip(table.columns[words:], row[words:], strict=True):
                ends = entry.ends or ("", "")
                value = "" if entry.value is None else entry.value
                texts = map(_quote_formula, (table.id, name, column, entry.text))
                writer.writerow([*texts, value, *ends, int(entry.strong), *values])
    return text.getvalue().encode()


def _quote_formula(text: str) -> str:
    """Text in one line that no spreadsheet reads as a formula: with an apostrophe in front of those.

    Also in front of an apostrophe, so that taking one off gives every text back.
    """
    line = " ".join(text.split())  # csv leaves a carriage return unquoted where it ends no line
    return f"'{line}" if line.startswith(_FORMULA) else line


def _find_tables(values: Iterable[object]) -> Iterator[Table]:
    for value in values:
        if isinstance(value, Table):
            yield value
        elif isinstance(value, PaperSection):
            yield value.table
        elif isinstance(value, list):
            yield from _find_tables(value)


def _gather(summary: Summary) -> dict[str, object]:
    sweep = summary.sweep
    shared, own = run_tables.tabulate_configuration(summary)
    configurations = {cell.cell_id: cell for cell in summary.cells}  # several names may be one
    finished = sum(len(cell.seeds) for cell in configurations.values())
    num_runs = len(configurations) * len(sweep.seeds)
    spared = sum(len(cell.spared) for cell in configurations.values())
    spent = sum(record.timings.get("total", 0.0) for record in summary.records)
    quantum = summary.quantum_pct
    return {
        "title": sweep.title,
        "question": sweep.subtitle,
        "facts": [
            f"data set {sweep.dataset}",
            *sweep.changes,
            *_shared_facts(summary),
            count(len(configurations), "configuration"),
            count(len(sweep.seeds), "seed"),
            f"{finished} of {count(num_runs, 'run')} finished" + (f", {spared} spared" if spared else ""),
            f"{duration(spent)} of training, summed over runs",
        ],
        "findings": [*write_answer(summary), *write_findings(summary)],
        "warnings": summary.warnings,
        "errors": result_tables.tabulate_errors(summary),
        "seeds": tabulate_seeds(summary),
        "stability": result_tables.tabulate_stability(summary),
        "s2": ratio_tables.tabulate_s2(summary),
        "deviations": ratio_tables.tabulate_deviations(summary),
        "variance_epochs": variance.tabulate_variance(summary, "epochs"),
        "variance_cells": variance.tabulate_variance(summary, "cells"),
        "variance_limits": variance.describe_variance(summary),
        "claims": paper_tables.tabulate_claims(summary),
        "evidence": paper_tables.tabulate_evidence(summary),
        "on_s2": bool(summary.s2_verdicts),
        "paper": [_section(paper, summary) for paper in summary.paper],
        "scans": [
            result_tables.tabulate_scan(scan, number, summary)
            for number, scan in enumerate(summary.scans, start=1)
        ],
        "scan_findings": [result_tables.describe_scan(scan, sweep) for scan in summary.scans],
        "margin": f"{sweep.margin:g}",
        "health": result_tables.tabulate_health(summary),
        "runs": run_tables.tabulate_runs(summary),
        "unfinished": run_tables.tabulate_unfinished(summary),
        "shared": shared,
        "own": own,
        "time": run_tables.tabulate_time(summary),
        "executions": run_tables.tabulate_executions(summary),
        "time_spent": describe_time(summary) if summary.executions else "",
        "conditions": run_tables.tabulate_conditions(summary),
        "intervals": explain_table(summary),
        "scope": describe_scope(summary),
        "looks": explain_looks(summary),
        "sequential": summary.monitoring.sequential,
        "teachers": [describe_teacher(teacher) for teacher in summary.teachers],
        "quantum": digits(quantum) if quantum is not None else "",
        "test_images": round(100 / quantum) if quantum is not None else 0,
        "window": sweep.window,
        "ddof": sweep.ddof,
        "dataset": sweep.dataset,
        "level_pct": f"{100 * stats.LEVEL:.0f}",
        "power_pct": f"{100 * stats.POWER:.0f}",
        "permutations": f"{stats.PERMUTATIONS:,}",
        "command": describe_command(summary),
        "next": describe_next(summary),
    }


def _section(paper: PaperTable, summary: Summary) -> PaperSection:
    return PaperSection(
        title=f"Table {paper.id.removeprefix('table')}. {paper.published.title}",
        columns=paper_tables.describe_columns(paper, summary.sweep.dataset),
        reference=paper.reference,
        table=paper_tables.tabulate_paper(paper, summary),
        marks=paper_tables.describe_marks(paper),
    )


def _shared_facts(summary: Summary) -> list[str]:
    """The student and its epochs, where they are those of all cells."""
    students = {(cell.cell.student.network, cell.cell.student.epochs) for cell in summary.cells}
    if len(students) > 1:
        return []
    ((network, epochs),) = students
    return [f"student {network}", count(epochs, "epoch")]


def renew_report(summary: Summary, store: Store, *, with_closing: bool = False) -> dict[str, str]:
    """Writes the report, unless the store has it whole and of the same results.

    Args:
        summary: What to report.
        store: Where.
        with_closing: Whether what executions did after their report is news: for who asks for the report, and
            not for a sweep, which would have news each time that it is asked for again.

    Returns:
        Where each file is, by name, as `write_report` does.
    """
    folder = store.sweep_folder(summary.sweep.name, summary.sweep.dataset)
    before = tuple(execution.before_report() for execution in summary.executions)
    content = {"content": _digest([describe_makers(), dataclasses.replace(summary, executions=before)])}
    closing = {"closing": _digest(summary.executions)}
    names = _find_current(store, folder, content | closing if with_closing else content)
    if names:
        return {name: f"{store.place}/{folder}/{name}" for name in names}
    paths = write_report(summary, store)
    note = {**content, **closing, "files": _sums(store, folder, list(paths))}
    store.commit(folder, {RECEIPT_FILE: json.dumps(note, indent=1).encode()}, keep=None)
    return paths


@contextlib.contextmanager
def drawing_ahead(sweep: Sweep, store: Store) -> Iterator[None]:
    """Within the block a second process draws what is known by and by, where a study has no report yet.

    A report that is there may be current, and then nothing is drawn.
    """
    with contextlib.ExitStack() as block:
        if _read_file(store, store.sweep_folder(sweep.name, sweep.dataset), RECEIPT_FILE) is None:
            block.enter_context(second_process())
        yield


def _digest(content: object) -> str:
    """SHA-256 of what a report is made from, such as its numbers and the code that makes it."""
    cells: dict[int, str] = {}  # a summary names each several times

    def write(value: object) -> object:
        """What JSON has no form for: dataclasses by their fields, curves by their bytes, else its words."""
        if isinstance(value, CellSummary):
            if id(value) not in cells:
                fields = _fields(value) | {"records": _by_field(value.records)}
                cells[id(value)] = _hash(json.dumps(fields, default=write).encode())
            return cells[id(value)]
        if isinstance(value, np.ndarray):
            return [str(value.dtype), value.shape, _hash(np.ascontiguousarray(value).data)]
        return _fields(value) if dataclasses.is_dataclass(value) else str(value)

    return _hash(json.dumps(content, default=write).encode())


def _hash(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def _fields(value: Any) -> dict[str, object]:
    return {spec.name: getattr(value, spec.name) for spec in dataclasses.fields(value)}


def _by_field(records: Sequence[Record]) -> dict[str, list[tuple[object, int]]]:
    """Each field's values over the records, equal ones in a row once with their number.

    Most are the same in all of ten thousand records, which by themselves would be 35 MB of text.
    """
    return {
        spec.name: [
            (value, len(list(same)))
            for value, same in itertools.groupby(getattr(record, spec.name) for record in records)
        ]
        for spec in dataclasses.fields(Record)
    }


def _find_current(store: Store, folder: str, content: dict[str, str]) -> list[str]:
    """The names of the report's files where they are of this content, by digests; none where any is not."""
    try:
        note = json.loads(store.read(folder, RECEIPT_FILE))
        names = list(note["files"])
        same = content.items() <= note.items() and _sums(store, folder, names) == note["files"]
    except (StoreError, ValueError, KeyError, TypeError):
        return []
    return names if same else []


def _sums(store: Store, folder: str, names: list[str]) -> dict[str, str]:
    """SHA-256 by name, of what the files hold: one that is damaged or gone is an error."""
    return {name: hashlib.sha256(store.read(folder, name)).hexdigest() for name in names}
