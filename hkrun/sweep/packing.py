"""How many runs of each cell train together on this machine: as asked, as begun, as measured."""

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hkrun.config import Cell, cell_id
from hkrun.plan import choose_sizes, kept_sizes, why_alone
from hkrun.spaces import Sweep
from hkrun.store import DamagedError, NotCommittedError, Store
from hkrun.sweep.machine import THREADS, find_device

AUTO = "auto"
FIGURES_FILE = "packs.json"
SIZES = (1, 2, 4, 5, 8, 10, 16, 20, 32, 40)
# A larger pack that is hardly faster is not worth its memory, and the runs that wait for one another.
LEAST_GAIN = 0.03


def find_sizes(
    sweep: Sweep,
    store: Store | None,
    *,
    pack: int | str | None,
    workers: int,
    slots: int,
    data_dir: Path | str | None,
) -> dict[str, int]:
    """How many runs of each cell train together, by cell_id.

    Args:
        sweep: The sweep.
        store: Has the sweep as it was begun, and what was measured on this machine; measurements are kept
            there. None where there is none yet.
        pack: A size, "auto" for the fastest as measured, or None: see `hkrun.plan.choose_sizes`.
        workers: Processes that train one run together.
        slots: How many packs can run at the same time.
        data_dir: Where data sets lie that are not embedded; asked only for a measurement.
    """
    device = find_device()
    wanted: Mapping[str, int] | int | None = pack if isinstance(pack, int) else None
    if pack == AUTO:
        wanted = _measure(sweep, store, workers=workers, slots=slots, data_dir=data_dir, device=device)
    kept = kept_sizes(store, sweep) if store is not None else {}
    return choose_sizes(sweep, workers=workers, slots=slots, device=device, wanted=wanted, kept=kept)


def fastest_size(milliseconds: Mapping[int, float], *, most: int) -> int:
    """The size with the shortest step of a seed; of those hardly slower the smallest. 1 without figures.

    Args:
        milliseconds: Per step of a seed, by size.
        most: The largest size that is of use.
    """
    allowed = {size: figure for size, figure in milliseconds.items() if size <= most}
    if not allowed:
        return 1
    enough = min(allowed.values()) * (1 + LEAST_GAIN)
    return min(size for size, figure in allowed.items() if figure <= enough)


def _measure(
    sweep: Sweep,
    store: Store | None,
    *,
    workers: int,
    slots: int,
    data_dir: Path | str | None,
    device: str,
) -> dict[str, int]:
    machine = _describe_machine(device)
    folder = f"machines/{_digest(machine)}"
    known = _read_figures(store, folder) if store is not None else {}
    most = max(1, -(-len(sweep.cells) * len(sweep.seeds) // slots))
    sizes, measured = {}, dict(known)
    for cell in {cell_id(named.cell, world_size=workers): named.cell for named in sweep.cells}.values():
        if why_alone(cell, workers=workers):
            continue
        shape = _describe_shape(cell)
        if _digest(shape) not in measured:
            figures = _time_sizes(cell, sweep, slots=slots, data_dir=data_dir, device=device)
            measured[_digest(shape)] = {"shape": shape, "ms_per_step_of_a_seed": figures}
        figures = measured[_digest(shape)]["ms_per_step_of_a_seed"]
        by_size = {int(size): float(figure) for size, figure in figures.items()}
        sizes[cell_id(cell, world_size=workers)] = fastest_size(by_size, most=min(most, len(sweep.seeds)))
    if store is not None and measured != known:
        document = {"machine": machine, "shapes": measured}
        store.commit(
            folder, {FIGURES_FILE: json.dumps(document, indent=1).encode()}, keep=store.names(folder)
        )
    return sizes


def _time_sizes(
    cell: Cell, sweep: Sweep, *, slots: int, data_dir: Path | str | None, device: str
) -> dict[str, float]:
    from hkrun.cluster.resources import local_node
    from hkrun.data import load_dataset
    from hkrun.trial import measure_packs

    dataset = load_dataset(sweep.dataset, data_dir=data_dir)
    figures = measure_packs(
        cell,
        SIZES,
        num_classes=dataset.num_classes,
        image_shape=dataset.image_shape(cell.augment.size),
        threads=THREADS,
        device=device,
        memory_bytes=local_node(gpus=False).memory_bytes // slots,
    )
    return {str(size): round(figure, 3) for size, figure in figures.items()}


def _read_figures(store: Store, folder: str) -> dict[str, Any]:
    with contextlib.suppress(DamagedError, NotCommittedError, ValueError, KeyError):
        return dict(json.loads(store.read(folder, FIGURES_FILE))["shapes"])
    return {}


def _describe_machine(device: str) -> dict[str, object]:
    """What a measurement depends on besides the cell."""
    import torch

    processor = platform.machine()
    with contextlib.suppress(OSError):
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
        processor = names[0].partition(":")[2].strip() if names else processor
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "processor": processor,
        "cpus": len(os.sched_getaffinity(0)),
        "threads": THREADS,
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
