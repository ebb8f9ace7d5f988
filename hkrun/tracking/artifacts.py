"""Where the files of MLflow's runs lie, also after the store has moved.

MLflow keeps the place of every experiment's and every run's files from the root. After a move it would write
new reports to the old place, and find none of the earlier ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from hkrun.store import Store
from hkrun.tracking.connection import is_own, is_server, local_folder

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def artifact_root(store: Store, uri: str) -> str | None:
    """Where artifacts go, as a URI; None where the server decides."""
    return None if is_server(uri) else (local_folder(store) / "mlartifacts").as_uri()


def renew_locations(client: "MlflowClient", store: Store, uri: str, experiments: Mapping[str, str]) -> None:
    """Makes MLflow look for the files of experiments, given by the sweep's key, where the store is now.

    Only where they moved with it: into the folder that the driver of a remote store works in, and a database
    elsewhere, they did not.
    """
    root = artifact_root(store, uri)
    if root is None or not (store.local_path or is_own(store, uri)):
        return
    for key, experiment_id in experiments.items():
        old, new = client.get_experiment(experiment_id).artifact_location, f"{root}/{key}"
        if old != new and not _is_same_folder(old, root):
            _rewrite(client, experiment_id, old, new)


def _is_same_folder(location: str, root: str) -> bool:
    """Whether an experiment's place lies in the root by another name, such as a link's."""
    folder, ours = (Path(unquote(urlsplit(uri).path)) for uri in (location, f"{root}/x"))
    return folder.parent.exists() and ours.parent.exists() and folder.parent.samefile(ours.parent)


def _rewrite(client: "MlflowClient", experiment_id: str, old: str, new: str) -> None:
    """What MLflow has no call for: the places in its tables."""
    from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlRun
    from sqlalchemy import func, literal, update

    runs, experiments = SqlRun.__table__, SqlExperiment.__table__
    here = int(experiment_id)
    moved = literal(new).concat(func.substr(runs.c.artifact_uri, len(old) + 1))
    below = runs.c.artifact_uri.startswith(f"{old}/", autoescape=True)
    store: Any = client._tracking_client.store
    with store.ManagedSessionMaker(read_only=False) as session:
        session.execute(update(runs).where(runs.c.experiment_id == here, below).values(artifact_uri=moved))
        chosen = experiments.c.experiment_id == here
        session.execute(update(experiments).where(chosen).values(artifact_location=new))
