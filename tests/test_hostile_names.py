"""Names that mean something to HTML, Markdown, LaTeX, Rich, a terminal or a spreadsheet are text in each."""

import contextlib
import csv
import html.parser
import io
import re
import sqlite3

import pytest
from markdown_it import MarkdownIt
from report_example import make_cell, make_sweep, put_run
from rich.console import Console

from hkrun.curve_files import read_source
from hkrun.errors import InputError
from hkrun.report import print_summary, render_report, summarise
from hkrun.spaces import NamedCell, load_sweep
from hkrun.store import open_store
from hkrun.tracking import sync

NAMES = (
    "=1+2",
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "'=1+2",
    "'quoted'",
    '"quoted"',
    "<script>alert(1)</script>",
    "<img src=x onerror=y>",
    "</td></tr></table>",
    "&lt;b&gt;",
    "&amp;",
    "a&b",
    "{{ 7*7 }}",
    "{% raw %}",
    "<< x >>",
    "**bold**",
    "__bold__",
    "_italic_",
    "`code`",
    "~~gone~~",
    "[a](http://x)",
    "![a](http://x)",
    "# heading",
    "a | b",
    "a \\| b",
    "back\\slash",
    "\\input{/etc/passwd}",
    "\\end{document}",
    "100 % done",
    "$x^2$",
    "a_{b}^c ~ d",
    "}{",
    "[bold red]x[/]",
    "[link=http://x]y[/link]",
    ":smile:",
    "%s %d {0} {x}",
    "../../etc/passwd",
    "C:\\new",
    "; rm -rf ~",
    "$(id)",
    "NULL",
    "\u00e9\u00df",
)
UNPRINTABLE = (
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;http://x\x1b\\y",
    "\x9b31m",
    "a\x00b",
    "a\x07b",
    "a\tb",
    "a\rb",
    "a\nb",
    "a\u2028b",
    "\u202etxt",
    "a\u200bb",
)
_MACROS = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"\textquotedbl{}": '"',
    "{[}": "[",
}


class Cells(html.parser.HTMLParser):
    """The tags of a page, and the text of each field of its tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.fields, self._open = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.extend(attributes)
        if tag in ("td", "th"):
            self._open = True
            self.fields.append("")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._open = False

    def handle_data(self, data):
        if self._open:
            self.fields[-1] += data


def make_hostile(*, num_seeds):
    """A sweep of cells with these names."""
    cells = tuple(
        NamedCell(name=name, cell=make_cell(1.0, 1.0, **{"loss.lambda_1": 1 + place / 100}))
        for place, name in enumerate(NAMES)
    )
    return make_sweep(cells=cells, num_seeds=num_seeds, reference=NAMES[0], published=())


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    store = open_store(tmp_path_factory.mktemp("hostile") / "store")
    sweep = make_hostile(num_seeds=1)  # without S: a figure of a panel for each name takes seconds
    for named in sweep.cells:
        put_run(store, named, 0)
    return summarise(sweep, store)


@pytest.fixture(scope="module")
def files(summary):
    return render_report(summary)


@pytest.fixture(scope="module")
def page(files):
    return Cells(files["report.html"].decode())


@pytest.fixture(scope="module")
def markdown(files):
    """The Markdown as an independent reader of it understands it."""
    return Cells(
        MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(files["report.md"].decode())
    )


@pytest.fixture(scope="module")
def latex(files):
    """The first fields of the rows of the LaTeX tables, as LaTeX would set them."""
    rows = re.findall(r"^(.*?) & .*\\\\$", files["report.tex"].decode(), flags=re.MULTILINE)
    return [_set(row) for row in rows]


def _set(text):
    text = re.sub(r"\$([A-Z])_\{\\mathrm\{(\w+)\}\}\$", r"\1_\2", text)
    pattern = "|".join([*map(re.escape, _MACROS), r"\\([&%$#_{}])"])
    return re.sub(pattern, lambda match: match[1] or _MACROS[match[0]], text)


@pytest.fixture(scope="module")
def printed(summary):
    console = Console(file=io.StringIO(), width=100)
    print_summary(summary, console)
    return console.file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_in_every_form(name, files, page, markdown, latex, printed):
    assert name in page.fields
    assert name in markdown.fields
    assert name in latex, name
    assert name in printed
    rows = list(csv.DictReader(io.StringIO(files["report.csv"].decode())))
    names = {row["row"] for row in rows if row["table"] == "errors"}
    quoted = f"'{name}" if name[0] in "=+-@\uff1d'" else name
    assert quoted in names
    assert name in {text[1:] if text.startswith("'") else text for text in names}  # as a script reads it


@pytest.mark.slow
def test_mlflow_names_the_parents_so(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = open_store(tmp_path / "store")
    sweep = make_hostile(num_seeds=1)
    for named in sweep.cells:
        put_run(store, named, 0)
    sync(sweep, store, summaries={}, files={})
    with contextlib.closing(sqlite3.connect(store.local_path / "mlflow.db")) as database:
        parents = database.execute(
            "SELECT name FROM runs WHERE run_uuid NOT IN "
            "(SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId')"
        )
        assert sorted(name for (name,) in parents) == sorted(NAMES)


def test_names_bring_no_element_to_the_page_and_none_to_markdown(page, markdown):
    assert page.tags.count("script") == 1  # the page's own
    assert not {"iframe", "img", "link", "object", "b"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "style")]
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert not set(markdown.tags) & {"script", "em", "a", "s"}


def test_no_field_of_csv_begins_a_formula(files):
    for row in csv.reader(io.StringIO(files["report.csv"].decode())):
        for text in row[:4]:
            assert not text.startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d")), text


@pytest.mark.parametrize("name", UNPRINTABLE)
def test_a_name_with_control_characters_is_refused_before_it_reaches_a_terminal(name, tmp_path):
    written = "".join(f"\\u{ord(letter):04x}" for letter in name)
    space = tmp_path / "mine.toml"
    space.write_text(f'dataset = "digits"\nseeds = 1\n[[cells]]\nname = "{written}"\n')
    with pytest.raises(InputError, match="is not a line of text") as refused:
        load_sweep(str(space))
    assert refused.value.message.isprintable() or "\n" in refused.value.message
    curves = tmp_path / "curves.csv"
    with curves.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["cell", "seed", "epoch", "error_pct"])
        writer.writerows([f"x{name}x", seed, epoch, 5] for seed in (0, 1) for epoch in (1, 2))
    with pytest.raises(InputError) as refused:
        read_source(curves)
    assert refused.value.message.replace("\n", "").isprintable()
