"""The tables of a report, as rows of text: one source for HTML and Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hkrun import config
from hkrun.report.summary import CellSummary, Comparison, Summary
from hkrun.report.wording import count, digits, duration, first_line, interval, p_value, plus_minus, seeds

NONE = "–"  # noqa: RUF001  an en dash: no figure
MINUS = "−"  # noqa: RUF001  a real minus sign


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One field of a table; strong only where a difference is significant."""

    text: str
    strong: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a report.

    Attributes:
        columns: Headings.
        rows: Fields in the order of the columns.
        words: How many of the first columns hold words; the others are figures and stand to the right.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    words: int = 1


def _table(columns: Sequence[str], rows: Iterable[Sequence[str | Entry]], *, words: int = 1) -> Table:
    return Table(
        columns=tuple(columns),
        rows=tuple(
            tuple(field if isinstance(field, Entry) else Entry(text=field) for field in row) for row in rows
        ),
        words=words,
    )


# --- results ------------------------------------------------------------------------------------------------


def tabulate_errors(summary: Summary) -> Table:
    """Errors by cell, and their differences from the reference."""
    columns = ["Cell", "n", "Error, last epoch (%)", "sd", "Best epoch (%)*"]
    if summary.comparisons:
        columns += [f"Minus {summary.sweep.reference} (pp)", "p", "p, Holm"]
    rows = []
    for cell in summary.cells:
        last, best = cell.error_last, cell.error_best
        row: list[str | Entry] = [
            cell.name,
            _share(cell, summary),
            plus_minus(last.mean, last.ci95) if last else NONE,
            f"{last.sd:.2f}" if last and last.sd is not None else NONE,
            f"{best.mean:.2f}" if best else NONE,
        ]
        if summary.comparisons:
            row += _difference(cell, summary)
        rows.append(row)
    return _table(columns, rows)


def _share(cell: CellSummary, summary: Summary) -> str:
    total = len(summary.sweep.seeds)
    return str(total) if len(cell.seeds) == total else f"{len(cell.seeds)} of {total}"


def _difference(cell: CellSummary, summary: Summary) -> list[str | Entry]:
    comparison = summary.find_comparison(cell.name)
    if comparison is None:
        return [summary.describe_uncompared(cell), "", ""]
    text = plus_minus(comparison.difference, comparison.ci95, signed=True).replace("-", MINUS)
    return [
        Entry(text=text, strong=comparison.significant),
        p_value(comparison.p),
        Entry(text=p_value(comparison.p_holm), strong=comparison.significant),
    ]


def tabulate_stability(summary: Summary) -> Table:
    """S by cell with all that it must be read with."""
    columns = [
        "Cell",
        "Runs",
        "S (pp²)",
        "95 %, approximate",
        "S, ddof 1" if summary.sweep.ddof != 1 else "S, ddof 1 (the same)",
        "Mean range (pp)",
        "Within-run sd (pp)",
    ]
    if summary.stability_comparisons:
        columns += [f"p against {summary.sweep.reference}", "p, Holm", "Common seeds"]
    rows = []
    for cell in summary.cells:
        found = cell.stability
        row: list[str | Entry] = [cell.name, str(len(cell.seeds))]
        if found is None:
            row += ["undefined", *[NONE] * 4]
        else:
            row += [digits(found.s), interval(found.ci95) or NONE, digits(found.s_ddof1)]
            row += [f"{found.mean_range:.2f}", f"{found.within_run_sd:.3f}"]
        if summary.stability_comparisons:
            comparison = summary.find_comparison(cell.name, measure="stability")
            if comparison is None:
                row += [summary.describe_uncompared(cell), "", ""]
            else:
                row += [
                    p_value(comparison.p),
                    Entry(text=p_value(comparison.p_holm), strong=comparison.significant),
                    str(comparison.n),
                ]
        rows.append(row)
    return _table(columns, rows)


# --- the paper ----------------------------------------------------------------------------------------------


def tabulate_published(summary: Summary) -> Table | None:
    """The paper's table beside the sweep; each figure with its distance from the reference in its column."""
    published = summary.published
    if published is None:
        return None
    reference = next((row for row in published.rows if row.name == summary.sweep.reference), None)
    unit = "S, pp²" if published.measure == "stability" else "error, %"
    columns = [
        "Row",
        f"{summary.sweep.dataset}, measured here ({unit})",
        *(f"{column}, published ({unit})" for column in published.columns),
    ]
    rows = []
    for row in published.rows:
        cell = next((cell for cell in summary.cells if cell.name == row.name), None)
        base = reference.figures if reference and reference is not row else (None,) * len(row.figures)
        figures = [
            _relative(figure, other, published.measure)
            for figure, other in zip(row.figures, base, strict=True)
        ]
        cited = " (cited there)" if row.source == "cited" else ""
        rows.append([f"{row.name}{cited}", _measured(cell, summary), *figures])
    return _table(columns, rows)


def _relative(figure: float | None, reference: float | None, measure: str) -> str:
    """A figure and how far it is from the reference's: in points for an error, in percent for S."""
    if figure is None:
        return NONE
    text = digits(figure) if measure == "stability" else f"{figure:.2f}"
    if reference is None or (measure == "stability" and reference == 0):
        return text
    change = (
        f"{100 * (figure / reference - 1):+.0f} %" if measure == "stability" else f"{figure - reference:+.2f}"
    )
    return f"{text} ({change.replace('-', MINUS)})"


def _measured(cell: CellSummary | None, summary: Summary) -> str:
    published = summary.published
    if cell is None or published is None:
        return "not run here"
    reference = next((other for other in summary.cells if other.name == summary.sweep.reference), None)
    base = None
    # S of different numbers of runs is never set against each other.
    comparable = reference and (published.measure == "error" or len(reference.seeds) == len(cell.seeds))
    if reference is not cell and reference and comparable:
        base = _figure(reference, published.measure)
    return _relative(_figure(cell, published.measure), base, published.measure)


def _figure(cell: CellSummary, measure: str) -> float | None:
    if measure == "stability":
        return cell.stability.s if cell.stability else None
    return cell.error_last.mean if cell.error_last else None


def tabulate_claims(summary: Summary) -> Table | None:
    """What the paper claims, and what this sweep says of it on its data."""
    if not summary.verdicts:
        return None
    rows = [
        [
            verdict.claim.statement,
            f"{verdict.outcome} on {summary.sweep.dataset}" if verdict.comparisons else "not judged here",
            "; ".join(map(_evidence, verdict.comparisons)) or NONE,
        ]
        for verdict in summary.verdicts
    ]
    return _table(["The paper says", "This sweep", "Evidence"], rows, words=3)


def _evidence(comparison: Comparison) -> str:
    p = f"Holm p {'' if comparison.p_holm < 0.001 else '= '}{p_value(comparison.p_holm)}"
    if comparison.measure == "stability":
        figures = f"S {digits(comparison.value)} against {digits(comparison.reference_value)}"
    else:
        figures = plus_minus(comparison.difference, comparison.ci95, signed=True).replace("-", MINUS) + " pp"
    return f"{comparison.cell} against {comparison.reference}: {figures}, {p}"


# --- the runs -----------------------------------------------------------------------------------------------


def tabulate_runs(summary: Summary) -> Table:
    """How many runs each cell has, and what one costs."""
    rows = []
    for cell in summary.cells:
        totals = [record.timings["total"] for record in cell.records if "total" in record.timings]
        rows.append(
            [
                cell.name,
                cell.cell_id,
                *(seeds(found) or NONE for found in (cell.seeds, cell.failed, cell.diverged, cell.missing)),
                duration(sum(totals) / len(totals)) if totals else NONE,
            ]
        )
    return _table(
        ["Cell", "Id", "Finished seeds", "Failed", "Diverged", "Missing", "Mean time per run"], rows, words=2
    )


def tabulate_unfinished(summary: Summary) -> Table | None:
    """The failed and the diverged runs, each with what happened."""
    rows = [
        [
            cell.name,
            str(record.seed),
            f"diverged in epoch {record.diverged_epoch}"
            if record.status == "diverged"
            else f"failed after {count(record.epochs, 'epoch')}",
            first_line(record.traceback) if record.status == "failed" else "a loss was no longer finite",
        ]
        for cell in summary.cells
        for record in cell.records
        if record.status != "finished"
    ]
    return _table(["Cell", "Seed", "Outcome", "What happened"], rows, words=4) if rows else None


def tabulate_configuration(summary: Summary) -> tuple[Table, Table | None]:
    """The keys that all cells share, and per cell those in which they differ."""
    forms = {cell.name: config.canonical(cell.cell) for cell in summary.cells}
    values: dict[str, list[object]] = {}
    for form in forms.values():
        for key, value in form.items():
            values.setdefault(key, []).append(value)
    differing = {key for key, found in values.items() if any(value != found[0] for value in found)}
    shared = [
        [key, _plain(found[0]), "" if len(found) == len(forms) else f"{len(found)} of {len(forms)} cells"]
        for key, found in values.items()
        if key not in differing
    ]
    own = [
        [name, ", ".join(f"{key} = {_plain(form[key])}" for key in form if key in differing)]
        for name, form in forms.items()
    ]
    return (
        _table(["Key", "Value", "Used by"], shared, words=3),
        _table(["Cell", "Its own keys"], own, words=2) if differing else None,
    )


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "[" + ", ".join(map(_plain, value)) + "]" if isinstance(value, list | tuple) else str(value)


def tabulate_time(summary: Summary) -> Table:
    """Where the time went, in process seconds: summed over runs, of which several may train side by side."""
    records = summary.records
    parts: dict[str, float] = {}
    for record in records:
        for part, seconds in record.timings.items():
            parts[part] = parts.get(part, 0.0) + seconds
    total = parts.pop("total", sum(parts.values()))
    rows = [
        [f"of these, {part}", duration(seconds), _percent(seconds, total)] for part, seconds in parts.items()
    ]
    trained = [teacher.record for teacher in summary.teachers if teacher.record]
    teachers = sum(record.timings.get("total", 0.0) for record in trained)
    return _table(
        ["Part", "Time", "Share"],
        [
            [f"{count(len(records), 'run')} of students", duration(total), _percent(total, total + teachers)],
            *rows,
            [count(len(trained), "teacher"), duration(teachers), _percent(teachers, total + teachers)],
        ],
    )


def _percent(part: float, total: float) -> str:
    return f"{100 * part / total:.0f} %" if total > 0 else NONE


def tabulate_conditions(summary: Summary) -> Table:
    """What the bits of the results depend on besides cell and seed."""
    records = summary.records
    versions: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.versions.items():
            versions.setdefault(name, set()).add(version)
    starts = [datetime.fromtimestamp(record.started_at, UTC) for record in records]
    packs = {len(record.pack) for record in records}
    facts: Mapping[str, Iterable[str]] = {
        "Device": {record.device for record in records},
        "Threads per process": {str(record.threads) for record in records},
        "Workers per run": {str(record.world_size) for record in records},
        "Seeds trained together": {str(size) for size in packs},
        "Resumed runs": [str(sum(record.resumed > 0 for record in records))],
        "Started (UTC)": [
            " to ".join(dict.fromkeys(f"{moment:%Y-%m-%d %H:%M}" for moment in (min(starts), max(starts))))
        ]
        if starts
        else [],
        **{f"Version of {name}": found for name, found in sorted(versions.items())},
        "Weights of the teacher": [
            f"SHA-256 {teacher.hash[:16]}" for teacher in summary.teachers if teacher.hash
        ],
    }
    rows = [[name, ", ".join(sorted(values)) or NONE] for name, values in facts.items()]
    return _table(["Condition", "Value"], rows, words=2)
