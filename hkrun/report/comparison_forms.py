"""Two studies side by side, as the terminal shows them and as a document for scripts."""

from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hkrun.counting import list_names
from hkrun.report.comparison import Comparison
from hkrun.report.open_comparisons import explain_intervals
from hkrun.report.study_comparison import CellPair, StudyComparison
from hkrun.report.study_pairing import ComparedStudy
from hkrun.report.summary import CellSummary
from hkrun.report.table import NONE
from hkrun.report.wording import count, digits, equals, interval, join, p_value, plus_minus
from hkrun.spaces import display_width, shorten, shorten_names, write_value

WIDTH = 100  # that a line takes at most
NAME_WIDTH = 12  # that a column of names has at least
_MOST_NAMES = 6  # of cells without a counterpart that the terminal names
_MOST_KEYS = 6  # that the terminal shows of a pair; the document has all
_HEADS = {
    "error": ("cell", "A, error %", "B, error %", "B minus A, pp", "p, Holm", "n"),
    "S": ("cell", "A, S [95 % approx.]", "B, S [95 % approx.]", "p, Holm", "n"),
}
# What a narrow terminal goes without, in this order; the difference, S and p stay.
_INTERVALS, _N = "intervals of S", "n"
_DISPENSABLE = {"error": (*_HEADS["error"][1:3], _N), "S": (_INTERVALS, _N)}


def print_comparison(found: StudyComparison, console: Console) -> None:
    """Prints two studies side by side, in at most 100 columns: findings, errors, S, keys, cautions.

    No figure is cut: a narrow terminal goes without columns, and a line says which. Where that is not enough,
    the tables are wider than the terminal.
    """
    width = min(WIDTH, console.width)
    before, console.width = console.width, width
    try:
        for letter, study in (("A", found.first), ("B", found.second)):
            _print_line(console, f"{letter}  {_describe_study(study)}")
        console.print()
        for line in write_comparison_findings(found):
            _print_line(console, line)
        if found.pairs:
            tables, gone = _fit_tables(found.pairs, console)
            names = [_render(console, pair.match.name) for pair in found.pairs]
            free = min(_find_free_width(*table, width) for table in tables)
            shown = shorten_names(names, max(NAME_WIDTH, free))
            longest = max(map(display_width, shown.values()))
            for heads, figures in tables:
                console.width = max(width, width - _find_free_width(heads, figures, width) + longest)
                console.print(_build_table(heads, list(shown.values()), figures))
            console.width = width
            for name, short in shown.items():
                if short != name:
                    _print_line(console, f"{short}: {name}", style="dim")
            if gone:
                left = f"Left out because the terminal is narrow: {join(gone)}; --json has all"
                _print_line(console, left, style="dim")
            for line in _notes(found.pairs):
                _print_line(console, line, style="dim")
        for line in _describe_keys(found, width):
            _print_line(console, line)
        for line in (*_describe_alone(found), *found.cautions):
            grid = Table.grid(padding=(0, 1))
            grid.add_row(Text(" !", style="yellow"), Text(line))
            console.print(grid)
    finally:
        console.width = before


def _print_line(console: Console, line: str, *, style: str = "") -> None:
    indent = len(line) - len(line.lstrip())
    text = console.render_str(line.lstrip(), style=style, markup=False, emoji=False, highlight=False)
    console.print(Padding(text, (0, 0, 0, 1 + indent), expand=False))


def _render(console: Console, text: str) -> str:
    """Text with the signs that the console can show; those for a sign that it lacks may be wider."""
    return console.render_str(text, markup=False, emoji=False, highlight=False).plain


def _describe_study(study: ComparedStudy) -> str:
    sweep = study.summary.sweep
    epochs = sorted({named.cell.student.epochs for named in sweep.cells})
    told = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
    noun = "epoch" if epochs == [1] else "epochs"
    return f"{study.label}: {sweep.dataset}, {count(len(sweep.seeds), 'seed')}, {told} {noun}"


def write_comparison_findings(found: StudyComparison) -> Iterator[str]:
    """What the tests say, in sentences."""
    if not found.pairs:
        yield "No cell of one belongs to a cell of the other; --cells NAME=NAME says which do."
        return
    for pair in found.pairs:
        error = pair.error
        if error is not None and error.significant:
            word = "lower" if error.difference < 0 else "higher"
            yield (
                f"{pair.match.name}: the error is {word} in B, by {abs(error.difference):.2f} pp "
                f"(p {equals(error.p_holm)})."
            )
        spread = pair.stability
        if spread is not None and spread.obstacle is None:
            word = "lower" if spread.difference < 0 else "higher"
            yield (
                f"{pair.match.name}: S is {word} in B, {digits(spread.value)} against "
                f"{digits(spread.reference_value)} (p {equals(spread.p_holm)})."
            )
    open_ = [
        pair.match.name
        for pair in found.pairs
        if pair.error is not None and not pair.error.significant and not pair.error.withheld
    ]
    if open_:
        yield f"No difference in error is shown for {join(open_)}."
    tested = [(pair.match.name, pair.error) for pair in found.pairs if pair.error is not None]
    yield from explain_intervals(tested, tests=len(tested))
    same = [pair.match.name for pair in found.pairs if pair.same_runs and pair.seeds]
    if same:
        yield f"One configuration with the same errors: {join(same)}."
    withheld: dict[str, list[str]] = {}
    for pair in found.pairs:
        if pair.error is not None and pair.error.withheld:
            withheld.setdefault(pair.error.reservation, []).append(pair.match.name)
    for reservation, names in withheld.items():
        yield f"No verdict on the error of {join(names)}: {reservation}."


# --- tables -------------------------------------------------------------------------------------------------


def _fit_tables(
    pairs: Sequence[CellPair], console: Console
) -> tuple[list[tuple[Sequence[str], list[list[str]]]], list[str]]:
    """Headings and figures of the errors and of S that leave a place for names; and what they go without."""
    tables, gone = [], list[str]()
    for what, dispensable in _DISPENSABLE.items():
        for number in range(len(dispensable) + 1):
            without = dispensable[:number]
            heads, found = _choose_columns(what, pairs, without)
            rows = [[_render(console, figure) for figure in row] for row in found]
            if _find_free_width(heads, rows, console.width) >= NAME_WIDTH:
                break
        tables.append((heads, rows))
        gone += [head.replace(", ", "'s ") for head in without]
    return tables, list(dict.fromkeys(gone))


def _choose_columns(
    what: str, pairs: Sequence[CellPair], without: Sequence[str]
) -> tuple[Sequence[str], list[list[str]]]:
    """Headings and figures of the errors or of S, without some."""
    heads = [head.partition(" [")[0] if _INTERVALS in without else head for head in _HEADS[what]]
    rows = (
        _error_rows(pairs) if what == "error" else _stability_rows(pairs, intervals=_INTERVALS not in without)
    )
    kept = [place for place, head in enumerate(heads) if head not in without]
    return [heads[place] for place in kept], [[row[place - 1] for place in kept[1:]] for row in rows]


def _find_free_width(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> int:
    """The columns that are left for names where all figures stand in one line."""
    taken = [max(map(display_width, column)) for column in zip(heads[1:], *rows, strict=True)]
    return width - 2 - sum(taken) - 2 * len(taken)  # two spaces between columns, one at either edge


def _build_table(heads: Sequence[str], names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="none", pad_edge=False, padding=(0, 1, 0, 0))
    for head in heads:
        table.add_column(head, justify="left" if head == heads[0] else "right", no_wrap=True)
    for name, row in zip(names, rows, strict=True):
        table.add_row(Text(name), *map(Text, row))
    return table


def _error_rows(pairs: Sequence[CellPair]) -> list[list[str]]:
    rows = []
    for pair in pairs:
        figures = [
            plus_minus(cell.error_last.mean, cell.error_last.ci95) if cell.error_last else NONE
            for cell in (pair.match.first, pair.match.second)
        ]
        rows.append([*figures, *_difference_fields(pair), _numbers(pair)])
    return rows


def _difference_fields(pair: CellPair) -> list[str]:
    error = pair.error
    if error is None:
        return [_why_uncompared(pair), ""]
    difference = plus_minus(error.difference, error.ci95, signed=True)
    return [difference, "withheld" if error.withheld else p_value(error.p_holm)]


def _why_uncompared(pair: CellPair) -> str:
    if pair.match.same and not pair.seeds:
        return "same configuration"
    return "same runs" if pair.same_runs else NONE


def _numbers(pair: CellPair) -> str:
    """The seeds of both, or the runs of each where they are not paired."""
    if pair.paired:
        return str(len(pair.seeds))
    mark = "" if pair.error is None else " *"  # which a note explains
    return f"{len(pair.match.first.seeds)}, {len(pair.match.second.seeds)}{mark}"


def _stability_rows(pairs: Sequence[CellPair], *, intervals: bool) -> list[list[str]]:
    rows = []
    for pair in pairs:
        figures = [
            _stability_of(cell, with_interval=intervals) for cell in (pair.match.first, pair.match.second)
        ]
        tested = pair.stability
        p = NONE if tested is None else "withheld" if tested.withheld else p_value(tested.p_holm)
        runs = str(tested.n) if tested else f"{len(pair.match.first.seeds)}, {len(pair.match.second.seeds)}"
        rows.append([*figures, p, runs])
    return rows


def _stability_of(cell: CellSummary, *, with_interval: bool) -> str:
    found = cell.stability
    if found is None:
        return "undefined"
    return f"{digits(found.s)} {interval(found.ci95) if with_interval else ''}".strip()


def _notes(pairs: Sequence[CellPair]) -> Iterator[str]:
    yield "Error: of the last epoch, mean over seeds ± half of its 95 % interval."
    if any(pair.paired and pair.error for pair in pairs):
        yield "n: seeds that both finished, compared seed by seed (sign-flip permutation test)."
    reasons: dict[str, list[str]] = {}
    for pair in pairs:
        if pair.error is not None and not pair.paired:
            reasons.setdefault(pair.why_unpaired, []).append(pair.match.name)
    for reason, names in reasons.items():
        whose = "" if len(names) == len(pairs) else f" ({join(names)})"
        yield f"* Not paired{whose}: {reason}. All runs of each, Welch's t test."
    untested: dict[tuple[str, str], list[str]] = {}
    for pair in pairs:
        if pair.why_no_test:
            what = "No test" if pair.error is None else "No test of S"
            untested.setdefault((what, pair.why_no_test), []).append(pair.match.name)
    for (what, reason), names in untested.items():
        whose = "" if len(names) == len(pairs) else f" for {join(names)}"
        yield f"{what}{whose}: {reason}."


# --- keys ---------------------------------------------------------------------------------------------------


def _describe_keys(found: StudyComparison, width: int) -> Iterator[str]:
    """Which keys differ between the two sides of each pair: first those that differ alike in all."""
    differing = [pair.match for pair in found.pairs if not pair.match.same]
    if not differing:
        return
    yield ""
    yield "Keys that differ, A → B:"
    common = [
        (key, values)
        for key, values in differing[0].keys.items()
        if len(differing) > 1 and all(match.keys.get(key) == values for match in differing)
    ]
    if common:
        yield from _list_keys(
            "all of them" if len(differing) == len(found.pairs) else "all others", common, width
        )
    for match in differing:
        own = [item for item in match.keys.items() if item not in common]
        if own:
            yield from _list_keys(match.name, own, width)
    same = [pair.match.name for pair in found.pairs if pair.match.same]
    if same:
        yield f"  none: {join(same)}"


def _list_keys(name: str, keys: Sequence[tuple[str, tuple[object, object]]], width: int) -> Iterator[str]:
    yield f"  {name}"
    for key, (ours, theirs) in keys[:_MOST_KEYS]:
        yield shorten(f"    {key}  {_write(ours)} → {_write(theirs)}", width - 1)
    if len(keys) > _MOST_KEYS:
        yield f"    and {count(len(keys) - _MOST_KEYS, 'more key')}; --json has all"


def _write(value: object) -> str:
    if isinstance(value, bool | int | float | tuple):
        return write_value(value)
    return NONE if value is None else str(value)


def _describe_alone(found: StudyComparison) -> Iterator[str]:
    for letter, study, names in zip("AB", (found.first, found.second), found.alone, strict=True):
        if names:
            listed = list_names([study.summary.label(name) for name in names], _MOST_NAMES)
            yield f"Only in {letter}: {listed}{'; --json has all' if len(names) > _MOST_NAMES else ''}."


# --- the document -------------------------------------------------------------------------------------------


def comparison_document(found: StudyComparison) -> dict[str, object]:
    """The document of `compare --json`."""
    return {
        "a": _study_document(found.first),
        "b": _study_document(found.second),
        "cells": [_pair_document(pair) for pair in found.pairs],
        "only_in_a": list(found.alone[0]),
        "only_in_b": list(found.alone[1]),
        "findings": list(write_comparison_findings(found)),
        "cautions": list(found.cautions),
    }


def _study_document(study: ComparedStudy) -> dict[str, object]:
    summary = study.summary
    return {
        "study": summary.sweep.name,
        "dataset": summary.sweep.dataset,
        "seeds": list(summary.sweep.seeds),
        "store": summary.store,
        "window": summary.sweep.window,
        "ddof": summary.sweep.ddof,
    }


def _pair_document(pair: CellPair) -> dict[str, object]:
    match = pair.match
    return {
        "a": _cell_document(match.first),
        "b": _cell_document(match.second),
        "matched_by": match.by,
        "same_configuration": match.same,
        "keys": {key: list(values) for key, values in match.keys.items()},
        "common_seeds": list(pair.seeds),
        "error": _comparison_document(pair.error, pair),
        "stability": _stability_document(pair.stability, pair),
    }


def _cell_document(cell: CellSummary) -> dict[str, object]:
    error, stability = cell.error_last, cell.stability
    return {
        "cell_id": cell.cell_id,
        "name": cell.name,
        "seeds": list(cell.seeds),
        "failed": list(cell.failed),
        "diverged": list(cell.diverged),
        "error_last": None
        if error is None
        else {"mean": error.mean, "sd": error.sd, "n": error.n, "ci95": _listed(error.ci95)},
        "s": None if stability is None else stability.s,
        "s_ci95": None if stability is None else _listed(stability.ci95),
    }


def _comparison_document(found: Comparison | None, pair: CellPair) -> Mapping[str, object]:
    """The difference of errors, B minus A, and how it was tested."""
    if found is None:
        return {"test": None, "reason": _why_uncompared(pair).replace(NONE, pair.why_no_test)}
    return {
        "test": "sign-flip permutation, paired by seed" if pair.paired else "Welch's t",
        **({} if pair.paired else {"unpaired_because": pair.why_unpaired}),
        "difference": found.difference,
        "ci95": _listed(found.ci95),
        "p": None if found.withheld else found.p,
        "p_holm": None if found.withheld else found.p_holm,
        "n": [found.n, found.n]
        if pair.paired
        else [len(pair.match.first.seeds), len(pair.match.second.seeds)],
        **({"reason": found.reservation} if found.reservation else {}),
    }


def _stability_document(found: Comparison | None, pair: CellPair) -> Mapping[str, object]:
    if found is None:
        return {"test": None, "reason": pair.why_no_test}
    return {
        "test": "permutation of labels within each seed",
        "a": found.reference_value,
        "b": found.value,
        "p": None if found.withheld else found.p,
        "p_holm": None if found.withheld else found.p_holm,
        "n": found.n,
        "reason": found.obstacle,
    }


def _listed(ends: tuple[float, float] | None) -> list[float] | None:
    return None if ends is None else list(ends)
