"""The entry point: from arguments to an exit code, whatever happens on the way."""

import contextlib
import errno
import logging
import os
import platform
import select
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from gc import set_threshold as look_for_cycles_after
from pathlib import Path
from types import FrameType
from typing import NoReturn, cast

import click

import hkrun
from hkrun.cli.browsing import ls, new, spaces
from hkrun.cli.comparing import compare
from hkrun.cli.completion import ASKED_BY, Shell, answer, completion
from hkrun.cli.curves import stability
from hkrun.cli.data import pack, verify
from hkrun.cli.doctor import doctor
from hkrun.cli.exporting import export
from hkrun.cli.invocation import Invocation, common_options, refuse_bytes
from hkrun.cli.jobs import cancel, logs
from hkrun.cli.keys import show_keys
from hkrun.cli.mirroring import sync, ui
from hkrun.cli.removing import gc, rm
from hkrun.cli.results import report, status
from hkrun.cli.running import resume, run, sweep, teacher
from hkrun.cli.streams import prepare_streams
from hkrun.cli.submitting import submit
from hkrun.cli.verbs import CONTEXT, Program
from hkrun.cli.version import show_version
from hkrun.errors import (
    EXIT_BUG,
    EXIT_DONE,
    EXIT_INPUT,
    EXIT_INTERRUPTED,
    EXIT_STORE,
    ClusterLostError,
    HkrunError,
    Interrupted,
)
from hkrun.redaction import redact, redact_text


@click.group(
    cls=Program,
    context_settings=CONTEXT,
    purposes=(
        "Train",
        "On a cluster",
        "Read the results",
        "Look at them in MLflow",
        "Tidy the store",
        "Find your way",
    ),
    examples=(
        ("hkrun doctor", "is this machine ready?"),
        ("hkrun sweep stability --dry-run", "what would run, and for how long"),
        ("hkrun sweep stability", "table 5 of the paper, on real digits"),
        ("hkrun run method=supervised --seeds 3", "one configuration, three seeds"),
    ),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show which build this is, and exit.",
)
@common_options
def program() -> None:
    """hkrun: many-seed studies of adversarial knowledge distillation (HKSANC)."""


for _verb in (
    sweep,
    run,
    teacher,
    resume,
    submit,
    logs,
    cancel,
    report,
    compare,
    stability,
    status,
    ls,
    export,
    sync,
    ui,
    rm,
    gc,
    doctor,
    spaces,
    new,
    show_keys,
    completion,
    pack,
    verify,
):
    program.add_command(_verb)


def main() -> NoReturn:
    """Runs hkrun with the arguments of the process, and exits."""
    prepare_streams()
    # Reports make a million objects that stay or go without a cycle; to look through them for cycles at the
    # pace of Python's default takes a twelfth of their time.
    look_for_cycles_after(50_000)
    if shell := os.environ.get(ASKED_BY):
        answer(program, cast("Shell", shell), sys.argv[1:])
        sys.exit(EXIT_DONE)
    code = call(sys.argv[1:])
    # An interrupt within a text that Python executes, such as `dataclass` makes for each class, counts for
    # `python -m` as not handled, and the process ends by SIGINT whatever its code; the next text undoes that.
    exec("")  # noqa: S102
    sys.exit(code)


def call(arguments: Sequence[str]) -> int:
    """Runs hkrun with the arguments after its name; returns the exit code."""
    invocation = Invocation(as_json="--json" in arguments)
    try:
        with _warnings_shown(invocation), _terminated_like_interrupted():
            code = _invoke(arguments, invocation)
            sys.stdout.flush()
            return code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else _name_command(arguments)
        return _refuse(invocation, EXIT_INPUT, [f"{error.format_message()} (see: {command} --help)"])
    except click.ClickException as error:
        return _refuse(invocation, EXIT_INPUT, [error.format_message()])
    except ClusterLostError as error:
        return _say_interrupted(invocation, error.message)
    except (KeyboardInterrupt, click.Abort, Interrupted):
        return _say_interrupted(invocation, "interrupted")
    except (Exception, SystemExit) as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            _drop_output()
            return EXIT_INTERRUPTED if invocation.resumable else EXIT_DONE
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            if error.filename is None:
                _drop_output()
            place = error.filename or "the output"
            return _refuse(invocation, EXIT_STORE, [f"{place} cannot be written: {error.strerror}"])
        if isinstance(error, HkrunError) and error.exit_code != EXIT_BUG:
            return _refuse(invocation, error.exit_code, error.problems)
        return _refuse(invocation, EXIT_BUG, [_describe_bug(error, invocation, arguments)])


def _invoke(arguments: Sequence[str], invocation: Invocation) -> int:
    try:
        refuse_bytes(arguments)
        with program.make_context("hkrun", list(arguments), obj=invocation) as context:
            return program.invoke(context) or EXIT_DONE
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except HkrunError:
        logging.getLogger(__name__).info("", exc_info=True)  # shown with -v
        raise


def _name_command(arguments: Sequence[str]) -> str:
    """The command that arguments are for; click leaves it open where an option has no value."""
    verb = next((word for word in arguments if word in program.commands), None)
    return f"hkrun {verb}" if verb else "hkrun"


def _say_interrupted(invocation: Invocation, why: str) -> int:
    kept = f": {invocation.kept}" if invocation.kept else ""
    advice = f"; go on with: {invocation.resumable}" if invocation.resumable else ""
    return _refuse(invocation, EXIT_INTERRUPTED, [f"{why}; what is finished is kept{kept}{advice}"])


def _refuse(invocation: Invocation, code: int, problems: Sequence[str]) -> int:
    """Says what is wrong, one line each, or in the JSON document; returns the code."""
    problems = [redact_text(problem, known=invocation.uris) for problem in problems]
    with contextlib.suppress(OSError):  # what it would be said to is gone, or full
        if invocation.as_json:
            message = problems[0] if len(problems) == 1 else f"{len(problems)} problems"
            invocation.print_document({"error": {"code": code, "message": message, "problems": problems}})
        for problem in problems:
            click.echo(f"{click.style('hkrun:', fg='red', bold=True)} {problem}", file=sys.stderr, err=True)
    return code


def _describe_bug(error: Exception | SystemExit, invocation: Invocation, arguments: Sequence[str]) -> str:
    """Keeps the traceback in a file and says where."""
    command = shlex.join(redact(word) for word in arguments)
    heading = f"hkrun {hkrun.__version__}, Python {platform.python_version()}\n$ hkrun {command}\n\n"
    told = "".join(traceback.format_exception(error))
    content = heading + redact_text(told, known=(*invocation.uris, *arguments))
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    try:
        folder = invocation.log_folder()
        if folder is not None:
            folder.mkdir(exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix="hkrun-error-", suffix=".log", dir=folder)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(content)
    except OSError:
        return f"a bug in hkrun: {reason}; its traceback:\n{content}"
    return f"a bug in hkrun: {reason}; the traceback is in {Path(name).absolute()}"


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Makes SIGTERM do what Ctrl-C does, for schedulers that stop jobs with it."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _warnings_shown(invocation: Invocation) -> Iterator[None]:
    """Shows what hkrun logs on stderr, above a live display where there is one."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = redact_text(self.format(record), known=invocation.uris)
            # Said beside what goes on; a line without the word ends the command.
            kind = "warning: " if record.levelno >= logging.WARNING else ""
            invocation.messages.print(f"hkrun: {kind}{line}")

    logger, handler = logging.getLogger("hkrun"), Handler()
    level = logger.level
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _drop_output() -> None:
    """Lets what stdout still holds go nowhere, so that the interpreter's last flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _reader_is_gone() -> bool:
    """Whether the reader of stdout or stderr, such as `head`, has closed the pipe."""
    poll = select.poll()
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None:
            poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
