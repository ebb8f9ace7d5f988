"""The mirror while a sweep runs: a thread of the driver, so that training never waits for MLflow."""

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Self

from hkrun.errors import HkrunError
from hkrun.redaction import redact
from hkrun.spaces import Sweep
from hkrun.store import Store
from hkrun.tracking.connection import connect, is_server, load, resolve_uri
from hkrun.tracking.database import database_path
from hkrun.tracking.mirror import Experiment
from hkrun.tracking.receipt import Summaries, describe_content, find_receipt, run_digests
from hkrun.tracking.view import Links

# How long the end of a sweep waits for an MLflow without progress: one across a network may be away. A file,
# and a database that has let us in and makes its tables, may be slow, but not away.
SERVER_STALL_S, DATABASE_STALL_S = 8.0, 60.0
_LATER = "nothing is lost: the store has it all, and `hkrun sync` brings MLflow up to date later"


class Mirror:
    """Mirrors runs as they end. MLflow's failures cost one warning line, never a run.

    The thread starts with `prepare`, else with the first run. It gets names, not data, and reads records and
    curves from the store, so its memory stays flat. It stops at the first failure; `finish` tries once more
    from the beginning, in case MLflow came back. Without training, and with a receipt in the store, MLflow is
    not even imported. Used as a context manager it ends the thread, also where the sweep ends without
    `finish`. `warn` takes the line that says what went wrong.

    Raises:
        InputError: MLFLOW_TRACKING_URI cannot be used.
    """

    def __init__(
        self, sweep: Sweep, store: Store, *, warn: Callable[[str], None], world_size: int = 1
    ) -> None:
        self._sweep = sweep
        self._store = store
        self._uri = resolve_uri(store)
        self._warn = warn
        self._world_size = world_size
        self._jobs: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()
        self._ending: tuple[Summaries, Mapping[str, bytes]] | None = None
        self._loaded = threading.Event()
        self._progress = threading.Event()
        self._opened = False
        self._links: Links | None = None
        self._warned = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.put(None)  # ends a thread that waits for more; one that `finish` gave up on goes on

    def prepare(self) -> None:
        """Has MLflow imported and its database made, once, before there is a run. Returns at once.

        Both take seconds, which the end of a sweep would wait for where its runs all end together.
        """
        self._start()

    def run_done(self, cell_id: str, seed: int) -> None:
        """Says that the store has the record of a run. Returns at once."""
        self._jobs.put((cell_id, seed))
        self._start()

    def finish(self, *, summaries: Summaries, files: Mapping[str, bytes]) -> Links | None:
        """Mirrors what is left, the summaries by cell_id, the report's files by name and the comparison view.

        Waits as long as MLflow makes progress, and a few seconds where it makes none.

        Returns:
            The links, or None where MLflow is not up to date; the warning has been given then.
        """
        if self._thread is None:
            runs = run_digests(self._sweep, self._store, world_size=self._world_size)
            content = describe_content(self._sweep, runs, summaries=summaries, files=files)
            links = find_receipt(self._sweep, self._store, uri=self._uri, content=content)
            if links is not None:
                return links
        self._ending = (summaries, files)
        self._jobs.put(None)
        thread = self._start()
        self._loaded.wait()
        patience = self._patience_s()
        while thread.is_alive():
            self._progress.clear()
            thread.join(0.05)
            patience = self._patience_s()
            if thread.is_alive() and not self._progress.wait(patience):
                break
        if self._links is None:
            self._complain(f"MLflow at {redact(self._uri)} did not answer within {patience:.0f} s")
        return self._links

    def _patience_s(self) -> float:
        at_work = self._opened and database_path(self._uri) is None
        return SERVER_STALL_S if at_work or is_server(self._uri) else DATABASE_STALL_S

    def _start(self) -> threading.Thread:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="hkrun-mlflow", daemon=True)
            self._thread.start()
        return self._thread

    def _work(self) -> None:
        try:
            load()
        finally:
            self._loaded.set()
        if self._jobs.empty():
            with contextlib.suppress(HkrunError):  # which the first run brings up again
                connect(self._uri)
        job = self._jobs.get()
        if job is None and self._ending is None:
            return
        try:
            experiment = self._open()
            while job is not None:
                experiment.add(*job)
                job = self._jobs.get()
            if self._ending is not None:
                self._end(experiment)
        except HkrunError as error:
            self._complain(error.message)
            self._retry()
        self._progress.set()

    def _retry(self) -> None:
        """Waits for the end of the sweep, and mirrors all of it where `finish` asks for it."""
        while self._ending is None and self._jobs.get() is not None:
            pass
        if self._ending is not None:
            with contextlib.suppress(HkrunError):
                self._end(self._open())

    def _complain(self, problem: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(f"{problem}; {_LATER}")

    def _open(self) -> Experiment:
        experiment = Experiment(
            self._sweep, self._store, world_size=self._world_size, progress=self._progress.set
        )
        self._opened = True
        self._progress.set()
        return experiment

    def _end(self, experiment: Experiment) -> None:
        assert self._ending is not None, "only `finish` asks for it"
        summaries, files = self._ending
        self._links = experiment.complete(summaries=summaries, files=files).links
