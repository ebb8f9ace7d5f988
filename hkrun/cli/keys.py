"""The verb `keys`: what can be set in a cell, and what it means."""

import fnmatch
import json
import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import click

from hkrun.cli import candidates
from hkrun.cli.invocation import Invocation
from hkrun.cli.verbs import verb
from hkrun.config import Keys, check_declared, describe_range, describe_type, keys, keys_of, nearest
from hkrun.errors import EXIT_DONE, InputError
from hkrun.methods import METHODS, SHIPPED_FORMS, SHIPPED_METHODS, Method, find_declared
from hkrun.terms import COMPACT_PARTS, FORMS, TERMS, Term
from hkrun.user_parts import is_own

if TYPE_CHECKING:
    from rich.console import Console


@verb(
    "keys",
    purpose="Find your way",
    examples=(
        ("hkrun keys", "all keys by section"),
        ("hkrun keys student", "those whose name contains 'student'"),
        ("hkrun keys 'loss.lambda_*' --json", "a pattern; for a script"),
        ("hkrun keys mylosses:Similarity", "a loss or method of your own: what it reads, and its keys"),
    ),
)
@click.argument("pattern", required=False, shell_complete=candidates.patterns)
def show_keys(invocation: Invocation, *, pattern: str | None) -> int:
    """List the keys of a configuration: type, range, default, source.

    Any of them can stand in a search space or recipe, or on the command line as KEY=VALUE. The name of a
    loss or method that is not built in stands for the keys that it reads.
    """
    if pattern is not None and (is_own(pattern) or pattern in (*SHIPPED_METHODS, *SHIPPED_FORMS)):
        part = find_declared(pattern)
        if problems := check_declared(pattern, part):
            raise InputError("\n".join(problems))
        names, told, terms = list(part.key_names), _describe(part), {**TERMS, **_terms_of(pattern, part)}
        known: Keys = {**keys(), **keys_of(part)}
    else:
        names, told, terms, known = _matching(pattern), {}, dict(TERMS), keys()
    changed = {name: [each for each, term in terms.items() if name in term.key_names] for name in names}
    if invocation.as_json:
        document = [{**_document(name, known), "terms": changed[name]} for name in names]
        invocation.print_document({**told, "keys": document})
        return EXIT_DONE
    console = invocation.results
    for what, text in told.items():
        _print_paragraph(console, f"{what}: {text}", indent=0)
    for section, members in groupby(names, key=lambda name: name.rpartition(".")[0]):
        console.print(f"\n{section or 'top level'}", style="bold")
        for name in members:
            _print_key(console, name, known, changed[name])
    return EXIT_DONE


def _matching(pattern: str | None) -> list[str]:
    """The keys that a pattern means: parts of names, or a shell pattern."""
    if pattern is None:
        return list(keys())
    wanted = pattern if any(mark in pattern for mark in "*?[") else f"*{pattern}*"
    found = [name for name in keys() if fnmatch.fnmatchcase(name, wanted)]
    if not found:
        raise InputError(f"{pattern}: no key matches{nearest(pattern, keys())}; `hkrun keys` lists them all")
    return found


def _describe(part: Method | Term) -> dict[str, str]:
    """What a loss or method is, in words by subject."""
    return {
        "summary": part.summary,
        **{f"{name} reads": _describe_reading(term) for name, term in _terms_of("term", part).items()},
    }


def _terms_of(name: str, part: Method | Term) -> dict[str, Term]:
    """The terms that a loss or method brings, by name; of a loss, by the name that it is given here."""
    if isinstance(part, Term):
        return {name: part}
    weighted = [each for stage in part.stages for each in stage.terms]
    return {each.name: each.term for each in weighted if each.term}


def _describe_reading(term: Term) -> str:
    parts = [
        f"{', '.join(read)} of the {network}"
        for network, read in (("student", term.student), ("teacher", term.teacher))
        if read
    ]
    parts += ["the labels"] * term.labels + ["the numbers of the images"] * term.index
    compact = set(term.teacher) <= set(COMPACT_PARTS)
    live = "" if compact else "; the teacher runs live"
    alone = "; its runs train one at a time" if term.random or not term.packs else ""
    return f"{'; '.join(parts)}{live}{'; it learns' if term.learns else ''}{alone}"


def _document(name: str, known: Keys) -> dict[str, object]:
    kind, default, info = known[name]
    return {
        "key": name,
        "type": describe_type(kind),
        "range": describe_range(info),
        "default": default,
        "source": info.source,
        "doc": info.doc,
    }


def _print_key(console: "Console", name: str, known: Keys, terms: Sequence[str]) -> None:
    from rich.text import Text

    kind, default, info = known[name]
    limits = describe_range(info)
    allowed = limits if info.choices else ", ".join(filter(None, (describe_type(kind), limits)))
    # As TOML has it; a word without its quotes, as on the command line.
    written = default if isinstance(default, str) and default else json.dumps(default)
    heading = Text.assemble((f"  {name}", "cyan"), f" = {written}")
    beside = Text.assemble(heading, (f"   {allowed}", "dim"))
    fits = len(beside) < console.width
    console.print(beside if fits else heading)
    if not fits:
        _print_paragraph(console, allowed, indent=6, style="dim")
    _print_paragraph(console, info.doc, indent=6)
    if name == "method":
        for method, what in METHODS.items():
            _print_paragraph(console, f"{method}: {what.summary}", indent=8)
    if name == "knowledge.form":
        for form in FORMS:
            _print_paragraph(console, f"{form}: {TERMS[form].summary}", indent=8)
    shipped = {"method": SHIPPED_METHODS, "knowledge.form": SHIPPED_FORMS}.get(name)
    if shipped:
        _print_paragraph(console, f"{', '.join(shipped)}: `hkrun keys NAME` describes each", indent=8)
    if terms:
        _print_paragraph(console, f"terms: {', '.join(terms)}", indent=6, style="dim")
    _print_paragraph(console, f"default: {info.source}", indent=6, style="dim")


def _print_paragraph(console: "Console", text: str, *, indent: int, style: str | None = None) -> None:
    """Prints text within the console's width, every line indented; words and names stay whole."""
    room = max(20, console.width - 1 - indent)
    for line in textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False):
        console.print(" " * indent + line, style=style, soft_wrap=True)
