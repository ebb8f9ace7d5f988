"""Stage 1: the teacher and its attention sub-network are trained by classification, then frozen.

An auxiliary classifier on the squeezed vectors, dropped afterwards, trains the sub-network. By default
backbone and sub-network train together (`joint`); `shared` trains the backbone alone first; a teacher file
replaces that.
"""

import hashlib
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from hkrun.config import Cell, learning_rate
from hkrun.data.dataset import Dataset
from hkrun.data.encoded import StreamedDataset
from hkrun.data.weights import load_weights
from hkrun.losses.response import cross_entropy
from hkrun.models import DistilledNetwork, build_attention, build_network, initialise, synchronise
from hkrun.models.sgd import SGD
from hkrun.seeding import Purpose, derive
from hkrun.training import (
    TEACHER_DRAWS,
    Averages,
    Batch,
    Context,
    Errors,
    GradientSum,
    Images,
    autocast,
    find_divergence,
    resolve_dtype,
)

# The paper's, for the teacher as for the student; they have no keys.
MOMENTUM = 0.9
WEIGHT_DECAY = 1e-4
DROP_FACTOR = 0.1

Epoch = dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of stage 1: which of the teacher's parts train in it; the other one is frozen, in eval mode."""

    backbone: bool
    attention: bool


def phases(cell: Cell) -> tuple[Phase, ...]:
    """The phases of stage 1, each of `teacher.epochs` epochs."""
    alone, on_frozen = Phase(backbone=True, attention=False), Phase(backbone=False, attention=True)
    if cell.teacher.file:
        return (on_frozen,)
    if cell.teacher.backbone == "shared":
        return (alone, on_frozen)
    return (Phase(backbone=True, attention=True),)


def num_epochs(cell: Cell) -> int:
    """Epochs of stage 1, over all its phases."""
    return cell.teacher.epochs * len(phases(cell))


@dataclass(kw_only=True)
class TeacherRun:
    """A teacher in training: everything that a checkpoint must hold.

    Attributes:
        network: Backbone and attention sub-network.
        classifier: The auxiliary one, from the concatenated squeezed vectors to the classes.
        optimizer: SGD over the parts of the phase; begun anew with each phase.
        history: One row of figures per finished epoch, over all phases.
    """

    network: DistilledNetwork
    classifier: nn.Linear
    optimizer: SGD
    history: list[Epoch] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.history)

    def state_dict(self) -> dict[str, object]:
        """The state as tensors, numbers and containers, loadable with `weights_only`."""
        parts = [part.state_dict() for part in (self.network, self.classifier, self.optimizer)]
        return {"parts": parts, "history": self.history}

    def load_state_dict(self, state: Mapping[str, object], cell: Cell) -> None:
        """Takes over a state that `state_dict` gave."""
        self.history = list(state["history"])  # type: ignore[call-overload]
        # After the last epoch of a phase the checkpoint still has that phase's optimiser.
        self.optimizer = _optimizer(self, _phase(cell, max(self.epoch - 1, 0)))
        for part, part_state in zip(
            (self.network, self.classifier, self.optimizer), state["parts"], strict=True
        ):  # type: ignore[call-overload]
            part.load_state_dict(part_state)


def start_teacher(
    cell: Cell, dataset: Dataset | StreamedDataset, *, context: Context, device: torch.device
) -> TeacherRun:
    """Builds the teacher in its initial state, or with the backbone weights of `teacher.file`."""

    def generator(purpose: Purpose) -> torch.Generator:
        return torch.Generator().manual_seed(derive(cell.teacher.seed, purpose))

    network = build_teacher(cell, dataset)
    initialise(network.backbone, generator(Purpose.TEACHER))
    assert network.attention is not None
    initialise(network.attention, generator(Purpose.TEACHER_ATTENTION))
    classifier = nn.Linear(sum(network.attention.squeeze_widths), dataset.num_classes)
    initialise(classifier, generator(Purpose.TEACHER_CLASSIFIER))
    for module in (network, classifier):
        module.to(device, resolve_dtype(cell.precision))
    network.lay_out()
    if cell.teacher.file:
        load_weights(network.backbone, cell, "teacher")
    if context.world_size > 1:
        synchronise(network)
    run = TeacherRun(network=network, classifier=classifier, optimizer=SGD(classifier.parameters()))
    run.optimizer = _optimizer(run, phases(cell)[0])
    return run


def build_teacher(cell: Cell, dataset: Dataset | StreamedDataset) -> DistilledNetwork:
    """The teacher's network, weights not yet decided."""
    backbone = build_network(
        cell.teacher.network, num_classes=dataset.num_classes, in_channels=dataset.num_channels
    )
    return DistilledNetwork(backbone, build_attention(cell, backbone))


def train_teacher(
    run: TeacherRun,
    cell: Cell,
    *,
    images: Images,
    context: Context,
    on_epoch: Callable[[TeacherRun], None],
) -> None:
    """Trains the teacher to its last epoch, from wherever it stands; `on_epoch` is called after each.

    Raises:
        Diverged: A loss is no longer finite.
    """
    settings = cell.teacher
    while run.epoch < num_epochs(cell):
        started = time.perf_counter()
        epoch = run.epoch
        phase = _phase(cell, epoch)
        if epoch % settings.epochs == 0:
            run.optimizer = _optimizer(run, phase)
        rate = learning_rate(
            epoch % settings.epochs,
            first=settings.learning_rate,
            epochs=settings.epochs,
            drops=settings.drops,
            factor=DROP_FACTOR,
            warmup_epochs=settings.warmup_epochs,
        )
        run.optimizer.param_groups[0]["lr"] = rate
        averages = Averages(context)
        batches = images.training.batches(
            [settings.seed],
            epoch,
            batch_size=settings.batch_size,
            draws=TEACHER_DRAWS,
            context=context,
        )
        run.network.train()
        # BatchNorm's statistics are frozen with the weights. Without gradients no activations are kept.
        run.network.backbone.train(phase.backbone).requires_grad_(phase.backbone)
        sum_gradients = GradientSum(run.optimizer.param_groups[0]["params"], context)
        for batch in batches:
            averages.add(_train_batch(run, cell, batch, phase, sum_gradients))
        (figures,) = averages.read()
        if phase.backbone or epoch % settings.epochs == 0:
            run.network.eval()
            (found,) = images.test.evaluate_each(
                lambda images: run.network.backbone(images).logits[None],
                1,
                precision=cell.precision,
                context=context,
            )
            errors = {"error_pct": found.top1_pct, "error_top5_pct": found.top5_pct}
        else:  # a frozen backbone errs as it did
            found = Errors(0.0, None)
            errors = {name: run.history[-1][name] for name in ("error_pct", "error_top5_pct")}
        if (diverged := find_divergence(figures, found, epoch=epoch + 1)) is not None:
            raise diverged
        run.history.append(
            {
                "epoch": epoch + 1,
                **errors,
                **figures,
                "learning_rate": rate,
                "seconds": time.perf_counter() - started,
            }
        )
        on_epoch(run)


def freeze(network: DistilledNetwork) -> DistilledNetwork:
    """The network in eval mode, its parameters no longer trainable."""
    return network.eval().requires_grad_(False)


def hash_weights(network: nn.Module) -> str:
    """SHA-256 in hex over the names, types, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def dump_weights(network: nn.Module) -> bytes:
    """The state_dict as the bytes of a file that `torch.load(..., weights_only=True)` reads."""
    buffer = io.BytesIO()
    # Copies: in a pack the tensors are parts of larger ones, and would be saved with all of those.
    state = {
        name: tensor.cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    torch.save(state, buffer)
    return buffer.getvalue()


def _train_batch(
    run: TeacherRun, cell: Cell, batch: Batch, phase: Phase, sum_gradients: GradientSum
) -> dict[str, torch.Tensor]:
    """One step on CE(backbone) + CE(auxiliary classifier), each where its part trains."""
    images, labels = batch.images[0], batch.labels[0]
    with autocast(cell.precision, images.device):
        if phase.attention:
            output = run.network(images)
            logits, auxiliary = output.logits, run.classifier(output.knowledge)
        else:
            logits, auxiliary = run.network.backbone(images).logits, None
    figures = {}
    if phase.backbone:
        figures["loss_backbone"] = cross_entropy(logits.to(images.dtype), labels) * batch.share
    if auxiliary is not None:
        figures["loss_auxiliary"] = cross_entropy(auxiliary.to(images.dtype), labels) * batch.share
    loss = torch.stack(tuple(figures.values())).sum()
    parameters = run.optimizer.param_groups[0]["params"]
    run.optimizer.zero_grad()
    loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
    sum_gradients()
    run.optimizer.step()
    return {name: value[None] for name, value in {"loss_total": loss, **figures}.items()}


def _phase(cell: Cell, epoch: int) -> Phase:
    return phases(cell)[epoch // cell.teacher.epochs]


def _optimizer(run: TeacherRun, phase: Phase) -> SGD:
    assert run.network.attention is not None
    trained: list[nn.Module] = [run.network.backbone] if phase.backbone else []
    trained += [run.network.attention, run.classifier] if phase.attention else []
    parameters = [parameter for module in trained for parameter in module.parameters()]
    return SGD(parameters, lr=1.0, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True)
