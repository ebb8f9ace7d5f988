"""Which of MLflow's experiments is a sweep's: the one with the store's mark, else the one with its runs.

The mark is in the store (`mlflow/identity.txt`) and in a tag of the experiment. Where it was lost in either
place the runs themselves tell: none is mirrored a second time.
"""

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from hkrun.spaces import Sweep
from hkrun.store import DamagedError, NotCommittedError, Store
from hkrun.tracking.connection import is_own, is_server, local_folder

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run
    from mlflow.tracking import MlflowClient

STORE_TAG, SWEEP_TAG = "hkrun.store", "hkrun.sweep"
_FOLDER, _FILE = "mlflow", "identity.txt"


def artifact_root(store: Store, uri: str) -> str | None:
    """Where artifacts go, as a URI; None where the server decides."""
    return None if is_server(uri) else (local_folder(store) / "mlartifacts").as_uri()


def renew_locations(client: "MlflowClient", store: Store, uri: str, experiments: Mapping[str, str]) -> None:
    """Makes MLflow look for the files of experiments, given by the sweep's key, where the store is now.

    MLflow keeps the place of every experiment's and every run's files from the root. After a move it would
    write new reports to the old place, and find none of the earlier ones. Only where they moved with it: into
    the folder that the driver of a remote store works in, and a database elsewhere, they did not.
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


def read_identity(store: Store) -> str | None:
    """The store's mark, which stays with it when it moves; None where it has none, or it is damaged."""
    try:
        return store.read(_FOLDER, _FILE).decode()
    except (NotCommittedError, DamagedError):
        return None


def find_experiments(client: "MlflowClient", store: Store, *, deleted: bool = False) -> dict[str, str]:
    """The experiments with the store's mark: the sweep's key -> experiment id, newest first."""
    identity = read_identity(store)
    if identity is None:
        return {}
    found: dict[str, str] = {}
    for experiment in _search(client, f"tags.`{STORE_TAG}` = '{identity}'", deleted=deleted):
        if SWEEP_TAG in experiment.tags:
            found.setdefault(experiment.tags[SWEEP_TAG], experiment.experiment_id)
    return found


def open_experiment(
    client: "MlflowClient", store: Store, sweep: Sweep, *, uri: str, cell_ids: Collection[str]
) -> str:
    """The id of the sweep's experiment, made where there is none, restored where it was deleted."""
    key = f"{sweep.name}-{sweep.dataset}"
    existing = find_experiments(client, store).get(key)
    if existing is None:
        existing = find_experiments(client, store, deleted=True).get(key)
        if existing is not None:
            client.restore_experiment(existing)
    if existing is None:
        existing = _recognise(client, store, sweep, key, cell_ids)
    if existing is None:
        return _make(client, store, sweep, key, uri=uri)
    renew_locations(client, store, uri, {key: existing})
    return existing


def _recognise(
    client: "MlflowClient", store: Store, sweep: Sweep, key: str, cell_ids: Collection[str]
) -> str | None:
    """The experiment that holds a run of the store, whatever its mark; both get the same one.

    Looked at are the experiments of the sweep, and those of its name that have lost their tags.
    """
    # Earlier versions called it "NAME (DATASET)".
    named = _search(client, f"name LIKE '{sweep.name} %{sweep.dataset}%'")
    found = [
        *_search(client, f"tags.`{SWEEP_TAG}` = '{key}'"),
        *(x for x in named if SWEEP_TAG not in x.tags),
    ]
    experiments = {experiment.experiment_id: experiment for experiment in found}
    if not experiments:
        return None
    for cell_id in cell_ids:
        # No two runs of a seed begin in the same millisecond, so this is the store's run and not another's.
        ours = {(str(record.seed), round(1000 * record.started_at)) for record in store.records(cell_id)}
        for run in search_runs(client, list(experiments), f"tags.`hkrun.cell_id` = '{cell_id}'"):
            if (run.data.tags.get("hkrun.seed"), run.info.start_time) in ours:
                experiment = experiments[run.info.experiment_id]
                identity = read_identity(store) or _keep_identity(store, experiment.tags.get(STORE_TAG))
                for tag, value in ((SWEEP_TAG, key), (STORE_TAG, identity)):
                    if experiment.tags.get(tag) != value:
                        client.set_experiment_tag(experiment.experiment_id, tag, value)
                return str(experiment.experiment_id)
    return None


def _name(sweep: Sweep) -> str:
    return f"{sweep.name} on {sweep.dataset}"


def _keep_identity(store: Store, identity: str | None) -> str:
    kept = identity or uuid.uuid4().hex[:12]
    store.commit(_FOLDER, {_FILE: kept.encode()})
    return kept


def _make(client: "MlflowClient", store: Store, sweep: Sweep, key: str, *, uri: str) -> str:
    identity = read_identity(store) or _keep_identity(store, None)
    name = _name(sweep)
    if client.get_experiment_by_name(name) is not None:
        name = f"{name} [{identity}]"  # the sweep of another store on the same server
    tags = {
        SWEEP_TAG: key,
        STORE_TAG: identity,
        "mlflow.note.content": f"{sweep.title}. {sweep.question}".strip(),
        "mlflow.experimentKind": "custom_model_development",
    }
    root = artifact_root(store, uri)
    location = f"{root}/{key}" if root else None
    experiment_id: str = client.create_experiment(name, artifact_location=location, tags=tags)
    return experiment_id


def _search(client: "MlflowClient", query: str, *, deleted: bool = False) -> "Iterator[Experiment]":
    from mlflow.entities import ViewType

    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    token = None
    while True:
        page = client.search_experiments(view_type=view, filter_string=query, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def search_runs(client: "MlflowClient", experiment_ids: Sequence[str], query: str) -> "Iterator[Run]":
    """All active runs of experiments that match, in a fixed order."""
    token = None
    while True:
        page = client.search_runs(
            list(experiment_ids), query, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return
