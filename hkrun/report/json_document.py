"""A summary as JSON: the document of `sweep --json` and `report --json`."""

import dataclasses

from hkrun import stats
from hkrun.report.answers import write_answer
from hkrun.report.commands import describe_command, describe_next
from hkrun.report.comparison import Comparison, Ratio
from hkrun.report.run_tables import tabulate_conditions
from hkrun.report.summary import Best, CellSummary, Summary, Teacher, VarianceSplit
from hkrun.report.verdict import PowerForecast, Verdict
from hkrun.report.wording import describe_scope, find_test_set, write_findings

Interval = tuple[float, float]


def summary_document(summary: Summary) -> dict[str, object]:
    """The JSON document of a sweep, without its "mlflow" part."""
    teacher = summary.teachers[0] if summary.teachers else None
    return {
        "sweep": summary.sweep.name,
        "title": summary.sweep.title,
        "question": summary.sweep.question,
        "store": summary.store,
        "dataset": summary.sweep.dataset,
        "teacher": _teacher_document(teacher) if teacher else None,
        "cells": [_cell_document(cell, summary) for cell in summary.cells],
        "comparisons": [_comparison_document(comparison) for comparison in summary.comparisons],
        "stability_comparisons": [
            _comparison_document(comparison) for comparison in summary.stability_comparisons
        ],
        **({"equivalences": equivalences} if (equivalences := _equivalences(summary)) else {}),
        "s2_ratios": [_ratio_document(ratio) for ratio in summary.s2_ratios],
        "sd_last_ratios": [_ratio_document(ratio) for ratio in summary.deviation_ratios],
        "divergence": list(map(dataclasses.asdict, summary.divergence)),
        "claims": [_verdict_document(verdict) for verdict in summary.verdicts],
        "s2_claims": [_verdict_document(verdict) for verdict in summary.s2_verdicts],
        **({"variance": list(map(_variance_document, summary.variance))} if summary.variance else {}),
        **_looks_document(summary),
        "scope": _scope_document(summary),
        "family": {
            "corrected": summary.sweep.family,
            "tables": summary.num_tables,
            "tests": summary.num_tests,
        },
        "measure": summary.measure,
        "best": list(map(_best_document, summary.best)),
        "findings": [*write_answer(summary), *write_findings(summary)],
        "warnings": list(summary.warnings),
        "conditions": {row[0].text: row[1].text for row in tabulate_conditions(summary).rows},
        "command": describe_command(summary),
        "next": dict(zip(("command", "reason"), describe_next(summary), strict=True)),
    }


def _scope_document(summary: Summary) -> dict[str, object]:
    found = find_test_set(summary)
    images, error_pct, error_of_it = found or (None, None, None)
    return {
        "text": describe_scope(summary),
        "test_images": images,
        "error_pct": error_pct,
        "binomial_se_pp": error_of_it,
    }


def _equivalences(summary: Summary) -> list[dict[str, object]]:
    return [{**_comparison_document(item), "margin": item.margin} for item in summary.equivalences]


def _best_document(best: Best) -> dict[str, object]:
    return {
        "measure": best.measure,
        "cell": best.cell,
        "value": best.value,
        "told_from": list(best.told),
        "not_told_from": list(best.untold),
        **({"not_tested_against": list(best.untested)} if best.untested else {}),
        "not_in_the_running": list(best.left_out),
    }


def _variance_document(split: VarianceSplit) -> dict[str, object]:
    found = split.components
    parts = {
        "teacher": found.teacher,
        "student": found.student,
        "teacher_and_student": found.together,
        "epoch": found.column if split.over == "epochs" else None,  # cells are chosen, not drawn
        "residual": found.residual,
    }
    return {
        "over": split.over,
        "cells": list(split.cells),
        "runs": found.runs,
        "teachers": found.teachers,
        **{
            name: {"estimate": part.estimate, "variance": part.variance, "ci95": list(part.ci95)}
            for name, part in parts.items()
            if part is not None
        },
        **({"lag1": found.lag1} if split.over == "epochs" else {}),
    }


def _teacher_document(teacher: Teacher) -> dict[str, object]:
    error = teacher.error
    document: dict[str, object] = {"hash": teacher.hash, "error_pct": error.mean if error else None}
    if not teacher.several:
        return document
    return {
        **document,
        "sd": error.sd if error else None,
        "n": error.n if error else 0,
        "ci95": _listed(error.ci95) if error else None,
        "teachers": [
            {
                "teacher_id": trained.teacher_id,
                "seeds": list(trained.seeds),
                "hash": trained.hash,
                "error_pct": trained.record.error_pct if trained.record else None,
            }
            for trained in teacher.trained
        ],
    }


def _cell_document(cell: CellSummary, summary: Summary) -> dict[str, object]:
    return {
        "cell_id": cell.cell_id,
        "name": cell.name,
        "axes": summary.axes[cell.name],
        "seeds": list(cell.seeds),
        "failed": list(cell.failed),
        "diverged": list(cell.diverged),
        "missing": list(cell.missing),
        **({"untaught": list(cell.untaught)} if cell.untaught else {}),
        **({"stopped": list(cell.stopped)} if cell.stopped else {}),
        **({"spared": list(cell.spared)} if cell.spared else {}),
        "error_last": _error_document(cell.error_last, cell.selection),
        "error_best": _error_document(cell.error_best, cell.selection),
        "stability": _stability_document(cell, summary),
    }


def _error_document(errors: stats.ErrorSummary | None, selection: str | None) -> dict[str, object]:
    if errors is None:
        return {"mean": None, "sd": None, "n": 0, "ci95": None}
    return {
        "mean": errors.mean,
        "sd": errors.sd,
        "n": errors.n,
        "ci95": _listed(errors.ci95),
        **({"reason": selection} if selection else {}),
    }


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
        "extreme_runs": found.extreme_runs if found else None,
        "s2": cell.pair_stability.s2 if cell.pair_stability else None,
        "s2_ci95": _listed(cell.pair_stability.ci95) if cell.pair_stability else None,
        "sd_last_ci95": _listed(cell.deviation.ci95) if cell.deviation else None,
        "ci95": _listed(found.ci95) if found else None,
        "quantum_pct": summary.quantum_pct,
        **({"reason": cell.undefined} if found is None else {}),
    }


def _comparison_document(comparison: Comparison) -> dict[str, object]:
    withheld = comparison.withheld
    return {
        "cell": comparison.cell,
        "reference": comparison.reference,
        "value": comparison.value,
        "reference_value": comparison.reference_value,
        "difference": comparison.difference,
        "ci95": _listed(comparison.ci95),
        "p": None if withheld else comparison.p,
        "p_holm": None if withheld else comparison.p_holm,
        **_nominal(comparison),
        "n": comparison.n,
        "within_pp": comparison.within_pp,
        "d_z": comparison.effect.d_z if comparison.effect else None,
        "d_z_ci95": _listed(comparison.effect.ci95) if comparison.effect else None,
        **({"reason": comparison.reservation} if comparison.reservation else {}),
    }


def _looks_document(summary: Summary) -> dict[str, object]:
    """At which numbers of seeds the verdicts were read, or may be; nothing where that was never before."""
    monitoring = summary.monitoring
    lost: dict[str, object] = {"looks_lost": monitoring.lost} if monitoring.lost else {}
    if len(monitoring.looks) < 2:
        return lost
    return {"looks": list(monitoring.looks), "sequential": monitoring.sequential, **lost}


def _nominal(found: Comparison | Ratio) -> dict[str, object]:
    """P of the present look alone where it is corrected for others; when a sequential study decided it."""
    if found.looks.sequential:
        return {"decided_after": found.decided_after}
    return {} if found.p_nominal is None else {"p_nominal": found.p_nominal}


def _ratio_document(ratio: Ratio) -> dict[str, object]:
    withheld = bool(ratio.reservation)
    return {
        "cell": ratio.cell,
        "reference": ratio.reference,
        "ratio": ratio.ratio,
        "ci95": _listed(ratio.ci95),
        "p": None if withheld else ratio.p,
        "p_holm": None if withheld else ratio.p_holm,
        **_nominal(ratio),
        "n": ratio.n,
        **({"within": _within_document(ratio)} if ratio.within is not None else {}),
        **({"reason": ratio.reservation} if withheld else {}),
    }


def _within_document(ratio: Ratio) -> dict[str, object]:
    withheld, within = bool(ratio.reservation), ratio.within
    assert within is not None
    return {
        "factor": within.factor,
        "ci90": _listed(within.ci90),
        "p": None if withheld else within.p,
        "p_holm": None if withheld else within.p_holm,
        **({} if within.p_nominal is None else {"p_nominal": within.p_nominal}),
    }


def _verdict_document(verdict: Verdict) -> dict[str, object]:
    return {
        "id": verdict.claim.id,
        "statement": verdict.statement,
        "table": verdict.claim.table,
        "judged_on": verdict.claim.judged_on,
        "outcome": verdict.outcome,
        **({"reason": reason} if (reason := verdict.divergence or verdict.reservation) else {}),
        **({"condition": verdict.condition.strip()} if verdict.condition else {}),
        "comparisons": [
            {
                "measure": comparison.measure,
                **_comparison_document(comparison),
                **(
                    {"ci95": None, "ratio": comparison.ratio, "ratio_ci95": _listed(comparison.ci95)}
                    if comparison.measure == "s2"
                    else {}
                ),
                **({"epochs": comparison.epochs} if comparison.epochs else {}),
                **({"margin": comparison.margin} if comparison.margin is not None else {}),
                "supports": comparison.supports,
                "opposes": comparison.opposes,
            }
            for comparison in verdict.comparisons
        ],
        "missing": [list(pair) for pair in verdict.missing],
        "decided_by": _forecast_document(verdict.forecast) if verdict.forecast else None,
    }


def _forecast_document(forecast: PowerForecast) -> dict[str, object]:
    return {
        "fewest": forecast.fewest,
        "most": forecast.most,
        "limit": forecast.limit,
        "outcome": forecast.outcome or None,
        **({"reason": forecast.reason} if forecast.reason else {}),
    }


def _listed(interval: Interval | None) -> list[float] | None:
    return list(interval) if interval is not None else None
