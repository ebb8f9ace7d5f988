"""A cluster of this machine's own: silent, and gone whatever becomes of the driver."""

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import ExitStack

import pytest
from driver_process import Driver

from hkrun.cluster import caretaker, runtime
from hkrun.cluster.output import output_to
from hkrun.cluster.resources import Node, Request
from hkrun.cluster.token import ensure_token
from hkrun.errors import HkrunError, ResourceError


@pytest.fixture
def sleeping(tmp_path) -> Driver:
    """A driver in the middle of two tasks."""
    driver = Driver(tmp_path, "sleep", "sleep", "sleep")
    driver.wait_for(tmp_path / "sleep0.0")
    yield driver
    driver.process.kill()
    driver.process.communicate()


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_nothing_is_printed_nothing_is_left_and_the_driver_imports_neither_torch_nor_mlflow(tmp_path):
    driver = Driver(tmp_path, "tell", "fail", "die_once", "litter")
    stdout, stderr = driver.process.communicate()
    assert stdout.splitlines() == ["[True, False, True, True]", "imports that nobody asked for: []"]
    assert stderr == ""
    assert driver.process.returncode == 0
    assert driver.left_behind(patience_s=10) == []
    assert sorted(path.name for path in tmp_path.glob("logs/*.log")) == [
        "die_once2.log",
        "fail1.log",
        "litter3.log",
        "ray.log",
        "tell0.log",
    ]


@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_tasks_begin_in_processes_that_have_imported_ahead_of_which_there_are_no_more(tmp_path, number):
    cpus = len(os.sched_getaffinity(0))
    driver = Driver(tmp_path, *["look_around"] * number)
    _, stderr = driver.process.communicate()
    assert stderr == ""
    found = [json.loads(path.read_text()) for path in tmp_path.glob("look_around*.json")]
    assert found == [{"ready": True, "processes": min(number, cpus)}] * number


@pytest.mark.parametrize(
    ("node", "device", "num_tasks", "cpus"),
    [
        (Node(cpus=64, gpus=0, memory_bytes=256 << 30), "cpu", 80, 64),
        (Node(cpus=64, gpus=0, memory_bytes=256 << 30), "cpu", 3, 6),
        (Node(cpus=64, gpus=0, memory_bytes=8 << 30), "cpu", 80, 16),  # memory for 8 processes
        (Node(cpus=64, gpus=4, memory_bytes=256 << 30), "cuda", 80, 16),  # 2 processes on each GPU
        (Node(cpus=1, gpus=0, memory_bytes=256 << 30), "cpu", 80, 1),
    ],
)
def test_no_more_processes_are_made_ready_than_tasks_can_use(node, device, num_tasks, cpus):
    request = Request(workers=1, threads=2, device=device, per_gpu=2)
    assert runtime._useful_cpus(node, [request], num_tasks=num_tasks) == cpus


def test_importing_ahead_leaves_the_gpus_to_be_chosen():
    """Ray says which GPU is a process's own when its actor comes; who looked before would see all of them."""
    look = """
import torch
def looked(*_): raise AssertionError("somebody looked at the GPUs")
torch._C._cuda_getDeviceCount = torch._C._cuda_init = torch.cuda._raw_device_count_nvml = looked
import hkrun.cluster.ready
print(torch.cuda.is_initialized())
"""
    told = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    assert told.stdout == "False\n"


def test_what_was_imported_ahead_is_left_alone_by_the_garbage_collector():
    look = "import hkrun.cluster.ready, gc; print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    told = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    assert told.stdout == "True True\n"


@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=["ctrl-c", "sigterm"]
)
def test_a_signal_to_the_whole_group_ends_everything_silently(sleeping, number):
    assert len(sleeping.family()) > 5
    os.killpg(sleeping.process.pid, number)
    stdout, stderr = sleeping.process.communicate(timeout=60)
    assert (stdout, stderr) == ("", "")
    assert sleeping.process.returncode == 75
    assert sleeping.left_behind(patience_s=10) == []


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_killed_driver_leaves_nothing(sleeping):
    sleeping.process.kill()
    sleeping.process.wait()
    assert sleeping.left_behind(patience_s=10) == []


def test_the_caretaker_ends_what_is_of_the_cluster_and_no_stranger_who_reads_its_logs(tmp_path):
    folder, environment = tmp_path / "ray", {"PATH": os.environ["PATH"]}
    folder.mkdir()
    log = folder / "agent.log"
    log.write_text("begun\n")
    with log.open("a") as output, ExitStack() as stack:

        def start(*command, **options):
            return stack.enter_context(subprocess.Popen(command, **{"env": environment} | options))

        named = start("sleep", "100", env=environment | {caretaker.VARIABLE: "ray"})
        writer = start("sleep", "100", stdout=output)  # as an agent whose title has covered the variable
        other = start("sleep", "100", env=environment | {caretaker.VARIABLE: "ray-2"})
        reader = start("tail", "-f", log, stdout=subprocess.PIPE)
        try:
            assert reader.stdout.readline() == b"begun\n"
            caretaker.clear_away("ray", folder)
            assert named.wait(timeout=10) == writer.wait(timeout=10) == -signal.SIGKILL
            assert (other.poll(), reader.poll()) == (None, None)
            assert not folder.exists()
        finally:
            for process in (named, writer, other, reader):
                process.kill()


def test_ray_gets_a_folder_short_enough_for_its_sockets(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a-folder-with-a-long-name-deep-in-the-tree"))
    folder = runtime._make_folder()
    folder.rmdir()
    socket = folder / "session_2026-01-01_00-00-00_000000_1234567" / "sockets" / "plasma_store.123456"
    assert len(str(socket)) < 107


def test_the_token_is_for_the_user_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    token = tmp_path / ".ray" / "auth_token"
    ensure_token()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert len(token.read_text()) == 64
    assert list(token.parent.iterdir()) == [token]

    token.write_text("the user's own")
    token.chmod(0o644)
    ensure_token()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text() == "the user's own"


def test_a_home_that_cannot_hold_a_token_is_named(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(HkrunError, match=r"home/\.ray/auth_token: cannot write Ray's token"):
        ensure_token()


def test_a_token_in_the_environment_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    ensure_token()
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
            os.write(1, f"{line}\n".encode())
            os.write(2, f"{line}\n".encode())
            subprocess.run(["echo", f"{line} from a child"], check=True)
    os.write(1, b"after\n")
    assert sorted(log_file.read_text().split("\n")) == sorted(
        ["", "one", "one", "one from a child", "two", "two", "two from a child"]
    )
    assert capfd.readouterr() == ("after\n", "")


def test_output_is_put_back_after_an_exception(tmp_path, capfd):
    with pytest.raises(ValueError, match="boom"), output_to(tmp_path / "task.log"):
        raise ValueError("boom")
    os.write(1, b"after\n")
    assert capfd.readouterr() == ("after\n", "")


class FakeRay:
    """Ray whose processes do not start the first few times."""

    def __init__(self, failures):
        self.failures, self.starts, self.ends = failures, 0, 0

    def init(self, **options):
        self.starts += 1
        self.memory_bytes = options.get("_memory")
        if self.starts <= self.failures:
            raise Exception("The current node timed out during startup.\nMore words.")  # as Ray does

    def shutdown(self):
        self.ends += 1


def start_with(monkeypatch, tmp_path, failures):
    fake = FakeRay(failures)
    monkeypatch.setitem(sys.modules, "ray", fake)
    node = Node(cpus=2, gpus=0, memory_bytes=1 << 34)
    runtime._start(node, tmp_path, cpus=1, log_folder=tmp_path / "logs", in_groups=False)
    return fake


def test_a_slow_start_of_ray_is_tried_again(monkeypatch, tmp_path):
    fake = start_with(monkeypatch, tmp_path, failures=1)
    assert (fake.starts, fake.ends) == (2, 1)
    assert fake.memory_bytes == 1 << 34  # what the books count, however much of it is free just now


def test_a_ray_that_never_starts_is_one_line_with_its_logs(monkeypatch, tmp_path):
    with pytest.raises(ResourceError, match=r"2 tries.*logs/ray.*timed out during startup\.$") as caught:
        start_with(monkeypatch, tmp_path, failures=9)
    assert len(caught.value.problems) == 1
