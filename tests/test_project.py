import itertools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
TEXTS = (".py", ".md", ".toml")


def test_the_lock_holds_exact_versions_with_hashes_and_no_addresses():
    text = (REPOSITORY / "requirements.lock").read_text()
    assert "://" not in text
    assert "index" not in "".join(line for line in text.splitlines() if line.startswith("-"))
    blocks = [block for block in re.split(r"\n(?=\S)", text) if not block.startswith("#")]
    assert len(blocks) > 100
    for block in blocks:
        assert re.match(r"[a-z0-9._-]+(\[[a-z0-9,_-]+\])?==[^ ]+( ; .+)? \\\n", block), block
        assert "--hash=sha256:" in block


def test_every_direct_dependency_is_locked():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert {"mnist5k", "export", "search"} <= set(extras)
    groups = (project["project"]["dependencies"], *project["dependency-groups"].values(), *extras.values())
    wanted = [requirement for group in groups for requirement in group]
    locked = set(
        re.findall(r"^([a-z0-9._-]+)==", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE)
    )
    for requirement in wanted:
        assert re.match(r"[A-Za-z0-9._-]+", requirement)[0] in locked


def test_nothing_tells_to_install_a_package_from_a_registry_that_anybody_could_have_put_there():
    """The name hkrun is nobody's there: hints name the packages of an extra, or a clone or wheel of hkrun."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    known = {re.match(r"[A-Za-z0-9._-]+", requirement)[0] for requirement in needed}
    listed = subprocess.run(
        ["git", "ls-files", "hkrun", "docs", "search_spaces", "benchmarks", "*.md"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    texts = {name: (REPOSITORY / name).read_text("utf-8") for name in listed if name.endswith(TEXTS)}
    told = [
        (name, re.match(r"[\w.-]*", word.strip("'\""))[0])
        for name, text in texts.items()
        for words in re.findall(r"(?:pip|pipx|uv tool) install((?: +[^\s`;,)#\"{]+)+)", text)
        for word in words.split()
    ]
    assert ("docs/export.md", "onnx") in told
    assert [each for each in told if each[1] == "hkrun"] == []
    library = {package for name, package in told if name.endswith(".py")}
    assert {package for package in library if package and not package.startswith("-")} - known == set()
    assert [name for name, text in texts.items() if "hkrun[" in text] == []


def test_every_page_has_its_line_in_the_index_of_the_pages():
    index = (REPOSITORY / "docs/README.md").read_text(encoding="utf-8")
    named = re.findall(r"^- \[[^]]+\]\(([^)]+)\): .+$", index, re.MULTILINE)
    pages = {str(path.relative_to(REPOSITORY / "docs")) for path in REPOSITORY.glob("docs/**/*.md")}
    assert pages - {"README.md"} == {name for name in named if not name.startswith("../")}
    assert len(named) == len(set(named))
    for name in named:
        assert (REPOSITORY / "docs" / name).is_file(), name


def test_the_page_of_keys_is_that_of_the_keys():
    script = REPOSITORY / "docs/write_keys.py"
    page = runpy.run_path(str(script))["write_page"]()
    assert (REPOSITORY / "docs/keys.md").read_text(encoding="utf-8") == page, "run make keys"


def test_the_site_is_built_with_its_contents_and_a_link_to_nowhere_fails(tmp_path):
    pytest.importorskip("sphinx", reason="comes with make setup")
    for name in ("docs/conf.py", "docs/site/index.html", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    index = "# Pages\n\n## Start\n\n- [One](one.md): first\n- [Two](../TWO.md#its-end-1): second\n"
    for folder in ("benchmarks", "findings", "results"):
        index += f"- [{folder}](../{folder}/README.md): more\n"
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "README.md").write_text(f"# {folder}\n")
    (tmp_path / "results/study").mkdir()
    (tmp_path / "results/study/report.md").write_text("# A study\n")
    (tmp_path / "docs/README.md").write_text(index)
    (tmp_path / "docs/one.md").write_text("# One\n\n[the configuration](conf.py) [back](README.md#start)\n")
    (tmp_path / "TWO.md").write_text("# Two\n\n## Its end\n\n## Its end\n")

    def build():
        flags = ("--fail-on-warning", "--keep-going", "--quiet", "--conf-dir", "docs")
        command = [sys.executable, "-m", "sphinx", *flags, "--doctree-dir", tmp_path / "trees", ".", "site"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = build()
    assert (done.returncode, done.stderr) == (0, "")
    front = (tmp_path / "site/docs/README.html").read_text()
    assert re.search(r'href="\.\./TWO\.html#[\w-]+"', front)
    assert re.search(r'caption-text">Start<.*href="one.html".*href="../TWO.html"', front, re.DOTALL)
    assert (tmp_path / "site/index.html").is_file()
    assert re.search(r'href="\.\./_downloads/\w+/conf\.py"', (tmp_path / "site/docs/one.html").read_text())
    (tmp_path / "TWO.md").write_text("# Two\n\n[away](docs/three.md) [anchor](docs/one.md#nowhere)\n")
    done = build()
    assert done.returncode == 1
    for lost in ("docs/three.md", "nowhere", "its-end-1"):
        assert lost in done.stderr
    (tmp_path / "TWO.md").write_text("# Two\n\n## Its end\n\n## Its end\n")
    (tmp_path / "docs/left.md").write_text("# A page without a line in the index\n")
    done = build()
    assert done.returncode == 1
    assert "left.md: WARNING: document isn't included in any toctree" in done.stderr


@pytest.mark.slow
def test_the_wheel_carries_search_spaces_and_data_and_runs_outside_the_repository(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(REPOSITORY),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No matching distribution found for hatchling" in built.stderr:
        pytest.skip("the build backend cannot be fetched here")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "unpacked")
    recipes = {
        f"hkrun/search_spaces/recipes/{path.name}" for path in REPOSITORY.glob("search_spaces/recipes/*")
    }
    assert {"hkrun/search_spaces/stability.toml", *recipes} <= names
    kept = ("*.npz", "*.toml", "*.css", "*.html", "*.js", "*.md", "*.tex", "py.typed")
    kept += ("*.bash", "*.zsh", "*.fish")
    found = {pattern: list((REPOSITORY / "hkrun").rglob(pattern)) for pattern in kept}
    assert all(found.values())
    data = [path for paths in found.values() for path in paths]
    assert {str(path.relative_to(REPOSITORY)) for path in data} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "unpacked")}
        arguments = [sys.executable, "-P", *arguments]
        return subprocess.run(
            arguments, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    assert run("-c", "import hkrun; print(hkrun.__file__)").startswith(str(tmp_path))
    plan = json.loads(run("-m", "hkrun", "sweep", "stability", "--dry-run", "--json"))
    assert (plan["sweep"], plan["runs"]) == ("stability", 80)


def test_each_finding_has_its_header_and_its_line_in_the_index():
    folder = REPOSITORY / "findings"
    files = sorted(path.name for path in folder.glob("*.sh"))
    index = (folder / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[(\w+)\]\(\1\.sh\) \|", index, re.MULTILINE) == [
        name.removesuffix(".sh") for name in files
    ]
    for name in files:
        text = (folder / name).read_text(encoding="utf-8")
        assert re.match(r"#!/usr/bin/env bash\n# Guess: (.+\n)+# Truth: (.+\n)+# Hurts: (.+\n)+", text), name
        (packages,) = re.findall(r"^packages (.+)$", text, re.MULTILINE)
        for package in packages.split():
            assert re.fullmatch(r"[\w-]+==[\d.]+|\"[\w-]+\[\w+\]==[\d.]+\"", package), (name, package)
        assert "hkrun" not in text, name
        assert re.search(r"^ *assert ", text, re.MULTILINE), name
