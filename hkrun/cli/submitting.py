"""The verb `submit`: another verb, on a cluster."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from hkrun.cli import candidates
from hkrun.cli.invocation import Invocation
from hkrun.cli.jobs import (
    Cluster,
    cluster_options,
    detach,
    finish,
    follow,
    open_server,
    way_back,
)
from hkrun.cli.stored import find_plans
from hkrun.cli.verbs import verb
from hkrun.config import nearest
from hkrun.errors import EXIT_DONE, InputError, NotFoundError, StoreError
from hkrun.networks import FROM_TORCHVISION

if TYPE_CHECKING:
    from hkrun.cluster.jobs import Submission, Work
    from hkrun.spaces import Sweep

SUBMITTED = ("sweep", "run", "teacher", "resume")  # the rest reads the store, which can be done from here
_PLACES = ("--store", "--data")
_ANSWERS = ("--json", "--yes")  # of this command, not of the job
_SHOWN_CHANGES = 3

logger = logging.getLogger("hkrun")


@verb(
    "submit",
    purpose="On a cluster",
    examples=(
        (
            "hkrun submit --address http://head:8265 --store s3://lab/kd -- sweep stability",
            "that sweep on the cluster; its log here",
        ),
        (
            "hkrun submit --address https://ray.lab.org --no-wait -- sweep mine.toml",
            "send it and come back later: hkrun logs",
        ),
    ),
)
@click.argument(
    "words",
    nargs=-1,
    required=True,
    metavar="-- VERB [ARGUMENTS]...",
    shell_complete=candidates.first_of(SUBMITTED),
)
@cluster_options(needed=True)
@click.option("--no-wait", is_flag=True, help="Return as soon as the job is sent.")
@click.option(
    "--environment",
    type=click.Choice(["cluster", "lock"]),
    default="cluster",
    show_default=True,
    help="Whose packages it runs with: the cluster's own, or those of requirements.lock, installed for it.",
)
def submit(
    invocation: Invocation,
    *,
    words: tuple[str, ...],
    cluster: Cluster,
    no_wait: bool,
    environment: Literal["cluster", "lock"],
) -> int:
    """Run sweep, run, teacher or resume as a job on a Ray cluster.

    The code goes along as it is here, with the search space and your own parts. Before anything starts, every
    node is asked whether it has what hkrun needs and reaches the store and the data. The log is followed
    here; Ctrl-C detaches and the job goes on. The exit status is the job's. The same command again goes on
    where a job was stopped or lost.
    """
    from hkrun.cluster.jobs import submit as send

    work = read_work(invocation, words)
    server = open_server(cluster)
    invocation.messages.print(f"Checking the nodes of {server.url} ...")
    announced: list[Submission] = []

    def announce(submission: "Submission") -> None:
        announced.append(submission)
        for line in _describe(submission, work):
            invocation.messages.print(line)
        way = way_back("logs", submission.job_id, server, insecure=cluster.insecure)
        invocation.messages.print(f"Log      {way}")

    try:
        send(work, server, environment=environment, announce=announce)
    except KeyboardInterrupt:
        if announced:  # its request may have arrived, so nothing is known of the job
            detach(invocation, server, announced[0].job_id, insecure=cluster.insecure, is_sent=False)
        raise
    (submission,) = announced
    more = _document(submission, work)
    if no_wait:
        if invocation.as_json:
            job = server.job(submission.job_id)
            invocation.print_document({"address": server.url, **job.document(), **more})
        return EXIT_DONE
    job_end = follow(invocation, server, submission.job_id, insecure=cluster.insecure)
    return finish(invocation, server, submission.job_id, job_end, **more)


# From the verb on, options are the verb's, also for who forgets the `--`.
submit.allow_interspersed_args = False


def read_work(invocation: Invocation, words: Sequence[str]) -> "Work":
    """What is to run, read and checked as the verb itself would, before anything is sent.

    Raises:
        InputError: The verb is none that trains, or its search space has problems.
        click.UsageError: Its arguments have.
    """
    from hkrun.cluster.jobs import Work

    name, arguments = words[0], list(words[1:])
    if name not in SUBMITTED:
        raise InputError(
            f"submit {name}: only {', '.join(SUBMITTED)} run on a cluster{nearest(name, SUBMITTED)}; "
            "the others read the store, from here"
        )
    inner, parameters = _parse(invocation, name, arguments)
    sweeps = _find_unfinished(inner, parameters) if name == "resume" else [_load(name, parameters)]
    store = inner.absolute_store
    data = None if inner.data_dir is None else _absolute(str(inner.data_dir))
    parts = {part for sweep in sweeps for named in sweep.cells for part in named.cell.own_parts}
    places = ["--store", store, *(["--data", data] if data is not None else [])]
    return Work(
        arguments=(name, *_without_places(arguments), *places),
        space=parameters.get("name") if name == "sweep" else None,
        title=_find_title(name, parameters, sweeps),
        store=store,
        data=data,
        parts=tuple(sorted(parts)),
        files=_find_files(sweeps),
    )


def _find_title(name: str, parameters: Mapping[str, Any], sweeps: "Sequence[Sweep]") -> str:
    """What the job is called after: the study, as far as that shows without the store."""
    from hkrun.spaces import natural_name

    own = natural_name(sweeps[0]) if name == "sweep" else parameters.get("name")
    return parameters.get("study") or own or name


def _parse(
    invocation: Invocation, name: str, arguments: Sequence[str]
) -> tuple[Invocation, Mapping[str, Any]]:
    """What the verb makes of its arguments; a place that they do not name is the one of `submit`."""
    context = click.get_current_context()
    program = context.find_root().command
    assert isinstance(program, click.Group)
    inner = Invocation(store_uri=invocation.store_uri, data_dir=invocation.data_dir)
    try:
        parsed = program.commands[name].make_context(f"hkrun {name}", list(arguments), obj=inner)
    except click.exceptions.Exit as ending:  # its --help was asked for and printed
        context.exit(ending.exit_code)
    invocation.as_json |= inner.as_json
    invocation.yes |= inner.yes
    inner.check_places()
    return inner, parsed.params


def _load(name: str, parameters: Mapping[str, Any]) -> "Sweep":
    """The sweep that `sweep`, `run` or `teacher` would run."""
    from hkrun.spaces import load_cell, load_sweep

    chosen = {key: parameters.get(key) for key in ("dataset", "seeds", "epochs") if key in parameters}
    if name == "sweep":
        return load_sweep(parameters["name"], **chosen, overrides=parameters["overrides"])
    return load_cell(**chosen, overrides=parameters["overrides"])


def _find_unfinished(inner: Invocation, parameters: Mapping[str, Any]) -> "list[Sweep]":
    """The sweeps that `resume` would go on with; none where the store cannot be read from here."""
    from hkrun.plans import make_plan

    try:
        store = inner.open_store()
    except (NotFoundError, StoreError) as error:
        logger.warning(
            "the store cannot be read from here (%s), so it is not known which own parts its sweeps use, "
            "and none go along: the job fails where a sweep needs one that the nodes lack",
            error.problems[0],
        )
        return []
    plans = find_plans(store, parameters["name"], parameters["dataset"])
    return [
        stored.sweep
        for stored in plans
        if make_plan(stored.sweep, store, workers=stored.workers, shortcuts=stored.shortcuts).num_to_run
    ]


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).expanduser().absolute())


def _without_places(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that are said again, absolute, or that are for this side alone."""
    kept = []
    words = iter(arguments)
    for word in words:
        if word in _PLACES:
            next(words, None)
        elif word not in _ANSWERS and not word.startswith(tuple(f"{place}=" for place in _PLACES)):
            kept.append(word)
    return kept


def _find_files(sweeps: "Sequence[Sweep]") -> tuple[str, ...]:
    """The files of weights that the sweeps read."""
    files = sorted(
        {
            (key, file)
            for sweep in sweeps
            for named in sweep.cells
            for key, file in named.cell.weight_files.items()
            if file != FROM_TORCHVISION
        }
    )
    relative = [(key, file) for key, file in files if not Path(file).is_absolute()]
    if relative:
        raise InputError(
            "\n".join(
                f"{key}={file}: on a cluster, the absolute path of a file that all nodes see"
                for key, file in relative
            )
        )
    return tuple(dict.fromkeys(file for _, file in files))


def _describe(submission: "Submission", work: "Work") -> list[str]:
    """What was found and sent, in lines for people."""
    names = [str(node["name"]) for node in submission.nodes]
    first = submission.nodes[0]
    versions = ", ".join(f"{name} {first['versions'][name]}" for name in ("ray", "torch"))
    nodes = f"{len(names)} nodes" if len(names) > 1 else "1 node"
    lines = [f"Nodes    {nodes}: {', '.join(names)}; Python {first['python']}, {versions}"]
    lines.append("Store    every node reads and writes it")
    for label, state in (("Code", submission.code), ("Study", submission.study)):
        if state is not None:
            lines.append(f"{label:8} commit {state.commit[:12]}{_describe_changes(state.changed)}")
    lines.append(f"Job      {submission.job_id}: hkrun {' '.join(work.arguments)}")
    return lines


def _describe_changes(changed: Sequence[str]) -> str:
    if not changed:
        return ""
    more = f" and {len(changed) - _SHOWN_CHANGES} more" if len(changed) > _SHOWN_CHANGES else ""
    files = ", ".join(changed[:_SHOWN_CHANGES])
    return f", but not as committed: {files}{more} differ, and the job runs them as they are"


def _document(submission: "Submission", work: "Work") -> dict[str, object]:
    states = {"code": submission.code, "study": submission.study}
    return {
        "store": work.store,
        "nodes": [{key: node[key] for key in ("name", "python", "versions")} for node in submission.nodes],
        **{name: None if state is None else state.document() for name, state in states.items()},
    }
