"""`hkrun stability`: S of error curves from anywhere."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hkrun.cli import candidates
from hkrun.cli.invocation import Invocation
from hkrun.cli.options import gather
from hkrun.cli.verbs import verb
from hkrun.errors import EXIT_DONE, InputError

if TYPE_CHECKING:
    from hkrun.curve_files import CellAnalysis, CellPair, Curves, Kind, Ratio, ReadAs, Source, Unit

logger = logging.getLogger(__name__)

_MOST_NAMED = 6  # pairs of cells, or runs, that one line names; the rest is counted


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the options of `hkrun stability` say."""

    window: int
    ddof: int
    cut: int | None
    seed: str | None
    epoch: str | None
    value: str | None
    cell: str | None
    run_names: str | None
    quantity: "Kind | None"
    unit: "Unit | None"
    mlflow: str | None
    experiment: str | None


def _column(name: str, what: str) -> Any:
    return click.option(f"--{name}", metavar="COLUMN", help=what)


@verb(
    "stability",
    purpose="Read the results",
    examples=(
        ("hkrun stability curves.csv", "S over the last 100 epochs, per cell"),
        ("hkrun stability a.csv b.parquet --window 20 --json", "two cells over the last 20, for a script"),
        ("hkrun stability log.csv --seed trial --value val_acc", "where columns have other names"),
        ("hkrun stability runs --run-names '{cell}/{seed}/val'", "TensorBoard's event files in runs/"),
        ("hkrun stability --mlflow mlflow.db --experiment lr --metric val_acc", "runs of MLflow"),
    ),
)
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE|DIR]...")
@gather(
    "choice",
    Choice,
    click.option(
        "--window",
        metavar="EPOCHS",
        type=click.IntRange(min=2),
        default=100,
        show_default=True,
        help="How many last epochs S is taken over.",
    ),
    click.option(
        "--ddof",
        metavar="0|1",
        type=click.IntRange(0, 1),
        default=0,
        show_default=True,
        help="Delta degrees of freedom of S.",
    ),
    click.option(
        "--cut",
        metavar="EPOCH",
        type=click.IntRange(min=0),
        help="End all curves there. Without it curves of different ends are refused.",
    ),
    _column("seed", "The column of seeds, else `seed`; for MLflow a parameter or tag."),
    _column("epoch", "The column of epochs or steps, else `epoch`, else `step`."),
    click.option(
        "--value",
        "--metric",
        "value",
        metavar="COLUMN|METRIC|TAG",
        help="The errors or accuracies, else `error_pct`, else the only one there is.",
    ),
    _column("cell", "The column of cells, else `cell`; for MLflow a parameter or tag."),
    click.option(
        "--run-names",
        metavar="PATTERN",
        help="How names of runs tell cell and seed, such as '{cell}-{seed}'; * is any text. Runs of other "
        "names are left out.",
    ),
    click.option(
        "--quantity",
        type=click.Choice(["error", "accuracy"]),
        help="What the values are, where neither name nor course tells it right.",
    ),
    click.option(
        "--unit",
        type=click.Choice(["percent", "fraction"]),
        help="In what they are, where neither name nor size tells it right.",
    ),
    click.option(
        "--mlflow",
        metavar="URI|PATH",
        shell_complete=candidates.paths("file"),
        help="Read runs of MLflow: a server, a database, a folder.",
    ),
    click.option("--experiment", metavar="NAME", help="With --mlflow: whose runs."),
)
def stability(invocation: Invocation, *, files: tuple[Path, ...], choice: Choice) -> int:
    """Compute and compare the stability S of error curves from anywhere.

    FILE is CSV, Parquet or JSON lines with the columns seed, epoch, error_pct and optionally cell, or with a
    column per run; or an export of W&B. DIR holds TensorBoard's event files. docs/curves.md lists all forms.
    S is eq. (10) of the HKSANC paper: the variance over the last epochs of the range of the error across
    runs. Curves that S is not defined for are refused, with every seed and epoch that is missing or wrong. S
    is ranked over the same epochs of the same seeds alone; cells whose S cannot be ranked are named.
    """
    from hkrun.curve_files import Told, analyse_cells, assemble, compare_cells

    told = Told(kind=choice.quantity, unit=choice.unit)
    found = assemble(_read_sources(files, choice), window=choice.window, cut=choice.cut, told=told)
    window, ddof = choice.window, choice.ddof
    analyses = analyse_cells(found.cells, window=window, ddof=ddof)
    pairs = compare_cells(found.cells, window=window, ddof=ddof)
    unranked = list(_warn_of_ranking(found.cells, pairs))
    warnings = [*found.doubts, *unranked]
    if invocation.as_json:
        invocation.print_document(
            {
                "cells": [_describe_cell(cell, analysis) for cell, analysis in analyses.items()],
                "comparisons": [_describe_pair(pair) for pair in pairs],
                "warnings": warnings,
                "read": [_describe_source(each) for each in found.read_as],
                "cut": choice.cut,
            }
        )
        for warning in warnings:
            logger.warning("%s", warning)
    else:
        _print_notes(invocation, [], found.doubts)  # before what they put in doubt
        _print_cells(invocation, analyses)
        notes = [_tell_source(read_as) for read_as in found.read_as]
        if choice.cut is not None:
            notes.append(f"All curves are cut at {choice.cut}.")
        notes += [_tell_extremes(analyses), *_tell_rankings(pairs)]
        _print_notes(invocation, notes, unranked)
    return EXIT_DONE


def _read_sources(files: Sequence[Path], choice: Choice) -> "list[Source]":
    """The sources that the arguments name."""
    from hkrun.curve_files import Columns, read_source

    columns = Columns(
        seed=choice.seed,
        epoch=choice.epoch,
        value=choice.value,
        cell=choice.cell,
        run_names=choice.run_names,
    )
    if choice.mlflow is None:
        if choice.experiment is not None:
            raise InputError("--experiment: an experiment of MLflow; --mlflow URI says where that is")
        if not files:
            raise InputError("name a FILE or DIR with curves, or --mlflow URI")
        for file in files:
            if not file.suffix and not file.exists():
                raise InputError(f"{file}: no such file; for a sweep of the store: hkrun report {file}")
        return [read_source(file, columns) for file in dict.fromkeys(files)]
    from hkrun.tracking import read_metric_curves

    if files:
        raise InputError(f"{files[0]}: either files, or --mlflow")
    if choice.experiment is None:
        raise InputError("--mlflow: whose runs? --experiment NAME")
    return [read_metric_curves(choice.mlflow, choice.experiment, columns)]


def _describe_cell(cell: str, analysis: "CellAnalysis") -> dict[str, object]:
    names = ("s", "ddof", "s_ddof1", "window", "runs", "mean_range", "within_run_sd", "extreme_runs", "ci95")
    return {
        "cell": cell,
        **{name: getattr(analysis.s, name) for name in names},
        "s2": {"s2": analysis.s2.s2, "ci95": analysis.s2.ci95, "pairs": analysis.s2.pairs},
        "sd_last": {"sd": analysis.last.sd, "ci95": analysis.last.ci95},
        "epochs": list(analysis.epochs),
    }


def _describe_source(read_as: "ReadAs") -> dict[str, object]:
    source, quantity = read_as.source, read_as.quantity
    return {
        "source": source.place,
        "form": source.form,
        "value": source.value or None,
        "quantity": quantity.kind,
        "quantity_from": quantity.kind_from,
        "unit": quantity.unit,
        "unit_from": quantity.unit_from,
        "steps_per_epoch": list(read_as.every),
        "runs": len(source.runs),
        "left_out": list(source.left_out),
    }


def _print_cells(invocation: Invocation, analyses: "Mapping[str, CellAnalysis]") -> None:
    from hkrun.cli.console import make_table

    some = next(iter(analyses.values()))
    runs = sorted({analysis.s.runs for analysis in analyses.values()})
    of_runs = f"of {runs[0]} runs " if len(runs) == 1 else ""
    first, last = some.epochs
    table = make_table(
        f"Stability {of_runs}over the last {some.s.window} epochs, {first} to {last}, ddof {some.s.ddof}",
        "cell",
        *(["runs"] if len(runs) > 1 else []),
        "S, pp²\n[95 % approx.]",
        "S2, pp²\n[95 %]",
        "within\na run",
        "mean\nrange",
        "sd at the\nend [95 %]",
    )
    for cell, analysis in analyses.items():
        table.add_row(
            cell,
            *([str(analysis.s.runs)] if len(runs) > 1 else []),
            _with_interval(analysis.s.s, analysis.s.ci95),
            _with_interval(analysis.s2.s2, analysis.s2.ci95),
            f"{analysis.s.within_run_sd:.2g}",
            f"{analysis.s.mean_range:.3g}",
            _with_interval(analysis.last.sd, analysis.last.ci95),
        )
    invocation.results.print(table)


def _with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    ends = "" if interval is None else "\n[{:.2g}, {:.2g}]".format(*interval)
    return f"{value:.3g}{ends}"


def _print_notes(invocation: Invocation, notes: Sequence[str], warnings: Sequence[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    lines = [(Text("  "), note) for note in notes]
    lines += [(Text(" !", style="yellow"), warning) for warning in warnings]
    for mark, line in lines:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(mark, line)
        invocation.results.print(grid)


def _tell_source(read_as: "ReadAs") -> str:
    """What a source was read as, and what told it."""
    source, quantity = read_as.source, read_as.quantity
    by = {"name": "its name", "values": "the values", "option": "you"}
    kind = {"error": "errors", "accuracy": "accuracies"}[quantity.kind]
    unit = {"percent": "percent", "fraction": "fractions"}[quantity.unit]
    if quantity.kind_from == quantity.unit_from:
        told = f"{kind} in {unit}, told by {by[quantity.kind_from]}"
    else:
        told = f"{kind}, told by {by[quantity.kind_from]}, in {unit}, told by {by[quantity.unit_from]}"
    steps = "" if read_as.every == (1,) else f"; an epoch is {' or '.join(map(str, read_as.every))} steps"
    left_out = f"; left out: {_listed(list(map(repr, source.left_out)))}" if source.left_out else ""
    value = f" {source.value}:" if source.value else ""
    return f"{source.place}: {source.form};{value} {told}{steps}{left_out}."


def _describe_pair(pair: "CellPair") -> dict[str, object]:
    return {
        "cell": pair.cell,
        "reference": pair.reference,
        "p": None if pair.s is None else pair.s.p,
        "p_holm": pair.s_p_holm,
        "reason": pair.obstacle,
        "s2": _describe_ratio(pair.s2),
        "sd_last": _describe_ratio(pair.last),
    }


def _describe_ratio(found: "Ratio") -> dict[str, object]:
    names = ("ratio", "ci95", "p", "paired")
    return {**{name: getattr(found.comparison, name) for name in names}, "p_holm": found.p_holm}


def _tell_extremes(analyses: "Mapping[str, CellAnalysis]") -> str:
    """How much of the data S looks at, and what makes it and S2 more precise."""
    numbers = sorted({analysis.s.extreme_runs for analysis in analyses.values()})
    few = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    runs = sorted({analysis.s.runs for analysis in analyses.values()})
    of = str(runs[0]) if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    return (
        f"S is made of {few} of {of} runs, those that are ever the best or the worst: a longer window makes "
        "it more precise, more seeds do not. S2, its mean over all pairs of runs, gets so with seeds too."
    )


def _tell_rankings(pairs: "Sequence[CellPair]") -> Iterator[str]:
    """What each figure ranks: a line for each of the first pairs, and how many more there are."""
    by_s = [
        f"By S, {pair.cell} is {'steadier' if pair.s.s < pair.s.s_reference else 'less steady'} than "
        f"{pair.reference}: {pair.s.s:.3g} against {pair.s.s_reference:.3g} (Holm p = {pair.s_p_holm:.2g})."
        for pair in pairs
        if pair.s is not None and pair.obstacle is None
    ]
    by_s2 = [_tell_ratio("By S2", "steadier", "less steady", pair, pair.s2) for pair in pairs]
    by_last = [
        _tell_ratio("By the sd at the end", "less spread out", "more spread out", pair, pair.last)
        for pair in pairs
    ]
    for lines in (by_s, list(filter(None, by_s2)), list(filter(None, by_last))):
        yield from lines[:_MOST_NAMED]
        if len(lines) > _MOST_NAMED:
            yield f"{lines[0].partition(',')[0]}, {len(lines) - _MOST_NAMED} more; --json has all."


def _tell_ratio(by: str, below: str, above: str, pair: "CellPair", found: "Ratio") -> str:
    """A significant ratio in a sentence; empty where it is none."""
    ratio, interval = found.comparison.ratio, found.comparison.ci95
    if not found.significant or ratio is None or interval is None:
        return ""
    return (
        f"{by}, {pair.cell} is {below if ratio < 1 else above} than {pair.reference}: {ratio:.3g} times "
        f"[{interval[0]:.3g}, {interval[1]:.3g}] (Holm p = {found.p_holm:.2g})."
    )


def _warn_of_ranking(curves: "Mapping[str, Curves]", pairs: "Sequence[CellPair]") -> Iterator[str]:
    """Which cells S and S2 cannot rank, and why, each reason once; how far verdicts of few runs hold."""
    from hkrun.curve_files import doubt_verdicts

    if len({len(found.seeds) for found in curves.values()}) > 1:
        numbers = _listed([f"{len(found.seeds)} of {cell}" for cell, found in curves.items()])
        yield f"S of different numbers of runs is not comparable, for the range grows with them: {numbers}"
    groups: dict[str, list[CellPair]] = {}
    for pair in pairs:
        alike = len(curves[pair.cell].seeds) == len(curves[pair.reference].seeds)
        if pair.obstacle is not None and alike:  # the others are told above
            groups.setdefault(pair.obstacle.partition(" (")[0], []).append(pair)
    for reason, members in groups.items():
        every = len(members) == len(pairs) > 1
        names = [f"{pair.reference} and {pair.cell}" for pair in members]
        which = f"any two of the {len(curves)} cells" if every else _listed(names, "; ")
        p_values = {pair.s_p_holm for pair in members if pair.s_p_holm is not None}
        told = f"{reason} (Holm p from {min(p_values):.2g})" if len(p_values) > 1 else members[0].obstacle
        yield f"S cannot rank {which}: {told}"
    open_ones = [pair for pair in pairs if not pair.s2.significant]
    if open_ones:
        yield f"S2 cannot rank {_listed([_tell_open(pair) for pair in open_ones], '; ')}"
    yield from (f"{doubt[0].upper()}{doubt[1:]}" for doubt in doubt_verdicts(pairs))
    if not all(pair.s2.comparison.paired for pair in pairs):
        yield "Cells of different seeds are compared by S2 and sd as independent runs, not paired by seed"


def _tell_open(pair: "CellPair") -> str:
    """Two cells that S2 leaves open, with what it excludes."""
    interval = pair.s2.comparison.ci95
    within = "it has no interval" if interval is None else "ratio {:.3g} to {:.3g}".format(*interval)
    return f"{pair.reference} and {pair.cell} ({within})"


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    more = len(names) - _MOST_NAMED
    return separator.join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
