"""A cluster's job server: sends, lists, follows and stops jobs of hkrun.

Every failure is an HkrunError of one line without the token.
"""

import asyncio
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from hkrun.cluster.jobs.access import Access, past_proxies
from hkrun.cluster.ray_private import UPLOAD_LOGGERS
from hkrun.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_RESOURCES,
    InputError,
    ResourceError,
)

# The key in a job's metadata by which hkrun knows its own; the value is hkrun's version.
MARK = "hkrun"
State = Literal["waiting", "running", "finished", "failed", "stopped"]
_STATES: dict[str, State] = {
    "PENDING": "waiting",
    "RUNNING": "running",
    "SUCCEEDED": "finished",
    "FAILED": "failed",
    "STOPPED": "stopped",
}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
PATIENCE_S = 60.0  # with a job server that does not answer
_PAUSE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, as the job server knows it.

    Attributes:
        exit_code: Its exit status; None while it runs.
        message: How it ended, in a line; may be empty.
        metadata: Kept with it since it was sent.
        started_at: Unix time in seconds; None before it began.
        ended_at: The same of its end.
    """

    id: str
    state: State
    exit_code: int | None
    message: str
    command: str
    metadata: Mapping[str, str]
    started_at: float | None
    ended_at: float | None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("finished", "failed", "stopped")

    def document(self) -> dict[str, object]:
        """The job for JSON documents."""
        names = ("id", "state", "exit_code", "message", "command", "started_at", "ended_at")
        return {**{name: getattr(self, name) for name in names}, "metadata": dict(self.metadata)}


def check_id(job_id: str) -> str:
    """Returns a job's name, if it can stand in a URL.

    Raises:
        InputError: It cannot.
    """
    if _ID.fullmatch(job_id) is None:
        raise InputError(f"{job_id!r} is no job: letters, digits, '.', '_' and '-' are allowed")
    return job_id


def find_exit_code(
    state: State, *, driver_code: int | None, error_type: str | None, began: bool
) -> tuple[int | None, str]:
    """The exit status of a job, and a line on how it ended.

    `driver_code` is its command's exit status, negative for the number of a signal; `error_type` is Ray's
    name of the failure.
    """
    if state == "finished":
        return EXIT_DONE, ""
    if state == "stopped":
        return EXIT_INTERRUPTED, "stopped; what is finished is kept"
    if state != "failed":
        return None, ""
    if driver_code is not None and driver_code > 0:
        return driver_code, ""
    reason = (error_type or "unknown reason").lower().replace("_", " ")
    if driver_code == 0:
        return EXIT_INTERRUPTED, f"it failed ({reason}) although its command ended with 0"
    if driver_code is not None:
        name = signal.Signals(-driver_code).name if -driver_code in set(signal.Signals) else -driver_code
        return EXIT_INTERRUPTED, f"its driver was ended by {name}; what is finished is kept"
    if began:
        return EXIT_INTERRUPTED, f"its driver was lost ({reason}); what is finished is kept"
    return EXIT_RESOURCES, f"it could not be started ({reason})"


class JobServer:
    """The job server that an `Access` leads to.

    Raises:
        ResourceError: It does not answer, here and in every method.
    """

    def __init__(self, access: Access) -> None:
        self.url = access.url
        with self._explained(), _own_address_alone(), _quiet():
            from ray.job_submission import JobSubmissionClient

            self._client = JobSubmissionClient(access.url, headers=dict(access.headers))

    def submit(
        self, command: str, *, job_id: str, runtime_env: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        """Sends a job, under a name that no other has had: a command for a shell on the cluster's head."""
        with self._explained(), _quiet():
            self._client.submit_job(
                entrypoint=command,
                submission_id=check_id(job_id),
                runtime_env=dict(runtime_env),
                metadata=dict(metadata),
            )

    def job(self, job_id: str) -> Job:
        """What is known of a job now.

        Raises:
            InputError: There is none of that name.
        """
        with self._explained(job_id):
            return _read(self._client.get_job_info(check_id(job_id)))

    def jobs(self) -> list[Job]:
        """The jobs of hkrun that the cluster has had, oldest first."""
        with self._explained():
            found = [_read(details) for details in self._client.list_jobs() if details.submission_id]
        ours = [job for job in found if MARK in job.metadata]
        return sorted(ours, key=lambda job: (job.started_at or float("inf"), job.id))

    def log(self, job_id: str) -> str:
        """What a job has printed up to now."""
        with self._explained(job_id):
            return self._client.get_job_logs(check_id(job_id))

    def stop(self, job_id: str) -> None:
        """Asks a job to end: SIGTERM first."""
        with self._explained(job_id):
            self._client.stop_job(check_id(job_id))

    def forget(self, job_id: str) -> None:
        """Removes a job that is over from the list."""
        with self._explained(job_id):
            self._client.delete_job(check_id(job_id))

    def follow(self, job_id: str, write: Callable[[str], None]) -> Job:
        """Writes all that a job prints until it is over, once, also over broken connections; returns the job.

        Raises:
            ResourceError: The job server did not answer for a minute.
        """
        shown = 0
        answered_at = time.monotonic()
        while True:
            try:
                with _quiet():
                    shown = asyncio.run(self._tail(job_id, write, shown))
                job = self.job(job_id)
                answered_at = time.monotonic()
                if job.is_over:
                    rest = self.log(job_id)[shown:]
                    write(rest)
                    return job
            except ResourceError:
                if time.monotonic() - answered_at > PATIENCE_S:
                    raise
            time.sleep(_PAUSE_S)

    async def _tail(self, job_id: str, write: Callable[[str], None], shown: int) -> int:
        """Writes what follows the characters that were shown; returns their new number."""
        import aiohttp

        seen = 0
        texts = aiter(self._client.tail_job_logs(check_id(job_id)))
        while True:
            try:
                text = await anext(texts)
            except StopAsyncIteration:
                return shown
            except (aiohttp.ClientError, OSError, RuntimeError):
                return shown  # the caller asks for the job's state, and calls again
            seen += len(text)
            if seen > shown:
                write(text[len(text) - (seen - shown) :])  # its errors are the reader's, not the connection's
                shown = seen

    def wait(self, job_id: str, *, timeout_s: float) -> Job:
        """Waits until a job is over, or for so many seconds; returns the job.

        Raises:
            ResourceError: The job server did not answer for a minute.
        """
        answered_at = time.monotonic()
        deadline = answered_at + timeout_s
        while True:
            try:
                job = self.job(job_id)
                answered_at = time.monotonic()
                if job.is_over or answered_at >= deadline:
                    return job
            except ResourceError:
                if time.monotonic() - answered_at > PATIENCE_S:
                    raise
            time.sleep(_PAUSE_S / 2)

    @contextmanager
    def _explained(self, job_id: str = "") -> Iterator[None]:
        """Turns what Ray and requests raise into one error of one line."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            with past_proxies(self.url):
                yield
        except AuthenticationError:
            raise ResourceError(f"{self.url}: does not take the token any more") from None
        except (requests.exceptions.RequestException, OSError) as error:
            raise ResourceError(f"{self.url}: no answer ({type(error).__name__})") from None
        except RuntimeError as error:
            if job_id and "404" in str(error):
                raise InputError(
                    f"{job_id}: no such job at {self.url}; hkrun status --address lists them"
                ) from None
            raise ResourceError(f"{self.url}: {' '.join(str(error).split())[:500]}") from None


def _read(details: Any) -> Job:
    """A job, of what Ray tells of it."""
    state = _STATES[str(getattr(details.status, "value", details.status))]
    exit_code, message = find_exit_code(
        state,
        driver_code=details.driver_exit_code,
        error_type=details.error_type,
        began=details.driver_agent_http_address is not None,
    )
    if state == "failed" and details.driver_exit_code is None and details.message:
        lines = (line.strip() for line in details.message.splitlines())
        message = f"{message}: {next(filter(None, lines), '')}"
    metadata = {str(name): str(value) for name, value in (details.metadata or {}).items()}
    return Job(
        id=details.submission_id,
        state=state,
        exit_code=exit_code,
        message=message,
        command=metadata.get("command", details.entrypoint),
        metadata=metadata,
        started_at=details.start_time / 1000 if details.start_time else None,
        ended_at=details.end_time / 1000 if details.end_time else None,
    )


@contextmanager
def _own_address_alone() -> Iterator[None]:
    """Hides the variables by which Ray would go to another address than the given one."""
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Ray's messages on uploads from the terminal."""
    loggers = [logging.getLogger(name) for name in UPLOAD_LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
