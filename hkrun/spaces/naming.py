"""What a study is called: its search space, and what the command line changed of it."""

import re
from pathlib import Path

from hkrun.digests import short_digest
from hkrun.spaces.sweep import Sweep

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_MOST = 48  # characters of what was changed; more is no name to read or to type


def is_study_name(text: str) -> bool:
    """Whether a study can be called this: its name is a folder's in the store, and a word of a command."""
    return _NAME.fullmatch(text) is not None


def space_name(sweep: Sweep) -> str:
    """The name of the search space that a sweep was read from; of one configuration, the sweep's own."""
    if sweep.command[1:2] != ("sweep",):
        return sweep.name
    path = Path(sweep.command[2])
    return path.stem if path.suffix == ".toml" or len(path.parts) > 1 else path.name


def title_name(title: str) -> str:
    """What a search space without a file is called: by its title, in the letters of a name."""
    return _NO_NAME.sub("-", title.lower()).strip("-._")[:_MOST].rstrip("-._") or "study"


def natural_name(sweep: Sweep) -> str:
    """What a study is called unless the store has another one of that name.

    That is its search space, followed by the keys that the command line changed, in the order of the
    alphabet: `stability` with `student.epochs=2` is `stability-epochs-2`.
    """
    changes = sweep.changes if sweep.command[1:2] == ("sweep",) else ()
    short = sorted(change.removeprefix("student.").removeprefix("loss.") for change in changes)
    if not short:
        return space_name(sweep)
    text = "-".join(change.replace("=", "-", 1) for change in short)
    return f"{space_name(sweep)}-{_shorten(text, short)}"


def seeds_name(sweep: Sweep) -> str:
    """What a study is called where the one of its name has more seeds: `stability-seeds-3`."""
    count_only = sweep.seeds == tuple(range(len(sweep.seeds)))
    listed = [str(len(sweep.seeds))] if count_only else list(map(str, sweep.seeds))
    return f"{natural_name(sweep)}-seeds-{_shorten('.'.join(listed), listed)}"


def _shorten(text: str, parts: list[str]) -> str:
    """A text as a part of a name; where it is long, a digest of what it was made of."""
    written = _NO_NAME.sub("_", text).strip("_")
    return written if len(written) <= _MOST else short_digest("\n".join(parts))
