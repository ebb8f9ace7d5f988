"""The verbs that train: sweep, run, teacher, resume."""

import dataclasses
import importlib.util
import os
import shlex
from typing import TYPE_CHECKING

import click

from hkrun.cli.invocation import DEFAULT_STORE, STORE_VARIABLE, Invocation
from hkrun.cli.mirroring import links_document
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
    from hkrun.plan import Plan, Shortcuts, Workers
    from hkrun.spaces import Sweep
    from hkrun.stopwatch import Stopwatch
    from hkrun.store import Store
    from hkrun.sweep import Outcome

_ASK_ABOVE_S = 3600.0  # what takes longer than a coffee deserves a question

_overrides = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
_dataset = click.option("--dataset", metavar="NAME", help="Data set; its recipe comes with it.")
_seeds = click.option("--seeds", metavar="N|A,B,C", help="How many seeds (0..N-1), or which.")
_epochs = click.option("--epochs", metavar="E", help="Epochs of the student; the schedule scales with them.")


class WorkersOption(click.ParamType["Workers"]):
    """What `--workers` takes."""

    name = "workers"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> "Workers":
        """Reads what was typed."""
        from hkrun.plan import Workers

        if isinstance(value, Workers):
            return value
        try:
            return Workers.parse(str(value))
        except InputError:
            self.fail(f"{value!r} is neither auto, nor a number from 1, nor MIN:MAX.", param, ctx)


_workers = click.option(
    "--workers",
    metavar="auto|N|MIN:MAX",
    type=WorkersOption(),
    default="auto",
    show_default=True,
    help="Processes that train one run together, data-parallel. MIN:MAX: as many as have room, fewer when "
    "some are lost. auto: runs on imagenet take all there are, others one.",
)
_per_gpu = click.option(
    "--per-gpu",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that share a GPU, where each trains runs of its own.",
)


class PackSize(click.ParamType[object]):
    """A number from 1, or "auto"."""

    name = "pack"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Reads what was typed."""
        if value == "auto":
            return "auto"
        if not str(value).isdecimal() or int(str(value)) < 1:
            self.fail(f"{value!r} is neither a number from 1 nor 'auto'.", param, ctx)
        return int(str(value))


_pack = click.option(
    "--pack",
    metavar="K|auto",
    type=PackSize(),
    help="How many seeds of a cell train together as one network. auto: the fastest, as measured once on "
    "this machine. Without it: as the sweep was begun, else as its recipe has measured.",
)
_fail_fast = click.option("--fail-fast", is_flag=True, help="Stop at the first run that fails.")


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
@_overrides
@_dataset
@_seeds
@_epochs
@_workers
@_per_gpu
@_pack
@click.option(
    "--search",
    type=click.Choice(["optuna"]),
    help="Let Optuna choose which runs on the axes are made, instead of making all.",
)
@click.option(
    "--runs",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --search: how many runs on the axes. Without it one per point.",
)
@click.option(
    "--scheduler",
    type=click.Choice(["asha"]),
    help="End runs on the axes early that fall behind; they are in no statistics.",
)
@click.option("--dry-run", is_flag=True, help="Only show the plan. Nothing is written.")
@_fail_fast
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
    shortcuts = _read_shortcuts(
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
@_overrides
@_dataset
@_seeds
@_epochs
@_workers
@_per_gpu
@_pack
@click.option("--dry-run", is_flag=True, help="Only show the plan. Nothing is written.")
@_fail_fast
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
@_overrides
@_dataset
@_workers
@_per_gpu
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
    store, checked = _open_store(invocation, loaded, workers=workers)
    invocation.resumable = "the same command"
    with Display(invocation.messages, title=f"Teacher for {loaded.title}") as display:
        record = train_teacher(
            loaded,
            store,
            data_dir=invocation.data_dir,
            workers=workers,
            observer=display,
            data_checked=checked,
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
@_dataset
@_fail_fast
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
        document: dict[str, object] = {"store": store.place, "sweeps": list(map(_outcome_document, outcomes))}
        if problems:
            document["problems"] = {name: error.problems for name, error in problems.items()}
        invocation.print_document(document)
    codes = [outcome.exit_code for outcome in outcomes]
    return max([*codes, *(error.exit_code for error in problems.values())])


def _read_shortcuts(
    loaded: "Sweep",
    *,
    search: str | None,
    runs: int | None,
    scheduler: str | None,
    workers: "Workers",
    pack: int | str | None,
) -> "Shortcuts | None":
    """The shortcuts that the options ask for; None where they ask for none.

    Raises:
        InputError: They do not suit the search space or each other, or an extra is missing.
    """
    from hkrun.plan import Shortcuts

    problems = []
    for option, value in (("--search", search), ("--scheduler", scheduler)):
        if value is not None and not any(named.point for named in loaded.cells):
            problems.append(f"{option} {value}: {loaded.source} has no [[axes]] to take a shortcut on")
        if value is not None and pack not in (None, 1):
            problems.append(f"{option} {value}: decides about runs one by one; not with --pack {pack}")
    if runs is not None and search is None:
        problems.append("--runs: says how many runs --search makes; give that too")
    if search is not None and importlib.util.find_spec("optuna") is None:
        problems.append(f"--search {search}: needs Optuna, which comes with pip install 'hkrun[search]'")
    in_groups = any(not workers.of_runs(named.cell).alone for named in loaded.cells)
    if scheduler is not None and in_groups:
        problems.append(f"--scheduler {scheduler}: ends runs of one worker; not with --workers {workers}")
    if problems:
        raise InputError("\n".join(problems))
    if search is None and scheduler is None:
        return None
    return Shortcuts(search=search is not None, budget=runs, stop_early=scheduler is not None)


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
    )
    if dry_run:
        if invocation.as_json:
            invocation.print_document(plan.document())
        else:
            _print_plan(invocation, plan)
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
        invocation.print_document(_outcome_document(outcome))
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

    store, checked = _open_store(invocation, loaded, workers=workers)
    # What a search or a scheduler leaves out is not in the plan: resuming would make all runs.
    again = _resume_command(invocation, loaded, store)
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
            data_checked=checked,
            stopwatch=stopwatch,
        )
    invocation.resumable = None

    from hkrun.report import print_summary  # seconds of imports that training need not wait for

    print_summary(outcome.summary, invocation.results)
    _print_ways_on(invocation, outcome, store)
    return outcome


def _open_store(invocation: Invocation, loaded: "Sweep", *, workers: "Workers") -> "tuple[Store, bool]":
    """The store to train into, made where there is none; but not for a data set that is not there.

    Returns:
        The store, and whether the data was checked for it.
    """
    from hkrun.sweep import check_cluster, check_data

    store = invocation.find_store()
    if store is not None:
        return store, False
    check_cluster(loaded, store_uri=invocation.absolute_store, data_dir=invocation.data_dir)
    check_data(loaded, data_dir=invocation.data_dir, workers=workers)
    return invocation.open_store(create=True), True


def _outcome_document(outcome: "Outcome") -> dict[str, object]:
    """What `sweep --json` prints: the summary, and where MLflow has it."""
    from hkrun.report import summary_document

    mlflow = links_document(outcome.links) if outcome.links is not None else None
    return {**summary_document(outcome.summary), "mlflow": mlflow}


def _print_ways_on(invocation: Invocation, outcome: "Outcome", store: "Store") -> None:
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
        again = _resume_command(invocation, sweep, store) or f"hkrun resume {shlex.quote(sweep.name)}"
        onward = f"{again}   {' and '.join(resumed)}"
    elif sweep.seeds == tuple(range(len(sweep.seeds))):
        more = len(sweep.seeds) + 10
        onward = f"the same command with --seeds {more} adds ten seeds per cell and repeats nothing"
    else:
        onward = "the same command with more seeds adds them and repeats nothing"
    invocation.say("")
    for label, line in (
        ("Report", outcome.report["report.html"]),
        ("MLflow", f"hkrun ui{_store_option(invocation, store)}"),
        ("Go on", onward),
    ):
        invocation.say(f"{label:8} {line}")


def _print_plan(invocation: Invocation, plan: "Plan") -> None:
    """The plan for people: cells, runs, what is there, what remains, and for how long."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from hkrun.cli.display import describe_duration

    table = Table(box=box.SIMPLE, title_justify="left", title=f"{plan.sweep.title} on {plan.sweep.dataset}")
    for heading in ("cell", "name", "runs", "done", "to run", "together", "workers"):
        table.add_column(heading, justify="left" if heading in ("cell", "name") else "right")
    for cell in plan.cells:
        numbers = (cell.num_runs, cell.num_done, len(cell.to_run), plan.sizes.get(cell.cell_id, 1))
        table.add_row(cell.cell_id, Text(cell.name), *map(str, numbers), str(cell.workers))
    invocation.results.print(table)
    invocation.say(f"{plan.num_to_run} of {plan.num_runs} runs to train, in {plan.num_trials} trials")
    for note in plan.notes:
        invocation.say(note)
    for teacher in plan.teachers:
        together = "" if teacher.workers.alone else f", by {teacher.workers} workers"
        invocation.say(
            f"Teacher {teacher.teacher_id} ({teacher.cell.teacher.network}) to train first{together}"
        )
    for planned in plan.tables:
        invocation.say(planned.describe())
    seconds = plan.estimate.seconds
    length = "unknown" if seconds is None else f"about {describe_duration(seconds)}"
    invocation.say(f"Time: {length} ({plan.estimate.basis})")


def _resume_command(invocation: Invocation, sweep: "Sweep", store: "Store") -> str | None:
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
