"""The table of single runs: one row a seed, one column a cell."""

from hkrun.report.summary import CellSummary, Summary
from hkrun.report.table import Entry, Field, Table, make_table


def tabulate_seeds(summary: Summary) -> Table:
    """The error of every run's last epoch in percent, or what became of the run.

    Two names of one configuration share its runs, so it has one column.
    """
    cells: dict[str, CellSummary] = {}
    for cell in summary.cells:
        cells.setdefault(cell.cell_id, cell)
    errors = {
        cell.cell_id: {record.seed: record.error_last_pct for record in cell.records}
        for cell in cells.values()
    }
    rows: list[list[Field]] = [
        [str(seed), *(_describe_run(cell, seed, errors[cell.cell_id].get(seed)) for cell in cells.values())]
        for seed in summary.sweep.seeds
    ]
    return make_table("seeds", ["Seed", *(summary.label(cell.name) for cell in cells.values())], rows)


def _describe_run(cell: CellSummary, seed: int, error_pct: float | None) -> Entry:
    if seed in cell.seeds and error_pct is not None:
        return Entry(text=f"{error_pct:.2f}", value=error_pct)
    diverged = {record.seed: record.diverged_epoch for record in cell.records}
    if seed in cell.diverged:
        return Entry(text=f"diverged, epoch {diverged[seed]}")
    for found, what in (
        (cell.stopped, "stopped early"),
        (cell.failed, "failed"),
        (cell.untaught, "no teacher"),
    ):
        if seed in found:
            return Entry(text=what)
    return Entry(text="missing")
