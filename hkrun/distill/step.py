"""One batch: the discriminator learns to tell teacher from student, then the student learns from both."""

import torch
from torch import Tensor, nn

from hkrun.config import Cell
from hkrun.distill.run import Run
from hkrun.losses.adversarial import discriminator_loss, student_adversarial_loss
from hkrun.methods import METHODS
from hkrun.models import (
    DistilledNetwork,
    Output,
    Verdict,
)
from hkrun.models.quantized import clip_weights
from hkrun.networks import parse_network
from hkrun.seeding import Purpose, derive
from hkrun.training import (
    Batch,
    Context,
    autocast,
    sum_gradients,
    sum_over_workers,
)

# The terms whose gradient passes the logits: what the adversarial term's gradient there is compared with.
ON_LOGITS = frozenset({"backbone", "logits_l1", "cross_entropy", "kd"})


class Step:
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
