"""The verbs about what there is: spaces, new, ls."""

import shlex
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hkrun.cli import candidates
from hkrun.cli.invocation import Invocation
from hkrun.cli.onward import print_stopped
from hkrun.cli.stored import find_plans
from hkrun.cli.verbs import verb
from hkrun.counting import count
from hkrun.errors import EXIT_DONE, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hkrun.plans import StoredPlan
    from hkrun.store import Store

_NARROW = 80  # columns of a terminal; in fewer, dates have no time


@verb(
    "spaces",
    purpose="Find your way",
    examples=(
        ("hkrun spaces", "what can be swept by name, with question, size and cost"),
        ("hkrun spaces --json", "the same for a script"),
    ),
)
def spaces(invocation: Invocation) -> int:
    """List the search spaces that have a name: those of ./search_spaces, and those that come with hkrun.

    The cost is what a file's header says of it; `hkrun sweep NAME --dry-run` says what it is in your store.
    """
    from hkrun.spaces import sweep_names

    found = [_describe_space(name) for name in sweep_names()]
    if invocation.as_json:
        invocation.print_document({"spaces": found})
        return EXIT_DONE
    width = max((len(space["name"]) for space in found), default=0) + 2
    for space in found:
        lines = space["problems"] or _space_lines(space)
        for line in [*lines, space["file"]] if space["own"] else lines:
            parts = textwrap.wrap(line, max(40, invocation.results.width - width), break_on_hyphens=False)
            for part in parts:
                invocation.say(f"{space.pop('name', ''):{width}}{part}")
        invocation.say("")
    invocation.say(
        "A measured cost is of the day and the machine that it names, an estimated one of 2 CPU cores.\n"
        "hkrun sweep NAME --dry-run estimates what remains here, by your store's timings where it has some.\n"
        "hkrun sweep NAME runs one; hkrun new FILE --from NAME makes one of your own of it."
    )
    return EXIT_DONE


def _space_lines(space: "Mapping[str, Any]") -> list[str]:
    """A search space for people: its question, its size, its cost."""
    from hkrun.spaces import shorten_cost

    counts = {"configuration": space["configurations"], "seed": len(space["seeds"]), "run": space["runs"]}
    configurations, num_seeds, runs = (count(number, what) for what, number in counts.items())
    lines = [
        space["question"] or space["title"],
        f"{configurations}, {num_seeds} on {space['dataset']}: {runs}",
        shorten_cost(space["cost"] or ""),
    ]
    return [line for line in lines if line]


def _describe_space(name: str) -> dict[str, Any]:
    """What `spaces --json` says of a search space; of one that has mistakes, what they are."""
    from hkrun.plans import make_plan
    from hkrun.spaces import find_sweep, is_shipped, load_sweep, read_header

    path = find_sweep(name)
    known: dict[str, Any] = {"name": name, "file": str(path), "own": not is_shipped(path)}
    try:
        sweep = load_sweep(name)
    except InputError as error:
        return {**known, "problems": error.problems}
    header, plan = read_header(path), make_plan(sweep, None)
    return {
        **known,
        "title": sweep.title,
        "question": sweep.question,
        "dataset": sweep.dataset,
        "seeds": list(sweep.seeds),
        "cells": [named.name for named in sweep.cells],
        "configurations": len(plan.distinct_cells),
        "runs": plan.num_runs,
        "command": header.get("Command"),
        "cost": header.get("Cost"),
        "problems": [],
    }


@verb(
    "new",
    purpose="Find your way",
    examples=(
        ("hkrun new mine.toml", "a search space of your own, to begin with that of table 5"),
        ("hkrun new mine.toml --from sensitivity", "with axes"),
        ("hkrun new search_spaces/mine.toml --from other.toml", "then `hkrun sweep mine` finds it here"),
    ),
)
@click.argument("file", type=click.Path(path_type=Path), shell_complete=candidates.paths("toml"))
@click.option(
    "--from",
    "origin",
    metavar="NAME|FILE",
    shell_complete=candidates.spaces,
    default="stability",
    show_default=True,
    help="The search space to start from; `hkrun spaces` lists them.",
)
def new(invocation: Invocation, *, file: Path, origin: str) -> int:
    """Write a search space to start from: a copy of another one, under a header of its own.

    A file that is there is never overwritten.
    """
    from hkrun.spaces import find_sweep, is_study_name, load_sweep, start_from

    if file.suffix != ".toml" or not is_study_name(file.stem):
        raise InputError(
            f"{file}: a search space is a .toml file, its name of letters, digits, '.', '_' and '-'"
        )
    text = start_from(find_sweep(origin), name=shlex.quote(str(file)), question=load_sweep(origin).question)
    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError:
        raise InputError(f"{file}: is there already, and is not overwritten; give another name") from None
    except FileNotFoundError:
        raise InputError(f"{file}: there is no folder {file.parent}; make it first") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be written: {error.strerror}") from error
    command = f"hkrun sweep {shlex.quote(str(file))}"
    if invocation.as_json:
        invocation.print_document({"file": str(file), "from": origin, "command": command})
        return EXIT_DONE
    invocation.say(f"{file} is written: edit title, question and cells")
    for label, line in (
        ("Keys", "hkrun keys"),
        ("Check", f"{command} --dry-run"),
        ("Run", command),
    ):
        invocation.say(f"{label:8} {line}")
    return EXIT_DONE


@verb(
    "ls",
    purpose="Read the results",
    examples=(
        ("hkrun ls", "the studies of ./hkrun-store"),
        ("hkrun ls --store s3://lab/study --json", "of another store, for a script"),
    ),
)
@click.option(
    "--dataset", metavar="NAME", shell_complete=candidates.datasets, help="Only those on this data set."
)
def ls(invocation: Invocation, *, dataset: str | None) -> int:
    """List the studies of a store: how far each is, and when its last run ended.

    A study is what a sweep or a run has left in the store, each variant of a search space by itself; `hkrun
    report NAME` shows one, `hkrun status NAME` what it lacks, `hkrun rm NAME` removes it.
    """
    store = invocation.open_store()
    plans = find_plans(store, None, dataset)
    found = [_describe_study(stored, store) for stored in plans]
    if invocation.as_json:
        invocation.print_document({"store": store.place, "studies": found})
        return EXIT_DONE
    if not found:
        invocation.say(f"{store.place} holds no study yet.")
        return EXIT_DONE
    from hkrun.cli.cell_tables import print_named_table

    narrow = invocation.results.width < _NARROW
    rows = []
    for study in found:
        ended = study["last_activity"]
        form = "%Y-%m-%d" if narrow else "%Y-%m-%d %H:%M"
        shown = "-" if ended is None else datetime.fromisoformat(ended).astimezone().strftime(form)
        figures = (
            study["dataset"],
            study["cells"],
            study["seeds"],
            f"{study['done']}/{study['runs']}",
            shown,
        )
        rows.append((study["name"], list(map(str, figures))))
    headings = ("data set", "cells", "seeds", "runs", "last run")
    print_named_table(invocation.results, headings, rows, dispensable=("cells", "seeds"))
    for stored, study in zip(plans, found, strict=True):
        if study["state"] == "running":
            invocation.say(f"{study['name']} on {study['dataset']}: a driver works on it")
        if study["state"] == "stopped":
            print_stopped(invocation, stored.sweep, store, study["kept"])
    return EXIT_DONE


def _describe_study(stored: "StoredPlan", store: "Store") -> dict[str, Any]:
    """What `ls --json` says of a study; `last_activity` is when the newest of its runs ended, in UTC."""
    from hkrun.plans import find_begun, make_plan

    plan = make_plan(stored.sweep, store, workers=stored.workers, shortcuts=stored.shortcuts)
    missing = bool(plan.num_to_run)
    works = missing and store.holder(store.sweep_folder(stored.sweep.name, stored.sweep.dataset)) is not None
    records = [record for cell in plan.cells for record in cell.records.values()]
    ended = max((record.started_at + record.timings.get("total", 0.0) for record in records), default=None)
    return {
        "name": stored.sweep.name,
        "dataset": stored.sweep.dataset,
        "title": stored.sweep.title,
        "cells": len(plan.cells),
        "seeds": len(stored.sweep.seeds),
        "runs": plan.num_runs,
        "done": plan.num_done,
        "state": "running" if works else "stopped" if missing else "done",
        "kept": str(find_begun(plan, store)) if missing else None,
        "last_activity": None
        if ended is None
        else datetime.fromtimestamp(ended, tz=UTC).isoformat(timespec="seconds"),
    }
