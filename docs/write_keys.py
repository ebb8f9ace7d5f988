"""docs/keys.md from the keys themselves, as `hkrun keys` has them: `make keys`. A test compares the two."""

import json
import sys
from itertools import groupby
from pathlib import Path

PAGE = Path(__file__).with_name("keys.md")
sys.path.insert(0, str(PAGE.parents[1]))

from hkrun.config import describe_range, describe_type, keys  # noqa: E402

HEAD = """# Keys of a configuration

<!-- Written by `make keys`: changes are lost. -->

Each can stand in a search space or a recipe, and on the command line as `KEY=VALUE`. `hkrun keys PATTERN` shows them with the terms
that they change, `hkrun keys NAME` what a loss or method reads. Keys of your own losses and methods come on top
([how](own-parts.md)). The default is what a key is where neither the recipe of the data set nor the search space says
otherwise.
"""
TABLE = "| Key | Allowed | Default | What it is |\n|---|---|---|---|\n"


def write_page() -> str:
    """The page."""
    parts = [HEAD]
    for section, names in groupby(keys(), key=lambda name: name.rpartition(".")[0]):
        rows = "".join(_row(name) for name in names)
        parts.append(f"## {section or 'Top level'}\n\n{TABLE}{rows}")
    return "\n".join(parts)


def _row(name: str) -> str:
    kind, default, info = keys()[name]
    limits = describe_range(info)
    allowed = limits if info.choices else ", ".join(filter(None, (describe_type(kind), limits)))
    written = default if isinstance(default, str) and default else json.dumps(default)
    cells = (f"`{name}`", allowed, f"`{written}`", f"{info.doc} *Default: {info.source}.*")
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


if __name__ == "__main__":
    PAGE.write_text(write_page(), encoding="utf-8")
