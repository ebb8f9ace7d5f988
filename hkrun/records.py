"""What is kept of a run and of a teacher, and its JSON."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from hkrun.code_identity import Code

# Columns of the curves that tell of the discriminator, per epoch.
DISCRIMINATOR_COLUMNS = ACCURACY, TEACHER_MEAN, STUDENT_MEAN, SPREAD, GRADIENT_RATIO = (
    "discriminator_accuracy",
    "discriminator_teacher_mean",
    "discriminator_student_mean",
    "discriminator_spread",
    "adversarial_gradient_ratio",
)

Status = Literal["finished", "diverged", "failed"]
STATUSES = ("finished", "diverged", "failed")


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """What is kept of any training.

    Attributes:
        epochs: Epochs completed.
        device: "cpu" or the name of the accelerator.
        threads: Threads of one process.
        started_at: Unix time in seconds.
        processor: Its model, where the device is one; empty in records of versions that did not keep it.
        alarms: What looked wrong on the way, one line each.
        world_size: Number of processes that trained together, to the end.
        world_sizes: Where that number changed on the way: what it was from which epoch on, by that epoch.
        versions: Of Python and the libraries, by name; "code" is the commit of hkrun, where it ran from a
            repository, "numbers" and "source" say which code it was: see `code`.
        resumed: How many times it went on from a checkpoint.
        timings: Seconds by part, with their "total".
        pack: Seeds that trained together as one network, in order, its own among them; empty for a teacher
            that trained alone.
    """

    epochs: int
    device: str
    threads: int
    started_at: float
    processor: str = ""
    alarms: tuple[str, ...] = ()
    world_size: int = 1
    world_sizes: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    resumed: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    pack: tuple[int, ...] = ()

    @property
    def code(self) -> Code:
        """What can change the numbers of a training: which code it was."""
        return Code.of(self.versions)


@dataclass(frozen=True, kw_only=True)
class Record(TrainingRecord):
    """One run: a cell with a seed, how it ended and what it ran on.

    Attributes:
        status: How it ended. A diverged run is a result; a failed one is run again.
        error_last_pct: Top-1 test error after the last epoch, in percent; None if it did not get there.
        error_best_pct: The lowest top-1 test error of any epoch, in percent.
        error_top5_last_pct: Top-5 test error after the last epoch, in percent; None where it is not computed.
        teacher_id: The teacher, where the cell uses one.
        teacher_hash: SHA-256 of that teacher's weights.
        diverged_epoch: The epoch in which a loss stopped being finite.
    """

    cell_id: str
    seed: int
    status: Status
    error_last_pct: float | None = None
    error_best_pct: float | None = None
    error_top5_last_pct: float | None = None
    teacher_id: str | None = None
    teacher_hash: str | None = None
    diverged_epoch: int | None = None
    traceback: str | None = None


@dataclass(frozen=True, kw_only=True)
class TeacherTraining(TrainingRecord):
    """How a teacher was trained, whatever came of it.

    Attributes:
        teacher_id: First 12 hex digits of the SHA-256 of its configuration.
        config: What decided its weights, by key.
    """

    teacher_id: str
    config: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TeacherRecord(TeacherTraining):
    """One trained teacher.

    Attributes:
        teacher_hash: SHA-256 of its weights.
        error_pct: Top-1 test error, in percent.
        train_error_pct: Top-1 error on the training images, in percent.
    """

    teacher_hash: str
    error_pct: float
    train_error_pct: float
    status: Literal["finished"] = "finished"


@dataclass(frozen=True, kw_only=True)
class DivergedTeacher(TeacherTraining):
    """A teacher whose training diverged, kept so that it is not trained again.

    Attributes:
        diverged_epoch: The epoch in which a loss stopped being finite.
        message: Which one.
    """

    diverged_epoch: int
    message: str
    status: Literal["diverged"] = "diverged"


R = TypeVar("R", Record, TeacherRecord, DivergedTeacher)


def to_json(record: Record | TeacherRecord | DivergedTeacher) -> bytes:
    """A record as JSON.

    Raises:
        ValueError: A number in it is not finite.
    """
    return json.dumps(dataclasses.asdict(record), indent=1, allow_nan=False).encode()


def to_values(record: Record) -> dict[str, Any]:
    """What `to_json` writes of a record; not a copy of what it holds."""
    return {spec.name: getattr(record, spec.name) for spec in dataclasses.fields(record)}


def from_json(kind: type[R], text: bytes) -> R:
    """The inverse of `to_json`. Unknown fields are passed over, missing ones get their default.

    Raises:
        ValueError: It is no such record, or a field that every version writes is missing.
    """
    return from_values(kind, json.loads(text))


def from_values(kind: type[R], values: dict[str, Any]) -> R:
    """The record of these values, as `from_json`."""
    known = kind.__dataclass_fields__
    try:
        fields: dict[str, Any] = {
            name: tuple(value) if type(value) is list else value
            for name, value in values.items()
            if name in known
        }
        record = kind(**fields)
    except (TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error
    allowed = STATUSES if isinstance(record, Record) else (kind.status,)
    if record.status not in allowed:
        raise ValueError(f"status {record.status!r} is none of {', '.join(allowed)}")
    return record


def from_rows(common: dict[str, Any], rows: Iterable[dict[str, Any]]) -> Iterator[Record]:
    """The records of these values, each with those that all have in common; each row names the same ones.

    As `from_values` of each, in a fifth of the time: only the first is checked field by field.
    """
    whole: dict[str, Any] = {}
    for row in rows:
        if not whole:
            whole = vars(from_values(Record, common | row))
        fields = {
            name: tuple(value) if type(value) is list else value
            for name, value in row.items()
            if name in whole
        }
        if row.get("status", whole["status"]) not in STATUSES:
            raise ValueError(f"status {row['status']!r} is none of {', '.join(STATUSES)}")
        record = object.__new__(Record)
        vars(record).update(whole | fields)
        yield record


def teacher_from_json(text: bytes) -> TeacherRecord | DivergedTeacher:
    """What a teacher's `record.json` says, by its status.

    Raises:
        ValueError: It is neither.
    """
    values = json.loads(text)
    diverged = isinstance(values, dict) and values.get("status") == "diverged"
    return from_json(DivergedTeacher, text) if diverged else from_json(TeacherRecord, text)
