"""A study: a sweep, what the user asked for, what it runs on, and what remains of it."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

from hkrun.plans import (
    AUTO,
    NO_SHORTCUTS,
    Estimate,
    LimitWarning,
    Look,
    OtherCode,
    Plan,
    Power,
    PrecisionAdvice,
    RoundsForecast,
    Shortcuts,
    Span,
    Workers,
    advise_precision,
    estimate_time,
    foresee_limits,
    foresee_power,
    foresee_rounds,
    load_rehearsal,
)
from hkrun.processor import multiplies_bfloat16
from hkrun.spaces import Sweep
from hkrun.store import Store
from hkrun.sweep.machine import Machine

# What becomes of results of other code.
_FATES = {
    "ask": "--again makes them anew and keeps the old ones beside the new; --trust takes them as they are",
    "again": "They are made anew; the old ones are kept beside the new",
    "trust": "They are taken as they are",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asks for besides the sweep.

    Attributes:
        store: URI of the store, or its path from the root.
        data_dir: Where data sets lie that are not embedded.
        workers: How many processes train one run together.
        pack: How many runs train together: a number, "auto" for the fastest as measured, or None: as the
            sweep was begun, else as its recipe has measured. With shortcuts, one.
        shortcuts: How to make fewer runs.
        seeds_asked: Whether the sweep's seeds are asked for, and not what its search space says; if not,
            rounds go on with as many as their study has come to.
        fail_fast: Whether the first failed run stops the others.
        name: What the study is called in the store; None for its own name, or the next that is free.
        other_code: What becomes of results of other code: "again" to make them anew, "trust" to use them,
            "ask" to refuse where there are any.
    """

    store: str
    data_dir: Path | str | None = None
    workers: Workers = AUTO
    pack: int | str | None = None
    shortcuts: Shortcuts = NO_SHORTCUTS
    seeds_asked: bool = True
    fail_fast: bool = False
    name: str | None = None
    other_code: OtherCode = "ask"

    @property
    def data_place(self) -> str | None:
        """The place of the data as every process names it: an absolute path, or a URI."""
        return str(self.data_dir.absolute()) if isinstance(self.data_dir, Path) else self.data_dir


@dataclass(frozen=True, kw_only=True)
class Study:
    """A sweep, resolved once; what runs it takes it whole.

    Attributes:
        sweep: What is wanted; the content of its data set is part of every cell.
        options: What the user asks for.
        store: Its records; None where there is no store yet.
        plan: What remains.
        machine: What that runs on; None where nothing remains.
        look: What is known of its questions, where seeds come in rounds and there are some to look at.
        note: Why it does not have its own name, in a sentence; empty where it has.
    """

    sweep: Sweep
    options: Options
    store: Store | None
    plan: Plan
    machine: Machine | None = None
    look: Look | None = None
    note: str = ""

    @functools.cached_property
    def estimate(self) -> Estimate:
        """How long that will take."""
        return estimate_time(self.plan)

    @functools.cached_property
    def power(self) -> Power | None:
        """What its seeds can decide, where that is known."""
        return foresee_power(self.plan)

    @functools.cached_property
    def rounds(self) -> RoundsForecast | None:
        """What rounds of seeds do, where they come in rounds."""
        if not self.options.shortcuts.until_decided:
            return None
        from hkrun.report import load_published  # which takes long to load

        return foresee_rounds(self.plan, self.power, measure=load_published().measure_of(self.sweep))

    @property
    def other_code(self) -> str:
        """What is of other code, and what becomes of it; empty where nothing is."""
        told = self.plan.describe_other_code()
        return f"{told}. {_FATES[self.options.other_code]}" if told else ""

    @property
    def coming_back(self) -> str:
        """What this code had made before other code did, and is used again; empty where nothing is."""
        return self.plan.describe_beside()

    @property
    def limits(self) -> tuple[LimitWarning, ...]:
        """Which cells too large a step will lose, of those with runs to make."""
        cells = [(cell.name, cell.cell_id, cell.cell) for cell in self.plan.cells if cell.to_run]
        found = {
            identity: rehearsal
            for _, identity, _ in cells
            if self.store is not None and (rehearsal := load_rehearsal(self.store, identity)) is not None
        }
        return foresee_limits(cells, self.sweep.recipe, found)

    @property
    def precision_advice(self) -> PrecisionAdvice | None:
        """What bfloat16 would save on the CPUs of this machine; None where they lack its instructions."""
        on = self.machine
        if on is None or on.device != "cpu" or not on.is_this_one or not multiplies_bfloat16():
            return None
        return advise_precision(self.plan)

    @property
    def opened(self) -> Store:
        """The store, which everything but a dry run has made."""
        assert self.store is not None
        return self.store

    @property
    def on(self) -> Machine:
        """The machine, which a study with tasks has."""
        assert self.machine is not None
        return self.machine

    @property
    def spans(self) -> set[Span]:
        """How many processes may train its tasks, each kind once."""
        workers, cells = self.options.workers, [named.cell for named in self.sweep.cells]
        teachers = {workers.of_teacher(cell) for cell in cells if cell.uses_teacher}
        return teachers | {workers.of_runs(planned.cell) for planned in self.plan.cells}

    def document(self) -> dict[str, object]:
        """What `sweep --dry-run --json` prints."""
        estimate = dataclasses.asdict(self.estimate)
        limits = [warning.document() for warning in self.limits]
        power = None if self.power is None else dataclasses.asdict(self.power)
        document = {**self.plan.document(), "estimate": estimate, "limits": limits, "power": power}
        if (advice := self.precision_advice) is not None:
            document["precision"] = advice.document()
        return document if self.rounds is None else {**document, "rounds": self.rounds.document()}
