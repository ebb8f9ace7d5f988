"""Ray's life around one list of tasks: started or joined, silent, and gone without a trace."""

import functools
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import hkrun
from hkrun.cluster import caretaker
from hkrun.cluster.output import LogFile, output_to
from hkrun.cluster.resources import Node, Request, check_all, count_processes, local_node
from hkrun.cluster.search_path import make_job_config, worker_variables
from hkrun.cluster.token import ensure_token
from hkrun.errors import ResourceError

# Tasks exchange a few kilobytes; Ray's default is a third of the memory.
OBJECT_STORE_BYTES = 128 << 20
# Decoded images stream through it to tasks of several workers; it takes memory only as it fills.
STREAMING_STORE_BYTES = 1 << 30

START_TRIES = 2
# Ray itself gives its raylet longer.
RAYLET_WITHIN_S = 20.0

# Ray puts Unix sockets under its folder, whose paths may have 107 bytes; it adds up to 75 of them.
LONGEST_TEMPORARY_FOLDER = 28

# Ray reads these in this process, in its own and in the trials'. A value that the user has set stays.
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
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files that nobody reads
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # what a trial reports last is its outcome alone
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # snapshots for a Tuner.restore that is never called
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # the schedule limits how many there are
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "86400",  # the fit was checked before (the typo is Ray's)
}

# Ray reads these in this process alone, when it joins a cluster first. Its exporters of metrics go on
# after ray.shutdown(), and one that misses its cluster while this process ends crashes it.
OWN_SETTINGS = {"RAY_enable_open_telemetry": "0"}

# Ray reads these in its own processes where no task has several workers. It starts a process per CPU ahead,
# which then imports what tasks take while we still wait for Ray: seconds less for the first task of each. And
# it must not end one that is idle for a moment, when its CPU is reserved and its task has not come yet.
READY_SETTINGS = {
    "RAY_preload_python_modules": "hkrun.cluster.ready",
    "RAY_kill_idle_workers_interval_ms": "0",
}

# For `hkrun.cluster.ready`: where the driver's hkrun lies.
CODE_VARIABLE = "HKRUN_READY_FROM"

# Variables without Ray's name that `ray.init` sets.
SET_BY_RAY = ("PYTHONBREAKPOINT",)

# Ray sets the format of its logger's handlers, which are then ours.
_LOGGING: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": "INFO",
    "logging_format": "%(asctime)s %(levelname)s %(name)s: %(message)s",
}


def find_nodes(*, log_folder: Path) -> tuple[list[Node], str]:
    """What there is on the cluster that RAY_ADDRESS names: nodes, and what to call them together.

    Of GPUs those count that torch can use.

    Raises:
        ResourceError: The cluster cannot be reached.
    """
    with ray_running((), log_folder=log_folder) as running:
        from hkrun.cluster.roster import look_closer

        return look_closer(running.nodes), running.place


@dataclass(frozen=True, kw_only=True)
class Running:
    """A cluster that is there.

    Attributes:
        nodes: What it has.
        place: What to call it in a message.
        joined: Whether it was there before, and nodes may come and go.
        folder: A folder that is removed with it.
    """

    nodes: list[Node]
    place: str
    joined: bool
    folder: Path


def tell_of(error: Exception, log_folder: Path) -> str:
    """What to say where Ray itself broke down."""
    return f"Ray broke down: {error}\nits logs are in {log_folder}"


@contextmanager
def ray_running(
    requests: Sequence[Request], *, log_folder: Path, num_tasks: int | None = None
) -> Iterator[Running]:
    """Joins the cluster that RAY_ADDRESS names, or starts one of this machine alone, while the block runs.

    Nothing of Ray reaches the terminal: what it logs here goes to `ray.log` in the log folder, and where the
    block raises, the logs of its own processes are kept in `ray/` beside it. SIGINT and SIGTERM raise
    KeyboardInterrupt in the block. Nothing starts if one of the requests does not fit.

    Args:
        requests: What there will be to do, each kind once.
        log_folder: Where Ray's own words go.
        num_tasks: How many tasks there are, where that is known: a cluster of this machine has no more
            CPUs, and processes ready for them, than those can use.

    Raises:
        ResourceError: A request does not fit, or the cluster cannot be reached.
    """
    address = os.environ.get("RAY_ADDRESS")
    place = f"the Ray cluster at {address}" if address else "this machine"
    if not address:
        nodes = [local_node(gpus=any(request.device == "cuda" for request in requests))]
        check_all(requests, nodes, place=place)
    log_folder.mkdir(parents=True, exist_ok=True)
    threads = max((request.threads for request in requests), default=1)
    with ExitStack() as stack:
        stack.enter_context(_environment({"OMP_NUM_THREADS": str(threads)}, {**SETTINGS, **OWN_SETTINGS}))
        stack.enter_context(_quiet(log_folder / "ray.log"))
        interrupts = stack.enter_context(_Interrupts())
        if not address:
            in_groups = any(request.in_groups for request in requests)
            cpus = nodes[0].cpus if in_groups else _useful_cpus(nodes[0], requests, num_tasks=num_tasks)
            own = _own_cluster(nodes[0], cpus=cpus, log_folder=log_folder, in_groups=in_groups)
            folder = stack.enter_context(own)
        else:
            from hkrun.cluster.roster import read_nodes

            folder = stack.enter_context(_joined_cluster(address))
            nodes = read_nodes()
            check_all(requests, nodes, place=place)
        interrupts.install()  # again: ray.init takes SIGTERM for itself
        try:
            yield Running(nodes=nodes, place=place, joined=bool(address), folder=folder)
        finally:
            interrupts.ignore()  # an impatient second Ctrl-C must not leave processes behind


def _useful_cpus(node: Node, requests: Sequence[Request], *, num_tasks: int | None) -> int:
    """The CPUs that so many tasks of one process each can use together; all where nobody knows how many."""
    if num_tasks is None:
        return node.cpus
    used = [request.threads * min(num_tasks, count_processes(request, [node])) for request in requests]
    return max([1, *used])


@contextmanager
def _own_cluster(node: Node, *, cpus: int, log_folder: Path, in_groups: bool) -> Iterator[Path]:
    """A cluster of this machine alone, which is gone after the block, or when this process dies.

    Args:
        node: What it may use.
        cpus: How many CPUs Ray is told of; as many processes start with it.
        log_folder: Where its logs are kept if the block raises.
        in_groups: Whether workers train together. Without Ray's dashboard Ray Train cannot clean up after a
            killed trial, and their images may stream.
    """
    import ray

    ensure_token()
    folder = _make_folder()
    # Ray ends its processes too quickly for them to remove their temporary files, so those lie here.
    variables = {caretaker.VARIABLE: folder.name, "TMPDIR": str(folder), **worker_variables()}
    variables[CODE_VARIABLE] = str(Path(hkrun.__file__).parent)
    ready = {} if in_groups else READY_SETTINGS
    with _caretaker(folder), _environment(variables, ready), _on_loopback():
        try:
            with _starting_quickly():
                _start(node, folder, cpus=cpus, log_folder=log_folder, in_groups=in_groups)
            yield folder
        except Exception:
            with suppress(OSError, shutil.Error):
                shutil.copytree(folder / "session_latest" / "logs", log_folder / "ray", dirs_exist_ok=True)
            raise
        finally:
            # Ray's C++ side writes to stderr when a signal to the process group ends its processes before us.
            with output_to(log_folder / "ray.log"):
                ray.shutdown()


def _object_store_bytes(*, in_groups: bool) -> int:
    """The size of the object store: Ray moves it to a disk if the shared memory cannot hold it."""
    shared = Path("/dev/shm")  # noqa: S108 - Ray's place on Linux
    if not in_groups or not shared.is_dir():
        return OBJECT_STORE_BYTES
    return max(OBJECT_STORE_BYTES, min(STREAMING_STORE_BYTES, shutil.disk_usage(shared).free // 2))


def _start(node: Node, folder: Path, *, cpus: int, log_folder: Path, in_groups: bool) -> None:
    """Starts Ray's processes, trying twice: a busy machine may exceed the 30 s that Ray gives them.

    Raises:
        ResourceError: They did not start the second time either.
    """
    import ray

    for tries_left in reversed(range(START_TRIES)):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=node.gpus,
                _memory=node.memory_bytes,  # as our books count it; Ray's default is what is free just now
                object_store_memory=_object_store_bytes(in_groups=in_groups),
                include_dashboard=in_groups,
                _temp_dir=str(folder),
                job_config=make_job_config(),
                **_LOGGING,
            )
            return
        except Exception as error:  # Ray raises nothing more special
            ray.shutdown()
            if not tries_left:
                reason = str(error).splitlines()[0]
                raise ResourceError(
                    f"Ray did not start in {START_TRIES} tries; is this machine too busy? "
                    f"Its logs are in {log_folder / 'ray'}; it says: {reason}"
                ) from error


@contextmanager
def _caretaker(folder: Path) -> Iterator[None]:
    """Clears away what belongs to the cluster of a folder when the block ends or this process dies."""
    process = subprocess.Popen(  # -I -S: it needs the standard library alone, and starts in 20 ms
        [sys.executable, "-I", "-S", caretaker.__file__, folder.name, str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # a signal to our group is not for it
    )
    try:
        yield
    finally:
        process.communicate()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Makes Ray take the loopback address for the one of this machine, so that no other machine reaches it.

    It does so by itself on macOS and Windows. Elsewhere it listens on all addresses, whatever it is told.
    """
    from ray._private import ray_constants

    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if Path("/sys/class/net/lo").exists() else {}  # workers together
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        with _environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}, loopback):  # for Ray's processes
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _starting_quickly() -> Iterator[None]:
    """Makes Ray start without two processes and a sleep that a cluster of one machine does not need.

    The processes are the autoscaler's monitor, which takes a second to stop, and the one that sends logs to
    drivers. The sleep: Ray looks once a second whether its raylet is there.
    """
    from ray._private import parameter, services

    params, get_node = parameter.RayParams, services.get_node
    deadline = time.monotonic() + RAYLET_WITHIN_S

    def wait_for_node(gcs_address: str, node_id: str) -> Any:
        _wait_for_raylet(gcs_address, node_id, deadline=deadline)
        return get_node(gcs_address, node_id)  # type: ignore[no-untyped-call]

    parameter.RayParams = functools.partial(params, no_monitor=True, include_log_monitor=False)  # type: ignore[misc, assignment, arg-type]
    services.get_node = wait_for_node
    try:
        yield
    finally:
        parameter.RayParams, services.get_node = params, get_node  # type: ignore[misc]


def _wait_for_raylet(gcs_address: str, node_id: str, *, deadline: float) -> None:
    """Waits until a node is known or the time is over: Ray itself then waits on, or says what is wrong.

    Args:
        gcs_address: Of the server that knows the nodes.
        node_id: The node, in hexadecimal digits.
        deadline: The time on the monotonic clock.
    """
    from ray import _raylet
    from ray.exceptions import RayError

    with suppress(RayError):
        client = _raylet.GcsClient(address=gcs_address)  # type: ignore[attr-defined]
        while time.monotonic() < deadline:
            if any(node.hex() == node_id for node in client.get_all_node_info(timeout=1)):
                return
            time.sleep(0.02)


@contextmanager
def _joined_cluster(address: str) -> Iterator[Path]:
    """The cluster at an address; its processes get the settings through the runtime environment."""
    import ray

    names = ["OMP_NUM_THREADS", *SETTINGS]
    # Tasks have the store's URI from elsewhere; here everybody who may use the cluster could read it.
    names += [name for name in os.environ if name.startswith("HKRUN_") and name != "HKRUN_STORE"]
    names += ["PYTHONPATH"] if "PYTHONPATH" in os.environ else []  # where parts of the user's own are found
    try:
        _knock(address)
        ray.init(
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
    with tempfile.TemporaryDirectory(prefix="hkrun-", ignore_cleanup_errors=True) as folder:
        try:
            yield Path(folder)
        finally:
            ray.shutdown()


def _knock(address: str) -> None:
    """Checks that somebody listens at an address, where Ray would try for minutes.

    Raises:
        ValueError: No address of a cluster's head.
        OSError: Nobody listens.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "/" in host or not port.isdigit():
        raise ValueError("expected host:port of its head, or auto")
    socket.create_connection((host, int(port)), timeout=10).close()


def _make_folder() -> Path:
    """A new folder for Ray's sockets and logs, with a path short enough for a socket."""
    base = tempfile.gettempdir()
    short = len(base) <= LONGEST_TEMPORARY_FOLDER
    return Path(tempfile.mkdtemp(prefix="hkrun-", dir=base if short else "/tmp"))  # noqa: S108


@contextmanager
def _environment(values: Mapping[str, str], defaults: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables, defaults only where the user has set none, and puts them back as they were.

    What Ray sets meanwhile goes, too. All else is left alone: MLflow's settings come from another thread.
    """
    before = dict(os.environ)
    os.environ.update(values)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        rays = {name for name in {*os.environ, *before} if name.startswith("RAY_") or name in SET_BY_RAY}
        for name in {*values, *defaults, *rays}:
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)


@contextmanager
def _quiet(log_file: Path) -> Iterator[None]:
    """Sends Ray's log records, and this package's, to a file, and hides the warnings of Ray's modules."""
    from ray._private import worker  # its import also sets up the logger that is changed here

    def log_lines(data: Mapping[str, Any], ignore_prefix: bool) -> None:  # noqa: ARG001
        logging.getLogger("ray").warning("%s: %s", data["pid"], "\n".join(data["lines"]))

    handler = LogFile(log_file)
    loggers = [logging.getLogger(name) for name in ("ray", "hkrun.cluster")]
    before = [(logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers[:] = [handler]
        logger.propagate = False
    # What the raylet has to say of dead workers is printed even with log_to_driver=False.
    print_lines, worker.print_to_stdstream = worker.print_to_stdstream, log_lines
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"ray(\.|$)")
            yield
    finally:
        worker.print_to_stdstream = print_lines
        for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate = propagate
        handler.close()


class _Interrupts:
    """SIGINT and SIGTERM while Ray runs. Only the main thread can take them; elsewhere this does nothing."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __enter__(self) -> "_Interrupts":
        self._usable = threading.current_thread() is threading.main_thread()
        self._before = [(number, signal.getsignal(number)) for number in self.SIGNALS]
        self.install()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._usable:
            for number, handler in self._before:
                signal.signal(number, handler)

    def install(self) -> None:
        """From now on both raise KeyboardInterrupt."""
        self._set(_raise_interrupt)

    def ignore(self) -> None:
        """From now on both do nothing."""
        self._set(_do_nothing)

    def _set(self, handler: Callable[[int, FrameType | None], None]) -> None:
        if self._usable:
            for number in self.SIGNALS:
                signal.signal(number, handler)


def _raise_interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise KeyboardInterrupt(signal.Signals(number).name)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass
