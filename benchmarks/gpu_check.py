"""What a GPU does with hkrun: tests, curves beside the CPU's, time of steps; gpu_check.sh starts it.

A seed-step is one batch through one student, with all terms of HKSANC and a teacher table that is filled
beforehand (with noise: its numbers change no time). Packs of 1 to 64 take it with and without CUDA graphs, in
turn, in float32 and bfloat16, at CIFAR's size and at that of digits. The field's loop is reference.py's: one
seed, a DataLoader, a live teacher. `pack_cuda` of a recipe is the largest pack that is worth its memory by
`hkrun.sweep.pack_sizes.compare_steps`, as for `--pack auto`.

What the time does not suffice for is left out, and the result says so.
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import math
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gpu_report import find_packs, write_report
from loops import Recipe as LoopRecipe
from loops import ReferenceLoop, make_computer, make_rows, make_table, read_dataset
from reference import SIZES, Size, build_teacher, generate_images

from hkrun.data.views import Views
from hkrun.distill import Pack, Replays, Step, choose_recorder, distill, start_run
from hkrun.knowledge import LiveTeacher, TableTeacher
from hkrun.networks import EVALUATION_BATCH
from hkrun.plans.packs import PROCESS_BYTES, seed_bytes
from hkrun.training import (
    STUDENT_DRAWS,
    Averages,
    Batch,
    Images,
    ResidentEvaluationSet,
    ResidentTrainingSet,
    SingleProcess,
)
from hkrun.trial.environment import reproducible

ROOT = Path(__file__).parent.parent
PRECISIONS = ("float32", "bfloat16")
WARM_UP = 5  # steps: on a GPU two are computed, one is recorded, two are replayed
TESTS_S = 240.0
TOLERANCE = 1e-8  # of curves in float64, relative: another order of additions
CURVE_SEEDS, CURVE_EPOCHS = (0, 1, 2), 3
CLOCKS = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "temperature.gpu", "power.draw")
# Networks of toys, for a CPU.
TOY = {"teacher": "preact-8-w6", "student": "preact-8-w4", "batch_size": 8}


class Settings(NamedTuple):
    """How much is measured."""

    device: torch.device
    sizes: Mapping[str, Size]
    packs: Sequence[int]
    num_images: int
    repeats: int
    seconds: float  # of one repetition
    deadline: float  # of `time.monotonic`

    @property
    def is_late(self) -> bool:
        """Whether nothing more is to begin."""
        return time.monotonic() > self.deadline


def main() -> None:
    """Checks, measures, writes; exits with 1 where a test failed or curves differ."""
    parser = argparse.ArgumentParser(description="What a GPU does with hkrun, in under ten minutes.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: networks of toys")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder of the results")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which nothing new begins")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu tries the script without one")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was found is written
    deadline = time.monotonic() + 60 * options.minutes
    on_gpu = options.device == "cuda"
    settings = Settings(
        device=torch.device(options.device),
        sizes=SIZES if on_gpu else {name: dataclasses.replace(SIZES[name], **TOY) for name in SIZES},
        packs=(1, 2, 4, 8, 16, 20, 32, 64) if on_gpu else (1, 2),
        num_images=1_025 if on_gpu else 40,
        repeats=5 if on_gpu else 1,
        seconds=0.2 if on_gpu else 0.0,
        deadline=deadline,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"conditions": describe_conditions(settings.device)}
    try:
        found["tests"] = run_tests(settings.device)
        with reproducible(1):
            found["curves"] = [compare_curves(name, settings) for name in ("hksanc", "kd")]
            with tempfile.TemporaryDirectory() as folder:
                found |= measure(Path(folder), settings)
        if on_gpu:
            found["pack_cuda"] = find_packs(found["steps"])
        found["conditions"]["after"] = read_clocks(settings.device)
    finally:  # also of a check that breaks off
        (options.out / "gpu_check.json").write_text(json.dumps(found, indent=1) + "\n")
        text = "".join(write_report(found))
        (options.out / "gpu_check.md").write_text(text)
        print(f"\n{text}\n{options.out}/gpu_check.md, gpu_check.json")
    sys.exit(not (found["tests"]["passed"] and all(curve["agree"] for curve in found["curves"])))


# --- conditions ---------------------------------------------------------------------------------------------


def describe_conditions(device: torch.device) -> dict[str, Any]:
    """What the figures hold for."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": run(git) or "unknown",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "a CPU, with networks of toys",
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "before": read_clocks(device),
    }


def read_clocks(device: torch.device) -> dict[str, str]:
    """Driver, clocks in MHz, temperature and power, as nvidia-smi has them; empty where there is none."""
    if device.type == "cpu" or shutil.which("nvidia-smi") is None:
        return {}
    asked = ["nvidia-smi", f"--query-gpu={','.join(CLOCKS)}", "--format=csv,noheader,nounits", "--id=0"]
    values = [value.strip() for value in run(asked).split(",")]
    return dict(zip(CLOCKS, values, strict=True)) if len(values) == len(CLOCKS) else {}


def run(command: Sequence[str]) -> str:
    """What a command prints; empty where it fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    return ""


# --- tests and curves ---------------------------------------------------------------------------------------


def run_tests(device: torch.device) -> dict[str, Any]:
    """tests/test_gpu.py by the standard library's unittest, in a process of its own."""
    variables = os.environ | ({"HKRUN_GPU_TESTS": "cpu"} if device.type == "cpu" else {})
    command = [sys.executable, "-m", "unittest", "-v", "test_gpu"]
    print("tests of the GPU (unittest):", flush=True)
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, env=variables, text=True, stderr=subprocess.PIPE, check=False, timeout=TESTS_S
        )
        passed, output = done.returncode == 0, done.stderr
    except subprocess.TimeoutExpired as late:
        told = late.stderr.decode() if isinstance(late.stderr, bytes) else late.stderr or ""
        passed, output = False, f"{told}\nstopped after {TESTS_S:.0f} s"
    print(output, flush=True)
    return {
        "passed": passed,
        "seconds": time.monotonic() - began,
        "lines": [line for line in output.splitlines() if " ... " in line],
        "failures": [] if passed else output.splitlines()[-200:],
    }


def compare_curves(method: str, settings: Settings) -> dict[str, Any]:
    """The curves of a pack in float64 on the device, with a live teacher, beside those of the CPU."""
    size = dataclasses.replace(settings.sizes["digits"], method=method, precision="float64")
    with tempfile.TemporaryDirectory() as folder:
        generate_images(Path(folder), size, num_images=settings.num_images)
        dataset = read_dataset(Path(folder), size)
    cell = dataclasses.replace(
        size.cell, student=dataclasses.replace(size.cell.student, epochs=CURVE_EPOCHS, learning_rate=0.01)
    )

    def train(device: torch.device) -> list[list[dict[str, float | None]]]:
        torch.manual_seed(0)
        teacher = build_teacher(size).to(device, torch.float64)
        runs = [
            start_run(cell, dataset, seed, context=SingleProcess(), device=device) for seed in CURVE_SEEDS
        ]
        views, test, dtype = _views(size), dataset.test, torch.float64
        distill(
            runs,
            images=Images(
                ResidentTrainingSet(dataset, views, dtype=dtype, device=device),
                ResidentEvaluationSet(test.images, test.labels, dataset, dtype=dtype, device=device),
            ),
            teach=dict.fromkeys(CURVE_SEEDS, LiveTeacher(teacher, precision="float64")),
            context=SingleProcess(),
            on_epoch=lambda _: None,
        )
        return [run.history for run in runs]

    there, here = train(settings.device), train(torch.device("cpu"))
    rows = [pair for own, other in zip(there, here, strict=True) for pair in zip(own, other, strict=True)]
    figures = [
        (ours[name] or 0.0, theirs[name] or 0.0)
        for ours, theirs in rows
        for name in ours
        if name != "seconds"
    ]
    largest = max(abs(ours - theirs) / max(abs(ours), abs(theirs), 1.0) for ours, theirs in figures)
    curve = {
        "method": method,
        "seeds": len(CURVE_SEEDS),
        "epochs": CURVE_EPOCHS,
        "largest_difference": largest,
        "agree": largest < TOLERANCE
        and all(ours["error_pct"] == theirs["error_pct"] for ours, theirs in rows),
    }
    print(f"curves in float64 beside the CPU's: {curve}", flush=True)
    return curve


# --- time of steps ------------------------------------------------------------------------------------------


def measure(folder: Path, settings: Settings) -> dict[str, Any]:
    """The field's loop, and packs in rising size; what was left out for the time."""
    benches = {}
    field: dict[str, float] = {}
    for name, size in settings.sizes.items():
        (folder / name).mkdir()
        benches[name] = Bench(folder / name, size, settings)
        field[name] = benches[name].time_field()
        print(f"{name}: the field's loop takes {field[name]:.3f} ms per seed-step", flush=True)
    steps: list[dict[str, Any]] = []
    left_out = []
    for pack in settings.packs:
        for name in settings.sizes:
            for precision in PRECISIONS:
                if settings.is_late:
                    left_out.append(f"{name}, {precision}, pack of {pack}: the time was over")
                    continue
                try:
                    rows = benches[name].time_pack(pack, precision)
                except torch.cuda.OutOfMemoryError:
                    left_out.append(f"{name}, {precision}, pack of {pack}: it does not fit in memory")
                    continue
                for row in rows:
                    row = {"size": name, "times_field": field[name] / row["ms"], **row}
                    steps.append(row)
                    print(", ".join(f"{key} {_short(value)}" for key, value in row.items()), flush=True)
    return {"field_ms": field, "steps": steps, "left_out": left_out}


class Bench:
    """One size of images and networks, with its images and its teacher table."""

    def __init__(self, folder: Path, size: Size, settings: Settings) -> None:
        self._folder, self._size, self._settings = folder, size, settings
        generate_images(folder, size, num_images=settings.num_images)
        self._dataset = read_dataset(folder, size)
        self._images = ResidentTrainingSet(
            self._dataset, _views(size), dtype=torch.float32, device=settings.device
        )
        self._table = self._fill_table()

    def _fill_table(self) -> TableTeacher:
        network, device = build_teacher(self._size).to(self._settings.device), self._settings.device
        num_rows = len(self._dataset.train) * _views(self._size).count
        generator, ids = np.random.default_rng(0), np.arange(num_rows)
        for part, width in make_computer(network, self._size, device).layout.widths.items():
            rows = make_rows(self._folder / f"table-{part}", num_rows, width)
            rows.write(ids, generator.standard_normal((num_rows, width), dtype=np.float32))
        table = make_table(self._folder, network, self._dataset, self._size, device)
        assert table.is_whole
        return table

    def time_field(self) -> float:
        """Milliseconds per seed-step of the field's loop, in one process; the median."""
        settings = self._settings
        on_gpu = settings.device.type == "cuda"
        recipe = LoopRecipe(
            name="",
            loop="reference",
            size=self._size,
            folder=str(self._folder),
            processes=1,
            threads=1,
            workers=min(8, len(os.sched_getaffinity(0)) - 1) if on_gpu else 0,
            device=settings.device.type,
        )
        with _cudnn_as_before():
            timer = _Timer(ReferenceLoop(recipe, 0).advance, settings)
            return statistics.median(timer.measure() for _ in range(settings.repeats))

    def time_pack(self, seeds: int, precision: str) -> Iterator[dict[str, Any]]:
        """A row without graphs and one with them, which took turns."""
        settings, device = self._settings, self._settings.device
        cell = dataclasses.replace(self._size, precision=precision).cell
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        pack = Pack(
            [
                start_run(cell, self._dataset, seed, context=SingleProcess(), device=device)
                for seed in range(seeds)
            ]
        )
        pack.train()
        for optimizer in (pack.student_optimizer, pack.discriminator_optimizer):
            assert optimizer is not None
            optimizer.param_groups[0]["lr"] = 1e-4
        with _told() as told:
            recorder = choose_recorder(pack, 0, SingleProcess())
            ways = {"off": Replays(pack, None)} | ({"on": Replays(pack, recorder)} if recorder else {})
            loops = {way: _Loop(self._batches(seeds), pack, self._table, own) for way, own in ways.items()}
            timers = {way: _Timer(loop.advance, settings) for way, loop in loops.items()}
            peak = torch.cuda.max_memory_reserved() if device.type == "cuda" else None
            times: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(settings.repeats):
                for way, timer in timers.items():
                    times[way].append(timer.measure())
        preparation = _Timer(_Preparation(self._batches(seeds), self._table).advance, settings)
        prepared = statistics.median(preparation.measure() for _ in range(settings.repeats))
        for way, own in times.items():
            measured = [one / seeds for one in own]
            yield {
                "precision": precision,
                "pack": seeds,
                "graphs": way if way == "off" or ways[way].active else f"fell back: {'; '.join(told)}",
                "ms": statistics.median(measured),
                "from": min(measured),
                "to": max(measured),
                "host_ms": prepared / seeds,
                "peak_bytes": peak,
                "estimated_bytes": PROCESS_BYTES
                + seeds
                * seed_bytes(cell, side=self._size.side, evaluation_batch=EVALUATION_BATCH[device.type]),
            }

    def _batches(self, seeds: int) -> Iterator[Batch]:
        while True:
            yield from self._images.batches(
                range(seeds),
                0,
                batch_size=self._size.batch_size,
                draws=STUDENT_DRAWS,
                context=SingleProcess(),
            )


class _Timer:
    """Measures steps, after some that warm up and tell how many are a repetition."""

    def __init__(self, advance: Callable[[int], None], settings: Settings) -> None:
        self._advance, self._device, self._steps = advance, settings.device, 1
        if self._device.type == "cuda":
            advance(WARM_UP)
            self._steps = max(1, min(200, math.ceil(1e3 * settings.seconds / self.measure())))

    def measure(self) -> float:
        """Milliseconds per step, over one repetition."""
        _wait(self._device)
        began = time.perf_counter()
        self._advance(self._steps)
        _wait(self._device)
        return 1e3 * (time.perf_counter() - began) / self._steps


class _Loop:
    """What an epoch of hkrun does with its batches."""

    def __init__(self, batches: Iterator[Batch], pack: Pack, table: TableTeacher, replays: Replays) -> None:
        self._batches, self._step = batches, Step(pack, 0, table, SingleProcess(), replays)

    def advance(self, steps: int) -> None:
        averages = Averages(SingleProcess())
        for _ in range(steps):
            averages.add(self._step.train(next(self._batches)))
        averages.read()


class _Preparation:
    """What comes before the step: views, and what the teacher says of them; the host does most of it."""

    def __init__(self, batches: Iterator[Batch], table: TableTeacher) -> None:
        self._batches, self._table = batches, table

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self._table(next(self._batches))


@contextlib.contextmanager
def _told() -> Iterator[list[str]]:
    """What hkrun says meanwhile."""
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("hkrun")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


@contextlib.contextmanager
def _cudnn_as_before() -> Iterator[None]:
    """The field's loop lets cuDNN choose its algorithms, need not be reproducible, and may use TF32."""
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = False, True, True
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before
        torch.set_deterministic_debug_mode(mode)


def _views(size: Size) -> Views:
    return Views(size.padding, size.flip)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
