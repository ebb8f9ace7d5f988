"""The verbs that train: sweep, run, teacher, resume."""

import dataclasses
from typing import TYPE_CHECKING

import click

from hkrun.cli import options
from hkrun.cli.invocation import Invocation
from hkrun.cli.outcomes import outcome_document, print_plan, print_ways_on, resume_command
from hkrun.cli.stored import find_plans
from hkrun.cli.verbs import verb
from hkrun.errors import (
    EXIT_DONE,
    DataError,
    HeldError,
    HkrunError,
    InputError,
    Interrupted,
    ResourceError,
    TrainingError,
)

if TYPE_CHECKING:
    from hkrun.plan import Shortcuts, Workers
    from hkrun.spaces import Sweep
    from hkrun.stopwatch import Stopwatch
    from hkrun.store import Store
    from hkrun.sweep import DataCheck, Outcome

_ASK_ABOVE_S = 3600.0  # what takes longer than a coffee deserves a question


@verb(
    "sweep",
    purpose="Train",
    examples=(
        ("hkrun sweep stability", "every cell with every seed, then the report"),
        ("hkrun sweep stability --dry-run", "what would run, what is there, how long it takes"),
        ("hkrun sweep stability --seeds 30", "ten more seeds per cell than the file's twenty"),
        ("hkrun sweep stability --dataset cifar10 --data ~/data", "the same question elsewhere"),
        ("hkrun sweep mine.toml loss.mu=0.5 --epochs 30", "a file of your own, two keys changed"),
        ("hkrun sweep sensitivity --search optuna", "only the runs on the axes that Optuna chooses"),
    ),
)
@click.argument("name", metavar="NAME|FILE")
@options.overrides
@options.dataset
@options.seeds
@options.epochs
@options.workers
@options.per_gpu
@options.pack
@options.search
@options.runs
@options.scheduler
@options.dry_run
@options.fail_fast
def sweep(
    invocation: Invocation,
    *,
    name: str,
    overrides: tuple[str, ...],
    dataset: str | None,
    seeds: str | None,
    epochs: str | None,
    workers: "Workers",
    per_gpu: int,
    pack: int | str | None,
    search: str | None,
    runs: int | None,
    scheduler: str | None,
    dry_run: bool,
    fail_fast: bool,
) -> int:
    """Run a search space: every cell with every seed.

    Runs that the store has are not repeated, so the same command goes on after an interruption, and only
    reports when all is done. It ends with the table of errors and stability, a report with figures, and all
    runs in MLflow.
    """
    from hkrun.spaces import load_sweep

    loaded = load_sweep(name, dataset=dataset, seeds=seeds, epochs=epochs, overrides=overrides)
    shortcuts = options.read_shortcuts(
        loaded, search=search, runs=runs, scheduler=scheduler, workers=workers, pack=pack
    )
    return _run(
        invocation,
        loaded,
        workers=dataclasses.replace(workers, per_gpu=per_gpu),
        pack=pack,
        dry_run=dry_run,
        fail_fast=fail_fast,
        shortcuts=shortcuts,
    )


@verb(
    "run",
    purpose="Train",
    examples=(
        ("hkrun run", "HKSANC on digits, seed 0"),
        ("hkrun run method=supervised --seeds 3", "the student alone, three seeds"),
        ("hkrun run --dataset mnist5k loss.lambda_2=0", "no adversarial term, on 5,000 MNIST images"),
    ),
)
@options.overrides
@options.dataset
@options.seeds
@options.epochs
@options.workers
@options.per_gpu
@options.pack
@options.dry_run
@options.fail_fast
def run(
    invocation: Invocation,
    *,
    overrides: tuple[str, ...],
    dataset: str | None,
    seeds: str | None,
    epochs: str | None,
    workers: "Workers",
    per_gpu: int,
    pack: int | str | None,
    dry_run: bool,
    fail_fast: bool,
) -> int:
    """Train one configuration, with one seed or several.

    It is the recipe of the data set with the keys that you change; `hkrun keys` lists them. The teacher is
    trained first if the store does not have it.
    """
    from hkrun.spaces import load_cell

    loaded = load_cell(dataset=dataset, seeds=seeds, epochs=epochs, overrides=overrides)
    workers = dataclasses.replace(workers, per_gpu=per_gpu)
    return _run(invocation, loaded, workers=workers, pack=pack, dry_run=dry_run, fail_fast=fail_fast)


@verb(
    "teacher",
    purpose="Train",
    examples=(
        ("hkrun teacher", "the teacher of the digits recipe"),
        ("hkrun teacher --dataset mnist5k teacher.epochs=30", "another data set, a shorter training"),
    ),
)
@options.overrides
@options.dataset
@options.workers
@options.per_gpu
def teacher(
    invocation: Invocation,
    *,
    overrides: tuple[str, ...],
    dataset: str | None,
    workers: "Workers",
    per_gpu: int,
) -> int:
    """Train the teacher of a configuration, and print its error.

    A sweep does this by itself. A teacher that the store has is not trained again, whichever sweep it was
    for.
    """
    from hkrun.cli.display import Display
    from hkrun.spaces import load_cell
    from hkrun.sweep import train_teacher

    loaded = load_cell(dataset=dataset, overrides=overrides)
    if not loaded.cells[0].cell.uses_teacher:
        raise InputError(f"{loaded.cells[0].name}: this configuration uses no teacher")
    workers = dataclasses.replace(workers, per_gpu=per_gpu)
    store, data = _open_store(invocation, loaded, workers=workers)
    invocation.resumable = "the same command"
    with Display(invocation.messages, title=f"Teacher for {loaded.title}") as display:
        record = train_teacher(
            loaded,
            store,
            data_dir=invocation.data_dir,
            workers=workers,
            observer=display,
            data=data,
        )
    invocation.resumable = None
    if invocation.as_json:
        invocation.print_document(
            {
                "teacher_id": record.teacher_id,
                "hash": record.teacher_hash,
                "error_pct": record.error_pct,
                "train_error_pct": record.train_error_pct,
                "epochs": record.epochs,
                "store": store.place,
            }
        )
    invocation.say(
        f"Teacher {record.teacher_id}: {record.error_pct:.2f} % test error, "
        f"{record.train_error_pct:.2f} % on its training images, after {record.epochs} epochs"
    )
    return EXIT_DONE


@verb(
    "resume",
    purpose="Train",
    examples=(
        ("hkrun resume", "every sweep of ./hkrun-store that is not complete"),
        ("hkrun resume stability", "that one"),
    ),
)
@click.argument("name", required=False)
@options.dataset
@options.fail_fast
def resume(invocation: Invocation, *, name: str | None, dataset: str | None, fail_fast: bool) -> int:
    """Go on with sweeps that were interrupted.

    The store knows what they were: no search space and no overrides are needed, only --data where the data
    set is not embedded. Runs continue from their newest checkpoints, and end exactly as if nothing had
    happened. All runs are made, also those that --search or --scheduler left out. A sweep whose data or files
    are missing, that does not fit here or that another driver holds is named, and the others go on.
    """
    from hkrun.plan import make_plan

    store = invocation.open_store(create=False)
    plans = find_plans(store, name, dataset)
    open_plans = [
        stored for stored in plans if make_plan(stored.sweep, store, workers=stored.workers).num_to_run
    ]
    if not open_plans:
        invocation.say("Nothing to resume: every sweep of the store is complete.")
        if invocation.as_json:
            invocation.print_document({"store": store.place, "sweeps": []})
        return EXIT_DONE
    outcomes: list[Outcome] = []
    problems: dict[str, HkrunError] = {}
    for stored in open_plans:
        try:
            outcomes.append(_execute(invocation, stored.sweep, workers=stored.workers, fail_fast=fail_fast))
        except (InputError, DataError, ResourceError, TrainingError, HeldError) as error:
            if len(open_plans) == 1:
                raise
            problems[f"{stored.sweep.name} on {stored.sweep.dataset}"] = error
            invocation.resumable = None
            invocation.say(f"hkrun: {stored.sweep.name} on {stored.sweep.dataset}: {error.message}")
    if invocation.as_json:
        document: dict[str, object] = {"store": store.place, "sweeps": list(map(outcome_document, outcomes))}
        if problems:
            document["problems"] = {name: error.problems for name, error in problems.items()}
        invocation.print_document(document)
    codes = [outcome.exit_code for outcome in outcomes]
    return max([*codes, *(error.exit_code for error in problems.values())])


def _run(
    invocation: Invocation,
    loaded: "Sweep",
    *,
    workers: "Workers",
    pack: int | str | None,
    dry_run: bool,
    fail_fast: bool,
    shortcuts: "Shortcuts | None" = None,
) -> int:
    from hkrun.cli.display import describe_duration
    from hkrun.stopwatch import Stopwatch
    from hkrun.sweep import plan_sweep

    stopwatch = Stopwatch("planning")
    plan = plan_sweep(
        loaded,
        invocation.find_store(),
        data_dir=invocation.data_dir,
        workers=workers,
        pack=pack,
        shortcuts=shortcuts,
        dry=dry_run,
    )
    if dry_run:
        if invocation.as_json:
            invocation.print_document(plan.document())
        else:
            print_plan(invocation, plan)
        return EXIT_DONE
    seconds = plan.estimate.seconds
    if seconds is not None and seconds > _ASK_ABOVE_S:
        question = f"{plan.num_to_run} runs, about {describe_duration(seconds)}. Start?"
        if not invocation.confirm(question):
            raise Interrupted("not started")
    outcome = _execute(
        invocation,
        loaded,
        workers=workers,
        pack=pack,
        fail_fast=fail_fast,
        shortcuts=shortcuts,
        stopwatch=stopwatch,
    )
    if invocation.as_json:
        invocation.print_document(outcome_document(outcome))
    return outcome.exit_code


def _execute(
    invocation: Invocation,
    loaded: "Sweep",
    *,
    workers: "Workers",
    fail_fast: bool,
    pack: int | str | None = None,
    shortcuts: "Shortcuts | None" = None,
    stopwatch: "Stopwatch | None" = None,
) -> "Outcome":
    """Runs a sweep to its end and shows what came out."""
    from hkrun.cli.display import Display
    from hkrun.sweep import run_sweep

    store, data = _open_store(invocation, loaded, workers=workers)
    # What a search or a scheduler leaves out is not in the plan: resuming would make all runs.
    again = resume_command(invocation, loaded, store)
    invocation.resumable = again if again is not None and shortcuts is None else "the same command"
    with Display(invocation.messages, title=f"{loaded.title} on {loaded.dataset}") as display:
        outcome = run_sweep(
            loaded,
            store,
            data_dir=invocation.data_dir,
            workers=workers,
            fail_fast=fail_fast,
            observer=display,
            pack=pack,
            shortcuts=shortcuts,
            data=data,
            stopwatch=stopwatch,
        )
    invocation.resumable = None

    from hkrun.report import print_summary  # seconds of imports that training need not wait for

    print_summary(outcome.summary, invocation.results)
    print_ways_on(invocation, outcome, store)
    return outcome


def _open_store(
    invocation: Invocation, loaded: "Sweep", *, workers: "Workers"
) -> "tuple[Store, DataCheck | None]":
    """The store to train into, made where there is none; but not for a data set that is not there.

    Returns:
        The store, and what the data was found to be, where it was checked for it.
    """
    from hkrun.sweep import check_cluster, check_data

    store = invocation.find_store()
    if store is not None:
        return store, None
    check_cluster(loaded, store_uri=invocation.absolute_store, data_dir=invocation.data_dir)
    data = check_data(loaded, data_dir=invocation.data_dir, workers=workers)
    return invocation.open_store(create=True), data
