"""How the code is built, where that is a promise: short signatures, a short way to the loop, true maps."""

import ast
import graphlib
import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "hkrun"
MOST_PARAMETERS = 5
# From the command to the loop: each function calls the next one.
WAY = (
    ("hkrun.cli.running", "_train"),
    ("hkrun.sweep.running", "run_study"),
    ("hkrun.cluster.tasks", "run_tasks"),
    ("hkrun.trial.run", "run_task"),
    ("hkrun.distill.loop", "distill"),
)
MOST_MODULES = 4


def read(module: str) -> ast.Module:
    """The tree of a module, or of a package's own file."""
    path = REPOSITORY.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def long_signatures(folder: str) -> Iterator[str]:
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = node.args
                named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
                number = sum(each.arg not in ("self", "cls") for each in named)
                number += (given.vararg is not None) + (given.kwarg is not None)
                if number > MOST_PARAMETERS:
                    yield f"{path.relative_to(REPOSITORY)}: {node.name} has {number} parameters"


@pytest.mark.parametrize("folder", ["cli", "sweep", "plans", "spaces", "cluster", "trial", "distill"])
def test_functions_between_the_command_and_the_loop_have_at_most_five_parameters(folder):
    assert list(long_signatures(folder)) == []


def find_source(module: str, name: str) -> str | None:
    """The module that defines a name which another one imports, through the faces of packages."""
    for node in ast.walk(read(module)):
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            source = node.module or ""
            defined = [each.name for each in ast.walk(read(source)) if isinstance(each, ast.FunctionDef)]
            return source if name in defined else find_source(source, name)
    return None


def test_from_the_command_to_the_loop_are_at_most_four_modules():
    for (module, _), (source, name) in itertools.pairwise(WAY):
        assert find_source(module, name) == source, f"{module} does not take {name} from {source}"
    modules = [module for module, _ in WAY]
    assert len(set(modules)) - 1 <= MOST_MODULES
    for module, name in WAY:
        assert name in [each.name for each in ast.walk(read(module)) if isinstance(each, ast.FunctionDef)]


def test_the_layers_that_are_written_are_those_that_are_enforced():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"enforces it, for every module:\n\n((?:    .+\n)+)", text)
    assert [line.strip() for line in written.splitlines()] == layers


def find_imports(tree: ast.Module, modules: set[str]) -> set[str]:
    """The modules of hkrun that a module takes, in functions too, but for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in names} & modules
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules
    return found


def test_modules_do_not_import_each_other_in_a_circle_not_even_in_functions():
    names = [".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in PACKAGE.rglob("*.py")]
    modules = {name.removesuffix(".__init__") for name in names}
    graph = {name: find_imports(read(name), modules) for name in modules}
    assert "hkrun.trial.run" in graph["hkrun.cluster.tasks"], "imports in functions count"
    # Handed on when a user asks for it; modules take the version from there.
    graph["hkrun"] = {name for name in graph["hkrun"] if not name.startswith("hkrun.interface")}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names a circle


def test_every_package_and_module_of_the_top_has_its_line_in_the_readme():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    there = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    names = {f"{path.name}/" if path.is_dir() else path.name for path in there}
    names -= {"__init__.py", "__main__.py"}
    assert {name for name in names if not re.search(rf"(?<![\w/]){re.escape(name)}", text)} == set()


@pytest.mark.parametrize("package", ["interface", "cli", "sweep", "plans", "trial"])
def test_the_map_of_a_package_names_each_of_its_modules(package):
    text = ast.get_docstring(read(f"hkrun.{package}")) or ""
    written = re.findall(r"^ *([\w/]+\.py) ", text, re.MULTILINE)
    there = sorted(path.name for path in (PACKAGE / package).glob("*.py") if path.name != "__init__.py")
    assert sorted(written) == there


def find_handed_on() -> Iterator[tuple[str, str]]:
    """The names that packages import from their own modules alone, to hand them on: package and name."""
    for file in sorted(PACKAGE.rglob("__init__.py")):
        package = ".".join(file.parent.relative_to(REPOSITORY).parts)
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if not any(isinstance(node, ast.Assign | ast.FunctionDef) for node in tree.body):
            for node in tree.body:
                if isinstance(node, ast.ImportFrom):
                    yield from ((package, alias.name) for alias in node.names)


def find_taken(path: Path) -> set[tuple[str, str]]:
    """The names that a module takes from packages, by `from package import name` or as `package.name`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    taken, packages = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            taken |= {(node.module, alias.name) for alias in node.names}
            packages |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            taken.add((packages.get(node.value.id, ""), node.attr))
    return taken


def test_a_package_hands_on_only_names_that_another_module_takes_from_it():
    folders = (PACKAGE, REPOSITORY / "tests", REPOSITORY / "benchmarks")
    taken = {found for folder in folders for path in folder.rglob("*.py") for found in find_taken(path)}
    handed_on = set(find_handed_on())
    assert ("hkrun.plans", "make_plan") in handed_on
    assert handed_on - taken == set()


@pytest.mark.parametrize("name", ["tables.py", "reading.py"])
def test_a_general_name_is_given_to_one_module_at_most(name):
    assert len(list(PACKAGE.rglob(name))) <= 1
