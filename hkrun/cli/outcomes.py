"""What the verbs that train print: what is planned, what came out, and how to go on."""

import os
import shlex
from typing import TYPE_CHECKING

from hkrun.cli.invocation import DEFAULT_STORE, STORE_VARIABLE, Invocation
from hkrun.cli.mirroring import links_document

if TYPE_CHECKING:
    from hkrun.spaces import Sweep
    from hkrun.store import Store
    from hkrun.sweep import Outcome, Study


def print_plan(invocation: Invocation, study: "Study") -> None:
    """The plan for people: cells, runs, what is there, what remains, and for how long."""
    from hkrun.cli.console import make_table
    from hkrun.cli.display import describe_duration

    plan, estimate = study.plan, study.estimate
    headings = ("cell", "name", "runs", "done", "to run", "together", "workers")
    table = make_table(f"{plan.sweep.title} on {plan.sweep.dataset}", *headings)
    for cell in plan.cells:
        numbers = (cell.num_runs, cell.num_done, len(cell.to_run), plan.sizes.get(cell.cell_id, 1))
        table.add_row(cell.cell_id, cell.name, *map(str, numbers), str(cell.workers))
    invocation.results.print(table)
    invocation.say(f"{plan.num_to_run} of {plan.num_runs} runs to train, in {plan.num_trials} tasks")
    for note in plan.notes:
        invocation.say(note)
    for teacher in plan.teachers:
        together = "" if teacher.workers.alone else f", by {teacher.workers} workers"
        invocation.say(
            f"Teacher {teacher.teacher_id} ({teacher.cell.teacher.network}) to train first{together}"
        )
    for planned in plan.tables:
        invocation.say(planned.describe())
    seconds = estimate.seconds
    length = "unknown" if seconds is None else f"about {describe_duration(seconds)}"
    on_top = "; starting Ray and writing the report come on top" if seconds else ""
    invocation.say(f"Time: {length} ({estimate.basis}{on_top})")


def outcome_document(outcome: "Outcome") -> dict[str, object]:
    """What `sweep --json` prints: the summary, and where MLflow has it."""
    from hkrun.report import summary_document

    mlflow = links_document(outcome.links) if outcome.links is not None else None
    return {**summary_document(outcome.summary), "mlflow": mlflow}


def print_ways_on(invocation: Invocation, outcome: "Outcome", store: "Store") -> None:
    """Where the report is, how to open MLflow, how to go on."""
    sweep = outcome.summary.sweep
    resumed = []
    if outcome.problems or any(cell.failed for cell in outcome.summary.cells):
        resumed.append("runs again what failed")
    if outcome.left_out:
        invocation.say("")
        invocation.say(outcome.left_out)
        resumed.append("makes the runs that were left out")
    if resumed:
        again = resume_command(invocation, sweep, store) or f"hkrun resume {shlex.quote(sweep.name)}"
        onward = f"{again}   {' and '.join(resumed)}"
    elif sweep.seeds == tuple(range(len(sweep.seeds))):
        more = len(sweep.seeds) + 10
        onward = f"the sweep's command with --seeds {more} adds ten seeds per cell and repeats nothing"
    else:
        onward = "the sweep's command with more seeds adds them and repeats nothing"
    invocation.say("")
    for label, line in (
        ("Report", outcome.report["report.html"]),
        ("MLflow", f"hkrun ui{_store_option(invocation, store)}"),
        ("Go on", onward),
    ):
        invocation.say(f"{label:8} {line}")


def resume_command(invocation: Invocation, sweep: "Sweep", store: "Store") -> str | None:
    """The command that goes on with a sweep; None where it would show a password or a token."""
    data_dir = invocation.data_dir
    if isinstance(data_dir, str) and ("@" in data_dir or "?" in data_dir):
        return None
    data = "" if data_dir is None else f" --data {shlex.quote(str(data_dir))}"
    name = f"{shlex.quote(sweep.name)} --dataset {shlex.quote(sweep.dataset)}"
    return f"hkrun resume {name}{data}{_store_option(invocation, store)}"


def _store_option(invocation: Invocation, store: "Store") -> str:
    """The option that names the store again, where one is needed; never with a password."""
    default = os.environ.get(STORE_VARIABLE) or DEFAULT_STORE
    name = invocation.store_uri if store.local_path is not None else store.place
    return "" if invocation.store_uri == default else f" --store {shlex.quote(name)}"
