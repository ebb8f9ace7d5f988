"""The verbs that train: sweep, run, teacher, resume."""

import dataclasses
from typing import TYPE_CHECKING

import click

from hkrun.cli import candidates, options
from hkrun.cli.invocation import Invocation
from hkrun.cli.mirroring import links_document
from hkrun.cli.onward import print_ways_on, resume_command
from hkrun.cli.options import Changes, ResumeWishes, Wishes, gather
from hkrun.cli.stored import find_plans
from hkrun.cli.verbs import verb
from hkrun.config import teacher_id
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
    from hkrun.spaces import Sweep
    from hkrun.stopwatch import Stopwatch
    from hkrun.sweep import Options, Outcome, Study

_ASK_ABOVE_S = 3600.0  # what takes longer than a coffee deserves a question
# What a study of several runs may be told: how runs take their places, and how it goes.
_PLACING = (options.workers, options.per_gpu, options.pack)
_STUDYING = (options.fail_fast, options.check, options.study_name, options.again, options.trust)


@verb(
    "sweep",
    purpose="Train",
    examples=(
        ("hkrun sweep stability", "every cell with every seed, then the report"),
        ("hkrun sweep stability --dry-run", "what would run, what is there, how long it takes"),
        ("hkrun sweep sensitivity --check", "which cells too large a step will lose; no run is made"),
        ("hkrun sweep stability --seeds 30", "ten more seeds per cell than the file's twenty"),
        ("hkrun sweep stability --dataset cifar10 --data ~/data", "the same question elsewhere"),
        (
            "hkrun sweep mine.toml loss.mu=0.5 --epochs 30",
            "a file of your own, two keys changed: the study mine-epochs-30-mu-0.5",
        ),
        ("hkrun sweep mine.toml --epochs 2 --name trial", "a short one, under a name of its own"),
        ("hkrun sweep sensitivity --search optuna", "only the runs on the axes that Optuna chooses"),
        ("hkrun sweep stability --until decided", "seeds in rounds, until the answers are known"),
        ("hkrun sweep mine.toml --until decided --max-seeds 40", "the same, of up to forty seeds"),
        ("hkrun sweep stability --again", "anew what another version of the training code has made"),
    ),
)
@click.argument("name", metavar="NAME|FILE", shell_complete=candidates.spaces)
@gather("changes", Changes, options.overrides, options.dataset, options.seeds, options.epochs)
@gather(
    "wishes",
    Wishes,
    *_PLACING,
    options.search,
    options.runs,
    options.scheduler,
    options.until,
    options.max_seeds,
    *_STUDYING,
)
@options.dry_run
def sweep(invocation: Invocation, *, name: str, changes: Changes, wishes: Wishes, dry_run: bool) -> int:
    """Run a search space: every cell with every seed.

    Runs that the store has are not repeated, so the same command goes on after an interruption, and only
    reports when all is done. It ends with the table of errors and stability, a report with figures, and all
    runs in MLflow. Runs that other training code has made, as of a changed clone, are neither repeated nor
    used unasked: --again or --trust says which.

    With --until decided, seeds come in rounds. What is compared with the reference, and each published claim,
    is tested after every round in a way that keeps its error rate at any number of looks; a cell of which
    nothing is left to decide gets no more seeds.

    More seeds or configurations go on with the study; anything else changed makes a study of its own, with a
    name, a report and figures of its own. None replaces another.
    """
    from hkrun.spaces import load_sweep

    _refuse_both(dry_run=dry_run, check=wishes.check)
    changes = wishes.limit(changes)
    loaded = load_sweep(name, **vars(changes))
    asked = wishes.read(invocation, loaded, seeds_asked=changes.seeds is not None)
    return _run(invocation, loaded, asked, dry_run=dry_run, check=wishes.check)


@verb(
    "run",
    purpose="Train",
    examples=(
        ("hkrun run", "HKSANC on digits, seed 0"),
        ("hkrun run method=supervised --seeds 3", "the student alone, three seeds"),
        ("hkrun run --dataset mnist5k loss.lambda_2=0", "no adversarial term, on 5,000 MNIST images"),
    ),
)
@gather("changes", Changes, options.overrides, options.dataset, options.seeds, options.epochs)
@gather("wishes", Wishes, *_PLACING, *_STUDYING)
@options.dry_run
def run(invocation: Invocation, *, changes: Changes, wishes: Wishes, dry_run: bool) -> int:
    """Train one configuration, with one seed or several.

    It is the recipe of the data set with the keys that you change; `hkrun keys` lists them. The teacher is
    trained first if the store does not have it.
    """
    from hkrun.spaces import load_cell

    _refuse_both(dry_run=dry_run, check=wishes.check)
    loaded = load_cell(**vars(changes))
    return _run(invocation, loaded, wishes.read(invocation, loaded), dry_run=dry_run, check=wishes.check)


@verb(
    "teacher",
    purpose="Train",
    examples=(
        ("hkrun teacher", "the teacher of the digits recipe"),
        ("hkrun teacher --dataset mnist5k teacher.epochs=30", "another data set, a shorter training"),
        ("hkrun teacher teacher.seeds=paired --seeds 10", "ten teachers, those of ten seeds"),
    ),
)
@gather("changes", Changes, options.overrides, options.dataset, options.seeds)
@gather("wishes", Wishes, options.workers, options.per_gpu, options.again, options.trust)
def teacher(invocation: Invocation, *, changes: Changes, wishes: Wishes) -> int:
    """Train the teacher of a configuration, and print its error.

    A sweep does this by itself. A teacher that the store has is not trained again, whichever sweep it was
    for. With teacher.seeds = paired, each of the seeds has a teacher; else --seeds changes nothing.
    """
    from hkrun.cli.display import Display
    from hkrun.plans import find_begun
    from hkrun.spaces import load_cell
    from hkrun.sweep import bring_back, make_ready, resolve_teacher, train_teacher

    loaded = load_cell(**vars(changes))
    if not loaded.cells[0].cell.uses_teacher:
        raise InputError(f"{loaded.cells[0].name}: this configuration uses no teacher")
    study = resolve_teacher(loaded, invocation.find_store(), wishes.read(invocation, loaded))
    if study.plan.teachers:
        study = make_ready(study)
        invocation.resumable = "the same command"
        with Display(invocation.messages, title=f"Teacher for {loaded.heading}") as display:
            try:
                train_teacher(study, display)
            except (KeyboardInterrupt, Interrupted):
                invocation.kept = find_begun(study.plan, study.opened).checkpoints
                raise
        invocation.resumable = None
    bring_back(study)
    store = study.opened
    cell = study.sweep.cells[0].cell
    identities = dict.fromkeys(teacher_id(cell.with_teacher_of(seed)) for seed in study.sweep.seeds)
    documents = []
    for identity in identities:
        record = store.teacher(identity)
        assert record is not None, "a task that ended well leaves its record"
        documents.append(
            {
                "teacher_id": record.teacher_id,
                "hash": record.teacher_hash,
                "error_pct": record.error_pct,
                "train_error_pct": record.train_error_pct,
                "epochs": record.epochs,
            }
        )
        invocation.say(
            f"Teacher {record.teacher_id}: {record.error_pct:.2f} % test error, "
            f"{record.train_error_pct:.2f} % on its training images, after {record.epochs} epochs"
        )
    if invocation.as_json:
        told: dict[str, object] = {"teachers": documents} if cell.has_teachers else {**documents[0]}
        invocation.print_document({**told, "store": store.place})
    return EXIT_DONE


@verb(
    "resume",
    purpose="Train",
    examples=(
        ("hkrun resume", "every sweep of ./hkrun-store that is not complete"),
        ("hkrun resume stability", "that one"),
    ),
)
@click.argument("name", required=False, shell_complete=candidates.studies)
@click.option(
    "--dataset", metavar="NAME", shell_complete=candidates.datasets, help="Only sweeps on this data set."
)
@gather("wishes", ResumeWishes, options.fail_fast, options.again, options.trust)
def resume(invocation: Invocation, *, name: str | None, dataset: str | None, wishes: ResumeWishes) -> int:
    """Go on with sweeps that were interrupted.

    The store knows what they were: no search space and no overrides are needed, only --data where the data
    set is not embedded. Runs continue from their newest checkpoints, and end exactly as if nothing had
    happened. All runs are made, also those that --search or --scheduler left out. A sweep whose data or files
    are missing, that does not fit here or that another driver holds is named, and the others go on.
    """
    from hkrun.sweep import Options, plan_study, resolve

    store = invocation.open_store()
    asked = Options(
        store=store.uri,
        data_dir=invocation.data_dir,
        fail_fast=wishes.fail_fast,
        other_code=wishes.other_code,
    )
    found = [
        plan_study(
            stored.sweep,
            store,
            dataclasses.replace(
                asked, workers=stored.workers, name=stored.sweep.name, shortcuts=stored.shortcuts
            ),
        )
        for stored in find_plans(store, name, dataset)
    ]
    unfinished = [study for study in found if study.plan.num_to_run]
    if not unfinished:
        invocation.say("Nothing to resume: every sweep of the store is complete.")
        if invocation.as_json:
            invocation.print_document({"store": store.place, "sweeps": []})
        return EXIT_DONE
    outcomes: list[Outcome] = []
    problems: dict[str, HkrunError] = {}
    for study in unfinished:
        what = f"{study.sweep.name} on {study.sweep.dataset}"
        try:
            outcomes.append(_train(invocation, resolve(study)))
        except (InputError, DataError, ResourceError, TrainingError, HeldError) as error:
            if len(unfinished) == 1:
                raise
            problems[what] = error
            invocation.resumable = None
            invocation.say(f"hkrun: {what}: {error.message}")
    if invocation.as_json:
        document: dict[str, object] = {"store": store.place, "sweeps": list(map(outcome_document, outcomes))}
        if problems:
            document["problems"] = {name: error.problems for name, error in problems.items()}
        invocation.print_document(document)
    codes = [outcome.exit_code for outcome in outcomes]
    return max([*codes, *(error.exit_code for error in problems.values())])


def _refuse_both(*, dry_run: bool, check: bool) -> None:
    if dry_run and check:
        raise InputError("--check: trains teachers and keeps what it finds; not with --dry-run")


def _run(invocation: Invocation, loaded: "Sweep", asked: "Options", *, dry_run: bool, check: bool) -> int:
    from hkrun.cli.display import describe_duration
    from hkrun.stopwatch import Stopwatch
    from hkrun.sweep import plan_study, resolve

    stopwatch = Stopwatch("planning")
    study = resolve(plan_study(loaded, invocation.find_store(), asked), dry=dry_run)
    if check:
        study = _rehearse(invocation, study)
    if study.note:
        invocation.say(study.note)
    if dry_run or check:
        if invocation.as_json:
            invocation.print_document(study.document())
        else:
            print_plan(invocation, study)
        return EXIT_DONE
    print_other_code(invocation, study)
    print_limits(invocation, study)
    seconds = study.estimate.seconds
    if seconds is not None and seconds > _ASK_ABOVE_S:
        question = f"{study.plan.num_to_run} runs, about {describe_duration(seconds)}. Start?"
        if not invocation.confirm(question):
            raise Interrupted("not started")
    outcome = _train(invocation, study, stopwatch)
    if invocation.as_json:
        invocation.print_document(outcome_document(outcome))
    return outcome.exit_code


def _rehearse(invocation: Invocation, study: "Study") -> "Study":
    """The study with its cells rehearsed, and its teachers trained."""
    from hkrun.cli.display import Display
    from hkrun.sweep import make_ready, plan_study, rehearse_study, resolve

    study = make_ready(study)
    if study.plan.num_to_run:
        invocation.resumable = "the same command"
        with Display(invocation.messages, title=f"Rehearsal of {study.sweep.heading}") as display:
            rehearse_study(study, display)
        invocation.resumable = None
    return resolve(plan_study(study.sweep, study.store, study.options))


def _train(invocation: Invocation, study: "Study", stopwatch: "Stopwatch | None" = None) -> "Outcome":
    """Runs a study to its end and shows what came out."""
    from hkrun.cli.display import Display
    from hkrun.sweep import Phase, make_ready, run_study

    with Display(invocation.messages, title=study.sweep.heading) as display:
        if study.machine is not None:
            display.entered(Phase.CHECKING)
        study = make_ready(study)
        # What a search or a scheduler leaves out is not in the plan: resuming would make all runs.
        again = resume_command(invocation, study.sweep, study.opened)
        whole = not study.options.shortcuts.select
        invocation.resumable = again if again is not None and whole else "the same command"
        try:
            outcome = run_study(study, display, stopwatch)
        except (KeyboardInterrupt, Interrupted):
            invocation.kept = _describe_kept(study)
            raise
    invocation.resumable = None

    from hkrun.report import print_summary  # seconds of imports that training need not wait for

    print_summary(outcome.summary, invocation.results)
    print_ways_on(invocation, outcome, study.opened)
    return outcome


def _describe_kept(study: "Study") -> str:
    """What is kept of an interrupted study, in words; empty where the store does not say."""
    from hkrun.plans import find_begun, make_plan

    try:
        plan = make_plan(study.sweep, study.store, workers=study.options.workers)
        return str(find_begun(plan, study.opened))
    except HkrunError:
        return ""


def print_plan(invocation: Invocation, study: "Study") -> None:
    """The plan for people: cells, runs, what is there, what remains, and for how long."""
    from hkrun.cli.planned import plan_lines, print_cells

    print_cells(invocation.results, study)
    for line in plan_lines(study):
        invocation.say(line)


def print_other_code(invocation: Invocation, study: "Study") -> None:
    """What is of other code, and what becomes of it."""
    for told in (study.coming_back, study.other_code):
        if told:
            invocation.say(told)


def print_limits(invocation: Invocation, study: "Study") -> None:
    """Which cells too large a step will lose."""
    for warning in study.limits:
        invocation.say(warning.sentence)


def outcome_document(outcome: "Outcome") -> dict[str, object]:
    """What `sweep --json` prints: the summary, what was known to be lost, and where MLflow has it."""
    from hkrun.report import summary_document

    mlflow = links_document(outcome.links) if outcome.links is not None else None
    limits = [warning.document() for warning in outcome.limits]
    rounds = {} if outcome.rounds is None else {"rounds": outcome.rounds.document()}
    return {**summary_document(outcome.summary), **rounds, "limits": limits, "mlflow": mlflow}
