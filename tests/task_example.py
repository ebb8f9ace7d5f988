"""Tasks as a sweep gives them out."""

from typing import Any

from hkrun.config import Cell, cell_id, teacher_id
from hkrun.store import Store
from hkrun.trial import Task


def make_task(store: Store, cell: Cell, *seeds: int, world_size: int = 1, **fields: Any) -> Task:
    """The task of some runs, or of the teacher where there are no seeds, in one thread of the CPU."""
    return Task(
        cell=cell,
        cell_id=cell_id(cell, world_size=world_size) if seeds else teacher_id(cell),
        seeds=seeds,
        store=store.uri,
        data_dir=None,
        threads=1,
        device="cpu",
        world_size=world_size,
        **fields,
    )
