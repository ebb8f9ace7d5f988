"""How many runs of a cell train together, as one packed network."""

import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hkrun.config import Cell, cell_id, teachers_id
from hkrun.datasets import find_dataset
from hkrun.networks import IMAGENET_NETWORKS, SHUFFLING, parse_network
from hkrun.plans.teacher_tables import has_table
from hkrun.plans.workers import Workers
from hkrun.spaces import Recipe, Sweep
from hkrun.user_parts import is_own

# Time of a seed's step in a pack of so many, in that of a seed alone, where a recipe has no figures of it:
# the digits recipe's networks; measured (2026-11-22, 2 CPU cores), see benchmarks/README.md.
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
    larger packs do less work, but too large ones leave slots idle, and those of cells whose runs are longer
    are cut smaller where the others would be waiting for them. How steps get shorter is what the recipe has
    measured for its networks on such a device; nothing measured now decides it, so the same command on the
    same machine always trains the same packs.
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
            most = min(most, facts.limits.get(identity, most))
            open_steps[identity] = _expect_steps(most, num_seeds, _measured_steps(sweep.recipe, facts.device))
    lengths = {identity: expect_length(cell, sweep.recipe) for identity, cell in cells.items()}
    end = _Ends(open_steps, lengths, num_seeds, facts.slots)
    candidates = _cap_sizes(open_steps, num_seeds)
    choices = [{identity: {**sizes, **capped}[identity] for identity in cells} for capped in candidates]
    return _recut(min(choices, key=end.of), end)


@dataclass(frozen=True)
class Length:
    """How long a run is beside others of its sweep, as far as that is known before any has run.

    The unit is a run of the recipe's student whose teacher answers from a table.

    Attributes:
        own: What the student takes; less for each seed of a pack.
        live: What its teacher takes where it runs at every step, which packs do not shorten.
    """

    own: float = 1.0
    live: float = 0.0

    @property
    def alone(self) -> float:
        """Of a run that trains alone."""
        return self.own + self.live


def expect_length(cell: Cell, recipe: Recipe) -> Length:
    """How long a run of a cell is: by its epochs, and by what the recipe has measured of a live teacher.

    Batches and networks other than the recipe's are not looked at.
    """
    epochs = recipe.cell.student.epochs
    measured = recipe.evidence.get("live_teacher_steps", {}).get("value")
    live = float(measured) if isinstance(measured, int | float) and not has_table(cell) else 0.0
    taught = sum(number for stage, number in enumerate(cell.stage_epochs) if cell.stage_uses_teacher(stage))
    return Length(own=sum(cell.stage_epochs) / epochs, live=live * taught / epochs)


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


def _measured_steps(recipe: Recipe, device: str) -> Mapping[int, float]:
    """Time of a seed's step in a pack of so many, in that of a seed alone, on such a device."""
    measured = recipe.evidence.get(f"pack_steps_{device}", {}).get("value")
    return STEPS if not isinstance(measured, Mapping) else {int(size): measured[size] for size in measured}


def expect_step(size: int, recipe: Recipe) -> float:
    """Time of a seed's step in a pack of so many on CPUs, in that of a seed alone."""
    return _duration(size, _measured_steps(recipe, "cpu")) / size


def _expect_steps(most: int, num_seeds: int, measured: Mapping[int, float]) -> dict[int, float]:
    """A seed's step by size, of those sizes that divide the seeds most evenly into so many packs."""
    sizes = {math.ceil(num_seeds / number) for number in range(1, num_seeds + 1)}
    return {size: _duration(size, measured) / size for size in sorted(sizes) if size <= most}


def _cap_sizes(steps: Mapping[str, Mapping[int, float]], num_seeds: int) -> list[dict[str, int]]:
    """The largest sizes up to each bound; rising, so that of equally good ones the smallest are taken."""
    bounds = sorted({size for own in steps.values() for size in own if size <= num_seeds} | {1})
    return [
        {identity: max(size for size in own if size <= bound) for identity, own in steps.items()}
        for bound in bounds
    ]


@dataclass(frozen=True)
class _Ends:
    """When a sweep ends that is cut into packs of some sizes.

    Attributes:
        steps: Of cells whose size is to be chosen, the sizes that there are and a seed's step in each.
            Nothing else is known to be faster together.
    """

    steps: Mapping[str, Mapping[int, float]]
    lengths: Mapping[str, Length]
    num_seeds: int
    slots: int

    def of(self, sizes: Mapping[str, int]) -> float:
        """When its last pack ends, each begun in turn by the slot that is free first."""
        packs: list[tuple[int, float, float]] = []  # its place, as in `form_packs`, and how long it takes
        for identity, size in sizes.items():
            whole, rest = divmod(self.num_seeds, size)
            before, takes = -self.lengths[identity].alone, self._duration(identity, size)
            packs += [(first, before, takes) for first in range(0, whole * size, size)]
            packs += [(whole * size, before, self._duration(identity, rest))] if rest else []
        free = [0.0] * self.slots
        for _, _, duration in sorted(packs, key=lambda pack: pack[:2]):
            heapq.heapreplace(free, free[0] + duration)
        return round(max(free), 9)  # what is equal but for rounding is equal

    def _duration(self, identity: str, size: int) -> float:
        length = self.lengths[identity]
        return length.own * _duration(size, self.steps.get(identity, {1: 1.0})) + length.live * size

    def alike(self) -> list[list[str]]:
        """The cells whose size is to be chosen, those together that take equally long, the longest first."""
        groups: dict[tuple[Length, tuple[tuple[int, float], ...]], list[str]] = {}
        for identity, own in self.steps.items():
            groups.setdefault((self.lengths[identity], tuple(own.items())), []).append(identity)
        return sorted(groups.values(), key=lambda group: -self.lengths[group[0]].alone)


def _recut(sizes: dict[str, int], ends: _Ends) -> dict[str, int]:
    """The same, with other sizes for cells that are alike as long as the sweep ends sooner by them."""
    groups, end, before = ends.alike(), ends.of(sizes), math.inf
    while len(groups) > 1 and end < before:
        before = end
        for group in groups:
            for size in ends.steps[group[0]]:
                cut = {**sizes, **dict.fromkeys(group, min(size, ends.num_seeds))}
                if ends.of(cut) < end:
                    sizes, end = cut, ends.of(cut)
    return sizes


def _duration(size: int, steps: Mapping[int, float]) -> float:
    """How long a pack takes, in units of a run alone; linear between the sizes that have a figure."""
    points: Sequence[tuple[int, float]] = [(known, known * steps[known]) for known in sorted(steps)]
    for (low, shorter), (high, longer) in itertools.pairwise(points):
        if size <= high:
            return shorter + (longer - shorter) * (size - low) / (high - low)
    return points[-1][1] * size / points[-1][0]
