"""Teachers that a store knows without one having been trained."""

import pyarrow as pa

from hkrun.config import Cell, teacher_id
from hkrun.store import DivergedTeacher, Store, TeacherRecord


def put_teacher(store: Store, cell: Cell, *, teacher_hash: str = "0" * 64) -> None:
    """Keeps the record of a cell's teacher, with weights that nothing can load."""
    record = TeacherRecord(
        teacher_id=teacher_id(cell),
        teacher_hash=teacher_hash,
        error_pct=2.0,
        train_error_pct=0.0,
        config={},
        epochs=1,
        versions={},
        device="cpu",
        threads=1,
        started_at=0.0,
        timings={},
    )
    store.put_teacher(record, weights=b"weights", curves=pa.table({"epoch": [1], "error_pct": [2.0]}))


def put_diverged_teacher(store: Store, cell: Cell) -> None:
    """Keeps the record of a cell's teacher that diverged in epoch 2."""
    record = DivergedTeacher(
        teacher_id=teacher_id(cell),
        diverged_epoch=2,
        message="loss_backbone is nan in epoch 2",
        config={},
        epochs=1,
        device="cpu",
        threads=1,
        started_at=1.0,
    )
    store.put_diverged_teacher(record, curves=None)
