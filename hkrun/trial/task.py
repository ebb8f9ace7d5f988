"""What one trial does, and what it says of its end: plain data that crosses process borders."""

from dataclasses import dataclass, replace

from hkrun.code_identity import Code, find_code
from hkrun.config import Cell, teacher_id

Outcome = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one trial does.

    Attributes:
        cell: The configuration; for teachers, any of those that use the first, with that one alone.
        cell_id: The cell's id, or the first teacher's.
        seeds: The runs to train; empty where the task is to train teachers.
        teacher_seeds: Of several teachers that train together and differ in their seed alone; empty where one
            trains, or runs do.
        store: URI of the store.
        data_dir: Where data sets lie that are not embedded.
        threads: Threads of each process.
        device: "cpu" or "cuda".
        world_size: The number of workers that is part of the cell's id, where BatchNorm is not synchronised.
            How many there are is the context's to say.
        table: When the teacher table, if there is one, gets its rows: on "first_use", or all "ahead".
        table_parts: What other cells will ask of the same table, which is computed with what this one asks.
        other_code: What becomes of what other code has left: "trust" to use it, checkpoints too; "again" to
            make results and teachers anew; "ask", after which there are none in a plan, to use results, and
            to begin anew where there are only checkpoints.
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
    teacher_seeds: tuple[int, ...] = ()
    other_code: str = "ask"

    def takes(self, code: Code) -> bool:
        """Whether a result of some code is one."""
        return self.other_code != "again" or code.same_numbers(find_code())

    def goes_on_from(self, code: Code) -> bool:
        """Whether a checkpoint of some code is gone on from."""
        return self.other_code == "trust" or code.same_numbers(find_code())

    @property
    def teachers(self) -> dict[str, Cell]:
        """The teachers to train by their ids, each as the configuration with it alone; empty of runs."""
        if self.seeds:
            return {}
        if not self.teacher_seeds:
            return {self.cell_id: self.cell}
        settings = (replace(self.cell.teacher, seed=seed) for seed in self.teacher_seeds)
        cells = [replace(self.cell, teacher=teacher) for teacher in settings]
        return {teacher_id(cell): cell for cell in cells}

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
