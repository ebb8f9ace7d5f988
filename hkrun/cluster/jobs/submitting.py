"""Sends a command of hkrun to a cluster as a job, with the code that runs here; checks the nodes first."""

import dataclasses
import getpass
import importlib.metadata
import json
import logging
import os
import platform
import secrets
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl

import hkrun
from hkrun.addresses import read_address
from hkrun.cluster.jobs import check
from hkrun.cluster.jobs.server import MARK, Job, JobServer
from hkrun.cluster.jobs.shipping import (
    LOCK_FILE,
    PACKAGE,
    check_size,
    find_lock,
    read_versions,
    reduce_lock,
    ship_hkrun,
    ship_parts,
    ship_space,
)
from hkrun.cluster.nodes.reports import COMPARED, Needs, find_versions
from hkrun.cluster.ray_private import JOB_SETTINGS, STOP_WAIT_VARIABLE
from hkrun.errors import DataError, HkrunError, InputError, ResourceError, StoreError
from hkrun.git_state import GitState, read_state
from hkrun.redaction import redact

# Between SIGTERM and SIGKILL; Ray's own 3 s are too short for a checkpoint of megabytes.
STOP_WAIT_S = 60
# With an environment from the lock, the check waits for gigabytes of packages.
CHECK_TIMEOUT_S = {"cluster": 300.0, "lock": 3600.0}
# Settings by which a job finds its places. Passwords and keys stay here.
PASSED = (
    "MLFLOW_TRACKING_URI",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
)
# What the query of a store's URI may hold besides keys.
PUBLIC_OPTIONS = {"endpoint_override", "region", "scheme"}
JOB_VARIABLE, CODE_VARIABLE = "HKRUN_JOB", "HKRUN_CODE"
_ERRORS = {error.exit_code: error for error in (InputError, DataError, ResourceError, StoreError)}

logger = logging.getLogger("hkrun")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to run on the cluster.

    Attributes:
        arguments: hkrun's: the verb and its options, with places that hold on the cluster.
        space: The search space among them, where it is a name or a file; None for other verbs.
        store: Path or URI of the store, absolute.
        data: Path or URI of `--data`, absolute; None where none is needed.
        parts: Own parts that its cells use, as `package.module:name`.
    """

    arguments: tuple[str, ...]
    space: str | None
    title: str
    store: str
    data: str | None
    parts: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A job that is sent.

    Attributes:
        code: The state of hkrun's repository; None where it runs from an installation.
        study: The state of the working directory's, where that is another one.
    """

    job_id: str
    code: GitState | None
    study: GitState | None
    nodes: tuple[Mapping[str, Any], ...]


def submit(
    work: Work,
    server: JobServer,
    *,
    environment: Literal["cluster", "lock"],
    announce: Callable[[Submission], None],
) -> None:
    """Sends work to a cluster whose nodes can do it.

    The packages are the cluster's own, or those of requirements.lock. `announce` is called just before the
    job is sent: an interrupted user finds it by its name.

    Raises:
        InputError: Something would show a password to others, or is too large to be sent.
        ResourceError: A node cannot run hkrun.
        StoreError: A node cannot use the store.
        DataError: A node does not see the data.
    """
    variables = find_variables(os.environ, work)
    code, study = read_state(PACKAGE), read_state(Path.cwd())
    if study is not None and code is not None and study.commit == code.commit:
        study = None
    variables[CODE_VARIABLE] = describe_code(code)
    with _staged(work, environment=environment) as (folder, arguments, packages):
        runtime_env = {"working_dir": str(folder), "env_vars": variables, **packages}
        nodes = _check(work, server, runtime_env, timeout_s=CHECK_TIMEOUT_S[environment])
        job_id = name_job(work.title)
        command = ["python", "-m", "hkrun", *arguments]
        metadata = {
            MARK: hkrun.__version__,
            "command": shlex.join(["hkrun", *work.arguments]),
            "store": redact(work.store),
            "code": describe_code(code),
            "commit": code.commit if code is not None else "",
            "by": find_user(),
            "environment": environment,
        }
        if study is not None:
            metadata["study"] = study.label
        env_vars = {**variables, JOB_VARIABLE: job_id}
        announce(Submission(job_id=job_id, code=code, study=study, nodes=tuple(nodes)))
        server.submit(
            f"exec {shlex.join(command)}",
            job_id=job_id,
            runtime_env={**runtime_env, "env_vars": env_vars},
            metadata=metadata,
        )


def describe_code(state: GitState | None) -> str:
    """The state of hkrun's code, as records keep it."""
    return state.label if state is not None else f"hkrun {hkrun.__version__}, not from a repository"


def name_job(title: str) -> str:
    """A new name for a job, such as `stability-1122-084501-9f3a`."""
    return f"{_name_title(title)}-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def is_job_of(job_id: str, title: str) -> bool:
    """Whether a job was named after this title."""
    return job_id.rsplit("-", 3)[0] == _name_title(title)


def _name_title(title: str) -> str:
    word = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in title).strip("-")
    return word[:40] or "hkrun"


def find_variables(environ: Mapping[str, str], work: Work) -> dict[str, str]:
    """The environment variables of the job: settings and places without secrets.

    All users of the cluster can read them, and the command line.

    Raises:
        InputError: A place that the job needs holds a password, or one on S3 cannot be understood.
    """
    passed = {name: environ[name] for name in PASSED if environ.get(name)}
    places = {"--store": work.store, "--data": work.data or "", **passed}
    problems = [
        f"{what}: the URI holds a user, a password or a key, which all users of the cluster could "
        "read; put those into the environment of the cluster's nodes, and leave them out of it"
        for what, value in places.items()
        if not is_public(value) or (what.startswith("AWS_") and "@" in value)
    ] or [*_find_misread(places)]
    if problems:
        raise InputError("\n".join(problems))
    return passed | JOB_SETTINGS | {STOP_WAIT_VARIABLE: str(STOP_WAIT_S)}


def is_public(place: str) -> bool:
    """Whether a path or URI may be read by others: it holds no credentials."""
    if "://" not in place:
        return True
    uri, _, query = place.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in options]
    return (
        redact(uri) == uri.rstrip("/")
        and PUBLIC_OPTIONS.issuperset(names)
        and len(names) == len(set(names))  # of a repeated name only the last one counts
        and not any("@" in value for _, value in options)
    )


def _find_misread(places: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with places on S3."""
    for what, value in places.items():
        try:
            if value.startswith("s3://"):
                read_address(value, {})
        except ValueError as error:
            yield f"{what}: {error}"


@contextmanager
def _staged(
    work: Work, *, environment: Literal["cluster", "lock"]
) -> Iterator[tuple[Path, list[str], dict[str, Any]]]:
    """Gathers the files of the job: their folder, hkrun's arguments, and packages for Ray to install."""
    with tempfile.TemporaryDirectory(prefix="hkrun-job-") as name:
        folder = Path(name)
        ship_hkrun(folder)
        shipped = ship_parts(work.parts, folder)
        arguments = list(work.arguments)
        if work.space is not None:
            arguments[arguments.index(work.space)] = ship_space(work.space, folder)
        packages: dict[str, Any] = {}
        if environment == "lock":
            lock = find_lock()
            if lock is None:
                raise InputError(
                    f"--environment lock: there is no {LOCK_FILE} here; call hkrun in its repository, or "
                    "give the cluster an image with what is needed (docs/cluster.md)"
                )
            (folder / LOCK_FILE).write_text(reduce_lock(lock.read_text(encoding="utf-8")), encoding="utf-8")
            packages["uv"] = {
                "packages": [f"-r ${{RAY_RUNTIME_ENV_CREATE_WORKING_DIR}}/{LOCK_FILE}"],
                "uv_pip_install_options": ["--no-deps", "--require-hashes"],
            }
        check_size(folder, user_files=shipped)
        yield folder, arguments, packages


def _check(
    work: Work, server: JobServer, runtime_env: Mapping[str, Any], *, timeout_s: float
) -> Sequence[Mapping[str, Any]]:
    """Runs `check` on the cluster; returns the nodes' reports."""
    needs = dataclasses.asdict(
        Needs(
            store=work.store,
            data=work.data,
            files=work.files,
            requirements=_requirements(),
            expected=find_expected(),
        )
    )
    job_id = name_job("check")
    argument = json.dumps(needs, separators=(",", ":"))
    try:
        server.submit(
            shlex.join(["python", "-m", check.__name__, argument]),
            job_id=job_id,
            runtime_env=runtime_env,
            metadata={MARK: hkrun.__version__, "kind": "check"},
        )
        job = server.wait(job_id, timeout_s=timeout_s)
        log = server.log(job_id) if job.exit_code is not None else ""
    except BaseException:
        with suppress(HkrunError):
            server.stop(job_id)
        raise
    answer = read_answer(log)
    if answer is None:
        if not job.is_over:
            server.stop(job_id)
        raise ResourceError(_explain_silence(server, job, log, timeout_s))
    with suppress(HkrunError):
        server.forget(job_id)
    if answer["exit_code"]:
        raise _ERRORS[answer["exit_code"]]("\n".join(answer["problems"]))
    for note in answer["notes"]:
        logger.warning("%s", note)
    nodes: Sequence[Mapping[str, Any]] = answer["nodes"]
    _note_client(nodes)
    return nodes


def read_answer(log: str) -> dict[str, Any] | None:
    """The answer of `check` in its log; None where there is none."""
    for line in reversed(log.splitlines()):
        if line.startswith(check.MARK):
            answer: dict[str, Any] = json.loads(line.removeprefix(check.MARK))
            return answer
    return None


def find_expected() -> dict[str, str]:
    """The versions that results are promised for: the lock's, else those that are installed here."""
    lock = find_lock()
    if lock is not None:
        versions = read_versions(lock.read_text(encoding="utf-8"))
        return {name: versions[name] for name in COMPARED if name in versions}
    return find_versions(COMPARED)


def _requirements() -> tuple[str, ...]:
    try:
        return tuple(importlib.metadata.requires("hkrun") or ())
    except importlib.metadata.PackageNotFoundError:
        return ()


def _note_client(nodes: Sequence[Mapping[str, Any]]) -> None:
    """Warns of another Python or Ray on the cluster than here; results do not depend on it."""
    import ray

    here = {"Python": platform.python_version(), "Ray": ray.__version__}
    there = {"Python": nodes[0]["python"], "Ray": nodes[0]["versions"].get("ray", "")}
    for what, version in here.items():
        if there[what] != version:
            logger.warning("the cluster has %s %s, and here it is %s", what, there[what], version)


def _explain_silence(server: JobServer, job: Job, log: str, timeout_s: float) -> str:
    """Why `check` gave no answer, in a line."""
    lines = [line for line in log.splitlines() if line.strip()]
    last = lines[-1][:300] if lines else ""
    if not job.is_over:
        return f"{server.url}: the cluster did not check its nodes in {timeout_s:.0f} s; is it too busy?"
    if job.exit_code == 127:
        return (
            f"{server.url}: the cluster's head finds no `python` for jobs; start Ray there in the "
            f"environment that has hkrun's requirements ({last})"
        )
    return f"{server.url}: the cluster cannot run hkrun: {job.message or last}"


def find_user() -> str:
    """The name of the account that sends jobs from here; empty where it has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
