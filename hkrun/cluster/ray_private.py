"""Every private or undocumented name of Ray that hkrun uses, each behind one function; tested with Ray 2.60.

No other module has one (tests/cluster/test_ray_private.py). Each function says what its name is good for.
Where Ray has no such name, or one of another signature, the function logs one line and takes the public way,
which is slower or sees less: no name is required. Environment variables that Ray does not know do nothing.

The functions import Ray themselves: the supervisor, which never imports it, needs the settings.
"""

import functools
import importlib
import inspect
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from hkrun.cluster.driver import agent, worker

logger = logging.getLogger(__name__)

TESTED = "2.60"

# Read in the driver, in Ray's own processes and in those of tasks. A value that the user has set stays.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a FutureWarning in every process without a GPU
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of the user mean what they meant on the command line
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # in a job, these are added to the variables that it was sent with
    "RAY_AIR_NEW_OUTPUT": "0",  # the older reporter is silent at verbosity 0, the newer is not
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # prints of workers go where their stdout goes
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",  # for room, not for processes; then the schedule decides
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a worker group's end is seen after half a second, not two
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files that hkrun does not read
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is the driver's
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # what a trial reports last is its outcome alone
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # snapshots for a Tuner.restore that is never called
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # the schedule limits how many there are
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "86400",  # the fit was checked before (the typo is Ray's)
}

# For a cluster of this machine whose tasks are single processes. Ray starts a process per CPU, which imports
# what tasks take while the driver still waits for Ray. It must not end one that is idle for a moment: its CPU
# may be reserved, and its task on the way. Nor may the process give way to all else that imports beside it,
# as tasks of Ray do by 15. Metrics would go to an agent that is not there (`skip_dashboard`). See also
# `start_workers_in_turn`.
PRELOAD_SETTINGS = {
    "RAY_preload_python_modules": "hkrun.cluster.driver.preload",
    "RAY_kill_idle_workers_interval_ms": "0",
    "RAY_worker_niceness": "0",
    "RAY_enable_metrics_collection": "0",
}
PRELOAD_FROM_VARIABLE = "HKRUN_PRELOAD_FROM"  # tells `preload` where the driver's hkrun lies

# For a cluster of this machine. Ray takes the loopback address for the machine's, as it does by itself on
# macOS and Windows, so that no other machine reaches it. Else it listens on all addresses.
LOOPBACK_SETTINGS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
if Path("/sys/class/net/lo").exists():
    LOOPBACK_SETTINGS["GLOO_SOCKET_IFNAME"] = "lo"  # workers of a group

# For a job: the seconds between SIGTERM and SIGKILL, else three; and the driver may add variables of its own.
STOP_WAIT_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
JOB_SETTINGS = {"RAY_OVERRIDE_JOB_RUNTIME_ENV": "1"}

# Loggers of the job client that tell of every upload.
UPLOAD_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)

AGENT_PORTS = (
    "dashboard_agent_listen_port",
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
)

RAYLET_WITHIN_S = 20.0  # Ray itself waits longer
ANSWER_WITHIN_S, HEAD_ANSWERS_WITHIN_S = 2, 10
_told: set[str] = set()
_reserved: list[socket.socket] = []


def _find(module: str, *names: str, consequence: str, parameters: Collection[str] = ()) -> Any:
    """A module of Ray's that has these names; where it lacks one, logs what follows, and returns None.

    `parameters` are what its members must take, if they are called.
    """
    try:
        found = importlib.import_module(module)
        members = [getattr(found, name) for name in names]
        if all(
            set(parameters) <= set(inspect.signature(member).parameters) for member in members if parameters
        ):
            return found
    except (ImportError, AttributeError, TypeError, ValueError):
        pass
    takes = f"({', '.join(parameters)})" if parameters else ""
    _do_without(f"{module}.{' and '.join(names)}{takes}", consequence)
    return None


def _do_without(name: str, consequence: str) -> None:
    """Logs, once per name, that Ray lacks one and what follows."""
    if name not in _told:
        _told.add(name)
        import ray

        logger.warning("Ray %s has no %s, as Ray %s has: %s", ray.__version__, name, TESTED, consequence)


def start_ray(*, memory_bytes: int, folder: Path, **options: Any) -> None:
    """`ray.init` for a cluster of this machine.

    Ray is told the memory as hkrun counts it, and where its sockets and logs lie. Without these names it
    counts the memory that is free, and RAY_TMPDIR says where.
    """
    import ray

    try:
        ray.init(_memory=memory_bytes, _temp_dir=str(folder), **options)
    except RuntimeError as error:
        if "Unknown keyword" not in str(error):
            raise
        _do_without("ray.init(_memory, _temp_dir)", "fewer tasks may run at once")
        os.environ["RAY_TMPDIR"] = str(folder)
        ray.init(**options)


def skip_helper_processes() -> None:
    """Starts Ray without the autoscaler's monitor and without the process that sends logs to drivers.

    A cluster of one machine needs neither. Saves a second at its end.
    """
    found = _find(
        "ray._private.parameter",
        "RayParams",
        parameters=("no_monitor", "include_log_monitor"),
        consequence="Ray ends a second later",
    )
    if found:
        found.RayParams = functools.partial(found.RayParams, no_monitor=True, include_log_monitor=False)


def start_workers_in_turn() -> None:
    """Lets processes for tasks come to the raylet one after the other, in the order in which they import."""
    consequence = "the first task may wait for two processes to import"
    name = "setup_worker_path"
    found = _find("ray._private.parameter", "RayParams", parameters=(name,), consequence=consequence)
    if found:
        found.RayParams = functools.partial(found.RayParams, **{name: worker.__file__})


def give_agents_ports() -> bool:
    """Chooses the ports of the raylet's agents, and tells the raylet; returns whether that is possible.

    It starts no process for tasks before it knows them, and agents that choose theirs tell it after a second
    of imports; of the one port that has a default, a second cluster on this machine waits four.
    """
    consequence = "Ray starts up to a second later, and four beside another cluster"
    told = "session_dir", "node_id", "dashboard_agent_listen_port"
    parameter = _find("ray._private.parameter", "RayParams", consequence=consequence, parameters=AGENT_PORTS)
    services = _find("ray._private.services", "start_raylet", consequence=consequence, parameters=told)
    names = ("persist_port", "DASHBOARD_AGENT_LISTEN_PORT_NAME")
    raylet = _find("ray._raylet", *names, consequence=consequence)
    if not (parameter and services and raylet):
        return False
    make, start = parameter.RayParams, services.start_raylet

    @functools.wraps(make)
    def make_with_ports(**options: Any) -> Any:
        return make(**options | {name: _reserve_port() for name in AGENT_PORTS})

    @functools.wraps(start)
    def start_knowing_ports(*args: Any, **options: Any) -> Any:
        folder, node, port = map(inspect.signature(start).bind(*args, **options).arguments.__getitem__, told)
        try:  # the others are among the raylet's arguments
            raylet.persist_port(folder, node, raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME, port)
        except TypeError:
            _do_without("ray._raylet.persist_port(folder, node, name, port)", consequence)
        return start(*args, **options)

    parameter.RayParams, services.start_raylet = make_with_ports, start_knowing_ports
    return True


def _reserve_port() -> int:
    """A free port that stays free, as long as this process lives, for one who asks for it by number.

    A server binds with SO_REUSEADDR, and so gets a port to which a socket is bound that has it as well and
    does not listen. That it had it not when it was bound keeps out another one who looks for a free port.
    """
    reserved = socket.socket()
    reserved.bind(("", 0))
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _reserved.append(reserved)
    port: int = reserved.getsockname()[1]
    return port


def skip_dashboard() -> None:
    """Starts Ray without its dashboard's process and without the two agents of its raylet.

    Ray starts all three also where it is told to leave the dashboard out. The agents serve the dashboard,
    gather metrics and make environments for tasks that ask for one (`runtime_env`). The raylet ends with
    either, so each has a stand-in; it tells no port, which the raylet must know (`give_agents_ports`). That
    tasks need neither agent is nothing that names could show.
    """
    import ray

    consequence = "two agents import beside the first task, and Ray starts up to a second later"
    if not ray.__version__.startswith(f"{TESTED}."):
        logger.warning("Ray %s was not tested without its agents: %s", ray.__version__, consequence)
        return
    program = "_build_python_executable_command_memory_profileable"
    services = _find("ray._private.services", program, parameters=("component",), consequence=consequence)
    services = services and _find("ray._private.services", "start_api_server", consequence=consequence)
    names = ("PROCESS_TYPE_DASHBOARD_AGENT", "PROCESS_TYPE_RUNTIME_ENV_AGENT")
    constants = _find("ray._private.ray_constants", *names, consequence=consequence)
    if not (services and constants):
        return
    agents, build = {getattr(constants, name) for name in names}, getattr(services, program)

    def build_command(component: str, *args: Any, **options: Any) -> Any:
        if component in agents:
            return [sys.executable, "-I", "-S", agent.__file__]
        return build(component, *args, **options)

    setattr(services, program, build_command)
    services.start_api_server = lambda *_, **__: ("", None)  # its URL, its process


def see_raylet_at_once() -> None:
    """Makes Ray see its raylet as soon as it is there: Ray looks once a second."""
    found = _find(
        "ray._private.services",
        "get_node",
        parameters=("gcs_address", "node_id"),
        consequence="Ray starts up to a second later",
    )
    if found:
        get_node = found.get_node

        def wait_for_node(gcs_address: str, node_id: str, *args: Any, **kwargs: Any) -> Any:
            wait_for_raylet(gcs_address, node_id)
            return get_node(gcs_address, node_id, *args, **kwargs)

        found.get_node = wait_for_node


def wait_for_raylet(gcs_address: str, node_id: str, *, within_s: float = RAYLET_WITHIN_S) -> None:
    """Waits until a node is known or the time is over: Ray itself then waits on, or says what is wrong."""
    from ray.exceptions import RayError

    deadline = time.monotonic() + within_s
    try:
        from ray import _raylet

        client = _raylet.GcsClient(address=gcs_address)  # type: ignore[attr-defined]
        while time.monotonic() < deadline:
            if any(node.hex() == node_id for node in client.get_all_node_info(timeout=1)):
                return
            time.sleep(0.02)
    except RayError:
        return
    except (ImportError, AttributeError, TypeError):
        _do_without("GcsClient.get_all_node_info(timeout)", "Ray starts up to a second later")


class _Folders(list[str]):
    """The driver's folders as Ray collects them, with those alone that `keep` lets pass."""

    def __init__(self, keep: Callable[[str], bool]) -> None:
        super().__init__()
        self._keep = keep

    def extend(self, folders: Iterable[str]) -> None:
        super().extend(filter(self._keep, folders))


def job_config(keep: Callable[[str], bool]) -> Any:
    """A JobConfig by which workers look for modules in those of the driver's folders that `keep` lets pass.

    Without it they look in the driver's working directory before the libraries.
    """
    from ray.job_config import JobConfig

    config = JobConfig()
    if isinstance(getattr(config, "_py_driver_sys_path", None), list):
        config._py_driver_sys_path = _Folders(keep)
    else:
        _do_without("JobConfig._py_driver_sys_path", "workers search the working directory before libraries")
    return config


def skip_callback_counts() -> None:
    """Keeps Tune from counting callbacks for its makers, for which it imports MLflow; saves two seconds."""
    found = _find(
        "ray.air._internal.usage", "tag_callbacks", consequence="the first task starts two seconds later"
    )
    if found:
        found.tag_callbacks = lambda *_, **__: False


def keep_processes_for_trials() -> None:
    """Lets trials run in the processes that are there.

    Tune gives each actor an environment, for which Ray starts another process; a cluster of this machine has
    all of it in its own. Saves the import of PyTorch for the first task of each process.
    """
    found = _find(
        "ray.tune.execution.class_cache",
        "DEFAULT_ENV_VARS",
        "ENV_VARS_TO_PROPAGATE",
        consequence="each process imports PyTorch with its first task",
    )
    if found:
        found.DEFAULT_ENV_VARS, found.ENV_VARS_TO_PROPAGATE = {}, set()


def is_busy_actor(error: str) -> bool:
    """Whether a trial failed because Tune had given it the actor of a stopped trial that still runs.

    Where Tune says so in other words, the trial counts as a death: its task is tried again after two seconds.
    """
    return "Trainable runner reuse requires reset_config()" in error


def found_no_room(failure: BaseException) -> bool:
    """Whether Ray Train's controller waited in vain for room for a worker group.

    Without this name that counts as a death, and the task loses a try.
    """
    name = "WorkerGroupStartupTimeoutError"
    consequence = "a task that finds no room loses a try"
    found = _find("ray.train.v2._internal.exceptions", name, consequence=consequence)
    return found is not None and isinstance(failure, getattr(found, name))


class GcsStore:
    """Bytes by key for all processes of a job, in the GCS. RayError where it does not answer."""

    NAMESPACE = b"hkrun"
    METHODS: ClassVar = {
        "internal_kv_put": ("key", "value", "overwrite", "namespace", "timeout"),
        "internal_kv_keys": ("prefix", "namespace", "timeout"),
        "internal_kv_multi_get": ("keys", "namespace", "timeout"),
        "internal_kv_del": ("key", "del_by_prefix", "namespace", "timeout"),
    }
    _OPTIONS: ClassVar = {"namespace": NAMESPACE, "timeout": ANSWER_WITHIN_S}

    def __init__(self, client: Any) -> None:
        self._client = client

    def put(self, key: str, value: bytes) -> None:
        """Sets a value."""
        self._client.internal_kv_put(key=key.encode(), value=value, overwrite=True, **self._OPTIONS)

    def read(self, prefix: str) -> dict[str, bytes]:
        """All values whose keys begin with a prefix."""
        keys = self._client.internal_kv_keys(prefix=prefix.encode(), **self._OPTIONS)
        found = self._client.internal_kv_multi_get(keys=keys, **self._OPTIONS) if keys else {}
        return {key.decode(): value for key, value in found.items()}

    def remove(self, key: str, *, below: bool) -> None:
        """Removes a value, or all whose keys begin with the key."""
        self._client.internal_kv_del(key=key.encode(), del_by_prefix=below, **self._OPTIONS)


class _Values:
    """The actor of an `ActorStore`."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def put(self, key: str, value: bytes) -> None:
        self._values[key] = value

    def read(self, prefix: str) -> dict[str, bytes]:
        return {key: value for key, value in self._values.items() if key.startswith(prefix)}

    def remove(self, key: str, below: bool) -> None:
        gone = self.read(key) if below else [key]
        self._values = {name: value for name, value in self._values.items() if name not in gone}


class ActorStore:
    """The same in an actor, which costs a process. The driver, which reads, starts it."""

    NAME = "hkrun-store"  # in the namespace of the job
    _owned: Any = None  # the actor ends with its driver's last reference

    def put(self, key: str, value: bytes) -> None:
        """See `GcsStore`."""
        self._ask("put", key, value)

    def read(self, prefix: str) -> dict[str, bytes]:
        """See `GcsStore`."""
        import ray

        options = {"num_cpus": 0, "name": self.NAME, "get_if_exists": True}
        ActorStore._owned = ray.remote(_Values).options(**options).remote()
        found: dict[str, bytes] = self._ask("read", prefix)
        return found

    def remove(self, key: str, *, below: bool) -> None:
        """See `GcsStore`."""
        self._ask("remove", key, below)

    def _ask(self, method: str, *arguments: object) -> Any:
        import ray

        with suppress(ValueError):  # the driver has not started it yet
            actor = ray.get_actor(self.NAME)
            return ray.get(getattr(actor, method).remote(*arguments), timeout=ANSWER_WITHIN_S)


def key_value_store() -> GcsStore | ActorStore:
    """What the processes of a job share, for the watchdog."""
    client = _find_gcs_client()
    return ActorStore() if client is None else GcsStore(client)


def head_answers() -> bool:
    """Whether the head of the cluster answers; without a GCS client, whether it takes a connection."""
    import ray

    client = _find_gcs_client()
    try:
        if client is not None:
            namespace = GcsStore.NAMESPACE
            client.internal_kv_keys(prefix=namespace, namespace=namespace, timeout=HEAD_ANSWERS_WITHIN_S)
        else:
            host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=HEAD_ANSWERS_WITHIN_S).close()
    except (ray.exceptions.RayError, OSError):
        return False
    return True


def _find_gcs_client() -> Any:
    """This process's connection to the GCS; None where Ray has none with a key-value store."""
    name, consequence = "internal_kv_get_gcs_client", "the pulses of processes go through an actor"
    found = _find("ray.experimental.internal_kv", name, consequence=consequence)
    try:
        client = found and found.internal_kv_get_gcs_client()
        if client:  # all four or none: what one process puts, another reads
            for method, names in GcsStore.METHODS.items():
                inspect.signature(getattr(client, method)).bind(**dict.fromkeys(names))
    except (AttributeError, TypeError, ValueError):
        calls = (f"{method}({', '.join(names)})" for method, names in GcsStore.METHODS.items())
        _do_without(f"GcsClient.{' and '.join(calls)}", consequence)
        return None
    return client
