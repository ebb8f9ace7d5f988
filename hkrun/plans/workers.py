"""How many processes train one task together: what `--workers` says, and what a cell makes of it."""

from dataclasses import dataclass
from typing import Self

from hkrun.config import Cell
from hkrun.datasets import find_dataset
from hkrun.errors import InputError


@dataclass(frozen=True)
class Span:
    """How many processes may train a task together.

    Attributes:
        least: With fewer it waits.
        most: It takes no more, however many there is room for; None for as many as there is room for.
    """

    least: int = 1
    most: int | None = 1

    def within(self, room: int) -> int:
        """How many processes the task gets where there is room for so many; 0 if it waits for more."""
        if room < self.least:
            return 0
        return room if self.most is None else min(room, self.most)

    def bounded(self, room: int) -> "Span":
        """The same where there never is more room than that."""
        return Span(self.least, max(self.least, self.within(room)))

    def document(self) -> dict[str, int | None]:
        """What `sweep --dry-run --json` prints of it."""
        return {"least": self.least, "most": self.most}

    @property
    def alone(self) -> bool:
        """Whether it always is one process."""
        return self.most == 1

    def __str__(self) -> str:
        if self.least == self.most:
            return str(self.least)
        return f"{self.least} to {'all' if self.most is None else self.most}"


ALONE = Span()


@dataclass(frozen=True)
class Workers:
    """What `--workers` and `--per-gpu` say.

    Attributes:
        span: For every task; None for "auto", by which tasks on streamed images take what there is room for,
            and all others are one process each.
        per_gpu: How many processes share a GPU where each is a task alone.
    """

    span: Span | None = None
    per_gpu: int = 1

    @classmethod
    def exactly(cls, number: int) -> Self:
        """So many for every task."""
        return cls(Span(number, number))

    @classmethod
    def parse(cls, text: str, *, per_gpu: int = 1) -> Self:
        """Reads "auto", "N" or "MIN:MAX".

        Raises:
            InputError: It is none of these.
        """
        if text == "auto":
            return cls(per_gpu=per_gpu)
        least, colon, most = text.partition(":")
        bounds = [int(part) if part.isdecimal() else 0 for part in ((least, most) if colon else (least,) * 2)]
        if not 1 <= bounds[0] <= bounds[1]:
            raise InputError(f"--workers {text}: expected auto, a number from 1, or MIN:MAX such as 2:8")
        return cls(Span(*bounds), per_gpu)

    def __str__(self) -> str:
        if self.span is None:
            return "auto"
        least, most = self.span.least, self.span.most
        return str(least) if least == most else f"{least}:{most}"

    @property
    def elastic(self) -> bool:
        """Whether the user wants the number to follow what there is."""
        return self.span is not None and self.span.least != self.span.most

    @property
    def world_size(self) -> int:
        """The number of workers in the identity of a cell without synchronised BatchNorm.

        It must be known before anything starts, so "auto" is one process for such a cell.
        """
        return 1 if self.span is None or self.span.most is None else self.span.most

    def of_runs(self, cell: Cell) -> Span:
        """How many processes train a run of a cell together."""
        return self._of(cell, cell.student.batch_size, together=cell.sync_batchnorm)

    def of_teacher(self, cell: Cell) -> Span:
        """How many processes train a cell's teacher together; its BatchNorm is always synchronised."""
        return self._of(cell, cell.teacher.batch_size, together=True)

    def _of(self, cell: Cell, batch_size: int, *, together: bool) -> Span:
        if self.span is None:
            # Images that are decoded while they train make an epoch so long that workers pay.
            streamed = find_dataset(cell.dataset).streamed and together
            return Span(1, batch_size) if streamed else ALONE
        most = batch_size if self.span.most is None else self.span.most
        # More workers than images in a batch would have nothing to do; fewer than `least` is refused.
        return Span(self.span.least, max(self.span.least, min(most, batch_size)))


AUTO = Workers()


def check_elastic(workers: Workers, cells: dict[str, Cell]) -> None:
    """Checks that the number of workers may follow what there is.

    Raises:
        InputError: The number is a part of what a cell is.
    """
    named = [name for name, cell in cells.items() if not cell.sync_batchnorm]
    if workers.elastic and named:
        raise InputError(
            f"--workers {workers}: sync_batchnorm = false makes the number of workers part of the "
            f"configuration, so it must be one number, such as --workers {workers.world_size} "
            f"(cells: {', '.join(named[:3])}{f' and {len(named) - 3} more' if len(named) > 3 else ''})"
        )
