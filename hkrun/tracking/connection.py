"""Where MLflow is, and a client for it that says nothing in the terminal."""

import contextlib
import fcntl
import logging
import os
import uuid
import warnings
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hkrun.errors import InputError, StoreError
from hkrun.redaction import redact, redact_text
from hkrun.store import Store

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

URI_VARIABLE = "MLFLOW_TRACKING_URI"
USER_VARIABLE = "MLFLOW_TRACKING_USERNAME"
PASSWORD_VARIABLE = "MLFLOW_TRACKING_PASSWORD"  # noqa: S105  a name
TOKEN_VARIABLE = "MLFLOW_TRACKING_TOKEN"  # noqa: S105  a name
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
SQLITE = "sqlite:///"
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
        InputError: MLFLOW_TRACKING_URI names a place that MLflow cannot write to.
    """
    uri = os.environ.get(URI_VARIABLE, "")
    if not uri:
        return f"{SQLITE}{_local_folder(store) / 'mlflow.db'}"
    if urlsplit(uri).scheme.partition("+")[0] not in _SCHEMES:
        raise InputError(
            f"{URI_VARIABLE}: {redact(uri)!r} cannot be used; give http(s)://HOST:PORT, "
            "sqlite:////PATH/mlflow.db or postgresql://..., or unset it for a database in the store"
        )
    return uri


def artifact_root(store: Store, uri: str) -> str | None:
    """Where artifacts go, as a URI; None where the server decides."""
    return None if is_server(uri) else (_local_folder(store) / "mlartifacts").as_uri()


def _local_folder(store: Store) -> Path:
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


def connect(uri: str) -> "MlflowClient":
    """Opens MLflow; makes the database first where it is a SQLite file that does not exist yet.

    Raises:
        StoreError: It cannot be reached.
    """
    load()
    from mlflow.tracking import MlflowClient

    with explained(uri):
        if uri.startswith(SQLITE):
            _make_database(Path(uri.removeprefix(SQLITE)).absolute())
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turns whatever MLflow raises into one StoreError of one line.

    MLflow lets exceptions of requests, urllib3, SQLAlchemy and its own through; there is no narrower root.
    """
    try:
        yield
    except (StoreError, InputError):
        raise
    except Exception as error:
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
    reason = " ".join(redact_text(str(error), known=[uri]).split())
    shortened = reason if len(reason) <= 200 else f"{reason[:200]}..."
    return f": {type(error).__name__}: {shortened}"


def _http_status(error: Exception) -> int | None:
    """The status a server answered with, from MLflow's own exception or from the one of its uploads."""
    if hasattr(error, "get_http_status_code"):
        return int(error.get_http_status_code())
    return getattr(getattr(error, "response", None), "status_code", None)


def _make_database(path: Path) -> None:
    """Creates MLflow's schema, once: several processes that open a fresh database at a time leave it broken.

    The file appears under its name only when the schema is complete, so a kill in the middle leaves nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        unfinished = path.with_name(f".{path.name}.new")
        unfinished.unlink(missing_ok=True)
        artifacts = str(path.parent / "mlartifacts")
        database = SqlAlchemyStore(f"{SQLITE}{unfinished}", artifacts)  # type: ignore[no-untyped-call]
        database.engine.dispose()
        unfinished.replace(path)


def store_identity(store: Store) -> str:
    """A name of the store that stays with it when it moves, so that stores that share a server stay apart."""
    folder, name = "mlflow", "identity.txt"
    if store.is_committed(folder):
        return store.read(folder, name).decode()
    identity = uuid.uuid4().hex[:12]
    store.commit(folder, {name: identity.encode()})
    return identity
