"""All keys of a cell by their dotted names, and a cell's values by key."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, cast, get_origin, get_type_hints

from hkrun.config.cell import Cell, get_value
from hkrun.config.sections import KeyInfo, Value
from hkrun.errors import InputError
from hkrun.methods import DECLARING, METHODS, Method
from hkrun.networks import parse_network
from hkrun.terms import FORMS, Key, Term

# Dotted name -> (type, default, what is known of it).
Keys = Mapping[str, tuple[type, Value, KeyInfo]]
_LIMITS = ("doc", "source", "choices", "minimum", "above", "maximum", "below")


@functools.cache
def keys() -> Keys:
    """All keys that every cell has, in the order of the docs."""
    found: dict[str, tuple[type, Value, KeyInfo]] = {}

    def collect(owner: type, prefix: str) -> None:
        hints = get_type_hints(owner)
        for spec in dataclasses.fields(owner):
            if dataclasses.is_dataclass(hints[spec.name]):
                collect(hints[spec.name], f"{prefix}{spec.name}.")
            elif "key" in spec.metadata:
                default = cast("Value", spec.default)  # every key has one
                found[prefix + spec.name] = (hints[spec.name], default, spec.metadata["key"])

    collect(Cell, "")
    return found


def keys_of(part: Method | Term) -> Keys:
    """The keys that a method or term of the user's own brings along, as `keys` has hkrun's."""
    return {key.name: (_kind(key), key.default, _info(key)) for key in part.own_keys}


def find_keys(named: Iterable[tuple[str, object]]) -> Keys:
    """The keys of every cell, and those of the methods and forms of knowledge that are named.

    Args:
        named: A key that names such a part, and the name. What cannot be found brings nothing along.

    Raises:
        InputError: Two of them bring one key along, and not the same.
    """
    found: dict[str, tuple[type, Value, KeyInfo]] = {}
    by: dict[str, tuple[Key, object]] = {}
    for key, name in dict.fromkeys(named):
        try:
            part = DECLARING[key](str(name))
        except InputError:
            continue
        for own in part.own_keys:
            other, before = by.setdefault(own.name, (own, name))
            if other != own:
                raise InputError(f"{own.name}: {before} and {name} declare this key, and not the same")
        found |= keys_of(part)
    return {**keys(), **found}


def _kind(key: Key) -> type:
    return cast("type", tuple[float, ...]) if isinstance(key.default, tuple) else type(key.default)


def _info(key: Key) -> KeyInfo:
    return KeyInfo(**{name: getattr(key, name) for name in _LIMITS})


def describe_type(kind: type) -> str:
    """A type in words for messages and `hkrun keys`."""
    if get_origin(kind) is tuple:
        return "list of numbers"
    return {bool: "true or false", int: "integer", float: "number", str: "string"}[kind]


def describe_range(info: KeyInfo) -> str:
    """The allowed values in words; empty where any value of the type will do."""
    if info.choices:
        return "one of " + ", ".join(info.choices) + (", or your own package.module:name" if info.own else "")
    if info.check is parse_network:
        return (
            "a network such as preact-20, preact-8-w8, preact-bottleneck-164, wrn-16-2, resnet8x4, vgg8, "
            "resnet-18, torchvision:mobilenet_v2, timm:regnetx_002, or your own package.module:name"
        )
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in (
            ("at least", info.minimum),
            ("above", info.above),
            ("at most", info.maximum),
            ("below", info.below),
        )
        if bound is not None
    ]
    return " and ".join(bounds) + (", increasing" if info.increasing else "")


def cell_from_values(
    values: Mapping[str, Value], *, declared: Mapping[str, Method | Term] | None = None
) -> Cell:
    """Builds a cell from checked values by dotted key; every other key has its default.

    Args:
        values: By key, those that methods and terms of the user's own bring along among them.
        declared: The declaration of the method and of the form of knowledge, each by its key, where it is not
            built in; found by their names without it.

    Raises:
        InputError: One of them cannot be found.
    """
    sections: dict[str, dict[str, Value]] = {}
    top: dict[str, Any] = {}
    built_in = {"method": METHODS, "knowledge.form": FORMS}
    if declared is None:
        declared = {
            key: find(str(values[key]))
            for key, find in DECLARING.items()
            if key in values and values[key] not in built_in[key]
        }
    own = {key.name: key.default for part in declared.values() for key in part.own_keys}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        if key not in keys():
            own[key] = value
        elif section:
            sections.setdefault(section, {})[name] = value
        else:
            top[name] = value
    hints = get_type_hints(Cell)
    return Cell(
        **top,
        **{section: hints[section](**inner) for section, inner in sections.items()},
        declared=tuple(declared.items()),
        own_values=tuple(sorted(own.items())),
    )


def cell_keys(cell: Cell) -> Keys:
    """The keys of every cell, and those that this one's method and terms bring along."""
    return {**keys(), **{name: known for _, part in cell.declared for name, known in keys_of(part).items()}}


def cell_values(cell: Cell) -> dict[str, Value]:
    """All keys of a cell with their values; the inverse of `cell_from_values`."""
    return {**{key: get_value(cell, key) for key in keys()}, **dict(cell.own_values)}
