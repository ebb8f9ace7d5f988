"""Runs, curves, results and comparisons of a study as Arrow tables, with names of cells and their axes."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from hkrun.config import cell_id
from hkrun.report.comparison import Comparison, Ratio
from hkrun.report.study_comparison import StudyComparison
from hkrun.report.summary import CellSummary, Interval, Summary
from hkrun.spaces import Sweep, short_keys
from hkrun.store import RUNS_SCHEMA, Store, tabulate

_FLOAT = pa.float64()
RESULTS = pa.schema(
    [
        ("cell_id", pa.string()),
        *((name, pa.int64()) for name in ("n", "failed", "diverged", "missing")),
        *(
            (name, _FLOAT)
            for name in (
                *("error_last_pct", "error_last_sd_pct", "error_last_low_pct", "error_last_high_pct"),
                *("error_best_pct", "error_top5_last_pct"),
                *("s_pp2", "s_low_pp2", "s_high_pp2", "s2_pp2", "s2_low_pp2", "s2_high_pp2", "mean_range_pp"),
                *("difference_pp", "difference_low_pp", "difference_high_pp", "p_holm"),
            )
        ),
    ]
)
COMPARISONS = pa.schema(
    [
        ("reference", pa.string()),
        ("paired", pa.bool_()),
        ("n", pa.int64()),
        *(
            (name, _FLOAT)
            for name in (
                *("error_last_pct", "reference_error_last_pct"),
                *("difference_pp", "difference_low_pp", "difference_high_pp", "p", "p_holm"),
                *("s_pp2", "reference_s_pp2", "s_p", "s_p_holm"),
                *("s2_ratio", "s2_ratio_low", "s2_ratio_high", "s2_p", "s2_p_holm"),
            )
        ),
        ("reservation", pa.string()),
    ]
)
# Where an axis would be called as one of these, its column has the whole key.
_TAKEN = {*RUNS_SCHEMA.names, *RESULTS.names, *COMPARISONS.names, "cell", "epoch", "learning_rate"}


def name_axes(sweep: Sweep) -> dict[str, str]:
    """What the columns of axes are called, by key, in the order of the search space."""
    short = short_keys(key for named in sweep.cells for key in named.point)
    return {key: key if name in _TAKEN else name for key, name in short.items()}


def runs_table(sweep: Sweep, store: Store, *, world_size: int) -> pa.Table:
    """One row per cell and seed that has a record, in the order of the cells."""
    identities = [cell_id(named.cell, world_size=world_size) for named in sweep.cells]
    records = {identity: store.records(identity) for identity in dict.fromkeys(identities)}
    found = [
        (named.name, record)
        for named, identity in zip(sweep.cells, identities, strict=True)
        for record in records[identity]
        if record.seed in sweep.seeds
    ]
    return _label(sweep, [name for name, _ in found], tabulate(record for _, record in found))


def curves_table(sweep: Sweep, store: Store, *, world_size: int) -> pa.Table:
    """One row per cell, seed and epoch, in the order of the cells."""
    identities = [cell_id(named.cell, world_size=world_size) for named in sweep.cells]
    curves = store.all_curves(list(dict.fromkeys(identities)))
    curves = curves.filter(pc.is_in(curves["seed"], pa.array(sweep.seeds, pa.int64())))
    parts = [
        _label(sweep, [named.name] * len(part), part)
        for named, identity in zip(sweep.cells, identities, strict=True)
        for part in [curves.filter(pc.equal(curves["cell_id"], identity))]
    ]
    return pa.concat_tables(parts).combine_chunks()


def results_table(summary: Summary) -> pa.Table:
    """One row per cell."""
    rows = [_result(cell, summary) for cell in summary.cells]
    return _label(summary.sweep, [cell.name for cell in summary.cells], pa.Table.from_pylist(rows, RESULTS))


def _result(cell: CellSummary, summary: Summary) -> Mapping[str, object]:
    last, stability = cell.error_last, cell.stability
    low, high = _ends(last.ci95 if last else None)
    s_low, s_high = _ends(stability.ci95 if stability else None)
    pairs = cell.pair_stability
    s2_low, s2_high = _ends(pairs.ci95 if pairs else None)
    comparison = summary.find_comparison(cell.name)
    difference_low, difference_high = _ends(comparison.ci95 if comparison else None)
    return {
        "cell_id": cell.cell_id,
        "n": len(cell.seeds),
        "failed": len(cell.failed),
        "diverged": len(cell.diverged),
        "missing": len(cell.missing) + len(cell.untaught),
        "error_last_pct": last.mean if last else None,
        "error_last_sd_pct": last.sd if last else None,
        "error_last_low_pct": low,
        "error_last_high_pct": high,
        "error_best_pct": cell.error_best.mean if cell.error_best else None,
        "error_top5_last_pct": cell.error_top5.mean if cell.error_top5 else None,
        "s_pp2": stability.s if stability else None,
        "s_low_pp2": s_low,
        "s_high_pp2": s_high,
        "s2_pp2": pairs.s2 if pairs else None,
        "s2_low_pp2": s2_low,
        "s2_high_pp2": s2_high,
        "mean_range_pp": stability.mean_range if stability else None,
        "difference_pp": comparison.difference if comparison else None,
        "difference_low_pp": difference_low,
        "difference_high_pp": difference_high,
        "p_holm": comparison.p_holm if comparison else None,
    }


def comparisons_table(
    sweep: Sweep,
    reference: str,
    errors: Sequence[Comparison],
    stabilities: Sequence[Comparison],
    ratios: Sequence[Ratio],
) -> pa.Table:
    """One row per cell that is compared with the reference, in error, in S or in both.

    `ratios` are those of S2, which has a value where S has one.
    """
    by_error, by_s = ({found.cell: found for found in each} for each in (errors, stabilities))
    by_s2 = {ratio.cell: ratio for ratio in ratios}
    names = [named.name for named in sweep.cells if named.name in by_error or named.name in by_s]
    rows = [
        {
            "reference": reference,
            "paired": True,
            **_compared(by_error.get(name), by_s.get(name), by_s2.get(name)),
        }
        for name in names
    ]
    return _label(sweep, names, pa.Table.from_pylist(rows, COMPARISONS))


def studies_table(sweep: Sweep, found: StudyComparison) -> pa.Table:
    """One row per cell of a study, the second of two that are compared, that has one in the other."""
    rows = [
        {
            **_compared(pair.error, pair.stability, None),
            "reference": pair.match.first.name,
            "paired": pair.paired,
            **({} if pair.error else {"n": len(pair.seeds), "reservation": pair.why_no_test}),
        }
        for pair in found.pairs
    ]
    names = [pair.match.second.name for pair in found.pairs]
    return _label(sweep, names, pa.Table.from_pylist(rows, COMPARISONS))


def _compared(
    error: Comparison | None, stability: Comparison | None, ratio: Ratio | None
) -> Mapping[str, object]:
    either = error or stability
    low, high = _ends(error.ci95 if error else None)
    ratio_low, ratio_high = _ends(ratio.ci95 if ratio else None)
    return {
        "n": either.n if either else None,
        "error_last_pct": error.value if error else None,
        "reference_error_last_pct": error.reference_value if error else None,
        "difference_pp": error.difference if error else None,
        "difference_low_pp": low,
        "difference_high_pp": high,
        "p": error.p if error else None,
        "p_holm": error.p_holm if error else None,
        "s_pp2": stability.value if stability else None,
        "reference_s_pp2": stability.reference_value if stability else None,
        "s_p": stability.p if stability else None,
        "s_p_holm": stability.p_holm if stability else None,
        "s2_ratio": ratio.ratio if ratio else None,
        "s2_ratio_low": ratio_low,
        "s2_ratio_high": ratio_high,
        "s2_p": ratio.p if ratio else None,
        "s2_p_holm": ratio.p_holm if ratio else None,
        "reservation": (either.reservation if either else "") or None,
    }


def _ends(interval: Interval | None) -> Interval | tuple[None, None]:
    return interval if interval is not None else (None, None)


def _label(sweep: Sweep, names: Sequence[str], table: pa.Table) -> pa.Table:
    """A table of cells with their names, and the values of their axes, in front."""
    points = {named.name: named.point for named in sweep.cells}
    columns = {"cell": pa.array(names, pa.string())}
    for key, name in name_axes(sweep).items():
        # Typed by the values of all cells: parts of one table must agree.
        kind = pa.array([_plain(point.get(key)) for point in points.values()]).type
        columns[name] = pa.array([_plain(points[cell].get(key)) for cell in names], kind)
    return pa.table({**columns, **{name: table[name] for name in table.column_names}})


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
