"""The saved views of a sweep's experiment, and links into MLflow's UI.

A saved view is an experiment tag that holds the UI's own state: which runs, grouped how, in which charts.
MLflow documents no format; this is what the UI of 3.17 reads, and the browser test opens what it makes.
"""

import base64
import dataclasses
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hkrun.redaction import redact
from hkrun.spaces import Sweep, name_cells
from hkrun.store import Record, Store
from hkrun.tracking.connection import connect, explained, is_server, resolve_uri
from hkrun.tracking.content import CELL_PARAMETER
from hkrun.tracking.database import advised, database_path
from hkrun.tracking.experiments import find_experiments, search_runs
from hkrun.tracking.points import ERROR_METRIC

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

HOST, DEFAULT_PORT = "127.0.0.1", 5000  # of `hkrun ui`
USUAL_ADDRESS = f"http://{HOST}:{DEFAULT_PORT}"
RUNS_PER_PAGE = 100  # the UI loads and averages no more than these without being asked
# The views: curves of the test error, a row per cell, a row per run.
_CURVES, _CELLS, _RUNS = "hkrun-comparison", "hkrun-cells", "hkrun-runs"
VIEW_FORMAT = 3  # part of the receipt: a change in what is saved here renews what an older hkrun saved
SHOWN_TAG = "hkrun.shown"
_TAG_LENGTH = 20_000
# In pixels: of 1280, beside MLflow's assistant, two axes, error and S are to be seen. The first two stay at
# the left; of the time of creation the mark is left that says how the run ended.
_WIDTHS = {"attributes.`Run Name`": 190, "runDateAndNestInfo": 64}
_NUMBER_WIDTH = 90


# What all views have in common of the state of the UI's experiment page.
_PAGE: Mapping[str, Any] = {
    "orderByAsc": True,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "modelVersionFilter": "All Runs",
    "datasetsFilter": [],
    "runsExpanded": {},
    "runsPinned": [],
    "runsHidden": [],
    "runsVisibilityMap": {},
    "runsHiddenMode": "SHOW_ALL",
    "viewMaximized": False,
    "runListHidden": False,
    "isAccordionReordered": True,
    "groupBy": None,
    "groupsExpanded": {},
    "useGroupedValuesInCharts": True,
    "hideEmptyCharts": True,
    "autoRefreshEnabled": False,
    "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
}


@dataclass(frozen=True, kw_only=True)
class Links:
    """Where to look at a sweep in MLflow's UI.

    Attributes:
        uri: The tracking URI, without any password.
        experiment_id: MLflow's name of the sweep's experiment.
        experiment: The saved view with a row per run: its seed, its errors, how it ended.
        view: The saved view of curves: test error over epochs.
        comparison: The saved view with a row per cell: axes, error, S; the lowest error first.
        outdated: Whether views are missing, because an earlier version mirrored it. In their place stands the
            experiment as MLflow shows it by itself. What the views show is missing, too, until the next sync.
    """

    uri: str
    experiment_id: str
    experiment: str
    view: str
    comparison: str
    outdated: bool = False

    def at(self, address: str) -> "Links":
        """The same links where the UI answers elsewhere than on `hkrun ui`'s usual port."""
        places = {
            name: getattr(self, name).replace(USUAL_ADDRESS, address, 1)
            for name in ("experiment", "view", "comparison")
        }
        return dataclasses.replace(self, **places)


def find_links(client: "MlflowClient", uri: str, experiment_id: str, *, address: str | None = None) -> Links:
    """The links to an experiment that was mirrored before, by what views are saved in it.

    `address` is where the UI answers, by default the tracking server or `hkrun ui`. In place of a view that
    an earlier version did not save stands the experiment, as MLflow shows it by itself.
    """
    saved = client.get_experiment(experiment_id).tags
    base = address or (redact(uri).rstrip("/") if is_server(uri) else USUAL_ADDRESS)
    # Without the type the UI puts its menus for language models around the runs.
    experiment = f"{base}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"

    def link(view: str, mode: str) -> str:
        shown = f"&viewStateShareKey={view}&compareRunsMode={mode}"
        return f"{experiment}{shown}" if _tag(view) in saved else experiment

    return Links(
        uri=redact(uri),
        experiment_id=experiment_id,
        experiment=link(_RUNS, "TABLE"),
        view=link(_CURVES, "CHART"),
        comparison=link(_CELLS, "TABLE"),
        outdated=not {_tag(view) for view in (_CURVES, _CELLS, _RUNS)} <= saved.keys(),
    )


def _tag(view: str) -> str:
    return f"mlflow.sharedViewState.{view}"


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


def save_views(
    client: "MlflowClient",
    experiment_id: str,
    *,
    sweep: Sweep,
    names: Sequence[str],
    parents: Sequence[str],
    finished: Sequence[tuple[Record, str]],
) -> None:
    """Saves the views of an experiment: curves, a row per cell, a row per run.

    The view of curves has a mean line of the test error per cell, the seeds behind it as a band. The UI
    averages the runs it has loaded. Where there are more than it loads, the view shows the parents, whose
    curves are the means over all their finished seeds.

    Args:
        client: Of MLflow.
        experiment_id: MLflow's name of the sweep's experiment.
        sweep: Whose it is.
        names: Of its cells.
        parents: The runs of its cells.
        finished: Its finished runs, with their records.
    """
    by_seed = 0 < len(finished) <= RUNS_PER_PAGE
    _mark_shown(client, experiment_id, {run_id for _, run_id in finished} if by_seed else set(parents))
    records = [record for record, _ in finished]
    where = f"{sweep.name} on {sweep.dataset}"
    axes = [f"params.`{short}`" for short in name_cells(sweep.cells).short.values()]
    last, best = "metrics.`error_last`", "metrics.`error_best`"
    spread = [f"metrics.`{name}`" for name in ("stability", "s2", "mean_range")]
    curves = _curves_state(records, window=sweep.window, names=names if by_seed else ())
    cells = _table_state("cell", [*axes, last, *spread, best])
    runs = _table_state(
        "run", ["params.`cell.name`", *axes, "params.`seed`", last, "tags.`hkrun.status`", best]
    )
    views = {
        _CURVES: (f"Test error, {where}", curves),
        _CELLS: (f"Cells, {where}", cells),
        _RUNS: (f"Runs, {where}", runs),
    }
    created = round(1000 * min((record.started_at for record in records), default=0.0))
    saved = client.get_experiment(experiment_id).tags
    for view, (title, state) in views.items():
        packed = base64.b64encode(zlib.compress(json.dumps(state, separators=(",", ":")).encode())).decode()
        value = json.dumps({"name": title, "createdAt": created, "state": f"deflate;{packed}"})
        assert len(value) <= _TAG_LENGTH
        if saved.get(_tag(view)) != value:
            client.set_experiment_tag(experiment_id, _tag(view), value)


def _mark_shown(client: "MlflowClient", experiment_id: str, wanted: set[str]) -> None:
    """Tags the runs that the view shows and no others: an experiment may hold cells of earlier settings."""
    marked = {run.info.run_id for run in search_runs(client, [experiment_id], f"tags.`{SHOWN_TAG}` = 'yes'")}
    for run_id in marked - wanted:
        client.delete_tag(run_id, SHOWN_TAG)
    for run_id in wanted - marked:
        client.set_tag(run_id, SHOWN_TAG, "yes")


def _table_state(kind: str, columns: Sequence[str]) -> dict[str, Any]:
    """The state of a list with a row per cell or per run, and these columns; the lowest error comes first.

    The UI keeps name and creation at the left. Left to itself it goes on with the duration, and with metrics
    before parameters, each by name.
    """
    return {
        **_PAGE,
        "searchFilter": f"tags.`hkrun.kind` = '{kind}'",
        "orderByKey": "metrics.`error_last`",
        "selectedColumns": list(columns),
        "columnOrder": [*_WIDTHS, *columns, "duration"],
        "columnWidths": {**dict.fromkeys(columns, _NUMBER_WIDTH), **_WIDTHS},
    }


def _curves_state(finished: Sequence[Record], *, window: int, names: Sequence[str]) -> dict[str, Any]:
    """The state of the charts: search, groups by cell (without names: none), and what is drawn."""
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
        **_PAGE,
        "searchFilter": f"tags.`{SHOWN_TAG}` = 'yes'",
        "orderByKey": "tags.`mlflow.runName`",  # by time the UI would add the parents to the seeds
        "selectedColumns": ["metrics.`error_last`", "metrics.`error_best`"],
        "groupBy": group if names else None,
        "groupsExpanded": {f"param.{CELL_PARAMETER}.{name}": False for name in names},
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
