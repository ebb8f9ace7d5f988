"""The table of single runs: one row a seed and one column a cell, or the other way round."""

from collections.abc import Sequence

from hkrun.report.summary import CellSummary, Summary
from hkrun.report.table import Entry, Table, make_cell_table, make_table
from hkrun.store import Record


def tabulate_seeds(summary: Summary) -> Table:
    """The error of every run's last epoch in percent, or what became of the run.

    Seeds are its rows, but where there are more cells than seeds, cells are: a table is easier to scroll down
    than across. Two names of one configuration share its runs, so it is there once.
    """
    cells: dict[str, CellSummary] = {}
    for cell in summary.cells:
        cells.setdefault(cell.cell_id, cell)
    seeds = summary.sweep.seeds
    runs = [_describe_runs(cell, seeds) for cell in cells.values()]
    names = [cell.name for cell in cells.values()]
    if len(names) > len(seeds):
        heads = [f"Seed {seed}" for seed in seeds]
        return make_cell_table("seeds", heads, zip(names, runs, strict=True), naming=summary.columns)
    rows = [[str(seed), *entries] for seed, *entries in zip(seeds, *runs, strict=True)]
    return make_table("seeds", ["Seed", *map(summary.label, names)], rows)


def _describe_runs(cell: CellSummary, seeds: Sequence[int]) -> list[Entry]:
    finished, records = {*cell.seeds}, {record.seed: record for record in cell.records}
    return [_describe_run(cell, seed, records.get(seed), is_finished=seed in finished) for seed in seeds]


def _describe_run(cell: CellSummary, seed: int, record: Record | None, *, is_finished: bool) -> Entry:
    if is_finished and record is not None and record.error_last_pct is not None:
        return Entry(text=f"{record.error_last_pct:.2f}", value=record.error_last_pct)
    if seed in cell.diverged and record is not None:
        return Entry(text=f"diverged, epoch {record.diverged_epoch}")
    for found, what in (
        (cell.stopped, "stopped early"),
        (cell.failed, "failed"),
        (cell.untaught, "no teacher"),
    ):
        if seed in found:
            return Entry(text=what)
    return Entry(text="missing")
