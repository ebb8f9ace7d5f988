"""Stage 1: the teacher and its attention sub-network are trained by classification, then frozen.

An auxiliary classifier on the squeezed vectors, dropped afterwards, trains the sub-network. By default
backbone and sub-network train together (`joint`); `shared` trains the backbone alone first; a teacher file
replaces that.
"""

import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hkrun.config import Cell, learning_rate
from hkrun.data.dataset import Dataset
from hkrun.data.encoded import StreamedDataset
from hkrun.data.weights import load_weights
from hkrun.losses.response import cross_entropy
from hkrun.models import DistilledNetwork, build_attention, build_network, initialise, synchronise
from hkrun.models.joining import copy_tensor, join_optimizers
from hkrun.models.packed import PackedNetwork
from hkrun.models.sgd import SGD
from hkrun.models.stacked import Stacked, each_of
from hkrun.seeding import Purpose, derive
from hkrun.training import (
    TEACHER_DRAWS,
    Averages,
    Batch,
    Context,
    Diverged,
    Errors,
    GradientSum,
    Images,
    autocast,
    find_behind,
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


@dataclass(kw_only=True, eq=False)
class TeacherRun:
    """A teacher in training: everything that a checkpoint must hold.

    Attributes:
        cell: The configuration, of this one teacher.
        network: Backbone and attention sub-network.
        classifier: The auxiliary one, from the concatenated squeezed vectors to the classes.
        optimizer: SGD over the parts of the phase; begun anew with each phase.
        history: One row of figures per finished epoch, over all phases.
        diverged: Why it cannot go on; None while it can.
    """

    cell: Cell
    network: DistilledNetwork
    classifier: nn.Linear
    optimizer: SGD
    history: list[Epoch] = field(default_factory=list)
    diverged: Diverged | None = None

    @property
    def seed(self) -> int:
        """What every random number of it derives from."""
        return self.cell.teacher.seed

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.history)

    def state_dict(self) -> dict[str, object]:
        """The state as tensors, numbers and containers, loadable with `weights_only`."""
        parts = [part.state_dict() for part in (self.network, self.classifier, self.optimizer)]
        # Copies: in a pack the tensors are parts of larger ones, and would be saved with all of those.
        return {"parts": tree_map(copy_tensor, parts), "history": list(self.history)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Takes over a state that `state_dict` gave."""
        self.history = list(state["history"])  # type: ignore[call-overload]
        # After the last epoch of a phase the checkpoint still has that phase's optimiser.
        self.optimizer = _optimizer(self, _phase(self.cell, max(self.epoch - 1, 0)))
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
    optimizer = SGD(classifier.parameters())
    run = TeacherRun(cell=cell, network=network, classifier=classifier, optimizer=optimizer)
    run.optimizer = _optimizer(run, phases(cell)[0])
    return run


def build_teacher(cell: Cell, dataset: Dataset | StreamedDataset) -> DistilledNetwork:
    """The teacher's network, weights not yet decided."""
    backbone = build_network(
        cell.teacher.network, num_classes=dataset.num_classes, in_channels=dataset.num_channels
    )
    return DistilledNetwork(backbone, build_attention(cell, backbone))


def train_teachers(
    runs: Sequence[TeacherRun],
    *,
    images: Images,
    context: Context,
    on_epoch: Callable[[Sequence[TeacherRun]], None],
) -> None:
    """Trains teachers to their last epoch, each from wherever it stands, as many together as can be.

    They differ in their seed alone. Those that are behind go first. One whose loss or logits are no longer
    finite ends there, its `diverged` set, and the others go on without it.

    Args:
        runs: The teachers; they are changed in place. Several train in one phase, see `why_teachers_alone`.
        images: As of `hkrun.distill.distill`.
        context: Where the loop runs; with several workers, there is one teacher.
        on_epoch: Called after each epoch with those that trained in it.
    """
    pack: _Pack | None = None
    while together := find_behind(runs, epochs=num_epochs(runs[0].cell)):
        started = time.perf_counter()
        cell, epoch = together[0].cell, together[0].epoch
        settings, phase = cell.teacher, _phase(cell, epoch)
        first_of_phase = epoch % settings.epochs == 0
        if first_of_phase:
            for run in together:
                run.optimizer = _optimizer(run, phase)
        if pack is None or pack.runs != together or first_of_phase:
            pack = _Pack(together, phase)
        rate = learning_rate(
            epoch % settings.epochs,
            first=settings.learning_rate,
            epochs=settings.epochs,
            drops=settings.drops,
            factor=DROP_FACTOR,
            warmup_epochs=settings.warmup_epochs,
        )
        for optimizer in (pack.optimizer, *(run.optimizer for run in together)):
            optimizer.param_groups[0]["lr"] = rate
        averages = Averages(context)
        batches = images.training.batches(
            [run.seed for run in together],
            epoch,
            batch_size=settings.batch_size,
            draws=TEACHER_DRAWS,
            context=context,
        )
        pack.train()
        sum_gradients = GradientSum(pack.optimizer.param_groups[0]["params"], context)
        for batch in batches:
            averages.add(_train_batch(pack, cell, batch, sum_gradients))
        figures = averages.read()
        found = [Errors(0.0, None)] * len(together)
        if phase.backbone or first_of_phase:
            found = images.test.evaluate_each(
                pack.classify, len(together), precision=cell.precision, context=context
            )
            errors = [{"error_pct": own.top1_pct, "error_top5_pct": own.top5_pct} for own in found]
        else:  # a frozen backbone errs as it did
            errors = [
                {name: run.history[-1][name] for name in ("error_pct", "error_top5_pct")} for run in together
            ]
        seconds = (time.perf_counter() - started) / len(together)
        for run, own_figures, own_found, own_errors in zip(together, figures, found, errors, strict=True):
            run.diverged = find_divergence(own_figures, own_found, epoch=epoch + 1)
            if run.diverged is None:
                run.history.append(
                    {
                        "epoch": epoch + 1,
                        **own_errors,
                        **own_figures,
                        "learning_rate": rate,
                        "seconds": seconds,
                    }
                )
        on_epoch(together)


class _Pack:
    """k teachers in one phase as one network, one auxiliary classifier and one optimiser.

    What its methods take and give has a leading dimension of k, one teacher's too, which is trained as it is.
    """

    def __init__(self, runs: Sequence[TeacherRun], phase: Phase) -> None:
        self.runs, self._phase = tuple(runs), phase
        (first, *others) = runs
        if not others:
            self._network: DistilledNetwork | PackedNetwork = first.network
            self._classifiers: nn.Module = first.classifier
            self.optimizer = first.optimizer
            first.network.lay_out()  # it may be what is left of a larger pack
            first.optimizer.lay_out()
            return
        assert phase.backbone
        assert phase.attention
        self._network = PackedNetwork([run.network for run in runs])
        classifiers = Stacked([run.classifier for run in runs])
        self._classifiers = classifiers
        self.optimizer = join_optimizers(
            [run.optimizer for run in runs], [*self._network.joins, *classifiers.joins]
        )

    def train(self) -> None:
        """Training mode. BatchNorm's statistics are frozen with the weights of a backbone."""
        self._network.train()
        if isinstance(self._network, DistilledNetwork):
            # Without gradients no activations are kept.
            self._network.backbone.train(self._phase.backbone).requires_grad_(self._phase.backbone)

    def losses(self, images: Tensor, labels: Tensor, *, precision: str) -> dict[str, Tensor]:
        """CE(backbone) and CE(auxiliary classifier), each where its part trains, [k].

        Args:
            images: Shape [k, B, channels, H, W].
            labels: Shape [k, B].
            precision: The arithmetic.
        """
        phase, knowledge = self._phase, None
        with autocast(precision, images.device):
            if isinstance(self._network, PackedNetwork):
                output, _ = self._network(images)
                logits, knowledge = output.logits, output.knowledge
            elif phase.attention:
                output = self._network(images[0])
                logits, knowledge = output.logits[None], output.knowledge[None]
            else:
                logits = self._network.backbone(images[0]).logits[None]

        def compare(
            classifier: nn.Module, logits: Tensor, knowledge: Tensor | None, labels: Tensor
        ) -> dict[str, Tensor]:
            found = {}
            if phase.backbone:
                found["loss_backbone"] = cross_entropy(logits.to(images.dtype), labels)
            if knowledge is not None:
                with autocast(precision, images.device):
                    auxiliary = classifier(knowledge)
                found["loss_auxiliary"] = cross_entropy(auxiliary.to(images.dtype), labels)
            return found

        found: dict[str, Tensor] = each_of(self._classifiers, compare, logits, knowledge, labels)
        return found

    def classify(self, images: Tensor) -> Tensor:
        """Each teacher's logits in eval mode, [k, B, classes], of the same images, [B, channels, H, W]."""
        self._network.eval()
        if isinstance(self._network, PackedNetwork):
            return self._network.classify(images)
        logits: Tensor = self._network.backbone(images).logits
        return logits[None]


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
    pack: _Pack, cell: Cell, batch: Batch, sum_gradients: GradientSum
) -> dict[str, torch.Tensor]:
    """One step of each teacher on the sum of its losses; the figures of the batch, [k] each."""
    losses = pack.losses(batch.images, batch.labels, precision=cell.precision)
    figures = {name: loss * batch.share for name, loss in losses.items()}
    loss = torch.stack(tuple(figures.values())).sum(dim=0)
    pack.optimizer.zero_grad()
    loss.sum().backward(inputs=pack.optimizer.param_groups[0]["params"])  # type: ignore[no-untyped-call]
    sum_gradients()
    pack.optimizer.step()
    return {"loss_total": loss, **figures}


def _phase(cell: Cell, epoch: int) -> Phase:
    return phases(cell)[epoch // cell.teacher.epochs]


def _optimizer(run: TeacherRun, phase: Phase) -> SGD:
    assert run.network.attention is not None
    trained: list[nn.Module] = [run.network.backbone] if phase.backbone else []
    trained += [run.network.attention, run.classifier] if phase.attention else []
    parameters = [parameter for module in trained for parameter in module.parameters()]
    return SGD(parameters, lr=1.0, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True)
