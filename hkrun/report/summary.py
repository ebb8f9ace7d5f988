"""A sweep's results as numbers: what its finished runs say, what is missing, and how sure that is.

Only finished runs are data. Failed, diverged and missing ones are listed by seed and never averaged around.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hkrun import stats
from hkrun.config import Cell
from hkrun.report.published import Claim, PublishedTable
from hkrun.spaces import Sweep
from hkrun.store import Record, TeacherRecord

Curve = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class CellSummary:
    """One cell of a sweep.

    Attributes:
        cell_id: Its id.
        name: Its name in the sweep.
        cell: Its configuration.
        records: Of the sweep's seeds, by seed.
        seeds: The finished ones: the data.
        failed: Seeds whose run failed.
        diverged: Seeds whose run diverged.
        missing: Seeds whose run has not ended.
        error_pct: Test error in percent of the finished runs, shape [seeds, epochs].
        diverged_curves: Test error of the diverged runs, each as far as it came.
        error_last: Of the last epoch; None where no run finished.
        error_best: The lowest of any epoch, which selects on the test set; None where no run finished.
        stability: S; None where it is undefined.
        undefined: Why S is undefined.
    """

    cell_id: str
    name: str
    cell: Cell
    records: tuple[Record, ...]
    seeds: tuple[int, ...]
    failed: tuple[int, ...]
    diverged: tuple[int, ...]
    missing: tuple[int, ...]
    error_pct: Curve
    diverged_curves: tuple[Curve, ...]
    error_last: stats.ErrorSummary | None
    error_best: stats.ErrorSummary | None
    stability: stats.Stability | None
    undefined: str | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One cell against another, on seeds that both finished.

    Attributes:
        measure: "error": mean paired difference of the last epoch's error in percentage points, with its t
            interval and a sign-flip permutation test; "stability": difference of S in (percentage points)
            squared, with a test that permutes the two cells' labels within each seed.
        cell: Name of the cell.
        reference: Name of the one it is compared with.
        value: Mean error, or S, of the cell on these seeds.
        reference_value: The same of the reference.
        by_seed: The paired differences of the error.
        ci95: Interval of the difference; None where there is none.
        p: Two-sided.
        p_holm: `p`, corrected for all comparisons of its table.
        n: Number of seeds.
    """

    measure: str
    cell: str
    reference: str
    value: float
    reference_value: float
    by_seed: tuple[float, ...] = ()
    ci95: Interval | None = None
    p: float
    p_holm: float
    n: int

    @property
    def difference(self) -> float:
        """Cell minus reference."""
        return self.value - self.reference_value

    @property
    def obstacle(self) -> str | None:
        """Why the two S must not be ranked, as part of a sentence; None where they may be."""
        pair = stats.StabilityComparison(
            s=self.value, s_reference=self.reference_value, p=self.p, runs=self.n
        )
        return stats.ranking_obstacle(pair, p_holm=self.p_holm)

    @property
    def significant(self) -> bool:
        """Whether the difference stands at 5 % after Holm's correction."""
        return self.p_holm <= stats.LEVEL


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a sweep says of one claim of the paper.

    Attributes:
        claim: The claim.
        outcome: "supported", "contradicted", "undecided", or "not judged" where the sweep has no runs for it.
        comparisons: Those behind it; the claim says that each difference is negative.
    """

    claim: Claim
    outcome: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A teacher of the sweep's cells.

    Attributes:
        teacher_id: Its id.
        hash: SHA-256 of its weights, as the runs recorded it; None where no run did.
        record: How it was trained; None where the store does not hold these weights.
        alone_pct: Test error of its cells' student trained alone, where that is known.
        alone_source: Where that is known from.
        plateau_pct: The same after so many epochs that more no longer help, where the recipe tells it.
    """

    teacher_id: str
    hash: str | None
    record: TeacherRecord | None
    alone_pct: float | None
    alone_source: str
    plateau_pct: float | None = None

    @property
    def to_beat(self) -> tuple[float, str] | None:
        """The lowest error its student is known to reach alone, and how; None where none is known."""
        known = [
            (error_pct, source)
            for error_pct, source in (
                (self.alone_pct, self.alone_source),
                (self.plateau_pct, "at its plateau"),
            )
            if error_pct is not None
        ]
        return min(known, default=None)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All that a report says of a sweep.

    Attributes:
        sweep: The sweep.
        store: URI of the store.
        cells: In the sweep's order.
        comparisons: Of the error with the sweep's reference cell.
        stability_comparisons: Of S with the reference cell, both over the seeds that both cells finished.
        teachers: One per configuration of a teacher; usually one.
        published: The table of the paper that the sweep is set against.
        verdicts: On that table's claims.
        quantum_pct: What one test image is worth, in percentage points; None before the first run.
        warnings: What a reader must know before believing the numbers, one sentence or two each.
    """

    sweep: Sweep
    store: str
    cells: tuple[CellSummary, ...]
    comparisons: tuple[Comparison, ...]
    stability_comparisons: tuple[Comparison, ...]
    teachers: tuple[Teacher, ...]
    published: PublishedTable | None
    verdicts: tuple[Verdict, ...]
    quantum_pct: float | None
    warnings: tuple[str, ...] = ()

    @property
    def records(self) -> list[Record]:
        """Every record of the sweep once, though two names may share a cell."""
        return [
            record for cell in {cell.cell_id: cell for cell in self.cells}.values() for record in cell.records
        ]

    def find_comparison(self, cell: str, *, measure: str = "error") -> Comparison | None:
        """The comparison of a cell with the reference."""
        comparisons = self.comparisons if measure == "error" else self.stability_comparisons
        return next((comparison for comparison in comparisons if comparison.cell == cell), None)

    def describe_uncompared(self, cell: CellSummary) -> str:
        """What stands in place of a cell's comparison with the reference where there is none."""
        reference = next((other for other in self.cells if other.name == self.sweep.reference), None)
        if reference is cell:
            return "reference"
        return "same cell" if reference and reference.cell_id == cell.cell_id else "-"

    def document(self) -> dict[str, object]:
        """The JSON document of `sweep --json` and `report --json`, without its "mlflow" part."""
        teacher = self.teachers[0] if self.teachers else None
        return {
            "sweep": self.sweep.name,
            "store": self.store,
            "dataset": self.sweep.dataset,
            "teacher": _teacher_document(teacher) if teacher else None,
            "cells": [_cell_document(cell, self) for cell in self.cells],
            "comparisons": [_comparison_document(comparison) for comparison in self.comparisons],
            "stability_comparisons": [
                _comparison_document(comparison) for comparison in self.stability_comparisons
            ],
            "claims": [
                {
                    "id": verdict.claim.id,
                    "statement": verdict.claim.statement,
                    "outcome": verdict.outcome,
                    "comparisons": [_comparison_document(comparison) for comparison in verdict.comparisons],
                }
                for verdict in self.verdicts
            ],
            "warnings": list(self.warnings),
        }


def _teacher_document(teacher: Teacher) -> dict[str, object]:
    return {"hash": teacher.hash, "error_pct": teacher.record.error_pct if teacher.record else None}


def _cell_document(cell: CellSummary, summary: Summary) -> dict[str, object]:
    return {
        "cell_id": cell.cell_id,
        "name": cell.name,
        "seeds": list(cell.seeds),
        "failed": list(cell.failed),
        "diverged": list(cell.diverged),
        "missing": list(cell.missing),
        "error_last": _error_document(cell.error_last),
        "error_best": _error_document(cell.error_best),
        "stability": _stability_document(cell, summary),
    }


def _error_document(errors: stats.ErrorSummary | None) -> dict[str, object]:
    if errors is None:
        return {"mean": None, "sd": None, "n": 0, "ci95": None}
    return {"mean": errors.mean, "sd": errors.sd, "n": errors.n, "ci95": _listed(errors.ci95)}


def _stability_document(cell: CellSummary, summary: Summary) -> dict[str, object]:
    found = cell.stability
    return {
        "s": found.s if found else None,
        "ddof": summary.sweep.ddof,
        "s_ddof1": found.s_ddof1 if found else None,
        "window": summary.sweep.window,
        "runs": len(cell.seeds),
        "mean_range": found.mean_range if found else None,
        "within_run_sd": found.within_run_sd if found else None,
        "ci95": _listed(found.ci95) if found else None,
        "quantum_pct": summary.quantum_pct,
        **({"reason": cell.undefined} if found is None else {}),
    }


def _comparison_document(comparison: Comparison) -> dict[str, object]:
    return {
        "cell": comparison.cell,
        "reference": comparison.reference,
        "difference": comparison.difference,
        "ci95": _listed(comparison.ci95),
        "p": comparison.p,
        "p_holm": comparison.p_holm,
        "n": comparison.n,
    }


def _listed(interval: Interval | None) -> list[float] | None:
    return list(interval) if interval is not None else None
