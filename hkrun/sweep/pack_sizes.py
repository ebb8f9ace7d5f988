"""How many runs of each cell train together on this machine: as asked, as begun, as measured."""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hkrun.config import Cell, cell_id
from hkrun.datasets import find_dataset
from hkrun.networks import EVALUATION_BATCH
from hkrun.plan import Workers, choose_sizes, kept_sizes, why_alone
from hkrun.plan.packs import PROCESS_BYTES, seed_bytes
from hkrun.processor import processor_name
from hkrun.spaces import Sweep
from hkrun.store import DamagedError, NotCommittedError, Store
from hkrun.sweep.machine import THREADS, Machine

AUTO = "auto"
FIGURES_FILE = "packs.json"
SIZES = (1, 2, 4, 5, 8, 10, 16, 20, 32, 40)
# A larger pack that is hardly faster is not worth its memory, and the runs that wait for one another.
LEAST_GAIN = 0.03


def find_sizes(
    sweep: Sweep,
    store: Store,
    *,
    pack: int | str | None,
    workers: Workers,
    machine: Machine,
    data_dir: Path | str | None,
) -> dict[str, int]:
    """How many runs of each cell train together, by cell_id.

    Args:
        sweep: The sweep.
        store: Has the sweep as it was begun, and what was measured on this machine; measurements are kept
            there.
        pack: A size, "auto" for the fastest as measured, or None: see `hkrun.plan.choose_sizes`.
        workers: How many processes train one run together.
        machine: What the packs run on.
        data_dir: Where data sets lie that are not embedded; asked only for a measurement.
    """
    if pack == AUTO and _can_measure(machine):
        _measure(sweep, store, workers=workers, machine=machine, data_dir=data_dir)
    sizes, _ = expect_sizes(sweep, store, pack=pack, workers=workers, machine=machine)
    return sizes


def expect_sizes(
    sweep: Sweep, store: Store | None, *, pack: int | str | None, workers: Workers, machine: Machine
) -> tuple[dict[str, int], tuple[str, ...]]:
    """As `find_sizes` from what is known already: nothing is measured, read of the data set or written.

    Returns:
        Sizes by cell_id; and what to tell of them, a line each: which cells are not packed although that was
        asked for, and whether there is something to measure.
    """
    cells = _distinct(sweep, workers)
    notes = _explain_alone(sweep, workers) if pack not in (None, 1) else []
    steps = {}
    if pack == AUTO and not _can_measure(machine):
        notes.append(
            "--pack auto measures where it was called, and there is no GPU here: the recipe decides how many "
            "train together"
        )
    elif pack == AUTO:
        known = (
            _read_figures(store, _describe_machine(machine.device, machine.slots))
            if store is not None
            else {}
        )
        shapes = {identity: _digest(_describe_shape(cell)) for identity, cell in cells.items()}
        steps = {
            identity: compare_steps({int(size): float(figure) for size, figure in known[shape].items()})
            for identity, shape in shapes.items()
            if shape in known
        }
        packable = {identity for identity, cell in cells.items() if not why_alone(cell, workers=workers)}
        if missing := packable - steps.keys():
            notes.append(
                f"--pack auto has no figures of this machine yet for {len(missing)} of {len(cells)} "
                "configurations: it measures when the sweep starts, and may change how many train together"
            )
    sizes = choose_sizes(
        sweep,
        workers=workers,
        slots=machine.slots,
        device=machine.device,
        wanted=pack if isinstance(pack, int) else None,
        steps=steps,
        limits=_limit_sizes(sweep, workers=workers, machine=machine),
        kept=kept_sizes(store, sweep) if store is not None else {},
    )
    return sizes, tuple(notes)


def check_packs(
    sweep: Sweep,
    *,
    pack: int | str | None,
    workers: Workers,
    machine: Machine,
    side: int | None = None,
) -> None:
    """Checks that packs of a size that the user wants fit into the memory of every node, by estimate.

    Not where it is unknown how large the images are.

    Args:
        sweep: The sweep.
        pack: As `find_sizes`.
        workers: How many processes train one run together.
        machine: What the packs run on.
        side: Height and width of the images, where that was found out.

    Raises:
        ResourceError: They do not fit.
    """
    from hkrun.cluster.nodes.resources import check_pack

    size = min(pack, len(sweep.seeds)) if isinstance(pack, int) else 1
    cells = {named.name: named.cell for named in sweep.cells if not why_alone(named.cell, workers=workers)}
    share = machine.find_share()
    if size == 1 or not cells or share is None:
        return
    known = find_dataset(sweep.dataset).side
    side = side if known is None else known
    if side is None:
        return
    needs = {name: _seed_bytes(cell, side, machine.device) for name, cell in cells.items()}
    largest = max(needs, key=lambda name: needs[name])
    check_pack(
        size,
        largest,
        share_bytes=share[0],
        process_bytes=PROCESS_BYTES,
        seed_bytes=needs[largest],
        slots=share[1],
        place=" on one of the nodes" if len(machine.nodes) > 1 else "",
    )


def compare_steps(milliseconds: Mapping[int, float]) -> dict[int, float]:
    """A seed's step in packs of rising size, in units of a seed's step alone; only of sizes that pay.

    A size that is not at least `LEAST_GAIN` faster than each smaller one is left out.

    Args:
        milliseconds: Per step of a seed, by size; where that has none of 1, nothing else counts.
    """
    if 1 not in milliseconds:
        return {1: 1.0}
    steps: dict[int, float] = {1: 1.0}
    for size in sorted(milliseconds):
        step = milliseconds[size] / milliseconds[1]
        if step < min(steps.values()) * (1 - LEAST_GAIN):
            steps[size] = step
    return steps


def _distinct(sweep: Sweep, workers: Workers) -> dict[str, Cell]:
    return {cell_id(named.cell, world_size=workers.world_size): named.cell for named in sweep.cells}


def _explain_alone(sweep: Sweep, workers: Workers) -> list[str]:
    names: dict[str, list[str]] = {}
    for named in sweep.cells:
        if reason := why_alone(named.cell, workers=workers):
            names.setdefault(reason, []).append(named.name)
    return [
        f"Each run trains alone: {', '.join(alone[:3])}{f' and {len(alone) - 3} more' * (len(alone) > 3)} "
        f"({reason})"
        for reason, alone in names.items()
    ]


def _limit_sizes(sweep: Sweep, *, workers: Workers, machine: Machine) -> dict[str, int]:
    """The largest sizes that memory allows by estimate, by cell_id, of cells of which one can tell."""
    from hkrun.cluster.nodes.resources import largest_pack

    side, share = find_dataset(sweep.dataset).side, machine.find_share()
    if side is None or share is None:
        return {}
    return {
        identity: largest_pack(
            share[0], process_bytes=PROCESS_BYTES, seed_bytes=_seed_bytes(cell, side, machine.device)
        )
        for identity, cell in _distinct(sweep, workers).items()
        if not why_alone(cell, workers=workers)
    }


def _seed_bytes(cell: Cell, side: int, device: str) -> int:
    return seed_bytes(cell, side=side, evaluation_batch=EVALUATION_BATCH[device])


def _measure(
    sweep: Sweep, store: Store, *, workers: Workers, machine: Machine, data_dir: Path | str | None
) -> None:
    """Measures what has no figures on this machine, and stores them after each shape."""
    described = _describe_machine(machine.device, machine.slots)
    folder = _machine_folder(described)
    measured = _read_shapes(store, described)
    for cell in _distinct(sweep, workers).values():
        shape = _describe_shape(cell)
        if why_alone(cell, workers=workers) or _digest(shape) in measured:
            continue
        figures = _time_sizes(cell, machine, data_dir=data_dir)
        if not figures:  # it was ended, by whomever, before the first
            continue
        measured[_digest(shape)] = {"shape": shape, "ms_per_step_of_a_seed": figures}
        document = {"machine": described, "shapes": measured}
        store.commit(
            folder, {FIGURES_FILE: json.dumps(document, indent=1).encode()}, keep=store.names(folder)
        )


def _time_sizes(cell: Cell, machine: Machine, *, data_dir: Path | str | None) -> dict[str, float]:
    from hkrun.data import load_dataset
    from hkrun.trial.pack_speed import measure_packs

    dataset = load_dataset(cell.dataset, data_dir=data_dir)
    figures = measure_packs(
        cell,
        SIZES,
        num_classes=dataset.num_classes,
        image_shape=dataset.image_shape(cell.augment.size),
        threads=THREADS,
        device=machine.device,
        memory_bytes=_host_share_bytes(machine),
    )
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


def _read_figures(store: Store, machine: Mapping[str, object]) -> dict[str, dict[str, float]]:
    """Milliseconds per step of a seed, by size, of each shape that was measured."""
    shapes = _read_shapes(store, machine)
    return {digest: known["ms_per_step_of_a_seed"] for digest, known in shapes.items()}


def _read_shapes(store: Store, machine: Mapping[str, object]) -> dict[str, Any]:
    with contextlib.suppress(DamagedError, NotCommittedError, ValueError, KeyError):
        return dict(json.loads(store.read(_machine_folder(machine), FIGURES_FILE))["shapes"])
    return {}


def _machine_folder(machine: Mapping[str, object]) -> str:
    return f"machines/{_digest(machine)}"


def _describe_machine(device: str, slots: int) -> dict[str, object]:
    """What a measurement depends on besides the cell; `slots` share the memory."""
    import torch

    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "processor": processor_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "threads": THREADS,
        "slots": slots,
        "torch": torch.__version__,
    }


def _describe_shape(cell: Cell) -> dict[str, object]:
    """What of a cell decides how long a step takes; neither weights of terms nor rates nor epochs."""
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
    }


def _digest(document: Mapping[str, object]) -> str:
    text = json.dumps(document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
