"""Which code computes the numbers: no module is forgotten, comments do not count, the epoch is checked."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import golden_curves
import pytest
from test_structure import PACKAGE, find_imports, read

import hkrun.trial.run
from hkrun import code_identity
from hkrun.code_identity import NUMBERS_EPOCH, Code, find_source, hash_source, number_files
from hkrun.methods import SHIPPED_FORMS

# What training imports and what can change no number, with the reason.
HARMLESS = {
    "hkrun": "the package's own face",
    "hkrun.addresses": "addresses of servers",
    "hkrun.code_identity": "what is tested here",
    "hkrun.digests": "names of things",
    "hkrun.errors": "messages and exit codes",
    "hkrun.git_state": "the commit in the record",
    "hkrun.processor": "the name of the processor",
    "hkrun.records": "the form of what is kept",
    "hkrun.redaction": "what messages leave out",
    "hkrun.stopwatch": "the time that parts take",
    "hkrun.store": "bytes, checked by their SHA-256",
    "hkrun.uris": "places of stores",
}


def modules_of(package: Path) -> set[str]:
    names = [
        ".".join(path.relative_to(package.parent).with_suffix("").parts) for path in package.rglob("*.py")
    ]
    return {name.removesuffix(".__init__") for name in names}


def close_over(roots: set[str], modules: set[str]) -> set[str]:
    """All modules that these import, in functions too, with the packages that they lie in."""
    found: set[str] = set()
    left = set(roots)
    while left:
        module = left.pop()
        found.add(module)
        if module == "hkrun":  # hands names on from anywhere, when users ask for them
            continue
        parts = module.split(".")
        packages = {".".join(parts[:number]) for number in range(1, len(parts))}
        left |= (find_imports(read(module), modules) | packages) - found
    return found


def test_no_module_that_computes_numbers_is_forgotten():
    modules = modules_of(PACKAGE)
    by_name = {
        place.partition(":")[0] for place in SHIPPED_FORMS.values()
    }  # which are imported by their names
    needed = close_over({hkrun.trial.run.__name__, *by_name}, modules)
    counted = {
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for file in number_files(PACKAGE)
    }
    forgotten = {
        module
        for module in needed - counted
        if not any(module == name or (name != "hkrun" and module.startswith(f"{name}.")) for name in HARMLESS)
    }
    assert forgotten == set(), "add them to NUMBER_PARTS, or say in HARMLESS why they change no number"
    assert {"hkrun.losses.response", "hkrun.trial.run", "hkrun.modern.crd", "hkrun.data.digits"} <= counted
    assert counted <= modules
    assert HARMLESS.keys() <= needed, "no longer imported"


@pytest.fixture
def package(tmp_path):
    """A copy of some of what computes numbers, and of what does not."""
    for name in ("__init__.py", "code_identity.py", "errors.py", "terms.py", "data", "losses", "report"):
        copy = shutil.copytree if (PACKAGE / name).is_dir() else shutil.copy
        (tmp_path / "hkrun").mkdir(exist_ok=True)
        copy(PACKAGE / name, tmp_path / "hkrun" / name)
    return tmp_path / "hkrun"


def change(package: Path, name: str, old: str, new: str) -> None:
    file = package / name
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("losses/response.py", "divergence.mean()", "100 * divergence.mean()"),
        ("data/digits.py", "def load_digits", "x = 1\ndef load_digits"),
        ("terms.py", "import", "import math\nimport"),
    ],
)
def test_a_line_of_code_changes_the_source(package, name, old, new):
    before = hash_source(package)
    change(package, name, old, new)
    assert hash_source(package) != before


def test_a_new_a_renamed_and_a_removed_module_change_the_source(package):
    seen = {hash_source(package)}
    (package / "losses" / "more.py").write_text("x = 1\n")
    seen.add(hash_source(package))
    (package / "losses" / "more.py").rename(package / "losses" / "other.py")
    seen.add(hash_source(package))
    (package / "losses" / "geometry.py").unlink()
    seen.add(hash_source(package))
    assert len(seen) == 4


def test_comments_docstrings_and_code_that_computes_no_numbers_do_not(package):
    before = hash_source(package)
    change(package, "losses/response.py", '"""KD (Hinton', '"""Distillation (Hinton')
    change(package, "losses/response.py", "    ours =", "    # Softened.\n\n    ours =")
    change(package, "code_identity.py", "NUMBERS_EPOCH = ", "NUMBERS_EPOCH = 9")
    change(package, "report/wording.py", "import", "import math\nimport")
    (package / "losses" / "__pycache__").mkdir(exist_ok=True)
    assert hash_source(package) == before


def test_a_text_that_is_no_docstring_counts(tmp_path):
    (tmp_path / "terms.py").write_text('x = """one"""\n')
    first = hash_source(tmp_path)
    (tmp_path / "terms.py").write_text('x = """other"""\n')
    assert hash_source(tmp_path) != first


def test_the_same_epoch_or_the_very_same_source_has_the_same_numbers():
    released, later = Code(numbers="epoch 1", source="a"), Code(numbers="epoch 1", source="b")
    other_epoch = Code(numbers="epoch 2", source="c")
    changed, changed_more = Code(numbers="source x", source="x"), Code(numbers="source y", source="y")
    assert released.same_numbers(later)
    assert not released.same_numbers(other_epoch)
    assert not released.same_numbers(changed)
    assert not changed.same_numbers(changed_more)
    assert changed.same_numbers(changed)
    # A clone's code that was found to be of an epoch afterwards.
    assert Code(numbers="epoch 1", source="x").same_numbers(changed)


def test_records_that_do_not_tell_are_of_the_first_epoch():
    unrecorded = Code.of({"torch": "2.15.0", "code": "31034ee0a1b2"})
    assert unrecorded == Code(numbers="epoch 1", source="")
    assert not unrecorded.same_numbers(Code(numbers="source x", source=""))
    code = Code(numbers="source x", source="x")
    assert Code.of({"torch": "2.15.0", **code.entries()}) == code


def test_a_changed_clone_is_of_no_epoch_and_says_so(package):
    change(package, "losses/response.py", "divergence.mean()", "100 * divergence.mean()")
    source = hash_source(package)
    told = subprocess.run(
        [sys.executable, "-c", "from hkrun.code_identity import find_code; print(find_code())"],
        env={**os.environ, "PYTHONPATH": str(package.parent)},
        cwd=package.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.strip() == repr(Code(numbers=f"source {source}", source=source))


# What the user's cache keeps of it


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hkrun" / "source.txt"


def test_the_source_of_the_very_same_files_is_taken_from_the_cache(package, cache, monkeypatch):
    source = find_source(package)
    assert source == hash_source(package)
    assert cache.read_text().split()[1] == source
    monkeypatch.setattr(code_identity, "_code_lines", lambda _: pytest.fail("hashed once more"))
    assert find_source(package) == source


def test_any_change_of_a_file_is_seen_past_the_cache(package, cache):
    before = find_source(package)
    change(package, "losses/response.py", "divergence.mean()", "100 * divergence.mean()")
    changed = find_source(package)
    assert changed == hash_source(package) != before
    (package / "losses" / "more.py").write_text("X = 1\n")
    assert find_source(package) == hash_source(package) != changed


@pytest.mark.parametrize("content", ["", "x", "{files} no digits", "{files}", "\N{SNOWMAN} 0123456789ab"])
def test_a_damaged_cache_is_made_anew(package, cache, content):
    source = find_source(package)
    whole = cache.read_text()
    cache.write_text(content.format(files=whole.split()[0]), encoding="utf-8")
    assert find_source(package) == source
    assert cache.read_text() == whole


@pytest.mark.parametrize("home", ["/proc/nowhere", "relative"])
def test_without_a_cache_the_source_is_found_all_the_same(package, home, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    assert find_source(package) == hash_source(package)
    assert not (tmp_path / "relative").exists()


# The epoch


def test_this_code_was_found_to_be_of_the_epoch():
    written = (PACKAGE / "code_identity.py").read_text(encoding="utf-8")  # tests take it for current
    assert f'EPOCH_SOURCE = "{hash_source(PACKAGE)}"\n' in written, (
        "what can change numbers was changed: `make numbers` checks the golden curves, and writes the source "
        "where they are as before; where not, and that is meant, `make numbers OPTIONS=--new-epoch`"
    )


def test_the_golden_curves_are_of_the_epoch():
    epoch, golden = golden_curves.read_golden()
    assert epoch == NUMBERS_EPOCH
    found = golden_curves.compute_curves()
    assert found.keys() == golden.keys()
    assert list(golden_curves.find_differences(found, golden)) == []
    finite = [value for curves in golden.values() for column in curves.values() for value in column if value]
    assert all(math.isfinite(value) for value in finite)


@pytest.fixture
def checkout(package, monkeypatch, tmp_path):
    """`make numbers` on a copy, without its ten seconds: of one curve."""
    monkeypatch.setattr(golden_curves.hkrun, "__file__", str(package / "__init__.py"))
    monkeypatch.setattr(golden_curves, "GOLDEN", tmp_path / "curves.json")
    monkeypatch.setattr(golden_curves, "compute_curves", lambda: {"kd": {"epoch": [1], "loss": [0.5]}})
    assert golden_curves.refresh([]) == 0
    return package


def test_with_the_same_curves_changed_code_becomes_that_of_the_epoch(checkout):
    change(checkout, "losses/response.py", "divergence.mean()", "divergence.sum() / len(divergence)")
    assert golden_curves.refresh([]) == 0
    text = (checkout / "code_identity.py").read_text()
    assert f'EPOCH_SOURCE = "{hash_source(checkout)}"\n' in text
    assert f"NUMBERS_EPOCH = {NUMBERS_EPOCH}\n" in text


def test_with_other_curves_nothing_is_written_unless_an_epoch_begins(checkout, monkeypatch, capsys):
    change(checkout, "losses/response.py", "divergence.mean()", "100 * divergence.mean()")
    monkeypatch.setattr(golden_curves, "compute_curves", lambda: {"kd": {"epoch": [1], "loss": [50.0]}})
    file = checkout / "code_identity.py"
    before, golden = file.read_text(), golden_curves.GOLDEN.read_text()
    assert golden_curves.refresh([]) == 1
    assert "kd: loss is [50.0], and was [0.5]\n" in capsys.readouterr().out
    assert (file.read_text(), golden_curves.GOLDEN.read_text()) == (before, golden)
    assert golden_curves.refresh(["--new-epoch"]) == 0
    assert f"NUMBERS_EPOCH = {NUMBERS_EPOCH + 1}\n" in file.read_text()
    assert golden_curves.read_golden() == (NUMBERS_EPOCH + 1, golden_curves.compute_curves())


@pytest.mark.parametrize(
    "found",
    [
        {"kd": {"loss": [0.5, 1.00001], "epoch": [1, 2]}},
        {"kd": {"loss": [0.5], "epoch": [1, 2]}},
        {"kd": {"loss": [0.5, None], "epoch": [1, 2]}},
        {"kd": {"epoch": [1, 2]}},
        {"kd": {"loss": [0.5, 1.0], "epoch": [1, 2], "more": [1, 1]}},
    ],
)
def test_every_difference_from_a_golden_curve_is_found(found):
    golden = {"kd": {"loss": [0.5, 1.0], "epoch": [1, 2]}}
    assert len(list(golden_curves.find_differences(found, golden))) == 1
    assert list(golden_curves.find_differences(golden, golden)) == []
    rounded = {"kd": {"loss": [0.5, 1.0 + 1e-9], "epoch": [1, 2]}, "a new one": {}}
    assert list(golden_curves.find_differences(rounded, golden)) == []


def test_an_epoch_that_grew_leaves_no_run_of_before_to_be_used_unasked(monkeypatch):
    monkeypatch.setattr(code_identity, "NUMBERS_EPOCH", NUMBERS_EPOCH + 1)
    code_identity.find_code.cache_clear()
    try:
        assert code_identity.find_code().numbers == f"epoch {NUMBERS_EPOCH + 1}"
        assert not Code.of({}).same_numbers(code_identity.find_code())
    finally:
        code_identity.find_code.cache_clear()
