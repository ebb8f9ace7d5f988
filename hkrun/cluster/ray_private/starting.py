"""How Ray starts on this machine: sooner, with fewer processes, and with its processes in order."""

import functools
import inspect
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hkrun.cluster.ray_private import agent, worker
from hkrun.cluster.ray_private.finding import TESTED, do_without, find
from hkrun.cluster.ray_private.settings import PRELOAD_SETTINGS

logger = logging.getLogger(__name__)

AGENT_PORTS = (
    "dashboard_agent_listen_port",
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
)
RAYLET_WITHIN_S = 20.0  # Ray itself waits longer
_reserved: list[socket.socket] = []


def start_ray(*, memory_bytes: int, folder: Path, **options: Any) -> None:
    """`ray.init` for a cluster of this machine.

    Ray is told the memory as hkrun counts it, where its sockets and logs lie, and to give tasks no
    environment of a hook of the user's. Without these names it counts the memory that is free, and RAY_TMPDIR
    says where.
    """
    import ray

    try:
        ray.init(_memory=memory_bytes, _temp_dir=str(folder), _skip_env_hook=True, **options)
    except RuntimeError as error:
        if "Unknown keyword" not in str(error):
            raise
        do_without("ray.init(_memory, _temp_dir, _skip_env_hook)", "fewer tasks may run at once")
        os.environ["RAY_TMPDIR"] = str(folder)
        ray.init(**options)


def skip_helper_processes() -> None:
    """Starts Ray without the autoscaler's monitor and without the process that sends logs to drivers.

    A cluster of one machine needs neither. Saves a second at its end.
    """
    found = find(
        "ray._private.parameter",
        "RayParams",
        parameters=("no_monitor", "include_log_monitor"),
        consequence="Ray ends a second later",
    )
    if found:
        found.RayParams = functools.partial(found.RayParams, no_monitor=True, include_log_monitor=False)


def start_workers_in_turn() -> None:
    """Lets processes for tasks come to the raylet one after the other, in the order in which they import.

    Where the user has them import something else ahead, nothing would end their turns.
    """
    if any(os.environ.get(name) != value for name, value in PRELOAD_SETTINGS.items() if "preload" in name):
        return
    consequence = "the first task may wait for two processes to import"
    name = "setup_worker_path"
    found = find("ray._private.parameter", "RayParams", parameters=(name,), consequence=consequence)
    if found:
        found.RayParams = functools.partial(found.RayParams, **{name: worker.__file__})


def give_agents_ports() -> bool:
    """Chooses the ports of the raylet's agents, and tells the raylet; returns whether that is possible.

    It starts no process for tasks before it knows them, and agents that choose theirs tell it after a second
    of imports; of the one port that has a default, a second cluster on this machine waits four.
    """
    consequence = "Ray starts up to a second later, and four beside another cluster"
    told = "session_dir", "node_id", "dashboard_agent_listen_port"
    parameter = find("ray._private.parameter", "RayParams", consequence=consequence, parameters=AGENT_PORTS)
    services = find("ray._private.services", "start_raylet", consequence=consequence, parameters=told)
    names = ("persist_port", "DASHBOARD_AGENT_LISTEN_PORT_NAME")
    raylet = find("ray._raylet", *names, consequence=consequence)
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
            do_without("ray._raylet.persist_port(folder, node, name, port)", consequence)
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
    services = find("ray._private.services", program, parameters=("component",), consequence=consequence)
    services = services and find("ray._private.services", "start_api_server", consequence=consequence)
    names = ("PROCESS_TYPE_DASHBOARD_AGENT", "PROCESS_TYPE_RUNTIME_ENV_AGENT")
    constants = find("ray._private.ray_constants", *names, consequence=consequence)
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
    found = find(
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
        do_without("GcsClient.get_all_node_info(timeout)", "Ray starts up to a second later")


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
        do_without("JobConfig._py_driver_sys_path", "workers search the working directory before libraries")
    return config
