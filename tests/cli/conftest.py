import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from study_example import make_study
from sweep_example import fill_store, make_sweep

import hkrun.sweep
from hkrun.cli.program import call
from hkrun.plans import save_plan
from hkrun.report import summarise
from hkrun.store import open_store
from hkrun.sweep import Outcome


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory, without any setting of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (
        "HKRUN_STORE",
        "MLFLOW_TRACKING_URI",
        "RAY_ADDRESS",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
    ):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A store with the finished sweep `stability` on digits; for copies of it."""
    place = tmp_path_factory.mktemp("finished") / "hkrun-store"
    store, sweep = open_store(place), make_sweep()
    fill_store(store, sweep)
    save_plan(store, sweep)
    return place


@pytest.fixture
def store(folder, finished):
    """The default store, with the finished sweep `stability` on digits."""
    shutil.copytree(finished, folder / "hkrun-store")
    return open_store(folder / "hkrun-store")


@pytest.fixture
def document(capsys):
    """Calls hkrun with --json: the exit code and the one document on stdout."""

    def run(*arguments):
        code = call([*arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def started(monkeypatch):
    """Replaces what trains; returns the studies that would have been run."""
    calls = []

    def plan_study(sweep, store, options):
        return make_study(sweep, store, **vars(options))

    def resolve(study, *, dry=False):
        return dataclasses.replace(study, plan=study.plan.in_packs({}, slots=2))

    def run_study(study, observer, stopwatch=None):
        calls.append(study)
        return Outcome(
            summary=summarise(study.sweep, study.store),
            plan=study.plan,
            report={"report.html": "/somewhere/report.html"},
            links=SimpleNamespace(uri="sqlite:///x", experiment_id="1", view="http://view"),
            problems=(),
            log_folder=Path("/somewhere/logs"),
            left_out="",
            limits=study.limits,
            exit_code=0,
        )

    for function in (plan_study, resolve, run_study):
        monkeypatch.setattr(hkrun.sweep, function.__name__, function)
    return calls
