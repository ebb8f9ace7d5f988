"""Aggregates the runs of a sweep into a summary: which of them are data, and how they compare."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hkrun import config, stats
from hkrun.config import Cell
from hkrun.datasets import find_dataset
from hkrun.errors import StoreError
from hkrun.plans import Looks, load_executions, load_looks, load_stopped
from hkrun.records import DISCRIMINATOR_COLUMNS, Record
from hkrun.report.cautions import write_warnings
from hkrun.report.code_warnings import write_code_warnings
from hkrun.report.comparing import ON, OVER, make_generator
from hkrun.report.concluding import conclude
from hkrun.report.divergence import write_divergence
from hkrun.report.error_curves import ErrorCurves
from hkrun.report.kept_statistics import remembering_statistics
from hkrun.report.monitoring import monitor
from hkrun.report.picturing import order_ahead
from hkrun.report.published import load_published
from hkrun.report.summary import PERCENT, CellSummary, Curve, Summary
from hkrun.report.teaching import read_teachers
from hkrun.report.variance import split_variance
from hkrun.spaces import NamedCell, Sweep, name_cells
from hkrun.store import CellRuns, RunCurves, Store

if TYPE_CHECKING:
    from hkrun.figures import Order

# The columns of the curves that a report is made from.
_FIGURES = ("error_pct", *DISCRIMINATOR_COLUMNS)
CURVES = ("epoch", *_FIGURES)
_RUNS_AT_ONCE = 128  # whose curves are added up together


def summarise(sweep: Sweep, store: Store, *, world_size: int = 1) -> Summary:
    """Reads what the store holds of a sweep, and computes what it says. The same runs give the same numbers.

    `world_size`, workers per run, is part of a cell's identity without synchronised BatchNorm.

    Raises:
        StoreError: Runs with one configuration of the teacher had teachers of different weights, or the
            curves of a finished run are incomplete.
    """
    with remembering_statistics(sweep, store):
        return _summarise(sweep, store, world_size=world_size)


def _summarise(sweep: Sweep, store: Store, *, world_size: int) -> Summary:
    looks = load_looks(store, sweep)
    cells, quantum = _summarise_cells(sweep, store, looks, world_size=world_size)
    published = load_published()
    data = Summary(
        sweep=sweep,
        store=store.place,
        cells=cells,
        teachers=read_teachers(sweep, cells, store, world_size=world_size),
        quantum_pct=quantum,
        executions=load_executions(store, sweep),
        variance=split_variance(cells, sweep),
        measure=published.measure_of(sweep),
        monitoring=monitor(looks, sweep.seeds),
    )
    order_ahead(functools.partial(_order_known, data))
    elsewhere = _summarise_elsewhere(sweep, store, looks, world_size=world_size)
    summary = conclude(data, elsewhere, published)
    warnings = (*write_divergence(summary), *write_warnings(summary), *write_code_warnings(summary))
    return replace(summary, warnings=warnings)


def _order_known(data: Summary) -> "list[Order]":
    """The pictures that no test changes: they are drawn while tests are computed."""
    from hkrun.report import drawing

    return drawing.order_pictures(drawing.draw_figures(data))


# --- cells --------------------------------------------------------------------------------------------------


def _summarise_cells(
    sweep: Sweep, store: Store, looks: Looks, *, world_size: int
) -> tuple[tuple[CellSummary, ...], float | None]:
    """The cells of a sweep, and what one test image is worth."""
    ids = [config.cell_id(named.cell, world_size=world_size) for named in sweep.cells]
    wanted = frozenset(sweep.seeds)
    runs = {cell_id: store.cell_runs(cell_id) for cell_id in dict.fromkeys(ids)}
    records = {
        cell_id: tuple(record for record in found.read_records(collect=True) if record.seed in wanted)
        for cell_id, found in runs.items()
    }
    quantum = _quantum(
        sweep.dataset, (record.error_last_pct for found in records.values() for record in found)
    )
    stopped: dict[str, list[int]] = {}
    for run in load_stopped(store, sweep):
        stopped.setdefault(run.cell_id, []).append(run.seed)
    labels = name_cells(sweep.cells).labels
    cells = tuple(
        _summarise_cell(
            named,
            cell_id,
            sweep,
            store,
            label=labels[named.name],
            runs=runs[cell_id],
            records=records[cell_id],
            stopped=stopped.get(cell_id, ()),
            looks=looks,
            quantum_pct=quantum,
        )
        for named, cell_id in zip(sweep.cells, ids, strict=True)
    )
    return cells, quantum


def _summarise_elsewhere(
    sweep: Sweep, store: Store, looks: Looks, *, world_size: int
) -> dict[str, CellSummary]:
    """The cells of other data sets that the sweep's claims need, by their names."""
    wanted: dict[str, list[NamedCell]] = {}
    for named in find_elsewhere(sweep):
        wanted.setdefault(named.cell.dataset, []).append(named)
    found: dict[str, CellSummary] = {}
    for dataset, cells in wanted.items():
        there = replace(sweep, dataset=dataset, cells=tuple(cells))
        summaries, _ = _summarise_cells(there, store, looks, world_size=world_size)
        found |= {summary.name: summary for summary in summaries}
    return found


def find_elsewhere(sweep: Sweep) -> list[NamedCell]:
    """The cells of claims that compare this data set with others, by "NAME on DATASET".

    On another data set a cell is the same configuration but for that: with another recipe it is none.
    """
    names = {
        part
        for claim in load_published().claims_on(sweep)
        if sweep.dataset in claim.datasets
        for pair in claim.pairs
        for side in pair
        for part in side.split(OVER)
    }
    here = {named.name: named.cell for named in sweep.cells}
    return [
        NamedCell(name=name, cell=replace(here[row], dataset=dataset))
        for name in sorted(names)
        for row, _, dataset in [name.partition(ON)]
        if row in here
    ]


def _summarise_cell(
    named: NamedCell,
    cell_id: str,
    sweep: Sweep,
    store: Store,
    *,
    label: str,
    runs: CellRuns,
    records: tuple[Record, ...],
    stopped: Sequence[int],
    looks: Looks,
    quantum_pct: float | None,
) -> CellSummary:
    finished = [record for record in records if record.status == "finished"]
    epochs, first = named.cell.student.epochs, sum(named.cell.stage_epochs[:-1])
    top5 = [record.error_top5_last_pct for record in finished if record.error_top5_last_pct is not None]
    diverged = [record for record in records if record.status == "diverged"]
    curves = _read_curves(
        runs,
        [record.seed for record in finished],
        [record.seed for record in diverged if record.epochs > first],
        first=first,
        epochs=epochs,
    )
    if curves.incomplete is not None:
        raise StoreError(
            f"{store.place}/{store.run_folder(cell_id, curves.incomplete)}: the run is finished, but its "
            f"curves do not have {first + epochs} epochs of errors; remove the folder and run the sweep again"
        )
    errors, health = curves.errors, curves.health
    results = {record.seed for record in records if record.status != "failed"}
    missing = sorted(set(sweep.seeds) - {record.seed for record in records})
    untaught = _find_untaught(named.cell, missing, store)
    plan = looks.plan_of(len(sweep.seeds))
    spared = missing if plan is not None and cell_id in plan.decided else []
    summary = CellSummary(
        cell_id=cell_id,
        name=named.name,
        label=label,
        cell=named.cell,
        records=records,
        seeds=tuple(record.seed for record in finished),
        failed=tuple(record.seed for record in records if record.status == "failed"),
        diverged=tuple(record.seed for record in diverged),
        missing=tuple(seed for seed in missing if seed not in {*untaught, *spared}),
        untaught=untaught,
        stopped=tuple(seed for seed in sweep.seeds if seed in stopped and seed not in results),
        error_pct=ErrorCurves.of(errors, num_images=round(100 / quantum_pct) if quantum_pct else None),
        diverged_curves=curves.diverged,
        error_last=stats.summarise_errors(errors[:, -1], bounds=PERCENT) if finished else None,
        error_best=stats.summarise_errors(errors.min(axis=1), bounds=PERCENT) if finished else None,
        stability=None,
        pair_stability=None,
        undefined=None,
        deviation=stats.analyse_deviation(errors[:, -1]) if finished else None,
        error_top5=stats.summarise_errors(top5, bounds=PERCENT) if top5 else None,
        health=health,
        spared=tuple(seed for seed in spared if seed not in untaught),
        monitoring=monitor(looks, sweep.seeds),
    )
    if summary.selection:
        return _without_inference(summary)
    undefined = _undefined(len(finished), epochs, sweep.window)
    if undefined:
        return replace(summary, undefined=undefined)
    late = errors[:, -sweep.window :]
    stability = stats.analyse_stability(
        late,
        window=sweep.window,
        ddof=sweep.ddof,
        generator=make_generator("interval of S", cell_id),
        quantum_pct=quantum_pct,
    )
    pairs = stats.analyse_pair_stability(late, window=sweep.window, ddof=sweep.ddof)
    return replace(summary, stability=stability, pair_stability=pairs)


def _find_untaught(cell: Cell, missing: Sequence[int], store: Store) -> tuple[int, ...]:
    """Those of the seeds without a run whose own teacher diverged."""
    if not cell.has_teachers:
        return ()
    ids = {seed: config.teacher_id(cell.with_teacher_of(seed)) for seed in missing}
    return tuple(seed for seed, identity in ids.items() if store.diverged_teacher(identity) is not None)


def _without_inference(summary: CellSummary) -> CellSummary:
    """A cell whose finished runs were selected: means as they are, no interval, no S."""
    last, best, top5 = (
        replace(errors, ci95=None) if errors else None
        for errors in (summary.error_last, summary.error_best, summary.error_top5)
    )
    return replace(
        summary,
        error_last=last,
        error_best=best,
        error_top5=top5,
        undefined=summary.selection,
        deviation=None,
    )


@dataclass(frozen=True, kw_only=True)
class _Curves:
    """Of the last stage of a cell's runs.

    Attributes:
        errors: Of the finished runs, shape [runs, epochs].
        health: The discriminator's figures where all finished runs have them.
        diverged: The errors of the diverged runs.
        incomplete: The seed of a finished run that does not have all errors.
    """

    errors: Curve
    health: dict[str, stats.Spread]
    diverged: tuple[Curve, ...]
    incomplete: int | None


def _read_curves(
    runs: CellRuns, finished: Sequence[int], diverged: Sequence[int], *, first: int, epochs: int
) -> _Curves:
    """The curves from the epoch after the `first` on.

    No more is held than the errors, and what some hundred runs have besides.
    """
    rows = {seed: row for row, seed in enumerate(finished)}
    errors = np.empty((len(rows), epochs))
    health = {name: stats.SpreadSum(epochs) for name in DISCRIMINATOR_COLUMNS} if rows else {}
    lost: list[Curve] = []
    waiting: list[RunCurves] = []

    def add_up() -> None:
        for name in [name for name in health if not all(name in run.figures for run in waiting)]:
            del health[name]
        for name, spread in health.items():
            if waiting:
                spread.add_all(np.stack([run.figures[name][first:] for run in waiting]))
        waiting.clear()

    for seed, run in runs.each_curves([*finished, *diverged], _FIGURES, collect=True):
        error_pct = run.figures["error_pct"]
        if seed not in rows:
            lost.append(error_pct[first:].copy())
            continue
        if run.epochs != first + epochs or not np.isfinite(error_pct).all():
            return _Curves(errors=errors, health={}, diverged=(), incomplete=seed)
        errors[rows[seed]] = error_pct[first:]
        waiting.append(run)
        if len(waiting) == _RUNS_AT_ONCE:
            add_up()
    add_up()
    return _Curves(
        errors=errors,
        health={name: spread.read() for name, spread in health.items()},
        diverged=tuple(lost),
        incomplete=None,
    )


def _undefined(runs: int, epochs: int, window: int) -> str | None:
    if runs < 2:
        return f"S is the variance of a range over runs: it needs two finished runs, not {runs}"
    if epochs < window:
        return f"S is taken over the last {window} epochs, and the runs have {epochs}"
    return None


def _quantum(dataset: str, errors_pct: Iterable[float | None]) -> float | None:
    """What one test image is worth, in percentage points.

    The number of test images is the data set's: errors alone are shares k / n of it, but may have a divisor
    in common. None before the first error, where the number is not known, and where the errors are no shares
    of it.
    """
    num_test = find_dataset(dataset).num_test
    if num_test is None:
        return None
    counts = [error / 100 * num_test for error in errors_pct if error is not None]
    whole = all(abs(count - round(count)) < 1e-6 for count in counts)
    return 100 / num_test if counts and whole else None
