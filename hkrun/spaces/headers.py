"""The comment that a search space opens with: its question, command, cost and expected result."""

import re
from pathlib import Path

import hkrun

_PART = re.compile(r"#[ \t]?(?P<label>\w*)[ \t]{2,}(?P<text>\S.*)")
_COST = re.compile(r".*?(measured \(.*?\)|estimated|not run here)")


def read_header(path: Path) -> dict[str, str]:
    """The labelled parts of a file's header, each on one line; none where the file has no such comment."""
    parts: dict[str, list[str]] = {}
    label = ""
    for line in _lines(path):
        match = _PART.fullmatch(line)
        if match is None:
            break
        label = match["label"] or label
        parts.setdefault(label, []).append(match["text"].strip())
    return {label: " ".join(text) for label, text in parts.items() if label}


def shorten_cost(text: str) -> str:
    """The first cost of a header, as far as its label: of an estimate without the formula."""
    match = _COST.match(text)
    return match[0] if match else text


def start_from(path: Path, *, name: str, question: str) -> str:
    """The text of a new search space: that of another, under a header of its own.

    Args:
        path: The file to start from.
        name: How the new file is named on the command line.
        question: What stands under it.
    """
    lines = _lines(path)
    while lines and lines[0].startswith("#"):
        del lines[0]
    header = {
        "Question": question,
        "Command": f"hkrun sweep {name}",
        "Cost": f"hkrun sweep {name} --dry-run says it",
        "From": f"the search space {path.stem} of hkrun {hkrun.__version__}",
    }
    written = [f"# {label:11}{' '.join(text.split())}".rstrip() for label, text in header.items()]
    return "\n".join([*written, *lines]) + "\n"


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
