"""Output and logs on a disk that is full: what cannot be written is dropped, and nothing fails for it."""

import os
from pathlib import Path

import pytest

from hkrun.cluster.redirect import output_to

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="a device of Linux")


def test_a_task_may_print_onto_a_full_disk(capfd):
    with output_to(FULL):
        print("lost")  # noqa: T201
    os.write(1, b"after\n")
    assert "after" in capfd.readouterr().out


def test_a_task_may_print_where_no_file_can_be_made(tmp_path, capfd):
    (tmp_path / "logs").write_text("a file")
    with output_to(tmp_path / "logs" / "task.log"):
        os.write(1, b"lost\n")
    os.write(1, b"after\n")
    assert capfd.readouterr() == ("after\n", "")
