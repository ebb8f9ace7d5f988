"""The saved comparison view of a sweep's experiment, and links into MLflow's UI.

A saved view is an experiment tag that holds the UI's own state: which runs, grouped how, in which charts.
MLflow documents no format; this is what the UI of 3.17 reads, and the browser test opens what it makes.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hkrun.redaction import redact
from hkrun.spaces import Sweep
from hkrun.store import Record, Store
from hkrun.tracking.connection import connect, explained, is_server, resolve_uri
from hkrun.tracking.database import advised, database_path
from hkrun.tracking.experiments import find_experiments, search_runs

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DEFAULT_PORT = 5000
RUNS_PER_PAGE = 100  # the UI loads and averages no more than these without being asked
_VIEW_ID = "hkrun-comparison"
_VIEW_TAG = f"mlflow.sharedViewState.{_VIEW_ID}"
SHOWN_TAG = "hkrun.shown"
ERROR_METRIC = "error_pct"
# The UI colours a group by a hash of this key and the cell's name; under this key the cells of the main sweep
# get four colours well apart.
CELL_PARAMETER = "cell.name"
_TAG_LENGTH = 20_000


@dataclass(frozen=True, kw_only=True)
class Links:
    """Where to look at a sweep in MLflow's UI.

    Attributes:
        uri: The tracking URI, without any password.
        experiment_id: MLflow's name of the sweep's experiment.
        experiment: The experiment: a parent run per cell, its seeds below it.
        view: The saved comparison view: test error over epochs.
        comparison: The cells' parameters and summaries side by side.
    """

    uri: str
    experiment_id: str
    experiment: str
    view: str
    comparison: str


def make_links(uri: str, experiment_id: str, parents: Sequence[str], *, address: str | None = None) -> Links:
    """The links; `address` is where the UI answers, by default the tracking server or `hkrun ui`."""
    base = address or (redact(uri).rstrip("/") if is_server(uri) else f"http://127.0.0.1:{DEFAULT_PORT}")
    runs, experiments = quote(json.dumps(list(parents))), quote(json.dumps([experiment_id]))
    # Without the type the UI puts its menus for language models around the runs.
    experiment = f"{base}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    return Links(
        uri=redact(uri),
        experiment_id=experiment_id,
        experiment=experiment,
        view=f"{experiment}&viewStateShareKey={_VIEW_ID}&compareRunsMode=CHART",
        comparison=f"{base}/#/compare-runs?runs={runs}&experiments={experiments}",
    )


def find_links(client: "MlflowClient", uri: str, experiment_id: str, *, address: str | None = None) -> Links:
    """The links to an experiment that was mirrored before."""
    parents = search_runs(client, [experiment_id], "tags.`hkrun.kind` = 'cell'")
    return make_links(uri, experiment_id, [run.info.run_id for run in parents], address=address)


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


def save_view(
    client: "MlflowClient",
    experiment_id: str,
    *,
    uri: str,
    title: str,
    window: int,
    names: Sequence[str],
    parents: Sequence[str],
    finished: Sequence[tuple[Record, str]],
) -> Links:
    """Saves the comparison view: per cell one mean line of the test error, the seeds behind it as a band.

    The UI averages the runs it has loaded. Where there are more than it loads, the view shows the parents,
    whose curves are the means over all their finished seeds.
    """
    by_seed = 0 < len(finished) <= RUNS_PER_PAGE
    _mark_shown(client, experiment_id, {run_id for _, run_id in finished} if by_seed else set(parents))
    state = _state([record for record, _ in finished], window=window, names=names if by_seed else ())
    packed = base64.b64encode(zlib.compress(json.dumps(state, separators=(",", ":")).encode())).decode()
    created = round(1000 * min((record.started_at for record, _ in finished), default=0.0))
    value = json.dumps({"name": title, "createdAt": created, "state": f"deflate;{packed}"})
    assert len(value) <= _TAG_LENGTH
    if client.get_experiment(experiment_id).tags.get(_VIEW_TAG) != value:
        client.set_experiment_tag(experiment_id, _VIEW_TAG, value)
    return make_links(uri, experiment_id, parents)


def _mark_shown(client: "MlflowClient", experiment_id: str, wanted: set[str]) -> None:
    """Tags the runs that the view shows and no others: an experiment may hold cells of earlier settings."""
    marked = {run.info.run_id for run in search_runs(client, [experiment_id], f"tags.`{SHOWN_TAG}` = 'yes'")}
    for run_id in marked - wanted:
        client.delete_tag(run_id, SHOWN_TAG)
    for run_id in wanted - marked:
        client.set_tag(run_id, SHOWN_TAG, "yes")


def _state(finished: Sequence[Record], *, window: int, names: Sequence[str]) -> dict[str, Any]:
    """The state of the UI's experiment page: search, groups by cell (without names: none), charts."""
    epochs = max((record.epochs for record in finished), default=0)
    charts = [_chart()]
    if window < epochs:
        low = min(record.error_best_pct or 0.0 for record in finished)
        high = max(record.error_last_pct or 0.0 for record in finished)
        margin = 0.25 * (high - low) or 1.0  # the records hold no higher error than the last
        zoom = {
            "xMin": epochs - window + 1,
            "xMax": epochs,
            "yMin": max(0.0, low - margin),
            "yMax": high + margin,
        }
        charts.append(_chart(zoom))
    group = {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "param", "groupByData": CELL_PARAMETER}],
    }
    return {
        "searchFilter": f"tags.`{SHOWN_TAG}` = 'yes'",
        "orderByKey": "tags.`mlflow.runName`",  # by time the UI would add the parents to the seeds
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": ["metrics.`error_last`", "metrics.`error_best`"],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "groupBy": group if names else None,
        "groupsExpanded": {f"param.{CELL_PARAMETER}.{name}": False for name in names},
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "autoRefreshEnabled": False,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "compareRunSections": [
            {
                "uuid": "hkrun-error",
                "name": "Test error (%)",
                "display": True,
                "isReordered": True,
                "deleted": False,
                "isGenerated": False,
                "columns": 2,
                "cardHeight": 420,
            }
        ],
        "compareRunCharts": charts,
    }


def _chart(zoom: dict[str, float] | None = None) -> dict[str, Any]:
    return {
        "type": "LINE",
        "uuid": "hkrun-zoom" if zoom else "hkrun-error",
        "metricSectionId": "hkrun-error",
        "metricKey": ERROR_METRIC,
        "selectedMetricKeys": [ERROR_METRIC],
        "runsCountToCompare": RUNS_PER_PAGE,
        "deleted": False,
        "isGenerated": False,
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "range": zoom or {},
        "displayPoints": False,
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": False,
    }
