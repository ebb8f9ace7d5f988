"""How far a study is, and how long it still takes: bookkeeping alone, with the time passed in."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from hkrun.plans import Look, Plan, Startup, estimate_costs
from hkrun.sweep.pace import Pace, makespan
from hkrun.sweep.task_progress import TaskProgress, describe_waiting

if TYPE_CHECKING:
    from hkrun.trial import Task

RATE_OVER_S = 60.0  # long enough for a number that can be read, short enough that it is of this minute
# After how long without a word a task is called silent; one of long epochs after several of them.
SILENT_AFTER_S = 30.0
_SILENT_EPOCHS = 3
_REPORT_EVERY_S = 1.0


class Phase(StrEnum):
    """What a driver does; `hkrun status --json` has these words."""

    CHECKING = "checking data and machine"
    PLANNING = "planning"
    MEASURING = "measuring packs"
    RAY = "starting Ray"
    PROCESSES = "starting processes"
    TEACHER = "training the teacher"
    LOADING = "loading data"
    TABLE = "filling the teacher table"
    TRAINING = "training"
    REHEARSAL = "rehearsing cells"
    ENDING = "stopping Ray"
    REPORT = "writing the report"
    MLFLOW = "bringing MLflow up to date"


@dataclass
class Progress:
    """How far a study is.

    Attributes:
        num_runs: Runs that the study wants.
        num_done: Those with a result; diverged ones are results.
        running: The tasks that have a process, by their name.
        phase: What the driver does; None before it has begun.
        phase_since: Since when.
        at_most: Whether what waits may turn out not to be needed.
        questions: What is known of the questions, where seeds come in rounds; empty before the first look.
    """

    num_runs: int = 0
    num_done: int = 0
    num_failed: int = 0
    num_diverged: int = 0
    running: dict[str, TaskProgress] = field(default_factory=dict)
    phase: Phase | None = None
    phase_since: float = 0.0
    at_most: bool = False
    questions: str = ""
    _startup: Startup | None = None
    _closing_s: float = 0.0
    _table_s: float = 0.0
    _slots: int = 1
    _runs_to_begin: int | None = None  # with a search, which does not begin all that wait
    _run_pace: Pace = field(default_factory=lambda: Pace({}))
    _teacher_pace: Pace = field(default_factory=lambda: Pace({}))
    _waiting: dict[tuple[str, tuple[int, ...]], TaskProgress] = field(default_factory=dict)
    _settled: int = 0  # epochs of runs that are over
    _settled_of_teachers: int = 0
    _trained: int = 0  # epochs of runs since this began
    _history: deque[tuple[float, int]] = field(default_factory=deque)  # time in seconds, epochs until then

    def plan_made(self, plan: Plan, *, slots: int) -> None:
        """Takes over what is there and what will run, so many tasks at a time."""
        costs = estimate_costs(plan)
        self._run_pace, self._teacher_pace = Pace(costs.run_s), Pace(costs.teacher_s)
        self._startup, self._table_s, self._slots = plan.startup, costs.table_s, slots
        self._closing_s = plan.startup.report_s + plan.startup.mlflow_s if plan.cells else 0.0
        self.at_most = bool(plan.rounds)
        self.num_runs, self.num_done = plan.num_done + plan.num_to_run, plan.num_done
        records = [record for cell in plan.distinct_cells for record in cell.records.values()]
        self.num_diverged = sum(record.status == "diverged" for record in records)
        self._settled = sum(record.epochs for record in records if record.status != "failed")
        self._runs_to_begin = None if plan.num_left_to_search is None else plan.num_to_run
        for teachers in plan.teacher_packs:
            first = teachers[0]
            self._waiting[first.teacher_id, ()] = TaskProgress(
                key=first.teacher_id,
                is_teacher=True,
                num_runs=len(teachers),
                done=0,
                total=len(teachers) * first.cell.teacher.epochs,
                teachers=tuple(teacher.teacher_id for teacher in teachers),
            )
        for pack in plan.packs:
            epochs = sum(pack.cell.stage_epochs)
            reached = (min(epochs, plan.reached.get((pack.cell_id, seed), 0)) for seed in pack.seeds)
            self._waiting[pack.cell_id, pack.seeds] = TaskProgress(
                key=pack.cell_id,
                is_teacher=False,
                num_runs=len(pack.seeds),
                done=sum(reached),
                total=len(pack.seeds) * epochs,
                teachers=pack.teacher_ids,
            )

    def enter(self, phase: Phase, *, now: float) -> None:
        """Notes what the driver does from now on."""
        if phase != self.phase:
            self.phase, self.phase_since = phase, now

    def start(self, task: "Task", *, now: float) -> None:
        """Notes that a task has got its process."""
        known = self._waiting.pop((task.cell_id, tuple(task.seeds)), None)
        number = len(task.seeds) or max(1, len(task.teacher_seeds))
        if known is None:  # a rehearsal
            known = TaskProgress(
                key=task.cell_id, is_teacher=not task.seeds, num_runs=number, done=0, total=0
            )
        if self._runs_to_begin is not None and not known.is_teacher:
            self._runs_to_begin -= known.num_runs
        known.task, known.started_at, known.heard_at = task, now, now
        self.running[task.name] = known

    def advance(self, task: "Task", report: Mapping[str, object], *, now: float) -> None:
        """Notes what a task reported, see `hkrun.trial.progress`; of an unknown one, nothing."""
        known = self.running.get(task.name)
        if known is None:
            return
        known.heard_at = now
        if isinstance(filled := report.get("filled"), float):
            known.filled = filled
            if self.phase == Phase.LOADING:
                self.enter(Phase.TABLE, now=now)
        epoch, epochs, error_pct = report.get("epoch"), report.get("epochs"), report.get("error_pct")
        if not (isinstance(epoch, int) and isinstance(epochs, int)):
            return
        if self.phase in (Phase.LOADING, Phase.TABLE) and not known.is_teacher:
            self.enter(Phase.TRAINING, now=now)
        known.epoch, known.epochs = epoch, epochs
        if isinstance(error_pct, float):
            known.error_pct = error_pct
        done, total = report.get("epochs_done"), report.get("epochs_total")
        self._move(
            known,
            done if isinstance(done, int) else epoch * known.num_runs,
            total if isinstance(total, int) else epochs * known.num_runs,
            now,
        )

    def _move(self, known: TaskProgress, done: int, total: int, now: float) -> None:
        newly = done - known.done
        # The first report after a start or a death only starts the clock.
        if known.told_at is not None and newly > 0:
            pace = self._teacher_pace if known.is_teacher else self._run_pace
            pace.observe(known.key, now - known.told_at, newly)
        if not known.is_teacher:
            self._trained += newly if known.told_at is not None and newly > 0 else 0
            self._history.append((now, self._trained))
        known.done, known.total, known.told_at = done, max(done, total), now

    def end(self, task: "Task", outcomes: Sequence[Mapping[str, object]]) -> None:
        """Notes that a task is over."""
        self.running.pop(task.name, None)
        lost = []
        identities = list(task.teachers) if not task.seeds else []
        for index, outcome in enumerate(outcomes):
            epochs = outcome["epochs"]
            trained = epochs if isinstance(epochs, int) else 0
            if outcome["seed"] is None and not task.seeds:  # a teacher is no run
                self._settled_of_teachers += trained
                lost += identities[index : index + 1] if outcome["status"] != "finished" else []
                continue
            self._settled += trained
            if outcome["status"] == "untaught":
                self.num_runs -= 1
                continue
            self.num_failed += outcome["status"] == "failed"
            self.num_diverged += outcome["status"] == "diverged"
            self.num_done += outcome["status"] != "failed"
        self._leave_out(lost)

    def fail(self, task: "Task") -> None:
        """Notes that a task has no outcome."""
        known = self.running.pop(task.name, None) or self._waiting.pop((task.cell_id, task.seeds), None)
        if task.seeds:
            self.num_failed += len(task.seeds)
            self._settled += known.done if known is not None else 0
        else:
            self._leave_out(list(task.teachers))

    def _leave_out(self, lost: Sequence[str]) -> None:
        """Forgets the tasks that wait for teachers that will not come; the others' untaught runs end."""
        for place, waiting in list(self._waiting.items()):
            if not waiting.is_teacher and waiting.teachers and set(waiting.teachers) <= set(lost):
                del self._waiting[place]
                self.num_runs -= waiting.num_runs

    def look(self, look: Look) -> None:
        """Notes what is known of the questions: cells that no open one is about need no more seeds."""
        self.questions = look.summary.rstrip(".")
        for place, waiting in list(self._waiting.items()):
            if not waiting.is_teacher and waiting.key not in look.wanted:
                del self._waiting[place]
                self.num_runs -= waiting.num_runs

    @property
    def num_training(self) -> int:
        """Runs that have a process; a teacher is no run."""
        return sum(each.num_runs for each in self.running.values() if not each.is_teacher)

    def runs_without_teacher(self, now: float) -> tuple[int, float | None]:
        """How many runs wait for teachers that train or are to train, and for about how many seconds.

        None where the pace of a teacher is not known. Their slots may stand idle or be the teachers', so that
        fewer epochs of runs are trained than later.
        """
        number = self._count_untaught()
        running, later = (
            [self._left_s(each, now) for each in tasks.values() if each.is_teacher]
            for tasks in (self.running, self._waiting)
        )
        left = [seconds for seconds in (*running, *later) if seconds is not None]
        if len(left) < len(running) + len(later):
            return number, None
        return number, makespan(left[: len(running)], left[len(running) :], slots=self._slots)

    def _count_untaught(self) -> int:
        """Runs whose teacher is not trained yet."""
        tasks = [*self.running.values(), *self._waiting.values()]
        untrained = {identity for each in tasks if each.is_teacher for identity in each.teachers}
        waiting = (each for each in self._waiting.values() if not each.is_teacher)
        return sum(each.num_runs for each in waiting if untrained & {*each.teachers})

    @property
    def epochs(self) -> tuple[int, int]:
        """Epochs of the study's runs, trained and in all."""
        running = [each for each in self.running.values() if not each.is_teacher]
        waiting = [each for each in self._waiting.values() if not each.is_teacher]
        share = self._share_that_begins()
        done = sum(each.done for each in running) + round(share * sum(each.done for each in waiting))
        total = sum(each.total for each in running) + round(share * sum(each.total for each in waiting))
        return self._settled + done, self._settled + total

    @property
    def teacher_epochs(self) -> tuple[int, int]:
        """Epochs of the teachers, trained and in all."""
        left = [each for each in (*self.running.values(), *self._waiting.values()) if each.is_teacher]
        done, total = sum(each.done for each in left), sum(each.total for each in left)
        return self._settled_of_teachers + done, self._settled_of_teachers + total

    @property
    def phase_share(self) -> float | None:
        """How much of the phase is over, from 0 to 1; None of one of which that is not known."""
        if self.phase == Phase.TABLE:
            shares = [each.filled for each in self.running.values() if each.filled is not None]
            return max(shares, default=0.0)
        done, total = self.teacher_epochs if self.phase == Phase.TEACHER else self.epochs
        return done / total if total and self.phase in (Phase.TEACHER, Phase.TRAINING) else None

    def silent_s(self, known: TaskProgress, now: float) -> float | None:
        """Seconds since a task last told anything; None while that is nothing to wonder at."""
        pace = self._teacher_pace if known.is_teacher else self._run_pace
        epoch_s = known.num_runs * (pace.epoch_s(known.key) or 0.0)
        silent_s = now - known.heard_at
        return silent_s if silent_s > max(SILENT_AFTER_S, _SILENT_EPOCHS * epoch_s) else None

    def epochs_per_s(self, now: float) -> float | None:
        """Epochs of runs per second over the last minute; None before the second report."""
        while len(self._history) > 2 and self._history[0][0] < now - RATE_OVER_S:
            self._history.popleft()
        if len(self._history) < 2 or now <= self._history[0][0]:
            return None
        return (self._trained - self._history[0][1]) / (now - self._history[0][0])

    def remaining_s(self, now: float) -> float | None:
        """Seconds until the study is over, as far as can be told; None while nothing is known of them."""
        startup, since = self._startup, now - self.phase_since
        if startup is None:
            return None
        match self.phase:
            case Phase.REPORT:
                return max(0.0, startup.report_s - since) + startup.mlflow_s
            case Phase.MLFLOW:
                return max(0.0, startup.mlflow_s - since)
            case Phase.ENDING:
                return self._closing_s
        training_s = self._training_s(now)
        if training_s is None:
            return None
        match self.phase:
            case Phase.RAY:
                before_s = max(0.0, startup.ray_s - since) + startup.launch_s
            case Phase.PROCESSES:
                before_s = max(0.0, startup.launch_s - since)
            case Phase.TEACHER | Phase.LOADING | Phase.TABLE | Phase.TRAINING:
                before_s = 0.0
            case _:
                before_s = startup.ray_s + startup.launch_s
        return before_s + training_s + self._closing_s

    def usual_s(self, now: float) -> float | None:
        """What the phase usually takes, where it has taken more than twice as long; else None."""
        if self._startup is None:
            return None
        usual_s = {
            Phase.RAY: self._startup.ray_s,
            Phase.PROCESSES: self._startup.launch_s,
            Phase.REPORT: self._startup.report_s,
            Phase.MLFLOW: self._startup.mlflow_s,
        }.get(self.phase or Phase.PLANNING)
        return usual_s if usual_s is not None and now - self.phase_since > max(10.0, 2 * usual_s) else None

    def _training_s(self, now: float) -> float | None:
        """Seconds until the last task is over; None where the pace of one is not known."""
        running = {name: self._left_s(each, now) for name, each in self.running.items()}
        waiting = [(each, self._left_s(each, now)) for each in self._waiting.values()]
        if None in running.values() or any(left is None for _, left in waiting):
            return None
        teachers = [running[name] or 0.0 for name, each in self.running.items() if each.is_teacher]
        runs = [running[name] or 0.0 for name, each in self.running.items() if not each.is_teacher]
        later_teachers = [left or 0.0 for each, left in waiting if each.is_teacher]
        later_runs = [left or 0.0 for each, left in waiting if not each.is_teacher]
        share = self._share_that_begins()
        if runs and (teachers or later_teachers):  # some runs need not wait for these teachers
            return makespan([*teachers, *runs], [*later_teachers, *later_runs], slots=self._slots)
        before_s = makespan(teachers, later_teachers, slots=self._slots)
        return before_s + self._table_left_s() + makespan(runs, later_runs, slots=self._slots, share=share)

    def _left_s(self, known: TaskProgress, now: float) -> float | None:
        """Seconds that a task still needs a process for; it is taken to get on between its reports."""
        if known.total <= known.done:
            return 0.0
        pace = self._teacher_pace if known.is_teacher else self._run_pace
        epoch_s = pace.epoch_s(known.key)
        if epoch_s is None:
            return None
        left_s = epoch_s * (known.total - known.done)
        if known.task is not None:
            heard_at = known.started_at if known.told_at is None else known.told_at
            left_s -= min(now - heard_at, max(_REPORT_EVERY_S, epoch_s * known.num_runs))
        return max(0.0, left_s)

    def _table_left_s(self) -> float:
        """Seconds until the tables are filled; they are, once a run has told of an epoch."""
        runs = [each for each in self.running.values() if not each.is_teacher]
        if self._trained or any(each.epochs for each in runs):
            return 0.0
        return self._table_s * (1.0 - max((each.filled or 0.0 for each in runs), default=0.0))

    def _share_that_begins(self) -> float:
        """How much of what waits is begun at all."""
        if self._runs_to_begin is None:
            return 1.0
        waiting = sum(each.num_runs for each in self._waiting.values() if not each.is_teacher)
        return min(1.0, max(0, self._runs_to_begin) / waiting) if waiting else 1.0

    def detail(self) -> str:
        """What the phase is at, in words; empty where its name says all.

        While some runs train and others wait for a teacher, that is part of it.
        """
        match self.phase:
            case Phase.TEACHER:
                return self._describe_teacher()
            case Phase.TABLE:
                parts = [f"{100 * (self.phase_share or 0.0):.0f} %", self.waiting]
            case Phase.TRAINING:
                parts = [self.questions, self.waiting]
            case Phase.LOADING:
                parts = [self.waiting]
            case _:
                parts = []
        return "; ".join(filter(None, parts))

    def _describe_teacher(self) -> str:
        """How far the first teacher is that trains; empty where none does."""
        teacher = next((each for each in self.running.values() if each.is_teacher), None)
        return "" if teacher is None else ", ".join(filter(None, (teacher.state, teacher.error)))

    @property
    def waiting(self) -> str:
        """How many runs wait for a teacher that trains, and how far that is; empty where none do."""
        number, teacher = self._count_untaught(), self._describe_teacher()
        return f"{describe_waiting(number)} for the teacher, {teacher}" if number and teacher else ""

    def document(self, now: float) -> dict[str, object]:
        """What the driver tells others of it."""
        done, total = self.epochs
        remaining_s, share = self.remaining_s(now), self.phase_share
        return {
            "phase": None if self.phase is None else str(self.phase),
            "phase_seconds": round(now - self.phase_since, 1),
            "detail": self.detail(),
            "phase_share": None if share is None else round(share, 3),
            "epochs_done": done,
            "epochs_total": total,
            "runs_training": self.num_training,
            "eta_seconds": None if remaining_s is None else round(remaining_s, 1),
        }
