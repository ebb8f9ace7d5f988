"""The teacher table: the teacher's outputs for every view of every training image, computed once."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hkrun.errors import StoreError
from hkrun.knowledge.computing import RowComputer
from hkrun.knowledge.rows import RowFiles
from hkrun.knowledge.teaching import Views
from hkrun.models import Output
from hkrun.training import move

logger = logging.getLogger("hkrun")

_SIZE_BITS, _LARGEST_BITS = np.uint16(0x7FFF), np.uint16(0x7BFF)  # of a float16: all but its sign, and 65504

ReadViews = Callable[[Tensor, Tensor], Tensor]  # image and view numbers [R] -> normalised views [R, C, H, W]


class TableTeacher:
    """A teacher whose outputs are looked up, and computed where they are missing.

    Row `image_id * num_views + view_id` of each part is the output for a view. Rows are always computed in
    passes of one shape and rounded to the table's type, also where they cannot be kept: whether a row was
    there or not changes no bit of a run. What must hold for that is `RowComputer.is_steady`; where it does
    not, only blocks of the fixed order of rows may be computed, each in one pass.

    Args:
        computer: Computes rows.
        tables: The rows of each part of the computer's layout; empty to keep none.
        asked: The parts that outputs have. What else the computer gives is computed and kept with them, for
            others.
        num_images: Number of training images.
        num_views: Views of each.
        read: Reads views, for blocks of the fixed order.
        on_whole: Called once with each part of which every row was written.
        alarms: What is wrong from the start, for the record of each run.
    """

    def __init__(
        self,
        computer: RowComputer,
        tables: Mapping[str, RowFiles],
        *,
        asked: Sequence[str],
        num_images: int,
        num_views: int,
        read: ReadViews,
        on_whole: Callable[[str], None],
        alarms: Sequence[str] = (),
    ) -> None:
        self._computer, self._tables, self._asked = computer, dict(tables), tuple(asked)
        self._num_rows, self._num_views, self._read = num_images * num_views, num_views, read
        self._on_whole, self._handed_on = on_whole, set[str]()
        self._alarms = list(alarms)  # of every run from here on
        self.begin_run()

    def begin_run(self) -> None:
        """Forgets what looked wrong in runs before, which may have broken off."""
        self._num_damaged, self._clipped = 0, False

    def __call__(self, batch: Views) -> Output:
        """See `Teaching`."""
        assert batch.image_ids is not None
        assert batch.view_ids is not None
        ids = (batch.image_ids * self._num_views + batch.view_ids).flatten().numpy()
        rows, missing = self._look_up(ids)
        if len(missing):
            needed, places, back = np.unique(ids[missing], return_index=True, return_inverse=True)
            images, chosen = batch.images.flatten(0, -4), torch.from_numpy(missing[places])
            computed = self._learn(needed, lambda: images[move(chosen, images.device)])
            for part in self._asked:
                if part not in rows:
                    rows[part] = np.empty((len(ids), computed[part].shape[1]), computed[part].dtype)
                rows[part][missing] = computed[part][back]
        self._clipped = self._clipped or any(_has_clipped(found) for found in rows.values())
        answers = {
            part: move(torch.from_numpy(found), batch.images.device).to(batch.images.dtype)
            for part, found in rows.items()
        }
        return self._computer.layout.put_together(answers, batch.images.shape[:-3])

    def fill(self, on_block: Callable[[float], None] | None = None) -> None:
        """Computes every row that was never computed, beside any other process that does the same.

        Blocks come in an order of this process's own, so that two seldom compute the same one; what is there
        when its turn comes is passed over. What was done is not lost with the process.

        Args:
            on_block: Told after each block which share of those that were missing is there.
        """
        size = self._computer.pass_size
        todo = [table.missing_blocks(size) for table in self._tables.values()]
        blocks = np.unique(np.concatenate(todo)) if todo else np.empty(0, np.int64)
        np.random.default_rng().shuffle(blocks)  # no number depends on the order
        for done, block in enumerate(blocks.tolist(), start=1):
            if not self._tables:  # the disk is full
                return
            if not all(table.written(block * size, (block + 1) * size) for table in self._tables.values()):
                self._compute_block(block)
            if on_block is not None:
                on_block(done / len(blocks))

    def hand_on(self) -> None:
        """Hands on the parts that have become whole.

        Raises:
            StoreError: They could not be kept for others; handing on again tries again.
        """
        for part in self.whole_parts:
            if part not in self._handed_on:
                self._on_whole(part)
                self._handed_on.add(part)

    @property
    def is_steady(self) -> bool:
        """Whether missing rows may be computed one by one; see `RowComputer.is_steady`."""
        return self._computer.is_steady

    @property
    def is_whole(self) -> bool:
        """Whether there is a table, and every row of the parts that are asked for was written."""
        return bool(self._tables) and set(self._asked) <= set(self.whole_parts)

    @property
    def whole_parts(self) -> tuple[str, ...]:
        """The parts of which every row was written."""
        return tuple(part for part, table in self._tables.items() if table.written(0, table.num_rows))

    def take_alarms(self) -> list[str]:
        """See `Teaching`. Parts that the loop made whole are handed on."""
        try:
            self.hand_on()
        except StoreError as error:  # which must not cost the runs that were just trained their records
            logger.warning("the teacher table is not there for others yet: %s", error.message)
        alarms = list(self._alarms)
        if self._num_damaged:
            alarms.append(f"{self._num_damaged} damaged row(s) of the teacher table were computed anew")
        if self._clipped:
            alarms.append("numbers beyond the range of float16 were clipped; use teacher_table = float32")
        self.begin_run()
        return alarms

    def _look_up(self, ids: NDArray[np.int64]) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        """The rows of each part, [R, width], and the places of those that some part lacks."""
        rows: dict[str, NDArray[Any]] = {}
        if not self._tables:
            return rows, np.arange(len(ids))
        complete = np.ones(len(ids), dtype=np.bool_)
        for part in self._asked:
            rows[part], there, damaged = self._tables[part].read(ids)
            complete &= there
            if damaged:
                logger.warning("%d damaged row(s) of the teacher table are computed anew", damaged)
                self._num_damaged += damaged
        return rows, np.flatnonzero(~complete)

    def _learn(self, ids: NDArray[np.int64], images: Callable[[], Tensor]) -> dict[str, NDArray[Any]]:
        """Computes rows, strictly increasing by number, and keeps them."""
        if self._computer.is_steady or not self._tables:
            computed = self._computer(images())
            self._keep(ids, computed)
            return computed
        size = self._computer.pass_size
        blocks = {block: self._compute_block(block) for block in np.unique(ids // size).tolist()}
        return {
            part: np.stack([blocks[row // size][part][row % size] for row in ids.tolist()])
            for part in self._asked
        }

    def _compute_block(self, block: int) -> dict[str, NDArray[Any]]:
        size = self._computer.pass_size
        ids = np.arange(block * size, min((block + 1) * size, self._num_rows))
        numbers = torch.from_numpy(ids)
        computed = self._computer(self._read(numbers // self._num_views, numbers % self._num_views))
        self._keep(ids, computed)
        return computed

    def _keep(self, ids: NDArray[np.int64], rows: Mapping[str, NDArray[Any]]) -> None:
        try:
            for part, table in self._tables.items():
                table.write(ids, rows[part])
        except OSError as error:
            reason = error.strerror or str(error)
            self._alarms.append(f"the teacher table takes no more rows, the teacher runs live: {reason}")
            logger.warning(self._alarms[-1])
            self._tables = {}


def _has_clipped(rows: NDArray[Any]) -> bool:
    """Whether a number was clipped to the range of float16, or lies at its end by itself."""
    # Compared as bits: NumPy takes ten times as long for float16.
    return rows.dtype == np.float16 and bool(((rows.view(np.uint16) & _SIZE_BITS) == _LARGEST_BITS).any())
