"""How fast this machine trains the main job, and how fast hkrun plans ten thousand runs.

Trains the teacher and one run of each cell of `stability` for a few epochs, one after another, with one
thread each as in a sweep, and without Ray. Under a minute on two cores.

    python benchmarks/speed.py                 # make bench
    python benchmarks/speed.py --epochs 20     # steadier numbers
"""

import argparse
import tempfile
import time

from hkrun.config import cell_id, teacher_id
from hkrun.plan import make_plan
from hkrun.spaces import load_sweep
from hkrun.store import open_store

PLANNED_SEEDS = 2_500  # times four cells


def main() -> None:
    """Measures and prints a line each."""
    parser = argparse.ArgumentParser(description="Epochs per second of the main job on this machine.")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each run and of the teacher")
    epochs = parser.parse_args().epochs
    with tempfile.TemporaryDirectory() as folder:
        time_training(folder, epochs)
        time_planning(folder)


def time_training(folder: str, epochs: int) -> None:
    """Prints the epochs per second of the teacher and of a run of each cell, from their records."""
    from hkrun.training import Alone
    from hkrun.trial import Task, run_task

    sweep = load_sweep("stability", epochs=str(epochs), overrides=[f"teacher.epochs={epochs}"])
    settings = {"store": folder, "data_dir": None, "threads": 1, "device": "cpu"}
    first = sweep.cells[0].cell
    tasks = {"teacher": Task(cell=first, cell_id=teacher_id(first), seeds=(), **settings)}
    for named in sweep.cells:
        tasks[named.name] = Task(cell=named.cell, cell_id=cell_id(named.cell), seeds=(0,), **settings)
    store = open_store(folder)
    for name, task in tasks.items():
        (outcome,) = run_task(task, Alone())
        if outcome["status"] != "finished":
            raise SystemExit(f"{name}: {outcome['message']}")
        record = store.record(task.cell_id, 0) if task.seeds else store.teacher(task.cell_id)
        seconds = record.timings.get("epochs", record.timings["total"])
        print(f"{name:20} {record.epochs / seconds:6.1f} epochs/s")


def time_planning(folder: str) -> None:
    """Prints how long a plan of ten thousand runs takes."""
    sweep = load_sweep("stability", seeds=str(PLANNED_SEEDS))
    store = open_store(folder)
    started = time.perf_counter()
    plan = make_plan(sweep, store, slots=2)
    seconds = time.perf_counter() - started
    print(f"{f'plan of {plan.num_runs:,} runs':20} {seconds:6.2f} s")


if __name__ == "__main__":
    main()
