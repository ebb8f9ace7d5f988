"""The verbs that remove: rm, gc."""

import sys
from typing import TYPE_CHECKING

import click

from hkrun.cli import candidates
from hkrun.cli.invocation import Invocation
from hkrun.cli.stored import find_plan
from hkrun.cli.verbs import verb
from hkrun.errors import EXIT_DONE, EXIT_INTERRUPTED, InputError

if TYPE_CHECKING:
    from hkrun.sweep import Removal

_WORDS = {
    "runs": ("run", "runs"),
    "checkpoints": (
        "folder of checkpoints that are no longer needed",
        "folders of checkpoints that are no longer needed",
    ),
    "rehearsals": ("rehearsal", "rehearsals"),
    "tables": ("teacher table", "teacher tables"),
    "teachers": ("teacher", "teachers"),
    "configurations": ("configuration", "configurations"),
    "leftovers": ("file of a writer that was killed", "files of writers that were killed"),
    "abandoned": ("folder of a study that is gone", "folders of studies that are gone"),
    "study": ("plan, with report and figures", "plans, with reports and figures"),
}

dry_run = click.option("--dry-run", is_flag=True, help="Only show what would go. Nothing is removed.")


@verb(
    "rm",
    purpose="Tidy the store",
    examples=(
        ("hkrun rm stability-epochs-2", "shows what would go, and asks"),
        ("hkrun rm stability-epochs-2 --yes", "does not ask"),
        ("hkrun rm stability --dataset digits --dry-run", "only shows it"),
    ),
)
@click.argument("name", metavar="STUDY", shell_complete=candidates.studies)
@click.option(
    "--dataset",
    metavar="NAME",
    shell_complete=candidates.datasets,
    help="Which, where the study was run on several data sets.",
)
@dry_run
def rm(invocation: Invocation, *, name: str, dataset: str | None, dry_run: bool) -> int:
    """Remove a study with all that no other study uses: its runs, teachers, tables, plan and report.

    Runs that another study has too, or that its report compares with, stay. A study that a driver holds is
    refused. Without a terminal that can answer, only --yes removes. MLflow's copy stays.
    """
    from hkrun.sweep import find_removal, remove

    store = invocation.open_store(create=False)
    sweep = find_plan(store, name, dataset).sweep
    if dry_run:
        return _show(invocation, find_removal(sweep, store), store=store.place)
    with store.hold(store.sweep_folder(sweep.name, sweep.dataset)):
        found = find_removal(sweep, store)
        if not _confirm(invocation, found):
            return EXIT_INTERRUPTED
        remove(store, found.within(find_removal(sweep, store)))  # others may have begun meanwhile
    return _finish(invocation, found, store=store.place)


@verb(
    "gc",
    purpose="Tidy the store",
    examples=(
        ("hkrun gc", "shows what no study uses, and asks"),
        ("hkrun gc --dry-run --json", "only shows it, for a script"),
    ),
)
@dry_run
def gc(invocation: Invocation, *, dry_run: bool) -> int:
    """Remove what no study uses: runs, teachers, tables, what kills left.

    That is what studies of earlier versions left when they were replaced, teachers that `hkrun teacher`
    trained and no study learned from, checkpoints of runs that have a result, and files that were never
    finished. Without a terminal that can answer, only --yes removes.
    """
    from hkrun.sweep import find_garbage, remove

    store = invocation.open_store(create=False)
    found = find_garbage(store)
    if dry_run or not any(found.parts.values()):
        return _show(invocation, found, store=store.place)
    if not _confirm(invocation, found):
        return EXIT_INTERRUPTED
    remove(store, found.within(find_garbage(store)))  # a study may have begun meanwhile
    return _finish(invocation, found, store=store.place)


def _confirm(invocation: Invocation, found: "Removal") -> bool:
    """Shows what would go, and asks; the answer of a script is --yes."""
    if not invocation.as_json:
        _print(invocation, found)
    if invocation.yes:
        return True
    if invocation.as_json or not sys.stdin.isatty():
        raise InputError(
            "nothing is removed: no terminal can answer here; --yes says yes, --dry-run shows it"
        )
    if click.confirm("Remove this?", default=False, err=True):
        return True
    invocation.say("Nothing is removed.")
    return False


def _show(invocation: Invocation, found: "Removal", *, store: str) -> int:
    if invocation.as_json:
        invocation.print_document(_document(found, store=store, removed=False))
    else:
        _print(invocation, found)
    return EXIT_DONE


def _finish(invocation: Invocation, found: "Removal", *, store: str) -> int:
    if invocation.as_json:
        invocation.print_document(_document(found, store=store, removed=True))
    else:
        invocation.say(f"Removed, {_describe_bytes(found.num_bytes)}.")
    return EXIT_DONE


def _print(invocation: Invocation, found: "Removal") -> None:
    for name, part in found.parts.items():
        if part:
            what = _WORDS[name][len(part) > 1]
            size = _describe_bytes(sum(part.values()))
            invocation.say(f"{len(part):8}  {what:48}  {size:>9}")
    for study, number in found.shared.items():
        invocation.say(f"{number} {_WORDS['runs'][number > 1]} that {study} uses stay.")
    if not any(found.parts.values()):
        invocation.say("Every run, teacher and table of the store is of a study.")


def _document(found: "Removal", *, store: str, removed: bool) -> dict[str, object]:
    parts = {name: {"number": len(part), "bytes": sum(part.values())} for name, part in found.parts.items()}
    return {
        "store": store,
        "removed": removed,
        **parts,
        "bytes": found.num_bytes,
        "shared": dict(found.shared),
    }


def _describe_bytes(number: int) -> str:
    return f"{number / 1e6:.1f} MB" if number < 1e9 else f"{number / 1e9:.1f} GB"
