"""Short forms of names for tables, figures and the live display: of the keys of axes, and of long names."""

import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from hkrun.config import keys

ELLIPSIS = "…"
_ABBREVIATIONS = {"learning_rate": "lr", "weight_decay": "wd"}  # those that everybody writes
# What tables call their other columns: a key of a user's own term may end in one of these.
_COLUMNS = frozenset(
    {
        *("cell", "cell_id", "name", "group", "n", "p", "s", "seed", "seeds", "epoch", "error", "status"),
        *("table", "row", "column", "text", "value", "low", "high", "significant"),
    }
)
_WIDE = ("W", "F")  # of East Asian Width: two columns
_MARKS = ("Mn", "Me", "Mc")  # categories of what belongs to the character before it
_EMOJI_STYLE = "\ufe0f"  # makes a narrow sign an emoji, which is wide


def short_keys(keys_of_axes: Iterable[str]) -> dict[str, str]:
    """What columns of axes are called: `lambda_3` for `loss.lambda_3`, `lr` for `student.learning_rate`.

    A key goes without its section where that leaves no doubt: the student's, and those that are unlike the
    key of any other section (`teacher.lr` keeps it). Of keys that would be called the same, each keeps it.

    Returns:
        By key, in the order given; all distinct.
    """
    wanted = list(dict.fromkeys(keys_of_axes))
    last = {key: key.rpartition(".")[2] for key in wanted}
    here, known = Counter(last.values()), Counter(key.rpartition(".")[2] for key in keys())
    short = {}
    for key in wanted:
        others = known[last[key]] - (key in keys())
        doubtful = here[last[key]] > 1 or last[key] in _COLUMNS
        doubtful |= others > 0 and not key.startswith("student.")
        short[key] = _abbreviate(key if doubtful else last[key])
    called = Counter(short.values())
    return {key: name if called[name] == 1 else key for key, name in short.items()}


def _abbreviate(key: str) -> str:
    for long, abbreviation in _ABBREVIATIONS.items():
        key = key.replace(long, abbreviation)
    return key


def display_width(text: str) -> int:
    """The columns that a text takes in a terminal: wide characters take two, combining ones none."""
    return sum(map(_width, _clusters(text)))


def shorten(text: str, width: int) -> str:
    """A text in at most so many columns: without its middle, for which an ellipsis stands.

    What is seen as one character, such as a letter with its accents or a flag, stays whole.

    Raises:
        ValueError: The width is below 1.
    """
    if width < 1:
        raise ValueError(f"a width of {width} columns holds nothing")
    return text if display_width(text) <= width else _cut(text, width, head=width // 2)


def wrap_words(text: str, width: int) -> str:
    """A text whose words of more than so many columns have lines of their own, broken after hyphens alone.

    Others stay as they are, for whatever wraps lines at spaces.
    """
    if all(display_width(word) <= width for word in text.split()):
        return text
    return "\n".join(textwrap.wrap(text, width, break_long_words=False))


def shorten_names(names: Sequence[str], width: int) -> dict[str, str]:
    """Distinct names, each in at most so many columns and still distinct.

    Where names differ in the part that `shorten` leaves out, another part of them is left out; where that
    does not help either, they end in their number.

    Raises:
        ValueError: The width is below 8, too few to tell names apart.
    """
    if width < 8:
        raise ValueError(f"{width} columns are too few to tell names apart")
    short = {name: shorten(name, width) for name in names}
    counts = Counter(short.values())
    for alike in [[name for name in short if short[name] == shown] for shown in counts if counts[shown] > 1]:
        others = {shown for name, shown in short.items() if name not in alike}
        short |= _tell_apart(alike, width, others)
    return short


def _tell_apart(names: Sequence[str], width: int, others: set[str]) -> dict[str, str]:
    """Names whose middles differ, shortened elsewhere: as near to the middle as will do."""
    for head in sorted(range(width), key=lambda place: abs(place - width // 2)):
        cut = {name: _cut(name, width, head=head) for name in names}
        found = set(cut.values())
        if len(found) == len(names) and not found & others:
            return cut
    numbered = {name: f" {number}" for number, name in enumerate(names, 1)}
    return {name: shorten(name, width - len(mark)) + mark for name, mark in numbered.items()}


def _cut(text: str, width: int, *, head: int) -> str:
    """The text with so many columns before the ellipsis, and after it what then fits."""
    if display_width(text) <= width:
        return text
    clusters = list(_clusters(text))
    start = "".join(_take(clusters, head)).rstrip()
    end = "".join(reversed(_take(clusters[::-1], width - 1 - display_width(start))))
    return f"{start}{ELLIPSIS}{end.lstrip()}"


def _take(clusters: list[str], width: int) -> list[str]:
    """The first ones that fit; whole words and numbers where these fill half of the width."""
    fitting, used = 0, 0
    while fitting < len(clusters) and used + _width(clusters[fitting]) <= width:
        used += _width(clusters[fitting])
        fitting += 1
    whole = fitting
    while 0 < whole < len(clusters) and _in_word(clusters[whole - 1]) and _in_word(clusters[whole]):
        whole -= 1
    return clusters[: whole if sum(map(_width, clusters[:whole])) >= width / 2 else fitting]


def _in_word(cluster: str) -> bool:
    return cluster[0].isalnum() or cluster[0] in "._"


def _clusters(text: str) -> Iterator[str]:
    """The text in pieces that are seen as one character each."""
    cluster = ""
    for character in text:
        if cluster and not _belongs(cluster, character):
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


def _belongs(cluster: str, character: str) -> bool:
    """Whether a character is part of the one before it."""
    before = cluster[-1]
    flag = len(cluster) == 1 and _is_regional(before) and _is_regional(character)
    # Letters of Hangul that make up a syllable: vowels and finals after what may precede them.
    syllable = "\u1160" <= character <= "\u11ff" and "\u1100" <= before <= "\u11ff"
    tone = "\U0001f3fb" <= character <= "\U0001f3ff"  # of skin
    return unicodedata.category(character) in _MARKS or flag or syllable or tone


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _width(cluster: str) -> int:
    if unicodedata.category(cluster[0]) in _MARKS:  # at the start of a text, with nothing to stand on
        return 0
    wide = unicodedata.east_asian_width(cluster[0]) in _WIDE or _EMOJI_STYLE in cluster
    return 2 if wide or (len(cluster) > 1 and _is_regional(cluster[0])) else 1
