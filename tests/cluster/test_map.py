"""The map at the top of `hkrun.cluster` names every module once, in its folder."""

import re
from pathlib import Path

import hkrun.cluster

FOLDER = Path(hkrun.cluster.__file__).parent


def test_the_map_lists_the_modules_that_are_there():
    listed, folder = [], ""
    for indent, name in re.findall(r"^( {4}| {8})(\w+(?:\.py|/)) +\S", hkrun.cluster.__doc__, re.MULTILINE):
        if name.endswith("/"):
            folder = name
        else:
            listed.append(name if indent == "    " else folder + name)
    there = [path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.py")]
    assert sorted(listed) == sorted(name for name in there if not name.endswith("__init__.py"))
