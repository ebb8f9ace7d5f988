"""What becomes of Ray's driver is told, and its result is not lost."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import patched_drivers
import pytest
from fake_tasks import FakeTask, run

from hkrun.cluster import TaskList, run_tasks
from hkrun.cluster.driver.calls import Observer
from hkrun.cluster.driver.core_processes import CoreProcesses
from hkrun.cluster.driver.process import RemoteObserver
from hkrun.cluster.driver.supervisor import DriverTraceback, _driver_environment, describe_end
from hkrun.errors import ClusterLostError, HkrunError


def run_fakes(tasks, observer, folder):
    return run_tasks(TaskList(tasks=tasks, log_folder=folder / "logs", function=run), observer)


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_driver_that_ends_without_a_word_is_told_with_its_exit_status(
    joined, observer, tmp_path, monkeypatch
):
    monkeypatch.setattr("hkrun.cluster.tasks._tune", patched_drivers.end_silently)
    with pytest.raises(ClusterLostError, match=r"^Ray ended its driver \(exit status 1\); ") as caught:
        run_fakes([FakeTask(name="t0")], observer, tmp_path)
    assert caught.value.message.endswith(f"; Ray's logs are in {tmp_path / 'logs' / 'ray.log'}")


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_driver_that_ends_without_a_word_while_it_leaves_takes_no_result_away(
    joined, observer, tmp_path, monkeypatch
):
    monkeypatch.setattr("hkrun.cluster.tasks._tune", patched_drivers.end_silently_after_the_work)
    (result,) = run_fakes([FakeTask(name="t0")], observer, tmp_path)
    assert result.outcomes[0]["name"] == "t0"
    assert observer.of(0) == ["started", "done"]


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_bug_in_the_driver_comes_with_the_drivers_traceback(joined, observer, tmp_path, monkeypatch):
    monkeypatch.setattr("hkrun.cluster.tasks._tune", patched_drivers.raise_what_only_the_driver_knows)
    with pytest.raises(HkrunError, match=r"^OfTheDriverError: a mistake$") as caught:
        run_fakes([FakeTask(name="t0")], observer, tmp_path)
    assert isinstance(caught.value.__cause__, DriverTraceback)
    assert "in raise_what_only_the_driver_knows" in str(caught.value.__cause__)


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_tasks_end_when_nobody_reads_how_they_go(joined, observer, tmp_path):
    def print_to_nobody(index, progress):
        raise BrokenPipeError

    observer.progress = print_to_nobody
    with pytest.raises(BrokenPipeError):  # the task itself takes five minutes
        run_fakes([FakeTask(name="long", does="sleep", folder=str(tmp_path))], observer, tmp_path)
    (result,) = run_fakes([FakeTask(name="after")], observer, tmp_path)
    assert result.outcomes is not None


def test_an_end_is_described_by_status_or_signal():
    assert describe_end(1) == "exit status 1"
    assert describe_end(-signal.SIGKILL) == "killed by SIGKILL"
    assert describe_end(None) == "still running"


@contextmanager
def child(folder: Path, name: str, *command: str):
    """A child whose program has a name."""
    program = folder / name
    shutil.copy(shutil.which(command[0]), program)
    process = subprocess.Popen([program, *command[1:]])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_end(process: subprocess.Popen) -> None:
    """Until it has ended, and is left for others to see."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


linux = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")


@linux
@pytest.mark.parametrize(("name", "told"), [("raylet", "raylet"), ("gcs_server", "GCS")])
def test_a_raylet_or_gcs_that_was_killed_is_named_and_left_for_ray_to_see(tmp_path, name, told):
    core = CoreProcesses()
    with child(tmp_path, name, "sleep", "100") as process:
        assert core.find_loss() == ""
        process.kill()
        wait_for_end(process)
        for _ in range(2):
            assert core.find_loss() == f"Ray's {told} on this machine has ended (killed by SIGKILL)"
        assert process.wait() == -signal.SIGKILL
        assert core.find_loss() == f"Ray's {told} on this machine has ended"


@linux
def test_a_raylet_that_ended_by_itself_has_its_exit_status_named(tmp_path):
    with child(tmp_path, "raylet", "false") as process:
        wait_for_end(process)
        assert CoreProcesses().find_loss() == "Ray's raylet on this machine has ended (exit status 1)"


@linux
def test_children_with_other_names_are_none_of_rays(tmp_path):
    with child(tmp_path, "raylet-of-mine", "sleep", "100") as process:
        process.kill()
        wait_for_end(process)
        assert CoreProcesses().find_loss() == ""


@linux
def test_a_loss_is_told_once_while_the_block_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("hkrun.cluster.driver.core_processes.LOOK_EVERY_S", 0.01)
    losses, told = [], threading.Event()

    def note(why):
        losses.append(why)
        told.set()

    with child(tmp_path, "raylet", "sleep", "100") as process:
        with CoreProcesses().watched(note):
            process.kill()
            assert told.wait(60)
        with CoreProcesses().watched(losses.append):
            pass
    assert losses == ["Ray's raylet on this machine has ended (killed by SIGKILL)"]


def test_the_driver_passes_on_all_that_an_observer_is_told_and_nothing_else():
    sent = []
    remote = RemoteObserver(lambda *message: sent.append(message))
    names = ("taken", "started", "progress", "done", "failed", "looked")
    for name in names:
        getattr(remote, name)(3, "more")
    assert sent == [("told", name, (3, "more")) for name in names]
    assert {name for name in vars(Observer) if not name.startswith("_")} == {name for _, name, _ in sent}
    with pytest.raises(AttributeError, match="begun"):
        remote.begun(3)


def test_processes_keep_freed_memory_unless_the_user_says_otherwise(monkeypatch, tmp_path):
    """Handing it back costs a page fault for every 4 kB of every tensor that follows."""
    call = SimpleNamespace(requests=(), folder=tmp_path, own=None)
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "131072")
    environment = _driver_environment(call)
    assert environment["MALLOC_TRIM_THRESHOLD_"] == "1000000000"
    assert environment["MALLOC_MMAP_THRESHOLD_"] == "131072"
