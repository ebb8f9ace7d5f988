"""Which code computes the numbers: what its source is, and of which epoch its results are.

Results of two versions of hkrun are interchangeable where both are of one numbers epoch. `make numbers`
computes the golden curves (tests/golden_curves.py). Where they are as before, it writes the source's hash
below, and the code as it is counts as of the epoch; where they are not, the epoch must grow. Code of another
hash, such as a clone with another loss, is of no epoch: its results are those of the very same source alone.
"""

import ast
import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

NUMBERS_EPOCH = 1
EPOCH_SOURCE = "0be3b945f80a"

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
    source = hash_source(Path(__file__).parent)
    known = source == EPOCH_SOURCE
    return Code(numbers=f"epoch {NUMBERS_EPOCH}" if known else f"source {source}", source=source)


def hash_source(package: Path) -> str:
    """First 12 hex digits of the SHA-256 of what can change numbers in a package, without comments."""
    digest = hashlib.sha256()
    for path in number_files(package):
        label = path.relative_to(package).as_posix()
        code = "\n".join(_code_lines(path.read_text(encoding="utf-8")))
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
