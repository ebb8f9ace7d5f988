"""Whole studies as small folders for a repository: numbers, report, figures, and an index over several.

A folder's numbers are written once; its report follows from them alone and can be written again by any later
version. Folders of a user or a machine are taken out of what the files say.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from hkrun import config
from hkrun.errors import InputError, StoreError
from hkrun.plans import EXECUTIONS_FILE, LOOKS_FILE, PLAN_FILE, STOPPED_FILE, StoredPlan, stored_plans
from hkrun.redaction import redact_text, shorten_paths
from hkrun.report.aggregation import CURVES, find_elsewhere, summarise
from hkrun.report.documents import MARKDOWN, render_markdown
from hkrun.report.json_document import summary_document
from hkrun.report.results_index import INDEX_MARK, render_index
from hkrun.report.summary import Summary
from hkrun.report.teaching import supervised
from hkrun.report.wording import first_line
from hkrun.store import (
    STUDY_FILE,
    LocalFiles,
    Record,
    Store,
    StudyContent,
    is_study_folder,
    open_store,
    restore_study,
    write_study,
)

RESULTS_FILE, INDEX_FILE = "results.json", "README.md"


def publish_study(stored: StoredPlan, store: Store, directory: Path, *, processor: str = "") -> Summary:
    """Writes a study into `directory/<study>-<dataset>/`, and the index over all studies in the directory.

    Args:
        stored: The study.
        store: Where its runs are.
        directory: Where studies are published; created where it is missing.
        processor: The processor's model, for records that do not name one.

    Returns:
        What the written numbers say.

    Raises:
        InputError: The study's folder, or the index, would replace a file that is not of a published study.
        StoreError: The store or the directory cannot be used, or the study changed while it was read.
    """
    study = collect_study(stored, store, processor=processor)
    folder = directory / study.folder.rpartition("/")[2]
    _check_place(folder)
    files = write_study(study)
    summary = summarise_study(restore_study(files, place=str(folder)))
    before = summarise(stored.sweep, store, world_size=stored.workers.world_size)
    if _figures(summary) != _figures(before):
        raise StoreError(
            f"{store.place}: the study {stored.sweep.name} changed while it was read; publish it again"
        )
    _write(folder, {**render_study(summary), **files})
    write_index(directory)
    return summary


def renew_studies(folders: Sequence[Path]) -> Iterable[tuple[Path, Summary]]:
    """Writes the reports of published studies again from their numbers; then the index beside them."""
    for folder in folders:
        summary = summarise_study(open_store(folder, create=False))
        _write(folder, render_study(summary))
        yield folder, summary
    for directory in dict.fromkeys(folder.parent for folder in folders):
        if _is_index(directory / INDEX_FILE):
            write_index(directory)


def find_studies(place: Path) -> list[Path]:
    """The folders of published studies at a place: itself, or those in it."""
    if is_study_folder(place):
        return [place]
    return sorted(path.parent for path in place.glob(f"*/{STUDY_FILE}"))


def summarise_study(store: Store) -> Summary:
    """What a published study says.

    Raises:
        StoreError: Its plan cannot be understood, runs lack what a report needs, or its cells have identities
            of another version.
    """
    plans, problems = stored_plans(store)
    if problems:
        raise StoreError("\n".join(problems.values()))
    if not plans:
        raise StoreError(f"{store.place}/{STUDY_FILE}: it has no {PLAN_FILE}")
    (stored,) = plans
    for named in stored.sweep.cells:
        cell_id = config.cell_id(named.cell, world_size=stored.workers.world_size)
        if not store.names(f"cells/{cell_id}"):
            raise StoreError(
                f"{store.place}: this version of hkrun gives the cell {named.name!r} another identity "
                f"({cell_id}) than the study has; read it with the version of its runs, or run it again"
            )
    return summarise(stored.sweep, store, world_size=stored.workers.world_size)


def render_study(summary: Summary) -> dict[str, bytes]:
    """The files that follow from a study's numbers, by name: report.md, figures as .svg, results.json."""
    document = {key: value for key, value in summary_document(summary).items() if key != "store"}
    text = json.dumps(_rounded(document), indent=1, ensure_ascii=False)
    return {**render_markdown(summary), RESULTS_FILE: f"{text}\n".encode()}


def write_index(directory: Path) -> None:
    """Writes the index of the studies in a directory, from their results.json.

    Raises:
        StoreError: A results.json is missing or cannot be understood.
    """
    documents = {folder.name: _read_results(folder) for folder in find_studies(directory)}
    try:
        index = render_index(documents)
    except (KeyError, TypeError, IndexError) as error:
        raise StoreError(
            f"{directory}: a {RESULTS_FILE} is of another version of hkrun; `hkrun report {directory}` "
            "writes them again"
        ) from error
    _write(directory, {INDEX_FILE: index})


# --- collecting ---------------------------------------------------------------------------------------------


def collect_study(stored: StoredPlan, store: Store, *, processor: str = "") -> StudyContent:
    """All that the report of a study is made from, without folders of users and machines."""
    sweep, world_size = stored.sweep, stored.workers.world_size
    cells: dict[str, Mapping[str, Any]] = {}
    names: dict[str, str] = {}
    for named in sweep.cells:
        cell_id = config.cell_id(named.cell, world_size=world_size)
        cells[cell_id] = config.canonical(named.cell, world_size=world_size)
        names.setdefault(cell_id, named.name)
    taught = [named.cell for named in sweep.cells if named.cell.uses_teacher]
    alone = {config.cell_id(supervised(cell), world_size=world_size) for cell in taught}
    elsewhere = {
        config.cell_id(named.cell, world_size=world_size): named.name for named in find_elsewhere(sweep)
    }
    compared = {**elsewhere, **names}
    records: list[Record] = []
    curves: dict[tuple[str, int], pa.Table] = {}
    for cell_id in dict.fromkeys((*names, *elsewhere, *sorted(alone))):
        for record in store.records(cell_id):
            is_compared = cell_id in compared and record.seed in sweep.seeds
            if is_compared or cell_id in alone:
                records.append(_without_folders(record, processor))
                cells.setdefault(cell_id, store.cell(cell_id))
            if is_compared and record.status != "failed" and record.epochs:
                table = store.curves(cell_id, record.seed)
                found = [name for name in CURVES if name in table.column_names]
                curves[cell_id, record.seed] = table.select(found)
    teachers = {config.teacher_id(cell.with_teacher_of(seed)) for cell in taught for seed in sweep.seeds}
    teachers |= {record.teacher_id for record in records if record.teacher_id is not None}
    trained = {name: store.teacher(name) for name in sorted(teachers)}
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    documents = (PLAN_FILE, STOPPED_FILE, EXECUTIONS_FILE, LOOKS_FILE)
    kept = [name for name in documents if name in store.names(folder)]
    return StudyContent(
        folder=folder,
        documents={name: _shorten(json.loads(store.read(folder, name))) for name in kept},
        names=compared,
        cells=cells,
        records=records,
        curves=curves,
        teachers={
            name: dataclasses.replace(record, processor=record.processor or processor)
            for name, record in trained.items()
            if record is not None
        },
    )


def _without_folders(record: Record, processor: str) -> Record:
    return dataclasses.replace(
        record,
        processor=record.processor or processor,
        traceback=_shorten(first_line(record.traceback)) if record.traceback else record.traceback,
        alarms=tuple(map(_shorten, record.alarms)),
    )


def _shorten(value: Any) -> Any:
    """A JSON value whose texts name neither absolute paths nor what URIs keep secret."""
    if isinstance(value, dict):
        return {key: _shorten(content) for key, content in value.items()}
    if isinstance(value, list):
        return [_shorten(content) for content in value]
    return shorten_paths(redact_text(value)) if isinstance(value, str) else value


# --- files --------------------------------------------------------------------------------------------------


def _figures(summary: Summary) -> object:
    """The figures of a summary, which must not depend on where its runs are kept."""
    document = summary_document(summary)
    return {
        key: document[key] for key in ("cells", "comparisons", "stability_comparisons", "claims", "teacher")
    }


def _rounded(value: Any) -> Any:
    """A JSON value with six significant digits, which arithmetic gives alike on every machine."""
    if isinstance(value, Mapping):
        return {key: _rounded(content) for key, content in value.items()}
    if isinstance(value, list):
        return [_rounded(content) for content in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _check_place(folder: Path) -> None:
    index = folder.parent / INDEX_FILE
    if folder.exists() and not is_study_folder(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"--publish: {folder} is there and is no published study; remove it, or name another folder"
        )
    if index.exists() and not _is_index(index):
        raise InputError(f"--publish: {index} is there and is no index of hkrun's; name another folder")


def _is_index(path: Path) -> bool:
    return path.is_file() and path.read_bytes().startswith(INDEX_MARK.encode())


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder; figures that a study no longer has are removed."""
    place = LocalFiles(folder.absolute())
    place.put("", files)
    if MARKDOWN in files:
        place.remove("", [path.name for path in folder.glob("*.svg") if path.name not in files])


def _read_results(folder: Path) -> Mapping[str, Any]:
    advice = f"`hkrun report {folder}` writes it again"
    try:
        document = json.loads((folder / RESULTS_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{folder / RESULTS_FILE}: cannot be read ({type(error).__name__}); {advice}"
        ) from error
    if not isinstance(document, dict):
        raise StoreError(f"{folder / RESULTS_FILE}: holds no results; {advice}")
    return document
