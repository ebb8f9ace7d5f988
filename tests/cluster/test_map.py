"""The map at the top of `hkrun.cluster` names every module once, in its folder."""

import ast
import re
from pathlib import Path

import pytest

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


def test_what_the_package_hands_on_is_what_it_tells_type_checkers_and_is_there():
    tree = ast.parse(Path(hkrun.cluster.__file__).read_text())
    told = {
        name.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
        if str(node.module).startswith("hkrun.cluster")
    }
    places = hkrun.cluster._PLACES
    assert told == {name: f"hkrun.cluster.{place}" for place, names in places.items() for name in names}
    assert all(hasattr(hkrun.cluster, name) for name in told)
    with pytest.raises(AttributeError, match=r"'hkrun\.cluster' has no attribute 'no_such'"):
        _ = hkrun.cluster.no_such
