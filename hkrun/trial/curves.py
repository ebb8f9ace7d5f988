"""The history of a run as its curves."""

from collections.abc import Mapping, Sequence

import pyarrow as pa


def tabulate(history: Sequence[Mapping[str, float | None]]) -> pa.Table:
    """One row per epoch, one column per figure of any epoch; null where an epoch lacks it.

    Stages compute different figures, and Arrow would take the columns from the first row alone.
    """
    names = list(dict.fromkeys(name for row in history for name in row))
    return pa.table({name: [row.get(name) for row in history] for name in names})
