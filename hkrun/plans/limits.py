"""Which cells a step that is too large will lose, as far as that is known before they train.

Gradient descent with momentum m leaves a minimum along a direction of curvature above 2 (1 + m) / rate. What
is known of the curvature comes from a rehearsal of the cell (`hkrun sweep --check`), which the store keeps;
where there is none, from the recipe, which has measured it per unit of a term's weight for its own networks.
"""

import contextlib
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hkrun.config import Cell, get_value, learning_rate
from hkrun.counting import list_names
from hkrun.spaces import Recipe
from hkrun.store import DamagedError, NotCommittedError, Store

REHEARSAL_FILE = "rehearsal.json"
REHEARSAL_SEEDS = (10_000, 10_001, 10_002)  # apart from those of every search space
# What a curvature that the recipe has measured depends on, besides the weight.
_MEASURED_WITH = (
    *("dataset", "precision", "student.network", "student.batch_size", "student.file"),
    *("teacher.network", "teacher.file", "teacher.epochs", "teacher.learning_rate"),
    *("attention.connection", "attention.pool", "attention.tap", "attention.width"),
    *("knowledge.tap", "knowledge.relative", "loss.distance", "loss.reduction"),
    *("augment.padding", "augment.flip"),
)


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What the first steps of a cell came to, on students that were thrown away.

    Attributes:
        steps: How many there were.
        students: How many students took them.
        lost: How many of these were lost.
        how: How the first was: "diverged", its loss no longer finite, or "collapsed", its logits the same for
            all images.
        first_step: At which step.
        stage: In which stage of the method, from 0.
        key: The key that most of the curvature hangs on: the weight of a term, or a learning rate.
        value: Its value.
        curvature: The largest eigenvalue of the weighted loss's Hessian some steps before; None where the
            loss has no second derivative.
        limit: The stability limit of the step, 2 (1 + momentum) / learning rate.
        holds: The first of half the value, a quarter and so on at which none was lost; None where there was
            none.
    """

    steps: int
    students: int
    lost: int = 0
    how: str = ""
    first_step: int = 0
    stage: int = 0
    key: str = ""
    value: float = 0.0
    curvature: float | None = None
    limit: float = 0.0
    holds: float | None = None


@dataclass(frozen=True, kw_only=True)
class LimitWarning:
    """Cells that one key pushes beyond the stability limit of the step.

    Attributes:
        cells: Their names.
        key: The key.
        value: Its value there.
        curvature: Of the weighted loss; None where it is not known.
        limit: What the curvature must stay below.
        holds: A value below the limit: one at which a rehearsal lost no student, or as the recipe's curvature
            has it; None where none is known.
        basis: Where that is known from.
        certain: Whether no student held there, and not only some were lost.
    """

    cells: tuple[str, ...]
    key: str
    value: float
    curvature: float | None
    limit: float
    holds: float | None
    basis: str
    certain: bool = True

    @property
    def sentence(self) -> str:
        """For people."""
        curvature = "" if self.curvature is None else f" has curvature {self.curvature:.3g} and"
        onward = f"{self.key} = {self.holds:g} holds" if self.holds is not None else "lower the learning rate"
        modal = "Will" if self.certain else "May"
        return (
            f"{modal} diverge or collapse: {list_names(self.cells, 3)}: "
            f"{self.key} = {self.value:g}{curvature} passes the stability limit "
            f"{self.limit:.3g} of the step, 2 (1 + momentum) / learning rate; {onward} ({self.basis})"
        )

    def document(self) -> dict[str, object]:
        """What `--json` prints."""
        return {**dataclasses.asdict(self), "cells": list(self.cells)}


def stability_limit(cell: Cell, stage: int) -> float:
    """2 (1 + m) / rate at the highest learning rate of a stage, from 0."""
    student, epochs = cell.student, cell.stage_epochs[stage]
    peak = max(
        learning_rate(
            epoch,
            first=cell.first_learning_rate(stage),
            epochs=epochs,
            drops=student.drops,
            factor=student.drop_factor,
            warmup_epochs=student.warmup_epochs,
        )
        for epoch in range(epochs)
    )
    return 2 * (1 + student.momentum) / peak


def find_weight_key(cell: Cell, stage: int, term: str) -> tuple[str, float]:
    """The key that weighs a term of a stage, and its value; a learning rate where the weight is no key."""
    for weighted in cell.declared_method.stages[stage].terms:
        if weighted.name == term and isinstance(weighted.weight, str) and not weighted.complement:
            return weighted.weight, float(get_value(cell, weighted.weight))  # type: ignore[arg-type]
    first = stage < len(cell.stage_epochs) - 1
    key = "student.first_stage_learning_rate" if first else "student.learning_rate"
    return key, cell.first_learning_rate(stage)


def foresee_limits(
    cells: Sequence[tuple[str, str, Cell]], recipe: Recipe, rehearsals: Mapping[str, Rehearsal]
) -> tuple[LimitWarning, ...]:
    """Which cells will be lost.

    Args:
        cells: Name, cell_id and configuration of each that has runs to make.
        recipe: The recipe of their data set.
        rehearsals: Those that were made, by cell_id.
    """
    found: dict[LimitWarning, list[str]] = {}
    for name, identity, cell in cells:
        warning = (
            _from_rehearsal(rehearsals[identity]) if identity in rehearsals else _from_recipe(cell, recipe)
        )
        if warning is not None:
            found.setdefault(warning, []).append(name)
    return tuple(dataclasses.replace(warning, cells=tuple(names)) for warning, names in found.items())


def _from_rehearsal(rehearsal: Rehearsal) -> LimitWarning | None:
    if not rehearsal.lost:
        return None
    return LimitWarning(
        cells=(),
        key=rehearsal.key,
        value=rehearsal.value,
        curvature=rehearsal.curvature,
        limit=rehearsal.limit,
        holds=rehearsal.holds,
        basis=f"rehearsed: {rehearsal.lost} of {rehearsal.students} students {rehearsal.how}, the first at "
        f"step {rehearsal.first_step}",
        certain=rehearsal.lost == rehearsal.students,
    )


def _from_recipe(cell: Cell, recipe: Recipe) -> LimitWarning | None:
    """The term that is furthest beyond the limit, of those whose curvature the recipe has measured."""
    if any(get_value(cell, key) != get_value(recipe.cell, key) for key in _MEASURED_WITH):
        return None
    warnings: dict[LimitWarning, float] = {}  # with how far each is beyond its limit
    for stage, terms in enumerate(cell.stage_terms):
        limit = stability_limit(cell, stage)
        for name, term in terms.items():
            figure = recipe.evidence.get(f"curvature_{term.name}", {})
            per_unit, weight = figure.get("value"), cell.stage_weights[stage][name]
            if not term.name or not isinstance(per_unit, int | float) or weight * per_unit < limit:
                continue
            key, value = find_weight_key(cell, stage, name)
            warning = LimitWarning(
                cells=(),
                key=key,
                value=value,
                curvature=weight * per_unit,
                limit=limit,
                holds=_round_down(value * limit / (weight * per_unit)),
                basis=f"recipe of {recipe.dataset}, {figure['label']}",
            )
            warnings[warning] = weight * per_unit / limit
    return max(warnings, key=lambda warning: warnings[warning], default=None)


def _round_down(value: float) -> float:
    """To four digits, so that what a warning recommends is not beyond the limit itself."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return float(f"{math.floor(value / unit) * unit:.4g}")


def save_rehearsal(store: Store, identity: str, rehearsal: Rehearsal) -> None:
    """Keeps the rehearsal of a cell."""
    content = json.dumps(dataclasses.asdict(rehearsal), indent=1).encode()
    store.commit(f"rehearsals/{identity}", {REHEARSAL_FILE: content})


def load_rehearsal(store: Store, identity: str) -> Rehearsal | None:
    """The rehearsal of a cell; None where there was none, or it cannot be understood."""
    with contextlib.suppress(DamagedError, NotCommittedError, ValueError, TypeError):
        return Rehearsal(**json.loads(store.read(f"rehearsals/{identity}", REHEARSAL_FILE)))
    return None
