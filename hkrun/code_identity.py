"""Which code computes the numbers: what its source is, and of which epoch its results are.

Results of two versions of hkrun are interchangeable where both are of one numbers epoch. `make numbers`
computes the golden curves (tests/golden_curves.py). Where they are as before, it writes the source's hash
below, and the code as it is counts as of the epoch; where they are not, the epoch must grow. Code of another
hash, such as a clone with another loss, is of no epoch: its results are those of the very same source alone.
"""

import ast
import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

NUMBERS_EPOCH = 1
EPOCH_SOURCE = "a2af1b585547"

# What a run's numbers follow from, below hkrun/: all that `hkrun.trial.run` imports, but for what can change
# no number. tests/test_code_identity.py compares this with the imports, so that no module is forgotten.
NUMBER_PARTS = (
    "checkpoints.py",
    "config",
    "data",
    "datasets.py",
    "distill",
    "knowledge",
    "losses",
    "methods.py",
    "models",
    "modern",
    "networks.py",
    "objective.py",
    "seeding.py",
    "teacher.py",
    "terms.py",
    "training",
    "trial",
    "user_parts.py",
)

_NUMBERS, _SOURCE = "numbers", "source"  # in the versions of a record
_UNRECORDED = "epoch 1"  # what records of versions before these fields count as, see CHANGELOG.md


@dataclass(frozen=True, kw_only=True)
class Code:
    """The code that trained something.

    Attributes:
        numbers: Of which epoch its results are, such as "epoch 1"; of code that is of none, its source.
        source: First 12 hex digits of the SHA-256 of its source; empty in records that do not tell it.
    """

    numbers: str
    source: str = ""

    @classmethod
    def of(cls, versions: Mapping[str, str]) -> "Code":
        """What the versions of a record say."""
        return cls(numbers=versions.get(_NUMBERS, _UNRECORDED), source=versions.get(_SOURCE, ""))

    def same_numbers(self, other: "Code") -> bool:
        """Whether both give the same results."""
        return self.numbers == other.numbers or ("" != self.source == other.source)

    def entries(self) -> dict[str, str]:
        """What the versions of a record are to say."""
        return {_NUMBERS: self.numbers, _SOURCE: self.source}

    @property
    def identity(self) -> dict[str, str]:
        """What it adds to the identity of things that it computes; nothing while they are as at first."""
        return {} if self.numbers == _UNRECORDED else {_NUMBERS: self.numbers}


@functools.cache
def find_code() -> Code:
    """The code of this process, as its files were when it first asked."""
    source = find_source(Path(__file__).parent)
    known = source == EPOCH_SOURCE
    return Code(numbers=f"epoch {NUMBERS_EPOCH}" if known else f"source {source}", source=source)


def hash_source(package: Path) -> str:
    """First 12 hex digits of the SHA-256 of what can change numbers in a package, without comments."""
    return _hash_code(_read(package))


def find_source(package: Path) -> str:
    """`hash_source`, as the user's cache has it where it was the same files, byte for byte, that it hashed.

    To tell comments from code takes longer than all else that a command such as `hkrun ls` does first.
    """
    contents = _read(package)
    digest = hashlib.sha256(Path(__file__).read_bytes())  # how it hashes
    for label, content in contents.items():
        digest.update(f"{label}\0{len(content)}\0".encode() + content)
    files = digest.hexdigest()
    kept = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "hkrun" / "source.txt"  # noqa: PTH111
    if not kept.is_absolute():  # there is no home
        return _hash_code(contents)
    with contextlib.suppress(OSError, ValueError):
        known, source = kept.read_text(encoding="ascii").split()
        if known == files and re.fullmatch("[0-9a-f]{12}", source):
            return source
    source = _hash_code(contents)
    with contextlib.suppress(OSError):  # closed to us, or full: the next command asks again
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
        unfinished.write_text(f"{files} {source}\n", encoding="ascii")
        unfinished.replace(kept)
    return source


def _read(package: Path) -> dict[str, bytes]:
    """The files that can change numbers, by their path within the package."""
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in number_files(package)}


def _hash_code(contents: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for label, content in contents.items():
        code = "\n".join(_code_lines(content.decode()))
        digest.update(f"{label}\0{code}\0".encode())
    return digest.hexdigest()[:12]


def number_files(package: Path) -> list[Path]:
    """The files of a package that can change numbers, sorted."""
    places = [package / part for part in NUMBER_PARTS]
    return sorted(
        file
        for place in places
        for file in ([place] if place.suffix == ".py" else place.rglob("*.py"))
        if file.exists()
    )


def _code_lines(text: str) -> Iterator[str]:
    """The lines of a module but for docstrings, and those that are empty or a comment alone."""
    told: set[int] = set()
    for docstring in _find_docstrings(ast.parse(text)):
        told.update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    for number, line in enumerate(text.splitlines(), start=1):
        if number not in told and line.strip() and not line.lstrip().startswith("#"):
            yield line.rstrip()


def _find_docstrings(node: ast.AST) -> Iterator[ast.Expr]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        match node.body:
            case [ast.Expr(value=ast.Constant(value=str())) as docstring, *_]:
                yield docstring
        for inner in node.body:
            yield from _find_docstrings(inner)
