"""The commands that a report names: what gives the sweep again, and what goes on with it."""

import math
import shlex

from hkrun import stats
from hkrun.plans import Looks
from hkrun.report.answers import find_next_step
from hkrun.report.questions import only_divergence_withholds, open_questions
from hkrun.report.summary import Summary
from hkrun.spaces import Sweep, natural_name
from hkrun.spaces.dicts import DICT

# By so much more than before: about what lets rounds find what all seeds at once find.
_MORE_IN_ROUNDS = 0.4


def describe_command(summary: Summary, *, num_seeds: int | None = None, whole: bool = False) -> str:
    """What gives this sweep again, as it was typed; with so many seeds where a number is given.

    What was a dict has no such command: it is resumed, and gets more seeds from Python. `whole`: with all the
    seeds, where they came in rounds until all was decided.
    """
    sweep = summary.sweep
    in_rounds = summary.monitoring.sequential and not whole
    if sweep.source == DICT:
        asked = f'until="decided", max_seeds={num_seeds}' if in_rounds else f"seeds={num_seeds}"
        return _resume(sweep) if num_seeds is None else f"hkrun.run(space, {asked})"
    seeds = sweep.seeds
    if num_seeds is not None:
        first = max(seeds) + 1
        seeds = (*seeds, *range(first, first + num_seeds - len(seeds)))
    count_only = seeds == tuple(range(len(seeds)))
    # "7," is a list of one seed, "7" a number of seeds.
    chosen = str(len(seeds)) if count_only else ",".join(map(str, seeds))
    if not count_only and len(seeds) == 1:
        chosen += ","
    words = sweep.command or ("hkrun", "sweep", sweep.name)
    named = [] if natural_name(sweep) == sweep.name else ["--name", sweep.name]
    which = ["--seeds", chosen]
    if in_rounds:
        which = ["--until", "decided", "--max-seeds" if count_only else "--seeds", chosen]
    return shlex.join([*words, *named, "--dataset", sweep.dataset, *which])


def describe_next(summary: Summary) -> tuple[str, str]:
    """The command to go on with, and what for."""
    step, sweep = find_next_step(summary), summary.sweep
    if step.seeds is None:
        return _resume(sweep), step.reason
    questions = open_questions(summary)
    if only_divergence_withholds(questions) and sweep.source != DICT:
        reason = (
            "finds weights and learning rates that hold: what is left is withheld for runs that diverged, "
            "and more seeds do not change that (docs/stability-limit.md)"
        )
        return f"{describe_command(summary, whole=True)} --check", reason
    if summary.monitoring.sequential:
        most = len(sweep.seeds)
        if not any(question.open for question in questions):
            command = describe_command(summary, num_seeds=most, whole=True)
            return command, "makes the runs that were spared, for closer intervals; all is decided without"
        more = _more_in_rounds(most)
        command = describe_command(summary, num_seeds=more)
        reason = f"rounds of up to {more} seeds find about what {most} at once do"
        return command, f"{reason}; only what is open goes on, and nothing is repeated"
    return describe_command(summary, num_seeds=step.seeds), step.reason


def describe_price(summary: Summary, looks: Looks) -> str:
    """How often chance shows a difference to who goes on to the next look; empty where there is none.

    Also where earlier looks are not known, and where a study had looks of both kinds.
    """
    now, planned = len(summary.sweep.seeds), looks.plan_of(len(summary.sweep.seeds))
    step = find_next_step(summary)
    if step.seeds is None or looks.lost or now < stats.FIRST_LOOK or (looks.plan and not planned):
        return ""
    if planned is None:
        counts = (*(look for look in looks.ordinary if look < now), now, step.seeds)
        stages = [counts[: number + 1] for number in range(len(counts))]
    elif (looks.ordinary and min(looks.ordinary) < planned.most) or all(
        question.decided for question in open_questions(summary)
    ):
        return ""
    else:
        stages = [stats.plan_looks(most) for most in (planned.most, _more_in_rounds(planned.most))]
    error = 100 * stats.error_of_stages(stages)
    return f"a further look: with it {error:.1f} % of studies without a difference show one at some look"


def _more_in_rounds(most: int) -> int:
    return most + math.ceil(_MORE_IN_ROUNDS * most)


def _resume(sweep: Sweep) -> str:
    return shlex.join(["hkrun", "resume", sweep.name, "--dataset", sweep.dataset])
