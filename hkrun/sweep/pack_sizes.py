"""How many runs of each cell train together on this machine: as asked, as begun, as measured."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from hkrun.config import Cell, teachers_id
from hkrun.datasets import find_dataset
from hkrun.digests import short_digest
from hkrun.networks import EVALUATION_BATCH
from hkrun.plans import (
    PackingFacts,
    choose_sizes,
    choose_teacher_sizes,
    kept_sizes,
    why_alone,
    why_teachers_alone,
)
from hkrun.plans.packs import PROCESS_BYTES, count_teachers, seed_bytes
from hkrun.processor import processor_name
from hkrun.store import DamagedError, NotCommittedError, Store
from hkrun.sweep.machine import THREADS, Machine
from hkrun.sweep.study import Study

AUTO = "auto"
FIGURES_FILE = "packs.json"
SIZES = (1, 2, 4, 5, 8, 10, 16, 20, 32, 40)
# A larger pack that is hardly faster is not worth its memory, and the runs that wait for one another.
LEAST_GAIN = 0.03


def measure_sizes(study: Study) -> None:
    """Measures what has no figures on this machine, where that is possible, and stores them."""
    machine, store = study.on, study.opened
    if not _can_measure(machine):
        return
    described = _describe_machine(machine)
    folder = _machine_folder(described)
    measured = _read_shapes(store, described)
    for cell in _packable(study).values():
        shape = _describe_shape(cell)
        if _digest(shape) in measured:
            continue
        figures = _time_sizes(cell, study)
        if not figures:  # the process that measures was ended before the first
            continue
        measured[_digest(shape)] = {"shape": shape, "ms_per_step_of_a_seed": figures}
        document = {"machine": described, "shapes": measured}
        store.commit(
            folder, {FIGURES_FILE: json.dumps(document, indent=1).encode()}, keep=store.names(folder)
        )


def expect_sizes(study: Study) -> tuple[dict[str, int], list[str]]:
    """How many runs of each cell train together, as asked, as begun or as measured before.

    Returns:
        Sizes by cell_id, of several teachers by their group; and what to tell of them, a line each: what is
        not packed although that was asked for, and whether there is something to measure.
    """
    machine, store, pack = study.on, study.store, study.options.pack
    notes = _explain_alone(study) if pack not in (None, 1) else []
    steps = {}
    if pack == AUTO and not _can_measure(machine):
        notes.append(
            "--pack auto measures where it was called, and there is no GPU here: the recipe decides how many "
            "train together"
        )
    elif pack == AUTO:
        cells, num_cells = _packable(study), len(study.plan.distinct_cells)
        steps = _read_steps(cells, machine, store) if store is not None else {}
        if missing := cells.keys() - steps.keys():
            notes.append(
                f"--pack auto has no figures of this machine yet for {len(missing)} of {num_cells} "
                "configurations: it measures when the sweep starts, and may change how many train together"
            )
    facts = PackingFacts(
        workers=study.options.workers,
        slots=machine.slots,
        device=machine.device,
        wanted=pack if isinstance(pack, int) else None,
        steps=steps,
        limits=_limit_sizes(study),
        kept=kept_sizes(store, study.sweep) if store is not None else {},
    )
    return choose_sizes(study.sweep, facts) | choose_teacher_sizes(study.sweep, facts), notes


def check_packs(study: Study, side: int) -> None:
    """Checks that packs of a size that the user wants fit into the memory of every node, by estimate.

    `side` is the height and width of the images.

    Raises:
        ResourceError: They do not fit.
    """
    from hkrun.cluster.nodes.resources import check_pack

    machine, pack = study.on, study.options.pack
    share = machine.find_share()
    if not isinstance(pack, int) or share is None:
        return
    needs: list[tuple[int, int, str]] = []  # how many together, bytes of each, and of what
    for planned in study.plan.cells:
        name, cell = planned.name, planned.cell
        if cell.has_teachers and not why_teachers_alone(cell, workers=study.options.workers):
            size = min(pack, count_teachers(cell, study.sweep.seeds))
            needs.append((size, _seed_bytes(_as_student(cell), side, machine), f"the teacher of {name}"))
        if not why_alone(cell, workers=study.options.workers):
            needs.append((min(pack, len(study.sweep.seeds)), _seed_bytes(cell, side, machine), name))
    packs = [need for need in needs if need[0] > 1]
    if packs:
        size, each, name = max(packs, key=lambda need: need[0] * need[1])
        check_pack(size, name, share, process_bytes=PROCESS_BYTES, seed_bytes=each)


def compare_steps(milliseconds: Mapping[int, float]) -> dict[int, float]:
    """A seed's step in packs of rising size, in units of a seed's step alone; only of sizes that pay.

    A size that is not at least `LEAST_GAIN` faster than each smaller one is left out. Where there is no
    figure for one seed, nothing else counts.
    """
    if 1 not in milliseconds:
        return {1: 1.0}
    steps: dict[int, float] = {1: 1.0}
    for size in sorted(milliseconds):
        step = milliseconds[size] / milliseconds[1]
        if step < min(steps.values()) * (1 - LEAST_GAIN):
            steps[size] = step
    return steps


def _packable(study: Study) -> dict[str, Cell]:
    """The cells whose runs can train together, by cell_id."""
    return {
        planned.cell_id: planned.cell
        for planned in study.plan.distinct_cells
        if not why_alone(planned.cell, workers=study.options.workers)
    }


def _explain_alone(study: Study) -> list[str]:
    names: dict[str, list[str]] = {}
    for planned in study.plan.cells:
        if reason := why_alone(planned.cell, workers=study.options.workers):
            names.setdefault(reason, []).append(planned.name)
    teachers = {
        reason: planned.name
        for planned in study.plan.cells
        if planned.cell.has_teachers
        and (reason := why_teachers_alone(planned.cell, workers=study.options.workers))
    }
    alone_teachers = [
        f"Each teacher trains alone: those of {name} ({reason})" for reason, name in teachers.items()
    ]
    return alone_teachers + [
        f"Each run trains alone: {', '.join(alone[:3])}{f' and {len(alone) - 3} more' * (len(alone) > 3)} "
        f"({reason})"
        for reason, alone in names.items()
    ]


def _limit_sizes(study: Study) -> dict[str, int]:
    """The largest sizes that memory allows by estimate, by cell_id, of cells of which one can tell."""
    from hkrun.cluster.nodes.resources import largest_pack

    machine, side, share = study.on, find_dataset(study.sweep.dataset).side, study.on.find_share()
    if side is None or share is None:
        return {}
    cells = _packable(study)
    cells |= {
        teachers_id(planned.cell): _as_student(planned.cell)
        for planned in study.plan.distinct_cells
        if planned.cell.has_teachers and not why_teachers_alone(planned.cell, workers=study.options.workers)
    }
    return {
        identity: largest_pack(
            share.memory_bytes, process_bytes=PROCESS_BYTES, seed_bytes=_seed_bytes(cell, side, machine)
        )
        for identity, cell in cells.items()
    }


def _as_student(cell: Cell) -> Cell:
    """A cell whose student has the size of its teacher."""
    teacher = cell.teacher
    student = dataclasses.replace(cell.student, network=teacher.network, batch_size=teacher.batch_size)
    return dataclasses.replace(cell, student=student)


def _seed_bytes(cell: Cell, side: int, machine: Machine) -> int:
    return seed_bytes(cell, side=side, evaluation_batch=EVALUATION_BATCH[machine.device])


def _time_sizes(cell: Cell, study: Study) -> dict[str, float]:
    from hkrun.data import load_dataset
    from hkrun.trial.pack_speed import Measurement, measure_packs

    dataset = load_dataset(cell.dataset, data_dir=study.options.data_dir)
    measurement = Measurement(
        cell=cell,
        num_classes=dataset.num_classes,
        image_shape=dataset.image_shape(cell.augment.size),
        threads=THREADS,
        device=study.on.device,
    )
    figures = measure_packs(measurement, SIZES, memory_bytes=_host_share_bytes(study.on))
    return {str(size): round(figure, 3) for size, figure in figures.items()}


def _can_measure(machine: Machine) -> bool:
    """Whether this process has a device such as its tasks will have."""
    if machine.device == "cpu":
        return True
    import torch

    return torch.cuda.is_available()


def _host_share_bytes(machine: Machine) -> int:
    """The memory of this machine for each of the processes that share it."""
    from hkrun.cluster.nodes.resources import local_node

    node = local_node(gpus=False)
    return node.memory_bytes // min(machine.slots, node.cpus)  # a cluster's other slots are elsewhere


def _read_steps(cells: Mapping[str, Cell], machine: Machine, store: Store) -> dict[str, dict[int, float]]:
    """What was measured on such a machine, by cell_id; see `compare_steps`."""
    known = _read_shapes(store, _describe_machine(machine))
    shapes = {identity: _digest(_describe_shape(cell)) for identity, cell in cells.items()}
    return {
        identity: compare_steps(
            {int(size): float(figure) for size, figure in known[shape]["ms_per_step_of_a_seed"].items()}
        )
        for identity, shape in shapes.items()
        if shape in known
    }


def _read_shapes(store: Store, machine: Mapping[str, object]) -> dict[str, Any]:
    with contextlib.suppress(DamagedError, NotCommittedError, ValueError, KeyError):
        return dict(json.loads(store.read(_machine_folder(machine), FIGURES_FILE))["shapes"])
    return {}


def _machine_folder(machine: Mapping[str, object]) -> str:
    return f"machines/{_digest(machine)}"


def _describe_machine(machine: Machine) -> dict[str, object]:
    """What a measurement depends on besides the cell; the slots share the memory."""
    import torch

    return {
        "device": torch.cuda.get_device_name() if machine.device == "cuda" else "cpu",
        "processor": processor_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "threads": THREADS,
        "slots": machine.slots,
        "torch": torch.__version__,
    }


def _describe_shape(cell: Cell) -> dict[str, object]:
    """What of a cell decides how long a step takes; neither weights of terms nor rates nor epochs."""
    weighted = [term for stage in cell.declared_method.stages for term in stage.terms]
    weighing = {key for term in weighted for key in (term.weight, term.warmup)}
    weighing -= {key for term in cell.terms for key in term.key_names}
    own = {key: value for key, value in cell.own_values if key not in weighing}
    return {
        "dataset": cell.dataset,
        "method": cell.method,
        "terms": [sorted(stage) for stage in cell.stage_weights],
        "precision": cell.precision,
        "student": cell.student.network,
        "batch_size": cell.student.batch_size,
        "steps": [cell.student.steps, cell.discriminator.steps],
        "attention": dataclasses.asdict(cell.attention),
        "knowledge": dataclasses.asdict(cell.knowledge),
        "teacher_widths": list(cell.teacher_widths) if cell.uses_teacher else [],
        **({"own": [dict(cell.sources), own]} if cell.declared else {}),
    }


def _digest(document: Mapping[str, object]) -> str:
    return short_digest(json.dumps(document, sort_keys=True))
