"""The commands that a report names: what gives the sweep again, and what goes on with it."""

import shlex

from hkrun.report.answers import find_next_step
from hkrun.report.summary import Summary
from hkrun.spaces import Sweep, natural_name
from hkrun.spaces.dicts import DICT


def describe_command(summary: Summary, *, num_seeds: int | None = None) -> str:
    """What gives this sweep again, as it was typed; with so many seeds where a number is given.

    What was a dict has no such command: it is resumed, and gets more seeds from Python.
    """
    sweep = summary.sweep
    if sweep.source == DICT:
        return _resume(sweep) if num_seeds is None else f"hkrun.run(space, seeds={num_seeds})"
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
    return shlex.join([*words, *named, "--dataset", sweep.dataset, "--seeds", chosen])


def describe_next(summary: Summary) -> tuple[str, str]:
    """The command to go on with, and what for."""
    step, sweep = find_next_step(summary), summary.sweep
    if step.seeds is None:
        return _resume(sweep), step.reason
    return describe_command(summary, num_seeds=step.seeds), step.reason


def _resume(sweep: Sweep) -> str:
    return shlex.join(["hkrun", "resume", sweep.name, "--dataset", sweep.dataset])
