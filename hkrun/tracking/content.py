"""What MLflow is to hold of a sweep: a run per cell, a run per seed, as plain data."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hkrun.config import canonical, cell_id
from hkrun.records import Record
from hkrun.spaces import Sweep, name_cells
from hkrun.tracking.points import Points

FORMAT = 1  # part of every digest: a change in what is mirrored renews what an older hkrun wrote
# The UI colours a group by a hash of this key and the cell's name; under this key the cells of the main sweep
# get four colours well apart.
CELL_PARAMETER = "cell.name"
PARENT_TAG = "mlflow.parentRunId"
CELL_TAG, SEED_TAG, DIGEST_TAG = "hkrun.cell_id", "hkrun.seed", "hkrun.digest"
POINTS_TAG, REPORT_TAG = "hkrun.points", "hkrun.report"
PARAMETERS_PER_RUN = 100  # what MLflow takes at once
_PARAMETER_LENGTH, _TAG_LENGTH, _NAME_LENGTH = 6000, 5000, 250


@dataclass(frozen=True, kw_only=True)
class MirroredCell:
    """A configuration of the sweep; two names of the same one are one cell.

    Attributes:
        name: With short keys, as tables call it.
        axes: The values of its axes by short key, which are columns of MLflow's lists.
        parameters: All that a run of it has as parameters, these among them.
        epochs: How many its runs train.
    """

    cell_id: str
    name: str
    axes: Mapping[str, str]
    parameters: Mapping[str, object]
    epochs: int


def cells_of(sweep: Sweep, *, world_size: int) -> list[MirroredCell]:
    """The distinct configurations of a sweep, in its order."""
    found: dict[str, MirroredCell] = {}
    called = name_cells(sweep.cells)
    for named in sweep.cells:
        identity = cell_id(named.cell, world_size=world_size)
        name, axes = called.labels[named.name], called.points[named.name]
        if (other := found.get(identity)) is not None:
            name, axes = f"{other.name} = {name}", {**axes, **other.axes}
        found[identity] = MirroredCell(
            cell_id=identity,
            name=name,
            axes=axes,
            parameters={CELL_PARAMETER: name, **axes, **canonical(named.cell, world_size=world_size)},
            epochs=named.cell.student.epochs,
        )
    return list(found.values())


@dataclass(frozen=True, kw_only=True)
class RunContent:
    """All that one MLflow run is to hold. Text is as long as every database takes it.

    Attributes:
        run_id: The run that is there already and lacks some of it; None to make one.
        seed: None for the parent of a cell.
        status: RUNNING: it is begun, and more is to come.
        ended_at: Unix time in seconds; None while it is running.
    """

    run_id: str | None
    cell_id: str
    seed: int | None
    name: str
    status: Literal["RUNNING", "FINISHED", "FAILED"]
    started_at: float
    ended_at: float | None = None
    tags: Mapping[str, str]
    parameters: Mapping[str, str] = field(default_factory=dict)
    points: Sequence[Points] = ()


def begin_parent(cell: MirroredCell, started_at: float) -> RunContent:
    """The parent of a cell whose runs are still coming; `started_at` is Unix time in seconds."""
    return RunContent(
        run_id=None,
        cell_id=cell.cell_id,
        seed=None,
        name=_text(cell.name, _NAME_LENGTH),
        status="RUNNING",
        started_at=started_at,
        tags=_tags(cell, None, {}),
    )


def whole_run(
    cell: MirroredCell,
    seed: int | None,
    *,
    run_id: str | None,
    span: tuple[float, float],
    finished: bool,
    tags: Mapping[str, str],
    points: Sequence[Points],
) -> RunContent:
    """The run of a seed, or without one the parent of its cell.

    Args:
        cell: Whose it is.
        seed: The seed.
        run_id: The run that is there already and lacks some of it.
        span: When it began and ended, Unix time in seconds.
        finished: Whether a result came of it.
        tags: Besides those that every run has.
        points: Of its metrics.
    """
    parameters = {**cell.parameters} if seed is None else {**cell.parameters, "seed": seed}
    assert len(parameters) <= PARAMETERS_PER_RUN
    return RunContent(
        run_id=run_id,
        cell_id=cell.cell_id,
        seed=seed,
        name=_text(cell.name if seed is None else f"{cell.name} seed {seed}", _NAME_LENGTH),
        status="FINISHED" if finished else "FAILED",
        started_at=span[0],
        ended_at=span[1],
        tags=_tags(cell, seed, tags),
        parameters={key: text for key, value in parameters.items() if (text := _parameter(value))},
        points=points,
    )


def _tags(cell: MirroredCell, seed: int | None, tags: Mapping[str, str]) -> dict[str, str]:
    own = {CELL_TAG: cell.cell_id, "hkrun.kind": "cell" if seed is None else "run"}
    if seed is not None:
        own[SEED_TAG] = str(seed)
    return {key: _text(value, _TAG_LENGTH) for key, value in {**tags, **own}.items() if value}


def digest(content: object) -> str:
    """16 hex digits that stand for plain data."""
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_digest(cell: MirroredCell, record: Record) -> str:
    """What a run's content follows from: its record, and how its cell is called."""
    # A record's fields are plain data: `asdict` would only copy them, for a fifth of the time of a sync.
    return digest([FORMAT, cell.name, *([dict(cell.axes)] if cell.axes else []), vars(record)])


def ended_at(record: Record) -> float:
    """Unix time in seconds."""
    return record.started_at + record.timings.get("total", 0.0)


def run_tags(record: Record) -> dict[str, str]:
    """What the run of a seed tells besides its curves; the rest is in the store's record."""
    tags = {
        "hkrun.status": record.status,
        "hkrun.epochs": str(record.epochs),
        "hkrun.device": record.device,
        "hkrun.world_size": str(record.world_size),
        "hkrun.teacher_id": record.teacher_id or "",
        "hkrun.teacher_hash": record.teacher_hash or "",
        "hkrun.alarms": "\n".join(record.alarms),
        "hkrun.numbers": record.code.numbers,
        "hkrun.source": record.code.source,
        **_source_tags(record.versions),
    }
    if record.diverged_epoch is not None:
        tags["hkrun.diverged_epoch"] = str(record.diverged_epoch)
    if record.traceback:
        lines = record.traceback.strip()
        tags["hkrun.error"] = lines.splitlines()[-1]
        tags["mlflow.note.content"] = f"```\n{lines[-4000:]}\n```"
    return tags


def cell_tags(records: Sequence[Record]) -> dict[str, str]:
    """What the parent of these runs tells: how each seed ended, and their source where it is one."""
    counts = {
        f"hkrun.{status}": " ".join(str(r.seed) for r in records if r.status == status)
        for status in ("finished", "diverged", "failed")
    }
    source = _source_tags(records[0].versions)
    shared = all(_source_tags(record.versions) == source for record in records)
    return counts | (source if shared else {})


def _source_tags(versions: Mapping[str, str]) -> dict[str, str]:
    """What MLflow shows as a run's source: hkrun, and the commit that it ran from."""
    if "hkrun" not in versions:
        return {}
    label = versions.get("code", "")
    commit, _, changed = label.partition("+")
    is_commit = re.fullmatch(r"[0-9a-f]{12}", commit) is not None  # else: not from a repository
    return {
        "mlflow.source.name": f"hkrun {versions['hkrun']}{', changed since the commit' if changed else ''}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit if is_commit else "",
        "hkrun.code": label,
    }


def _parameter(value: object) -> str:
    return _text(value if isinstance(value, str) else json.dumps(value), _PARAMETER_LENGTH)


def _text(text: str, length: int) -> str:
    """What every database takes: PostgreSQL refuses what is too long, and the character NUL."""
    return text[:length].replace("\0", "\N{REPLACEMENT CHARACTER}")
