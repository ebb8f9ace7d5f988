import json
from types import SimpleNamespace

import pytest
from sweep_example import fill_store, make_sweep

import hkrun.sweep
from hkrun.cli.program import call
from hkrun.plan import NO_SHORTCUTS, make_plan, save_plan
from hkrun.report import summarise
from hkrun.store import open_store


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


@pytest.fixture
def store(folder):
    """The default store, with the finished sweep `stability` on digits."""
    store = open_store(folder / "hkrun-store")
    sweep = make_sweep()
    fill_store(store, sweep)
    save_plan(store, sweep)
    return store


@pytest.fixture
def document(capsys):
    """Calls hkrun with --json: the exit code and the one document on stdout."""

    def run(*arguments):
        code = call([*arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def started(monkeypatch):
    """Replaces what trains; returns the calls that would have."""
    calls = []

    def plan_sweep(sweep, store, *, data_dir, workers, pack, shortcuts, dry):
        shortcuts = shortcuts or NO_SHORTCUTS
        return make_plan(sweep, store, workers=workers, slots=2, shortcuts=shortcuts)

    def run_sweep(sweep, store, **arguments):
        calls.append((sweep, store, arguments))
        return SimpleNamespace(
            summary=summarise(sweep, store),
            plan=make_plan(sweep, store),
            report={"report.html": "/somewhere/report.html"},
            links=SimpleNamespace(uri="sqlite:///x", experiment_id="1", view="http://view"),
            problems=(),
            left_out="",
            exit_code=0,
        )

    monkeypatch.setattr(hkrun.sweep, "plan_sweep", plan_sweep)
    monkeypatch.setattr(hkrun.sweep, "run_sweep", run_sweep)
    return calls
