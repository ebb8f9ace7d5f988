"""Fills the report's templates, in the language of each."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup, escape

from hkrun import figures
from hkrun.report import latex

# An underscore within a word means nothing in Markdown.
_MARKDOWN = re.compile(r"([\\`*<>|\[\]$#~&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def render_template(name: str, content: Mapping[str, object]) -> bytes:
    """A template filled with content, in the language of its name's ending."""
    return _environment(name).get_template(name).render(content).encode()


def read_template(name: str) -> str:
    """The text of a template as it stands: a style or a script."""
    environment = _environment(name)
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


@functools.cache  # with the templates that it has compiled
def _environment(name: str) -> jinja2.Environment:
    # Braces and percent signs mean something else in LaTeX.
    marks: dict[str, Any] = (
        {
            "block_start_string": "<%",
            "block_end_string": "%>",
            "variable_start_string": "<<",
            "variable_end_string": ">>",
            "comment_start_string": "<#",
            "comment_end_string": "#>",
        }
        if name.endswith(".tex")
        else {}
    )
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hkrun.report"),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **marks,
    )
    environment.filters["typeset"] = _typeset
    environment.filters["plain"] = lambda text: _MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))
    environment.filters["tex"] = latex.escape
    environment.filters["tex_columns"] = latex.columns_of
    environment.tests["wide"] = latex.is_wide
    return environment


def _typeset(text: str) -> Markup:
    """Text for HTML: escaped, with sub- and superscripts in the names of losses.

    No line breaks between a key or an option and its value; their spaces stay plain, for people copy them.
    """

    def symbol(match: re.Match[str]) -> str:
        letter, below, above = match.groups()
        return f"<i>{letter}</i><sub>{below}</sub>" + (f"<sup>{above}</sup>" if above else "")

    unbroken = str(escape(text)).replace(" = ", '<span class="pair"> = </span>')
    unbroken = unbroken.replace("--family all", '<code class="pair">--family all</code>')
    return Markup(figures.SYMBOL.sub(symbol, unbroken))  # noqa: S704  escaped first
