"""Checks of what users write for the keys; everything wrong is reported at once."""

import dataclasses
import difflib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from hkrun.config.cell import Cell, get_value
from hkrun.config.identity import file_sha256
from hkrun.config.keys import Keys, cell_from_values, describe_range, describe_type, find_keys, keys, keys_of
from hkrun.config.sections import KeyInfo, Value
from hkrun.datasets import find_dataset
from hkrun.errors import InputError
from hkrun.methods import DECLARING, SHORT_NAMES, Method
from hkrun.networks import FROM_TORCHVISION, PRETRAINED_FILES, parse_network, pretrained_file
from hkrun.terms import Term
from hkrun.user_parts import check_dataset, identify_source, is_own, read_shape

# The keys that can name a part of the user's own.
_NAMING = ("dataset", "teacher.network", "student.network", *DECLARING)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value that a user wrote for a key, and where: `file:line` or the argument."""

    key: str
    value: object
    where: str


def nearest(word: str, allowed: Iterable[str]) -> str:
    """'; did you mean ...?' with the nearest of the allowed words, or nothing where none is near."""
    spelled = {name.lower(): name for name in allowed}
    match = difflib.get_close_matches(word.lower(), list(spelled), n=1, cutoff=0.6)
    return f"; did you mean {spelled[match[0]]!r}?" if match else ""


def _coerce(kind: type, value: object) -> Value | None:
    """The value as the key's type, or None where it is of another."""
    if get_origin(kind) is tuple:
        (item, _) = get_args(kind)
        if not isinstance(value, list | tuple):
            return None
        items = [_coerce(item, element) for element in value]
        return None if any(element is None for element in items) else tuple(items)  # type: ignore[arg-type]
    if kind is float and type(value) in (int, float):
        try:
            return float(value) + 0.0  # type: ignore[arg-type]  # -0.0 becomes 0.0: one configuration, one id
        except OverflowError:
            return math.inf
    return value if type(value) is kind else None  # type: ignore[return-value]


def check_setting(
    setting: Setting, known: Keys | None = None, *, look_at_own: bool = True
) -> tuple[Value | None, list[str]]:
    """Checks one setting against its key.

    Args:
        setting: The setting.
        known: The keys that there are; those of every cell without it.
        look_at_own: Whether a part of the user's own must be here and sound.

    Returns:
        The value in the key's type (None where it is wrong), and the problems found, each one line.
    """
    known = keys() if known is None else known
    if setting.key not in known:
        return None, [f"{setting.where}: {setting.key}: unknown key{_hint_for_key(setting.key, known)}"]
    kind, _, info = known[setting.key]
    value = _coerce(kind, setting.value)
    if value is None:
        return None, [
            f"{setting.where}: {setting.key}: {_show(setting.value)} is not of type {describe_type(kind)}"
        ]
    problems = []
    own = is_own(str(value)) and (info.own or info.check is not None)
    if info.own and own:
        problems += _check_own(setting.key, str(value)) if look_at_own else []
    elif info.choices and value not in info.choices:
        problems.append(
            f"{value!r} is not allowed; {describe_range(info)}{nearest(str(value), info.choices)}"
        )
    if info.check is not None and (look_at_own or not own):
        try:
            info.check(str(value))
        except InputError as error:
            problems.append(error.message)
    numbers = value if isinstance(value, tuple) else (value,) if kind in (int, float) else ()
    if any(not _in_range(float(number), info) for number in numbers):
        problems.append(f"{setting.value} is out of range; {describe_range(info)}")
    elif info.increasing and isinstance(value, tuple) and any(b <= a for a, b in itertools.pairwise(value)):
        problems.append(f"{setting.value} must be strictly increasing")
    return value, [f"{setting.where}: {setting.key}: {problem}" for problem in problems]


def _check_own(key: str, name: str) -> list[str]:
    """Whether a part of the user's own is here, and its keys are sound."""
    try:
        if key in DECLARING:
            return check_declared(name, DECLARING[key](name))
        check_dataset(name)
    except InputError as error:
        return [error.message]
    return []


def check_declared(name: str, part: Method | Term) -> list[str]:
    """What is wrong with the keys that a method or term declares."""
    sections = {known.partition(".")[0] for known in keys()}
    taken = [own.name for own in part.own_keys if own.name.partition(".")[0] in sections]
    known = {**keys(), **keys_of(part)}
    unknown = set(part.key_names) - known.keys()
    return [
        *(
            f"{name}: the key {key!r} is in a section of hkrun's own, one of {', '.join(sorted(sections))}"
            for key in taken
        ),
        *(
            f"{name}: reads the key {key!r}, which is neither hkrun's nor in its keys={nearest(key, known)}"
            for key in sorted(unknown)
        ),
        *([] if isinstance(part, Term) or unknown else _check_weights(name, part)),
        *_check_idle(name, part),
    ]


def _check_idle(name: str, part: Method | Term) -> Iterator[str]:
    """What is wrong with the keys by which terms say when others are idle."""
    known = {**keys(), **keys_of(part)}
    for term in [part] if isinstance(part, Term) else part.own_terms:
        for key, unless in term.idle.items():
            if key not in term.key_names:
                yield f"{name}: idle: {key!r} is none of the term's keys"
            yield from (
                f"{name}: idle: there is no key {other!r}{nearest(other, known)}"
                for other in unless
                if other not in known
            )


def _check_weights(name: str, method: Method) -> list[str]:
    """What is wrong with the keys by which a method weighs its terms: a negative weight would drop a term."""
    known, problems = {**keys(), **keys_of(method)}, []
    for term in (term for stage in method.stages for term in stage.terms):
        for key in (key for key in (term.weight, term.warmup) if isinstance(key, str) and key):
            kind, _, info = known[key]
            lowest = max(bound for bound in (info.minimum, info.above, -math.inf) if bound is not None)
            if kind not in (int, float) or lowest < 0:
                problems.append(f"{name}: term {term.name!r}: {key} must be a number key with minimum=0")
            elif term.complement and key == term.weight and info.maximum != 1:
                problems.append(f"{name}: term {term.name!r}: {key} must have maximum=1 for its complement")
    return problems


def _show(value: object) -> str:
    """A value as TOML has it, where that differs from Python."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _hint_for_key(key: str, keys: Iterable[str]) -> str:
    section = [known for known in keys if known.startswith(f"{key}.")]
    if section:
        return f"; it is a section, its keys are {', '.join(section)}"
    same_name = [repr(known) for known in keys if known.rpartition(".")[2] == key.rpartition(".")[2]]
    if same_name:
        return f"; did you mean {' or '.join(same_name)}?"
    listed = "`hkrun keys` lists hkrun's, `hkrun keys MODULE:NAME` your own"
    return nearest(key, keys) or f"; {listed}"


def _in_range(number: float, info: KeyInfo) -> bool:
    return (
        math.isfinite(number)
        and (info.minimum is None or number >= info.minimum)
        and (info.above is None or number > info.above)
        and (info.maximum is None or number <= info.maximum)
        and (info.below is None or number < info.below)
    )


def build_cell(settings: Iterable[Setting], known: Keys | None = None) -> Cell:
    """Builds a cell from settings, later ones over earlier ones.

    Args:
        settings: The settings.
        known: The keys that there are; without it, those of every cell and of the parts that settings name.

    Raises:
        InputError: Every problem of every setting, and of the combination, one per line.
    """
    settings = list(settings)
    if known is None:
        known = find_keys((setting.key, setting.value) for setting in settings if setting.key in DECLARING)
    values = _check_all(settings, known, look_at_own=True)
    short = {key: SHORT_NAMES.get(str(values[key]), values[key]) for key in DECLARING if key in values}
    cell = cell_from_values({**values, **short})
    where = {setting.key: setting.where for setting in settings}
    problems = [f"{where.get(key, 'default')}: {key}: {problem}" for key, problem in _conflicts(cell)]
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))
    return _fix_own_files(cell)


def restore_cell(
    settings: Iterable[Setting],
    *,
    declared: Mapping[str, Method | Term] | None = None,
    own_values: Mapping[str, Value] | None = None,
) -> Cell:
    """Builds a cell from settings that were found sound before, maybe where the user's own files are not.

    Those are not looked at; what they were when the cell was first built is for the caller to add.

    Args:
        settings: Those of the keys that every cell has.
        declared: As `Cell.declared`, by key.
        own_values: As `Cell.own_values`, by key.

    Raises:
        InputError: Every setting that this version of hkrun does not know, one per line.
    """
    values = {**_check_all(settings, keys(), look_at_own=False), **(own_values or {})}
    return cell_from_values(values, declared=declared or {})


def _check_all(settings: Iterable[Setting], known: Keys, *, look_at_own: bool) -> dict[str, Value]:
    values: dict[str, Value] = {}
    problems: list[str] = []
    for setting in settings:
        value, found = check_setting(setting, known, look_at_own=look_at_own)
        problems += found
        if value is not None and not found:
            values[setting.key] = value
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))
    return values


def _fix_own_files(cell: Cell) -> Cell:
    """The cell with what the user's own files are now; relative paths of weights become absolute."""
    named = {key: str(get_value(cell, key)) for key in _NAMING}
    own = {key: name for key, name in named.items() if is_own(name)}
    shapes = {key: read_shape(name) for key, name in own.items() if key.endswith("network")}
    cell = dataclasses.replace(
        cell,
        sources=tuple((key, identify_source(name)) for key, name in own.items()),
        own_widths=tuple((key, shape.widths) for key, shape in shapes.items()),
        own_descriptors=tuple((key, shape.descriptor_width) for key, shape in shapes.items()),
    )
    changes: dict[str, Any] = {}
    for section in ("teacher", "student"):
        key = f"{section}.file"
        file = str(get_value(cell, key))
        if file not in ("", FROM_TORCHVISION):
            file = str(Path(file).absolute())
            changes[section] = dataclasses.replace(getattr(cell, section), file=file)
        if key in cell.weight_files:
            content = _identify_content(file, str(get_value(cell, f"{section}.network")))
            changes[f"{section}_file_sha256"] = content
    return dataclasses.replace(cell, **changes)


def _identify_content(file: str, network: str) -> str:
    """What a file of weights holds; of torchvision's for a library's network, the name of its file."""
    if file == FROM_TORCHVISION:
        return pretrained_file(network) if is_own(network) else ""
    return file_sha256(file)


def check_weight_file(cell: Cell, key: str) -> None:
    """Checks that a file of weights holds what it did when the cell was built.

    Args:
        cell: The configuration.
        key: "teacher.file" or "student.file".

    Raises:
        InputError: It does not, or is not there.
    """
    file = cell.weight_files[key]
    if not Path(file).is_file():
        raise InputError(f"{key}: {file}: no such file")
    recorded = cell.teacher_file_sha256 if key == "teacher.file" else cell.student_file_sha256
    if recorded not in ("", file_sha256(file)):
        raise InputError(
            f"{key}: {file}: its content is not the one of this configuration; "
            "the sweep's own command makes new runs with the new content"
        )


def _conflicts(cell: Cell) -> list[tuple[str, str]]:
    """What is wrong with the values together: (key, problem)."""
    found = []
    for stage, weights in zip(cell.declared_method.stages, cell.stage_weights, strict=True):
        if not weights:
            key = next((term.weight for term in stage.terms if isinstance(term.weight, str)), "method")
            found.append((key, "every loss term has weight 0; at least one must be above 0"))
    found += _find_untrained_classifier(cell)
    if cell.student.warmup_epochs >= cell.student.epochs > 1:
        found.append(("student.warmup_epochs", f"must be below student.epochs = {cell.student.epochs}"))
    if cell.uses_teacher and cell.teacher.warmup_epochs >= cell.teacher.epochs > 1:
        found.append(("teacher.warmup_epochs", f"must be below teacher.epochs = {cell.teacher.epochs}"))
    if cell.uses_teacher and cell.teacher.students > 1 and not cell.has_teachers:
        several = f"{cell.teacher.students} students of each teacher need teacher.seeds = paired"
        found.append(("teacher.students", several))
    if cell.has_teachers and cell.teacher.file:
        found.append(
            ("teacher.seeds", "paired needs teachers trained here: teacher.file gives all one backbone")
        )
    for key in cell.weight_files:
        found += _check_weight_file(cell, key)
    if find_dataset(cell.dataset).streamed and any(term.index for term in cell.terms):
        found.append(
            ("dataset", f"the images of {cell.dataset} are streamed, and a term reads their numbers")
        )
    if any(term.by_stage for term in cell.terms):
        found += _compare_stages(cell)
    return found


def _find_untrained_classifier(cell: Cell) -> list[tuple[str, str]]:
    """A discriminator of the features before the classifier trains all but that; so do some own terms."""
    judges_logits = cell.adversary is not None and cell.adversary.tap == "logits"
    if judges_logits or not cell.terms or any("logits" in term.student for term in cell.terms):
        return []
    key = next((key for key, part in cell.declared if part == cell.declared_method or part in cell.terms), "")
    if key:
        return [(key, "no term reads the student's logits, so nothing trains its classifier")]
    if cell.adversary is None:  # squeezed knowledge alone, which is asked for to look at it
        return []
    stages = cell.declared_method.stages
    terms = [term for stage in stages for term in stage.terms if "logits" in cell.declaration(term).student]
    problem = f"must be above 0: without it nothing in {cell.method} trains the classifier"
    return [(str(term.weight), problem) for term in terms]


def _check_weight_file(cell: Cell, key: str) -> list[tuple[str, str]]:
    """The file must be there, or torchvision must have weights of the network."""
    file, network = cell.weight_files[key], str(get_value(cell, key.replace(".file", ".network")))
    if file == FROM_TORCHVISION and not pretrained_file(network):
        known = ", ".join(PRETRAINED_FILES)
        return [
            (key, f"torchvision has no weights of {network}; it has of {known} and most torchvision:NAME")
        ]
    if file != FROM_TORCHVISION and not Path(file).is_file():
        return [(key, f"{file}: no such file")]
    return []


def _compare_stages(cell: Cell) -> list[tuple[str, str]]:
    """Intermediate knowledge is compared stage by stage: both networks must have as many."""
    teacher, student = (
        len(parse_network(network).widths) for network in (cell.teacher.network, cell.student.network)
    )
    if teacher == student:
        return []
    problem = (
        f"{cell.student.network} has {student} stages and the teacher {cell.teacher.network} has {teacher}: "
        "intermediate knowledge is compared stage by stage; allowed are networks with equally many"
    )
    return [("student.network", problem)]
