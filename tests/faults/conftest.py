"""An undisturbed sweep, which the disturbed ones are compared with."""

from collections.abc import Iterator
from pathlib import Path

import oracles
import pytest
from disturbed import GROUPS, SweepFolder

from hkrun.store import Store


def run_undisturbed(folder: Path, *command: str) -> Store:
    sweep = SweepFolder(folder, *command)
    assert sweep.run() == 0, sweep.output()
    oracles.check_all(sweep.store, sweep.store)
    sweep.temporary.rmdir()
    return sweep.store


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of the sweep that nothing happens to."""
    return run_undisturbed(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="session")
def undisturbed_groups(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same of a sweep whose tasks are done by two workers each."""
    return run_undisturbed(tmp_path_factory.mktemp("groups"), *GROUPS)


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[SweepFolder]:
    """A sweep that has not begun."""
    folder = SweepFolder(tmp_path)
    yield folder
    folder.end()
    folder.temporary.rmdir()
