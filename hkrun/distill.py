"""Stage 2: one student is distilled from the frozen teacher, against the discriminator.

This is the loop of the method, top to bottom, in torch alone: it knows neither Ray nor MLflow nor the store.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hkrun.config import Cell
from hkrun.data import Dataset
from hkrun.losses.adversarial import discriminator_loss, student_adversarial_loss
from hkrun.losses.response import backbone_loss, cross_entropy
from hkrun.losses.squeezed import knowledge_loss
from hkrun.models import (
    AttentionEstimator,
    Discriminator,
    DistilledNetwork,
    Output,
    Verdict,
    build_network,
    initialise,
    synchronise,
)
from hkrun.seeding import Purpose, derive
from hkrun.training import (
    Averages,
    Batch,
    Context,
    EvaluationSet,
    TrainingSet,
    autocast,
    evaluate_epoch,
    learning_rate,
    resolve_dtype,
    sum_gradients,
    sum_over_workers,
)

Epoch = dict[str, float | None]


@dataclass(kw_only=True)
class Run:
    """One student in training: everything that a checkpoint must hold.

    Attributes:
        student: Backbone, and the attention sub-network where the intermediate loss needs it.
        discriminator: None where the adversarial loss has no weight.
        student_optimizer: SGD over all of the student.
        discriminator_optimizer: SGD over the discriminator.
        history: One row of figures per finished epoch. Order and augmentation derive from seed and epoch, so
            its length is all that they need.
    """

    student: DistilledNetwork
    discriminator: Discriminator | None
    student_optimizer: torch.optim.SGD
    discriminator_optimizer: torch.optim.SGD | None
    history: list[Epoch] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.history)

    def state_dict(self) -> dict[str, object]:
        """The state as tensors, numbers and containers, loadable with `weights_only`."""
        parts = (self.student, self.discriminator, self.student_optimizer, self.discriminator_optimizer)
        states = [None if part is None else part.state_dict() for part in parts]
        return {"parts": states, "history": self.history}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Takes over a state that `state_dict` gave."""
        parts = (self.student, self.discriminator, self.student_optimizer, self.discriminator_optimizer)
        for part, part_state in zip(parts, state["parts"], strict=True):  # type: ignore[call-overload]
            if part is not None:
                part.load_state_dict(part_state)
        self.history = list(state["history"])  # type: ignore[call-overload]


def start_run(cell: Cell, dataset: Dataset, seed: int, *, context: Context, device: torch.device) -> Run:
    """Builds the networks and optimisers of one run in their initial state.

    Each network's weights come from a generator of its own: a cell without an attention sub-network or a
    discriminator starts from the same student as one that has them.
    """

    def generator(purpose: Purpose) -> torch.Generator:
        return torch.Generator().manual_seed(derive(seed, purpose))

    def optimizer(module: nn.Module, first_rate: float) -> torch.optim.SGD:
        return torch.optim.SGD(
            module.parameters(),
            lr=first_rate,
            momentum=cell.student.momentum,
            weight_decay=cell.student.weight_decay,
            fused=True,
        )

    backbone = build_network(
        cell.student.network, num_classes=dataset.num_classes, in_channels=dataset.train.images.shape[1]
    )
    initialise(backbone, generator(Purpose.STUDENT))
    attention = None
    if cell.weight("knowledge") > 0:
        # `project` makes the student's vectors as long as the teacher's; else the teacher's estimator adapts.
        attention = AttentionEstimator(
            backbone.widths,
            descriptor_width=backbone.descriptor_width,
            connection=cell.attention.connection,
            pool=cell.attention.pool,
            tap=cell.attention.tap,
            squeeze_widths=cell.squeeze_widths,
        )
        initialise(attention, generator(Purpose.ATTENTION))
    student = DistilledNetwork(backbone, attention).to(device, resolve_dtype(cell.precision))
    if context.world_size > 1 and cell.sync_batchnorm:
        synchronise(student)
    discriminator = None
    if cell.weight("adversarial") > 0:
        discriminator = Discriminator(dataset.num_classes, category=cell.loss.category)
        initialise(discriminator, generator(Purpose.DISCRIMINATOR))
        discriminator.to(device, resolve_dtype(cell.precision))
    return Run(
        student=student,
        discriminator=discriminator,
        student_optimizer=optimizer(student, cell.student.learning_rate),
        discriminator_optimizer=(
            None if discriminator is None else optimizer(discriminator, cell.discriminator.learning_rate)
        ),
    )


def distill(
    run: Run,
    cell: Cell,
    *,
    seed: int,
    teacher: DistilledNetwork | None,
    training_set: TrainingSet,
    test_set: EvaluationSet,
    context: Context,
    on_epoch: Callable[[Run], None],
) -> None:
    """Trains a run to its last epoch, from wherever it stands.

    Args:
        run: The state; it is changed in place.
        cell: The configuration.
        seed: The run's seed.
        teacher: Frozen and in eval mode; None where the method uses none.
        training_set: Gives each epoch's batches.
        test_set: The error is measured on it after each epoch.
        context: Where the loop runs.
        on_epoch: Called after each epoch, when the state is whole.

    Raises:
        Diverged: A loss is no longer finite; the state is that of the failing epoch.
    """
    if teacher is not None and cell.weight("knowledge") == 0:
        teacher = DistilledNetwork(teacher.backbone)  # vectors that no term compares are not computed
    optimizers = {run.student_optimizer: cell.student.learning_rate}
    if run.discriminator_optimizer is not None:
        optimizers[run.discriminator_optimizer] = cell.discriminator.learning_rate
    while run.epoch < cell.student.epochs:
        started = time.perf_counter()
        epoch = run.epoch
        for optimizer, first_rate in optimizers.items():
            optimizer.param_groups[0]["lr"] = learning_rate(
                epoch,
                first=first_rate,
                epochs=cell.student.epochs,
                drops=cell.student.drops,
                factor=cell.student.drop_factor,
                warmup_epochs=cell.student.warmup_epochs,
            )
        averages = Averages(context)
        batches = training_set.batches(
            seed,
            epoch,
            batch_size=cell.student.batch_size,
            order=Purpose.ORDER,
            augmentation=Purpose.AUGMENTATION,
            context=context,
        )
        for batch in batches:
            averages.add(_train_batch(run, cell, batch, teacher, context))
        figures = averages.read(epoch=epoch + 1)
        errors = evaluate_epoch(
            test_set, run.student.backbone, epoch=epoch + 1, precision=cell.precision, context=context
        )
        run.history.append(
            {
                "epoch": epoch + 1,
                "error_pct": errors.top1_pct,
                "error_top5_pct": errors.top5_pct,
                **figures,
                "learning_rate": run.student_optimizer.param_groups[0]["lr"],
                "seconds": time.perf_counter() - started,
            }
        )
        on_epoch(run)


def _train_batch(
    run: Run, cell: Cell, batch: Batch, teacher: DistilledNetwork | None, context: Context
) -> dict[str, Tensor]:
    """One batch: the discriminator's steps, then the student's, on one forward pass of the student."""
    target = None
    if teacher is not None:
        with torch.no_grad():
            target = _forward(teacher, batch.images, cell)
    output = _forward(run.student, batch.images, cell)
    figures: dict[str, Tensor] = {}
    if run.discriminator is not None and target is not None:
        for _ in range(cell.discriminator.steps):
            figures |= _step_discriminator(run, cell, batch, target, output, context)
    for step in range(cell.student.steps):
        if step > 0:
            output = _forward(run.student, batch.images, cell)
        figures |= _step_student(run, cell, batch, target, output, context)
    return figures


def _forward(network: DistilledNetwork, images: Tensor, cell: Cell) -> Output:
    """Logits and squeezed vectors, in the precision of the images whatever the network computes in."""
    with autocast(cell.precision, images.device):
        logits, knowledge = network(images)
    return Output(logits.to(images.dtype), None if knowledge is None else knowledge.to(images.dtype))


def _step_discriminator(
    run: Run, cell: Cell, batch: Batch, target: Output, output: Output, context: Context
) -> dict[str, Tensor]:
    """Minimises eqs. (5) to (7) over the discriminator; the student's logits are constants here."""
    discriminator, optimizer = run.discriminator, run.discriminator_optimizer
    assert discriminator is not None
    assert optimizer is not None
    size = len(batch.labels)
    # The discriminator has no BatchNorm: judging both in one pass is the same, with half the operations.
    source, classes = discriminator(torch.cat([target.logits, output.logits.detach()]))
    teacher_verdict = Verdict(source[:size], None if classes is None else classes[:size])
    student_verdict = Verdict(source[size:], None if classes is None else classes[size:])
    parts = discriminator_loss(
        teacher_verdict,
        student_verdict,
        batch.labels,
        tuple(discriminator.parameters()),
        mu=cell.loss.mu,
        category=cell.loss.category,
        regularizer=cell.loss.regularizer,
        reg_reduction=cell.loss.reg_reduction,
    )
    loss = torch.stack(tuple(parts.values())).sum() * batch.share
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    sum_gradients(optimizer.param_groups[0]["params"], context)
    optimizer.step()
    with torch.no_grad():
        right = (source[:size] > 0).sum() + (source[size:] <= 0).sum()
        belief = source.double().sigmoid().view(2, size)  # the spread is a difference of squares
        means = belief.mean(dim=1) * batch.share
        # The deviation over the whole batch: a mean of the workers' own would depend on how they share it.
        moments = torch.stack([means.mean(), belief.square().mean() * batch.share])
        sum_over_workers([moments], context)
        spread = (moments[1] - moments[0].square()).clamp(min=0).sqrt()
        return {
            "loss_discriminator": loss,
            **{f"loss_{name}": part * batch.share for name, part in parts.items() if name == "regularizer"},
            "discriminator_accuracy": right.double() / (2 * size) * batch.share,
            "discriminator_teacher_mean": means[0],
            "discriminator_student_mean": means[1],
            "discriminator_spread": spread * batch.share,
        }


def _step_student(
    run: Run, cell: Cell, batch: Batch, target: Output | None, output: Output, context: Context
) -> dict[str, Tensor]:
    """Minimises eq. (3) over the student; teacher and discriminator are constants here."""
    loss = torch.zeros((), dtype=output.logits.dtype, device=output.logits.device)
    figures: dict[str, Tensor] = {}
    for name, weight in cell.weights.items():
        term = _term(name, run, cell, batch, target, output) * batch.share
        figures[f"loss_{name}"] = term
        loss = loss + weight * term
    optimizer = run.student_optimizer
    parameters = optimizer.param_groups[0]["params"]
    optimizer.zero_grad()
    loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
    sum_gradients(parameters, context)
    optimizer.step()
    return {"loss_total": loss, **figures}


def _term(name: str, run: Run, cell: Cell, batch: Batch, target: Output | None, output: Output) -> Tensor:
    """One term of the student's loss, unweighted."""
    if name == "cross_entropy":
        return cross_entropy(output.logits, batch.labels)
    assert target is not None
    if name == "backbone":
        return backbone_loss(output.logits, target.logits, reduction=cell.loss.reduction)
    if name == "knowledge":
        assert output.knowledge is not None
        assert target.knowledge is not None
        return knowledge_loss(
            output.knowledge, target.knowledge, distance=cell.loss.distance, reduction=cell.loss.reduction
        )
    assert name == "adversarial"
    assert run.discriminator is not None
    return student_adversarial_loss(
        run.discriminator(output.logits), batch.labels, gan=cell.loss.gan, category=cell.loss.category
    )
