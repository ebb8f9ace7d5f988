"""The verb that sets two studies side by side: compare."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hkrun.cli import candidates
from hkrun.cli.invocation import Invocation
from hkrun.cli.stored import find_plan
from hkrun.cli.verbs import verb
from hkrun.errors import EXIT_DONE, InputError

if TYPE_CHECKING:
    from hkrun.report import ComparedStudy


@verb(
    "compare",
    purpose="Read the results",
    examples=(
        ("hkrun compare stability stability-epochs-2", "two studies of ./hkrun-store, cell by cell"),
        ("hkrun compare stability-digits stability-mnist5k", "one question on two data sets"),
        ("hkrun compare results/stability-digits stability", "a published study, and your own"),
        ("hkrun compare ../old-store:stability stability", "one study in two stores"),
        ("hkrun compare mine yours --cells 'KD=kd'", "where they call a cell by other names"),
    ),
)
@click.argument("first", metavar="A", shell_complete=candidates.studies_or_folders)
@click.argument("second", metavar="B", shell_complete=candidates.studies_or_folders)
@click.option(
    "--dataset",
    metavar="NAME",
    shell_complete=candidates.datasets,
    help="Which, where a study was run on several data sets.",
)
@click.option(
    "--cells",
    metavar="NAME=NAME",
    multiple=True,
    help="A cell of A and one of B that belong together, by name or label. Can be given several times.",
)
def compare(
    invocation: Invocation, *, first: str, second: str, dataset: str | None, cells: tuple[str, ...]
) -> int:
    """Set two studies side by side, cell by cell: errors, S, and the keys that differ.

    A and B are each a study of the store (NAME, or NAME-DATASET), one of another store (STORE:NAME), or a
    folder that `report --publish` wrote. Cells belong together by their names, their configuration or the
    values of their axes. Errors are compared seed by seed where data, teacher and seeds agree, and as
    independent runs (Welch) where they do not, which the table marks. p values are Holm's over the table.
    """
    from hkrun.report import compare_studies, comparison_document, print_comparison

    studies = [_read_study(invocation, text, dataset) for text in (first, second)]
    places = [
        (study.summary.store, study.summary.sweep.name, study.summary.sweep.dataset) for study in studies
    ]
    if places[0] == places[1]:
        raise InputError(f"{first} and {second} are one study: name two")
    found = compare_studies(*studies, cells=cells)
    if invocation.as_json:
        invocation.print_document(comparison_document(found))
    else:
        print_comparison(found, invocation.results)
    return EXIT_DONE


def _read_study(invocation: Invocation, text: str, dataset: str | None) -> "ComparedStudy":
    """The study that an argument names, with what it says.

    Raises:
        InputError: It names none, or several.
        StoreError: It cannot be read.
    """
    from hkrun.plans import stored_plans
    from hkrun.report import ComparedStudy, find_studies, summarise, summarise_study
    from hkrun.spaces import is_study_name
    from hkrun.store import open_store

    if folders := find_studies(Path(text)):
        if len(folders) > 1:
            raise InputError(f"{text}: {len(folders)} published studies; name one of them, as {folders[0]}")
        store = open_store(folders[0], create=False)
        summary, (stored,) = summarise_study(store), stored_plans(store)[0]
    else:
        place, _, name = text.rpartition(":")
        elsewhere = bool(place) and is_study_name(name)
        store = open_store(place, create=False) if elsewhere else invocation.open_store()
        stored = find_plan(store, name if elsewhere else text, dataset)
        summary = summarise(stored.sweep, store, world_size=stored.workers.world_size)
    return ComparedStudy(label=text, summary=summary, world_size=stored.workers.world_size)
