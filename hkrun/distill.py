"""Stage 2: one student is distilled from the frozen teacher, against the discriminator.

This is the loop of every method, in torch alone: it knows neither Ray nor MLflow nor the store. A method may
itself have two stages, each with a loss, a schedule and an optimiser of its own.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hkrun.config import Cell
from hkrun.data.dataset import Dataset
from hkrun.data.encoded import StreamedDataset
from hkrun.losses.adversarial import discriminator_loss, student_adversarial_loss
from hkrun.methods import METHODS
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
from hkrun.models.quantized import clip_weights, quantize
from hkrun.networks import parse_network
from hkrun.objective import Objective
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

# The terms whose gradient passes the logits: what the adversarial term's gradient there is compared with.
ON_LOGITS = frozenset({"backbone", "logits_l1", "cross_entropy", "kd"})


@dataclass(kw_only=True)
class Run:
    """One student in training: everything that a checkpoint must hold.

    Attributes:
        cell: The configuration.
        seed: What every random number of the run derives from.
        student: Backbone, and the attention sub-network where squeezed knowledge is compared.
        discriminator: None where the adversarial loss has no weight.
        discriminator_optimizer: SGD over the discriminator.
        objective: The terms of the current stage, with what they learn.
        student_optimizer: SGD over the student and the objective; begun anew with each stage.
        history: One row of figures per finished epoch, over all stages. Order and augmentation derive from
            seed and epoch, so its length is all that they need.
    """

    cell: Cell
    seed: int
    student: DistilledNetwork
    discriminator: Discriminator | None
    discriminator_optimizer: torch.optim.SGD | None
    objective: Objective
    student_optimizer: torch.optim.SGD
    history: list[Epoch] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""
        return len(self.history)

    def state_dict(self) -> dict[str, object]:
        """The state as tensors, numbers and containers, loadable with `weights_only`."""
        states = [None if part is None else part.state_dict() for part in self._parts()]
        return {"parts": states, "history": self.history}

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

    def _parts(self) -> tuple[nn.Module | torch.optim.SGD | None, ...]:
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

    Each network's weights come from a generator of its own: a cell without an attention sub-network or a
    discriminator starts from the same student as one that has them.
    """

    def generator(purpose: Purpose) -> torch.Generator:
        return torch.Generator().manual_seed(derive(seed, purpose))

    backbone = build_network(
        cell.student.network, num_classes=dataset.num_classes, in_channels=dataset.num_channels
    )
    initialise(backbone, generator(Purpose.STUDENT))
    attention = None
    if cell.knowledge_form == "squeezed":
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
    discriminator = discriminator_optimizer = None
    if cell.weight("adversarial") > 0:
        discriminator = _build_discriminator(cell, dataset)
        initialise(discriminator, generator(Purpose.DISCRIMINATOR))
        discriminator.to(device, resolve_dtype(cell.precision))
        discriminator_optimizer = _optimizer(cell, discriminator)
    objective = Objective(cell, 0)
    run = Run(
        cell=cell,
        seed=seed,
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
    quantizer = METHODS[cell.method].stages[stage].quantizer
    if quantizer:
        quantize(run.student.backbone, quantizer)
    run.objective = Objective(cell, stage)
    initialise(run.objective, torch.Generator().manual_seed(derive(run.seed, Purpose.OBJECTIVE, stage)))
    run.objective.to(next(run.student.parameters()))
    run.student_optimizer = _optimizer(cell, run.student, run.objective)


def _build_discriminator(cell: Cell, dataset: Dataset | StreamedDataset) -> Discriminator:
    adversary = METHODS[cell.method].adversary
    assert adversary is not None
    on_logits = adversary.tap == "logits"
    return Discriminator(
        dataset.num_classes if on_logits else parse_network(cell.teacher.network).widths[-1],
        hidden=adversary.hidden,
        num_classes=dataset.num_classes if cell.classifies_source else 0,
    )


def _optimizer(cell: Cell, *modules: nn.Module) -> torch.optim.SGD:
    """SGD whose learning rate each epoch sets."""
    return torch.optim.SGD(
        [parameter for module in modules for parameter in module.parameters()],
        lr=1.0,
        momentum=cell.student.momentum,
        weight_decay=cell.student.weight_decay,
        fused=True,
    )


def distill(
    run: Run,
    *,
    teacher: DistilledNetwork | None,
    training_set: TrainingSet,
    test_set: EvaluationSet,
    context: Context,
    on_epoch: Callable[[Run], None],
) -> None:
    """Trains a run to its last epoch, from wherever it stands.

    Args:
        run: The state; it is changed in place.
        teacher: Frozen and in eval mode; None where the method uses none.
        training_set: Gives each epoch's batches.
        test_set: The error is measured on it after each epoch.
        context: Where the loop runs.
        on_epoch: Called after each epoch, when the state is whole.

    Raises:
        Diverged: A loss is no longer finite; the state is that of the failing epoch.
    """
    cell = run.cell
    if teacher is not None and cell.knowledge_form != "squeezed":
        teacher = DistilledNetwork(teacher.backbone)  # vectors that no term compares are not computed
    while run.epoch < sum(cell.stage_epochs):
        started = time.perf_counter()
        epoch = run.epoch
        stage, stage_epoch = find_stage(cell, epoch)
        if stage > 0 and stage_epoch == 0:
            enter_stage(run, stage)
        optimizers = {run.student_optimizer: cell.student.learning_rate}
        if run.discriminator_optimizer is not None:
            optimizers[run.discriminator_optimizer] = cell.discriminator.learning_rate
        for optimizer, first_rate in optimizers.items():
            optimizer.param_groups[0]["lr"] = learning_rate(
                stage_epoch,
                first=first_rate,
                epochs=cell.stage_epochs[stage],
                drops=cell.student.drops,
                factor=cell.student.drop_factor,
                warmup_epochs=cell.student.warmup_epochs,
            )
        averages = Averages(context)
        batches = training_set.batches(
            run.seed,
            epoch,
            batch_size=cell.student.batch_size,
            order=Purpose.ORDER,
            augmentation=Purpose.AUGMENTATION,
            context=context,
        )
        step = _Step(run, stage, teacher if cell.stage_uses_teacher(stage) else None, context)
        for batch in batches:
            averages.add(step.train(batch))
        figures = averages.read(epoch=epoch + 1)
        errors = evaluate_epoch(
            test_set, run.student.backbone, epoch=epoch + 1, precision=cell.precision, context=context
        )
        run.history.append(
            {
                "epoch": epoch + 1,
                "error_pct": errors.top1_pct,
                "error_top5_pct": errors.top5_pct,
                **({"stage": stage + 1} if len(cell.stage_epochs) > 1 else {}),
                **figures,
                "learning_rate": run.student_optimizer.param_groups[0]["lr"],
                "seconds": time.perf_counter() - started,
            }
        )
        on_epoch(run)


class _Step:
    """What happens with each batch of one epoch.

    Args:
        run: The state; it is changed in place.
        stage: The stage of the method, from 0.
        teacher: None where no term of the stage uses it.
        context: Where the loop runs.
    """

    def __init__(self, run: Run, stage: int, teacher: DistilledNetwork | None, context: Context) -> None:
        method = METHODS[run.cell.method]
        self._run, self._cell, self._teacher, self._context = run, run.cell, teacher, context
        self._weights = run.cell.stage_weights[stage]
        self._adversary = method.adversary if "adversarial" in self._weights else None
        self._clips = method.stages[stage].quantizer == "binary_connect"
        self._dropout = run.cell.discriminator.dropout if self._adversary and self._adversary.dropout else 0.0
        self._noise = torch.Generator().manual_seed(derive(run.seed, Purpose.DROPOUT, run.epoch))

    def train(self, batch: Batch) -> dict[str, Tensor]:
        """The discriminator's steps, then the student's, on one forward pass of the student."""
        run, cell = self._run, self._cell
        target = None
        if self._teacher is not None:
            with torch.no_grad():
                target = _forward(self._teacher, batch.images, cell)
        output = _forward(run.student, batch.images, cell)
        figures: dict[str, Tensor] = {}
        mask = self._draw_mask(batch) if self._dropout > 0 else None
        if self._adversary is not None:
            assert target is not None
            for _ in range(cell.discriminator.steps):
                figures |= self._step_discriminator(batch, target, output, mask)
        for step in range(cell.student.steps):
            if step > 0:
                output = _forward(run.student, batch.images, cell)
            figures |= self._step_student(batch, target, output, mask)
        return figures

    def _draw_mask(self, batch: Batch) -> Tensor:
        """The dropout of this worker's part of a batch, [B, width]; each draws that of the whole batch."""
        context, size = self._context, self._cell.student.batch_size
        width = parse_network(self._cell.teacher.network).widths[-1]
        drawn = torch.rand(size, width, generator=self._noise) >= self._dropout
        first, last = (size * rank // context.world_size for rank in (context.rank, context.rank + 1))
        return drawn[first:last].to(batch.images) / (1 - self._dropout)

    def _judged(self, output: Output, mask: Tensor | None) -> Tensor:
        """What the discriminator judges of the student."""
        judged = self._run.objective.judged(output, student=True)
        return judged if mask is None else judged * mask

    def _step_discriminator(
        self, batch: Batch, target: Output, output: Output, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Minimises eqs. (5) to (7) over the discriminator; the student's side is constant here."""
        run, cell = self._run, self._cell
        discriminator, optimizer = run.discriminator, run.discriminator_optimizer
        assert discriminator is not None
        assert optimizer is not None
        size = len(batch.labels)
        with torch.no_grad():
            samples = torch.cat([run.objective.judged(target, student=False), self._judged(output, mask)])
        # The discriminator has no BatchNorm: judging both in one pass is the same, with half the operations.
        source, classes = discriminator(samples)
        teacher_verdict = Verdict(source[:size], None if classes is None else classes[:size])
        student_verdict = Verdict(source[size:], None if classes is None else classes[size:])
        parts = discriminator_loss(
            teacher_verdict,
            student_verdict,
            batch.labels,
            tuple(discriminator.parameters()),
            mu=cell.loss.mu,
            category=cell.classifies_source,
            regularizer=cell.loss.regularizer,
            reg_reduction=cell.loss.reg_reduction,
        )
        loss = torch.stack(tuple(parts.values())).sum() * batch.share
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        sum_gradients(optimizer.param_groups[0]["params"], self._context)
        optimizer.step()
        with torch.no_grad():
            right = (source[:size] > 0).sum() + (source[size:] <= 0).sum()
            belief = source.double().sigmoid().view(2, size)  # the spread is a difference of squares
            means = belief.mean(dim=1) * batch.share
            # The deviation over the whole batch: a mean of the workers' own would depend on their shares.
            moments = torch.stack([means.mean(), belief.square().mean() * batch.share])
            sum_over_workers([moments], self._context)
            spread = (moments[1] - moments[0].square()).clamp(min=0).sqrt()
            return {
                "loss_discriminator": loss,
                **{
                    f"loss_{name}": part * batch.share
                    for name, part in parts.items()
                    if name == "regularizer"
                },
                "discriminator_accuracy": right.double() / (2 * size) * batch.share,
                "discriminator_teacher_mean": means[0],
                "discriminator_student_mean": means[1],
                "discriminator_spread": spread * batch.share,
            }

    def _step_student(
        self, batch: Batch, target: Output | None, output: Output, mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Minimises the stage's terms, eq. (3), over the student; the other networks are constants here."""
        run, cell = self._run, self._cell
        terms = run.objective(output, target, batch.labels)
        if self._adversary is not None:
            assert run.discriminator is not None
            verdict = run.discriminator(self._judged(output, mask))
            terms["adversarial"] = student_adversarial_loss(
                verdict, batch.labels, gan=cell.loss.gan, category=cell.classifies_source
            )
        loss = torch.zeros((), dtype=output.logits.dtype, device=output.logits.device)
        figures: dict[str, Tensor] = {}
        for name, weight in self._weights.items():
            term = terms[name] * batch.share
            figures[f"loss_{name}"] = term
            loss = loss + weight * term
        optimizer = run.student_optimizer
        parameters = optimizer.param_groups[0]["params"]
        optimizer.zero_grad()
        if self._adversary is not None and ON_LOGITS & self._weights.keys():
            adversarial = self._weights["adversarial"] * figures["loss_adversarial"]
            judged = output.logits if self._adversary.tap == "logits" else output.descriptor
            figures["adversarial_gradient_ratio"] = self._backward(loss, adversarial, judged, parameters)
            figures["adversarial_gradient_ratio"] *= batch.share
        else:
            loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
        sum_gradients(parameters, self._context)
        optimizer.step()
        if self._clips:
            clip_weights(run.student.backbone)
        return {"loss_total": loss, **figures}

    def _backward(
        self, loss: Tensor, adversarial: Tensor, judged: Tensor, parameters: list[nn.Parameter]
    ) -> Tensor:
        """Accumulates the loss's gradients, and gives the adversarial part's norm over that of all others.

        Both norms are of the gradient at what the discriminator judges, over the whole batch.
        """
        (of_adversary,) = torch.autograd.grad(adversarial, judged, retain_graph=True)
        of_all: list[Tensor] = []
        handle = judged.register_hook(of_all.append)  # type: ignore[no-untyped-call]
        loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
        handle.remove()
        others = of_all[0] - of_adversary
        squares = torch.stack([of_adversary.double().square().sum(), others.double().square().sum()])
        sum_over_workers([squares], self._context)
        return (squares[0] / squares[1].clamp(min=torch.finfo(torch.float64).tiny)).sqrt()


def _forward(network: DistilledNetwork, images: Tensor, cell: Cell) -> Output:
    """What a network computes; all but the maps in the precision of the images, whatever it computes in."""
    with autocast(cell.precision, images.device):
        output: Output = network(images)
    return output._replace(
        logits=output.logits.to(images.dtype),
        knowledge=None if output.knowledge is None else output.knowledge.to(images.dtype),
        descriptor=output.descriptor.to(images.dtype),
    )
