"""A small task on every node of a cluster: its versions, and whether it reaches the store and the data."""

import dataclasses
import hashlib
import logging
import os
import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hkrun.cluster.driver.runtime import Running
from hkrun.cluster.driver.supervisor import call_driver
from hkrun.cluster.nodes.address import find_address
from hkrun.cluster.nodes.reports import COMPARED, Needs, NodeReport, find_versions, judge, required_names
from hkrun.cluster.nodes.resources import Node
from hkrun.digests import short_digest
from hkrun.errors import HkrunError, StoreError

if TYPE_CHECKING:
    from hkrun.store import Store

TIMEOUT_S = 90.0  # a node that is busy starts its first process in half of that
LOOKS, PAUSE_S = 4, 1.0
_PROBES, _PROBE_FILE = "probes", "probe"
# `hkrun submit` has asked the nodes a moment before it sent the job with this variable.
JOB_VARIABLE = "HKRUN_JOB"
DASHBOARD_TIMEOUT_S = 5.0
logger = logging.getLogger("hkrun")


def check_nodes(needs: Needs) -> list[NodeReport]:
    """Asks every node of the cluster that this process has joined.

    The driver leaves a probe in the store, each node reads it and leaves its own, and the driver reads those.
    That tells a shared folder from one that has the same name on two nodes. The reports are sorted by the
    nodes' names.

    Raises:
        ResourceError: A node cannot run hkrun as the others do.
        StoreError: A node cannot use the store, or the driver itself cannot.
        DataError: A node does not see the data.
    """
    with _probed(needs.store) as (store, probe):
        reports = [_confirm(report, store, own) for own, report in _ask_nodes(needs, probe)]
        reports.sort(key=attrgetter("name"))
        problem = judge(reports, needs, place=store.place)
        if problem is not None:
            raise problem
    return reports


def _ask_nodes(needs: Needs, probe: str) -> Iterator[tuple[str, NodeReport]]:
    """Each node's own probe and report."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    look: Any = ray.remote(look_around)  # type: ignore[arg-type]  # Ray's stubs know no keywords
    asked = {}
    for node in (node for node in nodes if node["Alive"]):
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        own = f"{probe}/{node['NodeID'][:12]}"
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        # No CPU: a node whose CPUs are all in use, and a head that has none to give, answer too.
        task = look.options(scheduling_strategy=there, num_cpus=0, max_retries=0)
        asked[task.remote(needs, name, probe=probe, own=own)] = (own, name)
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=TIMEOUT_S)
    for reference, (own, name) in asked.items():
        if reference not in done:
            ray.cancel(reference, force=True)
            yield own, NodeReport(name=name, problem=f"gave no answer in {TIMEOUT_S:.0f} s")
            continue
        try:
            yield own, ray.get(reference)
        except Exception as error:  # a node's trouble has many types; its last line says most
            reason = str(error).strip().splitlines()[-1]
            yield own, NodeReport(name=name, problem=f"cannot run hkrun: {reason}")


def look_around(needs: Needs, name: str, *, probe: str, own: str) -> NodeReport:
    """A node's report; runs there.

    `probe` and `own` are the folders in the store of the driver's probe and of its own.
    """
    return NodeReport(
        name=name,
        python=platform.python_version(),
        versions=find_versions({*COMPARED, *needs.expected, *required_names(needs)}),
        code=hash_code(),
        store=_try_store(needs.store, probe=probe, own=own),
        data="" if needs.data is None else _try_data(needs.data),
        files=tuple(path for path in needs.files if not os.access(path, os.R_OK)),
    )


def hash_code() -> str:
    """The first 12 hex digits of a SHA-256 over hkrun's Python files."""
    root = Path(__file__).resolve().parents[2]
    files = (
        f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest()
        for path in sorted(root.rglob("*.py"))
    )
    return short_digest(b"".join(files))


def _try_store(uri: str, *, probe: str, own: str) -> str:
    """Reads the driver's probe and leaves its own; why that is not possible, or nothing.

    Tries several times: a network file system may show its cache for a moment.
    """
    from hkrun.store import NotCommittedError, open_store

    problem = ""
    for _ in range(LOOKS):
        try:
            store = open_store(uri, create=False)
            store.read(probe, _PROBE_FILE)
            store.commit(own, {_PROBE_FILE: own.encode()})
            return ""
        except NotCommittedError:
            problem = "it is another folder there"
        except HkrunError as error:
            # The advice after the first clause is given once for all nodes.
            problem = error.problems[0].partition(";")[0].removeprefix(f"{uri}: ")
        time.sleep(PAUSE_S)
    return problem


def _confirm(report: NodeReport, store: "Store", own: str) -> NodeReport:
    """A node's report, once its own probe was looked for."""
    if report.problem or report.store:
        return report
    try:
        store.read(own, _PROBE_FILE)
        return report
    except StoreError:
        return dataclasses.replace(report, store="what it writes there is not seen here")


def _try_data(place: str) -> str:
    """Why the data cannot be read at a path or URI, or nothing."""
    if "://" not in place:
        path = Path(place)
        if not path.is_dir():
            return f"{place} is no folder there" if path.exists() else f"there is no {place}"
        return "" if os.access(path, os.R_OK | os.X_OK) else f"{place} may not be read"
    from pyarrow import ArrowException, fs

    from hkrun.addresses import connect_uri
    from hkrun.redaction import redact

    try:
        filesystem, folder = connect_uri(place)
        found = filesystem.get_file_info(folder).type != fs.FileType.NotFound
        return "" if found else f"there is nothing at {redact(place)}"
    except (OSError, ValueError, ArrowException, ImportError) as error:
        return " ".join(str(error).replace(place, redact(place)).split())


@contextmanager
def _probed(uri: str) -> "Iterator[tuple[Store, str]]":
    """Leaves the driver's probe in the store, in a folder for all, while the block runs; then removes all.

    A local store that was made for this is removed where the block raises.
    """
    from hkrun.store import NoStoreError, open_store

    try:
        store, is_new = open_store(uri, create=False), False
    except NoStoreError:
        store, is_new = open_store(uri), True
    probe = f"{_PROBES}/{secrets.token_hex(8)}"
    try:
        store.commit(probe, {_PROBE_FILE: b"driver"})
        yield store, probe
    except HkrunError:
        if is_new and store.local_path is not None:
            _clear_away(store, probe)
            with suppress(OSError):  # another driver has begun to use it
                (store.local_path / "store.json").unlink()
                store.local_path.rmdir()
        raise
    finally:
        _clear_away(store, probe)


def _clear_away(store: "Store", probe: str) -> None:
    with suppress(StoreError):
        store.delete(probe)
    if store.local_path is not None:
        with suppress(OSError):  # another driver's probes are there
            (store.local_path / _PROBES).rmdir()


def check_joined(needs: Needs, *, log_folder: Path) -> None:
    """Asks the nodes of a joined cluster whether they can do the work, if it has several.

    A cluster without a token is named in a warning, and used: a driver that can join it is inside already.

    Raises:
        ResourceError: It cannot be joined, or a node cannot run hkrun as the others do.
        StoreError: A node cannot use the store.
        DataError: A node does not see the data.
    """
    if find_address() is not None and not os.environ.get(JOB_VARIABLE):
        call_driver(_check, {"needs": needs}, log_folder=log_folder)


def find_nodes(*, log_folder: Path) -> tuple[list[Node], str]:
    """The nodes of the cluster to join, with the GPUs that torch can use, and its name.

    Raises:
        ResourceError: The cluster cannot be reached.
    """
    found: tuple[list[Node], str] = call_driver(_look, {}, log_folder=log_folder)
    return found


def _check(running: Running, _observer: object, *, needs: Needs) -> None:
    if lets_everybody_in(running.dashboard):
        logger.warning(
            "%s lets everybody in who reaches it, without a token; start it with RAY_AUTH_MODE=token",
            running.place,
        )
    if len(running.nodes) > 1:
        check_nodes(needs)


def _look(running: Running, _observer: object) -> tuple[list[Node], str]:
    from hkrun.cluster.nodes.discovery import look_closer

    return look_closer(running.nodes), running.place


def lets_everybody_in(dashboard: str) -> bool:
    """Whether a cluster asks for no token, as its dashboard at host:port says; not where it says nothing."""
    import requests

    if not dashboard:
        return False
    try:
        answer = requests.get(
            f"http://{quote(dashboard, safe=':[]')}/api/authentication_mode", timeout=DASHBOARD_TIMEOUT_S
        )
        mode: object = answer.json().get("authentication_mode")
    except (requests.exceptions.RequestException, ValueError, AttributeError):
        return False  # it has no dashboard, or not one that says so
    return mode == "disabled"
