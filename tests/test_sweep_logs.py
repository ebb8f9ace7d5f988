"""Where logs are written when the store is not on this machine's disk."""

import os
import stat
import tempfile

import pytest

from hkrun.errors import ResourceError
from hkrun.store import open_store
from hkrun.sweep.machine import find_machine, log_folder_of


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """The folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_logs_are_beside_the_records_where_those_are_on_this_machine(tmp_path):
    assert log_folder_of(open_store(tmp_path / "store")) == tmp_path / "store" / "logs"


def test_looking_at_this_machine_leaves_nothing_behind(shared, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert find_machine(None).nodes
    assert list(shared.iterdir()) == []


def test_each_user_of_a_machine_has_a_folder_of_logs_that_nobody_else_reads(shared, monkeypatch):
    mine = log_folder_of(None)
    assert (mine.parent, stat.S_IMODE(mine.stat().st_mode)) == (shared, 0o700)
    mine.chmod(0o755)
    assert log_folder_of(None) == mine
    assert stat.S_IMODE(mine.stat().st_mode) == 0o700
    monkeypatch.setattr(os, "getuid", lambda: mine.stat().st_uid + 1)
    with pytest.raises(ResourceError):  # here it is made by the wrong account, whose name it does not have
        log_folder_of(None)
    assert len(list(shared.iterdir())) == 2


@pytest.mark.parametrize("what", ["link", "file", "dangling"])
def test_logs_are_not_written_where_somebody_has_planted_something(shared, tmp_path_factory, what):
    place = shared / f"hkrun-logs-{os.getuid()}"
    target = tmp_path_factory.mktemp("target")
    target.chmod(0o755)
    if what == "file":
        place.write_text("")
    else:
        place.symlink_to(target if what == "link" else target / "none")
    with pytest.raises(ResourceError) as problem:
        log_folder_of(None)
    (line,) = problem.value.problems
    assert (line.startswith(f"{place}: "), "TMPDIR" in line) == (True, True)
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert list(target.iterdir()) == []


def test_no_place_for_logs_is_one_line(shared, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(shared / "gone"))
    with pytest.raises(ResourceError, match="no place for logs"):
        log_folder_of(None)
