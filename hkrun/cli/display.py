"""What a person sees while a sweep trains: a live view on a terminal, a line now and then elsewhere."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hkrun.plans import Plan
    from hkrun.trial import Task

_SHOWN_TASKS = 8
_LINE_EVERY_S = 10.0  # without a terminal
_RATE_OVER_S = 60.0  # long enough that the ETA stands still, short enough that it is of this minute


@dataclass
class Running:
    """How far a task is.

    Attributes:
        epochs: All of them; None before the first.
        error_pct: Mean test error after the last one.
        filled: The share of the teacher table that it has filled, before the first epoch; None without.
    """

    label: str
    num_runs: int = 1
    epoch: int = 0
    epochs: int | None = None
    error_pct: float | None = None
    filled: float | None = None

    @property
    def state(self) -> str:
        """In words."""
        if self.epochs:
            return f"epoch {self.epoch}/{self.epochs}"
        return "starting" if self.filled is None else f"teacher table, {100 * self.filled:.0f} %"


@dataclass
class Progress:
    """How far a sweep is: bookkeeping alone, with the time passed in.

    Attributes:
        num_done: Those with a result; diverged ones are results.
        running: The tasks that train now, by their name.
    """

    num_runs: int = 0
    num_done: int = 0
    num_failed: int = 0
    num_diverged: int = 0
    running: dict[str, Running] = field(default_factory=dict)
    _epochs: int = 0
    _epochs_per_run: int | None = None
    _history: deque[tuple[float, int]] = field(default_factory=deque)  # time in seconds, epochs until then

    def begin(self) -> None:
        """Forgets the speed: a teacher's is not its students'."""
        self._epochs, self._epochs_per_run = 0, None
        self._history.clear()

    def advance(self, name: str, report: Mapping[str, object], *, now: float) -> None:
        """Notes what a task reported: "epoch", "epochs" and "error_pct", or "filled" before them."""
        task = self.running[name]
        if isinstance(filled := report.get("filled"), float):
            task.filled = filled
        epoch, epochs, error_pct = report.get("epoch"), report.get("epochs"), report.get("error_pct")
        if isinstance(epochs, int):
            task.epochs = self._epochs_per_run = epochs
        if isinstance(error_pct, float):
            task.error_pct = error_pct
        if isinstance(epoch, int):
            self._count(task.num_runs * (epoch - task.epoch), now)
            task.epoch = epoch

    def end(self, name: str, outcomes: Sequence[Mapping[str, object]], *, now: float) -> None:
        """Notes that a task is over."""
        task = self.running.pop(name)
        for outcome in outcomes:
            epochs = outcome["epochs"]
            self._count(epochs - task.epoch if isinstance(epochs, int) else 0, now)
            if outcome["seed"] is None:
                continue  # a teacher is no run
            if outcome["status"] == "untaught":
                self.num_runs -= 1
                continue
            self.num_failed += outcome["status"] == "failed"
            self.num_diverged += outcome["status"] == "diverged"
            self.num_done += outcome["status"] != "failed"

    def fail(self, name: str, num_runs: int) -> None:
        """Notes that a task has no outcome."""
        self.running.pop(name, None)
        self.num_failed += num_runs

    def epochs_per_s(self, now: float) -> float | None:
        """Epochs per second over the last minute; None before the second report.

        The first one only starts the clock: before it processes were starting, or a run was resumed.
        """
        while len(self._history) > 2 and self._history[0][0] < now - _RATE_OVER_S:
            self._history.popleft()
        if len(self._history) < 2 or now <= self._history[0][0]:
            return None
        return (self._epochs - self._history[0][1]) / (now - self._history[0][0])

    def remaining_s(self, now: float) -> float | None:
        """Seconds until the last run is over, at the present speed; None while that is unknown."""
        rate = self.epochs_per_s(now)
        if not rate or self._epochs_per_run is None:
            return None
        num_left = self.num_runs - self.num_done - self.num_failed
        trained = sum(task.num_runs * task.epoch for task in self.running.values())
        return max(0.0, (num_left * self._epochs_per_run - trained) / rate)

    def _count(self, epochs: int, now: float) -> None:
        self._epochs += max(0, epochs)
        self._history.append((now, self._epochs))


class Display:
    """Shows how a sweep goes (`Observer` of `hkrun.sweep.task_submission`); a context manager around it."""

    def __init__(
        self, console: "Console", *, title: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._title = title
        self._clock = clock
        self._stage = ""
        self._names: dict[str, str] = {}
        self._training_runs = False
        self._progress = Progress()
        self._started_at = clock()
        self._last_line_at = self._started_at
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        self._progress.running.clear()
        if self._progress.num_runs:
            elapsed = describe_duration(self._clock() - self._started_at)
            self._say(f"{self._counts()}, after {elapsed}")

    def plan_made(self, plan: "Plan", *, slots: int) -> None:
        """What will run, and how many tasks at a time."""
        self._names = {cell.cell_id: cell.name for cell in reversed(plan.cells)}
        self._progress.num_runs, self._progress.num_done = plan.num_done + plan.num_to_run, plan.num_done
        there = f", {plan.num_done} are there already" if plan.num_done else ""
        self._say(
            f"{self._title}: {plan.num_to_run} of {plan.num_runs} runs to train, {slots} at a time{there}"
        )

    def entered(self, stage: str) -> None:
        """What happens from now on, in words."""
        self._stage = stage
        self._progress.begin()
        if self._live is None:
            self._say(f"{stage} ...")

    def started(self, task: "Task") -> None:
        """A task has got its process."""
        self._training_runs = bool(task.seeds)
        self._progress.running[task.name] = Running(label=self._label(task), num_runs=max(1, len(task.seeds)))

    def progressed(self, task: "Task", progress: Mapping[str, object]) -> None:
        """A task is this far."""
        self._progress.advance(task.name, progress, now=self._clock())
        self._say_now_and_then()

    def ended(self, task: "Task", outcomes: Sequence[Mapping[str, object]]) -> None:
        """A task is over."""
        self._progress.end(task.name, outcomes, now=self._clock())
        for outcome in outcomes:
            if outcome["status"] != "finished":
                self._say(f"{self._label(task, outcome)}: {outcome['status']}: {outcome['message']}")
        self._say_now_and_then()

    def failed(self, task: "Task", message: str) -> None:
        """A task has no outcome, and why."""
        self._progress.fail(task.name, len(task.seeds))
        self._say(f"{self._label(task)}: failed: {message}")

    def _label(self, task: "Task", outcome: Mapping[str, object] | None = None) -> str:
        """What a task trains, or one of the runs of it."""
        if not task.seeds:
            several = f", {describe_seeds(task.teacher_seeds)}" if task.teacher_seeds else ""
            return f"teacher {task.cell.teacher.network}{several}"
        name = self._names.get(task.cell_id, task.cell_id)
        seeds = task.seeds if outcome is None else [outcome["seed"]]
        return f"{name}, {describe_seeds(seeds)}"

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=not self._console.is_terminal)

    def _say_now_and_then(self) -> None:
        now = self._clock()
        if self._live is None and now - self._last_line_at >= _LINE_EVERY_S:
            self._last_line_at = now
            self._say(self._counts())

    def _counts(self) -> str:
        state, now = self._progress, self._clock()
        parts = [f"{state.num_done}/{state.num_runs} runs done"] if state.num_runs else []
        if state.running:
            parts.append(f"{sum(task.num_runs for task in state.running.values())} running")
        if state.num_runs:
            parts.append(f"{state.num_failed} failed")
        if state.num_diverged:
            parts.append(f"{state.num_diverged} diverged")
        filling = [task for task in state.running.values() if task.filled is not None and not task.epochs]
        if filling:
            parts.append(filling[0].state)
        rate = state.epochs_per_s(now) if state.running else None
        remaining = state.remaining_s(now) if state.running and self._training_runs else None
        if rate is not None:
            parts.append(f"{rate:.3g} epochs/s")
        if remaining is not None:
            parts.append(f"about {describe_duration(remaining)} left")
        return ", ".join(parts)

    def _render(self) -> "RenderableType":
        state = self._progress
        head = Table.grid(expand=True, padding=(0, 2, 0, 0))
        head.add_column(no_wrap=True)
        head.add_column(justify="right", no_wrap=True)
        elapsed = describe_duration(self._clock() - self._started_at)
        title = self._console.render_str(self._title, style="bold")
        head.add_row(Text.assemble(title, f"  {self._stage}"), Text(elapsed, "dim"))
        rows = Table.grid(padding=(0, 2))
        rows.add_column(no_wrap=True)
        for _ in range(2):
            rows.add_column(no_wrap=True)
        for task in list(state.running.values())[:_SHOWN_TASKS]:
            error = "" if task.error_pct is None else f"{task.error_pct:.2f} % error"
            rows.add_row(f"  {task.label}", task.state, error)
        hidden = len(state.running) - _SHOWN_TASKS
        if hidden > 0:
            rows.add_row(Text(f"  and {hidden} more", "dim"), "", "")
        over = state.num_done + state.num_failed
        lines: list[RenderableType] = [head]
        if state.num_runs:
            bar = Table.grid(expand=True)  # the bar alone does not end its line
            bar.add_row(ProgressBar(total=state.num_runs, completed=over))
            lines.append(bar)
        return Group(*lines, Text(self._counts(), no_wrap=True, overflow="ellipsis"), rows)


def describe_seeds(seeds: Sequence[object]) -> str:
    """Seeds for people: `seed 3`, `seeds 0, 1`, `20 seeds from 0 to 19`."""
    if len(seeds) <= 2:
        return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return f"{len(seeds)} seeds from {seeds[0]} to {seeds[-1]}"


def describe_duration(seconds: float) -> str:
    """Seconds for people: `42 s`, `3:05 min`, `2:10 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"
