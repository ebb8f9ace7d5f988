"""MLflow's SQLite file: its URI, how it is made, and what is done when it is damaged."""

import contextlib
import fcntl
import logging
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from hkrun.errors import StoreError

logger = logging.getLogger(__name__)

LOCKED_S = 20.0  # how long another process may hold the file, as MLflow itself waits
_SQLITE = "sqlite:///"
_SCHEMES = ("sqlite:", "sqlite+pysqlite:")
_PLAIN = re.compile(r"[\w./+ -]+")  # paths that are the same quoted, and need no SQLAlchemy, half a second
# SQLite's codes for a file that is no database, is malformed, or lacks a table or a column. The others are a
# lock, a full disk, no permission and the like, which pass.
_DAMAGE_CODES = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


# Alembic, which makes the schema, keeps what it works on in globals.
_making = threading.Lock()


class DamagedDatabaseError(StoreError):
    """The SQLite file cannot be used any more; what it held is in the store."""


def database_uri(path: Path) -> str:
    """The URI of a SQLite file, quoted as SQLAlchemy 2.1 reads it.

    Where quotes are needed the URI names the driver: MLflow takes what follows `sqlite:///` for the path as
    it stands, and makes a folder of that name.
    """
    if _PLAIN.fullmatch(str(path)):
        return f"{_SQLITE}{path}"
    from sqlalchemy.engine import URL

    return URL.create("sqlite+pysqlite", database=str(path)).render_as_string()


def database_path(uri: str) -> Path | None:
    """The SQLite file that a URI names; None where it names something else.

    Raises:
        ValueError: It names no file: a database in memory, or what SQLAlchemy takes for another path than it
            looks like. The message holds nothing of the URI.
    """
    if not uri.startswith(_SCHEMES):
        return None
    if _PLAIN.fullmatch(path := uri.removeprefix(_SQLITE)):
        return Path(path).absolute()
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except ArgumentError:
        raise ValueError("it cannot be understood") from None
    if url.host:
        raise ValueError("three slashes come before a path, four before one from the root")
    if not url.database or ":memory:" in url.database or "mode=memory" in uri:
        raise ValueError("a database in memory ends with the process, and what it was given with it")
    if url.database.startswith("file:"):
        raise ValueError("give the path itself, without 'file:'")
    if "?" in uri:
        raise ValueError("it takes no options, and in a path '?' is written %3F")
    return Path(url.database).absolute()


def check_opens(path: Path) -> None:
    """Looks into the file: MLflow would try ten times, for 100 s, to open one that cannot be opened.

    Raises:
        sqlite3.Error: It cannot be read, or holds no schema of MLflow's.
    """
    with contextlib.closing(sqlite3.connect(path, timeout=LOCKED_S)) as database:
        database.execute("SELECT version_num FROM alembic_version").fetchall()


def check_whole(path: Path) -> None:
    """Reads every page of the file, and looks for rows of what is not there: seconds for a large one.

    Raises:
        DamagedDatabaseError: It is damaged.
        sqlite3.Error: It cannot be read.
    """
    with contextlib.closing(sqlite3.connect(path, timeout=LOCKED_S)) as database:
        ((found,),) = database.execute("PRAGMA quick_check(1)")
        orphan = database.execute("PRAGMA foreign_key_check").fetchone() if found == "ok" else None
    if found != "ok":
        raise damaged(path, " ".join(found.split()))
    if orphan is not None:
        table, _, parent, _ = orphan
        raise damaged(path, f"a row of {table} belongs to none of {parent}")


def damaged(path: Path, reason: str) -> DamagedDatabaseError:
    """The error for a file that is of no more use."""
    return DamagedDatabaseError(f"MLflow's database {path} is damaged ({reason})")


@contextlib.contextmanager
def advised() -> Iterator[None]:
    """Adds what mends a damaged database to its error, for commands that only read."""
    try:
        yield
    except DamagedDatabaseError as error:
        raise StoreError(f"{error.message}; `hkrun sync` makes a new one from the store") from error


def describe_damage(error: BaseException) -> str:
    """Why a database is of no more use, in words; empty where an error has another cause."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST, INTERNAL_ERROR, ErrorCode

    link: BaseException | None = error
    while link is not None:
        if isinstance(link, (OSError, MemoryError, AssertionError, ImportError)):
            return ""  # of the machine, or a mistake in a program
        if isinstance(link, sqlite3.Error):
            # What cannot be decoded has no code.
            code = getattr(link, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
            return str(link) if code & 0xFF in _DAMAGE_CODES else ""
        link = link.__cause__ or link.__context__
    if isinstance(error, MlflowException) and error.error_code not in (
        ErrorCode.Name(INTERNAL_ERROR),  # what it reads makes no sense, or the schema is not its own
        ErrorCode.Name(BAD_REQUEST),
    ):
        return ""
    return " ".join(str(error).partition(". ")[0].split())[:200] or type(error).__name__


def file_number(path: Path) -> int | None:
    """What tells the file from another one under its name; None where there is none."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


def make_database(path: Path) -> None:
    """Creates MLflow's schema, once: several processes that open a fresh database at a time leave it broken.

    The file appears under its name only when the schema is complete, so a kill in the middle leaves nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _making, _locked(path):
        if path.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        unfinished = path.with_name(f".{path.name}.new")
        unfinished.unlink(missing_ok=True)
        artifacts = (path.parent / "mlartifacts").as_uri()
        database = SqlAlchemyStore(database_uri(unfinished), artifacts)  # type: ignore[no-untyped-call]
        database.engine.dispose()
        unfinished.replace(path)


def put_aside(path: Path, seen: int | None, problem: str) -> None:
    """Renames a damaged file and says so, unless another process has: then it is no longer the one seen.

    `seen` is its `file_number` when it was opened.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with _locked(path):
        if seen is not None and file_number(path) == seen:
            names = (path.with_name(f"{path.name}.damaged-{number}") for number in range(1, 1_000_000))
            aside = next(name for name in names if not name.exists())
            # SQLite would play the journal of the old file into the new one.
            for part in ("-wal", "-shm", "-journal"):
                with contextlib.suppress(FileNotFoundError):
                    path.with_name(path.name + part).rename(aside.with_name(aside.name + part))
            path.rename(aside)
            logger.warning("%s: kept as %s, and a new one is filled from the store", problem, aside.name)
    # MLflow keeps an engine for each URI, and its open connections lead to the old file.
    engine = SqlAlchemyStore._engine_map.get(database_uri(path))
    if engine is not None:
        engine.dispose()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
