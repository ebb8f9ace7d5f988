"""Whether another precision would be quicker: advice alone, for it is another configuration."""

from dataclasses import dataclass

from hkrun.plans.plans import Plan

QUICKER = "bfloat16"


@dataclass(frozen=True, kw_only=True)
class PrecisionAdvice:
    """What `precision = "bfloat16"` would save.

    Attributes:
        share: Time of a step in it, in that of one in float32.
        label: Where the share was measured.
        names: The cells with runs to make that it was measured for.
    """

    share: float
    label: str
    names: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """A line for people."""
        return (
            f"precision={QUICKER} would take {self.share:g} of the time of a step on a processor with its "
            f"instructions, such as this one ({self.label}), and changes numbers: those are other "
            "configurations, with runs of their own"
        )

    def document(self) -> dict[str, object]:
        """What `sweep --dry-run --json` prints of it."""
        return {"precision": QUICKER, "share": self.share, "label": self.label, "cells": list(self.names)}


def advise_precision(plan: Plan) -> PrecisionAdvice | None:
    """What bfloat16 saves on CPUs that have its instructions, as the recipe has measured for its student.

    None where there is none, where it does not pay, or where no run of such a cell is to be made in float32.
    """
    recipe = plan.sweep.recipe
    measured = recipe.evidence.get(f"{QUICKER}_share_cpu", {})
    share, student = measured.get("value"), recipe.cell.student.network
    names = tuple(
        planned.name
        for planned in plan.distinct_cells
        if planned.to_run and planned.cell.precision == "float32" and planned.cell.student.network == student
    )
    if not isinstance(share, int | float) or share >= 1 or not names:
        return None
    return PrecisionAdvice(share=float(share), label=str(measured["label"]), names=names)
