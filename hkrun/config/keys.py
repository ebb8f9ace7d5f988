"""All keys of a cell by their dotted names, and a cell's values by key."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, cast, get_origin, get_type_hints

from hkrun.config.cell import Cell, get_value
from hkrun.config.sections import KeyInfo, Value
from hkrun.networks import parse_network


@functools.cache
def keys() -> dict[str, tuple[type, Value, KeyInfo]]:
    """All keys of a cell: dotted name -> (type, default, what is known of it), in the order of the docs."""
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
            "resnet-18, or your own package.module:name"
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


def cell_from_values(values: Mapping[str, Value]) -> Cell:
    """Builds a cell from checked values by dotted key; every other key has its default."""
    sections: dict[str, dict[str, Value]] = {}
    top: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        if section:
            sections.setdefault(section, {})[name] = value
        else:
            top[name] = value
    hints = get_type_hints(Cell)
    return Cell(**top, **{section: hints[section](**inner) for section, inner in sections.items()})


def cell_values(cell: Cell) -> dict[str, Value]:
    """All keys of a cell with their values; the inverse of `cell_from_values`."""
    return {key: get_value(cell, key) for key in keys()}
