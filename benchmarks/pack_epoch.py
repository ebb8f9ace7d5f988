"""An epoch of a pack on digits: how long its training and the evaluation after it take in hkrun's own loop.

Twenty seeds of a cell of `stability` train together in this process, on one thread as in each slot of a
sweep. The teacher's answers are looked up, as in a table; they are random, which takes as long. The times
are the processor's, which other work on the machine disturbs least.

    python benchmarks/pack_epoch.py
    python benchmarks/pack_epoch.py --precision float64 --epochs 4    # the curves alone are of interest
    python benchmarks/against.py REVISION epoch                       # beside another revision

The last line is JSON for against.py: medians over the epochs, the evaluation beside its floor, and the error
curves, which two revisions of one numbers epoch share in float64. The floor is what the linear layers and
convolutions of the networks would take at the speed of one large matrix product in float32, measured just
before. Products with the zeros around an image count, though the compiled convolutions leave them out: on
digits they are a quarter.

A sweep gives its processes memory settings (`hkrun.cluster.driver.supervisor`), without which the evaluation
takes longer:

    MALLOC_TRIM_THRESHOLD_=1000000000 MALLOC_MMAP_THRESHOLD_=1000000000 python benchmarks/pack_epoch.py
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from floor import measure_machine
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from hkrun.config import Cell
from hkrun.data.digits import load_digits
from hkrun.data.views import Views
from hkrun.distill import Run, distill, start_run
from hkrun.models import Output
from hkrun.networks import parse_network
from hkrun.spaces import load_sweep
from hkrun.training import (
    Batch,
    Errors,
    Images,
    ResidentEvaluationSet,
    ResidentTrainingSet,
    SingleProcess,
    resolve_dtype,
)

CPU = torch.device("cpu")
CELLS = ("L_b", "L_b + L_adv + L_is")


class TimedEvaluationSet(ResidentEvaluationSet):
    """The test set, and how long each evaluation on it took."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seconds: list[float] = []

    def evaluate_each(self, *args: Any, **kwargs: Any) -> list[Errors]:
        """See `EvaluationSet`."""
        began = time.process_time()
        errors = super().evaluate_each(*args, **kwargs)
        self.seconds.append(time.process_time() - began)
        return errors


def main() -> None:
    """Measures both cells, prints the medians."""
    parser = argparse.ArgumentParser(description="An epoch of a pack on digits, training and evaluation.")
    parser.add_argument("--seeds", type=int, default=20, help="that train together")
    parser.add_argument("--epochs", type=int, default=12, help="of which the first two are not counted")
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, object] = {}
    for name in CELLS:
        cell = make_cell(name, epochs=options.epochs, precision=options.precision)
        figures |= {f"{name}: {what}": value for what, value in measure(cell, options.seeds).items()}
    print(json.dumps(figures))


def make_cell(name: str, *, epochs: int, precision: str) -> Cell:
    """A cell of `stability` on digits."""
    sweep = load_sweep("stability", dataset=None, seeds=None, epochs=epochs, overrides=())
    (cell,) = [named.cell for named in sweep.cells if named.name == name]
    return dataclasses.replace(cell, precision=precision)


def measure(cell: Cell, number: int) -> dict[str, object]:
    """Milliseconds of an epoch's two parts, and the errors of all runs after each epoch."""
    dataset, dtype = load_digits(), resolve_dtype(cell.precision)
    settings: dict[str, Any] = {"dtype": dtype, "device": CPU}
    test = TimedEvaluationSet(dataset.test.images, dataset.test.labels, dataset, **settings)
    views = Views(cell.augment.padding, cell.augment.flip)
    training = ResidentTrainingSet(dataset, views, **settings)
    runs = [start_run(cell, dataset, seed, context=SingleProcess(), device=CPU) for seed in range(number)]
    flops = number * count_flops(runs[0].student.backbone, dataset.test.images.to(dtype))
    floor_s = flops / measure_machine(CPU, clock=time.process_time).flops_per_s
    ends = [time.process_time()]
    table = make_table(cell, len(dataset.train), dataset.num_classes, dtype)
    teach = dict.fromkeys((run.seed for run in runs), lambda batch: look_up(table, batch))

    def on_epoch(_: Sequence[Run]) -> None:
        ends.append(time.process_time())

    distill(runs, images=Images(training, test), teach=teach, context=SingleProcess(), on_epoch=on_epoch)
    whole = [end - begin for begin, end in itertools.pairwise(ends)]
    trained = [all_of - own for all_of, own in zip(whole, test.seconds, strict=True)]
    counted = slice(min(2, len(whole) - 1), None)
    evaluation_s = statistics.median(test.seconds[counted])
    return {
        "training, ms": 1e3 * statistics.median(trained[counted]),
        "evaluation, ms": 1e3 * evaluation_s,
        "evaluation, times its floor": evaluation_s / floor_s,
        "epoch, ms": 1e3 * statistics.median(whole[counted]),
        "error curves": [[row["error_pct"] for row in run.history] for run in runs],
    }


def count_flops(network: nn.Module, images: Tensor) -> int:
    """FLOPs of a network's convolutions and linear layers on images [N, C, H, W]."""
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    network.train()
    return int(counter.get_total_flops())


def make_table(cell: Cell, num_images: int, num_classes: int, dtype: torch.dtype) -> Output:
    """What a teacher could say of every image."""
    generator = torch.Generator().manual_seed(0)
    widths = {"logits": num_classes, "descriptor": parse_network(cell.teacher.network).widths[-1]}
    widths["knowledge"] = sum(cell.squeeze_widths)
    rows = {
        name: torch.randn(num_images, width, generator=generator, dtype=dtype)
        for name, width in widths.items()
    }
    return Output(**rows, stages=(), stem=None)  # type: ignore[arg-type]


def look_up(table: Output, batch: Batch) -> Output:
    """The rows of a batch's images."""
    taken: Output = tree_map_only(Tensor, lambda rows: rows[batch.image_ids], table)
    return taken


if __name__ == "__main__":
    main()
