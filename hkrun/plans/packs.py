"""How many runs of a cell train together, as one packed network."""

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hkrun.config import Cell, cell_id, teachers_id
from hkrun.datasets import find_dataset
from hkrun.networks import IMAGENET_NETWORKS, SHUFFLING, parse_network
from hkrun.plans.workers import Workers
from hkrun.spaces import Recipe, Sweep
from hkrun.user_parts import is_own

# Time of a seed's step in a pack of so many, in that of a seed alone: the digits recipe's networks; measured
# (2026-11-22, 2 CPU cores), see benchmarks/README.md.
STEPS: Mapping[int, float] = {1: 1.0, 2: 0.62, 4: 0.4, 5: 0.35, 10: 0.25, 20: 0.2}

# What a process takes besides its seeds' activations, and how many maps of its width a block leaves for the
# backward pass. Both round up what preact-20 takes with all terms at 32x32 with batches of 64: 0.91, 1.58,
# 2.13 and 3.42 GB for 1, 4, 8 and 20 seeds; measured (2026-11-22, 2 CPU cores).
PROCESS_BYTES = 1_000_000_000
MAPS_PER_BLOCK = 7
# Maps of the widest stage that an evaluation holds at a time: a block's input, its inner map and its output.
EVALUATION_MAPS = 3


def why_alone(cell: Cell, *, workers: Workers) -> str:
    """Why the runs of a cell cannot be packed; empty where they can."""
    if not workers.of_runs(cell).alone:
        return "several workers train one run"
    if reason := _why_network_alone(cell.student.network):
        return reason
    for name, term in [named for stage in cell.stage_terms for named in stage.items()]:
        if term.random or not term.packs:
            return (
                f"its term {name} {'draws random numbers' if term.random else 'cannot be mapped over runs'}"
            )
    if find_dataset(cell.dataset).streamed:
        return "its images are decoded for each run"
    return ""


def why_teachers_alone(cell: Cell, *, workers: Workers) -> str:
    """Why the teachers of a cell cannot be packed; empty where they can."""
    if not workers.of_teacher(cell).alone:
        return "several workers train one teacher"
    if cell.teacher.backbone == "shared":
        return "backbone and attention sub-network train one after the other"
    if find_dataset(cell.dataset).streamed:
        return "its images are decoded for each teacher"
    return _why_network_alone(cell.teacher.network)


def _why_network_alone(network: str) -> str:
    if is_own(network):
        return f"what {network} does to its channels is not known"
    if network in IMAGENET_NETWORKS:
        return f"{network} is torchvision's"
    if network in SHUFFLING:
        return f"{network} shuffles its channels"
    return ""


def seed_bytes(cell: Cell, *, side: int, evaluation_batch: int) -> int:
    """What each seed of a pack adds to the memory of its process, estimated; rather too much.

    `side` is the height and width of its images; the test evaluates `evaluation_batch` images at a time.
    """
    shape = parse_network(cell.student.network)
    # Stages halve the sides of their maps.
    maps = [width * math.ceil(side / (1 << stage)) ** 2 for stage, width in enumerate(shape.widths)]
    training = sum(MAPS_PER_BLOCK * blocks * size for blocks, size in zip(shape.blocks, maps, strict=True))
    numbers = max(training * cell.student.batch_size, EVALUATION_MAPS * max(maps) * evaluation_batch)
    return numbers * (8 if cell.precision == "float64" else 4)


@dataclass(frozen=True, kw_only=True)
class PackingFacts:
    """What decides how many runs train together.

    Attributes:
        workers: How many processes train one run together.
        slots: How many packs can run at the same time.
        device: "cpu" or "cuda".
        wanted: A size for all cells that can be packed.
        steps: By cell_id, of cells that were measured here: the sizes to choose from, among them 1, and a
            seed's step in a pack of each, in units of a seed's step alone. They come before what is kept.
        limits: By cell_id, the largest size that memory allows where the recipe decides; none without one.
        kept: By cell_id, of the sweep as it was started before.
    """

    workers: Workers
    slots: int
    device: str
    wanted: int | None = None
    steps: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)


def choose_sizes(sweep: Sweep, facts: PackingFacts) -> dict[str, int]:
    """Decides how many runs of each cell train together, by cell_id.

    Without a wish, a sweep that was started keeps its packs. A new one takes those with which it ends first:
    larger packs do less work, but too large ones leave slots idle. How steps get shorter is what the recipe
    has measured for its networks on such a device; nothing measured now decides it, so the same command on
    the same machine always trains the same packs.
    """
    cells = {cell_id(named.cell, world_size=facts.workers.world_size): named.cell for named in sweep.cells}
    num_seeds = len(sweep.seeds)
    sizes: dict[str, int] = {}
    open_steps: dict[str, Mapping[int, float]] = {}
    for identity, cell in cells.items():
        if why_alone(cell, workers=facts.workers):
            sizes[identity] = 1
        elif facts.wanted is not None:
            sizes[identity] = min(facts.wanted, num_seeds)
        elif identity in facts.steps:
            open_steps[identity] = facts.steps[identity]
        elif identity in facts.kept:
            sizes[identity] = facts.kept[identity]
        else:
            most = _measured_size(cell, sweep.recipe, facts.device)
            open_steps[identity] = _expect_steps(min(most, facts.limits.get(identity, most)), num_seeds)
    candidates = _cap_sizes(open_steps, num_seeds)
    choices = [{identity: {**sizes, **capped}[identity] for identity in cells} for capped in candidates]
    return min(choices, key=lambda choice: _end(choice, open_steps, num_seeds, facts.slots))


def choose_teacher_sizes(sweep: Sweep, facts: PackingFacts) -> dict[str, int]:
    """Decides how many teachers train together, by their group, of cells that have several.

    As for runs: as wished, as begun, else as the recipe has measured for its own network, where that leaves
    no slot idle.
    """
    sizes: dict[str, int] = {}
    for cell in (named.cell for named in sweep.cells if named.cell.has_teachers):
        group = teachers_id(cell)
        number = count_teachers(cell, sweep.seeds)
        if why_teachers_alone(cell, workers=facts.workers):
            sizes[group] = 1
        elif facts.wanted is not None:
            sizes[group] = min(facts.wanted, number)
        elif group in facts.kept:
            sizes[group] = facts.kept[group]
        else:
            most = _measured_size(cell, sweep.recipe, facts.device, stage="teacher")
            most = min(most, facts.limits.get(group, most), math.ceil(number / facts.slots))
            sizes[group] = max(1, most)
    return sizes


def count_teachers(cell: Cell, seeds: Sequence[int]) -> int:
    """How many teachers the runs of these seeds have."""
    return len({cell.with_teacher_of(seed).teacher.seed for seed in seeds})


def _measured_size(cell: Cell, recipe: Recipe, device: str, *, stage: str = "student") -> int:
    name = f"pack_{device}" if stage == "student" else f"teacher_pack_{device}"
    size = recipe.evidence.get(name, {}).get("value")
    network, measured = getattr(cell, stage).network, getattr(recipe.cell, stage).network
    if not isinstance(size, int) or not _is_as_small(network, measured):
        return 1
    return max(1, size)


def _is_as_small(network: str, measured: str) -> bool:
    """Whether a network is the measured one, or one of its kind with no stage wider or deeper.

    A pack pays where a network is too small to fill the machine: what is measured holds for smaller ones.
    """
    if network == measured:
        return True
    if is_own(network) or is_own(measured):
        return False
    shape, bound = parse_network(network), parse_network(measured)
    return (
        shape.block == bound.block
        and len(shape.widths) == len(bound.widths)
        and all(own <= most for own, most in zip(shape.widths, bound.widths, strict=True))
        and all(own <= most for own, most in zip(shape.blocks, bound.blocks, strict=True))
    )


def _expect_steps(most: int, num_seeds: int) -> dict[int, float]:
    """A seed's step by size, of those sizes that divide the seeds most evenly into so many packs."""
    sizes = {math.ceil(num_seeds / number) for number in range(1, num_seeds + 1)}
    return {size: _duration(size, STEPS) / size for size in sorted(sizes) if size <= most}


def _cap_sizes(steps: Mapping[str, Mapping[int, float]], num_seeds: int) -> list[dict[str, int]]:
    """The largest sizes up to each bound; rising, so that of equally good ones the smallest are taken."""
    bounds = sorted({size for own in steps.values() for size in own if size <= num_seeds} | {1})
    return [
        {identity: max(size for size in own if size <= bound) for identity, own in steps.items()}
        for bound in bounds
    ]


def _end(
    sizes: Mapping[str, int], steps: Mapping[str, Mapping[int, float]], num_seeds: int, slots: int
) -> float:
    """When the last pack of a sweep ends, each begun in turn by the slot that is free first.

    The unit is a run alone, whichever its cell. Nothing is known to be faster but what has `steps`.
    """
    packs: list[tuple[int, float]] = []
    for identity, size in sizes.items():
        own = steps.get(identity, {1: 1.0})
        whole, rest = divmod(num_seeds, size)
        packs += [(first, _duration(size, own)) for first in range(0, whole * size, size)]
        packs += [(whole * size, _duration(rest, own))] if rest else []
    free = [0.0] * slots
    for _, duration in sorted(packs, key=lambda pack: pack[0]):
        heapq.heapreplace(free, free[0] + duration)
    return round(max(free), 9)  # what is equal but for rounding is equal


def _duration(size: int, steps: Mapping[int, float]) -> float:
    """How long a pack takes, in units of a run alone; linear between the sizes that have a figure."""
    points: Sequence[tuple[int, float]] = [(known, known * steps[known]) for known in sorted(steps)]
    for (low, shorter), (high, longer) in itertools.pairwise(points):
        if size <= high:
            return shorter + (longer - shorter) * (size - low) / (high - low)
    return points[-1][1] * size / points[-1][0]
