"""Stage 2 written again, as plainly as the method's page states it, to compare the loop with.

Shares with hkrun only the networks, the seeds and the views' numbering; crops, losses and both optimisers are
spelled out here.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from hkrun.config import Cell
from hkrun.data import Dataset
from hkrun.distill import Run
from hkrun.models import DistilledNetwork
from hkrun.seeding import Purpose, derive


class Sgd:
    """v <- m v + g + w p;  p <- p - lr v; the first v is g + w p."""

    def __init__(self, parameters: list[Tensor], momentum: float, weight_decay: float) -> None:
        self.parameters, self.momentum, self.weight_decay = parameters, momentum, weight_decay
        self.velocity: list[Tensor | None] = [None] * len(parameters)

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...], rate: float) -> None:
        for index, (parameter, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            gradient = gradient + self.weight_decay * parameter
            old = self.velocity[index]
            new = gradient if old is None else self.momentum * old + gradient
            self.velocity[index] = new
            parameter -= rate * new


def crop(image: Tensor, view: int, padding: int, flip: bool) -> Tensor:
    """One view of a uint8 image [C, H, W], cut out of it and a margin of zeros."""
    height, width = image.shape[1:]
    places = 2 * padding + 1
    mirrored, corner = divmod(view, places * places)
    top, left = divmod(corner, places)
    framed = torch.zeros(image.shape[0], height + 2 * padding, width + 2 * padding, dtype=image.dtype)
    framed[:, padding : padding + height, padding : padding + width] = image
    result = framed[:, top : top + height, left : left + width]
    assert flip or not mirrored
    return result.flip(-1) if mirrored else result


def rate_scale(cell: Cell, epoch: int) -> float:
    """What the drops leave of the first learning rates in an epoch, from 0."""
    settings = cell.student
    dropped = sum(epoch >= fraction * settings.epochs for fraction in settings.drops)
    return settings.drop_factor**dropped


def batches(cell: Cell, dataset: Dataset, *, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The normalised images [B, C, H, W] and labels of each step of an epoch."""
    size = cell.student.batch_size
    views = (2 * cell.augment.padding + 1) ** 2 * (2 if cell.augment.flip else 1)
    generator = torch.Generator().manual_seed(derive(seed, Purpose.ORDER, epoch))
    order = torch.randperm(len(dataset.train), generator=generator)
    generator = torch.Generator().manual_seed(derive(seed, Purpose.AUGMENTATION, epoch))
    chosen = torch.randint(views, (len(dataset.train),), generator=generator)
    mean, std = dataset.mean.view(1, -1, 1, 1), dataset.std.view(1, -1, 1, 1)
    for first in range(0, len(order) - size + 1, size):
        raw = torch.stack(
            [
                crop(dataset.train.images[order[p]], int(chosen[p]), cell.augment.padding, cell.augment.flip)
                for p in range(first, first + size)
            ]
        )
        yield (raw.double() / 255 - mean) / std, dataset.train.labels[order[first : first + size]]


def train(
    run: Run, cell: Cell, dataset: Dataset, teacher: DistilledNetwork, *, seed: int, epochs: int
) -> None:
    """Trains copies of a run's networks in float64 for some epochs, and puts them into the run."""
    student, critic = copy.deepcopy(run.student), copy.deepcopy(run.discriminator)
    assert critic is not None
    settings, loss = cell.student, cell.loss
    student_sgd = Sgd(list(student.parameters()), settings.momentum, settings.weight_decay)
    critic_sgd = Sgd(list(critic.parameters()), settings.momentum, settings.weight_decay)
    for epoch in range(epochs):
        scale = rate_scale(cell, epoch)
        for images, labels in batches(cell, dataset, seed=seed, epoch=epoch):
            with torch.no_grad():
                target = teacher(images)
            output = student(images)
            constant = output.logits.detach()

            def bce(logit: Tensor, label: int) -> Tensor:
                probability = torch.sigmoid(logit)
                return -torch.log(probability if label else 1 - probability).mean()

            def category(logits: Tensor, labels: Tensor = labels) -> Tensor:
                return -torch.log_softmax(logits, 1)[torch.arange(len(labels)), labels].mean()

            on_teacher, on_student = critic(target.logits), critic(constant)
            weights = torch.cat([parameter.reshape(-1) for parameter in critic.parameters()])
            critic_loss = (
                bce(on_teacher.source, 1)
                + bce(on_student.source, 0)
                + category(on_teacher.classes)
                + category(on_student.classes)
                + loss.mu * (weights.abs().mean() + (weights**2).mean() + bce(on_student.source, 1))
            )
            gradients = torch.autograd.grad(critic_loss, critic_sgd.parameters)
            critic_sgd.step(gradients, cell.discriminator.learning_rate * scale)

            verdict = critic(output.logits)
            student_loss = (
                loss.lambda_1 * ((output.logits - target.logits) ** 2).mean()
                + loss.lambda_2 * (bce(verdict.source, 1) + category(verdict.classes))
                + loss.lambda_3 * ((output.knowledge - target.knowledge) ** 2).mean()
            )
            gradients = torch.autograd.grad(student_loss, student_sgd.parameters)
            student_sgd.step(gradients, settings.learning_rate * scale)
    run.student, run.discriminator = student, critic
