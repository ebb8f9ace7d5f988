"""A pack's step as a CUDA graph: recorded once, then launched as one.

A step of small networks is a thousand kernels of microseconds, and launching each takes the host longer than
the GPU computes. A graph launches all of them at once, on memory that stays where it is: inputs are copied to
where the recorded step reads them. Whatever a step draws or looks up on the host happens before it, see
`Inputs`; learning rates and weights are constants of a recording, and other ones make a new recording. (By
its source, torch's fused SGD on CUDA reads a rate on the device as float32: other bits.)

Nothing decides beforehand that a graph may be used. One step is computed both ways, and only a recording that
gave the same bits is replayed; where that is not so, or the step cannot be recorded, the pack goes on as
without graphs, and one line of the log says why.
"""

import functools
import gc
import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from hkrun.config import Cell
from hkrun.distill.pack import Pack
from hkrun.models import Output
from hkrun.training import Context
from hkrun.user_parts import is_own

logger = logging.getLogger("hkrun")

WARM_UP = 2  # steps before the first recording: momentum, handles of libraries and kernels come into being

Figures = dict[str, Tensor]


class Inputs(NamedTuple):
    """All that a step reads beside the state of its pack, on the device; each with leading dimensions [k, B].

    Attributes:
        images: Normalised views.
        labels: Class of each image.
        target: What the teacher says of them; None where no term uses it.
        mask: Dropout of what the discriminators judge; None where there is none.
        image_ids: Number of each image; None where no term reads it.
    """

    images: Tensor
    labels: Tensor
    target: Output | None
    mask: Tensor | None
    image_ids: Tensor | None


Compute = Callable[[Inputs], Figures]


class Recorder(Protocol):
    """Records what a function does to tensors."""

    def run(self, function: Callable[[], Figures]) -> Figures:
        """Calls a function where it would be recorded."""

    def record(self, function: Callable[[], Figures]) -> tuple[Figures, Callable[[], None]]:
        """Records a function; whether it takes effect is open.

        Returns:
            Its results, which are valid after each replay until the next; and what replays it.

        Raises:
            RuntimeError: It cannot be recorded.
        """


class CudaRecorder:
    """Records as a CUDA graph, on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def run(self, function: Callable[[], Figures]) -> Figures:
        """See `Recorder`."""
        around = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(around)
        with torch.cuda.stream(self._stream):
            figures = function()
        around.wait_stream(self._stream)
        return figures

    def record(self, function: Callable[[], Figures]) -> tuple[Figures, Callable[[], None]]:
        """See `Recorder`; it takes no effect."""
        graph = torch.cuda.CUDAGraph()
        # The outer context restores the stream also where ending the recording fails.
        with (
            _without_collection(),
            torch.cuda.stream(self._stream),
            torch.cuda.graph(graph, stream=self._stream),
        ):
            figures = function()
        return figures, graph.replay


@contextmanager
def _without_collection() -> Iterator[None]:
    """Collects garbage before and not within: CUDA fails a recording in which another graph is freed.

    Such as that of the pack before, which reference cycles keep until Python finds them.
    """
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def choose_recorder(pack: Pack, stage: int, context: Context) -> Recorder | None:
    """What records the steps of a pack; None, and a line in the log, where they are not to be recorded."""
    device = pack.state[0].device
    if reason := _why_never(pack.runs[0].cell, stage, context, device):
        _tell(reason)
        return None
    return CudaRecorder(device)


class Replays:
    """Computes the steps of a pack, by replays where they give the same bits.

    Args:
        pack: Its state is what steps change.
        recorder: None for steps that are all computed as they come.
    """

    def __init__(self, pack: Pack, recorder: Recorder | None) -> None:
        self._pack, self._recorder = pack, recorder
        self._steps = 0
        self._shapes: list[torch.Size] = []
        self._recording: _Recording | None = None

    @property
    def active(self) -> bool:
        """Whether steps like the last one are replayed."""
        return self._recording is not None

    def __call__(self, compute: Compute, inputs: Inputs, constants: Hashable) -> Figures:
        """Computes one step.

        Args:
            compute: The step, which depends on its inputs, the constants and the pack's state alone.
            inputs: What it reads.
            constants: What else it depends on; equal ones mean an equal step.

        Returns:
            The figures, which the next call may overwrite.
        """
        if self._recorder is None:
            return compute(inputs)
        self._steps += 1
        shapes = [tensor.shape for tensor in _tensors(inputs)]
        self._shapes = self._shapes or shapes
        if shapes != self._shapes:
            _tell(f"a batch of {inputs.labels.shape[1]} images is not as long as the others")
        if self._steps <= WARM_UP or shapes != self._shapes:
            return self._recorder.run(functools.partial(compute, inputs))
        if self._recording is None or self._recording.constants != constants:
            self._recording = None  # its memory is free for the next
            return self._record(self._recorder, compute, inputs, constants)
        return self._recording.replay(inputs)

    def _record(self, recorder: Recorder, compute: Compute, inputs: Inputs, constants: Hashable) -> Figures:
        """Computes a step as it is and by a recording, which is kept if both are the same to the bit."""
        held: Inputs = tree_map_only(Tensor, torch.clone, inputs)
        function = functools.partial(compute, held)
        state = self._pack.state
        before = _copies(state)
        figures = recorder.run(function)
        after = _copies(state)
        try:
            recording = _Recording(held, constants, *recorder.record(function))
            _restore(state, before)
            replayed = recording.replay(inputs)
            if _same([*after, *figures.values()], [*state, *replayed.values()]):
                self._recording = recording
                return replayed
            reason = "a replay gives other bits"
        except RuntimeError as error:  # OutOfMemoryError is one
            reason = f"the step cannot be recorded: {_first_cause(error)}"
        self._recorder = None
        _tell(reason)
        _restore(state, after)
        return figures


class _Recording(NamedTuple):
    inputs: Inputs
    constants: Hashable
    figures: Figures
    launch: Callable[[], None]

    def replay(self, inputs: Inputs) -> Figures:
        _restore(_tensors(self.inputs), _tensors(inputs))
        self.launch()
        return self.figures


def _why_never(cell: Cell, stage: int, context: Context, device: torch.device) -> str:
    """Why the steps of a stage are not to be recorded; empty where that can be tried."""
    if device.type != "cuda":
        return f"the device is {device.type}"
    if context.world_size > 1:
        return "several workers train one run"
    # A replay repeats no Python: a counter of the user's own, say, would stand still.
    if is_own(cell.student.network):
        return f"{cell.student.network} is not hkrun's own"
    for name, term in cell.stage_terms[stage].items():
        if term.random:
            return f"the term {name} draws random numbers"
        if not term.discriminator and not str(term.function).startswith("hkrun."):
            return f"the term {name} is not hkrun's own"
    return ""


@functools.cache  # once in a process
def _tell(reason: str) -> None:
    logger.info("steps are computed without a CUDA graph: %s", reason)


def _first_cause(error: BaseException) -> str:
    """The first line of the error that others followed: ending a broken recording fails too."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0]


def _tensors(inputs: Inputs) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


@torch.no_grad()
def _restore(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def _same(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Whether tensors are equal, NaN to NaN too."""
    return all(
        bool(((ours == theirs) | ((ours != ours) & (theirs != theirs))).all())
        for ours, theirs in zip(first, second, strict=True)
    )
