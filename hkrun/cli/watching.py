"""`hkrun status --watch`: what the store and its drivers say of studies, looked at again and again."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hkrun.cli.display import describe_duration, describe_roughly
from hkrun.errors import EXIT_DONE
from hkrun.spaces import shorten_names
from hkrun.store import PATIENCE_S

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hkrun.cli.invocation import Invocation

Found = Mapping[str, Any]  # what `status --json` says of a study

_LEAST_NAME = 8


@dataclass
class _Heard:
    """What a driver last told, and since when by the clock of the one who watches."""

    beat: str
    at: float


class Watch:
    """What was heard of the drivers of studies; clocks of other machines are never asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[tuple[str, str], _Heard] = {}

    def look(self, found: Found) -> "Found":
        """Notes what is told now; returns it with what follows from when it was heard.

        The time left goes on between two words of the driver. A driver elsewhere that has told nothing for as
        long as another would wait before it takes over counts as gone.
        """
        now, driver = self._clock(), found["driver"]
        if driver is None:
            return found
        key = (found["sweep"], found["dataset"])
        heard = self._heard.get(key)
        if heard is None or heard.beat != driver["beat"]:
            heard = self._heard[key] = _Heard(driver["beat"], now)
        silent_s = now - heard.at
        if driver["alive"] is None and silent_s > PATIENCE_S:
            return {**found, "phase": "not running", "eta_seconds": None, "driver": None}
        eta_s = found["eta_seconds"]
        return {**found, "eta_seconds": None if eta_s is None else max(0.0, eta_s - silent_s)}


def watch(
    invocation: "Invocation",
    look: Callable[[], Sequence[Found]],
    *,
    every_s: float,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Shows studies until none has a driver that works on it; in place, or a line for each change.

    Args:
        invocation: Where it is shown.
        look: Reads the store.
        every_s: Seconds between two looks; as long as a look takes, where that is more.
        pause: Waits for so many seconds.
    """
    heard, told = Watch(), dict[tuple[str, str], object]()
    console = invocation.results
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    if live is not None:
        live.start()
    try:
        while True:
            began = time.monotonic()
            studies = [heard.look(found) for found in look()]
            if live is not None:
                live.update(Group(*(render(found, console.width) for found in studies)), refresh=True)
            else:
                for found in studies:
                    _tell_change(invocation, found, told)
            if not any(found["driver"] for found in studies):
                break
            pause(max(every_s, time.monotonic() - began))
    finally:
        if live is not None:
            live.stop()
    for found in studies:
        invocation.say(describe_end(found))
    return EXIT_DONE


def _tell_change(invocation: "Invocation", found: Found, told: dict[tuple[str, str], object]) -> None:
    """A line, where another phase, another run or another percent of the phase has come."""
    key = (found["sweep"], found["dataset"])
    state = (found["phase"], found["done"], int(100 * _share(found)), *_count_lost(found))
    if told.get(key) != state:
        told[key] = state
        invocation.say(
            f"{time.strftime('%H:%M:%S')} {found['sweep']} on {found['dataset']}: {describe(found)}"
        )


def describe(found: Found) -> str:
    """Phase, runs, epochs and time left in a line."""
    failed, diverged = _count_lost(found)
    parts = [f"{found['phase']}{f' ({detail})' if (detail := found['phase_detail']) else ''}"]
    parts.append(f"{found['done']}/{found['runs']} runs done")
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{diverged} diverged"] if diverged else []
    if total := found["epochs_total"]:
        parts.append(f"{found['epochs_done']:,}/{total:,} epochs, {100 * found['epochs_done'] // total} %")
    if found["eta_seconds"] is not None:
        parts.append(f"about {describe_roughly(found['eta_seconds'])} left")
    return ", ".join(parts)


def describe_end(found: Found) -> str:
    """What came of a study that no driver works on, and how to go on."""
    what = f"{found['sweep']} on {found['dataset']}"
    if not found["to_run"]:
        return f"{what}: done, {found['runs']} runs"
    left = f"{found['to_run']} of {found['runs']} runs are missing"
    return f"{what}: no driver works on it, {left}; hkrun resume {found['sweep']} goes on"


def describe_driver(found: Found) -> str:
    """Who works on a study."""
    driver = found["driver"]
    return "" if driver is None else f"process {driver['pid']} on {driver['host']} since {driver['since']}"


def _share(found: Found) -> float:
    """How much of the phase is over, where that is known, else of the epochs of all runs."""
    share = found["phase_share"]
    return found["epochs_done"] / max(1, found["epochs_total"]) if share is None else float(share)


def _count_lost(found: Found) -> tuple[int, int]:
    """Runs that failed, and that diverged; cells that share a configuration share their runs."""
    cells = {cell["cell_id"]: cell for cell in found["cells"]}.values()
    return sum(len(cell["failed"]) for cell in cells), sum(len(cell["diverged"]) for cell in cells)


def render(found: Found, width: int) -> "RenderableType":
    """A study for a terminal of some width: phase, bar, and a row for each cell."""
    lines: list[RenderableType] = [
        _spread(Text(f"{found['sweep']} on {found['dataset']}", "bold"), Text(describe_driver(found), "dim"))
    ]
    phase = f"{found['phase'][:1].upper()}{found['phase'][1:]}"
    detail = found["phase_detail"] or ""
    since_s = found["phase_seconds"]
    since = "" if since_s is None else describe_duration(since_s)
    left_s = found["eta_seconds"]
    left = "" if left_s is None else f"about {describe_roughly(left_s)} left"
    lines.append(_spread(Text.assemble(phase, (f"  {since}  {detail}".rstrip(), "dim")), Text(left)))
    bar = Table.grid(expand=True)
    bar.add_row(ProgressBar(total=1.0, completed=_share(found)))
    failed, diverged = _count_lost(found)
    counts = [f"{found['done']}/{found['runs']} runs done"]
    counts += [f"{failed} failed"] if failed else []
    counts += [f"{diverged} diverged"] if diverged else []
    counts.append(f"{found['epochs_done']:,}/{found['epochs_total']:,} epochs")
    lines += [bar, Text(", ".join(counts), no_wrap=True, overflow="ellipsis")]
    return Group(*lines, _render_cells(found["cells"], width), Text(""))


def _render_cells(cells: Sequence[Found], width: int) -> Table:
    figures = [(f"{cell['done']}/{cell['runs']}", _describe_cell(cell)) for cell in cells]
    taken = sum(max(map(len, column)) for column in zip(*figures, strict=True)) + 8 if figures else 0
    names = [cell["name"] for cell in cells]
    short = shorten_names(list(dict.fromkeys(names)), max(_LEAST_NAME, width - taken))
    rows = Table.grid(padding=(0, 2))
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True, justify="right")
    rows.add_column(no_wrap=True, overflow="ellipsis")
    for name, figure in zip(names, figures, strict=True):
        rows.add_row(f"  {short[name]}", *figure)
    return rows


def _describe_cell(cell: Found) -> str:
    """What of a cell's runs is neither done nor waiting."""
    parts = [f"{len(cell[what])} {what}" for what in ("failed", "diverged") if cell[what]]
    if begun := cell["unfinished"]:
        epochs = [run["epoch"] for run in begun]
        span = f"{min(epochs)}" if min(epochs) == max(epochs) else f"{min(epochs)}-{max(epochs)}"
        parts.append(f"{len(begun)} at {span}/{begun[0]['epochs']}")
    return ", ".join(parts)


def _spread(left: Text, right: Text) -> Table:
    """A line with something at both of its ends; the right one gives way."""
    line = Table.grid(expand=True, padding=(0, 2, 0, 0))
    line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True, overflow="ellipsis", ratio=1)
    line.add_row(left, right)
    return line
