"""One batch: the discriminators learn to tell teacher from student, then the students learn from both."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hkrun import records
from hkrun.distill.graphs import Inputs, Replays
from hkrun.distill.pack import Pack
from hkrun.distill.run import find_stage
from hkrun.losses.adversarial import discriminator_loss, student_adversarial_loss
from hkrun.models import Discriminator, DiscriminatorOutput, Output
from hkrun.models.quantized import clip_weights, prepare_weights
from hkrun.objective import Objective
from hkrun.seeding import Purpose, derive
from hkrun.training import (
    Batch,
    Context,
    GradientSum,
    autocast,
    gather_rows,
    move,
    own_part,
    sum_over_workers,
)

# What the teacher says of a batch, with the batch's leading dimensions and without gradients.
Teach = Callable[[Batch], Output]


def ask_each(teachers: Sequence[Teach]) -> Teach:
    """What each run's own teacher says of its part of a batch; runs of one teacher in a row ask it together.

    Args:
        teachers: One per run of the pack, in its order.
    """
    groups = [(teach, len(list(same))) for teach, same in itertools.groupby(teachers)]
    if len(groups) == 1:
        return teachers[0]

    def teach(batch: Batch) -> Output:
        ends = list(itertools.accumulate(number for _, number in groups))
        parts = [slice(end - number, end) for end, (_, number) in zip(ends, groups, strict=True)]
        answers = [ask(batch.of_runs(part)) for part, (ask, _) in zip(parts, groups, strict=True)]
        joined: Output = tree_map(lambda *own: None if own[0] is None else torch.cat(own), *answers)
        return joined

    return teach


class Step:
    """What happens with each batch of one epoch, in all k runs of a pack at once.

    A loss is a vector of k, and what is minimised is its sum: no run's loss depends on another's parameters,
    so the gradients are each run's own.

    Args:
        pack: The runs; they are changed in place.
        stage: The stage of the method, from 0.
        teach: None where no term of the stage uses the teacher.
        context: Where the loop runs.
        replays: Of this pack; None for steps that are all computed as they come.
    """

    def __init__(
        self,
        pack: Pack,
        stage: int,
        teach: Teach | None,
        context: Context,
        replays: Replays | None = None,
    ) -> None:
        cell = pack.runs[0].cell
        self._replays = replays or Replays(pack, None)
        self._pack, self._cell, self._teach, self._context = pack, cell, teach, context
        self._weights = cell.weights_in(stage, find_stage(cell, pack.runs[0].epoch)[1])
        terms = cell.stage_terms[stage]
        self._adversary = cell.adversary if "adversarial" in terms else None
        self._keys = cell.read_keys(terms["adversarial"]) if self._adversary else {}
        # Some other term's gradient passes what the discriminator judges: the two can be compared there.
        passing = {"logits", self._adversary.tap} if self._adversary else set()
        self._compares = any(not passing.isdisjoint(term.student) for term in terms.values())
        self._reads_index = any(term.index for term in terms.values())
        if any(term.random for term in terms.values()):
            (run,) = pack.runs
            stream = run.epoch * context.world_size + context.rank
            run.objective.generator = torch.Generator().manual_seed(derive(run.seed, Purpose.TERMS, stream))
        if context.world_size > 1:
            for run in pack.runs:
                run.objective.gather = partial(gather_rows, size=cell.student.batch_size, context=context)
        self._quantized = pack.quantized_weights()
        self._dropout = cell.discriminator.dropout if self._adversary and self._adversary.dropout else 0.0
        self._noise = [
            torch.Generator().manual_seed(derive(run.seed, Purpose.DROPOUT, run.epoch)) for run in pack.runs
        ]
        self._sum_students = GradientSum(pack.student_optimizer.param_groups[0]["params"], context)
        if pack.discriminator_optimizer is not None:
            self._sum_discriminators = GradientSum(
                pack.discriminator_optimizer.param_groups[0]["params"], context
            )

    def train(self, batch: Batch) -> dict[str, Tensor]:
        """The discriminators' steps, then the students', on one forward pass of the students.

        Returns:
            The figures of the batch, [k] each, which the next step may overwrite.
        """
        inputs = self._gather_inputs(batch)
        optimizers = (self._pack.student_optimizer, self._pack.discriminator_optimizer)
        rates = [group["lr"] for each in optimizers if each is not None for group in each.param_groups]
        constants = (batch.share, *rates, *self._weights.values())
        return self._replays(partial(self._compute, share=batch.share), inputs, constants)

    def _gather_inputs(self, batch: Batch) -> Inputs:
        return Inputs(
            batch.images,
            batch.labels,
            None if self._teach is None else self._teach(batch),
            self._draw_mask(batch) if self._dropout > 0 else None,
            self._image_ids(batch),
        )

    def _compute(self, inputs: Inputs, *, share: float) -> dict[str, Tensor]:
        """The step from its inputs alone; on a GPU nothing here waits for it or draws."""
        output, held = self._forward(inputs.images)
        figures: dict[str, Tensor] = {}
        if self._adversary is not None:
            for _ in range(self._keys["steps"]):
                figures |= self._step_discriminator(inputs, share, output)
        for step in range(self._cell.student.steps):
            if step > 0:
                output, held = self._forward(inputs.images)
            figures |= self._step_student(inputs, share, output, held)
        return {name: figure.detach() for name, figure in figures.items()}

    def _forward(self, images: Tensor) -> tuple[Output, Output]:
        """What the students compute, see `Pack.forward`.

        All but the maps is in the images' precision, whatever it is computed in.
        """
        prepare_weights(self._quantized)
        with autocast(self._cell.precision, images.device):
            output, held = self._pack.forward(images)
        output = output._replace(
            logits=output.logits.to(images.dtype),
            knowledge=None if output.knowledge is None else output.knowledge.to(images.dtype),
            descriptor=output.descriptor.to(images.dtype),
        )
        return output, held

    def _draw_mask(self, batch: Batch) -> Tensor:
        """The dropout of this worker's part of a batch, [k, B, width]; each draws that of the whole batch."""
        context, size = self._context, self._cell.student.batch_size
        width = self._cell.teacher_descriptor_width
        drawn = torch.stack([torch.rand(size, width, generator=noise) for noise in self._noise])
        first, last = own_part(size, context)
        kept = drawn[:, first:last] >= self._dropout
        return move(kept, batch.images.device).to(batch.images.dtype) / (1 - self._dropout)

    def _judged(self, output: Output, mask: Tensor | None, *, student: bool) -> Tensor:
        """What the discriminators judge of students or teacher, [k, B, width]."""

        def judged(objective: Objective, output: Output) -> Tensor:
            return objective.judged(output, student=student)

        samples: Tensor = self._pack.each_objective(judged, output)
        return samples if mask is None else samples * mask

    def _step_discriminator(self, inputs: Inputs, share: float, output: Output) -> dict[str, Tensor]:
        """Minimises eqs. (5) to (7) over the discriminators; the students' side is constant here."""
        cell, keys, optimizer = self._cell, self._keys, self._pack.discriminator_optimizer
        target, mask = inputs.target, inputs.mask
        assert optimizer is not None
        assert target is not None
        size = inputs.labels.shape[1]
        with torch.no_grad():
            samples = torch.cat(
                [self._judged(target, None, student=False), self._judged(output, mask, student=True)], dim=1
            )

        def judge(
            discriminator: Discriminator, samples: Tensor, labels: Tensor
        ) -> tuple[dict[str, Tensor], Tensor]:
            # It has no BatchNorm: judging both in one pass is the same, with half the operations.
            source, classes = discriminator(samples)
            parts = discriminator_loss(
                DiscriminatorOutput(source[:size], None if classes is None else classes[:size]),
                DiscriminatorOutput(source[size:], None if classes is None else classes[size:]),
                labels,
                tuple(discriminator.parameters()),
                mu=keys["mu"],
                category=cell.classifies_source,
                regularizer=keys["regularizer"],
                reg_reduction=keys["reg_reduction"],
            )
            return parts, source

        parts, source = self._pack.each_discriminator(judge, samples, inputs.labels)
        loss = torch.stack(tuple(parts.values())).sum(dim=0) * share
        optimizer.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        self._sum_discriminators()
        optimizer.step()
        with torch.no_grad():
            right = (source[:, :size] > 0).sum(dim=1) + (source[:, size:] <= 0).sum(dim=1)
            belief = (
                source.double().sigmoid().unflatten(1, (2, size))
            )  # the spread is of squares' differences
            means = belief.mean(dim=2) * share
            # The deviation over the whole batch: a mean of the workers' own would depend on their shares.
            moments = torch.stack([means.mean(dim=1), belief.square().mean(dim=(1, 2)) * share])
            sum_over_workers([moments], self._context)
            spread = (moments[1] - moments[0].square()).clamp(min=0).sqrt()
            return {
                "loss_discriminator": loss,
                **{f"loss_{name}": part * share for name, part in parts.items() if name == "regularizer"},
                records.ACCURACY: right.double() / (2 * size) * share,
                records.TEACHER_MEAN: means[:, 0],
                records.STUDENT_MEAN: means[:, 1],
                records.SPREAD: spread * share,
            }

    def weigh(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the students' loss times their weights, [k] each, where the students now are."""
        inputs = self._gather_inputs(batch)
        output, _ = self._forward(inputs.images)
        terms = self._evaluate_terms(inputs, batch.share, output)
        return {name: weight * terms[name] for name, weight in self._weights.items()}

    def _evaluate_terms(self, inputs: Inputs, share: float, output: Output) -> dict[str, Tensor]:
        """The stage's terms, this worker's share of each, [k]; the discriminators are constant here."""
        cell = self._cell
        terms: dict[str, Tensor] = self._pack.each_objective(
            _evaluate, output, inputs.target, inputs.labels, inputs.image_ids
        )
        if self._adversary is not None:

            def judge(discriminator: Discriminator, judged: Tensor, labels: Tensor) -> Tensor:
                return student_adversarial_loss(
                    discriminator(judged), labels, gan=self._keys["gan"], category=cell.classifies_source
                )

            judged = self._judged(output, inputs.mask, student=True)
            terms["adversarial"] = self._pack.each_discriminator(judge, judged, inputs.labels)
        return {name: terms[name] * share for name in self._weights}

    def _step_student(self, inputs: Inputs, share: float, output: Output, held: Output) -> dict[str, Tensor]:
        """Minimises the stage's terms, eq. (3), over the students; the other networks are constants here."""
        loss = output.logits.new_zeros(len(output.logits))
        figures: dict[str, Tensor] = {}
        for name, term in self._evaluate_terms(inputs, share, output).items():
            figures[f"loss_{name}"] = term
            loss = loss + self._weights[name] * term
        optimizer = self._pack.student_optimizer
        parameters = optimizer.param_groups[0]["params"]
        optimizer.zero_grad()
        if self._adversary is not None and self._compares:
            adversarial = self._weights["adversarial"] * figures["loss_adversarial"]
            compared = held.logits if self._adversary.tap == "logits" else held.descriptor
            figures[records.GRADIENT_RATIO] = self._backward(loss, adversarial, compared, parameters)
            figures[records.GRADIENT_RATIO] *= share
        else:
            loss.sum().backward(inputs=parameters)  # type: ignore[no-untyped-call]
        self._sum_students()
        optimizer.step()
        clip_weights(self._quantized)
        return {"loss_total": loss, **figures}

    def _image_ids(self, batch: Batch) -> Tensor | None:
        """The numbers of a batch's images, [k, B], where a term reads them."""
        if not self._reads_index:
            return None
        assert batch.image_ids is not None
        return move(batch.image_ids, batch.labels.device)

    def _backward(
        self, loss: Tensor, adversarial: Tensor, judged: Tensor, parameters: list[nn.Parameter]
    ) -> Tensor:
        """Accumulates the losses' gradients, and gives the adversarial part's norm over that of all others.

        Both norms are of the gradient at what the discriminator judges, over the whole batch; [k].
        """
        (of_adversary,) = torch.autograd.grad(adversarial.sum(), judged, retain_graph=True)
        of_all: list[Tensor] = []
        handle = judged.register_hook(of_all.append)  # type: ignore[no-untyped-call]
        loss.sum().backward(inputs=parameters)  # type: ignore[no-untyped-call]
        handle.remove()
        parts = [self._pack.split(part.double()) for part in (of_adversary, of_all[0] - of_adversary)]
        squares = torch.stack([part.square().sum(dim=(1, 2)) for part in parts])
        sum_over_workers([squares], self._context)
        return (squares[0] / squares[1].clamp(min=torch.finfo(torch.float64).tiny)).sqrt()


def _evaluate(
    objective: Objective, output: Output, target: Output | None, labels: Tensor, index: Tensor | None
) -> dict[str, Tensor]:
    terms: dict[str, Tensor] = objective(output, target, labels, index)
    return terms
