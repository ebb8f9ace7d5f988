"""What a person sees while a sweep trains: a live view on a terminal, a line now and then elsewhere."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hkrun.spaces import name_cells, shorten_names
from hkrun.sweep import Phase, Progress, describe_waiting

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hkrun.plans import Look, Plan
    from hkrun.sweep import TaskProgress
    from hkrun.trial import Task

_SHOWN_TASKS = 8
_LEAST_NAME = 12  # columns
# Without a terminal: a line every ten seconds at first, then ever more rarely, at last every ten minutes.
_LINE_EVERY_S, _LINE_AT_LEAST_EVERY_S = 10.0, 600.0
_LINE_PER_ELAPSED = 0.05
_TICK_S = 1.0


class Display:
    """Shows how a sweep goes (`Observer` of `hkrun.sweep.task_submission`); a context manager around it."""

    def __init__(
        self, console: "Console", *, title: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._title = title
        self._clock = clock
        self._names: dict[str, str] = {}
        self._short: dict[int, dict[str, str]] = {}  # names by the columns that they may take
        self._answered: set[str] = set()
        self._has_told_of_teachers = False
        self._slots = 1
        self._started_at = clock()
        self._progress = Progress(phase_since=self._started_at)
        self._last_line_at = self._started_at
        self._live: Live | None = None
        self._over = threading.Event()
        self._turn = threading.RLock()  # a thread shows what the observer's calls change

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True
            )
            self._live.start()
        else:
            threading.Thread(target=self._tick, name="hkrun-display", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._turn:
            self._over.set()
        if self._live is not None:
            self._live.stop()
        self._progress.running.clear()
        if self._progress.num_runs:
            self._say(f"{self._count_runs()}, after {describe_duration(self._elapsed_s())}")

    def plan_made(self, plan: "Plan", *, slots: int) -> None:
        """What will run, and how many tasks at a time."""
        with self._turn:
            self._progress.plan_made(plan, slots=slots)
        self._slots = slots
        labels = name_cells(plan.sweep.cells).labels
        self._names = {cell.cell_id: labels[cell.name] for cell in reversed(plan.cells)}
        self._short.clear()
        if not plan.cells:
            return
        there = f", {plan.num_done} are there already" if plan.num_done else ""
        self._say(
            f"{self._title}: {plan.num_to_run} of {plan.num_runs} runs to train, {slots} at a time{there}"
            f"{self._describe_left(', {}')}"
        )

    def entered(self, phase: Phase) -> None:
        """What happens from now on."""
        with self._turn:
            self._progress.enter(phase, now=self._clock())
        self._say_phase()

    def started(self, task: "Task") -> None:
        """A task has got its process."""
        with self._turn:
            self._progress.start(task, now=self._clock())
        if not task.seeds and not self._has_told_of_teachers:
            self._has_told_of_teachers = True
            self._say_who_waits(task)

    def progressed(self, task: "Task", progress: Mapping[str, object]) -> None:
        """A task is this far."""
        before = self._progress.phase
        with self._turn:
            self._progress.advance(task, progress, now=self._clock())
        if self._progress.phase != before:
            self._say_phase()
        self.say_now_and_then()

    def ended(self, task: "Task", outcomes: Sequence[Mapping[str, object]]) -> None:
        """A task is over."""
        with self._turn:
            self._progress.end(task, outcomes)
        for outcome in outcomes:
            if outcome["status"] != "finished":
                self._say(f"{self._label(task, outcome)}: {outcome['status']}: {outcome['message']}")
        self.say_now_and_then()

    def failed(self, task: "Task", message: str) -> None:
        """A task has no outcome, and why."""
        with self._turn:
            self._progress.fail(task)
        self._say(f"{self._label(task)}: failed: {message}")

    def looked(self, look: "Look") -> None:
        """What is known of the study's questions: each answer is told once."""
        with self._turn:
            self._progress.look(look)
        for question, answer in look.answers.items():
            if answer and question not in self._answered:
                self._answered.add(question)
                self._say(f"Decided: {question}: {answer}")

    def say_now_and_then(self) -> None:
        """Without a terminal: a line on how far it is, where the last one is old enough."""
        now = self._clock()
        every_s = max(_LINE_EVERY_S, _LINE_PER_ELAPSED * self._elapsed_s())
        with self._turn:
            if not self._is_live and now - self._last_line_at >= min(every_s, _LINE_AT_LEAST_EVERY_S):
                self._last_line_at = now
                self._say(self._describe_line())

    def _tick(self) -> None:
        """Says that it goes on, also where no task tells anything."""
        with contextlib.suppress(BrokenPipeError):  # the next call of the observer meets it too
            while not self._over.wait(_TICK_S):
                self.say_now_and_then()

    @property
    def _is_live(self) -> bool:
        """Whether all that changes is seen, so that lines need not tell of it."""
        return self._live is not None

    def _elapsed_s(self) -> float:
        return self._clock() - self._started_at

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

    def _say_who_waits(self, task: "Task") -> None:
        """Once: how many runs wait for teachers and how long, and why fewer train until then than later."""
        number, seconds = self._progress.runs_without_teacher(self._clock())
        if number:
            how_long = "" if seconds is None else f", for about {describe_roughly(seconds)}"
            meanwhile = f"; it has 1 of {self._slots} slots meanwhile" if self._slots > 1 else ""
            self._say(f"{describe_waiting(number)} for the {self._label(task)}{how_long}{meanwhile}")

    def _say_phase(self) -> None:
        """Without a terminal: a line for each phase, which says why nothing else may happen for a while."""
        if not self._is_live:
            self._last_line_at = self._clock()
            self._say(f"{self._describe_phase()} ...{self._describe_left(' {} left')}")

    def _describe_phase(self) -> str:
        phase = self._progress.phase or Phase.PLANNING
        return f"{phase[:1].upper()}{phase[1:]}"

    def _describe_since(self) -> str:
        """For how long the phase goes on; and what it usually takes, where that is much less."""
        now = self._clock()
        usual_s = self._progress.usual_s(now)
        usually = "" if usual_s is None else f", usually {describe_roughly(usual_s)}"
        return f"{describe_duration(now - self._progress.phase_since)}{usually}"

    def _describe_left(self, form: str) -> str:
        left_s = self._progress.remaining_s(self._clock())
        how = "at most" if self._progress.at_most else "about"
        return "" if left_s is None else form.format(f"{how} {describe_roughly(left_s)}")

    def _describe_line(self) -> str:
        """A line on how far it is: phase and for how long, what it is at, runs, epochs, and what is left."""
        progress = self._progress
        detail = progress.detail()
        parts = [f"{self._describe_phase()}, {self._describe_since()}{f': {detail}' if detail else ''}"]
        if progress.num_runs:
            parts += [self._count_runs(), *self._count_epochs()]  # empty ones are left out below
        parts += [self._describe_left("{} left")] if progress.phase else []
        silent = [text for text in map(self._describe_silence, progress.running.values()) if text]
        return "; ".join(filter(None, [*parts, *silent[:1]]))

    def _describe_silence(self, known: "TaskProgress") -> str:
        silent_s = self._progress.silent_s(known, self._clock())
        return "" if silent_s is None else f"no word for {describe_duration(silent_s)}"

    def _count_runs(self) -> str:
        state = self._progress
        if state.phase == Phase.TEACHER and not state.num_training and state.running:
            waiting = state.num_runs - state.num_done - state.num_failed
            return f"{describe_waiting(waiting)} for it" if waiting else ""
        parts = [f"{state.num_done}/{state.num_runs} runs done"] if state.num_runs else []
        parts += [f"{state.num_training} training"] if state.num_training else []
        parts += [f"{state.num_failed} failed"] if state.num_failed else []
        parts += [f"{state.num_diverged} diverged"] if state.num_diverged else []
        return ", ".join(parts)

    def _count_epochs(self) -> list[str]:
        done, total = self._progress.epochs
        if not done or self._progress.phase == Phase.TEACHER:
            return []
        rate = self._progress.epochs_per_s(self._clock()) if self._progress.running else None
        speed = [f"{rate:.3g} epochs/s"] if rate else []
        return [", ".join([f"{done:,}/{total:,} epochs, {100 * done / total:.0f} %", *speed])]

    def _render(self) -> "RenderableType":
        with self._turn:
            return Group(*self._render_lines())

    def _render_lines(self) -> "list[RenderableType]":
        progress = self._progress
        title = self._console.render_str(self._title, style="bold")
        lines: list[RenderableType] = [_spread(title, Text(describe_duration(self._elapsed_s()), "dim"))]
        left = self._describe_left("{} left")
        at_table = progress.phase == Phase.TABLE
        detail = f"  {100 * (progress.phase_share or 0.0):.0f} %" if at_table else ""
        phase = Text.assemble(self._describe_phase(), (f"  {self._describe_since()}{detail}", "dim"))
        lines.append(_spread(phase, Text(left)))
        share = progress.phase_share
        bar = ProgressBar(pulse=True) if share is None else ProgressBar(total=1.0, completed=share)
        table = Table.grid(expand=True)  # the bar alone does not end its line
        table.add_row(bar)
        lines.append(table)
        waiting = "" if progress.phase == Phase.TEACHER else progress.waiting
        counts = filter(None, [progress.questions, waiting, self._count_runs(), *self._count_epochs()])
        lines += [Text(line, no_wrap=True, overflow="ellipsis") for line in counts]
        return [*lines, *self._render_tasks()]

    def _render_tasks(self) -> "list[RenderableType]":
        """A row for each task that has a process; where it does not fit, its name is shortened, no figure."""
        shown = list(self._progress.running.values())[:_SHOWN_TASKS]
        rows = Table.grid(padding=(0, 2))
        for _ in range(3):
            rows.add_column(no_wrap=True)
        figures = [(each.state, self._describe_silence(each) or each.error) for each in shown]
        taken = sum(max(map(len, column)) for column in zip(*figures, strict=True)) + 8 if figures else 0
        width = max(_LEAST_NAME, self._console.width - taken)
        labels = [self._label_row(each, width) for each in shown]
        for label, figure in zip(labels, figures, strict=True):
            rows.add_row(f"  {label}", *figure)
        hidden = len(self._progress.running) - _SHOWN_TASKS
        more = [Text(f"  and {hidden} more", "dim")] if hidden > 0 else []
        return [rows, *more] if shown else []

    def _label_row(self, known: "TaskProgress", width: int) -> str:
        task = known.task
        if task is None:
            return ""
        if not task.seeds:
            return shorten_names([self._label(task)], width)[self._label(task)]
        seeds = f", {_abbreviate_seeds(task.seeds)}"
        name, room = self._names.get(task.cell_id, task.cell_id), max(_LEAST_NAME, width - len(seeds))
        if room not in self._short:
            self._short[room] = shorten_names(list(dict.fromkeys(self._names.values())), room)
        return f"{self._short[room].get(name, name)}{seeds}"


def _spread(left: Text, right: Text) -> Table:
    """A line with something at both of its ends; the left one gives way."""
    line = Table.grid(expand=True, padding=(0, 2, 0, 0))
    line.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    line.add_column(justify="right", no_wrap=True)
    line.add_row(left, right)
    return line


def _abbreviate_seeds(seeds: Sequence[int]) -> str:
    """Seeds in short: `seed 3`, `seeds 0-19`, `7 seeds`."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    in_row = list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"seeds {seeds[0]}-{seeds[-1]}" if in_row else f"{len(seeds)} seeds"


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


def describe_roughly(seconds: float) -> str:
    """Seconds as an estimate is told: in steps of five from a minute on, whole minutes from ten on."""
    step = 1 if seconds < 60 else 5 if seconds < 600 else 60
    return describe_duration(max(1, step * round(seconds / step)))
