"""Runs as a file, a folder or a server holds them, before they are a matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

from hkrun.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column, tag or metric is what; None where the usual names say it.

    Attributes:
        seed: The column of seeds; in MLflow a parameter or tag.
        epoch: The column of epochs or steps.
        value: The column, metric or tag with the errors or accuracies.
        cell: The column of cells; in MLflow a parameter or tag.
        run_names: How the names of runs tell cell and seed, such as `{cell}-{seed}`.
    """

    seed: str | None = None
    epoch: str | None = None
    value: str | None = None
    cell: str | None = None
    run_names: str | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: a value at each of its epochs, in the order of the source.

    Attributes:
        name: What messages call it where the source names it; empty where it is rows of a long file.
        cell: Its cell; None where the source does not say.
    """

    name: str = ""
    cell: str | None
    seed: int
    epochs: Sequence[int]
    values: Sequence[object]


@dataclass(frozen=True, kw_only=True)
class Source:
    """All runs of one source.

    Attributes:
        place: What each message about it begins with.
        form: What it is, such as "wide CSV".
        value: The name of the values; empty where a wide table has none for them.
        axis: "epoch", or "step" where steps are counted: those may be so many per epoch.
        runs: The runs, in the order of the source.
        left_out: The names of runs that were not asked for.
        doubts: What a reader should know of the values.
    """

    place: str
    form: str
    value: str
    axis: str
    runs: Sequence[Run]
    left_out: Sequence[str] = ()
    doubts: Sequence[str] = ()


def refuse(place: object, problems: Sequence[str]) -> None:
    """Reports what is wrong with a source, if anything is.

    Raises:
        InputError: Something is.
    """
    if problems:
        raise InputError("\n".join(f"{place}: {problem}" for problem in problems))
