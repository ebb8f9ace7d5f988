"""The verbs that read the store: report, status."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hkrun.cli import candidates
from hkrun.cli.invocation import Invocation
from hkrun.cli.jobs import Cluster, cluster_options, show_jobs
from hkrun.cli.mirroring import links_document
from hkrun.cli.onward import print_next, print_stopped
from hkrun.cli.options import gather
from hkrun.cli.stored import find_plan, find_plans
from hkrun.cli.verbs import OptionalNumber, verb
from hkrun.counting import name_seeds
from hkrun.errors import EXIT_DONE, EXIT_RUNS_FAILED, InputError, StoreError

if TYPE_CHECKING:
    from hkrun.plans import Begun, Plan, PlannedCell, StoredPlan
    from hkrun.report import Summary
    from hkrun.spaces import Sweep
    from hkrun.store import Store

logger = logging.getLogger(__name__)

_WATCH_EVERY_S, _WATCH_REMOTE_EVERY_S = 2, 10


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Where a study is published, and what its records may not say, as the options say it."""

    directory: Path | None
    processor: str


@verb(
    "report",
    purpose="Read the results",
    examples=(
        ("hkrun report stability", "the table, and the report's files written again"),
        ("hkrun report stability --json", "every figure for a script"),
        ("hkrun report stability --publish results", "the study as a small folder for a repository"),
        ("hkrun report stability --family all", "p values corrected over all tests of the study"),
        ("hkrun report results", "the reports of all published studies, from their own numbers"),
    ),
)
@click.argument("name", metavar="NAME|DIR", shell_complete=candidates.studies_or_folders)
@click.option(
    "--dataset",
    metavar="NAME",
    shell_complete=candidates.datasets,
    help="Which, where the sweep was run on several data sets.",
)
@click.option(
    "--family",
    type=click.Choice(("table", "all")),
    help="Correct p values over the tests of each table, or over all of the study; else as the space says.",
)
@gather(
    "publication",
    Publication,
    click.option(
        "--publish",
        "directory",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help=(
            "Write report and numbers to DIR/NAME-DATASET instead, and DIR/README.md over all studies there."
        ),
    ),
    click.option(
        "--processor",
        metavar="TEXT",
        default="",
        help="With --publish: the processor's model, for runs whose records do not name it.",
    ),
)
def report(
    invocation: Invocation,
    *,
    name: str,
    dataset: str | None,
    family: str | None,
    publication: Publication,
) -> int:
    """Write a sweep's report again from the store, and print its table.

    Nothing is trained: what is missing is named. Works while the sweep is running, and without its file. A
    report that is there is left as it is where it would say the same. Of a store that can only be read, the
    table is printed and the report not written.
    DIR is a published study or a folder of several: their reports are written from the numbers beside them.
    """
    from hkrun.report import (
        drawing_ahead,
        find_studies,
        print_summary,
        publish_study,
        remembering_statistics,
        renew_report,
        summarise,
    )

    if folders := find_studies(Path(name)):
        if (dataset, publication.directory, family) != (None, None, None):
            raise InputError(f"--dataset, --publish, --family: not with published studies, as in {name}")
        return _renew(invocation, folders)
    store = invocation.open_store()
    stored = find_plan(store, name, dataset)
    if publication.directory is not None and family is not None:
        raise InputError(
            "--family: not with --publish, whose report is computed again from the study alone; "
            f'[analysis] family = "{family}" of its search space goes along'
        )
    if publication.directory is not None:
        summary = publish_study(stored, store, publication.directory, processor=publication.processor)
        _show(invocation, summary, f"{summary.store}/report.md", store, mlflow=None)
        return _exit_code([summary])
    sweep = stored.sweep if family is None else dataclasses.replace(stored.sweep, family=family)
    with drawing_ahead(sweep, store), remembering_statistics(sweep, store):
        summary = summarise(sweep, store, world_size=stored.workers.world_size)
        try:
            place = renew_report(summary, store, with_closing=True)["report.html"]
        except StoreError:  # of a store that can only be read, the table all the same
            if not invocation.as_json:
                print_summary(summary, invocation.results)
            raise
        # Only here: to ask MLflow takes as long as all else that is done for a report that is there already.
        mlflow = _find_in_mlflow(stored.sweep, store) if invocation.as_json else None
        _show(invocation, summary, place, store, mlflow=mlflow)
    return _exit_code([summary])


def _show(
    invocation: Invocation,
    summary: "Summary",
    place: str,
    store: "Store",
    *,
    mlflow: dict[str, object] | None,
) -> None:
    """Prints a summary, where its report is, and what comes next."""
    from hkrun.report import print_summary, summary_document

    if invocation.as_json:
        invocation.print_document({**summary_document(summary), "mlflow": mlflow})
    else:
        print_summary(summary, invocation.results)
        invocation.say(f"\nReport   {place}")
        print_next(invocation, summary, store)


def _renew(invocation: Invocation, folders: "Sequence[Path]") -> int:
    """Writes the reports of published studies again; shows the one, or where the several are."""
    from hkrun.report import print_summary, renew_studies, summary_document

    summaries = []
    for folder, summary in renew_studies(folders):
        summaries.append(summary)
        if invocation.as_json:
            continue
        if len(folders) == 1:
            print_summary(summary, invocation.results)
            invocation.say("")
        invocation.say(f"Report   {folder / 'report.md'}")
    if invocation.as_json:
        documents = [{**summary_document(summary), "mlflow": None} for summary in summaries]
        invocation.print_document(documents[0] if len(documents) == 1 else {"studies": documents})
    return _exit_code(summaries)


def _exit_code(summaries: "Sequence[Summary]") -> int:
    lost = any(cell.failed or cell.diverged for summary in summaries for cell in summary.cells)
    return EXIT_RUNS_FAILED if lost else EXIT_DONE


def _find_in_mlflow(sweep: "Sweep", store: "Store") -> dict[str, object] | None:
    """Where MLflow has a sweep; None where it has not or cannot say."""
    from hkrun.tracking import find_mirror

    try:
        links = find_mirror(sweep, store)
    except StoreError as error:
        logger.warning("%s", error.message)
        return None
    return links_document(links) if links is not None else None


@verb(
    "status",
    purpose="Read the results",
    examples=(
        ("hkrun status", "every sweep of ./hkrun-store"),
        ("hkrun status stability", "one, with the epoch that each unfinished run has reached"),
        ("hkrun status stability --watch", "the same, again and again until it ends"),
        ("hkrun status --watch 30 --store s3://lab/store", "from anywhere, every 30 seconds"),
        ("hkrun status --address http://localhost:8265", "the jobs of hkrun on a cluster"),
    ),
)
@click.argument("name", required=False, metavar="[NAME|JOB]", shell_complete=candidates.studies)
@click.option("--dataset", metavar="NAME", shell_complete=candidates.datasets, help="Only on this data set.")
@click.option(
    "--watch",
    metavar="[SECONDS]",
    type=OptionalNumber(1, 3600),
    help="Look again every so many seconds, until no driver works on it; 2, or 10 where the store is remote.",
)
@cluster_options(needed=False)
def status(
    invocation: Invocation, *, name: str | None, dataset: str | None, watch: int | None, cluster: Cluster
) -> int:
    """Show what the store holds of each sweep, what its driver does, and what is missing.

    Reads the store only, so it can be asked from anywhere while a sweep runs. With --address it asks the
    cluster's job server instead.
    """
    if watch is not None and (invocation.as_json or cluster.address is not None):
        raise InputError(f"--watch: not with {'--json' if invocation.as_json else '--address'}")
    if cluster.address is not None:
        return show_jobs(invocation, name, cluster)
    store = invocation.open_store()
    if watch is not None:
        from hkrun.cli.watching import watch as watch_studies

        def look() -> list[dict[str, Any]]:
            plans = find_plans(store, name, dataset)
            return [_sweep_status(stored, store, questions=False) for stored in plans]

        every_s = watch or (_WATCH_EVERY_S if store.local_path is not None else _WATCH_REMOTE_EVERY_S)
        return watch_studies(invocation, look, every_s=every_s)
    plans = find_plans(store, name, dataset)
    sweeps = [_sweep_status(stored, store) for stored in plans]
    if invocation.as_json:
        invocation.print_document({"store": store.place, "sweeps": sweeps})
        return EXIT_DONE
    if not sweeps:
        invocation.say(f"{store.place} holds no sweep yet.")
    for stored, found in zip(plans, sweeps, strict=True):
        _print_status(invocation, stored.sweep, found)
        if found["driver"] is not None:
            from hkrun.cli.watching import describe, describe_driver

            invocation.say(f"{describe(found)} ({describe_driver(found)})")
        if found["questions"] is not None and not (found["driver"] and found["phase_detail"]):
            invocation.say(found["questions"]["about"])
        if doubt := found["other_code"]["about"]:
            invocation.say(doubt)
        if found["driver"] is None and found["to_run"]:
            print_stopped(invocation, stored.sweep, store, found["kept"])
    return EXIT_DONE


def _print_status(invocation: Invocation, sweep: "Sweep", found: Mapping[str, Any]) -> None:
    from hkrun.cli.cell_tables import print_cell_table
    from hkrun.spaces import name_cells

    rows = {
        cell["name"]: (
            cell["cell_id"],
            [
                f"{cell['done']}/{cell['runs']}",
                *(_count_seeds(cell[what]) for what in ("failed", "diverged")),
                ", ".join(_reached(cell["unfinished"])) or "-",
            ],
        )
        for cell in found["cells"]
    }
    title = f"{found['sweep']} on {found['dataset']}: {found['done']} of {found['runs']} runs done"
    headings = ("done", "failed", "diverged", "unfinished, with a checkpoint")
    print_cell_table(invocation.results, title, name_cells(sweep.cells), headings, rows)


def _sweep_status(stored: "StoredPlan", store: "Store", *, questions: bool = True) -> dict[str, Any]:
    """What is known of a study; its `questions` where they are wanted and its seeds come in rounds."""
    from hkrun.plans import find_begun, make_plan

    plan = make_plan(stored.sweep, store, workers=stored.workers, shortcuts=stored.shortcuts)
    begun = find_begun(plan, store)
    cells = [_cell_status(cell, begun) for cell in plan.cells]
    return {
        "sweep": stored.sweep.name,
        "dataset": stored.sweep.dataset,
        "runs": plan.num_runs,
        "done": plan.num_done,
        "to_run": plan.num_to_run,
        "other_code": {
            "runs": plan.num_other_code,
            "teachers": list(plan.other_teachers),
            "about": "; ".join(filter(None, (plan.describe_other_code(), plan.describe_beside()))),
        },
        "cells": cells,
        "teachers_missing": [teacher.teacher_id for teacher in plan.teachers],
        "teachers_begun": [dataclasses.asdict(teacher) for teacher in begun.teachers],
        "kept": str(begun),
        "questions": _question_status(stored, store)
        if questions and stored.shortcuts.until_decided
        else None,
        **_driver_status(plan, cells, store),
    }


def _question_status(stored: "StoredPlan", store: "Store") -> dict[str, Any]:
    from hkrun.sweep import take_look

    look = take_look(stored.sweep, store, world_size=stored.workers.world_size)
    return {"about": look.summary, "answers": look.document()}


def _driver_status(plan: "Plan", cells: Sequence[Mapping[str, Any]], store: "Store") -> dict[str, Any]:
    """What the study's driver does, as it told last; without one, how far the store says the study is."""
    holder = store.holder(store.sweep_folder(plan.sweep.name, plan.sweep.dataset))
    doing = {} if holder is None else holder.doing
    records = [record for cell in plan.distinct_cells for record in cell.records.values()]
    settled = sum(record.epochs for record in records if record.status != "failed")
    reached = {(cell["cell_id"], run["seed"]): run["epoch"] for cell in cells for run in cell["unfinished"]}
    to_run = sum(len(cell.to_run) * sum(cell.cell.stage_epochs) for cell in plan.distinct_cells)
    rest = "not running" if plan.num_to_run else "done"
    return {
        "phase": doing.get("phase", "planning") if holder is not None else rest,
        "phase_seconds": doing.get("phase_seconds"),
        "phase_detail": doing.get("detail"),
        "phase_share": doing.get("phase_share"),
        "epochs_done": doing.get("epochs_done") or settled + sum(reached.values()),
        "epochs_total": doing.get("epochs_total") or settled + to_run,
        "eta_seconds": doing.get("eta_seconds"),
        "driver": None
        if holder is None
        else {
            "pid": holder.pid,
            "host": holder.host,
            "since": holder.since,
            "beat": holder.beat,
            "alive": holder.alive,
        },
    }


def _cell_status(cell: "PlannedCell", begun: "Begun") -> dict[str, Any]:
    reached = {seed: begun.runs.get((cell.cell_id, seed)) for seed in cell.to_run}
    return {
        "cell_id": cell.cell_id,
        "name": cell.name,
        "runs": cell.num_runs,
        "done": cell.num_done,
        "other_code": list(cell.other_code),
        "failed": cell.seeds("failed"),
        "diverged": cell.seeds("diverged"),
        "unfinished": [
            {"seed": seed, "epoch": epoch, "epochs": sum(cell.cell.stage_epochs)}
            for seed, epoch in reached.items()
            if epoch is not None
        ],
    }


def _reached(unfinished: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """How far each seed is; consecutive ones that are equally far, as a pack's are, as one: 0-19 (81/120)."""
    spans: list[tuple[int, int, str]] = []
    for run in sorted(unfinished, key=lambda run: int(run["seed"])):
        seed, far = run["seed"], f"{run['epoch']}/{run['epochs']}"
        if spans and spans[-1][1:] == (seed - 1, far):
            spans[-1] = (spans[-1][0], seed, far)
        else:
            spans.append((seed, seed, far))
    return (f"{first if first == last else f'{first}-{last}'} ({far})" for first, last, far in spans)


def _count_seeds(numbers: Sequence[int]) -> str:
    """How many, and which, so that no seed reads as a number of runs: 5 (seeds 0-4)."""
    return f"{len(numbers)} ({name_seeds(numbers)})" if numbers else "-"
