"""The state of one student in training."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils._pytree import tree_map

from hkrun.config import Cell
from hkrun.data.dataset import Dataset
from hkrun.data.encoded import StreamedDataset
from hkrun.data.weights import load_weights
from hkrun.methods import Adversary
from hkrun.models import (
    Discriminator,
    DistilledNetwork,
    build_attention,
    build_network,
    initialise,
    synchronise,
)
from hkrun.models.joining import copy_tensor
from hkrun.models.quantized import quantize, start_uniform
from hkrun.models.sgd import SGD
from hkrun.objective import DataSizes, Objective
from hkrun.seeding import Purpose, derive
from hkrun.training import Context, Diverged, resolve_dtype

Epoch = dict[str, float | None]


@dataclass(kw_only=True, eq=False)
class Run:
    """One student in training: everything that a checkpoint must hold.

    Attributes:
        cell: The configuration.
        seed: What every random number of the run derives from.
        sizes: Of the data.
        student: Backbone, and the attention sub-network where squeezed knowledge is compared.
        discriminator: None where the adversarial loss has no weight.
        discriminator_optimizer: SGD over the discriminator.
        objective: The terms of the current stage, with what they learn.
        student_optimizer: SGD over the student and the objective; begun anew with each stage.
        history: One row of figures per finished epoch, over all stages. Order and augmentation derive from
            seed and epoch, so its length is all that they need.
        diverged: Why it cannot go on; None while it can.
    """

    cell: Cell
    seed: int
    sizes: DataSizes
    student: DistilledNetwork
    discriminator: Discriminator | None
    discriminator_optimizer: SGD | None
    objective: Objective
    student_optimizer: SGD
    history: list[Epoch] = field(default_factory=list)
    diverged: Diverged | None = None

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.history)

    def state_dict(self) -> dict[str, object]:
        """The state as tensors, numbers and containers, loadable with `weights_only`."""
        states = [None if part is None else part.state_dict() for part in self._parts()]
        # Copies: in a pack the tensors are parts of larger ones, and would be saved with all of those.
        return {"parts": tree_map(copy_tensor, states), "history": list(self.history)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Takes over a state that `state_dict` gave."""
        self.history = list(state["history"])  # type: ignore[call-overload]
        # After the last epoch of a stage the checkpoint still has that stage's objective and optimiser.
        stage, _ = find_stage(self.cell, max(self.epoch - 1, 0))
        for index in range(1, stage + 1):
            enter_stage(self, index)
        for part, part_state in zip(self._parts(), state["parts"], strict=True):  # type: ignore[call-overload]
            if part is not None:
                part.load_state_dict(part_state)

    def _parts(self) -> tuple[nn.Module | SGD | None, ...]:
        return (
            self.student,
            self.discriminator,
            self.student_optimizer,
            self.discriminator_optimizer,
            self.objective,
        )


def find_stage(cell: Cell, epoch: int) -> tuple[int, int]:
    """The stage, from 0, that an epoch, from 0 over all stages, belongs to; and its number within it."""
    for stage, epochs in enumerate(cell.stage_epochs):
        if epoch < epochs:
            return stage, epoch
        epoch -= epochs
    raise ValueError("the run has fewer epochs")


def start_run(
    cell: Cell, dataset: Dataset | StreamedDataset, seed: int, *, context: Context, device: torch.device
) -> Run:
    """Builds the networks and optimisers of one run in their initial state.

    Each network's initial weights come from a generator of its own: a cell without an attention sub-network
    or a discriminator starts from the same student as one that has them. `student.file` replaces the
    student's.
    """

    def generator(purpose: Purpose) -> torch.Generator:
        return torch.Generator().manual_seed(derive(seed, purpose))

    backbone = build_network(
        cell.student.network, num_classes=dataset.num_classes, in_channels=dataset.num_channels
    )
    weights = generator(Purpose.STUDENT)
    initialise(backbone, weights)
    if cell.quantizes_as("binary_connect") and cell.quantization.uniform_start:
        start_uniform(backbone, weights)
    if cell.student.file:
        load_weights(backbone, cell, "student")
    attention = None
    if cell.squeezes:
        attention = build_attention(cell, backbone)
        initialise(attention, generator(Purpose.ATTENTION))
    student = DistilledNetwork(backbone, attention).to(device, resolve_dtype(cell.precision))
    student.lay_out()
    if context.world_size > 1 and cell.sync_batchnorm:
        synchronise(student)
    discriminator = discriminator_optimizer = None
    if cell.adversary is not None:
        discriminator = _build_discriminator(cell, cell.adversary, dataset)
        initialise(discriminator, generator(Purpose.DISCRIMINATOR))
        discriminator.to(device, resolve_dtype(cell.precision))
        discriminator_optimizer = _optimizer(cell, discriminator)
    sizes = DataSizes(dataset.num_classes, len(dataset.train))
    objective = Objective(cell, 0, sizes)
    run = Run(
        cell=cell,
        seed=seed,
        sizes=sizes,
        student=student,
        discriminator=discriminator,
        discriminator_optimizer=discriminator_optimizer,
        objective=objective,
        student_optimizer=_optimizer(cell, student, objective),
    )
    enter_stage(run, 0)
    return run


def enter_stage(run: Run, stage: int) -> None:
    """Begins a stage: its quantiser, its objective, and an optimiser that remembers nothing."""
    cell = run.cell
    quantizer = cell.declared_method.stages[stage].quantizer
    if quantizer:
        quantize(run.student.backbone, quantizer, cell.quantization)
    run.objective = Objective(cell, stage, run.sizes)
    initialise(run.objective, torch.Generator().manual_seed(derive(run.seed, Purpose.OBJECTIVE, stage)))
    run.objective.to(next(run.student.parameters()))
    run.student_optimizer = _optimizer(cell, run.student, run.objective)


def _build_discriminator(
    cell: Cell, adversary: Adversary, dataset: Dataset | StreamedDataset
) -> Discriminator:
    on_logits = adversary.tap == "logits"
    return Discriminator(
        dataset.num_classes if on_logits else cell.teacher_descriptor_width,
        hidden=adversary.hidden,
        num_classes=dataset.num_classes if cell.classifies_source else 0,
    )


def _optimizer(cell: Cell, *modules: nn.Module) -> SGD:
    """SGD whose learning rate each epoch sets."""
    return SGD(
        [parameter for module in modules for parameter in module.parameters()],
        lr=1.0,
        momentum=cell.student.momentum,
        weight_decay=cell.student.weight_decay,
        fused=True,
    )
