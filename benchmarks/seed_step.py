"""Time per seed-step: hkrun against the loop of the field, side by side in one run, and against the floor.

A seed-step is one batch of 64 images through one student in training, on random images in CIFAR's files. All
loops run HKSANC with all its terms in float32, unless told otherwise. Each contender has processes of its
own, which stay; the repetitions go round the contenders, so that what else the machine does hits all alike.
On a CPU, contenders are given all its cores: as one process after another with all threads, or as many
processes of one thread as there are cores. Wall-clock time is divided by the seed-steps of all processes.

    python benchmarks/seed_step.py                   # networks of CIFAR's size; minutes, part of make bench
    python benchmarks/seed_step.py --size digits     # those of the embedded digits
    python benchmarks/seed_step.py --method kd       # plain knowledge distillation, beside torchdistill's
    python benchmarks/seed_step.py --precision bfloat16   # hkrun's part of it; other numbers too
    python benchmarks/seed_step.py --quick           # does it work?

"Filling counted" adds what the teacher's passes for the whole table cost, spread over the seed-steps of
`make stability`'s 80 runs with the paper's 600 epochs (digits: 120). That figure is computed, from measured
times of a pass. The floor is explained in floor.py.

Needs torch, numpy and pyarrow beside hkrun itself.
"""

import argparse
import contextlib
import dataclasses
import os
import platform
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from floor import Machine
from loops import KNOWLEDGE, Contender, Recipe
from reference import SIZES, Size, generate_images

from hkrun.data.views import Views

PACKS = (1, 2, 4, 5, 10, 20)
MOST_ON_CPU = {"cifar": 10, "digits": 20}  # a pack of twenty at 32x32 takes 3 GB in each process
RUNS, EPOCHS = 80, {"cifar": 600, "digits": 120}  # of `stability`: four cells of twenty seeds
NUM_IMAGES = 5_120
OTHERS = ("reference", "torchdistill")  # what hkrun is measured against
MOST_WORKERS = 8  # of the reference's DataLoader


def main() -> None:
    """Sets the contenders up, measures them in turn, prints the tables."""
    parser = argparse.ArgumentParser(description="Time per seed-step, hkrun against the loop of the field.")
    parser.add_argument("--size", choices=SIZES, default="cifar")
    parser.add_argument("--method", choices=KNOWLEDGE, default="hksanc")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--packs", type=int, nargs="+", help="seeds that train together")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one repetition of one contender")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="(default: the GPU where there is one)")
    parser.add_argument("--quick", action="store_true", help="one process each, one step, a pack of 2")
    options = parser.parse_args()
    if options.quick:
        options.packs, options.repeats, options.seconds = [2], 1, 0.0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the processes end too
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    most = MOST_ON_CPU[options.size] if device == "cpu" else max(PACKS)
    packs = options.packs or [seeds for seeds in PACKS if seeds <= most]
    size = dataclasses.replace(SIZES[options.size], method=options.method, precision=options.precision)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as opened:
        generate_images(Path(folder), size, num_images=NUM_IMAGES)
        print(describe_machine(device), flush=True)
        at_once = count_cores() if device == "cpu" and not options.quick else 1
        contenders = []
        for recipe in list_recipes(size, folder, device, packs, at_once=at_once):
            contenders.append(Contender(recipe))
            opened.callback(contenders[-1].close)
        for contender in contenders:
            contender.wait()
        found, machine = measure_in_turn(contenders, repeats=options.repeats, seconds=options.seconds)
        print_times(found, size, EPOCHS[options.size])
        print_floor(contenders, found, machine)


def describe_machine(device: str) -> str:
    """What was measured on, for the table's conditions."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{device} ({name}), {count_cores()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, load before {load}"
    )


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def list_recipes(size: Size, folder: str, device: str, packs: Sequence[int], *, at_once: int) -> list[Recipe]:
    """Everybody who takes part, each with so many processes at once."""
    cores = count_cores()

    def recipe(name: str, loop: str, *, processes: int = at_once, threads: int = 1, **rest: int) -> Recipe:
        return Recipe(
            name=name,
            loop=loop,
            size=size,
            folder=folder,
            device=device,
            processes=processes,
            threads=threads,
            **rest,
        )

    workers = min(MOST_WORKERS, max(1, cores))
    other = "reference" if size.method == "hksanc" else "torchdistill"
    recipes = [
        recipe(f"{other}, one process", other, processes=1, threads=cores, workers=workers),
        recipe("hkrun, live teacher", "live"),
        *(recipe(f"hkrun, table, pack of {seeds}", "table", seeds=seeds) for seeds in packs),
        recipe("teacher's passes, a view", "teacher"),
    ]
    if at_once > 1:
        recipes.insert(1, recipe(f"{other}, {at_once} processes", other, workers=1))
    return recipes


# --- times --------------------------------------------------------------------------------------------------


def measure_in_turn(
    contenders: Sequence[Contender], *, repeats: int, seconds: float
) -> tuple[dict[Recipe, list[float]], Machine]:
    """Seconds per unit of every contender, by repetition; and the most that the machine reached meanwhile.

    Each first goes through its batches once: tables are filled, caches are warm.
    """
    steps = {}
    for contender in contenders:
        contender.measure(1)
        per_step = contender.measure(1) * contender.units * contender.recipe.processes
        steps[contender] = max(1, min(50, round(seconds / per_step)))
        contender.measure(steps[contender])
    found: dict[Recipe, list[float]] = {contender.recipe: [] for contender in contenders}
    reached = []
    for _ in range(repeats):
        for contender in contenders:
            found[contender.recipe].append(contender.measure(steps[contender]))
        reached.append(contenders[-1].machine())
    machine = Machine(
        flops_per_s=max(one.flops_per_s for one in reached),
        bytes_per_s=max(one.bytes_per_s for one in reached),
    )
    return found, machine


def print_times(found: Mapping[Recipe, Sequence[float]], size: Size, epochs: int) -> None:
    """A line per contender: time of a seed-step, and the ratio to the reference's better form."""
    medians = {recipe: statistics.median(times) for recipe, times in found.items()}
    best = min(median for recipe, median in medians.items() if recipe.loop in OTHERS)
    view_s = next(median for recipe, median in medians.items() if recipe.loop == "teacher")
    filling_s = Views(size.padding, size.flip).count * size.batch_size * view_s / (RUNS * epochs)
    print(f"\n{'':28}{'ms per seed-step':>17}{'from':>9}{'to':>9}{'ratio':>8}{'with filling':>14}")
    for recipe, times in found.items():
        line = f"{recipe.name:28}{1e3 * medians[recipe]:17.3f}{1e3 * min(times):9.3f}{1e3 * max(times):9.3f}"
        if recipe.loop != "teacher":
            line += f"{best / medians[recipe]:8.2f}"
        if recipe.loop == "table":
            line += f"{best / (medians[recipe] + filling_s):14.2f}"
        print(line)
    print(f"filling: {1e3 * filling_s:.4f} ms per seed-step, over {RUNS} runs of {epochs} epochs")


# --- the floor ----------------------------------------------------------------------------------------------


def print_floor(
    contenders: Sequence[Contender], found: Mapping[Recipe, Sequence[float]], machine: Machine
) -> None:
    """What this machine reaches, what a seed-step does, and how far its time is from the floor."""
    print(
        f"\nlarge matrix product {machine.flops_per_s / 1e9:.0f} GFLOP/s, "
        f"large copy {machine.bytes_per_s / 1e9:.1f} GB/s, each process while all are at it"
    )
    print(f"{'':28}{'operations':>11}{'GFLOP':>9}{'GB':>8}{'floor ms':>10}{'ms':>10}{'times floor':>13}")
    for contender in contenders:
        recipe = contender.recipe
        if recipe.loop == "teacher" or (recipe.loop in OTHERS and recipe.threads > 1):
            continue  # the machine was asked with one thread
        work = contender.work(machine)
        own_s = statistics.median(found[recipe]) * recipe.processes
        floor_s = work.floor_s / contender.units
        print(
            f"{recipe.name:28}{work.operations:11,}{work.flops / contender.units / 1e9:9.3f}"
            f"{work.bytes / contender.units / 1e9:8.3f}{1e3 * floor_s:10.3f}{1e3 * own_s:10.3f}"
            f"{own_s / floor_s:13.1f}"
        )


if __name__ == "__main__":
    main()
