"""One call of hkrun: the options that all verbs share, and where its output goes."""

import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hkrun.cli import candidates
from hkrun.errors import InputError
from hkrun.uris import describe_slip

if TYPE_CHECKING:
    from rich.console import Console

    from hkrun.store import Store

DEFAULT_STORE = "./hkrun-store"
STORE_VARIABLE = "HKRUN_STORE"
COMMON_OPTIONS = ("store", "data_dir", "as_json", "yes", "verbose")

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass
class Invocation:
    """What the common options say.

    Attributes:
        store_uri: Path or URI of the store.
        data_dir: Where data sets lie that are not embedded: a directory, or a URI.
        as_json: One JSON document on stdout; what people read goes to stderr.
        resumable: How to go on after an interruption, once there is something to go on with.
        kept: What an interruption has left in the store, in words; empty where that is not known.
    """

    store_uri: str = field(default_factory=lambda: os.environ.get(STORE_VARIABLE) or DEFAULT_STORE)
    data_dir: Path | str | None = None
    as_json: bool = False
    yes: bool = False
    resumable: str | None = None
    kept: str = ""

    @property
    def uris(self) -> tuple[str, ...]:
        """The URIs that this call was given; they may hold passwords."""
        given = (self.store_uri, str(self.data_dir or ""), os.environ.get("MLFLOW_TRACKING_URI", ""))
        return tuple(uri for uri in given if "://" in uri)

    @property
    def absolute_store(self) -> str:
        """The store's URI, or its path from the root: what other processes and machines can open."""
        if "://" in self.store_uri:
            return self.store_uri
        return str(Path(self.store_uri).expanduser().absolute())

    def check_places(self) -> None:
        """Refuses a store or data at a URI that has lost a slash, before anything makes a folder of it.

        Raises:
            InputError: All that are wrong, one per line.
        """
        from_variable = self.store_uri == os.environ.get(STORE_VARIABLE)
        places = {STORE_VARIABLE if from_variable else "--store": self.store_uri, "--data": self.data_dir}
        problems = [
            f"{what}: {problem}"
            for what, place in places.items()
            if place is not None and (problem := describe_slip(str(place)))
        ]
        if problems:
            raise InputError("\n".join(problems))

    def open_store(self) -> "Store":
        """Opens the store to read it, or to tidy it; a sweep makes one where there is none.

        Raises:
            NotFoundError: There is none.
            InputError: Its path is no text.
            StoreError: It cannot be reached.
        """
        from hkrun.store import open_store

        refuse_bytes([self.absolute_store])
        return open_store(self.store_uri, create=False)

    def find_store(self) -> "Store | None":
        """The store, or None where there is none yet."""
        from hkrun.store import NoStoreError, open_store

        refuse_bytes([self.absolute_store])
        try:
            return open_store(self.store_uri, create=False)
        except NoStoreError:
            return None

    @functools.cached_property
    def messages(self) -> "Console":
        """Where progress and messages go: stderr."""
        from hkrun.cli.console import PlainConsole

        return PlainConsole(stderr=True, soft_wrap=True)

    @functools.cached_property
    def results(self) -> "Console":
        """Where what a person asked for goes: stdout, which belongs to the document with `--json`."""
        from hkrun.cli.console import PlainConsole, given_columns

        # It takes COLUMNS or the terminal's width; where there is neither, tables have 100 columns.
        is_terminal = (sys.stderr if self.as_json else sys.stdout).isatty()
        has_width = is_terminal or given_columns() is not None
        return PlainConsole(stderr=self.as_json, width=None if has_width else 100)

    def say(self, line: str) -> None:
        """Prints a line of what a person asked for, whole: a path that is cut in two cannot be copied."""
        self.results.print(line, soft_wrap=True)

    def print_document(self, document: Mapping[str, object]) -> None:
        """Prints the one JSON document, with escapes where stdout cannot encode what is in it."""
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        if text.encode(encoding, "replace").decode(encoding) != text:
            text = json.dumps(document, indent=2, allow_nan=False)
        click.echo(text, file=sys.stdout)

    def confirm(self, question: str) -> bool:
        """Asks where a terminal can answer; otherwise the answer is yes."""
        if self.yes or not sys.stdin.isatty():
            return True
        return click.confirm(question, default=True, err=True)

    def log_folder(self) -> Path | None:
        """The store's folder of log files; None where there is no local store."""
        store = Path(self.store_uri).expanduser()
        is_local = "://" not in self.store_uri and (store / "store.json").is_file()
        return store / "logs" if is_local else None


def refuse_bytes(names: Iterable[str]) -> None:
    """Refuses names with bytes that are no text: neither a URI, nor JSON, nor a report can hold them.

    Raises:
        InputError: Some have such bytes.
    """
    encoding = sys.getfilesystemencoding()
    advice = "" if encoding == "utf-8" else "; run with PYTHONUTF8=1 or in a locale of UTF-8, such as C.UTF-8"
    found = [name for name in names if any("\udc80" <= character <= "\udcff" for character in name)]
    if found:
        raise InputError(
            "\n".join(f"{name}: a name with bytes that are no text in {encoding}{advice}" for name in found)
        )


def common_options(command: Command) -> Command:
    """Adds the options that every verb accepts; they end up in the `Invocation`."""
    options = [
        click.option(
            "--store",
            metavar="PATH|URI",
            shell_complete=candidates.paths("dir"),
            expose_value=False,
            callback=_keep("store_uri"),
            help=f"Where records are: a folder or s3://BUCKET/PREFIX; {STORE_VARIABLE} or {DEFAULT_STORE}.",
        ),
        click.option(
            "--data",
            "data_dir",
            metavar="DIR|URI",
            shell_complete=candidates.paths("dir"),
            expose_value=False,
            callback=_keep_data_dir,
            help="Where data sets lie that are not embedded; shards of imagenet also at s3://BUCKET/PREFIX.",
        ),
        click.option(
            "--json",
            "as_json",
            is_flag=True,
            expose_value=False,
            callback=_keep("as_json"),
            help="One JSON document on stdout, also on errors.",
        ),
        click.option(
            "--yes",
            is_flag=True,
            expose_value=False,
            callback=_keep("yes"),
            help="Answer every question with yes.",
        ),
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            expose_value=False,
            callback=_set_verbosity,
            help="Say more on stderr.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _keep(attribute: str) -> Callable[[click.Context, click.Parameter, object], None]:
    def callback(context: click.Context, _parameter: click.Parameter, value: object) -> None:
        if value is not None and value is not False:
            setattr(context.find_object(Invocation), attribute, value)

    return callback


def _keep_data_dir(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.find_object(Invocation).data_dir = value if "://" in value else Path(value)  # type: ignore[union-attr]


def _set_verbosity(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        logging.getLogger("hkrun").setLevel(logging.INFO)
