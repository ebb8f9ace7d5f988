"""The tables of results: errors, stability, curves and grids, the discriminator."""

from dataclasses import replace

import numpy as np

from hkrun import stats
from hkrun.records import DISCRIMINATOR_COLUMNS
from hkrun.report.comparison import Comparison
from hkrun.report.summary import CellSummary, Scan, Summary
from hkrun.report.table import MINUS, NONE, Entry, Field, Table, make_cell_table, make_table
from hkrun.report.wording import count, digits, interval, p_value, plus_minus
from hkrun.spaces import STUDY_FAMILY, Sweep, display_width, write_value

_LONGEST_IN_HEADING = 20  # characters of a cell's name

HEALTH_NAMES = dict(
    zip(
        DISCRIMINATOR_COLUMNS,
        ("Accuracy", "Says to the teacher", "Says to the student", "Spread", "Gradient ratio"),
        strict=True,
    )
)


def tabulate_errors(summary: Summary) -> Table:
    """Errors by cell, and their differences from the reference."""
    columns = ["n", "Error, last epoch (%)", "sd", "Best epoch (%)*"]
    top5 = any(cell.error_top5 for cell in summary.cells)
    if top5:
        columns.append("Top-5 error (%)")
    if summary.comparisons:
        columns += [f"Minus {name_reference(summary)} (pp)", "p", "p, Holm", "d_z [95 %]"]
    rows = []
    for cell in summary.cells:
        row: list[Field] = [
            _share(cell, summary),
            error_entry(cell.error_last),
            sd_entry(cell.error_last),
            _mean_entry(cell.error_best),
        ]
        if top5:
            row.append(error_entry(cell.error_top5))
        if summary.comparisons:
            row += _difference(cell, summary)
        rows.append((cell.name, row))
    return make_cell_table("errors", columns, rows, naming=summary.columns)


def name_reference(summary: Summary) -> str:
    """The reference in a heading: its label where that is short, else that word, which its row says too."""
    label = summary.label(summary.sweep.reference or "")
    return label if display_width(label) <= _LONGEST_IN_HEADING else "the reference"


def error_entry(errors: stats.ErrorSummary | None) -> Entry:
    """A mean with half of its interval."""
    if errors is None:
        return Entry(text=NONE)
    return Entry(text=plus_minus(errors.mean, errors.ci95), value=errors.mean, ends=errors.ci95)


def sd_entry(errors: stats.ErrorSummary | None) -> Entry:
    """A standard deviation over seeds."""
    sd = errors.sd if errors else None
    return Entry(text=NONE if sd is None else f"{sd:.2f}", value=sd)


def difference_entry(comparison: Comparison) -> Entry:
    """A difference of errors with half of its interval, strong where it is significant."""
    text = plus_minus(comparison.difference, comparison.ci95, signed=True).replace("-", MINUS)
    strong = comparison.significant and comparison.margin is None
    return Entry(text=text, strong=strong, value=comparison.difference, ends=comparison.ci95)


def p_entry(comparison: Comparison, *, corrected: bool = True, strong: bool = False) -> Entry:
    """A p value, or that there is none."""
    if comparison.withheld:
        return Entry(text="withheld")
    p = comparison.p_holm if corrected else comparison.p
    return Entry(text=p_value(p), strong=strong, value=p)


def effect_entry(comparison: Comparison) -> Entry:
    """An effect size with its interval."""
    effect = comparison.effect
    if effect is None:
        return Entry(text=NONE)
    text = f"{effect.d_z:+z.2f} [{effect.ci95[0]:+z.2f}, {effect.ci95[1]:+z.2f}]"
    return Entry(text=text.replace("-", MINUS), value=effect.d_z, ends=effect.ci95)


def _mean_entry(errors: stats.ErrorSummary | None) -> Entry:
    if errors is None:
        return Entry(text=NONE)
    return Entry(text=f"{errors.mean:.2f}", value=errors.mean, ends=errors.ci95)


def _share(cell: CellSummary, summary: Summary) -> Entry:
    total, found = len(summary.sweep.seeds), len(cell.seeds)
    return Entry(text=str(total) if found == total else f"{found} of {total}", value=found)


def _difference(cell: CellSummary, summary: Summary) -> list[Field]:
    comparison = summary.find_comparison(cell.name)
    if comparison is None:
        return [summary.describe_uncompared(cell), "", "", ""]
    return [
        difference_entry(comparison),
        p_entry(comparison, corrected=False),
        p_entry(comparison, strong=comparison.significant),
        effect_entry(comparison),
    ]


def tabulate_stability(summary: Summary) -> Table:
    """S by cell, with the figures that it must be read beside."""
    columns = [
        "Runs",
        "S (pp²)",
        "95 %, approximate",
        "S, ddof 1" if summary.sweep.ddof != 1 else "S, ddof 1 (the same)",
        "Mean range (pp)",
        "Within-run sd (pp)",
        "Made of",
    ]
    if summary.stability_comparisons:
        columns += [f"p against {name_reference(summary)}", "p, Holm", "Common seeds"]
    rows = []
    for cell in summary.cells:
        found = cell.stability
        row: list[Field] = [len(cell.seeds)]
        if found is None:
            row += ["undefined", *[NONE] * 5]
        else:
            row += [
                Entry(text=digits(found.s), value=found.s, ends=found.ci95),
                interval(found.ci95) or NONE,
                Entry(text=digits(found.s_ddof1), value=found.s_ddof1),
                Entry(text=f"{found.mean_range:.2f}", value=found.mean_range),
                Entry(text=f"{found.within_run_sd:.3f}", value=found.within_run_sd),
                Entry(text=f"{count(found.extreme_runs, 'run')}", value=found.extreme_runs),
            ]
        if summary.stability_comparisons:
            comparison = summary.find_comparison(cell.name, measure="stability")
            if comparison is None:
                row += [summary.describe_uncompared(cell), "", ""]
            else:
                row += [
                    p_entry(comparison, corrected=False),
                    p_entry(comparison, strong=comparison.significant),
                    str(comparison.n),
                ]
        rows.append((cell.name, row))
    return make_cell_table("stability", columns, rows, naming=summary.columns)


def tabulate_scan(scan: Scan, number: int, summary: Summary) -> Table:
    """The points of a curve or grid, each with its distance from the reference point."""
    rows = []
    for point in scan.points:
        is_reference = scan.reference is not None and point.cell.cell_id == scan.reference.cell_id
        found = point.comparison
        compared: list[Field] = [scan.role if is_reference else NONE, "", "", ""]
        if found is not None:
            compared = [
                difference_entry(found),
                p_entry(found),
                _describe_equivalence(found, point.difference),
                effect_entry(found),
            ]
        rows.append(
            [
                *map(write_value, point.values),
                len(point.cell.seeds),
                error_entry(point.cell.error_last),
                *compared,
            ]
        )
    columns = [
        *(summary.columns.short[key] for key in scan.keys),
        "n",
        "Error, last epoch (%)",
        "Difference (pp, ± half of its 90 % interval)",
        "p of equivalence, Holm",
        "Verdict",
        "d_z [95 %]",
    ]
    table = make_table(f"scan-{number}", columns, rows, words=len(scan.keys))
    return replace(table, cells=tuple(point.cell.name for point in scan.points), names=len(scan.keys))


def _describe_equivalence(comparison: Comparison, difference: Comparison | None) -> str:
    if comparison.withheld:
        return "withheld"
    if comparison.supports:
        differs = difference is not None and difference.significant
        return "differs within the margin" if differs else "equivalent"
    return "different" if comparison.opposes else "open"


def describe_keys(scan: Scan) -> str:
    """What varies, and in what where the name of the cell tells more than the key."""
    keys = " and ".join(scan.keys)
    told = not scan.group or all(key.endswith(scan.group) for key in scan.keys)
    return keys if told else f"{keys}, {scan.group}"


def describe_scan(scan: Scan, sweep: Sweep) -> str:
    """Whether the result is the same all along a curve or grid.

    It is where every point is equivalent to the reference at 5 % (intersection-union test, Berger 1982): what
    Holm's correction leaves open of a single point may stand of all together. Where all tests of the study
    are one family, it is where every point stands in that.
    """
    found = [point.comparison for point in scan.points if point.comparison is not None]
    name = describe_keys(scan)
    if not found:
        return f"{name}: not judged, for no two of its points have common seeds."
    if any(comparison.opposes for comparison in found):
        what = "not the same everywhere"
    elif all(
        comparison.supports if sweep.family == STUDY_FAMILY else comparison.p <= stats.LEVEL
        for comparison in found
    ):
        what = "the same everywhere"
    else:
        what = f"undecided at {count(min(comparison.n for comparison in found), 'seed')}"
        reasons = dict.fromkeys(comparison.reservation for comparison in found if comparison.withheld)
        what += f" ({'; '.join(reasons)})" if reasons else ""
    base = "" if scan.reference is None else scan.reference.label
    if scan.role == "default":
        base = f"the default, {base}"
    return f"{name}: {what}, within {sweep.margin:g} pp of {base}."


def tabulate_health(summary: Summary) -> Table | None:
    """The discriminator over the last tenth of the epochs: mean over seeds and range, and the alarms."""
    cells = {cell.name: cell for cell in summary.cells if cell.health}
    if not cells:
        return None
    shown = [name for name in DISCRIMINATOR_COLUMNS if any(name in cell.health for cell in cells.values())]
    rows = []
    for cell in cells.values():
        row: list[Field] = [_health_entry(cell, name) for name in shown]
        rows.append((cell.name, [*row, _alarms_entry(cell)]))
    columns = [*(HEALTH_NAMES[name] for name in shown), "Alarms"]
    return make_cell_table("discriminator", columns, rows, naming=summary.columns)


def _alarms_entry(cell: CellSummary) -> Entry:
    """The named alarms of a cell's runs: what stands before the figures of each."""
    names = [alarm.partition(":")[0] for record in cell.records for alarm in record.alarms]
    text = "; ".join(f"{name}: {names.count(name)} of {len(cell.records)}" for name in dict.fromkeys(names))
    return Entry(text=text or "none", value=sum(bool(record.alarms) for record in cell.records))


def _health_entry(cell: CellSummary, name: str) -> Entry:
    if name not in cell.health:
        return Entry(text=NONE)
    runs = cell.health[name].late
    if not np.isfinite(runs).all():
        return Entry(text=NONE)
    low, high, mean = float(runs.min()), float(runs.max()), float(runs.mean())
    text = [f"{value:.3f}" if mean >= 0.01 else f"{value:.1e}" for value in (mean, low, high)]
    return Entry(text=f"{text[0]} [{text[1]}, {text[2]}]", value=mean, ends=(low, high))
