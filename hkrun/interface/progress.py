"""How far a study is: told to a function of the user's, or shown."""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hkrun.interface.notebook import NotebookDisplay, forgo_widgets, in_notebook
from hkrun.sweep import Phase, Progress

if TYPE_CHECKING:
    from hkrun.plans import Look, Plan
    from hkrun.sweep.task_submission import Observer
    from hkrun.trial import Task

Kind = Literal["note", "phase", "plan", "start", "progress", "end", "look"]

logger = logging.getLogger("hkrun")


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """What a function given as `progress` is called with.

    Attributes:
        kind: "note": a sentence before anything starts, such as which cells too large a step will lose;
            "phase": something else happens from now on; "plan": what is to run is known; "start": runs, or a
            teacher, have got their process; "progress": they are this far; "end": they are over;
            "look": with seeds in rounds, what is known of the study's questions by now.
        phase: What happens, in words.
        total: Runs that the study has; 0 before the plan.
        done: Those with a result; diverged ones have one.
        failed: Those that failed in this call.
        diverged: Those that diverged.
        epochs_done: Epochs of the study's runs that are trained, before this call too.
        epochs_total: Of how many.
        remaining_s: Seconds until the study is over, estimated; None while nothing is known.
        cell: Name of the cell that the event is about; empty for a teacher, and where it is about none.
        seeds: The runs of that cell.
        epoch: Epochs that each of them has completed.
        epochs: Of how many.
        error_pct: Their mean test error after the last one, in percent.
        message: Why runs failed or diverged, a line each; or the note; or what is known of the questions.
    """

    kind: Kind
    phase: str
    total: int
    done: int
    failed: int
    diverged: int
    epochs_done: int
    epochs_total: int
    remaining_s: float | None
    cell: str = ""
    seeds: tuple[int, ...] = ()
    epoch: int | None = None
    epochs: int | None = None
    error_pct: float | None = None
    message: str = ""


Wish = bool | Callable[[ProgressEvent], object]


class CallbackObserver:
    """Tells a function how a study goes. What it raises is logged once; KeyboardInterrupt stops the study."""

    def __init__(self, callback: Callable[[ProgressEvent], object]) -> None:
        self._callback = callback
        self._has_failed = False
        self._names: dict[str, str] = {}
        self._known = Progress()

    def note(self, sentence: str) -> None:
        """What is known before anything starts."""
        self._tell("note", message=sentence)

    def plan_made(self, plan: "Plan", *, slots: int) -> None:
        """What will run."""
        self._names = {cell.cell_id: cell.name for cell in reversed(plan.cells)}
        self._known.plan_made(plan, slots=slots)
        self._tell("plan")

    def entered(self, phase: Phase) -> None:
        """What happens from now on."""
        self._known.enter(phase, now=time.monotonic())
        self._tell("phase")

    def started(self, task: "Task") -> None:
        """A task has got its process."""
        self._known.start(task, now=time.monotonic())
        self._tell("start", task)

    def progressed(self, task: "Task", progress: Mapping[str, object]) -> None:
        """A task is this far."""
        before = self._known.phase
        self._known.advance(task, progress, now=time.monotonic())
        if self._known.phase != before:
            self._tell("phase")
        self._tell("progress", task)

    def ended(self, task: "Task", outcomes: Sequence[Mapping[str, object]]) -> None:
        """A task is over."""
        self._known.end(task, outcomes)
        told = [
            f"seed {outcome['seed']}: {outcome['status']}: {outcome['message']}"
            for outcome in outcomes
            if outcome["status"] != "finished"
        ]
        self._tell("end", task, message="\n".join(told))

    def failed(self, task: "Task", message: str) -> None:
        """A task has no outcome, and why."""
        self._known.fail(task)
        self._tell("end", task, message=message)

    def looked(self, look: "Look") -> None:
        """What is known of the study's questions."""
        self._known.look(look)
        self._tell("look", message=look.summary)

    def _tell(self, kind: Kind, task: "Task | None" = None, *, message: str = "") -> None:
        known = self._known
        epochs_done, epochs_total = known.epochs
        event = ProgressEvent(
            kind=kind,
            phase=str(known.phase or Phase.PLANNING),
            total=known.num_runs,
            done=known.num_done,
            failed=known.num_failed,
            diverged=known.num_diverged,
            epochs_done=epochs_done,
            epochs_total=epochs_total,
            remaining_s=known.remaining_s(time.monotonic()),
            message=message,
        )
        if task is not None:
            event = self._describe(event, task)
        try:
            self._callback(event)
        except Exception as error:
            if not self._has_failed:
                self._has_failed = True
                logger.warning("progress: the function that was given failed: %r; the study goes on", error)

    def _describe(self, event: ProgressEvent, task: "Task") -> ProgressEvent:
        """The event with what it is about."""
        running = self._known.running.get(task.name)
        return dataclasses.replace(
            event,
            cell=self._names.get(task.cell_id, task.cell_id) if task.seeds else "",
            seeds=tuple(task.seeds),
            epoch=running.epoch if running is not None and running.epochs else None,
            epochs=running.epochs if running is not None else None,
            error_pct=running.error_pct if running is not None else None,
        )


def watch(progress: Wish, *, title: str, notes: Sequence[str]) -> "AbstractContextManager[Observer]":
    """What is told of a study, as a context around it: `progress` as `hkrun.run` takes it."""
    if in_notebook():
        forgo_widgets()
    if progress is not True:
        observer = CallbackObserver(progress if callable(progress) else lambda _: None)
        for sentence in notes:
            observer.note(sentence)
        return nullcontext(observer)
    if in_notebook():
        return NotebookDisplay(title=title, notes=notes)
    from hkrun.cli.console import PlainConsole
    from hkrun.cli.display import Display

    console = PlainConsole(stderr=True, soft_wrap=True)
    for sentence in notes:
        console.print(sentence)
    return Display(console, title=title)
