"""What MLflow already has of a sweep."""

from hkrun.spaces import Sweep
from hkrun.store import Store
from hkrun.tracking.connection import connect, explained, resolve_uri
from hkrun.tracking.database import advised, database_path
from hkrun.tracking.experiments import find_experiments
from hkrun.tracking.view import Links, find_links


def find_mirror(sweep: Sweep, store: Store) -> Links | None:
    """The links to a sweep that was mirrored before; None where MLflow does not have it. Nothing is written.

    Raises:
        StoreError: MLflow cannot be reached.
        InputError: MLFLOW_TRACKING_URI cannot be used.
    """
    uri = resolve_uri(store)
    database = database_path(uri)
    if database is not None and not database.exists():
        return None
    with advised(), explained(uri):
        client = connect(uri)
        experiment = find_experiments(client, store).get(f"{sweep.name}-{sweep.dataset}")
        return find_links(client, uri, experiment) if experiment is not None else None
