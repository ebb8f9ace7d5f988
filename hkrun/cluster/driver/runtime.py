"""Starts a cluster of this machine, or joins one; in the driver's process."""

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hkrun
from hkrun.cluster import ray_private
from hkrun.cluster.driver import cleanup
from hkrun.cluster.driver.core_processes import CoreProcesses
from hkrun.cluster.nodes.resources import Node, Request, check_fit
from hkrun.cluster.token import ensure_token
from hkrun.errors import ClusterLostError, HkrunError, ResourceError
from hkrun.user_parts import DRIVER_FOLDERS

if TYPE_CHECKING:
    from hkrun.cluster.driver.calls import OwnCluster

Fail = Callable[[HkrunError], None]

# Tasks exchange a few kilobytes; Ray's default is a third of the memory.
OBJECT_STORE_BYTES = 128 << 20
# Decoded images stream through it to tasks of several workers; it takes memory only as it fills.
STREAMING_STORE_BYTES = 1 << 30

START_TRIES = 2

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LOGGING: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": "INFO",
    "logging_format": LOG_FORMAT,
}


@dataclass(frozen=True, kw_only=True)
class Running:
    """The cluster that the driver is in.

    Attributes:
        place: Its name in messages.
        joined: Whether it was there before, and nodes may come and go.
        folder: The driver's own; it is removed at the end.
        dashboard: The dashboard of a joined cluster, as host:port; empty where it has none.
    """

    nodes: list[Node]
    place: str
    joined: bool
    folder: Path
    dashboard: str = ""


# Ray's processes wait for each other, and end where that takes too long.
_BUSY = "; on a busy machine it may have been too slow: the same command again may start it"


@contextmanager
def own_cluster(own: "OwnCluster", folder: Path, *, fail: Fail) -> Iterator[Running]:
    """A cluster of this machine alone, whose processes `cleanup` ends.

    `fail` is called in a thread when its raylet or GCS has ended too early, and must end this process.

    Raises:
        ResourceError: It did not start.
    """
    ensure_token()
    _start(own, folder, fail)
    core = CoreProcesses()
    try:
        with core.watched(lambda why: fail(ClusterLostError(why))):
            yield Running(nodes=[own.node], place="this machine", joined=False, folder=folder)
    except Exception as error:
        if why := core.find_loss():
            raise ClusterLostError(why) from error
        raise


def _object_store_bytes(*, in_groups: bool) -> int:
    """The size of the object store; Ray moves one to disk that the shared memory cannot hold."""
    shared = Path("/dev/shm")  # noqa: S108 - Ray's place on Linux
    if not in_groups or not shared.is_dir():
        return OBJECT_STORE_BYTES
    return max(OBJECT_STORE_BYTES, min(STREAMING_STORE_BYTES, shutil.disk_usage(shared).free // 2))


def _start(own: "OwnCluster", folder: Path, fail: Fail) -> None:
    """Starts Ray's processes, twice if need be: a busy machine may exceed the 30 s that Ray gives them."""
    import ray

    ray_private.skip_helper_processes()
    knows_ports = ray_private.give_agents_ports()
    if knows_ports and not own.in_groups:
        ray_private.skip_dashboard()
    if own.node.cpus <= 2 and not own.in_groups:
        ray_private.start_workers_in_turn()
    ray_private.see_raylet_at_once()
    for tries_left in reversed(range(START_TRIES)):
        try:
            with CoreProcesses().watched(lambda why: fail(ResourceError(f"Ray did not start: {why}{_BUSY}"))):
                ray_private.start_ray(
                    memory_bytes=own.node.memory_bytes,
                    folder=folder,
                    address="local",
                    num_cpus=own.cpus,
                    num_gpus=own.node.gpus,
                    object_store_memory=_object_store_bytes(in_groups=own.in_groups),
                    include_dashboard=own.in_groups,
                    job_config=make_job_config(),
                    **_LOGGING,
                )
            return
        except Exception as error:  # Ray raises nothing more special
            ray.shutdown()
            if not tries_left:
                reason = str(error).splitlines()[0]
                raise ResourceError(
                    f"Ray did not start in {START_TRIES} tries; is this machine too busy? It says: {reason}"
                ) from error


@contextmanager
def joined_cluster(address: str, requests: Sequence[Request], folder: Path) -> Iterator[Running]:
    """The cluster at an address; its processes get the settings through the runtime environment.

    Raises:
        ResourceError: It cannot be joined, or a request does not fit.
    """
    import ray

    place = f"the Ray cluster at {address}"
    # The store's URI would be readable for all users of the cluster; tasks have it from elsewhere.
    kept_here = {"HKRUN_STORE", cleanup.VARIABLE, ray_private.PRELOAD_FROM_VARIABLE}
    names = ["OMP_NUM_THREADS", *ray_private.SETTINGS]
    names += [name for name in os.environ if name.startswith("HKRUN_") and name not in kept_here]
    names += ["PYTHONPATH"] if "PYTHONPATH" in os.environ else []  # for the user's own parts
    try:
        _knock(address)
        context = ray.init(
            address=address,
            runtime_env={"env_vars": {name: os.environ[name] for name in names} | worker_variables()},
            job_config=make_job_config(),
            **_LOGGING,
        )
    except ray.exceptions.AuthenticationError as error:
        raise ResourceError(
            f"RAY_ADDRESS={address}: cannot join this Ray cluster: it wants its token; set "
            "RAY_AUTH_MODE=token and put the token into RAY_AUTH_TOKEN or ~/.ray/auth_token"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ResourceError(f"RAY_ADDRESS={address}: cannot join this Ray cluster: {reason}") from error
    from hkrun.cluster.nodes.discovery import read_nodes

    try:
        nodes = read_nodes()
        check_fit(requests, nodes, place=place)
        yield Running(
            nodes=nodes, place=place, joined=True, folder=folder, dashboard=context.dashboard_url or ""
        )
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Connects to an address once, where Ray would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "/" in host or not port.isdigit():
        raise ValueError("expected host:port of its head, or auto")
    socket.create_connection((host, int(port)), timeout=10).close()


def make_job_config() -> Any:
    """The job config, for `ray.init`, of workers that look for modules among the libraries first.

    Ray has them look in the driver's working directory first, where a numbers.py of the user's would be taken
    for Python's by every library that a worker has not imported yet. Of the driver's folders they take that
    of hkrun alone, which may be installed nowhere.
    """
    package = Path(hkrun.__file__).resolve().parent
    return ray_private.job_config(lambda folder: Path(folder, package.name).resolve() == package)


def worker_variables() -> dict[str, str]:
    """The environment variables by which workers find the user's own parts where this process does."""
    libraries = tuple({str(Path(prefix).resolve()) for prefix in (sys.prefix, sys.base_prefix)})
    folders = [str(Path.cwd()), *(str(Path(folder).resolve()) for folder in sys.path)]
    own = [folder for folder in folders if not folder.startswith(libraries)]
    return {DRIVER_FOLDERS: os.pathsep.join(dict.fromkeys(own))}
