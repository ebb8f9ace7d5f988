"""What the supervisor asks of Ray's driver."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hkrun.cluster.resources import Node, Request


@dataclass(frozen=True, kw_only=True)
class OwnCluster:
    """A cluster of this machine alone, to be started.

    Attributes:
        node: What it may use.
        cpus: How many CPUs Ray is told of; as many processes start with it.
        in_groups: Whether workers train together. Without Ray's dashboard Ray Train cannot clean up after a
            killed trial, and their images may stream.
    """

    node: Node
    cpus: int
    in_groups: bool


@dataclass(frozen=True, kw_only=True)
class Call:
    """What the driver is asked for.

    Attributes:
        work: A function that other processes can import; called as `work(running, observer, **arguments)`.
        arguments: Its arguments.
        own: The cluster to start; None to join the one that RAY_ADDRESS names.
        requests: What there will be to do, each kind once; checked against a cluster that is joined.
        folder: Where Ray's sockets and logs, and temporary files, may lie; it is removed afterwards.
        log_level: From which level on hkrun's log records are wanted here.
    """

    work: Callable[..., Any]
    arguments: Mapping[str, Any]
    own: OwnCluster | None
    requests: tuple[Request, ...]
    folder: Path
    log_level: int
