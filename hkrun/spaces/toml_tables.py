"""TOML files whose every key knows its line, read table by table; mistakes are collected, not raised."""

import math
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

from hkrun.config import Keys, Setting, Value, check_setting, find_keys, keys, nearest
from hkrun.errors import InputError
from hkrun.methods import DECLARING

KeyPath = tuple[str | int, ...]

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANKS = re.compile(r"[ \t]*")
_STRING = re.compile(r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\])*"|\'[^\']*\'', re.DOTALL)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\r\n]+")
_BARE_WORD = re.compile(r"=\s*(?!(?:true|false|inf|nan)\b)(?P<word>[A-Za-z][\w.-]*)\s*(?:#.*)?$")
_SYNTAX_ERROR = re.compile(r"(?P<problem>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)", re.DOTALL)
_KEY = re.compile(r"\s*(?P<key>[\w.-]+)\s*=")


@dataclass(frozen=True, kw_only=True)
class Document:
    """A TOML file that was read.

    Attributes:
        name: The file as messages show it.
        data: What it says; where some lines are no TOML, what the others say.
        lines: The line on which each key, table and array element begins, by its path.
        broken: What is wrong with the lines that are no TOML. What is missing may stand there.
    """

    name: str
    data: Mapping[str, object]
    lines: Mapping[KeyPath, int]
    broken: tuple[str, ...] = ()

    def where(self, *path: str | int) -> str:
        """`file:line` of the key, or of the nearest table around it that is in the file."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.name}:{self.lines[path[:length]]}"
        return self.name


def read_document(path: Path) -> Document:
    """Reads a TOML file. Lines that are no TOML are named in it and left out, so that all else is checked.

    Raises:
        InputError: The file cannot be read, or ends in the middle of something.
    """
    name = display_path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors put a byte order mark in front
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not a text file in UTF-8") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error
    lines = text.split("\n")
    broken: list[str] = []
    last = unclosed = 0
    while True:
        try:
            data = tomllib.loads("\n".join(lines))
        except tomllib.TOMLDecodeError as error:
            match = _SYNTAX_ERROR.fullmatch(str(error))
            if match is None:  # "at end of document"
                where = f"{name}:{len(text.splitlines())}: not valid TOML: {error}"
                raise InputError("\n".join([*broken, where])) from error
            number = int(match["line"])
            line = lines[number - 1]
            rest_of_list = unclosed > 0 and number == last + 1  # of a list that a line named before began
            if not rest_of_list:
                broken.append(f"{name}:{number}: {_explain(match, line)}")
            unclosed = (unclosed if rest_of_list else 0) + line.count("[") - line.count("]")
            lines[number - 1], last = "", number
        else:
            return Document(name=name, data=data, lines=locate("\n".join(lines)), broken=tuple(broken))


def _explain(match: re.Match[str], line: str) -> str:
    """What is wrong with a line, by what tomllib says of it."""
    key = f"{found['key']}: " if (found := _KEY.match(line)) else ""
    problem = f"{match['problem']} (column {match['column']})"
    return f"{key}not valid TOML: {problem}{_hint_for_value(line)}"


def _hint_for_value(line: str) -> str:
    """What to write instead of a bare word: what people expect TOML to be."""
    match = _BARE_WORD.search(line)
    if match is None:
        return ""
    word = match["word"]
    if word.lower() in ("true", "false"):
        return f"; write {word.lower()}"
    return f'; text stands in quotes: "{word}"'


def display_path(path: Path) -> str:
    """The path as people write it: relative to the working directory where it lies inside."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


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
    """One table of a document."""

    document: Document
    path: KeyPath
    data: Mapping[str, object]
    problems: Problems

    def where(self, *keys: str | int) -> str:
        """`file:line` of something in this table."""
        return self.document.where(*self.path, *keys)

    def refuse(self, key: str, problem: str) -> None:
        """Notes that a key of this table is wrong or missing; not what a line that is no TOML may say."""
        if self.document.broken and problem.startswith("missing"):
            return
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
            for path, value in leaves(self.data)
            if path[0] not in without
        ]


def _find_named(data: object) -> Iterator[tuple[str, object]]:
    """The keys that can name a method or form of the user's own, and their values, all over a document."""
    if isinstance(data, list):
        for item in data:
            yield from _find_named(item)
    if not isinstance(data, dict):
        return
    for path, value in leaves(data):
        yield from ((key, value) for key in DECLARING if f".{'.'.join(path)}".endswith(f".{key}"))
        yield from _find_named(value)
    values = data.get("values")
    if isinstance(values, list):  # of an axis
        yield from ((str(data.get("key")), value) for value in values)


def _is_line(text: str) -> bool:
    return bool(text.strip()) and text.isprintable()


def leaves(table: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    """The values of a table and of the tables in it, by their path."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            for path, leaf in leaves(cast("dict[str, object]", value)):
                yield (key, *path), leaf
        elif value != {} or not any(known.startswith(f"{key}.") for known in keys()):
            yield (key,), value


def locate(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of every key, table and array element of valid TOML; nothing is checked again."""
    return _Locator(text).run()


@dataclass
class _Locator:
    """One walk over the text; `position` is where it stands."""

    text: str
    position: int = 0
    lines: dict[KeyPath, int] = field(default_factory=dict)
    array_lengths: dict[KeyPath, int] = field(default_factory=dict)  # of [[arrays of tables]]

    def run(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self._skip(_SPACE)
        while self.position < len(self.text):
            if self.text.startswith("[[", self.position):
                table = self._header(brackets=2)
            elif self.text.startswith("[", self.position):
                table = self._header(brackets=1)
            else:
                self._pair(table)
            self._skip(_SPACE)
        return self.lines

    def _header(self, *, brackets: int) -> KeyPath:
        start = self.position
        self.position += brackets
        keys = self._dotted_key()
        self.position += brackets
        path = self._within_arrays(keys[:-1]) + keys[-1:]
        for length in range(1, len(path)):
            self._mark(path[:length], start)
        if brackets == 2:
            self._mark(path, start)
            index = self.array_lengths.get(path, 0)
            self.array_lengths[path] = index + 1
            path = (*path, index)
        self._mark(path, start)
        return path

    def _within_arrays(self, keys: KeyPath) -> KeyPath:
        """The path of a header's keys: an array of tables among them means its newest element."""
        path: KeyPath = ()
        for key in keys:
            path = (*path, key)
            if path in self.array_lengths:
                path = (*path, self.array_lengths[path] - 1)
        return path

    def _pair(self, table: KeyPath) -> None:
        start = self.position
        keys = self._dotted_key()
        for length in range(1, len(keys) + 1):
            self._mark(table + keys[:length], start)
        self.position += 1  # the equals sign
        self._value(table + keys)

    def _value(self, path: KeyPath) -> None:
        self._skip(_SPACE)
        opening = self.text[self.position]
        if opening == "{":
            self._bracket("}", lambda _: self._pair(path))
        elif opening == "[":
            self._bracket("]", lambda index: self._element((*path, index)))
        elif opening in "\"'":
            self._skip(_STRING)
        else:
            self._skip(_SCALAR)

    def _bracket(self, closing: str, read_item: Callable[[int], None]) -> None:
        self.position += 1
        index = 0
        self._skip(_SPACE)
        while self.text[self.position] != closing:
            read_item(index)
            index += 1
            self._skip(_SPACE)
            if self.text[self.position] == ",":
                self.position += 1
                self._skip(_SPACE)
        self.position += 1

    def _element(self, path: KeyPath) -> None:
        self._mark(path, self.position)
        self._value(path)

    def _dotted_key(self) -> tuple[str, ...]:
        keys: list[str] = []
        while True:
            self._skip(_BLANKS)
            if self.text[self.position] in "\"'":
                keys.append(str(tomllib.loads(f"key = {self._skip(_STRING)}")["key"]))
            else:
                keys.append(self._skip(_BARE_KEY))
            self._skip(_BLANKS)
            if self.text[self.position] != ".":
                return tuple(keys)
            self.position += 1

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.position)
        assert match is not None, "tomllib accepts only valid TOML"
        self.position = match.end()
        return match[0]

    def _mark(self, path: KeyPath, position: int) -> None:
        self.lines.setdefault(path, self.text.count("\n", 0, position) + 1)
