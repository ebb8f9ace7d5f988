"""The report as one HTML file, which needs no network and forbids all that it does not hold itself."""

import base64
import hashlib
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from hkrun import figures
from hkrun.report import drawing
from hkrun.report.rendering import read_template, render_template
from hkrun.report.summary import Summary
from hkrun.report.wording import OUTCOMES

PAGE = "report.html"
# A reader's own marks beside the colours: what came of a claim must be told without them.
_SIGNS = {"reproduced": "✓", "contradicted": "✗", "undecided": "?"}


def render_page(
    summary: Summary, content: Mapping[str, object], drawn: Sequence[drawing.TakenFigure]
) -> bytes:
    """The page.

    Every figure stands in it twice, drawn for a wide page and for a phone's, of which a reader sees one.

    Args:
        summary: Whose report it is.
        content: What all forms of the report hold.
        drawn: The figures, with both pictures.
    """
    pictures = {figure.name: (figure.wide, figure.narrow) for figure in drawn}
    letters = {
        key: letter
        for pair in pictures.values()
        for picture in pair
        for key, letter in picture.letters.items()
    }
    style, script = _write_style(), read_template("report.js")
    outcomes = {
        on: [verdict.outcome for verdict in verdicts]
        for on, verdicts in (("", summary.verdicts), (" on S2", summary.s2_verdicts))
    }
    own = {
        "figures": drawn,
        "inlined": {
            name: Markup("".join(picture.element for picture in pair))  # noqa: S704
            for name, pair in pictures.items()
        },
        "glyphs": Markup(figures.write_letters(letters)),  # noqa: S704
        "outcomes": [
            (_SIGNS[outcome], found.count(outcome), outcome, on)
            for on, found in outcomes.items()
            for outcome in OUTCOMES
            if outcome in found
        ],
        "style": Markup(style),  # noqa: S704
        "script": Markup(script),  # noqa: S704
        "policy": f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'",
    }
    return render_template(PAGE, {**content, **own})


def _write_style() -> str:
    """The style sheet, which opens with the palette."""
    light, dark = (
        " ".join(f"--{name}: {paint[mode]};" for name, paint in figures.PALETTE.items()) for mode in (0, 1)
    )
    return (
        f":root {{ {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
        f"{read_template('report.css')}"
    )


def _hash(text: str) -> str:
    """What a content security policy calls an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
