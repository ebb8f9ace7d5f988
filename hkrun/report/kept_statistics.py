"""What the statistics of a large study gave, kept beside its report for the next one."""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import hkrun
from hkrun import stats
from hkrun.errors import StoreError
from hkrun.spaces import Sweep
from hkrun.store import Store

STATISTICS_FILE = "statistics.json"
LEAST_RUNS = 1_000  # of fewer, all is computed in less than a second
_SOURCES = (".py", ".toml", ".html", ".md", ".tex", ".css", ".js")

log = logging.getLogger("hkrun")
_study: ContextVar[tuple[str, str] | None] = ContextVar("study", default=None)


@functools.cache
def describe_makers() -> str:
    """SHA-256 of what makes reports and their numbers: hkrun's own files, and the libraries' versions."""
    digest = hashlib.sha256()
    package = Path(hkrun.__file__).parent
    for path in sorted(path for path in package.rglob("*") if path.suffix in _SOURCES):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    for name in ("numpy", "scipy", "matplotlib"):
        digest.update(f"{name} {importlib.metadata.version(name)}\0".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def remembering_statistics(sweep: Sweep, store: Store) -> Iterator[None]:
    """Within the block nothing is computed twice; of a large study, nothing that an earlier report has.

    What is kept is found by a digest of the very numbers it was computed from. What is damaged or of other
    code is not used; where the store cannot be written, nothing is kept. A block that breaks off, by Ctrl-C
    or a reader of its output that is gone, keeps what it had computed, and what it had not come to stays.
    Such a block within one of the same study is part of it.
    """
    memory, folder = stats.Memory(), store.sweep_folder(sweep.name, sweep.dataset)
    if _study.get() == (store.place, folder):
        yield
        return
    large = len(sweep.cells) * len(sweep.seeds) >= LEAST_RUNS
    if large:
        _load(memory, store, folder)
    known = set(memory.given)
    token = _study.set((store.place, folder))
    try:
        with stats.remembering(memory):
            yield
    except BaseException:
        memory.used |= memory.given.keys()  # the next report will ask for what this one has not come to
        raise
    finally:
        _study.reset(token)
        if large and not memory.used <= known:
            _keep(memory, store, folder)


def _keep(memory: stats.Memory, store: Store, folder: str) -> None:
    content = json.dumps({"makers": describe_makers(), "statistics": memory.dump()}).encode()
    try:
        if store.names(folder):  # a study that was never started has no folder, and none is made for this
            store.commit(folder, {STATISTICS_FILE: content}, keep=None)
    except StoreError as error:
        log.debug("the statistics are not kept: %s", error.message)


def _load(memory: stats.Memory, store: Store, folder: str) -> None:
    try:
        document = json.loads(store.read(folder, STATISTICS_FILE))
        if document["makers"] == describe_makers():
            memory.load(document["statistics"])
    except (StoreError, KeyError, TypeError, ValueError) as error:
        log.debug("no kept statistics: %s", error)
