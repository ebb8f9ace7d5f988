"""Keys and overrides without their full effect, or that make one configuration of several cells."""

from collections.abc import Iterable, Iterator, Sequence

from hkrun.config import Setting, active_keys, cell_id, cell_values
from hkrun.spaces.sweep import NamedCell

_MOST_NAMES = 6


def refuse_merged_cells(
    overrides: Sequence[Setting], before: Sequence[NamedCell], after: Sequence[NamedCell]
) -> Iterator[str]:
    """The problems of overrides that make one configuration of cells that are several in the file.

    `before` and `after` are the same cells without the overrides and with them.
    """
    groups: dict[str, list[NamedCell]] = {}
    for written, overridden in zip(before, after, strict=True):
        groups.setdefault(cell_id(overridden.cell), []).append(written)
    for group in groups.values():
        first = {cell_id(named.cell): named for named in reversed(group)}
        if len(first) == 1:
            continue
        cells = list(reversed(first.values()))
        differing = _find_differing(cells)
        by = [setting for setting in overrides if setting.key in differing] or list(overrides)
        values = [
            f"{named.name!r} ({', '.join(f'{key} = {own.get(key)}' for key in differing)})"
            for named in cells
            for own in [cell_values(named.cell)]
        ]
        if len(values) > _MOST_NAMES:
            values = [*values[: _MOST_NAMES - 1], f"{len(values) - _MOST_NAMES + 1} more"]
        yield (
            f"{', '.join(dict.fromkeys(setting.where for setting in by))}: "
            f"{', '.join(setting.key for setting in by)}: cannot be set, for it makes one configuration of "
            f"{', '.join(values[:-1])} and {values[-1]}"
        )


def describe_replaced(overrides: Iterable[Setting], before: Sequence[NamedCell]) -> Iterator[str]:
    """Names the overrides that replace different values of cells, whose names may tell of them."""
    for setting in overrides:
        values = {named.name: cell_values(named.cell).get(setting.key) for named in before}
        if len(set(values.values())) > 1:
            told = [f"{value} of {name!r}" for name, value in values.items()][:_MOST_NAMES]
            more = f" and {len(values) - len(told)} more" if len(values) > len(told) else ""
            yield f"{setting.where}: {setting.key}: replaces {', '.join(told)}{more}"


def describe_idle_keys(settings: Iterable[Setting], cells: Sequence[NamedCell]) -> Iterator[str]:
    """Names the keys that change nothing in any cell, with every place that sets them."""
    places: dict[str, list[str]] = {}
    for setting in settings:
        places.setdefault(setting.key, []).append(setting.where)
    used = {key for named in cells for key in active_keys(named.cell)}
    for key, found in places.items():
        if key not in used:
            where = ", ".join(dict.fromkeys(found))
            yield f"{where}: {key}: changes nothing in any cell of this sweep: no term of theirs uses it"


def describe_unfinished_warmups(cells: Iterable[NamedCell]) -> Iterator[str]:
    """Names the warm-ups of terms that are longer than their stage, and what the weights end at."""
    told: dict[str, list[str]] = {}
    for named in cells:
        cell = named.cell
        stages = zip(cell.declared_method.stages, cell.stage_weights, cell.stage_epochs, strict=True)
        for number, (stage, full, epochs) in enumerate(stages):
            last = cell.weights_in(number, epochs - 1)
            for term in stage.terms:
                reached, whole = last.get(term.name, 0.0), full.get(term.name, 0.0)
                if reached < whole:
                    line = (
                        f"{term.warmup} = {cell.warmup(term):g}: the {epochs} epochs of its stage end before "
                        f"the weight of term {term.name!r} is whole, at {reached:g} of {whole:g}"
                    )
                    told.setdefault(line, []).append(repr(named.name))
    for line, names in told.items():
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        yield f"{', '.join(names[:_MOST_NAMES])}{more}: {line}"


def describe_duplicates(cells: Sequence[NamedCell]) -> Iterator[str]:
    """Names the cells that differ only in keys without an effect, a line per configuration.

    Several names for the same values are on purpose, and nothing is said about them.
    """
    by_id: dict[str, list[NamedCell]] = {}
    for named in cells:
        by_id.setdefault(cell_id(named.cell), []).append(named)
    for duplicates in by_id.values():
        if idle := _find_differing(duplicates):
            names = [repr(named.name) for named in duplicates]
            if len(names) > _MOST_NAMES:
                names = [*names[: _MOST_NAMES - 1], f"{len(names) - _MOST_NAMES + 1} more"]
            yield (
                f"{', '.join(names[:-1])} and {names[-1]} are one configuration: what they were given for "
                f"{', '.join(idle)} changes nothing, so no difference between them can be shown"
            )


def _find_differing(cells: Sequence[NamedCell]) -> list[str]:
    values = [cell_values(named.cell) for named in cells]
    known = dict.fromkeys(key for own in values for key in own)
    return [key for key in known if len({own.get(key) for own in values}) > 1]
