"""A cluster of this machine's own: silent, and gone whatever becomes of the driver."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Driver

from hkrun.cluster import runtime
from hkrun.cluster.output import output_to
from hkrun.errors import HkrunError

DRIVER = """
import sys
from pathlib import Path

from fake_tasks import FakeTask, run
from hkrun.cluster import run_tasks
from hkrun.errors import Interrupted

class Silent:
    def started(self, index): pass
    def progress(self, index, progress): pass
    def done(self, index, outcomes): pass
    def failed(self, index, message): pass

folder = Path(sys.argv[1])
tasks = [FakeTask(name=f"{does}{index}", does=does, folder=str(folder)) for index, does in enumerate(DOES)]
try:
    results = run_tasks(
        tasks, workers=1, observer=Silent(), fail_fast=False, log_folder=folder / "logs", function=run
    )
except Interrupted as interrupt:
    sys.exit(interrupt.exit_code)
print([result.outcomes is not None for result in results])
"""


def start_driver(folder: Path, *does: str) -> Driver:
    return Driver(folder, f"DOES = {does}\n{DRIVER}")


@pytest.fixture
def sleeping(tmp_path) -> Driver:
    """A driver in the middle of two tasks."""
    driver = start_driver(tmp_path, "sleep", "sleep", "sleep")
    driver.wait_for(tmp_path / "sleep0.0")
    yield driver
    driver.process.kill()
    driver.process.communicate()


def ray_folders() -> set[str]:
    return {path.name for path in Path("/tmp").glob("hkrun-*")}


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_nothing_is_printed_and_nothing_is_left(tmp_path, monkeypatch):
    long = tmp_path / "a-folder-whose-path-would-be-too-long-for-the-sockets-of-ray"
    monkeypatch.setenv("TMPDIR", str(long))
    long.mkdir()
    before = ray_folders()
    driver = start_driver(tmp_path, "tell", "fail", "die_once", "finish")
    stdout, stderr = driver.process.communicate()
    assert (stdout, stderr) == ("[True, False, True, True]\n", "")
    assert driver.process.returncode == 0
    assert driver.left_behind(patience_s=10) == []
    assert list(long.iterdir()) == []
    assert ray_folders() <= before
    assert sorted(path.name for path in tmp_path.glob("logs/*.log")) == [
        "die_once2.log",
        "fail1.log",
        "finish3.log",
        "ray.log",
        "tell0.log",
    ]


@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_to_the_whole_group_ends_everything_silently(sleeping, number):
    assert len(sleeping.family()) > 5
    os.killpg(sleeping.process.pid, number)
    stdout, stderr = sleeping.process.communicate(timeout=60)
    assert (stdout, stderr) == ("", "")
    assert sleeping.process.returncode == 75
    assert sleeping.left_behind(patience_s=10) == []


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_killed_driver_leaves_no_process(sleeping):
    sleeping.process.kill()
    sleeping.process.wait()
    assert sleeping.left_behind(patience_s=30) == []


def test_the_token_is_for_the_user_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    token = tmp_path / ".ray" / "auth_token"
    runtime._ensure_token()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert len(token.read_text()) == 64
    assert list(token.parent.iterdir()) == [token]

    token.write_text("the user's own")
    token.chmod(0o644)
    runtime._ensure_token()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text() == "the user's own"


def test_a_home_that_cannot_hold_a_token_is_named(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(HkrunError, match=r"home/\.ray/auth_token: cannot write Ray's token"):
        runtime._ensure_token()


def test_a_token_in_the_environment_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    runtime._ensure_token()
    assert list(tmp_path.iterdir()) == []


def test_the_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("HKRUN_A", "user")
    monkeypatch.delenv("HKRUN_B", raising=False)
    before = dict(os.environ)
    with runtime._environment({"HKRUN_A": "1"}, {"HKRUN_B": "2", "HOME": "3"}):
        assert os.environ == before | {"HKRUN_A": "1", "HKRUN_B": "2"}  # a default yields to what is set
        os.environ["RAY_AUTH_MODE"] = "token"  # as ray.init does
    assert os.environ == before


def test_output_of_python_and_of_children_goes_to_the_file(tmp_path, capfd):
    log_file = tmp_path / "logs" / "task.log"
    for line in ("one", "two"):
        with output_to(log_file):
            sys.stdout.write(f"{line}\n")
            sys.stderr.write(f"{line}\n")
            subprocess.run(["echo", f"{line} from a child"], check=True)
    sys.stdout.write("after\n")
    sys.stdout.flush()
    assert sorted(log_file.read_text().split("\n")) == sorted(
        ["", "one", "one", "one from a child", "two", "two", "two from a child"]
    )
    assert capfd.readouterr() == ("after\n", "")


def test_output_is_put_back_after_an_exception(tmp_path, capfd):
    with pytest.raises(ValueError, match="boom"), output_to(tmp_path / "task.log"):
        raise ValueError("boom")
    sys.stdout.write("after\n")
    sys.stdout.flush()
    assert capfd.readouterr() == ("after\n", "")
