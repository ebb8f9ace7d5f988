"""The names of cells in figures: losses with their sub- and superscripts, and long ones in lines."""

import re
import textwrap

_LONGEST_WORD = 36  # characters of a word that is not broken
_PAIR = re.compile(r"\S+ = \S+")  # a key and its value
_NO_BREAK = "\u00a0"

# The losses' names in a cell's name: L_is, L_adv^C.
SYMBOL = re.compile(r"\b([A-Z])_([A-Za-z]+)(?:\^([A-Za-z]))?(?![\w^])")


def typeset(name: str) -> str:
    """A cell's name for Matplotlib: L_is and L_adv^C with real sub- and superscripts, all else literal."""
    escaped = name.replace("\\", "/").replace("$", r"\$")
    return SYMBOL.sub(_symbol, escaped)


def wrap(name: str, width: int) -> str:
    """A cell's name as `typeset` gives it, in the lines of `split_lines`."""
    return "\n".join(map(typeset, split_lines(name, width)))


def split_lines(name: str, width: int) -> list[str]:
    """A name in lines of at most so many characters, or as many as its longest word has.

    A key and its value stay together where a line holds both.
    """
    longest = max(map(len, name.replace("-", "- ").split()), default=0)  # lines may end in a hyphen
    width = max(width, min(longest, _LONGEST_WORD))

    def join(pair: re.Match[str]) -> str:
        return pair[0].replace(" ", _NO_BREAK) if len(pair[0]) <= width else pair[0]

    return [line.replace(_NO_BREAK, " ") for line in textwrap.wrap(_PAIR.sub(join, name), width)]


def _symbol(match: re.Match[str]) -> str:
    letter, below, above = match.groups()
    return f"${letter}_{{\\mathrm{{{below}}}}}" + (f"^{{{above}}}$" if above else "$")
