"""The tables of what was run: runs, configurations, time, conditions."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from hkrun import config
from hkrun.report.summary import Summary
from hkrun.report.table import NONE, Entry, Table, make_cell_table, make_table
from hkrun.report.wording import count, describe_teachers, duration, first_line, seeds, share

PART_NAMES = {
    "epochs": "Epochs of runs",
    "teacher": "Epochs of teachers",
    "table": "Teacher table, filled ahead",
    "start": "Ray, processes, their imports",
    "planning": "Planning, with the driver's imports",
    "inputs": "Reading images, teachers, checkpoints",
    "checkpoints": "Saving checkpoints",
    "progress": "Telling progress",
    "records": "Writing records",
    "report": "Report",
    "mlflow": "MLflow, after the report",
    "idle": "Idle slots",
}

# What records say of hkrun's own code, among their versions.
_CODE_NAMES = {
    "code": "Commit of hkrun",
    "numbers": "Numbers of its code",
    "source": "SHA-256 of its training code",
}


def tabulate_runs(summary: Summary) -> Table:
    """How many runs each cell has, and what one costs."""
    rows = []
    for cell in summary.cells:
        totals = [record.timings["total"] for record in cell.records if "total" in record.timings]
        rows.append(
            (
                cell.name,
                [
                    cell.cell_id,
                    *(
                        seeds(found) or NONE
                        for found in (cell.seeds, cell.failed, cell.diverged, cell.missing)
                    ),
                    duration(sum(totals) / len(totals)) if totals else NONE,
                ],
            )
        )
    columns = ["Id", "Finished seeds", "Failed", "Diverged", "Missing", "Mean time per run"]
    return make_cell_table("runs", columns, rows, naming=summary.columns, words=1)


def tabulate_unfinished(summary: Summary) -> Table | None:
    """The failed and the diverged runs, each with what happened."""
    rows = [
        (
            cell.name,
            [
                str(record.seed),
                f"diverged in epoch {record.diverged_epoch}"
                if record.status == "diverged"
                else f"failed after {count(record.epochs, 'epoch')}",
                first_line(record.traceback) if record.status == "failed" else "a loss was no longer finite",
            ],
        )
        for cell in summary.cells
        for record in cell.records
        if record.status != "finished"
    ]
    columns = ["Seed", "Outcome", "What happened"]
    return make_cell_table("unfinished", columns, rows, naming=summary.columns, words=3) if rows else None


def tabulate_configuration(summary: Summary) -> tuple[Table, Table | None]:
    """The keys that all cells share, and per cell those in which they differ."""
    forms = {cell.name: config.canonical(cell.cell) for cell in summary.cells}
    values: dict[str, list[object]] = {}
    for form in forms.values():
        for key, value in form.items():
            values.setdefault(key, []).append(value)
    differing = {key for key, found in values.items() if any(value != found[0] for value in found)}
    shared = [
        [key, _plain(found[0]), "" if len(found) == len(forms) else f"{len(found)} of {len(forms)} cells"]
        for key, found in values.items()
        if key not in differing
    ]
    own = [
        (name, [", ".join(f"{key} = {_plain(form[key])}" for key in form if key in differing)])
        for name, form in forms.items()
    ]
    return (
        make_table("configuration", ["Key", "Value", "Used by"], shared, words=3),
        make_cell_table("own-keys", ["Its own keys"], own, naming=summary.columns, words=1)
        if differing
        else None,
    )


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "[" + ", ".join(map(_plain, value)) + "]" if isinstance(value, list | tuple) else str(value)


def tabulate_executions(summary: Summary) -> Table | None:
    """Where the time of the executions went: the wall clock times the slots, by part."""
    if not summary.executions:
        return None
    parts = summary.slot_seconds
    total = sum(parts.values())
    every = f"All: {count(len(summary.executions), 'execution')}"
    rows = [(name, parts.get(part)) for part, name in PART_NAMES.items()]
    return make_table(
        "executions",
        ["Part", "Seconds of slots", "Share"],
        [(name, *_time_entries(seconds, total)) for name, seconds in [*rows, (every, total)]],
    )


def _time_entries(seconds: float | None, total: float) -> tuple[Entry, Entry]:
    if seconds is None:
        return Entry(text=NONE), Entry(text=NONE)
    return (
        Entry(text=f"{seconds:,.1f}", value=seconds),
        Entry(text=share(seconds, total), value=seconds / total),
    )


def tabulate_time(summary: Summary) -> Table:
    """Where the time went, in process seconds: summed over runs, of which several may train side by side."""
    records = summary.records
    parts: dict[str, float] = {}
    for record in records:
        for part, seconds in record.timings.items():
            parts[part] = parts.get(part, 0.0) + seconds
    total = parts.pop("total", sum(parts.values()))
    rows = [
        [f"of these, {part}", duration(seconds), _percent(seconds, total)] for part, seconds in parts.items()
    ]
    trained = [record for teacher in summary.teachers for record in teacher.records]
    teachers = sum(record.timings.get("total", 0.0) for record in trained)
    return make_table(
        "time",
        ["Part", "Time", "Share"],
        [
            [f"{count(len(records), 'run')} of students", duration(total), _percent(total, total + teachers)],
            *rows,
            [count(len(trained), "teacher"), duration(teachers), _percent(teachers, total + teachers)],
        ],
    )


def _percent(part: float, total: float) -> str:
    return f"{100 * part / total:.0f} %" if total > 0 else NONE


def tabulate_conditions(summary: Summary) -> Table:
    """What the bits of the results depend on besides cell and seed."""
    records = summary.records
    versions: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.versions.items():
            versions.setdefault(name, set()).add(version)
    starts = [datetime.fromtimestamp(record.started_at, UTC) for record in records]
    packs = {len(record.pack) for record in records}
    facts: Mapping[str, Iterable[str]] = {
        "Device": {record.device for record in records},
        "Processor": {record.processor for record in records if record.processor},
        "Threads per process": {str(record.threads) for record in records},
        "Workers per run": {str(record.world_size) for record in records},
        "Seeds trained together": {str(size) for size in packs},
        "Resumed runs": [str(sum(record.resumed > 0 for record in records))],
        "Started (UTC)": [
            " to ".join(dict.fromkeys(f"{moment:%Y-%m-%d %H:%M}" for moment in (min(starts), max(starts))))
        ]
        if starts
        else [],
        **{_CODE_NAMES.get(name, f"Version of {name}"): found for name, found in sorted(versions.items())},
        "Teachers": [describe_teachers(summary)] if summary.teachers else [],
        "Weights of the teacher": [
            f"SHA-256 {trained.hash[:16]}"
            for teacher in summary.teachers
            for trained in teacher.trained
            if trained.hash
        ],
    }
    rows = [[name, ", ".join(sorted(values)) or NONE] for name, values in facts.items()]
    return make_table("conditions", ["Condition", "Value"], rows, words=2)
