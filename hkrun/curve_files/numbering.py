"""Words of messages: which lines, seeds, epochs, names and values they are about."""

from collections.abc import Iterable, Sequence

_MAX_PLACES = 8  # that one problem names; the rest is counted
_MAX_LENGTH = 60  # of a name or value in a message


def numbered(noun: str, numbers: Sequence[int]) -> str:
    """`line 3` or `lines 3-5, 9`, of ascending numbers."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return spans(noun, found)


def spans(noun: str, ends: Sequence[tuple[int, int]]) -> str:
    """The same of spans, (first, last) each."""
    words = [str(first) if first == last else f"{first}-{last}" for first, last in ends]
    plural = "s" if len(ends) > 1 or ends[0][0] < ends[0][1] else ""
    return f"{noun}{plural} {listed(words, ', ')}"


def listed(words: Sequence[str], separator: str) -> str:
    """Words in a line, or as many as one reads and how many more there are."""
    more = len(words) - _MAX_PLACES
    return separator.join(words[:_MAX_PLACES]) + (f"{separator}{more} more" if more > 0 else "")


def quoted(value: object) -> str:
    """A name or value between quotes, without its middle where it is long."""
    text = repr(value)
    half = _MAX_LENGTH // 2
    return text if len(text) <= _MAX_LENGTH else f"{text[: half - 2]}...{text[1 - half :]}"


def quoted_list(names: Iterable[str]) -> str:
    """Names between quotes, or as many as one reads and how many more there are."""
    return listed([quoted(name) for name in names], ", ")
