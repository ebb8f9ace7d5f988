"""`hkrun stability`: S of error curves from anywhere."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hkrun.cli.invocation import Invocation
from hkrun.cli.options import gather
from hkrun.cli.verbs import verb
from hkrun.errors import EXIT_DONE, InputError

if TYPE_CHECKING:
    from hkrun.curve_files import Curves, Kind, ReadAs, Source, Unit
    from hkrun.stats import Stability, StabilityComparison

logger = logging.getLogger(__name__)

# The subsets and permutations of runs behind intervals and tests of S: the same file gives the same ones.
_SEED = 0
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
    click.option("--mlflow", metavar="URI|PATH", help="Read runs of MLflow: a server, a database, a folder."),
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
    import numpy as np

    from hkrun.curve_files import Told, assemble
    from hkrun.stats import analyse_stability

    told = Told(kind=choice.quantity, unit=choice.unit)
    found = assemble(_read_sources(files, choice), window=choice.window, cut=choice.cut, told=told)
    window, ddof = choice.window, choice.ddof
    analyses = {
        cell: analyse_stability(
            curves.error_pct, window=window, ddof=ddof, generator=np.random.default_rng(_SEED)
        )
        for cell, curves in found.cells.items()
    }
    pairs = _compare_cells(found.cells, window=window, ddof=ddof)
    warnings = [*found.doubts, *_warn_of_ranking(found.cells, pairs)]
    if invocation.as_json:
        invocation.print_document(
            {
                "cells": list(_describe_cells(found.cells, analyses)),
                "comparisons": [_describe_pair(pair) for pair in pairs],
                "warnings": warnings,
                "read": [_describe_source(each) for each in found.read_as],
                "cut": choice.cut,
            }
        )
        for warning in warnings:
            logger.warning("%s", warning)
    else:
        _print_cells(invocation, found.cells, analyses)
        notes = [_tell_source(read_as) for read_as in found.read_as]
        if choice.cut is not None:
            notes.append(f"All curves are cut at {choice.cut}.")
        notes += _tell_rankings([pair for pair in pairs if pair.obstacle is None])
        _print_notes(invocation, notes, warnings)
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


def _describe_cells(
    cells: "Mapping[str, Curves]", analyses: "Mapping[str, Stability]"
) -> Iterator[dict[str, object]]:
    names = ("s", "ddof", "s_ddof1", "window", "runs", "mean_range", "ci95")
    for cell, analysis in analyses.items():
        yield {
            "cell": cell,
            **{name: getattr(analysis, name) for name in names},
            "epochs": list(_window_of(cells[cell], analysis.window)),
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


def _print_cells(
    invocation: Invocation, cells: "Mapping[str, Curves]", analyses: "Mapping[str, Stability]"
) -> None:
    from hkrun.cli.console import make_table

    some = next(iter(analyses.values()))
    table = make_table(
        f"Convergence stability S over the last {some.window} epochs, in (percentage points)²",
        *(
            "cell",
            f"S (ddof {some.ddof})",
            "approx. 95 %",
            "S (ddof 1)",
            "mean range",
            "within-run sd",
            "runs",
            "epochs",
        ),
    )
    for cell, analysis in analyses.items():
        interval = "-" if analysis.ci95 is None else f"{analysis.ci95[0]:.3g} to {analysis.ci95[1]:.3g}"
        table.add_row(
            cell,
            f"{analysis.s:.4g}",
            interval,
            f"{analysis.s_ddof1:.4g}",
            f"{analysis.mean_range:.3g}",
            f"{analysis.within_run_sd:.3g}",
            str(analysis.runs),
            "{}-{}".format(*_window_of(cells[cell], analysis.window)),
        )
    invocation.results.print(table)


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


def _window_of(found: "Curves", window: int) -> tuple[int, int]:
    """The first and the last epoch that S is taken over."""
    return found.epochs[-window], found.epochs[-1]


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Two cells, and whether S ranks them.

    Attributes:
        comparison: Their S and the test of both being equally stable; None where seeds differ.
        p_holm: Its p corrected for all pairs that are tested.
        obstacle: Why S does not rank them; None where it does.
    """

    cell: str
    reference: str
    comparison: "StabilityComparison | None" = None
    p_holm: float | None = None
    obstacle: str | None = None


def _compare_cells(curves: "Mapping[str, Curves]", *, window: int, ddof: int) -> list[_Pair]:
    """All pairs of cells; tested where their seeds are the same."""
    import numpy as np

    from hkrun.stats import compare_stability, holm, ranking_obstacle

    tested = {
        (cell, reference): compare_stability(
            curves[cell].error_pct,
            curves[reference].error_pct,
            window=window,
            ddof=ddof,
            generator=np.random.default_rng(_SEED),
        )
        for reference, cell in combinations(curves, 2)
        if curves[cell].seeds == curves[reference].seeds
    }
    corrected = dict(zip(tested, holm([each.p for each in tested.values()]), strict=True))
    pairs = []
    for reference, cell in combinations(curves, 2):
        comparison, p = tested.get((cell, reference)), corrected.get((cell, reference))
        if comparison is not None:
            obstacle = ranking_obstacle(comparison, p_holm=p)
        elif len(curves[cell].seeds) != len(curves[reference].seeds):
            obstacle = "their numbers of runs differ"
        else:
            obstacle = "their seeds differ, so no test compares them"
        pairs.append(
            _Pair(cell=cell, reference=reference, comparison=comparison, p_holm=p, obstacle=obstacle)
        )
    return pairs


def _describe_pair(pair: _Pair) -> dict[str, object]:
    return {
        "cell": pair.cell,
        "reference": pair.reference,
        "p": None if pair.comparison is None else pair.comparison.p,
        "p_holm": pair.p_holm,
        "reason": pair.obstacle,
    }


def _tell_rankings(pairs: Sequence[_Pair]) -> Iterator[str]:
    """A line for each of the first pairs that S ranks, and how many more there are."""
    for pair in pairs[:_MOST_NAMED]:
        assert pair.comparison is not None
        s, s_reference = pair.comparison.s, pair.comparison.s_reference
        word = "steadier" if s < s_reference else "less steady"
        yield (
            f"{pair.cell} is {word} than {pair.reference}: S {s:.3g} against {s_reference:.3g} "
            f"(Holm p = {pair.p_holm:.2g})."
        )
    if len(pairs) > _MOST_NAMED:
        yield f"S ranks {len(pairs) - _MOST_NAMED} more pairs; --json has all."


def _warn_of_ranking(curves: "Mapping[str, Curves]", pairs: Sequence[_Pair]) -> Iterator[str]:
    """Which cells S cannot rank, and why, each reason once."""
    if len({len(found.seeds) for found in curves.values()}) > 1:
        numbers = _listed([f"{len(found.seeds)} of {cell}" for cell, found in curves.items()])
        yield f"S of different numbers of runs is not comparable, for the range grows with them: {numbers}"
    groups: dict[str, list[_Pair]] = {}
    for pair in pairs:
        alike = len(curves[pair.cell].seeds) == len(curves[pair.reference].seeds)
        if pair.obstacle is not None and alike:  # the others are told above
            groups.setdefault(pair.obstacle.partition(" (")[0], []).append(pair)
    for reason, members in groups.items():
        every = len(members) == len(pairs) > 1
        names = [f"{pair.reference} and {pair.cell}" for pair in members]
        which = f"any two of the {len(curves)} cells" if every else _listed(names, "; ")
        p_values = {pair.p_holm for pair in members if pair.p_holm is not None}
        told = f"{reason} (Holm p from {min(p_values):.2g})" if len(p_values) > 1 else members[0].obstacle
        yield f"S cannot rank {which}: {told}"


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    more = len(names) - _MOST_NAMED
    return separator.join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
