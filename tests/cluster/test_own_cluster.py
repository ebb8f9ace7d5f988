"""A cluster of this machine's own: silent, and gone whatever becomes of the driver."""

import json
import math
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from driver_process import Driver
from fake_tasks import FakeTask, run
from ray import NodeID
from ray.exceptions import GetTimeoutError
from started_cluster import clean_environment

import hkrun
from hkrun.cluster import TaskList, ray_private, run_tasks
from hkrun.cluster.driver import cleanup, runtime, supervisor
from hkrun.cluster.driver.calls import OwnCluster
from hkrun.cluster.nodes.resources import Node, Request
from hkrun.cluster.ray_private import starting
from hkrun.cluster.redirect import output_to
from hkrun.cluster.token import ensure_token
from hkrun.errors import HkrunError, ResourceError

CODE = str(Path(hkrun.__file__).parent)
# Not nicer than this process, and without agents, as Ray would have it.
NEIGHBOUR = {
    "ready": True,
    "code": CODE,
    "niceness": os.getpriority(os.PRIO_PROCESS, 0),
    "agents of ray": 0,
}


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


def read_neighbours(folder: Path) -> list[dict[str, object]]:
    """What the tasks have found that look around."""
    return [json.loads(path.read_text()) for path in folder.glob("look_around*.json")]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_tasks_begin_in_processes_that_have_imported_ahead_of_which_there_are_no_more(tmp_path):
    driver = Driver(tmp_path, "look_around", "look_around")
    _, stderr = driver.process.communicate()
    assert stderr == ""
    processes = min(2, len(os.sched_getaffinity(0)))
    assert read_neighbours(tmp_path) == [NEIGHBOUR | {"processes": processes}] * 2


@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one process at a time")
def test_what_needs_a_task_begins_in_processes_that_were_ready_before_it(observer, tmp_path, monkeypatch):
    folders = [str(Path(hkrun.__file__).parents[1]), str(Path(__file__).parent)]  # of the fake tasks
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))
    tasks = [FakeTask(name=f"t{index}", does="note_times") for index in range(3)]
    work = TaskList(tasks=tasks, needs={1: [0], 2: [0]}, log_folder=tmp_path / "logs", function=run)
    first, *others = [result.outcomes[0] for result in run_tasks(work, observer)]
    assert len({each["pid"] for each in others}) == 2
    assert all(each["process_began_s"] < first["began_s"] for each in others)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_tasks_below_uv_run_begin_in_processes_that_are_there(tmp_path):
    """Ray would give them an environment, for which it asks an agent, and other processes."""
    (tmp_path / "run").write_text('"$@"\nexit $?\n')
    command = [sys.executable, "-m", "hkrun", "run", "--seeds", "2", "--epochs", "2", "--store", "store"]
    (tmp_path / "hook.py").write_text("def hook(environment): return {'env_vars': {'HOOKED': '1'}}\n")
    environment = clean_environment(
        PYTHONPATH=f"{Path(CODE).parent}{os.pathsep}{tmp_path}", RAY_RUNTIME_ENV_HOOK="hook.hook"
    )
    done = subprocess.run(
        ["bash", "-c", 'exec -a uv sh run "$@"', "bash", *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert "2/2 runs done" in done.stderr


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
    request = Request(workers=1, threads=2, device=device, per_gpu=2, num_tasks=num_tasks)
    assert supervisor._useful_cpus(node, [request]) == cpus


def call_ready(*, code: str, first: str = "") -> list[str]:
    """What a process says of itself that tries to get ready for a driver whose hkrun lies somewhere."""
    look = f"""{first}
import gc, sys
try:
    import hkrun.cluster.driver.preload
except ImportError as error:
    print(str(error).partition(",")[0])
found = {{"torch", "hkrun", "hkrun.trial.run"}} & set(sys.modules)
print(gc.isenabled(), gc.get_freeze_count() > 100_000, found)
"""
    environment = {**os.environ, ray_private.PRELOAD_FROM_VARIABLE: code}
    told = subprocess.run(
        [sys.executable, "-c", look], env=environment, check=True, capture_output=True, text=True
    )
    return told.stdout.splitlines()


def test_a_process_does_not_get_ready_with_another_hkrun_than_the_drivers(tmp_path):
    assert call_ready(code=str(tmp_path / "hkrun")) == [
        f"the driver's hkrun is at {tmp_path / 'hkrun'}",
        "True False set()",
    ]


@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.slow
def test_tasks_run_the_code_of_a_driver_that_is_not_the_installed_one(tmp_path):
    shutil.copytree(Path(hkrun.__file__).parent, tmp_path / "hkrun")
    driver = Driver(tmp_path, "look_around", python_path=tmp_path)
    _, stderr = driver.process.communicate()
    assert stderr == ""
    (found,) = read_neighbours(tmp_path)
    assert found["code"] == str(tmp_path / "hkrun")


def test_importing_ahead_leaves_the_gpus_to_be_chosen_and_the_garbage_collector_leaves_it_alone():
    """Ray says which GPU is a process's own when its actor comes; who looked before would see all of them."""
    watch = """
import atexit, torch
def looked(*_): raise AssertionError("somebody looked at the GPUs")
torch._C._cuda_getDeviceCount = torch._C._cuda_init = torch.cuda._raw_device_count_nvml = looked
atexit.register(lambda: print(torch.cuda.is_initialized()))
"""
    told, initialised = call_ready(code=CODE, first=watch)
    assert initialised == "False"
    assert told.startswith("True True {")
    assert told.count("'") == 6  # torch, hkrun and the loop


class Nodes:
    """A server that knows its first node after some calls, or never answers."""

    def __init__(self, *, calls_until: float = 0, error: Exception | None = None) -> None:
        self.calls, self._calls_until, self._error = 0, calls_until, error

    def get_all_node_info(self, *, timeout):
        self.calls += 1
        if self._error is not None:
            raise self._error
        return {NodeID.from_hex("ab" * 28): None} if self.calls > self._calls_until else {}


@pytest.mark.parametrize(
    ("nodes", "node_id", "calls"),
    [
        (Nodes(), "ab" * 28, 1),
        (Nodes(calls_until=2), "ab" * 28, 3),
        (Nodes(error=GetTimeoutError("busy")), "ab" * 28, 1),  # Ray itself tries again
    ],
)
def test_a_node_is_waited_for_until_it_is_there(monkeypatch, nodes, node_id, calls):
    monkeypatch.setattr("ray._raylet.GcsClient", lambda address: nodes)
    starting.wait_for_raylet("127.0.0.1:1", node_id, within_s=60)
    assert nodes.calls == calls


@pytest.mark.parametrize("nodes", [Nodes(calls_until=math.inf), Nodes()], ids=["none", "another"])
def test_a_node_that_never_comes_is_not_waited_for_for_ever(monkeypatch, nodes):
    monkeypatch.setattr("ray._raylet.GcsClient", lambda address: nodes)
    starting.wait_for_raylet("127.0.0.1:1", "cd" * 28, within_s=0.1)
    assert 1 < nodes.calls < 20


@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=["ctrl-c", "sigterm"]
)
def test_one_task_begins_in_the_one_process_that_is_ready_and_a_signal_to_the_group_ends_all(
    tmp_path, number
):
    driver = Driver(tmp_path, "look_around_and_sleep")
    try:
        driver.wait_for(tmp_path / "look_around_and_sleep0.0")
        assert read_neighbours(tmp_path) == [NEIGHBOUR | {"processes": 1}]
        assert len(driver.family()) > 5
        os.killpg(driver.process.pid, number)
        stdout, stderr = driver.process.communicate(timeout=60)
    finally:
        driver.process.kill()
        driver.process.communicate()
    assert (stdout, stderr) == ("", "")
    assert driver.process.returncode == 75
    assert driver.left_behind(patience_s=10) == []


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=["killed", "closed-terminal"])
def test_a_command_that_is_ended_by_a_signal_leaves_nothing(sleeping, number):
    sleeping.process.send_signal(number)
    assert sleeping.process.wait() == -number
    assert sleeping.left_behind(patience_s=10) == []


@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("process", "told"),
    [
        ("raylet/raylet", r"Ray's raylet on this machine has ended \(killed by SIGKILL\)"),
        pytest.param(
            "gcs/gcs_server",
            r"Ray's GCS on this machine has ended \(killed by SIGKILL\)",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "start_driver.py", r"Ray ended its driver \(killed by SIGKILL\)", marks=pytest.mark.slow
        ),
    ],
    ids=["raylet", "gcs", "driver"],
)
def test_a_lost_process_of_ray_is_told_and_its_logs_are_kept(sleeping, tmp_path, process, told):
    (pid,) = sleeping.find(process)
    os.kill(pid, signal.SIGKILL)
    stdout, stderr = sleeping.process.communicate(timeout=60)
    assert (stdout, stderr) == ("", "")
    assert sleeping.process.returncode == 75
    message = (tmp_path / "interrupted.txt").read_text()
    # Ray ends the driver when the raylet is gone, which it may see before we do.
    cause = rf"({told}|Ray ended its driver \(exit status 1\))"
    found = re.fullmatch(rf"{cause}; Ray's logs are in (?P<logs>\S+)", message)
    assert found, message
    assert list(Path(found["logs"]).glob("raylet*"))
    assert sleeping.left_behind(patience_s=10) == []


def test_the_caretaker_ends_what_is_of_the_cluster_and_no_stranger_who_reads_its_logs(tmp_path):
    folder, environment = tmp_path / "ray", {"PATH": os.environ["PATH"]}
    folder.mkdir()
    log = folder / "agent.log"
    log.write_text("begun\n")
    with log.open("a") as output, ExitStack() as stack:

        def start(*command, **options):
            return stack.enter_context(subprocess.Popen(command, **{"env": environment} | options))

        named = start("sleep", "100", env=environment | {cleanup.VARIABLE: "ray"})
        # As an agent, whose title may have covered the variable, and whose stdout is a pipe.
        writer = start(*["ray::DashboardAgent", "100"], executable="/bin/sleep", pass_fds=[output.fileno()])
        stranger = start("sleep", "100", pass_fds=[output.fileno()])  # as this process, the driver, is
        other = start("sleep", "100", env=environment | {cleanup.VARIABLE: "ray-2"})
        reader = start("tail", "-f", log, stdout=subprocess.PIPE)
        try:
            assert reader.stdout.readline() == b"begun\n"
            cleanup.clear_away("ray", folder)
            assert named.wait(timeout=10) == writer.wait(timeout=10) == -signal.SIGKILL
            assert [process.poll() for process in (other, reader, stranger)] == [None] * 3
            assert not folder.exists()
        finally:
            for process in (named, writer, stranger, other, reader):
                process.kill()


def test_ray_gets_a_folder_short_enough_for_its_sockets(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a-folder-with-a-long-name-deep-in-the-tree"))
    folder = supervisor._make_folder()
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
    for name in (
        *("skip_helper_processes", "give_agents_ports", "skip_dashboard"),
        *("start_workers_in_turn", "see_raylet_at_once"),
    ):
        monkeypatch.setattr(ray_private, name, lambda: None)
    monkeypatch.setattr(runtime, "make_job_config", lambda: None)
    node = Node(cpus=2, gpus=0, memory_bytes=1 << 34)
    runtime._start(OwnCluster(node=node, cpus=1, in_groups=False), tmp_path, lambda error: None)
    return fake


def test_a_slow_start_of_ray_is_tried_again(monkeypatch, tmp_path):
    fake = start_with(monkeypatch, tmp_path, failures=1)
    assert (fake.starts, fake.ends) == (2, 1)
    assert fake.memory_bytes == 1 << 34  # what the books count, however much of it is free just now


def test_a_ray_that_never_starts_is_one_line(monkeypatch, tmp_path):
    with pytest.raises(ResourceError, match=r"2 tries.*timed out during startup\.$") as caught:
        start_with(monkeypatch, tmp_path, failures=9)
    assert len(caught.value.problems) == 1
