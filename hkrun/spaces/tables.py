"""Tables of a TOML document, read key by key; whatever is wrong is collected instead of raised."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar, cast

from hkrun.config import Keys, Setting, Value, check_setting, find_keys, keys, nearest
from hkrun.errors import InputError
from hkrun.methods import DECLARING
from hkrun.spaces.documents import Document, KeyPath

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass
class Problems:
    """All that is wrong so far, one line each.

    Attributes:
        found: The lines.
        keys: The keys of a cell that there are, with those of the methods and terms that were read.
    """

    found: list[str] = field(default_factory=list)
    keys: Keys = field(default_factory=keys)
    _named: list[tuple[str, object]] = field(default_factory=list)

    def attempt(
        self, function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result | None:
        """Calls a function; its InputError becomes problems, and None the result."""
        try:
            return function(*args, **kwargs)
        except InputError as error:
            self.found += error.problems
            return None

    def learn_keys(self, data: object) -> None:
        """Adds the keys of the methods and terms of the user's own that a document names."""
        self._named += [(key, name) for key, name in _find_named(data) if key in DECLARING]
        self.keys = self.attempt(find_keys, self._named) or self.keys

    def check(self, settings: Iterable[Setting]) -> list[Value | None]:
        """Checks each setting against its key; returns its values, None where it is wrong."""
        checked = [check_setting(setting, self.keys) for setting in settings]
        self.found += [line for _, lines in checked for line in lines]
        return [None if lines else value for value, lines in checked]

    def error(self) -> InputError:
        """The exception that reports them, each once."""
        return InputError("\n".join(dict.fromkeys(self.found)))


@dataclass(frozen=True)
class Table:
    """One table of a document.

    Attributes:
        document: The file.
        path: Where the table is in it.
        data: Its content.
        problems: Where to put what is wrong.
    """

    document: Document
    path: KeyPath
    data: Mapping[str, object]
    problems: Problems

    def where(self, *keys: str | int) -> str:
        """`file:line` of something in this table."""
        return self.document.where(*self.path, *keys)

    def refuse(self, key: str, problem: str) -> None:
        """Notes that a key of this table is wrong or missing."""
        name = ".".join(part for part in (*self.path, key) if isinstance(part, str))
        self.problems.found.append(f"{self.where(key)}: {name}: {problem}")

    def allow_only(self, *allowed: str) -> None:
        """Refuses every key but these."""
        for key in self.data:
            if key not in allowed:
                hint = nearest(key, allowed) or f"; allowed are {', '.join(allowed)}"
                if not self.path and any(
                    known == key or known.startswith(f"{key}.") for known in self.problems.keys
                ):
                    hint = "; keys of a cell belong in [base] or [[cells]]"
                self.refuse(key, f"unknown key{hint}")

    def text(self, key: str) -> str | None:
        """A string, or None where it is missing or wrong."""
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not _is_line(value):
            self.refuse(key, f"{value!r} is not a line of text")
            return None
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        """Strings: a list of them or a single one; None where they are missing or wrong."""
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, list):
            single = self.text(key)
            return None if single is None else (single,)
        wrong = [item for item in value if not isinstance(item, str) or not _is_line(item)]
        if wrong or not value:
            self.refuse(
                key, f"{wrong[0]!r} is not a line of text" if wrong else "must have at least one item"
            )
            return None
        for item in sorted({item for item in value if value.count(item) > 1}):
            self.refuse(key, f"{item!r} is repeated")
        return tuple(value)

    def integer(self, key: str, *, minimum: int, maximum: int | None = None) -> int | None:
        """An integer, or None where it is missing or wrong."""
        value = self.data.get(key)
        if value is None:
            return None
        bounds = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        if type(value) is not int or value < minimum or (maximum is not None and value > maximum):
            self.refuse(key, f"{value!r} is not an integer {bounds}")
            return None
        return value

    def number(self, key: str, *, above: float) -> float | None:
        """A finite number, or None where it is missing or wrong."""
        value = self.data.get(key)
        if value is None:
            return None
        if type(value) not in (int, float) or not above < cast("float", value) < math.inf:
            self.refuse(key, f"{value!r} is not a number above {above:g}")
            return None
        return float(cast("float", value))

    def table(self, key: str) -> "Table":
        """A table inside this one; an empty one where it is missing or wrong."""
        value = self.data.get(key, {})
        if not isinstance(value, dict):
            names = ".".join(part for part in (*self.path, key) if isinstance(part, str))
            self.refuse(key, f"must be a table, [{names}]")
            value = {}
        return Table(self.document, (*self.path, key), value, self.problems)

    def tables(self, key: str) -> "list[Table]":
        """The tables of an array; those that are none are refused and left out."""
        values = self.data.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            self.refuse(key, f"must be tables, each under its own [[{key}]]")
            return []
        return [
            Table(self.document, (*self.path, key, index), value, self.problems)
            for index, value in enumerate(values)
        ]

    def settings(self, *, without: Sequence[str] = ()) -> list[Setting]:
        """Every key of a cell that this table sets, nested or dotted, in the order of the file."""
        return [
            Setting(key=".".join(path), value=value, where=self.where(*path))
            for path, value in _leaves(self.data)
            if path[0] not in without
        ]


def _find_named(data: object) -> Iterator[tuple[str, object]]:
    """The keys that can name a method or form of the user's own, and their values, all over a document."""
    if isinstance(data, list):
        for item in data:
            yield from _find_named(item)
    if not isinstance(data, dict):
        return
    for path, value in _leaves(data):
        yield from ((key, value) for key in DECLARING if f".{'.'.join(path)}".endswith(f".{key}"))
        yield from _find_named(value)
    values = data.get("values")
    if isinstance(values, list):  # of an axis
        yield from ((str(data.get("key")), value) for value in values)


def _is_line(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()


def _leaves(table: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            for path, leaf in _leaves(cast("dict[str, object]", value)):
                yield (key, *path), leaf
        elif value != {} or not any(known.startswith(f"{key}.") for known in keys()):
            yield (key,), value
