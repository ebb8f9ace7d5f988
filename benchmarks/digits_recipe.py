"""The search behind the digits recipe: which split, teacher and student leave something to distil?

A distillation study needs a teacher that is better than its student trained alone. This script trains
teachers (stage 1) and students alone (`supervised`) on the digits, and prints for each setting the two errors
and their difference with a 95 % interval. It looks at nothing else: no distilled cell is trained, and its
seeds lie outside the 0..19 of the study.

    python benchmarks/digits_recipe.py               # the decisive part of benchmarks/digits_recipe.md
    python benchmarks/digits_recipe.py --sizes 500 --teachers preact-20-w32 --seeds 3 --jobs 1

The seeds of a setting train together, as one pack.
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

FIRST_SEED = 1000
SETTING = ("kind", "network", "size", "batch_size", "epochs")


def train(
    kind: str, network: str, size: int, batch_size: int, epochs: int, *, seeds: Sequence[int]
) -> list[dict[str, object]]:
    """Trains teachers or students alone, one for each seed, with one thread: their test errors in percent."""
    import torch

    from hkrun.config import cell_from_values
    from hkrun.data.digits import split_digits
    from hkrun.data.views import Views
    from hkrun.distill import distill, start_run
    from hkrun.teacher import start_teacher, train_teachers
    from hkrun.training import Images, ResidentEvaluationSet, ResidentTrainingSet, SingleProcess

    torch.set_num_threads(1)
    device = torch.device("cpu")
    stage = "teacher" if kind == "teacher" else "student"
    values = {
        "augment.padding": 1,
        "augment.flip": False,
        f"{stage}.network": network,
        f"{stage}.epochs": epochs,
        f"{stage}.batch_size": batch_size,
    }
    dataset = split_digits(size)
    where = {"context": SingleProcess(), "device": device}
    sets = {
        "images": Images(
            ResidentTrainingSet(dataset, Views(1, False), dtype=torch.float32, device=device),
            ResidentEvaluationSet(
                dataset.test.images, dataset.test.labels, dataset, dtype=torch.float32, device=device
            ),
        ),
        "context": SingleProcess(),
        "on_epoch": lambda _: None,
    }
    started = time.perf_counter()
    if kind == "teacher":
        cells = [cell_from_values({**values, "teacher.seed": seed}) for seed in seeds]
        teachers = [start_teacher(cell, dataset, **where) for cell in cells]
        train_teachers(teachers, **sets)
        histories = [teacher.history for teacher in teachers]
    else:
        cell = cell_from_values({**values, "method": "supervised"})
        runs = [start_run(cell, dataset, seed, **where) for seed in seeds]
        distill(runs, teach={}, **sets)
        histories = [run.history for run in runs]
    return [
        {
            "kind": kind,
            "network": network,
            "size": size,
            "batch_size": batch_size,
            "epochs": epochs,
            "seed": seed,
            "error_pct": history[-1]["error_pct"],
            "seconds": (time.perf_counter() - started) / len(seeds),
        }
        for seed, history in zip(seeds, histories, strict=True)
    ]


def summarise(rows: list[dict[str, object]]) -> None:
    """Prints the errors of every setting, then every teacher against every student on the same split."""
    import numpy as np
    from scipy import stats

    groups: dict[tuple[object, ...], list[float]] = {}
    seconds: dict[tuple[object, ...], list[float]] = {}
    for row in rows:
        key = (row["kind"], row["size"], row["network"], row["batch_size"], row["epochs"])
        groups.setdefault(key, []).append(float(str(row["error_pct"])))
        seconds.setdefault(key, []).append(float(str(row["seconds"])))
    print("| trained | images | network | batch | epochs | n | error % mean (sd) | s per run |")
    print("|---|---|---|---|---|---|---|---|")
    for key, errors in sorted(groups.items(), key=str):
        kind, size, network, batch_size, epochs = key
        sd = np.std(errors, ddof=1) if len(errors) > 1 else float("nan")
        setting = f"{kind} | {size} | {network} | {batch_size} | {epochs} | {len(errors)}"
        print(f"| {setting} | {np.mean(errors):.2f} ({sd:.2f}) | {np.median(seconds[key]):.0f} |")
    print(
        "\n| images | teacher (batch, epochs) | student (batch, epochs) | student - teacher | 95 % interval |"
    )
    print("|---|---|---|---|---|")
    for (a, teacher), (b, student) in itertools.product(sorted(groups.items(), key=str), repeat=2):
        if a[0] != "teacher" or b[0] != "student" or a[1] != b[1] or min(len(teacher), len(student)) < 2:
            continue
        interval = stats.ttest_ind(student, teacher, equal_var=False).confidence_interval(0.95)
        pair = f"{a[1]} | {a[2]} ({a[3]}, {a[4]}) | {b[2]} ({b[3]}, {b[4]})"
        gap = np.mean(student) - np.mean(teacher)
        print(f"| {pair} | {gap:+.2f} | [{interval.low:.2f}, {interval.high:.2f}] |")


def main() -> None:
    """Runs the search; every finished training is kept in --rows and not repeated."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=[300])
    parser.add_argument("--teachers", nargs="*", default=["preact-8-w32"])
    parser.add_argument("--students", nargs="*", default=["preact-8-w4"])
    parser.add_argument("--teacher-epochs", type=int, nargs="*", default=[60, 120])
    parser.add_argument("--student-epochs", type=int, nargs="*", default=[120, 480, 960])
    parser.add_argument("--teacher-batch", type=int, nargs="*", default=[64])
    parser.add_argument("--student-batch", type=int, nargs="*", default=[64])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--rows", default="digits_recipe.jsonl", help="JSON lines, one per finished training")
    options = parser.parse_args()
    settings = [
        (kind, network, size, batch_size, epochs)
        for kind, networks, batches, lengths in (
            ("student", options.students, options.student_batch, options.student_epochs),
            ("teacher", options.teachers, options.teacher_batch, options.teacher_epochs),
        )
        for size, network, batch_size, epochs in itertools.product(options.sizes, networks, batches, lengths)
        if batch_size <= size
    ]
    rows: list[dict[str, object]] = []
    if os.path.exists(options.rows):  # noqa: PTH110
        with open(options.rows) as file:  # noqa: PTH123
            rows = [json.loads(line) for line in file]
    done = {tuple(row[name] for name in (*SETTING, "seed")) for row in rows}
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    missing = {
        setting: left for setting in settings if (left := [s for s in seeds if (*setting, s) not in done])
    }
    with (
        ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool,
        open(options.rows, "a") as file,  # noqa: PTH123
    ):
        futures = [pool.submit(train, *setting, seeds=left) for setting, left in missing.items()]
        for count, future in enumerate(as_completed(futures), 1):
            rows += (found := future.result())
            file.writelines(json.dumps(row) + "\n" for row in found)
            file.flush()
            print(f"\r{count}/{len(futures)}", end="", flush=True)
    print()
    wanted = {(*setting, seed) for setting in settings for seed in seeds}
    summarise([row for row in rows if tuple(row[name] for name in (*SETTING, "seed")) in wanted])


if __name__ == "__main__":
    main()
