"""TOML files whose every key knows its line, which `tomllib` does not tell."""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hkrun.errors import InputError

KeyPath = tuple[str | int, ...]

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANKS = re.compile(r"[ \t]*")
_STRING = re.compile(r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\])*"|\'[^\']*\'', re.DOTALL)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\r\n]+")
_BARE_WORD = re.compile(r"=\s*(?!(?:true|false|inf|nan)\b)(?P<word>[A-Za-z][\w.-]*)\s*(?:#.*)?$")
_SYNTAX_ERROR = re.compile(r"(?P<problem>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A TOML file that was read.

    Attributes:
        name: The file as messages show it.
        data: Its content.
        lines: The line on which each key, table and array element begins, by its path.
    """

    name: str
    data: Mapping[str, object]
    lines: Mapping[KeyPath, int]

    def where(self, *path: str | int) -> str:
        """`file:line` of the key, or of the nearest table around it that is in the file."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.name}:{self.lines[path[:length]]}"
        return self.name


def read_document(path: Path) -> Document:
    """Reads a TOML file.

    Raises:
        InputError: The file cannot be read or is not TOML; with the line where that shows.
    """
    name = display_path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors put a byte order mark in front
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not a text file in UTF-8") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _SYNTAX_ERROR.fullmatch(str(error))
        if match is None:  # "at end of document"
            raise InputError(f"{name}:{len(text.splitlines())}: not valid TOML: {error}") from error
        problem = f"{match['problem']} (column {match['column']})"
        hint = _hint_for_value(text.splitlines()[int(match["line"]) - 1])
        raise InputError(f"{name}:{match['line']}: not valid TOML: {problem}{hint}") from error
    return Document(name=name, data=data, lines=locate(text))


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


def locate(text: str) -> dict[KeyPath, int]:
    """Finds the line (from 1) of every key, table and array element.

    Args:
        text: Valid TOML: what `tomllib` accepted. Nothing is checked again.
    """
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
