"""What arguments and options offer at a TAB, for click's `shell_complete`.

Only files are read, none is written, and nothing heavy is imported: an answer must be there at once. Search
spaces and stores are looked at without the checks of those that use them: what is damaged is not offered.
"""

import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click.shell_completion import CompletionItem, ShellComplete

from hkrun.config import keys
from hkrun.datasets import DATASETS
from hkrun.methods import SHIPPED_FORMS, SHIPPED_METHODS
from hkrun.networks import CIFAR_NETWORKS, IMAGENET_NETWORKS, parse_network

if TYPE_CHECKING:
    from hkrun.cli.invocation import Invocation

Items = list[CompletionItem[str]]
Complete = Callable[[click.Context, click.Parameter, str], Items]


def complete_words(
    program: click.Command, words: Sequence[str], current: str, *, invocation: "Invocation"
) -> Items:
    """What may stand in place of the current word, as click finds it; values of --option=VALUE with it."""
    dashes = words.index("--") if "--" in words else len(words)
    if "submit" in words[:dashes] and words[dashes + 1 :]:
        return complete_words(program, words[dashes + 1 :], current, invocation=invocation)
    items = ShellComplete(program, {"obj": invocation}, "hkrun", "").get_completions([*words], current)
    option, equals, _ = current.partition("=")
    if equals and option.startswith("--") and "--" not in words:
        for item in items:
            item.value = f"{option}={item.value}" if item.type == "plain" else item.value
    return [item for item in items if item.type != "plain" or item.value.startswith(current)]


def _item(value: str, meaning: str = "", *, goes_on: bool = False) -> CompletionItem[str]:
    """A candidate; after one that goes on no space is put."""
    return CompletionItem(value, help=meaning, goes_on=goes_on)


def paths(kind: str) -> Complete:
    """Paths, which the shell completes: `dir`, `file` or `toml`."""
    return lambda _context, _parameter, incomplete: [CompletionItem(incomplete, type=kind)]


def datasets(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """The data sets that hkrun knows."""
    return [_item(name, entry.summary) for name, entry in DATASETS.items() if name.startswith(incomplete)]


def auto(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """The one word that stands where a number may."""
    return [_item("auto")] if "auto".startswith(incomplete) else []


def spaces(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Search spaces by name, and files of one's own."""
    from hkrun.spaces import find_sweep, sweep_names

    names = [name for name in sweep_names() if name.startswith(incomplete)]
    return [
        *(_item(name, _read_title(find_sweep(name))) for name in names),
        *paths("toml")(context, parameter, incomplete),
    ]


def _read_title(path: Path) -> str:
    try:
        return str(tomllib.loads(path.read_text(encoding="utf-8")).get("title", ""))
    except (OSError, ValueError):
        return ""


def overrides(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """Keys with the sign after which a value stands; then the values of those that have a closed list."""
    key, equals, _ = incomplete.partition("=")
    if not equals:
        known = keys().items()
        return [
            _item(f"{name}=", info.doc, goes_on=True) for name, (_, _, info) in known if name.startswith(key)
        ]
    if key not in keys():
        return []
    kind, _, info = keys()[key]
    values: Iterable[str] = info.choices
    if kind is bool:
        values = ("true", "false")
    elif info.check is parse_network:
        values = (*CIFAR_NETWORKS, *IMAGENET_NETWORKS)
    return [_item(f"{key}={value}") for value in values]


def patterns(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """What `hkrun keys` takes: keys, and the losses and methods that it describes."""
    described = (*SHIPPED_METHODS, *SHIPPED_FORMS)
    return [
        *(_item(name, info.doc) for name, (_, _, info) in keys().items() if name.startswith(incomplete)),
        *(_item(name) for name in dict.fromkeys(described) if name.startswith(incomplete)),
    ]


def studies(context: click.Context, _parameter: click.Parameter, incomplete: str) -> Items:
    """The studies of a local store, by name."""
    found: dict[str, list[str]] = {}
    for sweep in _read_sweeps(context):
        found.setdefault(sweep["name"], []).append(sweep["dataset"])
    return [
        _item(name, f"on {', '.join(sorted(on))}")
        for name, on in sorted(found.items())
        if name.startswith(incomplete)
    ]


def studies_or_folders(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """The studies of a local store, and folders."""
    return [*studies(context, parameter, incomplete), *paths("dir")(context, parameter, incomplete)]


def runs(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """The runs of a local store as SWEEP:CELL:SEED, one part after the other."""
    sweeps = {sweep["name"]: sweep for sweep in _read_sweeps(context)}
    name = next((name for name in sweeps if incomplete.startswith(f"{name}:")), None)
    if name is None:
        found = studies(context, parameter, incomplete)
        return [_item(f"{study.value}:", study.help or "", goes_on=True) for study in found]
    cells = [f"{name}:{cell['name']}:" for cell in sweeps[name]["cells"]]
    cell = next((cell for cell in cells if incomplete.startswith(cell)), None)
    if cell is None:
        return [_item(cell, goes_on=True) for cell in cells if cell.startswith(incomplete)]
    return [_item(f"{cell}{seed}") for seed in sweeps[name]["seeds"]]


def first_of(names: Sequence[str]) -> Complete:
    """One of some words as the first of an argument; `complete_words` goes on from there."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
        is_first = not context.params.get(parameter.name or "")
        return [_item(name) for name in names if is_first and name.startswith(incomplete)]

    return complete


def _read_sweeps(context: click.Context) -> Iterator[dict[str, Any]]:
    """The sweeps of a local store as their plans have them; one elsewhere would have to be asked."""
    uri = cast("Invocation", context.find_root().obj).store_uri
    if "://" in uri:
        return
    for path in sorted((Path(uri).expanduser() / "sweeps").glob("*/plan.json")):
        try:
            sweep = json.loads(path.read_bytes())["sweep"]
            yield {
                "name": str(sweep["name"]),
                "dataset": str(sweep["dataset"]),
                "seeds": list(sweep["seeds"]),
                "cells": [{"name": str(cell["name"])} for cell in sweep["cells"]],
            }
        except (OSError, ValueError, KeyError, TypeError):
            continue
