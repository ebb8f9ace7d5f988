"""stdout and stderr, which print any text in any encoding."""

import codecs
import io
import os
import sys

REPLACING = "hkrun.replace"  # the name of the error handler among Python's codecs

# For an encoding that lacks these signs. "…" is where a table cuts a name, and keeps to its one column.
PLAIN = {"±": "+-", "²": "^2", "−": "-", "–": "-", "…": "~", "─": "-"}  # noqa: RUF001


def prepare_streams() -> None:
    """Makes stdout and stderr replace what their encoding lacks, where Python would raise an error.

    One that was closed before hkrun began goes nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=REPLACING)


def printable(text: str, encoding: str) -> str:
    """The text as a stream of that encoding shows it."""
    return text.encode(encoding, REPLACING).decode(encoding)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Signs in plain characters, letters as escapes: names that differ still do."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(PLAIN.get(character) or _escape(character) for character in characters), error.end


def _escape(character: str) -> str:
    """Python's escape of a character, or of a byte in a file name that is no text."""
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds such a byte
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(REPLACING, _replace)
