"""Which points of a search space Optuna tries, and which runs ASHA ends early; both are Ray Tune's own.

Tune's OptunaSearch proposes points. `AxesSearch` adds what it does not know: several runs (seeds) of a point,
runs that were made before, and a budget of runs.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from hkrun.cluster.trials.axes import EarlyStopping, Point, Search
from hkrun.cluster.trials.schedule import Schedule

METRIC = "error_pct"

# A point all of whose runs are made may be proposed again; after so many, the next run in order is taken.
MAX_PROPOSALS = 20

# Runs are compared after a ninth and after a third of their epochs, and two of three end there.
FIRST_RUNG = 9
REDUCTION = 3


@dataclass
class AxesSearch:
    """Chooses the next task: the next run of the point that Optuna's TPE sampler proposes.

    Tasks that belong to no point, such as teachers, come first too.

    Args:
        search: What to choose from.
        schedule: Where the results of the tasks appear.
    """

    search: Search
    schedule: Schedule
    chosen: set[int] = field(default_factory=set)
    tasks: set[int] = field(init=False)
    _asked: dict[int, str] = field(default_factory=dict)  # task -> Optuna's trial
    _num_asked: int = 0

    def __post_init__(self) -> None:
        groups: dict[str, list[tuple[int, ...]]] = {}
        for point in self.search.runs:
            groups.setdefault(point.group, []).append(point.values)
        self._groups = list(groups)
        lengths = [[max(axis) + 1 for axis in zip(*points, strict=True)] for points in groups.values()]
        self.tasks = {index for tasks in self.search.runs.values() for index in tasks} - self.search.first

        def draw(trial: Any) -> None:
            group = trial.suggest_categorical("group", list(range(len(lengths))))
            for axis, length in enumerate(lengths[group]):
                trial.suggest_int(f"{group}:{axis}", 0, length - 1)

        import optuna  # an extra, and half a second
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = OptunaSearch(space=draw, metric=METRIC, mode="min", seed=self.search.seed)

    @property
    def spent(self) -> bool:
        """Whether the budget is."""
        return len(self.chosen) >= self.search.budget

    def choose(self, candidates: Sequence[int]) -> int:
        """The task that starts next, one of the candidates."""
        for index in candidates:
            if index not in self.tasks or index in self.chosen:  # or it was put back
                return index
        self._learn()
        for _ in range(MAX_PROPOSALS):
            trial, point = self._propose()
            free = [index for index in self.search.runs.get(point, ()) if index in candidates]
            if free:
                self._asked[free[0]] = trial
                self.chosen.add(free[0])
                return free[0]
            self._tell(trial, self._errors(point), self.search.runs.get(point, ()))
        self.chosen.add(candidates[0])
        return candidates[0]

    def _propose(self) -> tuple[str, Point]:
        trial = f"{self._num_asked}"
        self._num_asked += 1
        drawn = self._optuna.suggest(trial)
        assert drawn is not None
        group = drawn.pop("group")
        values = tuple(drawn[f"{group}:{axis}"] for axis in range(len(drawn)))
        return trial, Point(self._groups[group], values)

    def _learn(self) -> None:
        """Tells Optuna what has come out since it was asked."""
        for index in [index for index in self._asked if self.schedule.has_result(index)]:
            self._tell(self._asked.pop(index), self._outcome(index), [index])

    def _tell(self, trial: str, errors: Sequence[float], tasks: Sequence[int]) -> None:
        """Tells Optuna what became of a trial. Told of a NaN, OptunaSearch would leave it running for ever.

        Args:
            trial: Optuna's.
            errors: Finite ones, whose mean is its value. Without any it is pruned if its runs diverged, which
                the sampler ranks last, and failed, which the sampler passes over, if that is not known.
            tasks: Those that train the trial's runs.
        """
        result = {METRIC: statistics.fmean(errors)} if errors else None
        results = [self.schedule.result(index) for index in tasks]
        is_known = all(made is not None and made.outcomes is not None for made in results)
        self._optuna.on_trial_complete(trial, result=result, error=result is None and not is_known)

    def _errors(self, point: Point) -> list[float]:
        """The errors of a point's runs so far."""
        made = [error for index in self.search.runs.get(point, ()) for error in self._outcome(index)]
        return [*self.search.known.get(point, ()), *made]

    def _outcome(self, index: int) -> list[float]:
        """The errors that a task came to, of runs stopped early too; none that is not finite."""
        result = self.schedule.result(index)
        outcomes = result.outcomes if result is not None and result.outcomes is not None else []
        errors = [outcome["error_last_pct"] for outcome in outcomes if outcome["status"] != "diverged"]
        return [error for error in errors if isinstance(error, float) and math.isfinite(error)]


class Halving(ASHAScheduler):
    """ASHA on the test error, for some of the tasks."""

    def __init__(self, early_stopping: EarlyStopping) -> None:
        super().__init__(
            time_attr="progress/epoch",
            metric=f"progress/{METRIC}",
            mode="min",
            max_t=max(early_stopping.epochs, REDUCTION),
            grace_period=max(1, early_stopping.epochs // FIRST_RUNG),
            reduction_factor=REDUCTION,
            stop_last_trials=False,
        )
        self._tasks = early_stopping.tasks

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Whether the trial goes on; one that has just done its last epoch is about to be recorded."""
        last = result.get("progress/epoch") == result.get("progress/epochs")
        if last or trial.config["index"] not in self._tasks:
            return TrialScheduler.CONTINUE
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return decision
