"""The verbs that remove: rm, gc."""

import dataclasses
import logging
import sys
from typing import TYPE_CHECKING, NamedTuple

import click

from hkrun.cli import candidates
from hkrun.cli.invocation import Invocation
from hkrun.cli.stored import find_plan
from hkrun.cli.verbs import verb
from hkrun.errors import EXIT_DONE, EXIT_INTERRUPTED, HkrunError, InputError, StoreError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hkrun.store import Store
    from hkrun.sweep import Removal
    from hkrun.tracking import MirroredStudy

logger = logging.getLogger(__name__)

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
    refused. Its experiment in MLflow goes into MLflow's trash, from which MLflow restores it. Without a
    terminal that can answer, only --yes removes.
    """
    from hkrun.sweep import find_removal, remove
    from hkrun.tracking import experiment_key

    store = invocation.open_store()
    sweep = find_plan(store, name, dataset).sweep
    mirror = _find_mirror(store, only=experiment_key(sweep))
    if dry_run:
        return _show(invocation, _Found(find_removal(sweep, store), mirror), store=store.place)
    with store.hold(store.sweep_folder(sweep.name, sweep.dataset)):
        found = find_removal(sweep, store)
        if not _confirm(invocation, _Found(found, mirror)):
            return EXIT_INTERRUPTED
        remove(store, found.within(find_removal(sweep, store)))  # others may have begun meanwhile
    return _finish(invocation, _Found(found, _remove_mirror(store, mirror)), store=store.place)


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
    finished; in MLflow the experiments of studies that are gone. Without a terminal that can answer, only
    --yes removes.
    """
    from hkrun.plans import stored_plans
    from hkrun.sweep import find_garbage, remove
    from hkrun.tracking import experiment_key

    store = invocation.open_store()
    found = find_garbage(store)
    mirror = _find_mirror(store, without=[experiment_key(plan.sweep) for plan in stored_plans(store)[0]])
    if dry_run or not (any(found.parts.values()) or mirror.studies):
        return _show(invocation, _Found(found, mirror), store=store.place)
    if not _confirm(invocation, _Found(found, mirror)):
        return EXIT_INTERRUPTED
    remove(store, found.within(find_garbage(store)))  # a study may have begun meanwhile
    return _finish(invocation, _Found(found, _remove_mirror(store, mirror)), store=store.place)


class _Mirror(NamedTuple):
    """The experiments in MLflow that go, and why MLflow does not let them; empty where it does."""

    studies: "Sequence[MirroredStudy]" = ()
    problem: str = ""


class _Found(NamedTuple):
    """What goes: of the store, and in MLflow."""

    removal: "Removal"
    mirror: _Mirror


def _find_mirror(store: "Store", *, only: str | None = None, without: "Collection[str]" = ()) -> _Mirror:
    from hkrun.tracking import find_mirrored

    try:
        return _Mirror(find_mirrored(store, only=only, without=without))
    except (StoreError, InputError) as error:
        return _Mirror(problem=_warn(error))


def _remove_mirror(store: "Store", mirror: _Mirror) -> _Mirror:
    """Puts the experiments into MLflow's trash; what goes wrong is a warning, for the store is done."""
    from hkrun.tracking import remove_mirrored

    if mirror.studies:
        try:
            remove_mirrored(store, mirror.studies)
        except (StoreError, InputError) as error:
            return _Mirror(problem=_warn(error))
    return mirror


def _warn(error: HkrunError) -> str:
    problem = f"{error.message}. What MLflow has stays: `hkrun gc` removes it once MLflow answers"
    logger.warning("%s", problem)
    return problem


def _confirm(invocation: Invocation, found: _Found) -> bool:
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


def _show(invocation: Invocation, found: _Found, *, store: str) -> int:
    if invocation.as_json:
        invocation.print_document(_document(found, store=store, removed=False))
    else:
        _print(invocation, found)
    return EXIT_DONE


def _finish(invocation: Invocation, found: _Found, *, store: str) -> int:
    if invocation.as_json:
        invocation.print_document(_document(found, store=store, removed=True))
    else:
        invocation.say(f"Removed, {_describe_bytes(found.removal.num_bytes)}.")
    return EXIT_DONE


def _print(invocation: Invocation, whole: _Found) -> None:
    found, mirror = whole
    for name, part in found.parts.items():
        if part:
            what = _WORDS[name][len(part) > 1]
            size = _describe_bytes(sum(part.values()))
            invocation.say(f"{len(part):8}  {what:48}  {size:>9}")
    for study, number in found.shared.items():
        invocation.say(f"{number} {_WORDS['runs'][number > 1]} that {study} uses stay.")
    for experiment in mirror.studies:
        invocation.say(f"MLflow's experiment {experiment.name!r} goes into the trash of {experiment.uri}.")
    if not any(found.parts.values()) and not mirror.studies:
        invocation.say("Every run, teacher and table of the store is of a study.")


def _document(whole: _Found, *, store: str, removed: bool) -> dict[str, object]:
    found, mirror = whole
    parts = {name: {"number": len(part), "bytes": sum(part.values())} for name, part in found.parts.items()}
    return {
        "store": store,
        "removed": removed,
        **parts,
        "bytes": found.num_bytes,
        "shared": dict(found.shared),
        "mlflow": {
            "experiments": [dataclasses.asdict(study) for study in mirror.studies],
            **({"problem": mirror.problem} if mirror.problem else {}),
        },
    }


def _describe_bytes(number: int) -> str:
    return f"{number / 1e6:.1f} MB" if number < 1e9 else f"{number / 1e9:.1f} GB"
