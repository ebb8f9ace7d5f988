"""What the verbs say last: where the report is, how to open MLflow, the command to go on with."""

import os
import shlex
import textwrap
from typing import TYPE_CHECKING

from hkrun.cli.invocation import DEFAULT_STORE, STORE_VARIABLE, Invocation

if TYPE_CHECKING:
    from hkrun.report import Summary
    from hkrun.spaces import Sweep
    from hkrun.store import Store
    from hkrun.sweep import Outcome

_INDENT, _LEAST_TEXT = 9, 40  # columns: before a command, and that text below it takes at least


def print_ways_on(invocation: Invocation, outcome: "Outcome", store: "Store") -> None:
    """Where the report is, how to open MLflow, how to go on."""
    sweep = outcome.summary.sweep
    resumed = []
    if outcome.problems or any(cell.failed for cell in outcome.summary.cells):
        resumed.append("runs again what failed")
    if outcome.left_out:
        invocation.say("")
        invocation.say(outcome.left_out)
        resumed.append("makes the runs that were left out")
    if outcome.rounds is not None:
        invocation.say("")
        invocation.say(outcome.rounds.describe())
    invocation.say("")
    invocation.say(f"Study    {sweep.name} on {sweep.dataset}")
    invocation.say(f"Report   {outcome.report['report.html']}")
    invocation.say(f"MLflow   hkrun ui{store_option(invocation, store)}")
    if resumed:
        again = resume_command(invocation, sweep, store) or f"hkrun resume {shlex.quote(sweep.name)}"
        _print_next(invocation, again, " and ".join(resumed))
    else:
        print_next(invocation, outcome.summary, store)


def print_next(invocation: Invocation, summary: "Summary", store: "Store") -> None:
    """The command that tells most of what the study leaves open, and what for."""
    from hkrun.plans import load_looks
    from hkrun.report import describe_next, describe_price

    command, reason = describe_next(summary)
    where = _place_options(invocation, store) if command.startswith("hkrun ") else ""  # and not Python
    _print_next(invocation, f"{command}{where}", reason)
    price = describe_price(summary, load_looks(store, summary.sweep))
    if price:
        _say_below(invocation, price)


def _print_next(invocation: Invocation, command: str, reason: str) -> None:
    invocation.say(f"Go on    {command}")
    _say_below(invocation, reason)


def _say_below(invocation: Invocation, text: str) -> None:
    """A text under a command, in lines that begin where that does, also on a narrow terminal."""
    width = max(_LEAST_TEXT, invocation.results.width - _INDENT)
    for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False):
        invocation.say(f"{'':{_INDENT}}{line}")


def print_stopped(invocation: Invocation, sweep: "Sweep", store: "Store", kept: str) -> None:
    """Of a study that no driver works on and that lacks runs: what of it is kept, and how to go on."""
    again = resume_command(invocation, sweep, store) or f"hkrun resume {shlex.quote(sweep.name)}"
    invocation.say(f"{sweep.name} on {sweep.dataset}: stopped before its end; kept: {kept}")
    invocation.say(f"Go on    {again}")


def resume_command(invocation: Invocation, sweep: "Sweep", store: "Store") -> str | None:
    """The command that goes on with a sweep; None where it would show a password or a token."""
    if _is_secret(invocation.data_dir):
        return None
    name = f"{shlex.quote(sweep.name)} --dataset {shlex.quote(sweep.dataset)}"
    return f"hkrun resume {name}{_place_options(invocation, store)}"


def _place_options(invocation: Invocation, store: "Store") -> str:
    """The options that name data and store again, where they are needed; never with a password."""
    data_dir = invocation.data_dir
    named = data_dir is not None and not _is_secret(data_dir)
    data = f" --data {shlex.quote(str(data_dir))}" if named else ""
    return f"{data}{store_option(invocation, store)}"


def _is_secret(data_dir: object) -> bool:
    """Whether a place of data may hold a password or a token."""
    return isinstance(data_dir, str) and ("@" in data_dir or "?" in data_dir)


def store_option(invocation: Invocation, store: "Store") -> str:
    """The option that names the store again, where it is needed; never with a password."""
    default = os.environ.get(STORE_VARIABLE) or DEFAULT_STORE
    name = invocation.store_uri if store.local_path is not None else store.place
    return "" if invocation.store_uri == default else f" --store {shlex.quote(name)}"
