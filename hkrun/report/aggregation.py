"""Aggregates the runs of a sweep into a summary: which of them are data, and how they compare."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

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
from hkrun.report.monitoring import monitor
from hkrun.report.published import load_published
from hkrun.report.summary import PERCENT, CellSummary, Curve, Summary
from hkrun.report.teaching import read_teachers
from hkrun.report.variance import split_variance
from hkrun.spaces import NamedCell, Sweep, name_cells
from hkrun.store import Store

# The columns of the curves that a report is made from.
CURVES = ("epoch", "error_pct", *DISCRIMINATOR_COLUMNS)


def summarise(sweep: Sweep, store: Store, *, world_size: int = 1) -> Summary:
    """Reads what the store holds of a sweep, and computes what it says. The same runs give the same numbers.

    `world_size`, workers per run, is part of a cell's identity without synchronised BatchNorm.

    Raises:
        StoreError: Runs with one configuration of the teacher had teachers of different weights, or the
            curves of a finished run are incomplete.
    """
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
    elsewhere = _summarise_elsewhere(sweep, store, looks, world_size=world_size)
    summary = conclude(data, elsewhere, published)
    warnings = (*write_divergence(summary), *write_warnings(summary), *write_code_warnings(summary))
    return replace(summary, warnings=warnings)


# --- cells --------------------------------------------------------------------------------------------------


def _summarise_cells(
    sweep: Sweep, store: Store, looks: Looks, *, world_size: int
) -> tuple[tuple[CellSummary, ...], float | None]:
    """The cells of a sweep, and what one test image is worth."""
    ids = [config.cell_id(named.cell, world_size=world_size) for named in sweep.cells]
    wanted = frozenset(sweep.seeds)
    records = {
        cell_id: tuple(record for record in store.records(cell_id) if record.seed in wanted)
        for cell_id in dict.fromkeys(ids)
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
    records: tuple[Record, ...],
    stopped: Sequence[int],
    looks: Looks,
    quantum_pct: float | None,
) -> CellSummary:
    finished = [record for record in records if record.status == "finished"]
    epochs, first = named.cell.student.epochs, sum(named.cell.stage_epochs[:-1])
    errors, health = _read_finished(store, finished, first=first, epochs=epochs)
    top5 = [record.error_top5_last_pct for record in finished if record.error_top5_last_pct is not None]
    diverged = [record for record in records if record.status == "diverged"]
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
        error_pct=errors,
        diverged_curves=tuple(
            table["error_pct"].to_numpy()[first:]
            for table in _read_curves(store, [record for record in diverged if record.epochs > first])
        ),
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
    stability = stats.analyse_stability(
        errors,
        window=sweep.window,
        ddof=sweep.ddof,
        generator=make_generator("interval of S", cell_id),
        quantum_pct=quantum_pct,
    )
    pairs = stats.analyse_pair_stability(errors, window=sweep.window, ddof=sweep.ddof)
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


def _read_finished(
    store: Store, finished: Sequence[Record], *, first: int, epochs: int
) -> tuple[Curve, dict[str, stats.Spread]]:
    """The last stage's epochs of all runs: the errors, and the health where all runs have it.

    One run after another is read, so that no more is held than the errors, shape [runs, epochs].
    """
    errors = np.empty((len(finished), epochs))
    health = {name: stats.SpreadSum(epochs) for name in DISCRIMINATOR_COLUMNS} if finished else {}
    for row, (record, table) in enumerate(zip(finished, _read_curves(store, finished), strict=True)):
        if len(table) != first + epochs or not np.isfinite(table["error_pct"].to_numpy()).all():
            folder = f"{store.place}/{store.run_folder(record.cell_id, record.seed)}"
            raise StoreError(
                f"{folder}: the run is finished, but its curves do not have {first + epochs} epochs of "
                "errors; remove the folder and run the sweep again"
            )
        errors[row] = table["error_pct"].to_numpy()[first:]
        health = {name: spread for name, spread in health.items() if name in table.column_names}
        for name, spread in health.items():
            spread.add(table[name].to_numpy(zero_copy_only=False)[first:])
    return errors, {name: spread.read() for name, spread in health.items()}


def _read_curves(store: Store, records: Sequence[Record]) -> Iterator[pa.Table]:
    runs = [(record.cell_id, record.seed) for record in records]
    for table in store.each_curves(runs, columns=CURVES):
        yield table.sort_by("epoch")


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
