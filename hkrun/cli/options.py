"""The options of the verbs that train."""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from hkrun.cli import candidates
from hkrun.cli.invocation import Command, Invocation
from hkrun.errors import InputError

if TYPE_CHECKING:
    from hkrun.plans import Shortcuts, Workers
    from hkrun.spaces import Sweep
    from hkrun.sweep import Options


class WorkersOption(click.ParamType["Workers"]):
    """What `--workers` takes."""

    name = "workers"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> "Workers":
        """Reads what was typed."""
        if (
            ctx is not None and ctx.resilient_parsing
        ):  # at a TAB; what is imported here takes too long for one
            return cast("Workers", value)
        from hkrun.plans import Workers

        if isinstance(value, Workers):
            return value
        try:
            return Workers.parse(str(value))
        except InputError:
            self.fail(f"{value!r} is neither auto, nor a number from 1, nor MIN:MAX.", param, ctx)


class PackSize(click.ParamType[object]):
    """A number from 1, or "auto"."""

    name = "pack"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Reads what was typed."""
        if value == "auto":
            return "auto"
        if not str(value).isdecimal() or int(str(value)) < 1:
            self.fail(f"{value!r} is neither a number from 1 nor 'auto'.", param, ctx)
        return int(str(value))


overrides = click.argument(
    "overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=candidates.overrides
)
dataset = click.option(
    "--dataset",
    metavar="NAME",
    shell_complete=candidates.datasets,
    help="Data set; its recipe comes with it.",
)
seeds = click.option("--seeds", metavar="N|A,B,C", help="How many seeds (0..N-1), or which.")
epochs = click.option("--epochs", metavar="E", help="Epochs of the student; the schedule scales with them.")
workers = click.option(
    "--workers",
    metavar="auto|N|MIN:MAX",
    type=WorkersOption(),
    shell_complete=candidates.auto,
    default="auto",
    show_default=True,
    help="Processes that train one run together, data-parallel. MIN:MAX: as many as have room, fewer when "
    "some are lost. auto: runs on imagenet take all there are, others one.",
)
per_gpu = click.option(
    "--per-gpu",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that share a GPU, where each trains runs of its own.",
)
pack = click.option(
    "--pack",
    metavar="K|auto",
    type=PackSize(),
    shell_complete=candidates.auto,
    help="How many seeds of a cell train together as one network. auto: the fastest, as measured once on "
    "this machine. Without it: as the sweep was begun, else as its recipe has measured.",
)
search = click.option(
    "--search",
    type=click.Choice(["optuna"]),
    help="Let Optuna choose which runs on the axes are made, instead of making all.",
)
runs = click.option(
    "--runs",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --search: how many runs on the axes. Without it one per point.",
)
scheduler = click.option(
    "--scheduler",
    type=click.Choice(["asha"]),
    help="End runs on the axes early that fall behind; they are in no statistics.",
)
until = click.option(
    "--until",
    type=click.Choice(["decided"]),
    help="Make seeds in rounds, of each cell only until its difference from the reference, and what the "
    "paper claims of it, are decided.",
)
max_seeds = click.option(
    "--max-seeds",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --until: the most seeds of a cell, 0..N-1. Without it those of the search space.",
)
dry_run = click.option("--dry-run", is_flag=True, help="Only show the plan. Nothing is written.")
check = click.option(
    "--check",
    is_flag=True,
    help="Rehearse: some steps of each configuration on students that are thrown away, and which of them too "
    "large a step will lose. Missing teachers are trained; no run is.",
)
study_name = click.option(
    "--name",
    "study",
    metavar="NAME",
    help="What the study is called in the store. Without it: as the search space, followed by what the "
    "command line changes of it.",
)
again = click.option(
    "--again",
    is_flag=True,
    help="Train anew what other code of hkrun has trained; the old results are kept beside the new ones.",
)
trust = click.option(
    "--trust",
    is_flag=True,
    help="Use what other code of hkrun has trained as it is: runs, teachers, checkpoints.",
)
fail_fast = click.option("--fail-fast", is_flag=True, help="Stop at the first run that fails.")


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What the command line changes of a search space or recipe; None or empty where nothing."""

    overrides: tuple[str, ...] = ()
    dataset: str | None = None
    seeds: str | None = None
    epochs: str | None = None


@dataclass(frozen=True, kw_only=True)
class ResumeWishes:
    """How the rest of what was begun is wanted."""

    fail_fast: bool = False
    again: bool = False
    trust: bool = False

    @property
    def other_code(self) -> Literal["ask", "again", "trust"]:
        """What becomes of results of other code.

        Raises:
            InputError: Both are asked for.
        """
        if self.again and self.trust:
            raise InputError("--again, --trust: what other code has trained is made anew or used, not both")
        return "again" if self.again else "trust" if self.trust else "ask"


@dataclass(frozen=True, kw_only=True)
class Wishes(ResumeWishes):
    """How the runs are wanted, as the options of the verb say it."""

    workers: "Workers"
    per_gpu: int = 1
    pack: int | str | None = None
    search: str | None = None
    runs: int | None = None
    scheduler: str | None = None
    until: str | None = None
    max_seeds: int | None = None
    check: bool = False
    study: str | None = None

    def read(self, invocation: Invocation, loaded: "Sweep", *, seeds_asked: bool = True) -> "Options":
        """The options of a study.

        Raises:
            InputError: They do not suit the search space or each other, or an extra is missing.
        """
        from hkrun.sweep import Options

        return Options(
            store=invocation.absolute_store,
            data_dir=invocation.data_dir,
            workers=dataclasses.replace(self.workers, per_gpu=self.per_gpu),
            pack=self.pack,
            shortcuts=self._read_shortcuts(loaded),
            seeds_asked=seeds_asked,
            fail_fast=self.fail_fast,
            name=self.study,
            other_code=self.other_code,
        )

    def limit(self, changes: Changes) -> Changes:
        """The changes with as many seeds as there may be.

        Raises:
            InputError: Seeds are given twice, or --max-seeds without --until.
        """
        if self.max_seeds is None:
            return changes
        if self.until is None:
            raise InputError(
                "--max-seeds: only with --until decided, whose most seeds it says; without it give --seeds"
            )
        if changes.seeds is not None:
            raise InputError("--seeds, --max-seeds: both say which seeds there may be; give one of them")
        return dataclasses.replace(changes, seeds=str(self.max_seeds))

    def _read_shortcuts(self, loaded: "Sweep") -> "Shortcuts":
        from hkrun.plans import Shortcuts

        problems = []
        for option, value in (("--search", self.search), ("--scheduler", self.scheduler)):
            if value is not None and not any(named.point for named in loaded.cells):
                problems.append(f"{option} {value}: {loaded.source} has no [[axes]] to take a shortcut on")
            if value is not None and self.pack not in (None, 1):
                problems.append(
                    f"{option} {value}: decides about runs one by one; not with --pack {self.pack}"
                )
        if self.runs is not None and self.search is None:
            problems.append("--runs: says how many runs --search makes; give that too")
        if self.search is not None and importlib.util.find_spec("optuna") is None:
            problems.append(f"--search {self.search}: needs the package optuna; run: pip install optuna")
        in_groups = any(not self.workers.of_runs(named.cell).alone for named in loaded.cells)
        if self.scheduler is not None and in_groups:
            problems.append(
                f"--scheduler {self.scheduler}: ends runs of one worker; not with --workers {self.workers}"
            )
        if problems:
            raise InputError("\n".join(problems))
        return Shortcuts(
            search=self.search is not None,
            budget=self.runs,
            stop_early=self.scheduler is not None,
            until_decided=self.until is not None,
        )


def gather(name: str, kind: type, *options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Adds options to a verb, which gets the values of all of them as one argument.

    `kind` is a dataclass with a field for each option; `options` are click's decorators in the order of the
    help.
    """

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def call(*args: Any, **given: Any) -> Any:
            own = {field.name: given.pop(field.name) for field in fields(kind) if field.name in given}
            return function(*args, **given, **{name: kind(**own)})

        command = cast("Command", call)
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
