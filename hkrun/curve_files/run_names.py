"""Which cell and which seed the name of a run stands for."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hkrun.curve_files.numbering import quoted, quoted_list
from hkrun.errors import InputError

_FORMS = (
    re.compile(r"(?P<seed>[0-9]{1,18})(?:\.0)?"),  # 3.0, as data frames head a column of the float 3
    re.compile(r"(?:(?P<cell>.+?)[\s/_.,:;|-]+)?seed[\s_=:-]?(?P<seed>[0-9]{1,18})", re.IGNORECASE),
    re.compile(r"(?P<cell>.+)/(?P<seed>[0-9]{1,18})"),
)
_PARTS = {"{cell}": "(?P<cell>.+)", "{seed}": "(?P<seed>[0-9]{1,18})", "*": ".*"}
_KNOWN = "3, seed3, CELL/3 or CELL/seed3"


@dataclass(frozen=True, kw_only=True)
class NamedRun:
    """What the name of a run says."""

    name: str
    cell: str | None
    seed: int


def read_run_names(
    names: Iterable[str], pattern: str | None, *, what: str, or_else: str = ""
) -> tuple[list[NamedRun], list[str], list[str]]:
    """Reads the names of runs.

    Args:
        names: The names.
        pattern: Text with `{seed}`, and `{cell}` and `*` where there are such parts; None for the usual
            forms.
        what: What a name is the name of, such as "column".
        or_else: What else than a pattern may help, for messages.

    Returns:
        The runs; the names that a given pattern does not match; and a problem for each name that is none.

    Raises:
        InputError: The pattern is none.
    """
    forms = _FORMS if pattern is None else (_compile(pattern),)
    runs: list[NamedRun] = []
    others: list[str] = []
    problems: list[str] = []
    for name in names:
        match = next((found for form in forms if (found := form.fullmatch(name))), None)
        if match is None:
            others.append(name)
        elif not name.isprintable():  # it would reach the terminal
            problems.append(f"{what} {quoted(name)} is no line of text")
        else:
            cell = match.groupdict().get("cell")
            runs.append(NamedRun(name=name, cell=cell and cell.strip(), seed=int(match["seed"])))
    if pattern is None and others:
        problems.append(
            f"{_quoted(what, others)}: no cell and seed in it, as in {_KNOWN}; "
            f"give such as --run-names '*-{{seed}}' for runs of one cell, '{{cell}}-{{seed}}' for several"
            f"{or_else}"
        )
        others = []
    elif pattern is not None and not runs and not problems:
        problems.append(f"--run-names {pattern!r} matches none of {_quoted(what, others)}")
    problems += find_twice(runs, what=what)
    return runs, others, problems


def find_twice(runs: Sequence[NamedRun], *, what: str) -> list[str]:
    """A problem, for all runs that have the cell and seed of an earlier one."""
    first: dict[tuple[str | None, int], NamedRun] = {}
    twice = [run for run in runs if first.setdefault((run.cell, run.seed), run) is not run]
    if not twice:
        return []
    run, more = twice[0], len(twice) - 1
    names = f"{quoted(first[run.cell, run.seed].name)} and {quoted(run.name)}"
    of_cell = "" if run.cell is None else f" of cell {run.cell!r}"
    return [f"{what}s {names} are both seed {run.seed}{of_cell}{f', and {more} more' if more else ''}"]


def _compile(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\{cell\}|\{seed\}|\*)", pattern)
    if parts.count("{seed}") != 1 or parts.count("{cell}") > 1:
        raise InputError(
            f"--run-names {pattern!r}: needs {{seed}} once, and {{cell}} at most once, as '{{cell}}-{{seed}}'"
        )
    return re.compile("".join(_PARTS.get(part, re.escape(part)) for part in parts))


def _quoted(what: str, names: Sequence[str]) -> str:
    return f"{what}{'s' if len(names) > 1 else ''} {quoted_list(names)}"
