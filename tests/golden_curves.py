"""The golden curves of the numbers epoch: whole runs of every method on a few digits, in float64.

`make numbers` runs this. Where the curves are as before, the code as it is counts as of the epoch. Where they
are not, it names them and changes nothing; if that was meant, `make numbers OPTIONS=--new-epoch` begins the
next epoch: from then on no run of before is used unasked.
"""

import json
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from task_example import make_task

import hkrun
from hkrun import code_identity
from hkrun.code_identity import hash_source
from hkrun.config import Value, cell_from_values, cell_id, teacher_id
from hkrun.methods import METHODS, SHIPPED
from hkrun.store import Store, open_store
from hkrun.terms import FORMS
from hkrun.training import SingleProcess
from hkrun.trial.run import run_task

GOLDEN = Path(__file__).parent / "golden" / "curves.json"
# In float64, processors and versions of torch differ by rounding, which these few steps do not let grow.
TOLERANCE = 1e-6
SMALL: Mapping[str, Value] = {
    "dataset": "digits",
    "precision": "float64",
    "teacher.network": "preact-8-w4",
    "teacher.epochs": 2,
    "teacher.batch_size": 60,
    "student.network": "preact-8-w4",
    "student.epochs": 2,
    "student.batch_size": 60,
    "student.learning_rate": 0.01,
    "augment.padding": 1,
}
CELLS: Mapping[str, Mapping[str, Value]] = {
    **{name: {"method": name} for name in (*METHODS, *SHIPPED)},
    **{f"form {name}": {"knowledge.form": name} for name in FORMS if name not in METHODS},
    "crd": {"method": "crd", "crd.negatives": 64},
    "live teacher": {"teacher_table": "off"},
    "network resnet20": {"method": "supervised", "student.network": "resnet20"},
    "network wrn-10-1": {"method": "supervised", "student.network": "wrn-10-1"},
}
Curves = dict[str, list[float | None]]


def compute_curves() -> dict[str, Curves]:
    """The curves of every cell and of their teachers, by name and column."""
    found: dict[str, Curves] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "store")
        for name, values in CELLS.items():
            cell = cell_from_values({**SMALL, **values})
            if cell.uses_teacher and store.teacher(teacher_id(cell)) is None:
                _train(store, cell)
                found[f"teacher of {name}"] = _read(store, f"teachers/{teacher_id(cell)}")
            _train(store, cell, 0)
            found[name] = _read(store, store.run_folder(cell_id(cell), 0))
    return found


def _train(store: Store, cell: object, *seeds: int) -> None:
    for outcome in run_task(make_task(store, cell, *seeds), SingleProcess()):
        assert outcome["status"] == "finished", outcome["message"]


def _read(store: Store, folder: str) -> Curves:
    from hkrun.store.columns import from_parquet

    table = from_parquet(store.read(folder, "curves.parquet"))
    return {name: table[name].to_pylist() for name in table.column_names if name != "seconds"}


def read_golden() -> tuple[int, dict[str, Curves]]:
    """The epoch of the golden curves, and the curves."""
    document = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return document["epoch"], document["curves"]


def find_differences(found: Mapping[str, Curves], golden: Mapping[str, Curves]) -> Iterator[str]:
    """What is other than the golden curves, a line each; cells that have none yet differ from nothing."""
    for name in golden.keys() & found.keys():
        for column in sorted(golden[name].keys() ^ found[name].keys()):
            yield f"{name}: {column} is there {'now' if column in found[name] else 'no longer'}"
        for column, expected in golden[name].items():
            if column in found[name] and not _agree(found[name][column], expected):
                yield f"{name}: {column} is {found[name][column]}, and was {expected}"


def _agree(found: list[float | None], expected: list[float | None]) -> bool:
    return len(found) == len(expected) and all(
        one == other or (None not in (one, other) and math.isclose(one, other, rel_tol=TOLERANCE))  # type: ignore[arg-type]
        for one, other in zip(found, expected, strict=True)
    )


def refresh(arguments: list[str]) -> int:
    """Refreshes the source of the epoch, or begins a new one."""
    new_epoch = arguments == ["--new-epoch"]
    found = compute_curves()
    golden = read_golden()[1] if GOLDEN.exists() else {}
    differences = sorted(find_differences(found, golden))
    if differences and not new_epoch:
        print(*differences, sep="\n")
        print(
            f"These are not the numbers of epoch {code_identity.NUMBERS_EPOCH}. If that is meant: "
            "make numbers OPTIONS=--new-epoch, and a line in CHANGELOG.md"
        )
        return 1
    epoch = code_identity.NUMBERS_EPOCH + new_epoch
    if new_epoch:
        golden = {}
    # What was there stays as it was: other processors would only change the last digits.
    kept = {name: golden.get(name, curves) for name, curves in found.items()}
    GOLDEN.write_text(json.dumps({"epoch": epoch, "curves": kept}, indent=1) + "\n", encoding="utf-8")
    package = Path(hkrun.__file__).parent
    file = package / "code_identity.py"
    text = file.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^NUMBERS_EPOCH = .*$", f"NUMBERS_EPOCH = {epoch}", text)
    text = re.sub(r"(?m)^EPOCH_SOURCE = .*$", f'EPOCH_SOURCE = "{hash_source(package)}"', text)
    file.write_text(text, encoding="utf-8")
    print(f"epoch {epoch}, source {hash_source(package)}")
    return 0


if __name__ == "__main__":
    sys.exit(refresh(sys.argv[1:]))
