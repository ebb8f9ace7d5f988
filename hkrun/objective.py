"""What the student minimises in one stage of its method, the adversarial term left out.

Terms with parameters of their own (a regressor, a projection to the teacher's widths) learn them with the
student's optimiser; after the stage they are dropped.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hkrun.config import Cell
from hkrun.losses.features import (
    FlowProjection,
    HintLoss,
    VariationalLoss,
    attention_transfer_loss,
    fsp_loss,
    nst_loss,
)
from hkrun.losses.response import backbone_loss, cross_entropy, kd_loss, logits_l1_loss
from hkrun.losses.squeezed import knowledge_loss
from hkrun.methods import METHODS
from hkrun.models import Output
from hkrun.networks import parse_network


class Objective(nn.Module):
    """The terms of one stage, and the parameters that they learn beside the student.

    Args:
        cell: The configuration.
        stage: The stage of its method, from 0.

    Attributes:
        terms: Names of the terms, the adversarial one left out.
    """

    def __init__(self, cell: Cell, stage: int) -> None:
        super().__init__()
        weights = cell.stage_weights[stage]
        self.terms = tuple(name for name in weights if name != "adversarial")
        self._cell = cell
        self._learned = nn.ModuleDict()
        if not cell.uses_teacher:
            return
        teacher, student = parse_network(cell.teacher.network), parse_network(cell.student.network)
        form = self._form
        middle = _middle(student.widths)
        if form == "hint":
            self._learned["hint"] = HintLoss(
                student.widths[middle], teacher.widths[middle], reduction=self._reduction
            )
        elif form == "vid":
            self._learned["vid"] = VariationalLoss(student.widths, teacher.widths)
        elif form == "fsp":
            ends = (student.stem_width, *student.widths), (teacher.stem_width, *teacher.widths)
            if ends[0] != ends[1]:
                self._learned["fsp"] = FlowProjection(*ends)
        if (
            "adversarial" in weights
            and _tap(cell) == "descriptor"
            and student.widths[-1] != teacher.widths[-1]
        ):
            self._learned["judged"] = nn.Linear(student.widths[-1], teacher.widths[-1], bias=False)

    @property
    def _form(self) -> str:
        """The form of intermediate knowledge that this stage transfers; empty where it transfers none."""
        if "knowledge" in self.terms:
            return self._cell.knowledge.form
        return next((form for form in ("hint", "fsp") if form in self.terms), "")

    @property
    def _reduction(self) -> str:
        """Over the elements of FSP's flows and FitNets' hint."""
        return "relative" if self._cell.knowledge.relative else self._cell.loss.reduction

    def forward(self, student: Output, teacher: Output | None, labels: Tensor) -> dict[str, Tensor]:
        """The terms, unweighted, each averaged over the batch of B images.

        Args:
            student: What the student computed from the batch.
            teacher: The same of the teacher, without gradients; None where no term uses it.
            labels: Shape [B].
        """
        return {name: self._term(name, student, teacher, labels) for name in self.terms}

    def judged(self, output: Output, *, student: bool) -> Tensor:
        """What the discriminator judges, [B, width]: of the student's, mapped to the teacher's width."""
        if _tap(self._cell) == "logits":
            return output.logits
        if student and "judged" in self._learned:
            return self._learned["judged"](output.descriptor)  # type: ignore[no-any-return]
        return output.descriptor

    def _term(self, name: str, student: Output, teacher: Output | None, labels: Tensor) -> Tensor:
        loss = self._cell.loss
        if name == "cross_entropy":
            return cross_entropy(student.logits, labels)
        assert teacher is not None
        match name:
            case "backbone":
                return backbone_loss(student.logits, teacher.logits, reduction=loss.reduction)
            case "logits_l1":
                return logits_l1_loss(student.logits, teacher.logits, reduction=loss.reduction)
            case "kd":
                return kd_loss(student.logits, teacher.logits, temperature=loss.temperature)
        return self._transfer(student, teacher)

    def _transfer(self, student: Output, teacher: Output) -> Tensor:
        """The term on intermediate knowledge."""
        loss = self._cell.loss
        if self._form == "squeezed":
            assert student.knowledge is not None
            assert teacher.knowledge is not None
            return knowledge_loss(
                student.knowledge, teacher.knowledge, distance=loss.distance, reduction=loss.reduction
            )
        dtype = student.logits.dtype
        mine, theirs = self._tapped(student.stages, dtype), self._tapped(teacher.stages, dtype)
        match self._form:
            case "at":
                return attention_transfer_loss(mine, theirs)
            case "nst":
                return nst_loss(mine, theirs)
            case "vid":
                return self._learned["vid"](mine, theirs)  # type: ignore[no-any-return]
            case "hint":
                middle = _middle(mine)
                return self._learned["hint"](mine[middle], theirs[middle])  # type: ignore[no-any-return]
        mine = self._tapped([student.stem], dtype) + mine
        theirs = self._tapped([teacher.stem], dtype) + theirs
        if "fsp" in self._learned:
            mine = self._learned["fsp"](mine)
        pairs = (list(itertools.pairwise(maps)) for maps in (mine, theirs))
        return fsp_loss(*pairs, reduction=self._reduction)

    def _tapped(self, maps: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """Feature maps where `knowledge.tap` reads them."""
        maps = [tensor.to(dtype) for tensor in maps]
        return [tensor.relu() for tensor in maps] if self._cell.knowledge.tap == "relu" else maps


def _tap(cell: Cell) -> str:
    adversary = METHODS[cell.method].adversary
    return "logits" if adversary is None else adversary.tap


def _middle(stages: Sequence[object]) -> int:
    return (len(stages) - 1) // 2
