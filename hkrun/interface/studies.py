"""A store and its studies, to read."""

import io
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from hkrun import store as records
from hkrun.config import nearest
from hkrun.errors import NotFoundError
from hkrun.interface.html import escape, report_table, table
from hkrun.records import Record

if TYPE_CHECKING:
    import pandas as pd

    from hkrun.plans import Plan, StoredPlan
    from hkrun.report.drawing import Figure
    from hkrun.report.study_pairing import ComparedStudy
    from hkrun.report.summary import Summary

FEW_FIGURES = 2  # of a study among other output; `Study.figures` has all


def open_store(place: str | PathLike[str]) -> "Store":
    """Opens a store to read it: a folder, a URI such as s3://bucket/prefix, or a published study.

    None is made where there is none; `hkrun.run` makes one.

    Raises:
        NotFoundError: There is no store at that place.
        StoreError: It cannot be reached or read.
    """
    return Store(records.open_store(fspath(place), create=False))


class Store:
    """What a store holds: all its runs, and the studies that they belong to.

    Attributes:
        place: How messages name it: a path from the root, or a URI without its user, password and query.
        uri: What opens it again: the same path, or the URI as it was given.
    """

    def __init__(self, files: records.Store) -> None:
        self._files = files
        self.place, self.uri = files.place, files.uri

    def studies(self, *, dataset: str | None = None) -> list["Study"]:
        """The studies that were begun, by name and data set; those on one data set alone where it is named.

        Raises:
            NotFoundError: There is none on that data set.
        """
        from hkrun.plans import find_plans

        return [Study(stored, self._files) for stored in find_plans(self._files, None, dataset)]

    def study(self, name: str, *, dataset: str | None = None) -> "Study":
        """The study of a name, as `hkrun ls` lists them; `dataset` says which where there are several.

        Raises:
            NotFoundError: There is none of that name.
            InputError: There are several, on different data sets.
        """
        from hkrun.plans import find_plan

        return Study(find_plan(self._files, name, dataset), self._files)

    def runs(self) -> pa.Table:
        """One row per run of the store, whichever study it was made for, by cell and seed."""
        return self._files.runs()

    def all_curves(self) -> pa.Table:
        """One row per run of the store and epoch; null where a run lacks a column."""
        return self._files.all_curves()

    def cell(self, cell_id: str) -> dict[str, Any]:
        """The configuration of a cell, by dotted key.

        Raises:
            NotFoundError: The store has no such cell.
        """
        known = self._files.folders("cells")
        if cell_id not in known:
            raise NotFoundError(f"{cell_id}: no such cell in {self.place}{nearest(cell_id, known)}")
        return self._files.cell(cell_id)

    def record(self, cell_id: str, seed: int) -> Record:
        """Everything that is kept of one run but its curves.

        Raises:
            NotFoundError: The store has no such run.
        """
        self.cell(cell_id)
        record = self._files.record(cell_id, seed)
        if record is None:
            seeds = ", ".join(str(known.seed) for known in self._files.records(cell_id)) or "none"
            raise NotFoundError(f"{cell_id}: no run with seed {seed} in {self.place}; seeds: {seeds}")
        return record

    def curves(self, cell_id: str, seed: int) -> pa.Table:
        """One row per epoch of one run.

        Raises:
            NotFoundError: The store has no such run.
            StoreError: It completed no epoch.
        """
        self.record(cell_id, seed)
        return self._files.curves(cell_id, seed)

    def student(self, cell_id: str, seed: int) -> bytes:
        """The weights of a run's student, as `torch.load` reads them.

        Raises:
            NotFoundError: The store has no such run.
            StoreError: It has no weights, for the run did not finish or is of a published study.
        """
        self.record(cell_id, seed)
        return self._files.student(cell_id, seed)

    def earlier_runs(self, cell_id: str, seed: int) -> list[Record]:
        """What other code had made of a run before it was made again, by the time that it began."""
        self.record(cell_id, seed)
        return self._files.earlier_runs(cell_id, seed)

    def __repr__(self) -> str:
        return f"<hkrun.Store {self.place}>"

    def _repr_html_(self) -> str:
        rows = [
            (study.name, study.dataset, str(len(study.cells)), str(len(study.seeds)), study.progress)
            for study in self.studies()
        ]
        return f"<p><b>Store</b> {escape(self.place)}</p>" + table(
            ("study", "data set", "cells", "seeds", "runs"), rows, words=2
        )


class Study:
    """One study of a store: what a search space, or a variant of it, has come to.

    What it says is read once, when it is first asked for; `store.study(name)` gives what is there by then.

    Attributes:
        name: What it is called in the store.
        dataset: The data set.
        title: The title of its search space.
        question: What it is run to find out; may be empty.
        seeds: The seeds of every cell.
        cells: The names of its cells, in the order of the search space.
        reference: The cell that others are compared with; None where none is named.
        axes: What the columns of its axes are called, by key: `lambda_3` for `loss.lambda_3`; the whole key
            where another column has that name.
    """

    def __init__(self, stored: "StoredPlan", files: records.Store, summary: "Summary | None" = None) -> None:
        from hkrun.interface.columns import name_axes

        sweep = stored.sweep
        self._stored, self._files = stored, files
        self.name, self.dataset = sweep.name, sweep.dataset
        self.title, self.question = sweep.title, sweep.question
        self.seeds, self.reference = sweep.seeds, sweep.reference
        self.cells = tuple(named.name for named in sweep.cells)
        self.axes = name_axes(sweep)
        if summary is not None:
            self.summary = summary

    @property
    def store(self) -> Store:
        """The store that it is in."""
        return Store(self._files)

    @cached_property
    def summary(self) -> "Summary":
        """All that the report says, as data: see `hkrun.report.Summary`.

        Raises:
            StoreError: Its runs cannot be read, or had teachers of different weights.
        """
        from hkrun.report import summarise

        return summarise(self._stored.sweep, self._files, world_size=self._world_size)

    def runs(self) -> pa.Table:
        """One row per cell and seed that has a record: how the run ended, its errors, what it ran on.

        `cell`, a column for each axis, then those of `Store.runs`. A configuration with two names has rows
        under both.
        """
        from hkrun.interface.columns import runs_table

        return runs_table(self._stored.sweep, self._files, world_size=self._world_size)

    def curves(self) -> pa.Table:
        """One row per cell, seed and epoch: the test error, the losses and what else was kept of it.

        `cell`, a column for each axis, then those of `Store.all_curves`. Failed and diverged runs are there
        as far as they came: `runs()` says which they are.
        """
        from hkrun.interface.columns import curves_table

        return curves_table(self._stored.sweep, self._files, world_size=self._world_size)

    def results(self) -> "Results":
        """One row per cell: errors and S with their 95 % intervals, and the difference to the reference."""
        return Results(self.summary)

    def compare(self, reference: "str | Study | None" = None) -> pa.Table:
        """Every other cell against one; or each against the cell of another study that belongs to it.

        Errors are compared by seed, on the seeds that both finished; against another study as independent
        runs where data, teacher or seeds do not agree, and `paired` is false then. S2 is compared within a
        study. p values are two-sided, `p_holm`, `s_p_holm` and `s2_p_holm` corrected over the rows. Where
        runs are missing that could turn a comparison, or nothing can be compared, `reservation` says so.

        Args:
            reference: Name or label of the cell, or a study; without it the reference of the search space.

        Raises:
            NotFoundError: There is no such cell, or the search space names no reference.
        """
        from hkrun.interface import columns
        from hkrun.report import compare_studies
        from hkrun.report.comparing import compare_with_reference
        from hkrun.report.families import Families
        from hkrun.report.ratio_comparing import compare_ratios
        from hkrun.spaces import find_cell, tell_cells

        sweep, cells = self._stored.sweep, self.summary.cells
        if isinstance(reference, Study):
            return columns.studies_table(sweep, compare_studies(reference._compared, self._compared))
        called = reference or self.reference
        labels = {cell.name: cell.label for cell in cells}
        if called is None:
            raise NotFoundError(f"{self.name}: names no reference; its cells are {tell_cells('', labels)}")
        name = find_cell(called, labels)
        if name is None:
            raise NotFoundError(f"{called}: no such cell in {self.name}; cells: {tell_cells(called, labels)}")
        cell = next(cell for cell in cells if cell.name == name)
        errors, stabilities = (
            compare_with_reference(measure, cells, cell, sweep, Families())
            for measure in ("error", "stability")
        )
        ratios = compare_ratios("s2", cells, cell, sweep, Families())
        return columns.comparisons_table(sweep, name, errors, stabilities, ratios)

    def figures(self) -> "Figures":
        """The figures of the report, those that lead it first; a notebook shows each with its caption."""
        from hkrun.report.drawing import draw_figures

        return Figures(draw_figures(self.summary))

    def report(self) -> Path | str:
        """Writes the report where it is not up to date; returns the place of report.html.

        That is a path on a local store, else a URI.

        Raises:
            StoreError: The store cannot be written, as a published study cannot.
        """
        from hkrun.report.documents import renew_report

        place = renew_report(self.summary, self._files)["report.html"]
        return place if "://" in place else Path(place)

    @property
    def progress(self) -> str:
        """How many of its runs have a result: "79/80"."""
        plan = self._plan
        return f"{plan.num_done}/{plan.num_runs}"

    @cached_property
    def _plan(self) -> "Plan":
        from hkrun.plans import make_plan

        return make_plan(
            self._stored.sweep, self._files, workers=self._stored.workers, shortcuts=self._stored.shortcuts
        )

    @property
    def _compared(self) -> "ComparedStudy":
        from hkrun.report import ComparedStudy

        return ComparedStudy(label=self.name, summary=self.summary, world_size=self._world_size)

    @property
    def _world_size(self) -> int:
        return self._stored.workers.world_size

    def __repr__(self) -> str:
        return f"<hkrun.Study {self.name} on {self.dataset}: {self.progress} runs>"

    def _repr_html_(self) -> str:
        from hkrun.report.wording import write_findings

        sweep = self._stored.sweep
        heading = f"<p><b>{escape(sweep.heading)}</b>: {self.progress} runs done"
        question = f"<br><i>{escape(sweep.subtitle)}</i>" if sweep.subtitle else ""
        findings = "".join(f"<p>{escape(sentence)}</p>" for sentence in write_findings(self.summary))
        figures = Figures(self.figures()[:FEW_FIGURES])._repr_html_()
        return f"{heading}{question}</p>{findings}{self.results()._repr_html_()}{figures}"


class Figures(list["Figure"]):
    """The figures of a study; a notebook shows each with its caption."""

    def _repr_html_(self) -> str:
        return "".join(figure._repr_html_() for figure in self)


class Results:
    """What the cells of a study came to, as a table: of a notebook, of a terminal, of Arrow, of pandas."""

    def __init__(self, summary: "Summary") -> None:
        self._summary = summary

    def to_arrow(self) -> pa.Table:
        """One row per cell, errors in percent, differences in percentage points (pp), S in pp squared."""
        from hkrun.interface.columns import results_table

        return results_table(self._summary)

    def to_pandas(self) -> "pd.DataFrame":
        """The same as a data frame."""
        found: pd.DataFrame = self.to_arrow().to_pandas()
        return found

    def __repr__(self) -> str:
        from hkrun.cli.console import PlainConsole
        from hkrun.report import print_summary

        console = PlainConsole(file=(text := io.StringIO()), width=100)
        print_summary(self._summary, console)
        return text.getvalue().strip("\n")

    def _repr_html_(self) -> str:
        from hkrun.report.ratio_tables import tabulate_s2
        from hkrun.report.result_tables import tabulate_errors, tabulate_stability

        forms = (tabulate_errors, tabulate_stability, tabulate_s2)
        tables = [tabulate(self._summary) for tabulate in forms]
        warnings = "".join(f"<li>{escape(warning)}</li>" for warning in self._summary.warnings)
        return "".join(map(report_table, tables)) + (f"<ul>{warnings}</ul>" if warnings else "")
