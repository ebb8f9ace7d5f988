"""What the supervisor asks of Ray's driver, and what the driver tells it of the tasks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hkrun.cluster.nodes.resources import Node, Request

if TYPE_CHECKING:
    from hkrun.plans import Look
    from hkrun.training import Context
    from hkrun.trial import Outcome, Task

Function = Callable[["Task", "Context"], list["Outcome"]]


class Observer(Protocol):
    """Watches the tasks; called by the driver, one call at a time.

    Each task is started once (a task that is tried again is not started again), and is done or failed once
    unless everything was stopped. A task that is left out is neither.
    """

    def taken(self, index: int) -> None:
        """A slot is a task's from now on; its process may not be there yet. Called for each try."""

    def started(self, index: int) -> None:
        """A task has got its process."""

    def progress(self, index: int, progress: Mapping[str, object]) -> None:
        """A task's function has reported."""

    def done(self, index: int, outcomes: list["Outcome"]) -> None:
        """A task's function has returned."""

    def failed(self, index: int, message: str) -> None:
        """A task has no outcome: why, and which file tells more."""

    def looked(self, look: "Look") -> None:
        """Where seeds come in rounds: what is known of the study's questions by now."""


@dataclass(frozen=True, kw_only=True)
class OwnCluster:
    """A cluster of this machine alone, to be started.

    Attributes:
        cpus: CPUs that Ray is told of; it starts as many processes.
        in_groups: Whether workers train together: Ray Train needs the dashboard, and images may stream.
    """

    node: Node
    cpus: int
    in_groups: bool


@dataclass(frozen=True, kw_only=True)
class Call:
    """What the driver is to do.

    Attributes:
        work: A function and its arguments, pickled: called as `function(running, observer, **arguments)`. To
            read them takes imports, for which there is time when Ray's processes have been started.
        own: The cluster to start; None to join another.
        address: Of that other one.
        requests: What the tasks need, each kind once; checked against a joined cluster.
        folder: For Ray's sockets and logs, and temporary files; removed afterwards.
        log_level: The lowest level of log records that the supervisor wants.
    """

    work: bytes
    own: OwnCluster | None
    address: str | None
    requests: tuple[Request, ...]
    folder: Path
    log_level: int
