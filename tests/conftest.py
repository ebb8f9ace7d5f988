"""Fixtures that any test may take."""

import sys

import pytest
from s3_server import each_s3_server, radosgw, s3_server, s3_store

__all__ = ["each_s3_server", "radosgw", "s3_server", "s3_store"]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Trains on one thread: networks this small gain nothing from two, which wait for each other."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


@pytest.fixture
def undrawn_figures(monkeypatch):
    """Builds figures without drawing them, which takes most of a report's time."""
    monkeypatch.setattr("hkrun.figures.encode", lambda figure, kind: f"a figure as {kind}".encode())


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database with MLflow's schema: making one takes seconds."""
    from hkrun.tracking.connection import connect

    path = tmp_path_factory.mktemp("schema") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path
