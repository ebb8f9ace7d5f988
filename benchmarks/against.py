"""This working tree against another revision: the same command in both, in turns; ratios of medians.

The other revision gets a checkout of its own for as long as this runs (a git worktree in a temporary folder).
Both sides use this Python, started in their checkout, with hkrun imported from there.

    python benchmarks/against.py 0e88808 stability      # make stability after set-up, into a fresh store
    python benchmarks/against.py main epoch             # an epoch of a pack of 20 on digits
    python benchmarks/against.py HEAD~3 epoch stability --repeats 7
    python benchmarks/against.py main "{python} -m hkrun status --store my-store"    # any other command

In a command {python} is this Python, {folder} an empty folder for each time it runs, {checkout} the files of
the side, and {here} the working tree on both sides: so one script measures both.

The time is that of the whole process, wall clock; the memory the most that it, or one that it waited for,
ever held (Linux counts in what this script held when it started it, about 20 MB). If the last line that a
command prints is a JSON object, its numbers are compared likewise (less is better), and whatever else is in
it is said to be the same or not.

Each repetition runs both sides, and each is first in every other one, so that a machine that gets slower hits
both. "Times as fast" is the median of the other revision over that of the working tree; its spread is that of
the repetitions' own ratios.
"""

import argparse
import contextlib
import json
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple, TypeGuard

HERE = Path(__file__).resolve().parents[1]
NAMED = {
    "stability": "{python} -m hkrun sweep stability --store {folder}/store",
    "epoch": "{python} {here}/benchmarks/pack_epoch.py",
}
SECONDS, PEAK = "whole process, s", "peak memory, MB"

Found = dict[str, object]  # what one run of a command gave, by the name of the figure


class Side(NamedTuple):
    """One of the two that are compared.

    Attributes:
        name: What the tables call it.
        checkout: Where its files are.
    """

    name: str
    checkout: Path


class CommandError(Exception):
    """A command, or git, failed."""


class Ratio(NamedTuple):
    """How many times as fast, or small, the working tree is.

    Attributes:
        medians: The other revision's median over the working tree's.
        least: The least ratio of one repetition.
        largest: The largest.
    """

    medians: float
    least: float
    largest: float


def main() -> None:
    """Measures each command on both sides in turns, prints a table for each."""
    parser = argparse.ArgumentParser(description="This working tree against another revision, in turns.")
    parser.add_argument("revision", help="what git knows: a commit, a branch, a tag")
    parser.add_argument("commands", nargs="+", help=f"{', '.join(NAMED)}, or a command in quotes")
    parser.add_argument("--repeats", type=int, default=5, help="of each command on each side")
    parser.add_argument("--warm-up", type=int, default=1, help="repetitions before, not counted")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the checkout goes too
    try:
        with checked_out(options.revision) as other:
            print(describe_machine(), flush=True)
            for command in options.commands:
                compare(NAMED.get(command, command), other, options.repeats, options.warm_up)
    except CommandError as error:
        sys.exit(f"against.py: {error}")


def compare(command: str, other: Side, repeats: int, warm_up: int) -> None:
    """Measures one command, and prints its table."""
    sides = (other, Side("working tree", HERE))
    print(f"\n`{command}`, {repeats} times on each side, in turns\n", flush=True)
    found = take_turns(sides, lambda side: run(command, side), repeats=repeats, warm_up=warm_up)
    print("\n".join(render(*sides, *found)), flush=True)


@contextlib.contextmanager
def checked_out(revision: str) -> Iterator[Side]:
    """A checkout of a revision, which is gone afterwards.

    Raises:
        CommandError: git knows no such revision.
    """
    commit = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", unknown=revision)
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        git("worktree", "add", "--quiet", "--detach", str(checkout), commit)
        try:
            yield Side(
                f"{revision} ({commit[:7]})" if not commit.startswith(revision) else commit[:7], checkout
            )
        finally:
            git("worktree", "remove", "--force", str(checkout))


def git(*arguments: str, unknown: str = "") -> str:
    """What git says in this repository."""
    done = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode:
        told = (
            f"no revision {unknown!r} in {HERE}" if unknown else f"git {shlex.join(arguments)}: {done.stderr}"
        )
        raise CommandError(told.strip())
    return done.stdout.strip()


def describe_machine() -> str:
    """What was measured on, for the table's conditions."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, "
        f"load before {load}"
    )


def take_turns(
    sides: Sequence[Side], measure: Callable[[Side], Found], *, repeats: int, warm_up: int
) -> list[list[Found]]:
    """What `measure` finds on each side, by repetition; each side is first in every other one."""
    found: list[list[Found]] = [[] for _ in sides]
    for repetition in range(-warm_up, repeats):
        order = list(zip(sides, found, strict=True))
        for side, own in order if repetition % 2 == 0 else order[::-1]:
            figures = measure(side)
            if repetition >= 0:
                own.append(figures)
    return found


def run(command: str, side: Side) -> Found:
    """Runs a command on a side, and gives its time, its memory, and what it printed of its own.

    Raises:
        CommandError: It could not be started, or ended with an error.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile() as printed,
        tempfile.TemporaryFile() as errors,
    ):
        places = {"python": sys.executable, "folder": folder, "here": HERE, "checkout": side.checkout}
        arguments = [fill_in(word, places) for word in shlex.split(command)]
        began = time.perf_counter()
        try:
            process = subprocess.Popen(
                arguments,
                cwd=side.checkout,
                env={**os.environ, "PYTHONPATH": str(side.checkout)},
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=errors,
            )
        except OSError as error:
            raise CommandError(f"{side.name}: {arguments[0]}: {error.strerror}") from error
        try:
            _, status, usage = os.wait4(process.pid, 0)  # unlike subprocess, it tells the memory
        except BaseException:
            process.terminate()
            process.wait()
            raise
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        told, complaints = (read_from_start(file) for file in (printed, errors))
    if process.returncode:
        last = "\n".join((complaints or told).splitlines()[-5:])
        raise CommandError(f"{side.name}: `{shlex.join(arguments)}` ended with {process.returncode}:\n{last}")
    return {SECONDS: seconds, PEAK: usage.ru_maxrss / 1024, **read_figures(told)}


def fill_in(word: str, places: Mapping[str, object]) -> str:
    """A word of a command with {name} replaced by each place."""
    for name, place in places.items():
        word = word.replace(f"{{{name}}}", str(place))
    return word


def read_from_start(file: IO[bytes]) -> str:
    """The text of a file that others wrote to."""
    file.seek(0)
    return file.read().decode(errors="replace")


def read_figures(printed: str) -> Found:
    """The figures of a command's own: its last line, if that is a JSON object."""
    lines = printed.splitlines() or [""]
    with contextlib.suppress(ValueError):
        figures = json.loads(lines[-1])
        if isinstance(figures, dict):
            return figures
    return {}


def compare_times(other: Sequence[float], here: Sequence[float]) -> Ratio:
    """How many times as fast (or small) the second side is, of figures by repetition."""
    each = [theirs / ours for theirs, ours in zip(other, here, strict=True)]
    return Ratio(statistics.median(other) / statistics.median(here), min(each), max(each))


def render(other: Side, here: Side, theirs: Sequence[Found], ours: Sequence[Found]) -> Iterator[str]:
    """The lines of a table, a row for each number that both sides have, and whether all else is the same."""
    yield f"| | {other.name} | from | to | {here.name} | from | to | times as fast | from | to |"
    yield "|---" * 10 + "|"
    same = []
    for name in [name for name in ours[0] if name in theirs[0]]:
        columns = [[one[name] for one in own] for own in (theirs, ours)]
        if all(is_number(value) for column in columns for value in column):
            spread = [f"{of(column):.4g}" for column in columns for of in (statistics.median, min, max)]
            ratio = [f"{value:.2f}" for value in compare_times(*columns)]
            yield f"| {name} | {' | '.join((*spread, *ratio))} |"
        else:
            same.append((name, all(value == columns[0][0] for column in columns for value in column)))
    if same:
        yield ""
    for name, are in same:
        yield f"{name}: {'the same' if are else 'NOT the same'} on both sides and in all repetitions"


def is_number(value: object) -> TypeGuard[float]:
    """Whether a figure can be compared by its size."""
    return isinstance(value, int | float) and not isinstance(value, bool)


if __name__ == "__main__":
    main()
