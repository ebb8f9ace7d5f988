"""Curves of a metric from the runs of any MLflow experiment, hkrun's or not."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hkrun.config import nearest
from hkrun.errors import InputError
from hkrun.redaction import redact
from hkrun.tracking.connection import MLFLOW_SCHEMES, connect, explained, is_server
from hkrun.tracking.content import CELL_PARAMETER
from hkrun.tracking.database import database_path, database_uri
from hkrun.tracking.experiments import search_runs

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

    from hkrun.curve_files import Columns, NamedRun, Source

_SEED_KEYS = ("seed", "hkrun.seed")  # parameters or tags, of anybody's runs and of hkrun's
_CELL_KEYS = ("cell", CELL_PARAMETER)
_MOST_NAMED = 8


def read_metric_curves(uri: str, experiment: str, columns: "Columns") -> "Source":
    """Reads the history of a metric, `columns.value`, of all runs of an experiment that have it.

    Seeds and cells are parameters or tags of the runs, else they follow from the runs' names.

    Args:
        uri: An MLflow server or database, or the path of a SQLite file or of a folder of runs (`mlruns`).
        experiment: Its name.
        columns: What is what; `epoch` is always MLflow's step.

    Raises:
        InputError: There is no such place, experiment or metric, or seeds and cells cannot be told.
        StoreError: MLflow cannot be reached or read.
    """
    from hkrun.curve_files import Run, Source  # with SciPy, which a sweep's own mirror does without

    place = f"experiment {experiment!r}"
    if columns.epoch is not None:
        raise InputError("--epoch: not with --mlflow, whose metrics have steps")
    resolved = _resolve(uri)
    client = connect(resolved, create=False)
    with explained(resolved):
        runs = _find_runs(client, experiment, uri)
        metric = columns.value or _choose_metric(place, runs)
        with_metric = [run for run in runs if metric in run.data.metrics]
        if not with_metric:
            metrics = _metrics(runs)
            raise InputError(f"{place}: no metric {metric!r}{nearest(metric, metrics) or _there(metrics)}")
        named, others = _name_runs(place, with_metric, columns)
        histories = [client.get_metric_history(run.info.run_id, metric) for run, _ in named]
    unfinished = [told.name for run, told in named if run.info.status != "FINISHED"]
    return Source(
        place=place,
        form="MLflow",
        value=metric,
        axis="step",
        runs=[
            Run(
                name=told.name,
                cell=told.cell,
                seed=told.seed,
                epochs=[point.step for point in history],
                values=[point.value for point in history],
            )
            for (_, told), history in zip(named, histories, strict=True)
        ],
        left_out=[*others, *(_name(run) for run in runs if metric not in run.data.metrics)],
        doubts=[f"runs that did not finish: {_listed(unfinished)}"] if unfinished else [],
    )


def _resolve(uri: str) -> str:
    """The URI of a place that is there.

    Raises:
        InputError: There is none.
    """
    allowed = "give http(s)://HOST:PORT, a database's URI, or the path of mlflow.db or mlruns"
    scheme, slashes, _ = uri.partition("://")
    if slashes and scheme != "file":
        if scheme.partition("+")[0] not in MLFLOW_SCHEMES:
            raise InputError(f"--mlflow {redact(uri)}: {allowed}")
        if is_server(uri):
            return uri
        try:
            path = database_path(uri)
        except ValueError as error:
            raise InputError(f"--mlflow {redact(uri)}: {error}; {allowed}") from None
        if path is None:
            return uri
    else:
        path = Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri).expanduser().absolute()
    if path.is_file():
        return database_uri(path)
    if not path.is_dir():
        raise InputError(f"--mlflow {redact(uri)}: no such file or folder; {allowed}")
    if not any(path.glob("*/meta.yaml")):
        raise InputError(f"--mlflow {redact(uri)}: a folder without runs of MLflow; {allowed}")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # which MLflow asks for since 3.13
    return path.as_uri()


def _find_runs(client: "MlflowClient", experiment: str, uri: str) -> "list[MlflowRun]":
    found = client.get_experiment_by_name(experiment)
    if found is None or found.lifecycle_stage != "active":
        names = [each.name for each in client.search_experiments(max_results=1000)]
        hint = nearest(experiment, names) or _there(names)
        raise InputError(f"--experiment {experiment!r}: not in MLflow at {redact(uri)}{hint}")
    return list(search_runs(client, [found.experiment_id], ""))


def _choose_metric(place: str, runs: "Sequence[MlflowRun]") -> str:
    metrics = _metrics(runs)
    if len(metrics) != 1:
        raise InputError(f"{place}: which metric? --metric takes one{_there(metrics)}")
    return metrics[0]


def _metrics(runs: "Sequence[MlflowRun]") -> list[str]:
    return sorted({metric for run in runs for metric in run.data.metrics})


def _name_runs(
    place: str, runs: "Sequence[MlflowRun]", columns: "Columns"
) -> "tuple[list[tuple[MlflowRun, NamedRun]], list[str]]":
    """The cell and seed of each run, and the names of runs that have none and are left out."""
    from hkrun.curve_files import NamedRun, find_twice

    seed_key = columns.seed or next((key for key in _SEED_KEYS if any(_get(run, key) for run in runs)), None)
    if columns.run_names is not None or seed_key is None:
        return _read_names(place, runs, columns)
    seeded = [run for run in runs if _get(run, seed_key) is not None]
    if not seeded:
        raise InputError(f"{place}: no run has the parameter or tag {seed_key!r}")
    cell_key = columns.cell or next(
        (key for key in _CELL_KEYS if any(_get(run, key) for run in seeded)), None
    )
    problems = []
    named = []
    for run in seeded:
        seed, cell = _get(run, seed_key) or "", None if cell_key is None else _get(run, cell_key)
        if not (seed.isascii() and seed.isdecimal() and len(seed) < 19):
            problems.append(f"run {_name(run)!r}: {seed_key} is no whole number: {seed!r}")
        elif cell_key is not None and cell is None:
            problems.append(f"run {_name(run)!r} has no parameter or tag {cell_key!r}")
        elif cell is not None and not cell.isprintable():
            problems.append(f"run {_name(run)!r}: {cell_key} is no line of text: {cell!r}")
        else:
            named.append(NamedRun(name=_name(run), cell=cell, seed=int(seed)))
    twice = find_twice(named, what="run")
    hint = "" if columns.cell else "; --cell names a parameter that tells cells apart"
    problems += [f"{problem}{hint}" for problem in twice]
    _refuse(place, problems)
    return list(zip(seeded, named, strict=True)), [_name(run) for run in runs if run not in seeded]


def _read_names(
    place: str, runs: "Sequence[MlflowRun]", columns: "Columns"
) -> "tuple[list[tuple[MlflowRun, NamedRun]], list[str]]":
    """The same from the runs' names alone."""
    from hkrun.curve_files import read_run_names

    told, others, problems = read_run_names(
        map(_name, runs), columns.run_names, what="run", or_else=", or --seed PARAMETER"
    )
    _refuse(place, problems)
    kept = [run for run in runs if _name(run) not in others]
    return list(zip(kept, told, strict=True)), others


def _refuse(place: str, problems: Sequence[str]) -> None:
    if problems:
        raise InputError("\n".join(f"{place}: {problem}" for problem in problems[:_MOST_NAMED]))


def _get(run: "MlflowRun", key: str) -> str | None:
    """A parameter or tag of a run."""
    value = run.data.params.get(key, run.data.tags.get(key))
    return None if value is None else str(value).strip()


def _name(run: "MlflowRun") -> str:
    return str(run.info.run_name or run.info.run_id)


def _there(names: Sequence[str]) -> str:
    return f"; there are {_listed(names)}" if names else "; there are none"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(map(repr, names[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
