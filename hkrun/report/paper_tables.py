"""The tables beside the paper: its rows with what was measured, its claims, and the evidence on them."""

import re
from collections.abc import Iterator
from dataclasses import replace

from hkrun.datasets import find_dataset
from hkrun.report.comparing import ON, OVER
from hkrun.report.comparison import Comparison
from hkrun.report.result_tables import difference_entry, effect_entry, error_entry, p_entry, sd_entry
from hkrun.report.summary import PaperRow, PaperTable, Summary
from hkrun.report.table import MINUS, NONE, Entry, Field, Table, make_table
from hkrun.report.verdict import PowerForecast, Verdict
from hkrun.report.wording import count, describe_s2, digits, interval, join

# How a verdict on a claim about S says what it is about.
_BY = {"S": " by S, as published", "S2": " by S2"}


def tabulate_paper(paper: PaperTable, summary: Summary) -> Table:
    """Published and measured side by side; differences are from the reference row on the same data."""
    dataset, is_error = summary.sweep.dataset, paper.published.measure == "error"
    top5 = any(row.cell is not None and row.cell.error_top5 for row in paper.rows)
    minus = f"minus {paper.reference} (pp)" if is_error else f"S against {paper.reference}"
    columns = ["Row", f"n, {dataset}"]
    columns += [f"Error (%), {dataset}", "sd"] if is_error else [f"S (pp²), {dataset}", "95 %, approximate"]
    columns += [f"Top-5 (%), {dataset}"] if top5 else []
    columns += [minus, "p, Holm"]
    columns += ["d_z [95 %]"] if is_error else []
    columns += [f"Published, {column}" for column in paper.published.columns]
    reference = next(row for row in paper.rows if row.published.name == paper.reference)
    rows = []
    for row, name in _lines(paper):
        measured = _measured_errors(row, top5=top5) if is_error else _measured_stability(row)
        rows.append(
            [
                name,
                *measured,
                *_compared(row, paper, is_error=is_error),
                *_published(row, reference, paper.published.measure),
            ]
        )
    return make_table(paper.id, columns, rows)


def _lines(paper: PaperTable) -> Iterator[tuple[PaperRow, str]]:
    """The rows and what they are called; one that stands for several teachers is a line for each."""
    for row in paper.rows:
        if len(row.teachers) > 1:
            for teacher in row.teachers:
                yield replace(row, teachers=(teacher,)), f"{describe_row(row)}: {teacher.identity}"
        else:
            yield row, describe_row(row)


def describe_row(row: PaperRow) -> str:
    """A row's name with its marks."""
    marks = ["cited"] if row.published.source == "cited" else []
    marks += ["another network"] if row.published.network else []
    marks += ["relative distance"] if _is_relative(row) else []
    return f"{row.published.name} ({', '.join(marks)})" if marks else row.published.name


def _is_relative(row: PaperRow) -> bool:
    """Whether ours ran with FSP's flows or FitNets' hint at a distance relative to the teacher's squares."""
    if row.cell is None:
        return False
    cell = row.cell.cell
    return "knowledge.relative" in cell.term_keys and cell.knowledge.relative


def describe_marks(paper: PaperTable) -> str:
    """What the marks of a table's rows mean; empty where it has none."""
    sentences = []
    if any(row.published.source == "cited" for row in paper.rows):
        sentences.append("Cited: the paper most likely copied the figure from an earlier one.")
    for row in paper.rows:
        if row.published.network:
            sentences.append(
                f"{row.published.name} was published on {row.published.network}; here it runs on the student "
                "of the other rows."
            )
        if len(row.teachers) == 1 and row.teachers[0].several:
            sentences.append(
                f"{row.published.name} is the teachers of the measured rows: what is set against it is the "
                "difference of each run from its own teacher."
            )
        elif len(row.teachers) == 1:
            sentences.append(
                f"{row.published.name} is the teacher of the measured rows, one training and so one number: "
                "what is set against it is a one-sample test."
            )
        if len(row.teachers) > 1:
            sentences.append(
                f"{row.published.name} stands for {len(row.teachers)} teachers of the measured rows with "
                "different errors, a line each; none is set against the reference."
            )
    if any(_is_relative(row) for row in paper.rows):
        sentences.append(
            "Relative distance: the squared distance of FSP's flows and FitNets' hint was taken relative to "
            "the teacher's own squares here, not absolutely as in their papers (knowledge.relative = false)."
        )
    return " ".join(sentences)


def _measured_errors(row: PaperRow, *, top5: bool) -> list[Field]:
    if row.cell is not None:
        errors = row.cell.error_last
        more = [error_entry(row.cell.error_top5)] if top5 else []
        return [len(row.cell.seeds), error_entry(errors), sd_entry(errors), *more]
    for teacher in row.teachers:
        errors = teacher.error
        entry = error_entry(errors)
        spread = sd_entry(errors) if teacher.several else NONE
        return [count(len(teacher.records), "teacher"), entry, spread, *[NONE] * top5]
    return ["not run here", *[NONE] * (2 + top5)]


def _measured_stability(row: PaperRow) -> list[Field]:
    if row.cell is None:
        return ["not run here", NONE, NONE]
    found = row.cell.stability
    if found is None:
        return [len(row.cell.seeds), "undefined", NONE]
    s = Entry(text=digits(found.s), value=found.s, ends=found.ci95)
    return [len(row.cell.seeds), s, interval(found.ci95) or NONE]


def _compared(row: PaperRow, paper: PaperTable, *, is_error: bool) -> list[Field]:
    comparison = row.comparison
    if comparison is None:
        has_data = row.published.name == paper.reference and row.cell is not None
        return ["reference" if has_data else NONE, "", *([""] if is_error else [])]
    p = p_entry(comparison, strong=comparison.significant)
    if is_error:
        return [difference_entry(comparison), p, effect_entry(comparison)]
    return [_ratio_entry(comparison), p]


def _ratio_entry(comparison: Comparison) -> Entry:
    """How far S is from the reference's, in percent; both over the seeds that both finished."""
    if comparison.reference_value == 0:
        return Entry(text=NONE)
    change = comparison.value / comparison.reference_value - 1
    return Entry(text=_signed(f"{100 * change:+.0f} %"), strong=comparison.significant, value=change)


def _published(row: PaperRow, reference: PaperRow, measure: str) -> list[Entry]:
    bases = reference.published.figures if reference is not row else (None,) * len(row.published.figures)
    return [
        Entry(text=_relative(figure, base, measure), value=figure)
        for figure, base in zip(row.published.figures, bases, strict=True)
    ]


def _relative(figure: float | None, reference: float | None, measure: str) -> str:
    """A figure and how far it is from the reference's: in points for an error, in percent for S."""
    if figure is None:
        return NONE
    text = digits(figure) if measure == "stability" else f"{figure:.2f}"
    if reference is None:
        return text
    stable = measure == "stability"
    change = f"{100 * (figure / reference - 1):+.0f} %" if stable else f"{figure - reference:+.2f}"
    return f"{text} ({_signed(change)})"


def _signed(text: str) -> str:
    return text.replace("-", MINUS)


def tabulate_claims(summary: Summary) -> Table | None:
    """What the paper claims, and what this sweep says of it on its data."""
    if not summary.verdicts:
        return None
    rows = [
        [
            verdict.statement,
            re.sub(r"(?<=[a-z])(?=\d)", " ", verdict.claim.table),
            _describe_outcome(verdict, summary),
            str(min(item.n for item in verdict.comparisons)) if verdict.comparisons else NONE,
            describe_forecast(verdict),
        ]
        for verdict in summary.all_verdicts
    ]
    return make_table(
        "claims", ["The paper says", "Where", "This sweep", "Seeds", "Would be decided by"], rows, words=5
    )


def _describe_outcome(verdict: Verdict, summary: Summary) -> str:
    """The verdict and the data sets that it holds for."""
    if verdict.outcome == "not judged":
        return "not judged here"
    datasets = " and ".join(verdict.claim.datasets) or summary.sweep.dataset
    return f"{verdict.outcome} on {datasets}{_BY.get(verdict.claim.judged_on, '')}{verdict.condition}"


def describe_forecast(verdict: Verdict) -> str:
    """How many seeds would decide a claim that is undecided, or what stands against it."""
    if verdict.divergence:
        return verdict.divergence
    if verdict.reservation:
        return f"withheld: {verdict.reservation}"
    datasets = " and ".join(verdict.claim.datasets)
    others = f", on {datasets} in one store" if datasets else ""
    missing = f"the runs of {count(len(verdict.missing), 'comparison')}{others}" if verdict.missing else ""
    if verdict.forecast is None:
        return missing or NONE
    number = _describe_seeds(verdict.forecast)
    return f"{number}; {missing}" if missing else number


def _describe_seeds(found: PowerForecast) -> str:
    if found.reason:
        return found.reason
    if found.fewest is None:
        return f"none found up to {found.limit:,} seeds"
    if found.most is None:
        return f"not foreseeable, {found.fewest:,} seeds at least"
    numbers = f"{found.fewest:,} to {found.most:,}" if found.most > found.fewest else f"{found.most:,}"
    return f"{numbers} seeds, then {found.outcome}"


def tabulate_evidence(summary: Summary) -> Table | None:
    """Every comparison behind the verdicts, the published difference of the same rows beside it."""
    verdicts = [verdict for verdict in summary.all_verdicts if verdict.comparisons]
    if not verdicts:
        return None
    tables = {paper.id: paper for paper in summary.paper}
    columns = list(dict.fromkeys(name for paper in summary.paper for name in paper.published.columns))
    rows: list[list[Field]] = [
        [
            f"{verdict.claim.id}{', on S2' if verdict.claim.judged_on == 'S2' else ''}",
            summary.label(comparison.cell),
            _describe_opponent(comparison, summary.label(comparison.reference)),
            comparison.n,
            replace(_evidence(comparison), strong=_stands(comparison, verdict)),
            replace(p_entry(comparison), strong=_stands(comparison, verdict)),
            effect_entry(comparison),
            *(_published_difference(comparison, tables.get(verdict.claim.table), name) for name in columns),
        ]
        for verdict in verdicts
        for comparison in verdict.comparisons
    ]
    return make_table(
        "evidence",
        [
            *("Claim", "This", "Against", "Seeds", f"Measured, {summary.sweep.dataset}", "p, Holm"),
            "d_z [95 %]",
            *(f"Published, {name}" for name in columns),
        ],
        rows,
        words=3,
    )


def _stands(comparison: Comparison, verdict: Verdict) -> bool:
    """Whether a comparison is a finding: a part of a claim that is not reproduced as a whole is none."""
    told = comparison.supports if verdict.outcome == "reproduced" else comparison.opposes
    return told and comparison.margin is None


def _describe_opponent(comparison: Comparison, label: str) -> str:
    if comparison.epochs:
        return f"{label}, {comparison.epochs}"
    if comparison.one_number:
        return f"{label} ({comparison.one_number}: one number)"
    if comparison.measure == "equivalence":
        return f"{label}, within {comparison.margin:g} pp"
    if comparison.measure == "no worse":
        return f"{label}, no worse by {comparison.margin:g} pp"
    return label


def _evidence(comparison: Comparison) -> Entry:
    if comparison.measure == "stability":
        text = f"S {digits(comparison.value)} against {digits(comparison.reference_value)}"
        return Entry(text=text, value=comparison.difference)
    if comparison.measure == "s2":
        return Entry(text=describe_s2(comparison), value=comparison.ratio, ends=comparison.ci95)
    entry = difference_entry(comparison)
    return replace(entry, text=f"{entry.text} pp")


def _published_difference(comparison: Comparison, paper: PaperTable | None, column: str) -> Entry:
    """The same difference in the paper: in points for an error, in percent for S."""
    if paper is None or column not in paper.published.columns or comparison.measure == "s2":
        return Entry(text=NONE)
    if comparison.epochs or _column_of(comparison.cell, column) != column:
        return Entry(text=NONE)
    ours, theirs = (
        _published_figure(name, paper, column) for name in (comparison.cell, comparison.reference)
    )
    if ours is None or theirs is None:
        return Entry(text=NONE)
    if comparison.measure == "stability":
        return Entry(text=_signed(f"{100 * (ours / theirs - 1):+.0f} %"), value=ours - theirs)
    return Entry(text=_signed(f"{ours - theirs:+.2f} pp"), value=ours - theirs)


def _published_figure(name: str, paper: PaperTable, column: str) -> float | None:
    """A row's figure, or the difference of two, each in the column of its own data set where it names one."""
    rows = {row.published.name: row.published.figures for row in paper.rows}
    figures = []
    for part in name.split(OVER):
        row, _, _ = part.partition(ON)
        place = paper.published.columns.index(_column_of(part, column))
        figure = rows[row][place] if row in rows else None
        if figure is None:
            return None
        figures.append(figure)
    return figures[0] if len(figures) == 1 else figures[0] - figures[1]


def _column_of(name: str, column: str) -> str:
    """The column of the data set that a name ends with; else the one given."""
    _, _, dataset = name.partition(OVER)[0].partition(ON)
    return find_dataset(dataset).published_as if dataset else column


def describe_columns(paper: PaperTable, dataset: str) -> str:
    """Which columns may be read against each other."""
    columns = paper.published.columns
    published = find_dataset(dataset).published_as
    # "ImageNet, top-5" is on ImageNet; columns on other data are never set against what was measured.
    same = [column for column in columns if column.partition(",")[0] == published]
    if same:
        are = f"columns {join(same)} are" if len(same) > 1 else f"column {same[0]} is"
        text = f"The {are} on the data of the measured ones"
        if len(same) == len(columns):
            return f"{text}."
        return f"{text}, the others are not: across data, compare the signs of differences, not figures."
    return (
        f"What was measured is on {dataset}, what was published on other data: compare the signs of "
        "differences, not figures."
    )
