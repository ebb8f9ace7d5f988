"""Private names of Ray: one module has them, and hkrun works without each."""

import ast
import inspect
import json
import os
import re
import select
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import ray.air._internal.usage
import ray.experimental.internal_kv
from packaging.requirements import Requirement
from ray import _raylet
from ray._private import parameter, ray_constants, services
from ray.exceptions import GetTimeoutError
from ray.train.v2._internal.exceptions import RayTrainError, WorkerGroupStartupTimeoutError
from ray.tune.execution import class_cache
from started_cluster import clean_environment

import hkrun
from hkrun.cluster import ray_private
from hkrun.cluster.ray_private import agent, finding, starting, values, worker

PACKAGE = Path(hkrun.__file__).parent
# Documented for users: where a cluster is, who may use it, where a job's files are.
PUBLIC_VARIABLES = {
    "RAY_ADDRESS",
    "RAY_API_SERVER_ADDRESS",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_RUNTIME_ENV_CREATE_WORKING_DIR",
}
INTERNAL = re.compile(r"ray\.(.*\.)?(_(?!_)\w+|experimental|tune\.execution|tune\.impl|air|train\.v2)\b")


def find_private_names(code: str) -> list[str]:
    """What a module names of Ray that no release promises: modules, members, arguments, variables."""
    found = []
    tree = ast.parse(code)
    docstrings = {
        ast.get_docstring(node, clean=False)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found += [alias.name for alias in names if INTERNAL.match(alias.name)]
            case ast.ImportFrom(module=str(module), names=names) if module.partition(".")[0] == "ray":
                found += [
                    f"{module}.{alias.name}" for alias in names if INTERNAL.match(f"{module}.{alias.name}")
                ]
            case ast.Attribute() if INTERNAL.match(ast.unparse(node)):
                found.append(ast.unparse(node))
            case ast.Call(keywords=keywords) if ast.unparse(node.func).startswith("ray."):
                found += [str(word.arg) for word in keywords if str(word.arg).startswith("_")]
            case ast.Constant(value=str(text)) if text not in docstrings:
                found += re.findall(r"\bray\._\w+", text)
                found += set(re.findall(r"\b(?:RAY|TUNE)_[A-Za-z_]+\w", text)) - PUBLIC_VARIABLES
    return found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from ray import _raylet", ["ray._raylet"]),
        ("from ray._private import services", ["ray._private.services"]),
        ("import ray.experimental.internal_kv", ["ray.experimental.internal_kv"]),
        ("from ray.tune.execution import class_cache", ["ray.tune.execution.class_cache"]),
        ("from ray.train.v2.api.config import RunConfig", ["ray.train.v2.api.config.RunConfig"]),
        ("import ray\nray._private.worker", ["ray._private.worker", "ray._private"]),
        ("import ray\nray.init(_memory=1)", ["_memory"]),
        ("loggers = ['ray._private.packaging']", ["ray._private"]),
        ("os.environ['RAY_preload_python_modules']", ["RAY_preload_python_modules"]),
        ('"""RAY_x is told in words."""\nfrom ray import tune\nos.environ["RAY_ADDRESS"]', []),
    ],
)
def test_private_names_are_found(code, found):
    assert find_private_names(code) == found


def test_no_other_module_has_a_private_name_of_ray():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        if Path(ray_private.__file__).parent not in path.parents and (
            names := find_private_names(path.read_text())
        ):
            found[path.relative_to(PACKAGE).as_posix()] = names
    assert found == {}


def saw(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith(ray_private.__name__)]


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.setattr(finding, "_told", set())


HASTENING = {
    "RayParams": (
        parameter,
        ray_private.skip_helper_processes,
        ray_private.give_agents_ports,
        ray_private.start_workers_in_turn,
    ),
    "start_raylet": (services, ray_private.give_agents_ports),
    "persist_port": (_raylet, ray_private.give_agents_ports),
    "start_api_server": (services, ray_private.skip_dashboard),
    "_build_python_executable_command_memory_profileable": (services, ray_private.skip_dashboard),
    "PROCESS_TYPE_DASHBOARD_AGENT": (ray_constants, ray_private.skip_dashboard),
    "get_node": (services, ray_private.see_raylet_at_once),
}

NOTHING_BY_NAME = {"persist_port", "start_api_server", "PROCESS_TYPE_DASHBOARD_AGENT"}


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("name", "function", "change"),
    [
        (name, function, change)
        for name, (_, *functions) in HASTENING.items()
        for function in functions
        for change in ("gone", "other arguments")
        if change == "gone" or name not in NOTHING_BY_NAME
    ],
)
def test_ray_starts_without_the_names_that_make_it_start_sooner(monkeypatch, caplog, name, function, change):
    module = HASTENING[name][0]
    if change == "gone":
        monkeypatch.delattr(module, name)
    else:
        monkeypatch.setattr(module, name, lambda address=None: address)
    before = {name: getattr(module, name, None) for name, (module, *_) in HASTENING.items()}
    function()
    function()
    assert {name: getattr(module, name, None) for name, (module, *_) in HASTENING.items()} == before
    (line,) = saw(caplog)
    assert line.startswith(f"Ray {ray.__version__} has no ")
    assert name in line


@pytest.fixture(autouse=True)
def _release(monkeypatch):
    """Frees the ports that a test has reserved."""
    reserved = []
    monkeypatch.setattr(starting, "_reserved", reserved)
    yield
    for each in reserved:
        each.close()


@pytest.fixture
def genuine(monkeypatch):
    """Gives Ray its own names back afterwards."""
    for name, (module, *_) in HASTENING.items():
        monkeypatch.setattr(module, name, getattr(module, name))
    return monkeypatch


def test_ray_starts_without_its_monitors_and_sees_its_raylet(genuine, caplog):
    genuine.setattr(services, "get_node", lambda gcs_address, node_id, **more: (gcs_address, node_id, more))
    waited = []
    genuine.setattr(starting, "wait_for_raylet", lambda *node: waited.append(node))
    ray_private.skip_helper_processes()
    ray_private.see_raylet_at_once()
    made = parameter.RayParams(num_cpus=1)
    assert (made.no_monitor, made.include_log_monitor, made.num_cpus) == (True, False, 1)
    assert services.get_node("here:1", "ab") == ("here:1", "ab", {})
    assert services.get_node("here:1", "ab", timeout=1) == ("here:1", "ab", {"timeout": 1})
    waited.pop()
    assert waited == [("here:1", "ab")]
    assert saw(caplog) == []


def test_the_raylet_knows_the_ports_of_its_agents(genuine, caplog, tmp_path):
    started = []
    genuine.setattr(
        services,
        "start_raylet",
        lambda redis, node_id, session_dir, *, dashboard_agent_listen_port: started.append(node_id),
    )
    ray_private.skip_helper_processes()
    ray_private.give_agents_ports()
    made = [parameter.RayParams(num_cpus=1) for _ in range(2)]  # each try gets its own
    ports = [getattr(each, name) for each in made for name in starting.AGENT_PORTS]
    assert len(set(ports)) == 2 * len(starting.AGENT_PORTS)
    assert made[0].no_monitor
    port = made[0].dashboard_agent_listen_port
    services.start_raylet("redis", "ab", session_dir=str(tmp_path), dashboard_agent_listen_port=port)
    assert started == ["ab"]
    told = _raylet.wait_for_persisted_port(str(tmp_path), "ab", "dashboard_agent_listen_port", timeout_ms=1)
    assert told == port
    assert saw(caplog) == []


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
def test_a_reserved_port_is_free_for_a_server_that_asks_for_it_and_for_nobody_who_looks_for_one(host):
    port = starting._reserve_port()
    with socket.socket() as looking, pytest.raises(OSError, match="in use"):
        looking.bind((host, port))
    with socket.create_server((host, port)) as server, socket.create_connection(("127.0.0.1", port)) as there:
        accepted, address = server.accept()
        accepted.close()
        assert address == there.getsockname()


@pytest.mark.usefixtures("fresh")
def test_ray_starts_where_its_raylet_cannot_be_told_a_port(genuine, caplog):
    genuine.setattr(
        services, "start_raylet", lambda session_dir, node_id, *, dashboard_agent_listen_port: node_id
    )
    genuine.setattr(_raylet, "persist_port", lambda session_dir, node_id, port: None)
    ray_private.give_agents_ports()
    assert services.start_raylet("there", "ab", dashboard_agent_listen_port=1) == "ab"
    (line,) = saw(caplog)
    assert "persist_port" in line


def test_ray_starts_without_its_dashboards_process_and_its_agents(genuine, caplog):
    ray_private.skip_dashboard()
    assert services.start_api_server(include_dashboard=False, host="here") == ("", None)
    program = services._build_python_executable_command_memory_profileable
    for component in ("dashboard_agent", "runtime_env_agent"):
        command = program(component, "session")
        assert command[0] == sys.executable
        assert command[-1] == agent.__file__
    assert program("monitor", "session") == [sys.executable, "-u"]
    assert program("monitor", "session", unbuffered=False) == [sys.executable]
    assert saw(caplog) == []


@pytest.fixture(autouse=True)
def _preloading(monkeypatch):
    for name, value in ray_private.PRELOAD_SETTINGS.items():
        monkeypatch.setenv(name, value)


def test_processes_come_in_no_turn_where_what_they_import_ahead_is_the_users(genuine):
    genuine.setenv("RAY_preload_python_modules", "mine")
    ray_private.start_workers_in_turn()
    assert parameter.RayParams(num_cpus=1).setup_worker_path is None


def test_processes_for_tasks_begin_with_a_program_of_hkruns_in_any_order_of_what_else_is_changed(
    genuine, caplog
):
    ray_private.give_agents_ports()
    ray_private.start_workers_in_turn()
    ray_private.skip_helper_processes()
    made = parameter.RayParams(num_cpus=1)
    assert made.setup_worker_path == worker.__file__
    # Ray leaves out one of this name where a task asks for no environment.
    assert not made.setup_worker_path.endswith(ray_constants.SETUP_WORKER_FILENAME)
    assert made.no_monitor
    assert made.metrics_agent_port
    assert saw(caplog) == []


def test_a_ray_that_was_not_tested_has_its_agents(genuine, caplog):
    genuine.setattr(ray, "__version__", "2.601.0")
    before = services.start_api_server, services._build_python_executable_command_memory_profileable
    ray_private.skip_dashboard()
    assert before == (
        services.start_api_server,
        services._build_python_executable_command_memory_profileable,
    )
    (line,) = saw(caplog)
    assert line.startswith("Ray 2.601.0 was not tested without its agents")


def test_what_stands_in_for_an_agent_ends_with_the_raylet_and_not_before():
    """The shell is its parent; both hold the pipe, which ends with the last of them."""
    with subprocess.Popen(
        ["sh", "-c", '"$@" & read -r line', "sh", sys.executable, agent.__file__, "--node-id=ab"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as shell:
        assert select.select([shell.stdout], [], [], 1.5)[0] == []
        output, _ = shell.communicate(timeout=30)
    assert output == b""


@pytest.mark.usefixtures("fresh")
def test_a_raylet_is_not_waited_for_where_ray_cannot_be_asked(monkeypatch, caplog):
    monkeypatch.delattr("ray._raylet.GcsClient")
    starting.wait_for_raylet("127.0.0.1:1", "ab", within_s=60)
    (line,) = saw(caplog)
    assert "GcsClient" in line


@pytest.mark.usefixtures("fresh")
def test_a_cluster_starts_where_ray_init_knows_no_private_argument(monkeypatch, caplog, tmp_path):
    calls = []

    def init(**options):
        calls.append(options)
        if "_memory" in options:
            raise RuntimeError("Unknown keyword argument(s): _memory, _temp_dir")

    monkeypatch.setenv("RAY_TMPDIR", "elsewhere")
    monkeypatch.setattr(ray, "init", init)
    ray_private.start_ray(memory_bytes=1 << 30, folder=tmp_path, num_cpus=2)
    private = {"_memory": 1 << 30, "_temp_dir": str(tmp_path), "_skip_env_hook": True}
    assert calls == [private | {"num_cpus": 2}, {"num_cpus": 2}]
    assert os.environ["RAY_TMPDIR"] == str(tmp_path)
    (line,) = saw(caplog)
    assert "_memory" in line


def test_what_else_ray_init_raises_is_passed_on(monkeypatch, tmp_path):
    def init(**options):
        raise RuntimeError("Maybe you called ray.init twice by accident?")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(RuntimeError, match="twice"):
        ray_private.start_ray(memory_bytes=1, folder=tmp_path)


@pytest.mark.usefixtures("fresh")
def test_workers_find_modules_where_a_job_has_no_search_path(monkeypatch, caplog):
    monkeypatch.setattr("ray.job_config.JobConfig", SimpleNamespace)
    assert vars(ray_private.job_config(lambda folder: False)) == {}
    (line,) = saw(caplog)
    assert "_py_driver_sys_path" in line


def test_a_job_takes_the_folders_that_are_wanted():
    config = ray_private.job_config(lambda folder: folder != "/cwd")
    config._py_driver_sys_path.extend(["/cwd", "/hkrun"])
    assert list(config._get_proto_job_config().py_driver_sys_path) == ["/hkrun"]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", ["DEFAULT_ENV_VARS", "ENV_VARS_TO_PROPAGATE"])
def test_trials_get_an_environment_where_tunes_cannot_be_emptied(monkeypatch, caplog, name):
    monkeypatch.delattr(class_cache, name)
    before = dict(vars(class_cache))
    ray_private.keep_processes_for_trials()
    assert vars(class_cache) == before
    (line,) = saw(caplog)
    assert "class_cache" in line


def test_trials_get_no_environment_of_their_own(monkeypatch):
    monkeypatch.setattr(class_cache, "DEFAULT_ENV_VARS", {"PL_DISABLE_FORK": "1"})
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", {"PATH"})
    made = []
    monkeypatch.setattr(ray, "remote", lambda runtime_env: made.append(runtime_env) or (lambda cls: cls))
    ray_private.keep_processes_for_trials()
    class_cache._ActorClassCache().get(object)
    assert made == [{"env_vars": {}}]


@pytest.mark.usefixtures("fresh")
def test_callbacks_are_counted_where_that_cannot_be_skipped(monkeypatch, caplog):
    monkeypatch.delattr(ray.air._internal.usage, "tag_callbacks")
    ray_private.skip_callback_counts()
    assert not hasattr(ray.air._internal.usage, "tag_callbacks")
    (line,) = saw(caplog)
    assert "tag_callbacks" in line


def test_callbacks_are_not_counted(monkeypatch):
    from ray.tune.tune import air_usage

    monkeypatch.setattr(air_usage, "tag_callbacks", air_usage.tag_callbacks)
    ray_private.skip_callback_counts()
    assert air_usage.tag_callbacks([object()]) is False  # Ray's own one says True
    assert air_usage.tag_callbacks([object()], more=1) is False


@pytest.mark.usefixtures("fresh")
def test_a_group_without_room_counts_as_a_death_where_its_error_is_unknown(monkeypatch, caplog):
    late = WorkerGroupStartupTimeoutError(2)
    assert ray_private.found_no_room(late)
    assert not ray_private.found_no_room(RayTrainError("another one"))
    monkeypatch.delattr("ray.train.v2._internal.exceptions.WorkerGroupStartupTimeoutError")
    assert not ray_private.found_no_room(late)
    (line,) = saw(caplog)
    assert "WorkerGroupStartupTimeoutError" in line


def test_tune_says_of_a_busy_actor_what_is_looked_for():
    from ray.tune.execution import tune_controller

    (said,) = re.findall(r'"(Trainable runner reuse requires [^"]*)"', inspect.getsource(tune_controller))
    assert ray_private.is_busy_actor(f"ray.tune.error.TuneError: {said}")
    assert not ray_private.is_busy_actor("The actor died unexpectedly")


class FakeGcs:
    """The key-value store of a GCS that answers, or does not."""

    def __init__(self, *, answers: bool = True) -> None:
        self.values, self.answers = {}, answers

    def _ask(self):
        if not self.answers:
            raise GetTimeoutError("no answer")

    def internal_kv_put(self, key, value, overwrite, namespace, timeout):
        self._ask()
        self.values[namespace, key] = value

    def internal_kv_keys(self, prefix, namespace, timeout):
        self._ask()
        return [key for space, key in self.values if space == namespace and key.startswith(prefix)]

    def internal_kv_multi_get(self, keys, namespace, timeout):
        return {key: self.values[namespace, key] for key in keys}

    def internal_kv_del(self, key, del_by_prefix, namespace, timeout):
        gone = self.internal_kv_keys(key, namespace, timeout) if del_by_prefix else [key]
        for name in gone:
            self.values.pop((namespace, name), None)


class FakeActors:
    """Named actors that do at once what they are asked."""

    def __init__(self, monkeypatch) -> None:
        self.actors = {}
        monkeypatch.setattr(ray, "remote", self.remote)
        monkeypatch.setattr(ray, "get_actor", self.get_actor)
        monkeypatch.setattr(ray, "get", lambda value, timeout: value)

    def remote(self, cls):
        def start(*, num_cpus, name, get_if_exists):
            assert (num_cpus, get_if_exists) == (0, True)
            return SimpleNamespace(remote=lambda: self.actors.setdefault(name, cls()))

        return SimpleNamespace(options=start)

    def get_actor(self, name):
        if name not in self.actors:
            raise ValueError("Failed to look up actor")
        actor = self.actors[name]
        return SimpleNamespace(
            **{method: SimpleNamespace(remote=getattr(actor, method)) for method in ("put", "read", "remove")}
        )


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("hidden", [None, "internal_kv_get_gcs_client", "internal_kv_multi_get"])
def test_processes_share_values_with_and_without_rays_own_store(monkeypatch, caplog, hidden):
    actors, gcs = FakeActors(monkeypatch), FakeGcs()
    monkeypatch.setattr(ray.experimental.internal_kv, "global_gcs_client", gcs)
    if hidden == "internal_kv_get_gcs_client":
        monkeypatch.delattr(ray.experimental.internal_kv, hidden)
    elif hidden is not None:
        monkeypatch.delattr(FakeGcs, hidden)
    store = ray_private.key_value_store()
    assert store.read("a/") == {}
    for key in ("a/1", "a/2", "a/20", "b/1"):
        ray_private.key_value_store().put(key, key.encode())
    store.remove("a/2", below=False)
    assert store.read("a/") == {"a/1": b"a/1", "a/20": b"a/20"}
    store.remove("a/", below=True)
    assert store.read("") == {"b/1": b"b/1"}
    assert (len(actors.actors), len(gcs.values)) == ((0, 1) if hidden is None else (1, 0))
    assert ["internal_kv" in line for line in saw(caplog)] == ([] if hidden is None else [True])


METHODS = tuple(values.GcsStore.METHODS)


def change_signature(method, *, more="", without=""):
    """The method of `FakeGcs` with another parameter, or without one."""
    known = [name for name in inspect.signature(getattr(FakeGcs, method)).parameters if name != without]
    *first, last = [*known, more] if more else known
    namespace = {}
    exec(f"def changed({', '.join([*first, last])}): raise AssertionError", namespace)
    return namespace["changed"]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("change", [{"more": "token"}, {"without": "timeout"}, {"without": "namespace"}])
@pytest.mark.parametrize("method", METHODS)
def test_processes_share_values_where_rays_store_has_another_signature(monkeypatch, caplog, method, change):
    FakeActors(monkeypatch)
    monkeypatch.setattr(FakeGcs, method, change_signature(method, **change))
    gcs = FakeGcs()
    monkeypatch.setattr(ray.experimental.internal_kv, "global_gcs_client", gcs)
    ray_private.key_value_store().read("")
    ray_private.key_value_store().put("a", b"1")
    assert (ray_private.key_value_store().read(""), gcs.values) == ({"a": b"1"}, {})
    (line,) = saw(caplog)
    assert method in line


@pytest.mark.usefixtures("fresh")
def test_the_client_is_done_without_where_it_takes_an_argument(monkeypatch, caplog):
    monkeypatch.setattr(ray.experimental.internal_kv, "internal_kv_get_gcs_client", lambda worker: worker)
    assert isinstance(ray_private.key_value_store(), values.ActorStore)
    assert len(saw(caplog)) == 1


class LaterGcs(FakeGcs):
    """Of a Ray whose methods take more, none of it required."""

    def internal_kv_put(self, key, value, overwrite, namespace, timeout, *, token=None):
        super().internal_kv_put(key, value, overwrite, namespace, timeout)


@pytest.mark.usefixtures("fresh")
def test_rays_store_may_take_more_arguments_that_are_optional(monkeypatch, caplog):
    monkeypatch.setattr(ray.experimental.internal_kv, "global_gcs_client", LaterGcs())
    store = ray_private.key_value_store()
    store.put("a", b"1")
    assert (type(store), store.read("")) == (values.GcsStore, {"a": b"1"})
    assert saw(caplog) == []


def test_rays_own_client_takes_what_the_store_calls_it_with():
    from ray._raylet import InnerGcsClient

    for method, names in values.GcsStore.METHODS.items():
        inspect.signature(getattr(InnerGcsClient, method)).bind("self", **dict.fromkeys(names))


@pytest.mark.usefixtures("fresh")
def test_a_process_that_is_ahead_of_the_driver_loses_a_value_and_no_more(monkeypatch):
    FakeActors(monkeypatch)
    monkeypatch.delattr(ray.experimental.internal_kv, "internal_kv_get_gcs_client")
    store = ray_private.key_value_store()
    store.put("a", b"early")
    assert store.read("") == {}


@pytest.mark.parametrize("answers", [True, False])
def test_the_head_is_asked_for_an_answer(monkeypatch, answers):
    monkeypatch.setattr(ray.experimental.internal_kv, "global_gcs_client", FakeGcs(answers=answers))
    assert ray_private.head_answers() is answers


@pytest.mark.usefixtures("fresh")
def test_the_head_is_connected_to_where_it_cannot_be_asked(monkeypatch):
    monkeypatch.delattr(ray.experimental.internal_kv, "internal_kv_get_gcs_client")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=address))
        assert ray_private.head_answers()
    assert not ray_private.head_answers()


def test_ray_is_bound_to_the_version_that_was_tested():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    (wanted,) = [wanted for wanted in map(Requirement, project["dependencies"]) if wanted.name == "ray"]
    assert ray.__version__.startswith(f"{finding.TESTED}.")
    assert ray.__version__ in wanted.specifier
    major, minor = finding.TESTED.split(".")
    assert f"{major}.{int(minor) + 1}.0" not in wanted.specifier


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_sweep_runs_with_a_ray_without_these_names(tmp_path):
    program = Path(__file__).with_name("hidden_names.py")
    command = [sys.executable, program, "run", "--seeds", "2", "--epochs", "2", "--store", "store", "--json"]
    environment = clean_environment(PYTHONPATH=f"{PACKAGE.parent}{os.pathsep}{program.parent}")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    assert (cell["seeds"], cell["failed"], cell["diverged"]) == ([0, 1], [], [])
    log = (tmp_path / "store" / "logs" / "ray.log").read_text()
    missing = re.findall(r"Ray \S+ has no (.+?), as Ray 2\.60 has", log)
    assert "Traceback" not in log
    assert {name.partition("(")[0] for name in missing} == {
        "ray._private.parameter.RayParams",
        "ray._private.services.get_node",
        "ray._private.services.start_raylet",
        "ray.experimental.internal_kv.internal_kv_get_gcs_client",
        "ray.init",
    }
