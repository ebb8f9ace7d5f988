"""The canonical form of a cell and the ids that follow from it: what makes two configurations one."""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from hkrun.config.cell import Cell, get_value
from hkrun.config.keys import keys
from hkrun.digests import short_digest
from hkrun.methods import TERM_KEYS
from hkrun.networks import FROM_TORCHVISION, pretrained_file


@functools.lru_cache(maxsize=64)
def _sha256(path: str, _size: int, _modified_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_sha256(path: str) -> str:
    """SHA-256 of a file's bytes in hex; remembered while size and time of change stay the same."""
    status = Path(path).stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


def active_keys(cell: Cell) -> list[str]:
    """The keys that can change a cell's result, in the order of the docs, those of the user's own last."""
    of_terms = cell.term_keys
    found = [
        key
        for key, (_, _, info) in keys().items()
        if (key in of_terms or (key not in TERM_KEYS and info.active(cell)))
        and (info.earlier is None or get_value(cell, key) != info.earlier)
    ]
    return [*found, *(key for key, _ in cell.own_values if key in of_terms)]


def canonical(cell: Cell, *, world_size: int = 1) -> dict[str, object]:
    """The canonical form of a cell: every key that can change its result, with its value.

    Left out are the keys that cannot: those of the teacher where no term uses one, those of a term of
    weight 0. A file of weights stands as its SHA-256, and a part of the user's own has its source's beside
    its name. Without synchronised BatchNorm the number of workers enters.
    """
    form: dict[str, object] = {key: get_value(cell, key) for key in active_keys(cell)}
    form |= {key: _identify_file(cell, key) for key in cell.weight_files}
    if "attention.width" in form:
        form["attention.width"] = _resolved_width(cell)
    if "teacher_table" in form and not cell.table_parts:
        form["teacher_table"] = "off"  # whatever it says: there is nothing for a table to hold
    if cell.dataset_sha256:
        form["dataset_sha256"] = cell.dataset_sha256
    form |= {f"{key}.source": sha256 for key, sha256 in cell.sources if key in form}
    if not cell.sync_batchnorm:
        form["world_size"] = world_size
    return form


def _identify_file(cell: Cell, key: str) -> str:
    """What a file of weights holds: its SHA-256, or the name of torchvision's file, with the start of it."""
    section, file = key.partition(".")[0], str(get_value(cell, key))
    if recorded := str(getattr(cell, f"{section}_file_sha256")):
        return recorded
    if file == FROM_TORCHVISION:
        return pretrained_file(str(get_value(cell, f"{section}.network")))
    return file_sha256(file)


def _resolved_width(cell: Cell) -> str:
    """Widths that agree need no projection on either side: all three values are one configuration then.

    So are those of networks with unequally many stages, which compare no vectors.
    """
    if cell.teacher_widths == cell.student_widths or len(cell.teacher_widths) != len(cell.student_widths):
        return "native"
    return "student" if cell.attention.width == "auto" else cell.attention.width


def canonical_json(cell: Cell, *, world_size: int = 1) -> str:
    """The canonical form as JSON: sorted keys, no spaces, floats in their shortest form."""
    return _dump(canonical(cell, world_size=world_size))


def cell_id(cell: Cell, *, world_size: int = 1) -> str:
    """The first 12 hex digits of the SHA-256 of the canonical JSON."""
    return short_digest(canonical_json(cell, world_size=world_size))


def teacher_canonical(cell: Cell) -> dict[str, object]:
    """What decides the teacher's weights: its own keys, its sub-network, the data and their augmentation.

    Raises:
        ValueError: The cell uses no teacher, or several; see `Cell.with_teacher_of`.
    """
    if not cell.uses_teacher:
        raise ValueError("this cell uses no teacher")
    if cell.has_teachers:
        raise ValueError("this cell uses several teachers; each is that of a seed")
    kept = ("teacher.", "attention.", "augment.")
    form = {
        key: value
        for key, value in canonical(cell).items()
        if key.startswith(kept) or key in ("dataset", "dataset.source", "dataset_sha256", "precision")
    }
    width = form.pop("attention.width")
    # Only a projection inside the teacher's estimator changes the teacher: then its target widths do.
    form["squeeze_widths"] = list(cell.squeeze_widths) if width == "student" else "native"
    return form


def teacher_id(cell: Cell) -> str:
    """The first 12 hex digits of the SHA-256 of `teacher_canonical` as JSON."""
    return short_digest(_dump(teacher_canonical(cell)))


def teachers_id(cell: Cell) -> str:
    """What tells all teachers of a cell from those of others.

    That is the teacher's id where there is one; where there are several, 12 hex digits of all but the
    seed, the first seed, and how many students each has.
    """
    if not cell.has_teachers:
        return teacher_id(cell)
    form = teacher_canonical(cell.with_teacher_of(0))
    del form["teacher.seed"]
    return f"{short_digest(_dump(form))}-{cell.teacher.seed}-{cell.teacher.students}"


def _dump(form: Mapping[str, object]) -> str:
    return json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
