"""What the student minimises in one stage of its method, the adversarial term left out.

Terms with parameters of their own (a regressor, a projection to the teacher's widths) learn them with the
student's optimiser; after the stage they are dropped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from hkrun.config import Cell
from hkrun.losses import read_stages
from hkrun.models import Output
from hkrun.networks import parse_network
from hkrun.terms import TAP, Term
from hkrun.user_parts import load_part


@dataclass(frozen=True)
class DataSizes:
    """What the data say of the size of what terms learn.

    Attributes:
        num_classes: Classes.
        num_images: Training images.
    """

    num_classes: int
    num_images: int


class Objective(nn.Module):
    """The terms of one stage, and the parameters that they learn beside the student.

    A term's function is given what the term declares to read and the keys that it declares, and nothing else.

    Args:
        cell: The configuration.
        stage: The stage of its method, from 0.
        sizes: Of the data.

    Attributes:
        generator: What terms draw random numbers from; set before they are evaluated.
        gather: Gives a whole batch's rows for this worker's, for the terms that compare images; None where
            there is one worker.
    """

    def __init__(self, cell: Cell, stage: int, sizes: DataSizes) -> None:
        super().__init__()
        terms = cell.stage_terms[stage]
        self._terms = {name: term for name, term in terms.items() if not term.discriminator}
        self._functions: dict[str, Callable[..., Tensor]] = {}
        self._learned = nn.ModuleDict()
        self._slots = _name_slots(self._terms)
        self._tap = cell.knowledge.tap
        self._judges = "" if cell.adversary is None else cell.adversary.tap
        self.generator: torch.Generator | None = None
        self.gather: Callable[[Tensor], Tensor] | None = None
        for name, term in self._terms.items():
            keys, function = cell.read_keys(term), load_part(str(term.function))
            if term.num_images:
                keys["num_images"] = sizes.num_images
            if term.learns:
                self._learned[self._slots[name]] = function(*_widths(cell, term, sizes), **keys)
            else:
                self._functions[name] = partial(function, **keys)
        if len(terms) > len(self._terms) and self._judges == "descriptor":
            student, teacher = cell.student_descriptor_width, cell.teacher_descriptor_width
            if student != teacher:
                self._learned["judged"] = nn.Linear(student, teacher, bias=False)

    def forward(
        self, student: Output, teacher: Output | None, labels: Tensor, index: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The terms, unweighted, each averaged over the batch of B images.

        Args:
            student: What the student computed from the batch.
            teacher: The same of the teacher, without gradients; None where no term uses it.
            labels: Shape [B].
            index: Number of each image among the training images, [B]; None where no term reads it.
        """
        return {name: self.evaluate(name, student, teacher, labels, index) for name in self._terms}

    def learned(self, name: str) -> nn.Module:
        """What holds the parameters and buffers of a term; it is empty for one that learns nothing."""
        return self._learned[self._slots[name]] if self._terms[name].learns else nn.Module()

    def judged(self, output: Output, *, student: bool) -> Tensor:
        """What the discriminator judges, [B, width]: of the student's, mapped to the teacher's width."""
        if self._judges == "logits":
            return output.logits
        if student and "judged" in self._learned:
            return self._learned["judged"](output.descriptor)  # type: ignore[no-any-return]
        return output.descriptor

    def evaluate(
        self, name: str, student: Output, teacher: Output | None, labels: Tensor, index: Tensor | None
    ) -> Tensor:
        """One term by its name, likewise."""
        term = self._terms[name]
        tap, dtype = self._tap if TAP in term.keys else "raw", student.logits.dtype
        read: list[object] = [_read(student, part, tap=tap, dtype=dtype) for part in term.student]
        if term.teacher:
            assert teacher is not None
            read += [_read(teacher, part, tap=tap, dtype=dtype) for part in term.teacher]
        read += [labels] if term.labels else []
        read += [index] if term.index else []
        if term.over_batch and self.gather is not None:
            read = tree_map(self.gather, read)
        drawn = {"generator": self.generator} if term.random else {}
        function = self.learned(name) if term.learns else self._functions[name]
        loss: Tensor = function(*read, **drawn)
        return loss


def _name_slots(terms: Mapping[str, Term]) -> dict[str, str]:
    """What a checkpoint calls the parameters of each term: its declaration's name, else that in the loop.

    A name that two terms would have, or that torch's ModuleDict has itself, is told apart by a second one.
    """
    named = {name: term.name or name for name, term in terms.items()}
    taken = [
        slot
        for slot in named.values()
        if list(named.values()).count(slot) > 1 or hasattr(nn.ModuleDict, slot)
    ]
    return {name: f"{name}:{slot}" if slot in taken else slot for name, slot in named.items()}


def _read(output: Output, part: str, *, tap: str, dtype: torch.dtype) -> Tensor | list[Tensor]:
    """A part of an output as `hkrun.terms` names it."""
    match part:
        case "stages" | "attention_maps":
            return read_stages(output.stages, tap=tap, dtype=dtype)
        case "stem_and_stages":
            return read_stages([output.stem, *output.stages], tap=tap, dtype=dtype)
    rows: Tensor = getattr(output, part)
    return rows


def _widths(cell: Cell, term: Term, sizes: DataSizes) -> list[int | Sequence[int]]:
    """The widths of the parts that a term reads, of the student and of the teacher."""
    networks = (cell.student.network, term.student), (cell.teacher.network, term.teacher)
    return [_width(cell, name, part, sizes) for name, parts in networks for part in parts]


def _width(cell: Cell, network: str, part: str, sizes: DataSizes) -> int | Sequence[int]:
    shape = parse_network(network)
    match part:
        case "logits":
            return sizes.num_classes
        case "descriptor":
            return shape.widths[-1]
        case "knowledge":
            return sum(cell.squeeze_widths)
        case "stem_and_stages":
            return (shape.stem_width, *shape.widths)
    return shape.widths
