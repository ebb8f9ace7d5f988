"""The verbs about jobs on a cluster: logs, cancel, and what `status --address` shows."""

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from hkrun.cli import candidates
from hkrun.cli.invocation import Command, Invocation
from hkrun.cli.options import gather
from hkrun.cli.verbs import verb
from hkrun.config import nearest
from hkrun.errors import EXIT_DONE, EXIT_INTERRUPTED, InputError

if TYPE_CHECKING:
    from hkrun.cluster.jobs import Job, JobServer

ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
_STOP_PATIENCE_S = 30.0  # on top of what the cluster gives a job to end


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Which cluster, as the options of a verb say it."""

    address: str | None
    insecure: bool


def cluster_options(*, needed: bool) -> Callable[[Command], Command]:
    """The options that name a cluster; the verb gets a `Cluster`.

    Args:
        needed: Whether the verb is nothing without it, so that Ray's own variable may hold the address.
    """
    told = "The cluster: URL of its Ray dashboard, such as http://localhost:8265"
    address = click.option(
        "--address",
        metavar="URL",
        envvar=ADDRESS_VARIABLE if needed else None,
        help=f"{told}; {ADDRESS_VARIABLE}." if needed else f"{told}: show its jobs instead.",
    )
    insecure = click.option(
        "--insecure",
        is_flag=True,
        help="Accept a cluster that lets everybody in, or that another account of this machine runs.",
    )
    return gather("cluster", Cluster, address, insecure)


def open_server(cluster: Cluster) -> "JobServer":
    """The job server of a cluster that lets us in.

    Raises:
        InputError: No address is given, or it is none.
        ResourceError: The cluster cannot be reached, is open to everybody, or does not take our token.
    """
    if not cluster.address:
        raise InputError(f"name the cluster with --address URL, or in {ADDRESS_VARIABLE}")
    from hkrun.cluster.jobs import JobServer, open_access

    return JobServer(open_access(cluster.address, insecure=cluster.insecure))


def way_back(verb_name: str, job_id: str, server: "JobServer", *, insecure: bool) -> str:
    """The command line of a verb about a job."""
    flag = " --insecure" if insecure else ""
    return f"hkrun {verb_name} {job_id} --address {shlex.quote(server.url)}{flag}"


def follow(invocation: Invocation, server: "JobServer", job_id: str, *, insecure: bool) -> "Job | None":
    """Prints what a job prints until it is over; returns the job, None where the user has detached."""

    def write(text: str) -> None:
        stream = sys.stderr if invocation.as_json else sys.stdout
        click.echo(text, file=stream, nl=False, err=invocation.as_json)

    try:
        return server.follow(job_id, write)
    except KeyboardInterrupt:
        detach(invocation, server, job_id, insecure=insecure)
        return None


def detach(
    invocation: Invocation, server: "JobServer", job_id: str, *, insecure: bool, is_sent: bool = True
) -> None:
    """Says how to come back to a job, or to one whose sending was interrupted."""
    for line in (
        f"Detached. Job {job_id} goes on." if is_sent else f"Detached. If job {job_id} was sent, it goes on.",
        f"Follow it  {way_back('logs', job_id, server, insecure=insecure)}",
        f"Stop it    {way_back('cancel', job_id, server, insecure=insecure)}",
    ):
        invocation.messages.print(line)


def finish(
    invocation: Invocation, server: "JobServer", job_id: str, job: "Job | None", **more: object
) -> int:
    """Says how a job has ended, in words or in the document; the exit code that its end comes to."""
    if invocation.as_json:
        shown = job or server.job(job_id)
        invocation.print_document(
            {"address": server.url, **shown.document(), "detached": job is None, **more}
        )
    if job is None:
        return EXIT_INTERRUPTED
    if job.state != "finished":
        message = f": {job.message}" if job.message else ""
        invocation.messages.print(f"Job {job.id} {job.state}, exit status {job.exit_code}{message}")
    else:
        invocation.messages.print(f"Job {job.id} finished")
    return job.exit_code or EXIT_DONE


@verb(
    "logs",
    purpose="On a cluster",
    examples=(
        ("hkrun logs --address http://localhost:8265", "of your newest job, until it ends"),
        ("hkrun logs stability", "of your newest job of that study"),
        ("hkrun logs stability-1122-084501-9f3a --no-wait", "what that one has printed up to now"),
    ),
)
@click.argument("job", required=False, metavar="[JOB|STUDY]", shell_complete=candidates.studies)
@cluster_options(needed=True)
@click.option("--no-wait", is_flag=True, help="Print what is there, and do not wait for more.")
def logs(invocation: Invocation, *, job: str | None, cluster: Cluster, no_wait: bool) -> int:
    """Follow the log of a job from its beginning, and end with its exit status.

    Ctrl-C detaches; the job goes on. Without JOB it is the newest that you have sent.
    """
    server = open_server(cluster)
    found = _find(server, job) if job else _newest(server)
    if not no_wait:
        job_end = follow(invocation, server, found.id, insecure=cluster.insecure)
        return finish(invocation, server, found.id, job_end)
    log = server.log(found.id)
    if invocation.as_json:
        invocation.print_document({"address": server.url, **found.document(), "log": log})
    else:
        click.echo(log, file=sys.stdout, nl=False)
    return found.exit_code or EXIT_DONE


@verb(
    "cancel",
    purpose="On a cluster",
    examples=(
        ("hkrun cancel --address http://localhost:8265", "your one job that runs there"),
        ("hkrun cancel stability", "your newest of that study"),
        ("hkrun cancel stability-1122-084501-9f3a", "that one"),
    ),
)
@click.argument("job", required=False, metavar="[JOB|STUDY]", shell_complete=candidates.studies)
@cluster_options(needed=True)
@click.option("--no-wait", is_flag=True, help="Do not wait until it has ended.")
def cancel(invocation: Invocation, *, job: str | None, cluster: Cluster, no_wait: bool) -> int:
    """Stop a job in an orderly way: what is finished and its newest checkpoints are kept.

    Submitting the same command again goes on from there. Without JOB it is the one that runs and that you
    have sent; a job of others must be named. The exit status is 75 where it has not ended after the wait.
    """
    from hkrun.cluster.jobs import STOP_WAIT_S

    server = open_server(cluster)
    found = _find(server, job) if job else _only_running(server)
    if not found.is_over:
        server.stop(found.id)
        if not no_wait:
            found = server.wait(found.id, timeout_s=STOP_WAIT_S + _STOP_PATIENCE_S)
    if invocation.as_json:
        invocation.print_document({"address": server.url, **found.document()})
    elif found.state == "stopped":
        invocation.say(f"Job {found.id} is stopped; what is finished is kept.")
        invocation.say(
            f"Go on    hkrun submit --address {server.url} -- {found.command.removeprefix('hkrun ')}"
        )
    elif found.is_over:
        invocation.say(f"Job {found.id} had {found.state} already, with exit status {found.exit_code}.")
    else:
        invocation.say(f"Job {found.id} was asked to stop and has not ended yet.")
    return EXIT_DONE if found.is_over or no_wait else EXIT_INTERRUPTED


def show_jobs(invocation: Invocation, job: str | None, cluster: Cluster) -> int:
    """Prints how a cluster's jobs of hkrun are, or how one is."""
    server = open_server(cluster)
    jobs = [_find(server, job)] if job else _real(server.jobs())
    if invocation.as_json:
        invocation.print_document({"address": server.url, "jobs": [each.document() for each in jobs]})
        return EXIT_DONE
    if not jobs:
        invocation.say(f"{server.url} has no job of hkrun.")
        return EXIT_DONE
    from hkrun.cli.console import make_table

    title = None if job else f"Jobs of hkrun at {server.url}"
    table = make_table(title, "job", "state", "exit", "begun", "command", overflow="fold")
    for each in jobs:
        begun = time.strftime("%m-%d %H:%M", time.localtime(each.started_at)) if each.started_at else "-"
        code = "-" if each.exit_code is None else str(each.exit_code)
        table.add_row(each.id, each.state, code, begun, each.command)
    invocation.results.print(table)
    if job:
        _print_details(invocation, jobs[0])
    return EXIT_DONE


def _print_details(invocation: Invocation, job: "Job") -> None:
    told = {
        "Store": job.metadata.get("store"),
        "Code": job.metadata.get("code"),
        "Sent by": job.metadata.get("by"),
        "End": job.message,
    }
    for label, value in told.items():
        if value:
            invocation.say(f"{label:8} {value}")


def _real(jobs: "list[Job]") -> "list[Job]":
    """Those that were asked for; not the checks before them."""
    return [job for job in jobs if job.metadata.get("kind") != "check"]


def _find(server: "JobServer", name: str) -> "Job":
    """The job of that id, or the newest that the user has sent of the study of that name."""
    from hkrun.cluster.jobs import is_job_of

    try:
        return server.job(name)
    except InputError:
        jobs = _real(server.jobs())
        if ours := [job for job in _own(jobs) if is_job_of(job.id, name)]:
            return ours[-1]
        there = [job.id for job in jobs]
        listed = ", ".join(there) or "none"
        raise InputError(
            f"{name}: no such job at {server.url}, and none that you have sent of such a study; there are: "
            f"{listed}{nearest(name, there)}"
        ) from None


def _newest(server: "JobServer") -> "Job":
    """The user's newest job."""
    jobs = _real(server.jobs())
    if ours := _own(jobs):
        return ours[-1]
    raise InputError(f"{server.url} has no job of hkrun{_name_others(jobs)}")


def _only_running(server: "JobServer") -> "Job":
    """The one job of the user's that goes on."""
    running = [job for job in _real(server.jobs()) if not job.is_over]
    ours = _own(running)
    if len(ours) == 1:
        return ours[0]
    if not ours:
        raise InputError(f"{server.url}: no job of hkrun runs there{_name_others(running)}")
    raise InputError(f"{server.url}: several jobs run there, name one: {', '.join(job.id for job in ours)}")


def _own(jobs: "list[Job]") -> "list[Job]":
    """Those that this account has sent, here or from another machine."""
    from hkrun.cluster.jobs import find_user

    user = find_user()
    return [job for job in jobs if user and job.metadata.get("by") == user]


def _name_others(jobs: "list[Job]") -> str:
    """The end of a message about missing jobs, where there are only other people's."""
    named = ", ".join(f"{job.id} ({job.metadata.get('by') or 'of unknown sender'})" for job in jobs)
    return f" that you have sent; name one of the others: {named}" if jobs else ""
