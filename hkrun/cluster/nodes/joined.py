"""The cluster that RAY_ADDRESS names: its nodes, whether they can do the work, whether it has a token."""

import logging
import os
from pathlib import Path
from urllib.parse import quote

from hkrun.cluster.driver.runtime import Running
from hkrun.cluster.driver.supervisor import call_driver
from hkrun.cluster.nodes.checks import check_nodes
from hkrun.cluster.nodes.reports import Needs
from hkrun.cluster.nodes.resources import Node

# `hkrun submit` has asked the nodes a moment before it sent the job with this variable.
JOB_VARIABLE = "HKRUN_JOB"
_TIMEOUT_S = 5.0

logger = logging.getLogger("hkrun")


def check_joined(needs: Needs, *, log_folder: Path) -> None:
    """Asks the nodes of the cluster that RAY_ADDRESS names whether they can do the work, if it has several.

    A cluster without a token is named in a warning, and used: a driver that can join it is inside already.

    Raises:
        ResourceError: It cannot be joined, or a node cannot run hkrun as the others do.
        StoreError: A node cannot use the store.
        DataError: A node does not see the data.
    """
    if os.environ.get("RAY_ADDRESS") and not os.environ.get(JOB_VARIABLE):
        call_driver(_check, {"needs": needs}, log_folder=log_folder)


def find_nodes(*, log_folder: Path) -> tuple[list[Node], str]:
    """The nodes of the cluster that RAY_ADDRESS names, with the GPUs that torch can use, and its name.

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
            f"http://{quote(dashboard, safe=':[]')}/api/authentication_mode", timeout=_TIMEOUT_S
        )
        mode: object = answer.json().get("authentication_mode")
    except (requests.exceptions.RequestException, ValueError, AttributeError):
        return False  # it has no dashboard, or not one that says so
    return mode == "disabled"
