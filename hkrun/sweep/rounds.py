"""A study whose seeds come in rounds until its questions are decided: what it needs, and what it knows."""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass

from hkrun.counting import count
from hkrun.errors import InputError
from hkrun.plans import Look, Plan, SequentialPlan, expect_questions, load_looks, save_looks
from hkrun.spaces import Sweep, name_cells
from hkrun.store import Store, open_store
from hkrun.sweep.study import Options, Study


def check_rounds(sweep: Sweep, options: Options) -> None:
    """Refuses a study that cannot be run until it is decided.

    Raises:
        InputError: It has nothing to decide, too few seeds, or shortcuts that choose runs by their error.
    """
    if not options.shortcuts.until_decided:
        return
    from hkrun.stats import FIRST_LOOK

    problems = []
    if sweep.reference is None or all(named.name == sweep.reference for named in sweep.cells):
        lack = "names no reference" if sweep.reference is None else "has no cell besides its reference"
        problems.append(f"{sweep.source} {lack}, so there is nothing to decide")
    if (number := len(sweep.seeds)) < FIRST_LOOK:
        problems.append(
            f"{count(number, 'seed')} at most, and {FIRST_LOOK} are the fewest that can decide anything; "
            f"give --max-seeds N from {FIRST_LOOK} on, and no --seeds"
        )
    if options.shortcuts.select:
        problems.append("not with --search or --scheduler, which choose runs by their error")
    if options.other_code == "again":
        problems.append(
            "not with --again: what is decided would be read off the runs to be made anew; make them without "
            "--until first"
        )
    if problems:
        raise InputError("\n".join(f"--until decided: {problem}" for problem in problems))


def tell_change(sweep: Sweep, plan: Plan, store: Store | None) -> str:
    """What rounds of so many seeds change for a study that was looked at before, in a sentence or two.

    Raises:
        StoreError: The store cannot be read.
    """
    if store is None or not plan.rounds:
        return ""
    known, most = load_looks(store, sweep), len(sweep.seeds)
    if known.plan is None:
        seen = max((cell.num_done for cell in plan.cells), default=0)
        if seen < len(plan.rounds[0]):
            return ""
        return (
            f"Rounds are planned after {count(seen, 'seed')} had been seen: p allows for a look after each "
            "of them, not for a choice of the most seeds that depends on them"
        )
    if known.plan.most < most and known.plan.decided:
        ended = ", ".join(
            f"{cell.name} after {known.plan.decided[cell.cell_id]}"
            for cell in plan.distinct_cells
            if cell.cell_id in known.plan.decided
        )
        return (
            f"Ended so far, of at most {count(known.plan.most, 'seed')}: {ended}. With up to {most} planned, "
            "p counts more looks, and an answer that was just reached may be open again"
        )
    return ""


def begin_rounds(study: Study) -> Look | None:
    """Keeps that a study comes in rounds, and looks at it where there is something to look at.

    Raises:
        StoreError: The store cannot be used.
    """
    store, sweep = study.opened, study.sweep
    known = load_looks(store, sweep)
    if known.plan is None or known.plan.most < len(sweep.seeds):
        _keep(store, sweep, {})
    first = len(study.plan.rounds[0])
    ready = [cell.cell_id for cell in study.plan.distinct_cells if cell.num_done >= first]
    return look_again(study) if len(ready) > 1 else None


def look_again(study: Study) -> Look:
    """Looks at what a study has decided by now, and keeps it.

    Raises:
        StoreError: The store cannot be used.
    """
    look = take_look(study.sweep, study.opened, world_size=study.options.workers.world_size)
    keep_look(study, look)
    return look


def keep_look(study: Study, look: Look) -> None:
    """Keeps which cells have ended."""
    _keep(study.opened, study.sweep, look.decided)


def _keep(store: Store, sweep: Sweep, decided: Mapping[str, int]) -> None:
    known = load_looks(store, sweep)
    # Never fewer than before: looks were allowed up to there.
    most = max(len(sweep.seeds), 0 if known.plan is None else known.plan.most)
    plan = SequentialPlan(most=most, decided=decided)
    if plan != known.plan:
        save_looks(store, sweep, dataclasses.replace(known, plan=plan))


def take_look(sweep: Sweep, store: Store, *, world_size: int) -> Look:
    """What the runs of a store say by now of a study's questions."""
    from hkrun.report import describe_open, open_questions, summarise

    summary = summarise(sweep, store, world_size=world_size)
    questions = open_questions(summary)
    return Look(
        needs=tuple(frozenset(question.cells) for question in questions if question.open),
        answers={question.text: question.decided or question.withheld for question in questions},
        seeds={cell.cell_id: len(cell.records) for cell in summary.cells},
        summary=describe_open(questions),
    )


def make_look(study: Study) -> "functools.partial[Look]":
    """The same for another process, which opens the store by itself."""
    return functools.partial(_look_from, study.sweep, study.opened.uri, study.options.workers.world_size)


def _look_from(sweep: Sweep, uri: str, world_size: int) -> Look:
    return take_look(sweep, open_store(uri, create=False), world_size=world_size)


def first_look(study: Study) -> Look:
    """What is known before any of the runs to be made."""
    if study.look is not None:
        return study.look
    cells = study.plan.distinct_cells
    reference = next(cell.cell_id for cell in study.plan.cells if cell.name == study.sweep.reference)
    return expect_questions([cell.cell_id for cell in cells], reference)


@dataclass(frozen=True, kw_only=True)
class RoundsOutcome:
    """What rounds of seeds came to.

    Attributes:
        look: What is known of the questions at last.
        seeds: By the label of each cell, how many seeds have a result.
        spared: How many runs cells that ended did not need.
        runs: How many the study would have had.
    """

    look: Look
    seeds: Mapping[str, int]
    spared: int
    runs: int

    def describe(self) -> str:
        """For people, a line each."""
        seeds = ", ".join(f"{label} {number}" for label, number in self.seeds.items())
        return f"{self.look.summary}\nRuns spared: {self.spared} of {self.runs}; seeds of each cell: {seeds}"

    def document(self) -> dict[str, object]:
        """What `--json` prints."""
        return {
            "questions": self.look.document(),
            "seeds": dict(self.seeds),
            "spared": self.spared,
            "runs": self.runs,
        }


def end_rounds(study: Study) -> RoundsOutcome:
    """Looks at a study once more when its tasks are over, and keeps what has ended.

    Raises:
        StoreError: The store cannot be used.
    """
    look = look_again(study)
    most, labels = len(study.sweep.seeds), name_cells(study.sweep.cells).labels
    cells = study.plan.distinct_cells
    return RoundsOutcome(
        look=look,
        seeds={labels[cell.name]: look.seeds[cell.cell_id] for cell in cells},
        spared=sum(most - number for number in look.decided.values()),
        runs=most * len(cells),
    )
