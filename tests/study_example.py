"""Plans and studies as a sweep makes them, on a machine that a test describes."""

from typing import Any

from hkrun.plans import Plan, make_plan
from hkrun.spaces import Sweep
from hkrun.stopwatch import Stopwatch
from hkrun.store import Store
from hkrun.sweep import Options, Study, make_ready, plan_study, resolve, run_study
from hkrun.sweep.machine import Machine


def plan_on(
    sweep: Sweep,
    store: Store | None,
    *,
    slots: int = 1,
    group_slots: int | None = None,
    sizes: dict[str, int] | None = None,
    **given: Any,
) -> Plan:
    """A plan with packs of these sizes, on a machine of so many slots."""
    plan = make_plan(sweep, store, **given)
    return plan.in_packs(sizes or {}, slots=slots, group_slots=slots if group_slots is None else group_slots)


def make_study(
    sweep: Sweep, store: Store | None, /, *, machine: Machine | None = None, **asked: Any
) -> Study:
    """A study as it was planned, before its runs are packed."""
    options = Options(**{"store": store.uri if store is not None else "", **asked})
    plan = make_plan(sweep, store, workers=options.workers, shortcuts=options.shortcuts)
    return Study(sweep=sweep, options=options, store=store, plan=plan, machine=machine)


def run(
    sweep: Sweep, store: Store, observer: Any, *, stopwatch: Stopwatch | None = None, **asked: Any
) -> Any:
    """Runs a sweep from its plan to its report, as the command does once the store is there."""
    study = resolve(plan_study(sweep, store, Options(store=store.uri, **asked)))
    return run_study(make_ready(study), observer, stopwatch)
