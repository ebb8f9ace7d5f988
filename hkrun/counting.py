"""Numbers with their nouns, seeds in short and names in a row, as every message says them."""

from collections.abc import Collection, Iterable, Sequence


def count(number: int, noun: str) -> str:
    """A number with its noun: 1 run, 20 runs, 0 runs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def seeds(numbers: Iterable[int]) -> str:
    """Seeds in short: 0-3, 7."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" if b > a + 1 else f"{a}, {b}" for a, b in spans)


def name_seeds(numbers: Collection[int]) -> str:
    """Seeds in short, with their noun: seed 3, seeds 0-3, 7."""
    return f"{'seed' if len(numbers) == 1 else 'seeds'} {seeds(numbers)}"


def list_names(names: Sequence[str], most: int | None = None) -> str:
    """Names in a row: a, b and c. With semicolons where a name holds a comma, as the values of several axes.

    Args:
        names: What to name; none gives an empty text.
        most: How many of them at most; the others are counted: a, b and 7 more.
    """
    shown = list(names[:most])
    if len(names) > len(shown):
        shown.append(f"{len(names) - len(shown)} more")
    if len(shown) < 2:
        return "".join(shown)
    if any("," in name for name in shown):
        return f"{'; '.join(shown[:-1])}; and {shown[-1]}"
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
