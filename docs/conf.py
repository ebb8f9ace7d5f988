"""The site of the pages: `make docs`. Its sources are the pages as the code forge shows them, in their places."""

import re
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

_project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
project = _project["name"]
release = _project["version"]
author = _project["authors"][0]["name"]
copyright = author  # noqa: A001

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "docs/README"
include_patterns = ["*.md", "docs/**", "benchmarks/*.md", "findings/*.md", "results/**"]
exclude_patterns = [".*", "hkrun-store", "hkrun", "tests", "dist"]  # not even looked through
myst_heading_anchors = 6  # named as the forge names them
nitpicky = True

html_theme = "furo"
html_title = f"hkrun {release}"
html_show_sphinx = False
html_copy_source = False
html_extra_path = ["site"]  # index.html, which leads to the root, and
html_css_files = ["../wide.css"]  # room for tables of results


def find_contents(text: str) -> list[tuple[str, list[str]]]:
    """The sections of an index with the pages that their lists link first, as a site's contents."""
    contents = []
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        pages = re.findall(r"^- \[[^]]+\]\(([^)#]+)\.md[^)]*\)", body, re.MULTILINE)
        contents.append((title.strip(), pages))
    return contents


def add_contents(_app: Sphinx, name: str, source: list[str]) -> None:
    """Gives the indices what the site needs for its navigation and the forge would show as code."""
    trees = []
    if name == root_doc:
        trees = [(f":caption: {title}", pages) for title, pages in find_contents(source[0])]
    elif name == "results/README":
        trees = [(":glob:", ["*/report"])]
    for option, pages in trees:
        source[0] += "\n\n" + "\n".join(["```{toctree}", ":hidden:", option, "", *pages, "```"]) + "\n"


def setup(app: Sphinx) -> None:
    """Connects the above."""
    app.connect("source-read", add_contents)
