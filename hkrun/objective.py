"""What the student minimises in one stage of its method, the adversarial term left out.

Terms with parameters of their own (a regressor, a projection to the teacher's widths) learn them with the
student's optimiser; after the stage they are dropped.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from hkrun.config import Cell
from hkrun.losses import FUNCTIONS, read_stages
from hkrun.models import Output
from hkrun.networks import NetworkShape, parse_network
from hkrun.terms import Term


class Objective(nn.Module):
    """The terms of one stage, and the parameters that they learn beside the student.

    A term's function is given what the term declares to read and the keys that it declares, and nothing else.

    Args:
        cell: The configuration.
        stage: The stage of its method, from 0.
    """

    def __init__(self, cell: Cell, stage: int) -> None:
        super().__init__()
        terms = cell.stage_terms[stage]
        self._terms = {name: term for name, term in terms.items() if not term.discriminator}
        self._functions: dict[str, Callable[..., Tensor]] = {}
        self._learned = nn.ModuleDict()
        self._tap = cell.knowledge.tap
        self._judges = "" if cell.adversary is None else cell.adversary.tap
        for term in self._terms.values():
            keys = cell.read_keys(term)
            function = FUNCTIONS[term.name]
            if term.learns:
                self._learned[term.name] = function(*_widths(cell, term), **keys)
            else:
                self._functions[term.name] = partial(function, **keys)
        if len(terms) > len(self._terms) and self._judges == "descriptor":
            student, teacher = cell.student_widths[-1], cell.teacher_widths[-1]
            if student != teacher:
                self._learned["judged"] = nn.Linear(student, teacher, bias=False)

    def forward(self, student: Output, teacher: Output | None, labels: Tensor) -> dict[str, Tensor]:
        """The terms, unweighted, each averaged over the batch of B images.

        Args:
            student: What the student computed from the batch.
            teacher: The same of the teacher, without gradients; None where no term uses it.
            labels: Shape [B].
        """
        return {name: self._evaluate(term, student, teacher, labels) for name, term in self._terms.items()}

    def judged(self, output: Output, *, student: bool) -> Tensor:
        """What the discriminator judges, [B, width]: of the student's, mapped to the teacher's width."""
        if self._judges == "logits":
            return output.logits
        if student and "judged" in self._learned:
            return self._learned["judged"](output.descriptor)  # type: ignore[no-any-return]
        return output.descriptor

    def _evaluate(self, term: Term, student: Output, teacher: Output | None, labels: Tensor) -> Tensor:
        tap, dtype = self._tap if "knowledge.tap" in term.keys else "raw", student.logits.dtype
        read = [_read(student, part, tap=tap, dtype=dtype) for part in term.student]
        if term.teacher:
            assert teacher is not None
            read += [_read(teacher, part, tap=tap, dtype=dtype) for part in term.teacher]
        function = self._learned[term.name] if term.learns else self._functions[term.name]
        return function(*read, *([labels] if term.labels else []))


def _read(output: Output, part: str, *, tap: str, dtype: torch.dtype) -> Tensor | list[Tensor]:
    """A part of an output as `hkrun.terms` names it."""
    match part:
        case "stages" | "attention_maps":
            return read_stages(output.stages, tap=tap, dtype=dtype)
        case "stem_and_stages":
            return read_stages([output.stem, *output.stages], tap=tap, dtype=dtype)
    rows: Tensor = getattr(output, part)
    return rows


def _widths(cell: Cell, term: Term) -> list[Sequence[int]]:
    """The widths of the feature maps that a term reads, of the student and of the teacher."""
    networks = (cell.student.network, term.student), (cell.teacher.network, term.teacher)
    return [_part_widths(parse_network(name), part) for name, parts in networks for part in parts]


def _part_widths(shape: NetworkShape, part: str) -> tuple[int, ...]:
    return (shape.stem_width, *shape.widths) if part == "stem_and_stages" else shape.widths
