"""The options of the verbs that train."""

import importlib.util
from typing import TYPE_CHECKING

import click

from hkrun.errors import InputError

if TYPE_CHECKING:
    from hkrun.plan import Shortcuts, Workers
    from hkrun.spaces import Sweep


class WorkersOption(click.ParamType["Workers"]):
    """What `--workers` takes."""

    name = "workers"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> "Workers":
        """Reads what was typed."""
        from hkrun.plan import Workers

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


overrides = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
dataset = click.option("--dataset", metavar="NAME", help="Data set; its recipe comes with it.")
seeds = click.option("--seeds", metavar="N|A,B,C", help="How many seeds (0..N-1), or which.")
epochs = click.option("--epochs", metavar="E", help="Epochs of the student; the schedule scales with them.")
workers = click.option(
    "--workers",
    metavar="auto|N|MIN:MAX",
    type=WorkersOption(),
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
dry_run = click.option("--dry-run", is_flag=True, help="Only show the plan. Nothing is written.")
fail_fast = click.option("--fail-fast", is_flag=True, help="Stop at the first run that fails.")


def read_shortcuts(
    loaded: "Sweep",
    *,
    search: str | None,
    runs: int | None,
    scheduler: str | None,
    workers: "Workers",
    pack: int | str | None,
) -> "Shortcuts | None":
    """The shortcuts that the options ask for; None where they ask for none.

    Raises:
        InputError: They do not suit the search space or each other, or an extra is missing.
    """
    from hkrun.plan import Shortcuts

    problems = []
    for option, value in (("--search", search), ("--scheduler", scheduler)):
        if value is not None and not any(named.point for named in loaded.cells):
            problems.append(f"{option} {value}: {loaded.source} has no [[axes]] to take a shortcut on")
        if value is not None and pack not in (None, 1):
            problems.append(f"{option} {value}: decides about runs one by one; not with --pack {pack}")
    if runs is not None and search is None:
        problems.append("--runs: says how many runs --search makes; give that too")
    if search is not None and importlib.util.find_spec("optuna") is None:
        problems.append(f"--search {search}: needs Optuna, which comes with pip install 'hkrun[search]'")
    in_groups = any(not workers.of_runs(named.cell).alone for named in loaded.cells)
    if scheduler is not None and in_groups:
        problems.append(f"--scheduler {scheduler}: ends runs of one worker; not with --workers {workers}")
    if problems:
        raise InputError("\n".join(problems))
    if search is None and scheduler is None:
        return None
    return Shortcuts(search=search is not None, budget=runs, stop_early=scheduler is not None)
