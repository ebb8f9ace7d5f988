"""Search spaces as dicts of Python, with the keys of the TOML files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from hkrun.errors import InputError
from hkrun.spaces.toml_tables import Document, KeyPath

DICT = "dict"  # what messages call one, where a file has its name


@dataclass(frozen=True, kw_only=True)
class DictDocument(Document):
    """A dict in place of a file: its items have places, not lines."""

    def where(self, *path: str | int) -> str:
        """`dict`, with the item of a list that the key is in: `dict, cells[1]`."""
        items = [number for number, part in enumerate(path, start=1) if isinstance(part, int)]
        return f"{self.name}, {_show(path[: items[-1]])}" if items else self.name


def read_dict(space: Mapping[str, object]) -> DictDocument:
    """Reads a search space that is a dict.

    Keys may be nested or dotted, tuples and ranges stand for lists, and numbers of numpy for Python's.

    Raises:
        InputError: It has keys or values that TOML has not; all of them, one per line.
    """
    problems: list[str] = []
    data = read_value(space, (), problems)
    if problems:
        raise InputError("\n".join(f"{DICT}: {problem}" for problem in problems))
    assert isinstance(data, dict)
    return DictDocument(name=DICT, data=data, lines={})


def read_value(value: object, path: KeyPath, problems: list[str]) -> object:
    """A value as TOML has it; what it has not goes to the problems, each with its key."""
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        value = value.tolist()  # a scalar's is a number
    if isinstance(value, Mapping):
        return _read_table(value, path, problems)
    if isinstance(value, list | tuple | range):
        return [read_value(item, (*path, number), problems) for number, item in enumerate(value)]
    if isinstance(value, PurePath):
        return str(value)
    if not isinstance(value, bool | int | float | str):
        problems.append(
            f"{_show(path)}: a value of type {type(value).__name__}; allowed are text, numbers, True and "
            "False, lists and dicts"
        )
        return ""
    return value


def _read_table(table: Mapping[object, object], path: KeyPath, problems: list[str]) -> dict[str, object]:
    read: dict[str, object] = {}
    for key, value in table.items():
        if not isinstance(key, str):
            problems.append(f"{_show((*path, str(key)))}: {key!r} is no text, and all keys are")
            continue
        # A data set of the user's own, package.module:name, is a key of `on` as it is.
        names = [key] if ":" in key else key.split(".")
        inner = read
        for name in names[:-1]:
            found = inner.setdefault(name, {})
            inner = found if isinstance(found, dict) else {names[-1]: found}
        item = read_value(value, (*path, *names), problems)
        before = inner.setdefault(names[-1], item)
        if before is item:
            continue
        if isinstance(before, dict) and isinstance(item, dict) and not before.keys() & item.keys():
            before.update(item)
        else:
            problems.append(f"{_show((*path, *names))}: given twice")
    return read


def _show(path: KeyPath) -> str:
    """A place as Python writes it: `cells[1].loss.mu`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return "".join(parts).removeprefix(".") or DICT
