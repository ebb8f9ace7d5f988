"""What the bookkeeping of many runs costs: plan, resume, report and the MLflow mirror, without training.

Generates stores of finished runs through hkrun.store, as real runs leave them: the four cells of
`stability`, a quarter of the runs each, with records, curves of 600 epochs and students. Then does each job
in a process of its own, and prints its time and the most memory that the process ever held, the libraries
included.

    python benchmarks/bookkeeping.py                        # 100 and 1,000 runs, part of make bench
    python benchmarks/bookkeeping.py --runs 100 1000 10000  # needs 4 GB
    python benchmarks/bookkeeping.py --quick                # a few runs of a few epochs: does it work?

Jobs:
    plan         a plan that wants twice the runs: half of them are there
    resume       which sweeps of the store are not complete (none)
    report       the results and the report's files, written anew
    report again the results, and a look whether the report's files are those of them
    sync         everything into a new SQLite database of MLflow
    sync again   the same once more: nothing is left to write
"""

import argparse
import dataclasses
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hkrun.config import Cell, canonical_json, cell_id, teacher_id
from hkrun.plans import make_plan, save_plan, stored_plans
from hkrun.spaces import Sweep, load_sweep
from hkrun.store import Record, Store, TeacherRecord, open_store

JOBS = ("plan", "resume", "report", "report again", "sync", "sync again")
TEST_IMAGES = 1107  # of digits: errors are whole numbers of images
STUDENT_BYTES = 20_000  # of digits' student; nothing here reads it
TEACHER_HASH = "ab" * 32
STARTED_AT, SECONDS_PER_RUN = 1_760_000_000.0, 10.0


def main() -> None:
    """Generates the stores, measures every job on each, prints the table."""
    parser = argparse.ArgumentParser(description="Bookkeeping of many runs: time and memory.")
    parser.add_argument("--runs", type=int, nargs="+", default=[100, 1_000], help="sizes of the stores")
    parser.add_argument("--epochs", type=int, default=600, help="of each run")
    parser.add_argument("--repeats", type=int, default=3, help="how often each job is done")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS)
    parser.add_argument("--folder", type=Path, help="where the stores are made (default: a temporary folder)")
    parser.add_argument("--quick", action="store_true", help="8 runs of 30 epochs, each job once")
    parser.add_argument("--child", choices=JOBS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.runs, options.epochs, options.repeats = [8], 30, 1
    if options.child:
        print(json.dumps(measure(options.child, options.folder, options.runs[0], options.epochs)))
        return
    print(f"{'runs':>6}  {'job':12}  {'median':>9}  {'from':>8}  {'to':>8}  {'peak memory':>11}   load")
    for runs in options.runs:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            fill_store(open_store(folder), make_sweep(runs, options.epochs))
            for job in options.jobs:
                print_row(
                    job, runs, [start_child(job, folder, runs, options) for _ in range(options.repeats)]
                )


def print_row(job: str, runs: int, found: list[dict[str, float]]) -> None:
    """One line: median, fastest and slowest time, the largest memory of any repetition."""
    seconds = sorted(one["seconds"] for one in found)
    peak = max(one["peak_mb"] for one in found)
    times = f"{statistics.median(seconds):7.2f} s  {seconds[0]:6.2f} s  {seconds[-1]:6.2f} s"
    print(f"{runs:>6,}  {job:12}  {times}  {peak:8.0f} MB   {os.getloadavg()[0]:.1f}", flush=True)


def start_child(job: str, folder: str, runs: int, options: argparse.Namespace) -> dict[str, float]:
    """Does a job in a fresh process."""
    command = [sys.executable, __file__, "--child", job, "--folder", folder]
    command += ["--runs", str(runs), "--epochs", str(options.epochs)]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


# --- the jobs -----------------------------------------------------------------------------------------------


def measure(job: str, folder: Path, runs: int, epochs: int) -> dict[str, float]:
    """Does one job; its libraries are imported before the clock starts."""
    sweep, store = make_sweep(runs, epochs), open_store(folder, create=False)
    if job.startswith("report"):
        import hkrun.report.documents  # noqa: F401
    if job.startswith("sync"):
        from hkrun.tracking.connection import load

        load()
    if job == "report":
        shutil.rmtree(folder / store.sweep_folder(sweep.name, sweep.dataset), ignore_errors=True)
    if job == "sync":
        (folder / "mlflow.db").unlink(missing_ok=True)
        shutil.rmtree(folder / "mlartifacts", ignore_errors=True)
    save_plan(store, sweep)
    started = time.perf_counter()
    do(job, sweep, store)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def do(job: str, sweep: Sweep, store: Store) -> None:
    """Does a job as hkrun's commands do it, and checks that it did what it should."""
    if job == "plan":
        wanted = dataclasses.replace(sweep, seeds=tuple(range(2 * len(sweep.seeds))))
        plan = make_plan(wanted, store)
        assert (plan.num_done, plan.num_to_run) == (count_runs(sweep), count_runs(sweep))
    elif job == "resume":
        plans, problems = stored_plans(store)
        assert plans
        assert not problems
        assert not any(make_plan(plan.sweep, store, workers=plan.workers).num_to_run for plan in plans)
    elif job.startswith("report"):
        from hkrun.report import summarise
        from hkrun.report.documents import renew_report

        summary = summarise(sweep, store)
        assert sum(len(cell.seeds) for cell in summary.cells) == count_runs(sweep)
        assert renew_report(summary, store)
    else:
        from hkrun.tracking import sync

        sync(sweep, store, summaries={}, files={"report.md": b"generated"})


def count_runs(sweep: Sweep) -> int:
    """Runs of a sweep whose cells all differ."""
    return len(sweep.cells) * len(sweep.seeds)


# --- what real runs leave -----------------------------------------------------------------------------------


def make_sweep(runs: int, epochs: int) -> Sweep:
    """`stability` with a quarter of the runs as seeds."""
    sweep = load_sweep("stability", seeds=str(runs // 4), epochs=str(epochs))
    return dataclasses.replace(sweep, window=epochs // 6)  # the paper's last 100 of 600


def fill_store(store: Store, sweep: Sweep) -> None:
    """Puts every run of a sweep and its teacher into a store."""
    cell = sweep.cells[0].cell
    curves = pa.table({"epoch": [1], "error_pct": [2.0]})
    teacher = TeacherRecord(teacher_id=teacher_id(cell), config={}, epochs=60, teacher_hash=TEACHER_HASH,
                            error_pct=2.0, train_error_pct=0.0, **environment(STARTED_AT))  # fmt: skip
    store.put_teacher(teacher, weights=bytes(STUDENT_BYTES), curves=curves)
    for place, named in enumerate(sweep.cells):
        identity = cell_id(named.cell)
        store.put_cell(identity, canonical_json(named.cell))
        for seed in sweep.seeds:
            started_at = STARTED_AT + SECONDS_PER_RUN * (len(sweep.cells) * seed + place)
            put_run(store, named.cell, identity, seed, started_at=started_at)


def put_run(store: Store, cell: Cell, identity: str, seed: int, *, started_at: float) -> None:
    """Puts one finished run with made-up numbers."""
    curves = make_curves(cell, np.random.default_rng([seed, int(identity, 16)]))
    errors = curves["error_pct"].to_pylist()
    record = Record(
        cell_id=identity,
        seed=seed,
        status="finished",
        epochs=len(errors),
        error_last_pct=errors[-1],
        error_best_pct=min(errors),
        teacher_id=teacher_id(cell),
        teacher_hash=TEACHER_HASH,
        pack=(seed,),
        **environment(started_at),
    )
    store.put_run(record, curves=curves, student=bytes(STUDENT_BYTES))


def environment(started_at: float) -> dict[str, Any]:
    """What a record says of when and where."""
    versions = {"python": "3.11.9", "hkrun": "0.1.0", "torch": "2.15.0", "numpy": "2.4.0", "ray": "2.60.0"}
    return {
        "device": "cpu x86_64",
        "threads": 1,
        "started_at": started_at,
        "versions": versions,
        "timings": {"total": SECONDS_PER_RUN, "epochs": SECONDS_PER_RUN - 1},
    }


def make_curves(cell: Cell, generator: np.random.Generator) -> pa.Table:
    """Every column that a run of the cell has: an error that falls and levels off, losses that do too."""
    epochs = cell.student.epochs
    progress = np.arange(1, epochs + 1) / epochs
    wrong = np.rint(TEST_IMAGES * (0.05 + 0.5 * np.exp(-8 * progress)) + generator.normal(0, 4, epochs))
    terms = ["total", *cell.stage_weights[0]]
    names = [f"loss_{term}" for term in terms]
    if "adversarial" in terms:
        names += ["loss_discriminator", "loss_regularizer", "discriminator_accuracy"]
        names += ["discriminator_teacher_mean", "discriminator_student_mean", "discriminator_spread"]
        names += ["adversarial_gradient_ratio"]
    falling = np.exp(-3 * progress)
    return pa.table(
        {
            "epoch": np.arange(1, epochs + 1, dtype=np.int32),
            "error_pct": 100 * wrong.clip(0) / TEST_IMAGES,
            "error_top5_pct": pa.nulls(epochs, pa.float64()),
            **{name: falling * generator.uniform(0.9, 1.1, epochs) for name in names},
            "learning_rate": np.where(progress < 0.4, 0.1, 0.01),
            "seconds": np.full(epochs, 0.015),
        }
    )


if __name__ == "__main__":
    main()
