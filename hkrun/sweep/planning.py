"""From a sweep and options to a study: all that is found out and checked before anything starts."""

import dataclasses

from hkrun.code_identity import find_code
from hkrun.datasets import find_dataset
from hkrun.plans import (
    Plan,
    check_elastic,
    find_startup,
    find_teachers,
    kept_sizes,
    list_teachers,
    make_plan,
    reached_epochs,
)
from hkrun.spaces import Sweep
from hkrun.store import Store, open_store
from hkrun.sweep.checks import check_cluster, check_code, check_data, fix_content, foresee_data
from hkrun.sweep.machine import find_machine
from hkrun.sweep.naming import name_study, take_up_rounds
from hkrun.sweep.pack_sizes import AUTO, check_packs, expect_sizes, measure_sizes
from hkrun.sweep.rounds import begin_rounds, check_rounds, tell_change
from hkrun.sweep.study import Options, Study


def plan_study(sweep: Sweep, store: Store | None, options: Options) -> Study:
    """Compares a sweep with the store; on which machine it runs is not known yet.

    Raises:
        InputError: The number of workers may not follow what there is, a name that was asked for is that of
            another study, or `check_rounds`.
        DataError: The data set, whose content is part of every cell, cannot be read.
        StoreError: The store cannot be read.
    """
    check_elastic(options.workers, {named.name: named.cell for named in sweep.cells})
    check_rounds(sweep, options)
    sweep, note = name_study(
        take_up_rounds(fix_content(sweep, options.data_dir), store, options), store, options
    )
    options = dataclasses.replace(options, name=sweep.name)
    plan = _make_plan(sweep, store, options)
    note = ". ".join(filter(None, (note, tell_change(sweep, plan, store))))
    return Study(sweep=sweep, options=options, store=store, plan=plan, note=note)


def _make_plan(sweep: Sweep, store: Store | None, options: Options) -> Plan:
    plan = make_plan(
        sweep,
        store,
        workers=options.workers,
        shortcuts=options.shortcuts,
        other_code=options.other_code,
    )
    if store is None or not plan.packs:
        return plan
    return dataclasses.replace(
        plan,
        reached={
            (cell.cell_id, seed): epoch
            for cell in plan.distinct_cells
            if cell.to_run
            for seed, epoch in reached_epochs(store, cell.cell_id, cell.to_run).items()
        },
        startup=find_startup(store, sweep),
    )


def resolve(study: Study, *, dry: bool = False) -> Study:
    """Fits a study to this machine, or to the cluster that is joined. Nothing is written or fetched.

    Args:
        study: What `plan_study` returned.
        dry: Whether nothing will follow. Then what `check_inputs` refuses is refused here, as far as that
            shows without a download and without the nodes of a cluster.

    Raises:
        ResourceError: A run or a teacher does not fit, or not so many together.
        InputError: MLFLOW_TRACKING_URI cannot be used; in a dry run as `check_data`. But for a dry run, other
            code has trained what the study needs, and the options do not say what becomes of that.
        DataError: In a dry run: the data set is missing or damaged, and is none that is fetched.
    """
    from hkrun.tracking import given_uri

    if not dry:
        check_code(study)
    if dry or study.plan.num_to_run:
        given_uri()  # refuses one that cannot be used
    if not study.plan.num_to_run:  # no need to wait for PyTorch and Ray, who know the machine
        return _place(study)
    study = _find_machine(study)
    side, foreseen = find_dataset(study.sweep.dataset).side, foresee_data(study) if dry else None
    if side := side or foreseen:
        check_packs(study, side)
    return _place(study)


def resolve_teacher(sweep: Sweep, store: Store | None, options: Options) -> Study:
    """A study of the teachers of a sweep's first cell alone that the store lacks; see `plan_study`.

    Raises:
        ResourceError: A teacher does not fit.
        InputError: As `resolve`.
    """
    sweep = fix_content(sweep, options.data_dir)
    cell, span = sweep.cells[0].cell, options.workers.of_teacher
    needed = list_teachers([(cell, seed) for seed in sweep.seeds], sweep.seeds)
    found = find_teachers(needed, needed, store, other_code=options.other_code)
    teachers = tuple(dataclasses.replace(teacher, workers=span(teacher.cell)) for teacher in found.missing)
    plan = Plan(
        sweep=sweep,
        workers=options.workers,
        cells=(),
        packs=(),
        teachers=teachers,
        other_teachers=found.others,
        teachers_beside=found.beside,
    )
    study = Study(sweep=sweep, options=options, store=store, plan=plan)
    check_code(study)
    return _find_machine(study) if teachers else study


def bring_back(study: Study) -> None:
    """Makes the results of this code that are kept beside those of other code the store's own again.

    Raises:
        StoreError: One of them is damaged, or the store cannot be written.
    """
    for identity in study.plan.teachers_beside:
        study.opened.bring_back_teacher(identity, find_code())
    for identity, seed in study.plan.runs_beside:
        study.opened.bring_back_run(identity, seed, find_code())


def check_inputs(study: Study) -> None:
    """Checks what a study reads, before a store is made for it. Data sets are fetched.

    Raises:
        ResourceError: The cluster cannot be joined, a node cannot run hkrun as the others do, or not so many
            runs fit together.
        StoreError: A node cannot use the store.
        DataError: The data set is missing or damaged.
        InputError: As `check_data`.
    """
    check_cluster(study)
    side = check_data(study)
    if side is not None and find_dataset(study.sweep.dataset).side is None:
        check_packs(study, side)


def make_ready(study: Study) -> Study:
    """The study with its inputs checked, and then a store; none is made for a data set that is not there.

    Raises:
        InputError, DataError, ResourceError: See `check_inputs`.
        StoreError: The store cannot be used.
    """
    if study.machine is not None:
        check_inputs(study)
    if study.store is not None:
        return study
    return dataclasses.replace(study, store=open_store(study.options.store, create=True))


def recheck(study: Study) -> Study:
    """The study as the store is under its lock. Packs are measured, and questions looked at, if asked for.

    Raises:
        StoreError: The store cannot be used.
        InputError: Another study got its name meanwhile.
    """
    options = study.options
    name_study(study.sweep, study.store, options)
    plan = _make_plan(study.sweep, study.store, options)
    if plan.describe_beside():
        bring_back(dataclasses.replace(study, plan=plan))
        plan = _make_plan(study.sweep, study.store, options)
    study = dataclasses.replace(study, plan=plan)
    if options.shortcuts.until_decided:
        look = begin_rounds(study)
        plan = _make_plan(study.sweep, study.store, options)
        study = dataclasses.replace(study, plan=plan, look=look)
    if plan.num_to_run and study.machine is None:
        study = _find_machine(study)
    if plan.num_to_run and options.pack == AUTO:
        measure_sizes(study)
    return _place(study)


def _find_machine(study: Study) -> Study:
    machine = find_machine(study.store, per_gpu=study.options.workers.per_gpu)
    study = dataclasses.replace(study, machine=machine)
    machine.check(study.spans)
    return study


def _place(study: Study) -> Study:
    """The study with its runs in packs; where nothing remains, the sizes are those it was begun with."""
    machine, plan = study.machine, study.plan
    if machine is None:
        sizes = {} if study.store is None else kept_sizes(study.store, study.sweep)
        return dataclasses.replace(study, plan=dataclasses.replace(plan, sizes=sizes))
    sizes, notes = ({}, ()) if study.options.shortcuts.select else expect_sizes(study)
    plan = plan.in_packs(sizes, notes, slots=machine.slots, group_slots=machine.group_slots)
    return dataclasses.replace(study, plan=plan)
