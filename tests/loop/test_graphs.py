"""Steps that are recorded once and replayed give the same bits as steps that are computed as they come.

Recorders of the CPU stand in for CUDA graphs: they record the operations of a step with the memory that each
reads and writes, and replaying repeats those operations alone, without the step's Python.
"""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hkrun.config import Cell
from hkrun.data import Dataset
from hkrun.distill import Pack, Run, Step, choose_recorder, distill, graphs, loop, start_run
from hkrun.distill import step as step_module
from hkrun.distill.graphs import WARM_UP, Figures, Replays
from hkrun.methods import SHIPPED
from hkrun.training import STUDENT_DRAWS, Averages, Batch, Diverged, SingleProcess, move
from loop.conftest import CPU, ask, make_sets, same_state, tiny_cell
from loop.test_methods import METHOD_CELLS, curves, make_teacher, method_cell

# What a GPU cannot do without the host waiting for it: the host reads a number, or how many there are.
HOST_READS = frozenset(
    {"_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "unique", "_unique2"}
)


class HostReadError(RuntimeError):
    """An operation for which the host waits."""


class NoHostReads(TorchDispatchMode):
    """Refuses operations that read the device's memory."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        masks = args[1] if func.overloadpacket.__name__ in ("index", "index_put", "index_put_") else ()
        by_mask = any(each.dtype == torch.bool for each in masks if isinstance(each, Tensor))
        if func.overloadpacket.__name__ in HOST_READS or by_mask:
            raise HostReadError(f"the host waits for {func}")
        return func(*args, **(kwargs or {}))


class _Operations(NoHostReads):
    """Keeps every operation with its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[str, Callable[[], None]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = super().__torch_dispatch__(func, types, args, kwargs)
        fresh = all(result.alias_info is None for result in func._schema.returns)
        places = [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)] if fresh else []

        def repeat() -> None:
            again = [leaf for leaf in tree_leaves(func(*args, **(kwargs or {}))) if isinstance(leaf, Tensor)]
            for place, value in zip(places, again if fresh else [], strict=True):
                place.copy_(value)

        self.kept.append((func.overloadpacket.__name__, repeat))
        return results


class CpuRecorder:
    """A recorder of the CPU; recording takes effect, as `Recorder` leaves open."""

    def __init__(self) -> None:
        self.recorded = self.replayed = self.computed = 0
        self.kept: list[tuple[str, Callable[[], None]]] = []

    def run(self, function: Callable[[], Figures]) -> Figures:
        self.computed += 1
        return function()

    def record(self, function: Callable[[], Figures]) -> tuple[Figures, Callable[[], None]]:
        self.recorded += 1
        with _Operations() as operations:
            figures = function()
        self.kept = operations.kept

        @torch.no_grad()
        def replay() -> None:
            self.replayed += 1
            for _, repeat in operations.kept:
                repeat()

        return figures, replay


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What was told once is told again; convolutions are torch's, which a recorder sees, as on a GPU."""
    monkeypatch.setattr("hkrun.models.small_images._can_compile", lambda: False)
    graphs._tell.cache_clear()
    yield
    graphs._tell.cache_clear()


def train(
    cell: Cell,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    recorder: CpuRecorder | None,
    *,
    seeds: Sequence[int] = (3, 0, 11),
) -> list[Run]:
    """Trains runs together to their end, their steps recorded by a recorder."""
    monkeypatch.setattr(loop, "choose_recorder", lambda *_: recorder)
    runs = [start_run(cell, dataset, seed, context=SingleProcess(), device=CPU) for seed in seeds]
    distill(
        runs,
        teach=ask(make_teacher(cell, dataset), *runs),
        context=SingleProcess(),
        on_epoch=lambda _: None,
        **make_sets(cell, dataset),  # type: ignore[arg-type]
    )
    return runs


def assert_same_bits(first: Sequence[Run], second: Sequence[Run]) -> None:
    for ours, theirs in zip(first, second, strict=True):
        assert curves(ours) == curves(theirs)
        assert same_state(ours.state_dict()["parts"], theirs.state_dict()["parts"])


def make_step(
    cell: Cell, dataset: Dataset, recorder: CpuRecorder | None, *, seeds: Sequence[int] = (3, 0)
) -> tuple[Step, Pack]:
    """A step of a new pack."""
    pack = Pack([start_run(cell, dataset, seed, context=SingleProcess(), device=CPU) for seed in seeds])
    pack.train()
    for optimizer in (pack.student_optimizer, pack.discriminator_optimizer):
        if optimizer is not None:
            optimizer.param_groups[0]["lr"] = 0.01
    teach = (
        ask(make_teacher(cell, dataset), *pack.runs)[pack.runs[0].seed]
        if cell.stage_uses_teacher(0)
        else None
    )
    return Step(pack, 0, teach, SingleProcess(), Replays(pack, recorder)), pack


def batches_of(cell: Cell, dataset: Dataset, pack: Pack, *, size: int = 8) -> Iterator[Batch]:
    training = make_sets(cell, dataset)["images"].training
    seeds = [run.seed for run in pack.runs]
    return training.batches(seeds, 0, batch_size=size, draws=STUDENT_DRAWS, context=SingleProcess())


# --- the same bits ------------------------------------------------------------------------------------------

CELLS = {
    "hksanc": tiny_cell(),
    "hksanc, steps": tiny_cell(student__steps=2, discriminator__steps=2),
    "hksanc, bfloat16": tiny_cell(precision="bfloat16"),
    "hksanc, no momentum": tiny_cell(student__momentum=0.0),
    **{name: method_cell(name) for name in METHOD_CELLS},
    **{name: tiny_cell(method=name, student__learning_rate=0.001) for name in SHIPPED if name != "crd"},
    "crd": tiny_cell(method="crd", crd__negatives=8, student__learning_rate=0.001),
}
# Each with something of its own: dropout, quantised weights, two stages, a state in buffers.
FAST = ("hksanc", "anc", "ttq", "fitnets", "crd")
EACH_CELL = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in CELLS]


@pytest.mark.parametrize("name", EACH_CELL)
def test_replayed_steps_give_the_bits_of_computed_ones(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recorder = CpuRecorder()
    replayed = train(CELLS[name], dataset, monkeypatch, recorder)
    assert_same_bits(replayed, train(CELLS[name], dataset, monkeypatch, None))
    assert recorder.replayed > recorder.recorded > 0


def test_a_run_alone_is_replayed_too(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = CpuRecorder()
    replayed = train(CELLS["hksanc"], dataset, monkeypatch, recorder, seeds=[3])
    assert_same_bits(replayed, train(CELLS["hksanc"], dataset, monkeypatch, None, seeds=[3]))
    assert recorder.replayed > recorder.recorded


def test_each_learning_rate_and_weight_has_a_recording_of_its_own(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rates of 1, 1, 0.1 and 0.1 times the first; five steps an epoch.
    cell, recorder = tiny_cell(student__epochs=4, student__batch_size=8, student__drops=[0.5]), CpuRecorder()
    replayed = train(cell, dataset, monkeypatch, recorder)
    assert_same_bits(replayed, train(cell, dataset, monkeypatch, None))
    assert recorder.recorded == 2
    assert recorder.computed == WARM_UP + 2
    assert recorder.replayed == 4 * 5 - WARM_UP


def test_runs_that_go_on_without_a_diverged_one_are_recorded_anew(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(figures: Mapping[str, float], errors: object, *, epoch: int) -> Diverged | None:
        del errors
        return Diverged("told to", epoch) if epoch == 2 and figures["loss_total"] == worst else None

    cell = tiny_cell(student__batch_size=8)
    worst = math.nan
    second = [run.history[1]["loss_total"] for run in train(cell, dataset, monkeypatch, None)]
    worst = max(loss for loss in second if loss is not None)
    monkeypatch.setattr(loop, "find_divergence", diverge)
    recorder = CpuRecorder()
    replayed = train(cell, dataset, monkeypatch, recorder)
    assert [run.diverged is None for run in replayed].count(False) == 1
    assert_same_bits(replayed, train(cell, dataset, monkeypatch, None))
    assert recorder.recorded == 2


# --- falling back -------------------------------------------------------------------------------------------


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the log says of graphs."""
    caplog.set_level(logging.INFO, logger="hkrun")
    return lambda: [record.getMessage() for record in caplog.records if "CUDA graph" in record.getMessage()]


def test_a_step_that_waits_for_the_device_is_computed(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
) -> None:
    original = Step._step_student

    def waiting(self: Step, *args: Any) -> dict[str, Tensor]:
        figures = original(self, *args)
        assert figures["loss_total"].sum().item() > 0
        return figures

    monkeypatch.setattr(Step, "_step_student", waiting)
    recorder = CpuRecorder()
    found = train(CELLS["hksanc"], dataset, monkeypatch, recorder)
    assert_same_bits(found, train(CELLS["hksanc"], dataset, monkeypatch, None))
    assert (recorder.recorded, recorder.replayed) == (1, 0)
    (line,) = told()
    assert line.endswith("the step cannot be recorded: the host waits for aten._local_scalar_dense.default")


def test_the_log_names_the_cause_and_not_what_followed_from_it(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
) -> None:
    class BrokenRecorder(CpuRecorder):
        def record(self, function: Callable[[], Figures]) -> tuple[Figures, Callable[[], None]]:
            try:
                raise RuntimeError("no memory is left\nlines of advice")
            finally:
                raise RuntimeError("the recording was broken off")

    found = train(CELLS["hksanc"], dataset, monkeypatch, BrokenRecorder())
    assert_same_bits(found, train(CELLS["hksanc"], dataset, monkeypatch, None))
    (line,) = told()
    assert line.endswith("the step cannot be recorded: no memory is left")


@pytest.mark.parametrize("wrong", ["figures", "state"])
def test_a_recording_that_gives_other_bits_is_dropped(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]], wrong: str
) -> None:
    class WrongRecorder(CpuRecorder):
        def record(self, function: Callable[[], Figures]) -> tuple[Figures, Callable[[], None]]:
            figures, replay = super().record(function)
            (*_, update) = [repeat for name, repeat in self.kept if name == "_fused_sgd_"]

            def counts_wrong() -> None:
                replay()
                figures["loss_total"].mul_(1 + 2**-50)

            def steps_twice() -> None:
                replay()
                update()

            return figures, counts_wrong if wrong == "figures" else steps_twice

    recorder = WrongRecorder()
    found = train(CELLS["hksanc"], dataset, monkeypatch, recorder)
    assert_same_bits(found, train(CELLS["hksanc"], dataset, monkeypatch, None))
    assert (recorder.recorded, recorder.replayed) == (1, 1)
    assert told() == ["steps are computed without a CUDA graph: a replay gives other bits"]


def test_a_shorter_batch_is_computed_between_replays(dataset: Dataset, told: Callable[[], list[str]]) -> None:
    cell, recorder = tiny_cell(), CpuRecorder()
    found = []
    for each in (recorder, None):
        step, pack = make_step(cell, dataset, each)
        batches = [*batches_of(cell, dataset, pack)]
        short = Batch(batches[4].images[:, :5], batches[4].labels[:, :5], 1.0)
        steps = [step.train(batch) for batch in (*batches[:4], short, batches[4])]
        found.append([pack.state, *steps[-1].values()])
    assert all(map(torch.equal, *map(tree_leaves, found)))
    assert (recorder.recorded, recorder.replayed, recorder.computed) == (1, 3, WARM_UP + 2)
    assert told() == [
        "steps are computed without a CUDA graph: a batch of 5 images is not as long as the others"
    ]


def test_what_cannot_be_recorded_is_said_once(dataset: Dataset, told: Callable[[], list[str]]) -> None:
    for _ in range(2):
        pack = Pack([start_run(tiny_cell(), dataset, 0, context=SingleProcess(), device=CPU)])
        assert choose_recorder(pack, 0, SingleProcess()) is None
    assert told() == ["steps are computed without a CUDA graph: the device is cpu"]


OWN = """
from torch import nn
from torch.nn import functional as F
from hkrun.terms import Term

def loss(student, teacher):
    return F.mse_loss(student, teacher)

def noisy(student, teacher, *, generator):
    return F.mse_loss(student, teacher)

Own = Term(summary="", function=loss, student=("logits",), teacher=("logits",))
Noisy = Term(summary="", function=noisy, student=("logits",), teacher=("logits",), random=True)

class Network(nn.Module):
    widths, stem_width = (4,), 4
"""


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, ""),
        ({"method": "crd"}, ""),
        ({"knowledge__form": "replayed_parts:Own"}, "the term knowledge is not hkrun's own"),
        ({"knowledge__form": "replayed_parts:Noisy"}, "the term knowledge draws random numbers"),
        (
            {"student__network": "replayed_parts:Network", "method": "kd"},
            "replayed_parts:Network is not hkrun's own",
        ),
    ],
)
def test_what_python_could_change_from_step_to_step_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, object], reason: str
) -> None:
    (tmp_path / "replayed_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    cell = tiny_cell(**values)
    assert graphs._why_never(cell, 0, SingleProcess(), torch.device("cuda")) == reason
    two = SingleProcess(world_size=2)
    assert graphs._why_never(cell, 0, two, torch.device("cuda")) == "several workers train one run"


# --- the host waits for nothing -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reads",
    [
        lambda values: values.sum().item(),
        lambda values: values[values > 0],
        lambda values: (values > 0).nonzero(),
        lambda values: bool((values > 0).all()),
        lambda values: values.masked_select(values > 0),
    ],
)
def test_the_watch_over_host_reads_sees_them(reads: Callable[[Tensor], object]) -> None:
    with NoHostReads(), pytest.raises(HostReadError):
        reads(torch.ones(3))


@pytest.mark.parametrize("name", FAST)
def test_the_host_reads_nothing_within_an_epoch(dataset: Dataset, name: str) -> None:
    cell = CELLS[name]
    step, pack = make_step(cell, dataset, None)
    averages = Averages(SingleProcess())
    with NoHostReads():
        for batch in batches_of(cell, dataset, pack, size=cell.student.batch_size):
            averages.add(step.train(batch))
    assert len(averages.read()) == 2


# ANC's dropout is drawn on the host; CRD reads the images' numbers.
@pytest.mark.parametrize(
    ("name", "number"), [("hksanc", 0), ("ttq", 0), ("xnor", 0), ("fitnets", 0), ("anc", 1), ("crd", 1)]
)
def test_what_comes_from_the_host_is_not_waited_for(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    """The device "meta" has no memory that could be read, by tolist() either, which is no operation.

    Copies from the CPU to it are operations.
    """
    copies: list[str] = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            del types
            result = func(*args, **(kwargs or {}))
            tensors = [leaf for leaf in tree_leaves((args, result)) if isinstance(leaf, Tensor)]
            if len({tensor.device.type for tensor in tensors if tensor.dim()}) > 1:
                copies.append(str(func))
            return result

    cell, meta = CELLS[name], torch.device("meta")
    pack = Pack([start_run(cell, dataset, seed, context=SingleProcess(), device=meta) for seed in (3, 0)])
    teacher = make_teacher(cell, dataset)
    teach = None if teacher is None else ask(teacher.to(meta), *pack.runs)[3]
    pack.train()
    for optimizer in (pack.student_optimizer, pack.discriminator_optimizer):
        if optimizer is not None:
            optimizer.param_groups[0].update(fused=False, foreach=False)
    step = Step(pack, 0, teach, SingleProcess())
    (batch, *_) = batches_of(cell, dataset, pack, size=cell.student.batch_size)
    batch = batch._replace(images=batch.images.to(meta), labels=batch.labels.to(meta))
    moved: list[Tensor] = []

    def count(tensor: Tensor, device: torch.device) -> Tensor:
        moved.append(tensor)
        return move(tensor, device)

    monkeypatch.setattr(step_module, "move", count)
    monkeypatch.setattr(step_module, "autocast", lambda *_: contextlib.nullcontext())  # "meta" has none
    with Copies():
        step.train(batch)
    assert len(copies) == len(moved) == number, copies


def test_only_the_end_of_an_epoch_waits(dataset: Dataset) -> None:
    class Reads(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            del types
            self.count += func.overloadpacket.__name__ in HOST_READS
            return func(*args, **(kwargs or {}))

    counts = []
    for size in (8, 20):
        cell = tiny_cell(student__batch_size=size)
        (run,) = [start_run(cell, dataset, 0, context=SingleProcess(), device=CPU)]
        with Reads() as reads:
            distill(
                [run],
                teach=ask(make_teacher(cell, dataset), run),
                context=SingleProcess(),
                on_epoch=lambda _: None,
                **make_sets(cell, dataset),  # type: ignore[arg-type]
            )
        counts.append(reads.count)
    assert counts[0] == counts[1]
