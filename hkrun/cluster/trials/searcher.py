"""Gives Tune the next task that has room and the number of its processes; Optuna, ASHA, rounds of seeds.

A trial's parameters are the task, the number of its workers, which is chosen when it begins (elastic groups),
and the mark by which the watchdog and `placement_groups` know the try.
"""

# ruff: noqa: ARG002 (Tune names the arguments of what it calls)
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from hkrun.cluster.nodes.discovery import find_answering, read_nodes
from hkrun.cluster.trials.axes import EarlyStopping, Point, Search
from hkrun.cluster.trials.callback import TrialCallback
from hkrun.cluster.trials.placement_groups import draw_marks
from hkrun.cluster.trials.rounds import RoundGate
from hkrun.cluster.trials.schedule import Schedule
from hkrun.cluster.trials.slots import Allocation

METRIC = "error_pct"

# A point all of whose runs are made may be proposed again; after so many, the next run in order is taken.
MAX_PROPOSALS = 20

# Runs are compared after a ninth and after a third of their epochs, and two of three end there.
FIRST_RUNG = 9
REDUCTION = 3
LOOK_EVERY_S = 2.0
# After a death nodes are called, for so long: Ray itself takes half a minute to believe that one is lost.
DOUBT_S = 60.0


@dataclass
class AxesSearch:
    """Chooses the next task: the next run of the point that Optuna's TPE sampler proposes.

    To Tune's own OptunaSearch, which proposes points, it adds several runs (seeds) of a point, runs that were
    made before, and a budget of runs. Tasks that belong to no point, such as teachers, come first too.
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
        for index in [index for index in self._asked if self.schedule.has_result(index)]:
            self._tell(self._asked.pop(index), self._outcome(index), [index])
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

    def _tell(self, trial: str, errors: Sequence[float], tasks: Sequence[int]) -> None:
        """Tells Optuna what became of a trial. Told of a NaN, OptunaSearch would leave it running for ever.

        Its value is the mean of the errors, which are finite. Without any it is pruned if its runs diverged,
        which the sampler ranks last, and failed, which the sampler passes over, if that is not known.
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


class SweepDone(BaseException):
    """Nothing is left to do. No Exception, which Tune would catch."""


class TaskSearcher(Searcher):
    """Gives Tune the tasks of a schedule as trials, and leaves Tune by an exception when all is over.

    Tune's own end waits up to 15 s for actors that are busy or starting; Ray's shutdown ends them in a
    second.
    """

    def __init__(
        self,
        schedule: Schedule,
        allocation: Allocation,
        callback: TrialCallback,
        search: AxesSearch | RoundGate | None,
    ) -> None:
        super().__init__()
        self._schedule, self._allocation = schedule, allocation
        self._search = search if isinstance(search, AxesSearch) else None
        self._rounds = search if isinstance(search, RoundGate) else None
        self._callback = callback
        self._marks = draw_marks()
        self._next_look_s = self._doubt_until_s = 0.0
        callback.on_death = self.doubt_nodes

    def suggest(self, trial_id: str) -> dict[str, int] | None:
        """The next task, or nothing for now. Tune asks at every step."""
        if self._search is not None and self._search.spent:
            self._schedule.leave_out(self._search.tasks - self._search.chosen)
        if self._rounds is not None:
            if (look := self._rounds.step()) is not None:
                self._callback.on_look(look)
            if self._rounds.over:
                self._schedule.leave_out()
        self._look_at_nodes()
        if self._schedule.finished:
            raise SweepDone
        index = self._schedule.take(self._search.choose) if self._search else self._schedule.take()
        if index is None:
            return None
        number = self._allocation.take(index)
        self._callback.on_take(index)
        return {"index": index, "mark": next(self._marks), "workers": number}

    def doubt_nodes(self) -> None:
        """Notes that a process has died: its node may be lost, whatever Ray still says."""
        self._doubt_until_s, self._next_look_s = time.monotonic() + DOUBT_S, 0.0

    def _look_at_nodes(self) -> None:
        """Follows the nodes of a joined cluster, and gives up what waits for room in vain."""
        now = time.monotonic()
        if not self._allocation.shared or now < self._next_look_s:
            return
        self._next_look_s = now + LOOK_EVERY_S
        self._allocation.resize(find_answering() if now < self._doubt_until_s else read_nodes())
        for index in self._allocation.find_hopeless(self._schedule.find_misfits()):
            self._callback.on_hopeless(index)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """`TrialCallback` sees to it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is ever restored."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is ever restored."""
