"""A plan in words: cells, runs, what is there, what remains, and for how long."""

from collections.abc import Iterator

from rich.console import Console

from hkrun.cli.cell_tables import print_cell_table
from hkrun.cli.display import describe_duration, describe_seeds
from hkrun.plans import Estimate, Plan, PlannedTeacher, describe_power, describe_rounds, describe_tables
from hkrun.spaces import name_cells
from hkrun.sweep import Study

FIGURES = ("runs", "done", "to run", "together", "workers")


def list_cells(plan: Plan) -> dict[str, tuple[str, tuple[str, ...]]]:
    """By the name of each cell its id, and what stands under `FIGURES`."""
    return {
        cell.name: (
            cell.cell_id,
            (
                str(cell.num_runs),
                str(cell.num_done),
                str(len(cell.to_run)),
                str(plan.together(cell.cell_id)) if cell.to_run else "-",
                str(cell.workers),
            ),
        )
        for cell in plan.cells
    }


def print_cells(console: Console, study: Study) -> None:
    """The table of the cells."""
    sweep = study.sweep
    print_cell_table(console, sweep.heading, name_cells(sweep.cells), FIGURES, list_cells(study.plan))


def plan_lines(study: Study) -> Iterator[str]:
    """What there is to say below the cells."""
    plan = study.plan
    tasks = "1 task" if plan.num_trials == 1 else f"{plan.num_trials} tasks"
    at_most = "at most " if plan.rounds and plan.num_to_run else ""
    name = f"Study {study.sweep.name} on {study.sweep.dataset}"
    yield f"{name}: {at_most}{plan.num_to_run} of {plan.num_runs} runs to train, in {tasks}"
    yield from plan.notes
    yield from filter(None, (study.coming_back, study.other_code))
    yield from _describe_teachers(plan)
    yield from describe_tables(plan.tables)
    for warning in study.limits:
        yield warning.sentence
    if study.precision_advice is not None:
        yield study.precision_advice.sentence
    if study.rounds is not None:
        yield from describe_rounds(study.rounds)
    elif study.power is not None:
        yield describe_power(study.power)
    yield _describe_time(study.estimate, plan)


def _describe_time(estimate: Estimate, plan: Plan) -> str:
    """How long it will take, what of that is no training, and how that is known."""
    if estimate.seconds is None:
        return f"Time: unknown ({estimate.basis})"
    if not plan.num_to_run:
        return f"Time: none ({estimate.basis})"
    start = describe_duration(estimate.startup_seconds)
    tables = ", the teacher table" if any(table.mode == "ahead" for table in plan.tables) else ""
    how = "at most about" if plan.rounds else "about"
    return (
        f"Time: {how} {describe_duration(estimate.seconds)} ({estimate.basis})\n"
        f"  {start} of that for Ray's start{tables}, the report and MLflow ({plan.startup.basis})"
    )


def _describe_teachers(plan: Plan) -> list[str]:
    """The teachers to train: a line for all that differ in their seed alone."""
    groups: dict[str, list[PlannedTeacher]] = {}
    for teacher in plan.teachers:
        groups.setdefault(teacher.group, []).append(teacher)
    lines = []
    for found in groups.values():
        first, number = found[0], len(found)
        together = "" if first.workers.alone else f", by {first.workers} workers"
        network = first.cell.teacher.network
        if number == 1:
            lines.append(f"Teacher {first.teacher_id} ({network}) to train first{together}")
        else:
            of_seeds = describe_seeds([teacher.seed for teacher in found])
            when = "each before the runs that learn from it"
            size = plan.sizes.get(first.group, 1)
            together += f", up to {size} together" if size > 1 else ""
            lines.append(f"{number} teachers ({network}, {of_seeds}) to train, {when}{together}")
    return lines
