"""How far a study is, as the output of a notebook, in which no name can do harm."""

import contextvars
import html
import importlib
import io
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

from hkrun.cli.console import PlainConsole
from hkrun.cli.display import Display

REFRESH_S = 0.5
_WIDTH = 96  # columns of the display
_PRE = "white-space:pre;overflow-x:auto;font-family:monospace;line-height:1.3;margin:0"


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, or of what else shows HTML."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def forgo_widgets() -> None:
    """Imports tqdm, which MLflow takes, without its warning in kernels that have no widgets for its bars."""
    with warnings.catch_warnings(), suppress(ImportError):
        warnings.simplefilter("ignore")
        importlib.import_module("tqdm.auto")


class NotebookDisplay(Display):
    """The display of the command line as an output of a notebook, renewed twice a second."""

    def __init__(self, *, title: str, notes: Sequence[str]) -> None:
        super().__init__(PlainConsole(file=io.StringIO(), width=_WIDTH), title=title)
        self._lines = list(notes)
        # The output belongs to the cell in whose context it is written.
        self._renewing = threading.Thread(
            target=contextvars.copy_context().run, args=(self._renew,), name="hkrun-notebook", daemon=True
        )

    def __enter__(self) -> Self:
        from IPython.display import display

        self._output: Any = display(_Html(self._write()), display_id=True)
        self._renewing.start()
        return self

    def __exit__(self, *ending: object) -> None:
        super().__exit__(*ending)
        self._renewing.join()
        self._output.update(_Html(_preformatted(self._lines)))

    @property
    def _is_live(self) -> bool:
        return True

    def _say(self, line: str) -> None:
        self._lines.append(line)

    def _renew(self) -> None:
        while not self._over.wait(REFRESH_S):
            self._output.update(_Html(self._write()))

    def _write(self) -> str:
        return _preformatted(list(self._lines)) + _as_html(self._render())


class _Html:
    def __init__(self, text: str) -> None:
        self._text = text

    def _repr_html_(self) -> str:
        return self._text


def _preformatted(lines: Sequence[str]) -> str:
    return "".join(f'<div style="{_PRE}">{html.escape(line)}</div>' for line in lines)


def _as_html(shown: Any) -> str:
    """What Rich would print, with its colours."""
    console = PlainConsole(
        file=io.StringIO(), width=_WIDTH, record=True, force_terminal=True, color_system="truecolor"
    )
    console.print(shown)
    return console.export_html(inline_styles=True, code_format=f'<pre style="{_PRE}">{{code}}</pre>')
