"""Numbers in words: which lines, seeds and epochs a message is about."""

from collections.abc import Sequence

_MAX_PLACES = 8  # that one problem names; the rest is counted


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
