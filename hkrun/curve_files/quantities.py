"""Whether values are errors or accuracies, fractions or percent: said by an option, a name, or the values."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hkrun.curve_files.numbering import listed, numbered, quoted_list

Kind = Literal["error", "accuracy"]
Unit = Literal["percent", "fraction"]
Matrices = Mapping[str, tuple[tuple[int, ...], NDArray[np.float64]]]

_ERROR = re.compile(r"(?<![a-z])err(or)?s?(?![a-z])")
_ACCURACY = re.compile(r"(?<![a-z])(acc(uracy|uracies)?|top-?[15])(?![a-z])")
_LOSS = re.compile(r"(?<![a-z])(loss|nll|perplexity|cross.?entropy)(?![a-z])")
_PERCENT = re.compile(r"(?<![a-z])(pct|percent(age)?)(?![a-z])|%")
# Curves whose late values are so many times those of others, which never exceed 1, are in another unit.
_OTHER_UNIT = 10.0
_HIGH_PCT = 50.0  # where errors end that do not fall, they may be accuracies


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What the values of a source are, and what says so: "option", "name" or "values"."""

    kind: Kind
    kind_from: str
    unit: Unit
    unit_from: str


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the options say of all sources; None where each is to tell by itself."""

    kind: Kind | None = None
    unit: Unit | None = None


def tell_quantity(
    value: str, cells: Matrices, *, told: Told, window: int
) -> tuple[Quantity | None, list[str], list[str]]:
    """Tells what the values of one source are.

    Args:
        value: The name of the values; may be empty.
        cells: Seeds and values [runs, epochs], by cell.
        told: What the options say.
        window: Runs are set beside each other by so many last epochs.

    Returns:
        The quantity, or None with the reasons why it cannot be told; and what is doubtful about it.
    """
    words = _words(value)
    kind, kind_from, problems = _tell_kind(words, cells, told)
    unit, unit_from, refused, doubt = _tell_unit(words, cells, told, window)
    problems += refused
    if kind is None or unit is None or problems:
        return None, problems, []
    return Quantity(kind=kind, kind_from=kind_from, unit=unit, unit_from=unit_from), [], doubt


def to_error_pct(values: NDArray[np.float64], quantity: Quantity) -> NDArray[np.float64]:
    """The values as errors in percent.

    In decimal: 0.973 and 97.3 are the same accuracy, and give the same bits that 2.7 in a file gives.
    """
    if (quantity.kind, quantity.unit) == ("error", "percent"):
        return values
    factor = 100 if quantity.unit == "fraction" else 1
    scaled = (Decimal(repr(value)) * factor for value in values.ravel().tolist())
    errors = [float(100 - value if quantity.kind == "accuracy" else value) for value in scaled]
    return np.array(errors, dtype=np.float64).reshape(values.shape)


def find_rising(errors_pct: Matrices, quantity: Quantity) -> list[str]:
    """What is doubtful about cells whose errors are high and do not fall."""
    doubts = []
    for cell, (_, errors) in errors_pct.items():
        # Where percent is doubtful too, the values are taken for fractions.
        scale = 100.0 if quantity.unit == "percent" and errors.max() <= 1 else 1.0
        first, last = (float(np.median(errors[:, epoch])) for epoch in (0, -1))
        if scale * last > _HIGH_PCT and scale * (last - first) > -1:
            read_as = "an accuracy, told by its name" if quantity.kind_from == "name" else "an accuracy"
            doubts.append(
                f"cell {cell!r}: its error goes from {first:.3g} to {last:.3g} %; "
                + (
                    "is it an accuracy?"
                    if quantity.kind == "error"
                    else f"read as {read_as}; if it is an error, give --quantity error"
                )
            )
    return doubts


def _words(name: str) -> str:
    """A name with its words apart: `valAcc1` as `val acc 1`."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=[0-9])", " ", name)
    return apart.replace("top 1", "top1").replace("top 5", "top5").lower()


def _tell_kind(words: str, cells: Matrices, told: Told) -> tuple[Kind | None, str, list[str]]:
    if told.kind is not None:
        return told.kind, "option", []
    if _LOSS.search(words):
        return None, "", [f"{words!r} is a loss, neither error nor accuracy; --value takes another"]
    if _ERROR.search(words):
        return "error", "name", []
    if _ACCURACY.search(words):
        return "accuracy", "name", []
    changes = {
        cell: float(np.median(runs[:, -1]) - np.median(runs[:, 0])) for cell, (_, runs) in cells.items()
    }
    rising, falling = ([cell for cell, change in changes.items() if sign * change > 0] for sign in (1, -1))
    hint = "--quantity error or accuracy says what they are"
    if rising and falling:
        return None, "", [f"values rise in {quoted_list(rising)} and fall in {quoted_list(falling)}; {hint}"]
    if not rising and not falling:
        return None, "", [f"values neither rise nor fall; {hint}"]
    return ("accuracy" if rising else "error"), "values", []


def _tell_unit(
    words: str, cells: Matrices, told: Told, window: int
) -> tuple[Unit | None, str, list[str], list[str]]:
    small: dict[str, list[int]] = {}
    levels: tuple[list[float], list[float]] = ([], [])  # of runs up to 1, and of the others
    for cell, (seeds, values) in cells.items():
        for seed, run in zip(seeds, values, strict=True):
            if not run.any():
                continue  # nothing but zeros is the same in both units
            levels[int(run.max() > 1)].append(float(np.median(run[-window:])))
            if run.max() <= 1:
                small.setdefault(cell, []).append(seed)
    if told.unit == "fraction":
        high = [cell for cell, (_, values) in cells.items() if values.max() > 1]
        problems = [f"--unit fraction: cell {quoted_list(high)} has values above 1"] if high else []
        return "fraction", "option", problems, []
    if told.unit == "percent":
        return "percent", "option", [], []
    by_name = _PERCENT.search(words) is not None
    if small and levels[1]:
        return _tell_mixed(by_name, _places(small, cells), levels)
    if small and not by_name:
        return "fraction", "values", [], []
    doubts = ["no value is above 1, and all are read as percent; are they fractions?"] if small else []
    return "percent", "name" if by_name else "values", [], doubts


def _tell_mixed(
    by_name: bool, places: str, levels: tuple[list[float], list[float]]
) -> tuple[Unit | None, str, list[str], list[str]]:
    """The unit where some runs never exceed 1 and others do."""
    low, high = (float(np.median(found)) for found in levels)
    if high >= _OTHER_UNIT * low:
        reason = (
            f"{places}: fractions (median {low:.3g}) beside percent (median {high:.3g})? "
            "One unit per file, or --unit percent"
        )
        return None, "", [reason], []
    doubt = f"{places}: no value is above 1, and all are read as percent; are they fractions?"
    return "percent", "name" if by_name else "values", [], [doubt]


def _places(small: Mapping[str, Sequence[int]], cells: Matrices) -> str:
    return listed(
        [
            f"cell {cell!r}" + (f", {numbered('seed', found)}" if len(found) < len(cells[cell][0]) else "")
            for cell, found in small.items()
        ],
        "; ",
    )
