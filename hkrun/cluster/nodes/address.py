"""Which Ray cluster the tasks go to."""

import os
import sys
from typing import Any

from hkrun.errors import ResourceError


def find_address() -> str | None:
    """The cluster to join; None where one of this machine is started for the tasks and ended with them.

    That is the one of RAY_ADDRESS, else the one that this process is in already, as a notebook may be after
    `ray.init()`: it is joined by a driver of its own, so the process's Ray stays as it is.

    Raises:
        ResourceError: This process is a client of a cluster (ray://), which tells no address to join.
    """
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    ray: Any = sys.modules.get("ray")  # whoever is in a cluster has imported it
    if ray is None or not ray.is_initialized():
        return None
    if ray.util.client.ray.is_connected():
        raise ResourceError(
            "this process is a client of a Ray cluster (ray://), which tells no address to join; set "
            "RAY_ADDRESS to host:port of its head, or call ray.shutdown() first"
        )
    return str(ray.get_runtime_context().gcs_address)
