"""An undisturbed sweep, which the disturbed ones are compared with."""

from collections.abc import Iterator
from pathlib import Path

import oracles
import pytest
from disturbed import SweepFolder

from hkrun.store import Store


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of the sweep that nothing happens to."""
    sweep = SweepFolder(tmp_path_factory.mktemp("undisturbed"))
    assert sweep.run() == 0, sweep.output()
    oracles.check_all(sweep.store, sweep.store)
    sweep.temporary.rmdir()
    return sweep.store


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[SweepFolder]:
    """A sweep that has not begun."""
    folder = SweepFolder(tmp_path)
    yield folder
    folder.end()
    folder.temporary.rmdir()
