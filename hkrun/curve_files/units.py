"""Whether errors are percent, as they must be: not fractions, in some runs or all, and not accuracies."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from hkrun.curve_files.numbering import listed, numbered

Errors = NDArray[np.float64]
# Curves whose late errors are so many times those of others, which never exceed 1, are in another unit.
_OTHER_UNIT = 10.0
_HIGH_PCT = 50.0  # where errors end that do not fall, they may be accuracies


def find_fractions(
    cells: Mapping[str, tuple[tuple[int, ...], Errors]], *, window: int
) -> tuple[str | None, str | None]:
    """Which runs look like fractions.

    Args:
        cells: Seeds and errors [runs, epochs], by cell.
        window: Number of last epochs by which runs are set beside each other.

    Returns:
        Why the file cannot be believed, and what is doubtful about it.
    """
    small: dict[str, list[int]] = {}
    levels: tuple[list[float], list[float]] = ([], [])  # of runs up to 1, and of the others
    for cell, (seeds, errors) in cells.items():
        for seed, run in zip(seeds, errors, strict=True):
            if not run.any():
                continue  # no error at all is the same in both units
            levels[int(run.max() > 1)].append(float(np.median(run[-window:])))
            if run.max() <= 1:
                small.setdefault(cell, []).append(seed)
    if not small:
        return None, None
    if not levels[1]:
        return None, "no error_pct is above 1, and all are read as percent; are they fractions?"
    places = listed(
        [
            f"cell {cell!r}" + (f", {numbered('seed', found)}" if len(found) < len(cells[cell][0]) else "")
            for cell, found in small.items()
        ],
        "; ",
    )
    low, high = (float(np.median(found)) for found in levels)
    if high >= _OTHER_UNIT * low:
        reason = (
            f"{places}: no error_pct is above 1 (median {low:.3g}), as of fractions, but those of the other "
            f"runs are (median {high:.3g}); give all in percent, or cells of so different errors in files of "
            "their own"
        )
        return reason, None
    return None, f"{places}: no error_pct is above 1, and all are read as percent; are they fractions?"


def find_accuracies(cells: Mapping[str, tuple[tuple[int, ...], Errors]]) -> Iterator[str]:
    """What is doubtful about cells whose errors are high and do not fall."""
    for cell, (_, errors) in cells.items():
        scale = 100.0 if errors.max() <= 1 else 1.0
        first, last = (scale * float(np.median(errors[:, epoch])) for epoch in (0, -1))
        if last > _HIGH_PCT and last > first - 1:
            yield (
                f"cell {cell!r}: error_pct goes from {first / scale:.3g} to {last / scale:.3g}; are these "
                "accuracies? The error is 100 - accuracy"
            )
