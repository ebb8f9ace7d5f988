"""How long a study takes besides its training: Ray's start, processes, the report and MLflow."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from hkrun.plans.executions import Execution, read_executions
from hkrun.spaces import Sweep
from hkrun.store import Store

_MOST_ASKED = 8  # executions are two requests a study where the store is remote
_NEWEST = 5


@dataclass(frozen=True, kw_only=True)
class Startup:
    """What an execution takes besides training.

    Attributes:
        ray_s: Seconds until Ray has started, and to stop it.
        launch_s: Seconds from there to the first epoch: a process, its imports, data and teacher.
        report_s: Seconds for the report.
        mlflow_s: Seconds that are waited for MLflow at the end.
        basis: Where these are from.
    """

    ray_s: float
    launch_s: float
    report_s: float
    mlflow_s: float
    basis: str

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.ray_s + self.launch_s + self.report_s + self.mlflow_s


# Of a store without executions: medians of four studies of 30 to 80 runs of digits, by `executions.json`.
MEASURED = Startup(
    ray_s=4.4,
    launch_s=2.4,
    report_s=2.5,
    mlflow_s=0.9,
    basis="measured (2026-11-29, 2 cores of an AMD EPYC that had other work too)",
)


def find_startup(store: Store | None, sweep: Sweep) -> Startup:
    """Medians over the newest executions of a study; else of the store's others, else what was measured."""
    if store is None:
        return MEASURED
    own = store.sweep_folder(sweep.name, sweep.dataset)
    found = _usable(read_executions(store, own))
    if not found:
        others = [folder for folder in store.sweep_folders() if folder != own]
        found = _usable(each for folder in others[-_MOST_ASKED:] for each in read_executions(store, folder))
    if not found:
        return MEASURED

    def median(*phases: str) -> float:
        return statistics.median(sum(each.phases.get(phase, 0.0) for phase in phases) for each in found)

    launches = (
        sum(part.get(name, 0.0) for part in (each.teachers, each.runs) for name in ("launch", "inputs"))
        / each.slots
        for each in found
    )
    return Startup(
        ray_s=median("ray"),
        launch_s=statistics.median(launches),
        report_s=median("report"),
        mlflow_s=median("mlflow"),
        basis="as executions of this store took",
    )


def _usable(executions: Iterable[Execution]) -> list[Execution]:
    """The newest of those that came to their end: one that was cut off knows neither report nor MLflow."""
    ended = [each for each in executions if {"ray", "report", "mlflow"} <= each.phases.keys()]
    return sorted(ended, key=lambda each: each.started_at)[-_NEWEST:]
