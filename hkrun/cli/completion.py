"""`hkrun completion`, and what a shell asks at each TAB: which words may come next.

The scripts in shells/ run hkrun with the variable `_HKRUN_COMPLETE` set to the shell's name and print what it
answers: lines of a kind, a value and what it means, between tabs. Kinds are `word`; `part`, which more
follows, as `student.epochs=`; and `dir`, `file` and `toml`, which leave paths to the shell. bash splits words
at more places than it says, at "=" and ":" among them, so it sends its line, and gets the text to insert.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
from click.shell_completion import CompletionItem

from hkrun.cli.candidates import complete_words
from hkrun.cli.invocation import Invocation
from hkrun.cli.verbs import verb
from hkrun.errors import EXIT_DONE

ASKED_BY = "_HKRUN_COMPLETE"
Shell = Literal["bash", "zsh", "fish"]
_SHELLS: tuple[Shell, ...] = ("bash", "zsh", "fish")
_SCRIPTS = Path(__file__).parent / "shells"
_MOST_MEANING = 80  # characters of an explanation


@verb(
    "completion",
    purpose="Find your way",
    examples=(
        ("hkrun completion bash >> ~/.bash_completion", "bash 4.4 or newer with bash-completion"),
        ('eval "$(hkrun completion bash)"', "bash without it: this line into ~/.bashrc"),
        ('hkrun completion zsh > "${fpath[1]}/_hkrun"', "zsh; or the eval line, after compinit"),
        ("hkrun completion fish > ~/.config/fish/completions/hkrun.fish", "fish"),
    ),
)
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(_SHELLS))
def completion(invocation: Invocation, *, shell: Shell) -> int:
    """Print the script that completes hkrun's words in a shell, for one of its start-up files.

    TAB then offers verbs and options, search spaces, keys and their values, data sets, and the studies, cells
    and seeds of a local store. It reads files only, and says nothing where something is wrong.
    """
    script = (_SCRIPTS / f"completion.{shell}").read_text(encoding="utf-8")
    if invocation.as_json:
        invocation.print_document({"shell": shell, "script": script})
    else:
        click.echo(script, nl=False)
    return EXIT_DONE


def answer(program: click.Group, shell: Shell, arguments: Sequence[str]) -> None:
    """Prints what may come next, for the script of a shell.

    Args:
        program: All verbs.
        shell: Whose script asks.
        arguments: Of bash the line up to the cursor; of others the words before the current one, without
            their quotes, and the current one with them.
    """
    # Whatever is wrong, such as a space or a store with mistakes, a message would fall into the user's line.
    with contextlib.suppress(Exception), open(os.devnull, "w") as nowhere:  # noqa: PTH123
        with contextlib.redirect_stderr(nowhere):
            typed = _read(arguments, shell)
            lines = list(_write(find_items(program, typed), typed, shell))
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()


@dataclass(frozen=True, kw_only=True)
class Typed:
    """What stands before the cursor.

    Attributes:
        words: The words after the command, complete, without their quotes.
        current: The word at the cursor, without its quotes.
        replaced: Its end that bash replaces, without quotes.
        quote: The quotation mark that is open there, or none.
    """

    words: tuple[str, ...]
    current: str
    replaced: str = ""
    quote: str = ""


def read_line(line: str, *, breaks: str = "", shell: Shell = "bash") -> Typed:
    """Reads a line up to the cursor as its shell does.

    Args:
        line: The command and what follows.
        breaks: The characters at which bash's readline begins a word.
        shell: Whose quotation marks they are: in fish's single ones a backslash has a meaning.
    """
    escapes = {'"': '"\\$`', "'": "'\\" if shell == "fish" else ""}
    words: list[str] = []
    current, start, inside, quote = "", 0, False, ""
    characters = iter(line)
    for character in characters:
        if character == "\\" and escapes.get(quote, character):
            following = next(characters, "")
            current += following if not quote or following in escapes[quote] else character + following
            inside = True
        elif quote:
            if character == quote:
                quote, start = "", len(current)
            else:
                current += character
        elif character in "\"'":
            quote, start, inside = character, len(current), True
        elif character.isspace():
            if inside:
                words.append(current)
            current, start, inside = "", 0, False
        else:
            current += character
            inside = True
            if character in breaks:
                start = len(current)
    return Typed(words=tuple(words[1:]), current=current, replaced=current[start:], quote=quote)


def _read(arguments: Sequence[str], shell: Shell) -> Typed:
    """What stands before the cursor, as the script of a shell has sent it."""
    if shell == "bash":
        return read_line(arguments[-1], breaks=os.environ["COMP_WORDBREAKS"])
    *words, current = arguments
    return Typed(words=tuple(words), current=read_line(f"hkrun {current}", shell=shell).current)


def find_items(program: click.Group, typed: Typed) -> list[CompletionItem[str]]:
    """What may stand in place of the current word: words that begin as it does, or kinds of paths."""
    words, current = list(typed.words), typed.current
    families = {name.partition(" ")[0] for name in program.commands if " " in name}
    if words and words[-1] in families and not set(words[:-1]) & set(program.commands):
        seconds = {
            name.partition(" ")[2]: command.get_short_help_str()
            for name, command in program.commands.items()
            if name.startswith(f"{words[-1]} ")
        }
        return [CompletionItem(name, help=text) for name, text in seconds.items() if name.startswith(current)]
    return complete_words(program, words, current, invocation=Invocation())


def _write(items: Iterable[CompletionItem[str]], typed: Typed, shell: Shell) -> Iterable[str]:
    """The lines of an answer; names that hold a line's end or a tab are left out."""
    items = list(items)
    if shell == "bash" and typed.quote and len(items) == 1 and getattr(items[0], "goes_on", False):
        # A second one that begins alike keeps bash from closing the quotation mark.
        items.append(CompletionItem(f"{items[0].value}…", goes_on=True))
    for item in items:
        kind, value = item.type, item.value
        if kind == "plain":
            kind = "part" if getattr(item, "goes_on", False) else "word"
            if not value.isprintable():
                continue
            if shell == "bash":
                value = _quote(value[len(typed.current) - len(typed.replaced) :], typed.quote)
        elif shell == "bash":
            value = typed.replaced
        meaning = " ".join((item.help or "").split())[:_MOST_MEANING]
        yield f"{kind}\t{value}" if shell == "bash" else f"{kind}\t{value}\t{meaning}"


def _quote(text: str, quote: str) -> str:
    """Text as bash is to insert it, within the quotation mark that is open, or within none."""
    if quote == "'":
        return text.replace("'", "'\\''")
    special = r'(["\\$`])' if quote else r"([^\w@%+=:,./-])"
    return re.sub(special, r"\\\1", text)
