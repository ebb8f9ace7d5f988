"""Fixtures that any test may take."""

import gc
import os
import sys
from pathlib import Path

import pytest
from s3_server import each_s3_server, radosgw, s3_server, s3_store

from hkrun import code_identity
from hkrun.report import picturing

# Code in the middle of a change counts as of its epoch: one test of tests/test_code_identity.py says that it
# is to be checked, not every test with a store.
code_identity.EPOCH_SOURCE = code_identity.hash_source(Path(code_identity.__file__).parent)

# What hkrun prints without a terminal is as wide as COLUMNS, of whoever runs the tests too.
os.environ.pop("COLUMNS", None)

# It is for a loss of power, which no test has, and takes milliseconds: a third of what tests of reports take.
os.fsync = lambda _descriptor: None


__all__ = ["each_s3_server", "radosgw", "s3_server", "s3_store"]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Trains on one thread: networks this small gain nothing from two, which wait for each other."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


def pytest_collection_finish():
    """Lets the garbage collector leave alone what stays: six thousand tests, torch, Ray, MLflow.

    It looks every 10,000 objects for cycles, not every 700, which took a twentieth of the time.
    """
    # A second process would load Matplotlib for every report of the tests; tests/test_picturing.py has one.
    picturing.count_cores = lambda: 1
    gc.set_threshold(10_000, 20, 20)
    gc.collect()
    gc.freeze()


# Tests that start Ray in every test run, by the beginnings of their names.
WITH_RAY = (
    "tests/cluster/",
    "tests/interface/test_python_runs.py",
    "tests/interface/test_python_until_decided.py",
)

# Files of a quarter of a minute and more, by the beginnings of their names.
LONG = (*WITH_RAY, "tests/test_tracking", "tests/test_results.py", "tests/test_report", "tests/test_stats_s")


def pytest_collection_modifyitems(items):
    """Begins with the long files: one of them at the end would have the other processes wait for it."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.hookimpl(optionalhook=True, wrapper=True)  # where pytest-xdist is installed
def pytest_xdist_auto_num_workers():
    """One process more than there are cores: that which starts Ray waits for Ray's most of its time."""
    return (yield) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Gives all that starts Ray to one process: they share a cluster, and two would be in their way."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return "Ray" if nodeid.startswith(WITH_RAY) else super()._split_scope(nodeid)

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="module")
def few_digits():
    """Has the tasks of this process train and test on few digits, for tests of what is kept of a run."""
    from few_digits import few_for_tasks

    with few_for_tasks():
        yield


def leave_figures_undrawn():
    """Builds figures without drawing them, which takes most of a report's time."""
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><g id="figure_1" /></svg>'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hkrun.figures.style.encode", lambda _, kind: svg if kind == "svg" else b"a figure")
        yield


undrawn_figures = pytest.fixture(leave_figures_undrawn, name="undrawn_figures")
undrawn_figures_of_module = pytest.fixture(
    leave_figures_undrawn, scope="module", name="undrawn_figures_of_module"
)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database with MLflow's schema: making one takes seconds."""
    from hkrun.tracking.connection import connect

    path = tmp_path_factory.mktemp("schema") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path
