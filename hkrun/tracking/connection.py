"""Where MLflow is, and a client for it that says nothing in the terminal."""

import contextlib
import logging
import os
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from hkrun.errors import InputError, StoreError
from hkrun.redaction import redact, redact_text
from hkrun.store import Store
from hkrun.tracking.database import (
    check_opens,
    damaged,
    database_path,
    database_uri,
    describe_damage,
    make_database,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

URI_VARIABLE = "MLFLOW_TRACKING_URI"
USER_VARIABLE = "MLFLOW_TRACKING_USERNAME"
PASSWORD_VARIABLE = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105  a name
TOKEN_VARIABLE = "MLFLOW_TRACKING_TOKEN"  # noqa: S105  a name
MLFLOW_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
# Within which a database elsewhere must let us in, a server take a connection, and answer the first request.
DATABASE_ANSWER_S, SERVER_CONNECTION_S, SERVER_ANSWER_S = 5.0, 5.0, 8.0
# Those of MLflow's settings whose defaults do not suit a mirror: a dead server would cost minutes per call.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def resolve_uri(store: Store) -> str:
    """Says where MLflow is: MLFLOW_TRACKING_URI where it is set, else a SQLite file.

    The file lies in a local store; for a remote one, in the working directory.

    Raises:
        InputError: MLFLOW_TRACKING_URI names a place that MLflow cannot write to, or that keeps nothing.
    """
    return given_uri() or database_uri(local_folder(store) / "mlflow.db")


def given_uri() -> str | None:
    """What MLFLOW_TRACKING_URI says; None where it is not set.

    Raises:
        InputError: It names a place that MLflow cannot write to, or that keeps nothing.
    """
    uri = os.environ.get(URI_VARIABLE, "")
    if not uri:
        return None
    try:
        return _read_uri(uri)
    except ValueError as error:
        raise InputError(
            f"{URI_VARIABLE}: {redact(uri)!r} cannot be used{error}; give http(s)://HOST:PORT, "
            "sqlite:////PATH/mlflow.db or postgresql://..., or unset it for a database in the store"
        ) from None


def _read_uri(uri: str) -> str:
    scheme, slashes, rest = uri.partition("://")
    if not slashes or scheme.partition("+")[0] not in MLFLOW_SCHEMES or (is_server(uri) and not rest):
        raise ValueError("")
    try:
        path = database_path(uri)
    except ValueError as error:
        raise ValueError(f": {error}") from None
    return uri if path is None else database_uri(path)


def is_own(store: Store, uri: str) -> bool:
    """Whether MLflow is where hkrun put it, and not where MLFLOW_TRACKING_URI says."""
    return not os.environ.get(URI_VARIABLE) and uri == resolve_uri(store)


def local_folder(store: Store) -> Path:
    """Where what belongs to MLflow lies on this machine: the store, or for a remote one here."""
    return store.local_path.absolute() if store.local_path else Path.cwd()


def is_server(uri: str) -> bool:
    """Whether MLflow is reached through its HTTP server rather than through its database."""
    return urlsplit(uri).scheme in ("http", "https")


def load() -> None:
    """Imports MLflow, which takes seconds, and keeps it and what it stands on out of the terminal."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Deprecations of one of MLflow's dependencies by another are not for our users.
    warnings.filterwarnings("ignore", module=r"mlflow|alembic|sqlalchemy")
    import mlflow.tracking  # noqa: F401

    for name in ("mlflow", "alembic", "sqlalchemy", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters comes back as an exception


def connect(uri: str, *, create: bool = True) -> "MlflowClient":
    """Opens MLflow; makes the database first where it is a SQLite file that does not exist yet.

    Without `create`, for reading, nothing is made, and the file must be there.

    Raises:
        StoreError: It cannot be reached; DamagedDatabaseError: it is a SQLite file of no more use.
    """
    check_listens(uri)
    load()
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from mlflow.tracking import MlflowClient

    with explained(uri):
        path = database_path(uri)
        if path is not None:
            if create:
                make_database(path)
            check_opens(path)
        elif not is_server(uri) and not uri.startswith("file:"):
            # MLflow would try ten times, for 100 s, each for as long as it takes.
            engine = create_sqlalchemy_engine(uri)  # type: ignore[no-untyped-call]  # imports the driver
            _await_answer(uri, lambda: engine.connect().close(), DATABASE_ANSWER_S)
            engine.dispose()
        client = MlflowClient(tracking_uri=uri)

        def look() -> None:
            client.search_experiments(max_results=1)

        if is_server(uri):
            _await_answer(uri, look, SERVER_ANSWER_S)
        else:
            look()
    return client


def check_listens(uri: str) -> None:
    """Looks whether anything takes connections where a server should be, without importing MLflow.

    What is behind a proxy only the proxy reaches: such a server is not looked for, nor is a database.

    Raises:
        StoreError: Nothing does.
    """
    if not is_server(uri):
        return
    with explained(uri):
        place = urlsplit(uri)
        host, port = place.hostname, place.port or (443 if place.scheme == "https" else 80)
        if host is None or ({place.scheme, "all"} & getproxies().keys() and not proxy_bypass(host)):
            return

        def knock() -> None:
            socket.create_connection((host, port), timeout=SERVER_CONNECTION_S).close()

        _await_answer(uri, knock, SERVER_CONNECTION_S)


def _await_answer(uri: str, ask: Callable[[], None], limit_s: float) -> None:
    """Asks, and waits so long for the answer.

    In a thread: drivers of databases call the limit by different names, MLflow tries a server twice, and
    none of them counts the look-up of a host's name.
    """
    outcome: list[Exception | None] = []

    def work() -> None:
        try:
            ask()
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=work, name="hkrun-mlflow-answer", daemon=True)
    thread.start()
    thread.join(limit_s)
    if not outcome:
        raise StoreError(f"MLflow at {redact(uri)} did not answer within {limit_s:.0f} s")
    if outcome[0] is not None:
        raise outcome[0]


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turns whatever MLflow raises into one StoreError of one line; DamagedDatabaseError where that is why.

    MLflow lets exceptions of requests, urllib3, SQLAlchemy and its own through; there is no narrower root.
    """
    try:
        yield
    except (StoreError, InputError):
        raise
    except Exception as error:
        path = database_path(uri)
        if path is not None and (reason := describe_damage(error)):
            raise damaged(path, reason) from error
        raise StoreError(f"MLflow at {redact(uri)}{_explain(error, uri)}") from error


def _explain(error: Exception, uri: str) -> str:
    """What went wrong, to follow the place: what to set where that helps, else MLflow's own words."""
    user = os.environ.get(USER_VARIABLE) or urlsplit(uri).username
    match _http_status(error):
        case HTTPStatus.UNAUTHORIZED if user:
            return f" refuses user {user!r} with this password; see {USER_VARIABLE} and {PASSWORD_VARIABLE}"
        case HTTPStatus.UNAUTHORIZED if os.environ.get(TOKEN_VARIABLE):
            return f" refuses the token in {TOKEN_VARIABLE}"
        case HTTPStatus.UNAUTHORIZED:
            return f" asks for a user and a password; set {USER_VARIABLE} and {PASSWORD_VARIABLE}"
        case HTTPStatus.FORBIDDEN:
            who = f"user {user!r}" if user else "you"
            whose = "this sweep's experiment, which is another's; its owner can grant MANAGE"
            return f": {who} may not change {whose}"
    if (failure := _find_failure(error)) is not None:
        return f" cannot be reached: {failure.strerror or failure}"
    reason = " ".join(redact_text(str(error), known=[uri]).split())
    shortened = reason if len(reason) <= 200 else f"{reason[:200]}..."
    return f": {type(error).__name__}: {shortened}"


def _find_failure(error: BaseException | None) -> OSError | None:
    """The failure of the network behind what MLflow, requests and urllib3 made of it; None where none is."""
    while error is not None:
        if isinstance(error, ConnectionError | socket.gaierror) and type(error).__module__ in (
            "builtins",
            "socket",
        ):
            return error
        error = error.__cause__ or error.__context__
    return None


def _http_status(error: Exception) -> int | None:
    """The status a server answered with, from MLflow's own exception or from the one of its uploads."""
    if hasattr(error, "get_http_status_code"):
        return int(error.get_http_status_code())
    return getattr(getattr(error, "response", None), "status_code", None)
