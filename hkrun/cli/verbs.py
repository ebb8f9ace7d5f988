"""How verbs and their help look."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from hkrun.cli.invocation import COMMON_OPTIONS, Invocation, common_options
from hkrun.config import nearest

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_ELSEWHERE = {"compare-curves": "`hkrun stability` compares curves"}  # verbs that one looks for in vain
EXIT_CODES = (
    "Exit codes: 0 done, 1 a bug in hkrun, 2 your input, 3 data missing or damaged, 4 resources do not fit, "
    "5 finished but some runs failed or diverged, 6 store, 75 interrupted and resumable."
)


class OptionalNumber(click.IntRange):
    """A whole number in a range; 0 where none follows the option."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType`."""
        return 0 if value == "" else super().convert(value, param, ctx)


class Verb(click.Command):
    """A verb of hkrun: its purpose is its group on the first screen; examples are commands with effects."""

    def __init__(self, *args: Any, purpose: str, examples: Sequence[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.purpose = purpose
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """An option whose number may be left out takes the next word only where that is one."""
        bare = {name for each in self.params if isinstance(each.type, OptionalNumber) for name in each.opts}
        end = args.index("--") if "--" in args else len(args)
        for index, word in enumerate(args[:end]):
            if word in bare and not "".join(args[index + 1 : index + 2]).lstrip("-").isdecimal():
                args[index] = f"{word}="
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes examples, the verb's own options, then those that all verbs share."""
        with formatter.section("Examples"):
            for line, what in self.examples:
                formatter.write(f"  {line}\n      {what}\n")
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                is_shared = parameter.name in (*COMMON_OPTIONS, "help")
                (shared if is_shared else own).append(record)
        for title, records in (("Options", own), ("Options of every verb", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def verb(
    name: str, *, purpose: str, examples: Sequence[tuple[str, str]]
) -> Callable[[Callable[..., int | None]], Verb]:
    """Makes a verb of a function that takes the `Invocation` and the verb's own arguments.

    The function's docstring is the help; it returns the exit code, or None for 0.
    """

    def decorate(function: Callable[..., int | None]) -> Verb:
        @functools.wraps(function)
        def checked(invocation: Invocation, *args: Any, **kwargs: Any) -> int | None:
            invocation.check_places()
            return function(invocation, *args, **kwargs)

        takes_invocation = common_options(click.pass_obj(checked))
        return click.command(name, cls=Verb, context_settings=CONTEXT, purpose=purpose, examples=examples)(
            takes_invocation
        )

    return decorate


class Program(click.Group):
    """All verbs, by purpose on the first screen."""

    def __init__(
        self, *args: Any, purposes: Sequence[str], examples: Sequence[tuple[str, str]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.purposes = purposes
        self.examples = examples

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the verb, of one word or two; refuses an unknown one with the nearest and all there are."""
        both = " ".join(args[:2])
        if both in self.commands:
            return both, self.commands[both], args[2:]
        family = [self.commands[name] for name in self.commands if name.startswith(f"{args[0]} ")]
        if family and set(args[1:]) & set(ctx.help_option_names):
            helps = [verb.get_help(click.Context(verb, ctx, verb.name, **CONTEXT)) for verb in family]
            click.echo("\n\n".join(helps))
            ctx.exit()
        if args[0] not in self.commands and not args[0].startswith("-"):
            names = ", ".join(sorted(self.commands))
            told = _ELSEWHERE.get(args[0])
            hint = f"; {told}" if told else nearest(args[0], self.commands)
            raise click.UsageError(f"no verb {args[0]!r}; the verbs are {names}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Shows the first screen where nothing is asked for."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """What a TAB offers for the verb: verbs of two words as their first."""
        firsts: dict[str, CompletionItem[str]] = {}
        for item in super().shell_complete(ctx, incomplete):
            first, _, second = item.value.partition(" ")
            found = firsts.setdefault(first, CompletionItem(first, help="" if second else item.help))
            found.help = ", ".join(filter(None, (found.help, second)))
        return list(firsts.values())

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the first screen."""
        formatter.write(f"{self.help}\n\n")
        formatter.write(f"Usage: {ctx.command_path} VERB [ARGUMENTS] [OPTIONS]\n")
        verbs = [command for command in self.commands.values() if isinstance(command, Verb)]
        width = max(len(verb.name or "") for verb in verbs)
        for purpose in self.purposes:
            with formatter.section(purpose):
                formatter.write_dl(
                    [
                        ((verb.name or "").ljust(width), verb.get_short_help_str(limit=100))
                        for verb in verbs
                        if verb.purpose == purpose
                    ]
                )
        with formatter.section("Start here"):
            formatter.write_dl(list(self.examples), col_max=52)
        formatter.write_paragraph()
        formatter.write_text(EXIT_CODES)
        formatter.write_text(f"`{ctx.command_path} VERB --help` explains a verb, with examples.")
