"""The verb `export`: a run's student as files for use elsewhere."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hkrun.cli import candidates
from hkrun.cli.invocation import Invocation
from hkrun.cli.stored import find_plan
from hkrun.cli.verbs import verb
from hkrun.errors import EXIT_DONE, InputError, NotFoundError

if TYPE_CHECKING:
    from hkrun.export import Export
    from hkrun.export.exporting import Network
    from hkrun.store import Record, Store

_BY_ID = re.compile(r"(?P<cell>[0-9a-f]{12})/(?P<seed>\d+)", re.ASCII)
_BY_NAME = re.compile(r"(?P<sweep>[^:]+):(?P<cell>.+):(?P<seed>\d+)", re.ASCII)


@verb(
    "export",
    purpose="Read the results",
    examples=(
        ("hkrun export 'stability:L_b + L_is:0'", "the student of a sweep's cell and seed"),
        ("hkrun export 3f2a9c81d04e/0", "the same by the ids of `hkrun status`"),
        ("hkrun export 3f2a9c81d04e/0 --output student --json", "to a folder of your own, for a script"),
    ),
)
@click.argument("run", metavar="RUN", shell_complete=candidates.runs)
@click.option(
    "--dataset",
    metavar="NAME",
    shell_complete=candidates.datasets,
    help="Which, where the sweep was run on several data sets.",
)
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write to; ./export-CELL-SEED by default.",
)
def export(invocation: Invocation, *, run: str, dataset: str | None, output: Path | None) -> int:
    """Write a run's student as safetensors and ONNX, and compare it with its teacher.

    RUN is SWEEP:CELL:SEED, or CELL_ID/SEED. The files hold the backbone alone, without what training needed
    beside it; binary and ternary weights are packed to one and two bits. Nothing is written unless the files
    give what the network gives on the test images. Needs the packages of the extra `export`.
    """
    from hkrun.export import export_run

    store = invocation.open_store()
    record = _find_run(store, run, dataset)
    folder = output or Path(f"export-{record.cell_id}-{record.seed}")
    exported = export_run(store, record, data_dir=invocation.data_dir, output=folder)
    if invocation.as_json:
        invocation.print_document(exported.document())
    _print_export(invocation, exported)
    return EXIT_DONE


def _find_run(store: "Store", run: str, dataset: str | None) -> "Record":
    """The record of a run by one of its two names."""
    if match := _BY_ID.fullmatch(run):
        cell_id = match["cell"]
    elif match := _BY_NAME.fullmatch(run):
        cell_id = _find_cell(store, match["sweep"], match["cell"], dataset)
    else:
        raise InputError(f"{run}: name the run as SWEEP:CELL:SEED or CELL_ID/SEED; `hkrun status` lists them")
    record = store.record(cell_id, int(match["seed"]))
    if record is None:
        seeds = ", ".join(str(known.seed) for known in store.records(cell_id))
        there = f"it has the seeds {seeds}" if seeds else "it has no run of that cell"
        raise NotFoundError(f"{run}: no such run in {store.place}; {there}")
    return record


def _find_cell(store: "Store", sweep: str, name: str, dataset: str | None) -> str:
    """The id of a sweep's cell."""
    from hkrun.plans import make_plan
    from hkrun.spaces import find_cell, name_cells, tell_cells

    stored = find_plan(store, sweep, dataset)
    cells = {cell.name: cell.cell_id for cell in make_plan(stored.sweep, store, workers=stored.workers).cells}
    labels = name_cells(stored.sweep.cells).labels
    found = find_cell(name, labels)
    if found is None:
        raise NotFoundError(f"{sweep}: has no cell {name!r}; its cells are {tell_cells(name, labels)}")
    return cells[found]


def _print_export(invocation: Invocation, exported: "Export") -> None:
    """The comparison for people, what was checked, and where the files are."""
    from rich import box
    from rich.table import Table

    student, teacher = exported.student, exported.teacher
    title = f"Student {exported.cell_id}/{exported.seed} on {exported.dataset}"
    table = Table(box=box.SIMPLE, title_justify="left", title=title)
    table.add_column("")
    table.add_column("student", justify="right")
    if teacher is not None:
        table.add_column("teacher", justify="right")
        table.add_column("teacher / student", justify="right")
    networks = [network for network in (student, teacher) if network is not None]
    for label, describe in _TEXTS:
        table.add_row(label, *map(describe, networks))
    for label, measure, form in _FIGURES:
        values = [measure(network) for network in networks]
        if any(values):
            ratios = [f"{value / values[0]:.1f}" if values[0] else "" for value in values[1:]]
            table.add_row(label, *map(form.format, values), *ratios)
    invocation.results.print(table)
    check = exported.check
    invocation.say(
        f"Checked  {check.images} test images, {check.error_pct:.2f} % error: logits up to "
        f"{check.largest_logit:.3g} differ by {check.safetensors_difference:.1g} (safetensors) and "
        f"{check.onnx_difference:.1g} (ONNX), {check.onnx_changed} predictions by ONNX"
    )
    invocation.say(
        f"Latency  {exported.runtime}, one image, one thread, median of {exported.latency_rounds}: "
        f"measured ({exported.measured})"
    )
    for name, path in exported.files.items():
        invocation.say(f"{name:8} {path}")


_TEXTS: tuple[tuple[str, Callable[["Network"], str]], ...] = (
    ("network", lambda network: network.network),
    ("weights", lambda network: network.quantizer or "float32"),
    ("test error, last epoch", lambda network: f"{network.error_pct:.2f} %"),
)
_FIGURES: tuple[tuple[str, Callable[["Network"], float], str], ...] = (
    ("parameters", lambda network: network.cost.parameters, "{:,}"),
    ("  binary or ternary", lambda network: network.cost.quantised_parameters, "{:,}"),
    ("multiply-adds, one image", lambda network: network.cost.multiply_adds, "{:,}"),
    ("  binary or ternary", lambda network: network.cost.quantised_multiply_adds, "{:,}"),
    ("safetensors, bytes", lambda network: network.safetensors_bytes, "{:,}"),
    ("ONNX, bytes", lambda network: network.onnx_bytes, "{:,}"),
    ("latency, ms", lambda network: network.latency_ms, "{:.3f}"),
)
