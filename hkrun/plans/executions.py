"""What the store keeps of where a sweep's time went: one execution per time that it trained something."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hkrun.spaces import Sweep
from hkrun.store import DamagedError, NotCommittedError, Store

EXECUTIONS_FILE = "executions.json"
# The parts of an execution that are neither training nor waiting for it.
OVERHEADS = ("start", "planning", "inputs", "checkpoints", "progress", "records", "report", "mlflow")
# Phases that are over only after the report was written.
CLOSING_PHASES = ("report", "mlflow")

log = logging.getLogger("hkrun")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One time that a sweep trained something, from its beginning to its end or its interruption.

    Attributes:
        started_at: Unix time in seconds.
        slots: How many tasks could run at a time.
        phases: Seconds of the wall clock, by what the driver did: "planning", "ray" (no task had a slot,
            because Ray started or stopped), "training", "report", "mlflow" (waiting for it at the end).
        teachers: Seconds of slots that tasks of teachers had: "launch" (a process, its imports, and messages)
            and what the tasks told, "inputs", "epochs", "checkpoints", "progress", "records".
        runs: The same of the tasks of runs, which may also fill a "table".
    """

    started_at: float
    slots: int
    phases: Mapping[str, float]
    teachers: Mapping[str, float]
    runs: Mapping[str, float]

    @property
    def wall_s(self) -> float:
        """Seconds of the wall clock."""
        return sum(self.phases.values())

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of slots by part, which sum to the wall clock times the slots.

        A phase of the driver takes all slots; what no task had of the training is "idle".
        """
        told: dict[str, float] = {}
        for seconds in (self.teachers, self.runs):
            for part, value in seconds.items():
                told[part] = told.get(part, 0.0) + value
        whole = {phase: self.slots * seconds for phase, seconds in self.phases.items()}
        idle = whole.pop("training", 0.0) - sum(told.values())
        start = whole.pop("ray", 0.0) + told.pop("launch", 0.0)
        told["epochs"] = self.runs.get("epochs", 0.0)
        return {
            "teacher": self.teachers.get("epochs", 0.0),
            **told,
            **whole,
            "start": start,
            "idle": idle,
        }

    def before_report(self) -> "Execution":
        """What was known of it when the report was written."""
        known = {name: value for name, value in self.phases.items() if name not in CLOSING_PHASES}
        return dataclasses.replace(self, phases=known)


def save_executions(store: Store, sweep: Sweep, executions: Sequence[Execution]) -> None:
    """Keeps all executions of a sweep, in place of what was kept."""
    folder = store.sweep_folder(sweep.name, sweep.dataset)
    document = [dataclasses.asdict(execution) for execution in executions]
    store.commit(folder, {EXECUTIONS_FILE: json.dumps(document, indent=1).encode()}, keep=store.names(folder))


def load_executions(store: Store, sweep: Sweep) -> tuple[Execution, ...]:
    """The executions of a sweep in their order; none where none was kept, or what was kept is damaged."""
    return read_executions(store, store.sweep_folder(sweep.name, sweep.dataset))


def read_executions(store: Store, folder: str) -> tuple[Execution, ...]:
    """Those that a sweep's folder keeps; see `load_executions`."""
    with contextlib.suppress(NotCommittedError):
        try:
            kept = json.loads(store.read(folder, EXECUTIONS_FILE))
            return tuple(Execution(**execution) for execution in kept)
        except DamagedError as error:
            log.warning("where the time went is not known: %s", error.message)
        except (ValueError, TypeError) as error:
            log.warning(
                "where the time went is not known: %s/%s/%s: %s", store.place, folder, EXECUTIONS_FILE, error
            )
    return ()
