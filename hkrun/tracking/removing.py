"""MLflow's copy of studies that go: their experiments into MLflow's own trash, which can give them back."""

from collections.abc import Collection
from dataclasses import dataclass

from hkrun.redaction import redact
from hkrun.spaces import Sweep
from hkrun.store import Store
from hkrun.tracking.connection import connect, explained, resolve_uri
from hkrun.tracking.database import advised, database_path
from hkrun.tracking.experiments import find_experiments


@dataclass(frozen=True, kw_only=True)
class MirroredStudy:
    """A study's experiment in MLflow.

    Attributes:
        uri: Where MLflow is, without any password.
        experiment_id: MLflow's name of the experiment.
        name: Ours and the UI's.
    """

    uri: str
    experiment_id: str
    name: str


def experiment_key(sweep: Sweep) -> str:
    """What the experiment of a study is known by."""
    return f"{sweep.name}-{sweep.dataset}"


def find_mirrored(
    store: Store, *, only: str | None = None, without: Collection[str] = ()
) -> list[MirroredStudy]:
    """The experiments of a store's studies, also of studies that are gone. Nothing is written.

    Args:
        store: Whose they are, by its mark.
        only: The key of the one that is looked for.
        without: Keys of those that are left out.

    Raises:
        StoreError: MLflow cannot be reached.
        InputError: MLFLOW_TRACKING_URI cannot be used.
    """
    uri = resolve_uri(store)
    database = database_path(uri)
    if database is not None and not database.exists():
        return []
    with advised(), explained(uri):
        client = connect(uri, create=False)
        found = {
            key: identity
            for key, identity in find_experiments(client, store).items()
            if key not in without and only in (None, key)
        }
        return [
            MirroredStudy(uri=redact(uri), experiment_id=identity, name=client.get_experiment(identity).name)
            for identity in found.values()
        ]


def remove_mirrored(store: Store, studies: Collection[MirroredStudy]) -> None:
    """Puts experiments into MLflow's trash.

    Raises:
        StoreError: MLflow cannot be reached, or does not let us.
        InputError: MLFLOW_TRACKING_URI cannot be used.
    """
    uri = resolve_uri(store)
    with advised(), explained(uri):
        client = connect(uri, create=False)
        for study in studies:
            client.delete_experiment(study.experiment_id)
