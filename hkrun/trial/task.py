"""What one trial does, and what it says of its end: plain data that crosses process borders."""

from dataclasses import dataclass

from hkrun.config import Cell

Outcome = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one trial does.

    Attributes:
        cell: The configuration; for a teacher, any of those that use it.
        cell_id: The cell's id, or the teacher's.
        seeds: The runs to train; empty where the task is to train the teacher.
        store: URI of the store.
        data_dir: Where data sets lie that are not embedded.
        threads: Threads of each process.
        device: "cpu" or "cuda".
        world_size: The number of workers that is part of the cell's id, where BatchNorm is not synchronised.
            How many there are is the context's to say.
        table: When the teacher table, if there is one, gets its rows: on "first_use", or all "ahead".
        table_parts: What other cells will ask of the same table, which is computed with what this one asks.
    """

    cell: Cell
    cell_id: str
    seeds: tuple[int, ...]
    store: str
    data_dir: str | None
    threads: int
    device: str
    world_size: int = 1
    table: str = "first_use"
    table_parts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """A name that stays the same when the task is started again."""
        seeds = "-".join(map(str, self.seeds))
        return f"{self.cell_id}-{seeds}" if seeds else f"teacher-{self.cell_id}"


def make_outcome(
    seed: int | None, status: str, error_last_pct: float | None, epochs: int, message: str = ""
) -> Outcome:
    """How a run, or the teacher where the seed is None, ended; see `hkrun.trial.run.run_task`."""
    return {
        "seed": seed,
        "status": status,
        "error_last_pct": error_last_pct,
        "epochs": epochs,
        "message": message,
    }
