"""Runs of one cell that take their steps together."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from hkrun.distill.run import Run
from hkrun.models import DistilledNetwork, Output
from hkrun.models.joining import join_optimizers
from hkrun.models.packed import PackedNetwork
from hkrun.models.quantized import quantized_layers
from hkrun.models.sgd import SGD
from hkrun.models.stacked import Stacked, each_of, lead


class Pack:
    """k runs as one student, one discriminator and one optimiser for each.

    All that its methods take and give has a leading dimension of k, a single run's too. The runs' own
    networks and optimisers stay up to date: they share their memory with the pack's. A run alone is trained
    as it is.

    Args:
        runs: At the same epoch of the same cell.

    Attributes:
        runs: The same.
        student_optimizer: Over the students and their objectives.
        discriminator_optimizer: None where there is no discriminator.
    """

    student_optimizer: SGD
    discriminator_optimizer: SGD | None
    _students: DistilledNetwork | PackedNetwork
    _objectives: nn.Module
    _discriminators: nn.Module | None

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)
        (first, *others) = runs
        if not others:
            self._students, self._objectives = first.student, first.objective
            self._discriminators = first.discriminator
            self.student_optimizer = first.student_optimizer
            self.discriminator_optimizer = first.discriminator_optimizer
            first.student.lay_out()  # it may be what is left of a larger pack
            first.student_optimizer.lay_out()
            return
        self._students = PackedNetwork([run.student for run in runs])
        objectives = Stacked([run.objective for run in runs])
        self._objectives = objectives
        self.student_optimizer = join_optimizers(
            [run.student_optimizer for run in runs], [*self._students.joins, *objectives.joins]
        )
        self._discriminators = self.discriminator_optimizer = None
        if first.discriminator is not None:
            discriminators = Stacked([run.discriminator for run in runs if run.discriminator is not None])
            self._discriminators = discriminators
            self.discriminator_optimizer = join_optimizers(
                [run.discriminator_optimizer for run in runs if run.discriminator_optimizer is not None],
                discriminators.joins,
            )

    @property
    def state(self) -> list[Tensor]:
        """All that a step can change: parameters, buffers and momenta, as the pack holds them."""
        modules = (self._students, self._objectives, self._discriminators)
        tensors = [
            tensor
            for module in modules
            if module is not None
            for tensor in (*module.parameters(), *module.buffers())
        ]
        optimizers = (self.student_optimizer, self.discriminator_optimizer)
        momenta = [
            value
            for optimizer in optimizers
            if optimizer is not None
            for held in optimizer.state.values()
            for value in held.values()
            if isinstance(value, Tensor)
        ]
        return [*tensors, *momenta]

    def train(self) -> None:
        """Puts the students in training mode."""
        self._students.train()

    def quantized_weights(self) -> list[tuple[nn.Module, Tensor]]:
        """The quantisers of the students' layers, with the real weights of all runs: [filters, ...] of each.

        TTQ's are left out of several runs': only the optimiser changes its weights.
        """
        if isinstance(self._students, PackedNetwork):
            return self._students.quantized_weights()
        layers = quantized_layers(self._students.backbone).values()
        return [(layer.quantizer, layer.weight) for layer in layers]

    def forward(self, images: Tensor) -> tuple[Output, Output]:
        """What each student computes from its own images, [k, B, channels, H, W].

        Returns:
            The output, and the same as the networks hold it: from its logits and descriptor all else of the
            output is computed, so their gradients are those of the whole loss. `split` brings them into the
            form of the output.
        """
        if isinstance(self._students, PackedNetwork):
            packed: tuple[Output, Output] = self._students(images)
            return packed
        held: Output = self._students(images[0])
        output: Output = lead(held)
        return output, held

    def split(self, values: Tensor) -> Tensor:
        """[k, B, C] of logits or descriptors as the networks hold them."""
        return values.reshape(len(values), len(self.runs), -1).transpose(0, 1)

    def classify(self, images: Tensor) -> Tensor:
        """Each student's logits in eval mode, [k, B, classes], of the same images, [B, channels, H, W]."""
        if self._students.training:
            self._students.eval()
        if isinstance(self._students, PackedNetwork):
            return self._students.classify(images)
        logits: Tensor = self._students.backbone(images).logits
        return logits[None]

    def each_objective(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(objective, *args)` of every run; see `hkrun.models.stacked.Stacked.each`."""
        return each_of(self._objectives, function, *args)

    def each_discriminator(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(discriminator, *args)` of every run; see `hkrun.models.stacked.Stacked.each`."""
        assert self._discriminators is not None
        return each_of(self._discriminators, function, *args)
