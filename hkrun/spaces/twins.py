"""Cells that were given different values and still are one configuration."""

from collections.abc import Iterable, Iterator

from hkrun.config import cell_id, cell_values
from hkrun.spaces.sweep import NamedCell, Sweep

_NAMES_SHOWN = 6


def describe_twins(sweep: Sweep) -> tuple[str, ...]:
    """What there is to say about cells that differ only in keys without an effect, a line per configuration.

    Several names for the same values are on purpose, and nothing is said about them.
    """
    cells: dict[str, list[NamedCell]] = {}
    for named in sweep.cells:
        cells.setdefault(cell_id(named.cell), []).append(named)
    return tuple(_describe(twins) for twins in cells.values() if any(_find_idle_keys(twins)))


def _find_idle_keys(twins: Iterable[NamedCell]) -> Iterator[str]:
    """The keys in which cells differ that have the same cell_id."""
    first, *others = (cell_values(named.cell) for named in twins)
    return (key for key, value in first.items() if any(other[key] != value for other in others))


def _describe(twins: list[NamedCell]) -> str:
    names = [repr(named.name) for named in twins]
    if len(names) > _NAMES_SHOWN:
        names = [*names[: _NAMES_SHOWN - 1], f"{len(names) - _NAMES_SHOWN + 1} more"]
    return (
        f"{', '.join(names[:-1])} and {names[-1]} are one configuration: what they were given for "
        f"{', '.join(_find_idle_keys(twins))} changes nothing, so no difference between them can be shown"
    )
