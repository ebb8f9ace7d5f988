"""Cells: the keys of a configuration, their checks, the canonical form and `cell_id`.

A cell is assembled from layers (recipe of its data set, `[base]` of the search space, the cell, overrides); see
`hkrun.spaces` for the files. Everything wrong in all layers is reported at once.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from hkrun.errors import InputError
from hkrun.methods import METHODS
from hkrun.networks import parse_network

Value = bool | int | float | str | tuple[float, ...]

PAPER = "the paper"
METHOD = "silent in the paper; hkrun's choice"


@dataclass(frozen=True, kw_only=True)
class KeyInfo:
    """What is known of one key: the source of `hkrun keys` and of every check.

    Attributes:
        doc: One sentence.
        source: Where the default comes from.
        choices: The allowed values, or none for any of the type.
        minimum: Smallest allowed number; for a tuple, of each of its numbers.
        above: Numbers must be greater than this one.
        maximum: Largest allowed number.
        below: Numbers must be smaller than this one.
        increasing: A tuple must be strictly increasing.
        check: Further check of a value; raises InputError.
        active: Whether the key can change the result of a cell; inactive keys are left out of the canonical form.
    """

    doc: str
    source: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    increasing: bool = False
    check: Callable[[str], object] | None = None
    active: Callable[["Cell"], bool] = lambda cell: True


def _key(default: Value, doc: str, source: str, **limits: Any) -> Any:
    return field(default=default, metadata={"key": KeyInfo(doc=doc, source=source, **limits)})


def _uses_teacher(cell: "Cell") -> bool:
    return cell.uses_teacher


def _trains_teacher_backbone(cell: "Cell") -> bool:
    return cell.uses_teacher and not cell.teacher.file



def _adversarial(cell: "Cell") -> bool:
    return cell.weight("adversarial") > 0


def _regularized(cell: "Cell") -> bool:
    return _adversarial(cell) and cell.loss.regularizer and cell.loss.mu > 0


def _knowledge(cell: "Cell") -> bool:
    return cell.weight("knowledge") > 0


def _mean_squares(cell: "Cell") -> bool:
    return cell.weight("backbone") > 0 or (_knowledge(cell) and cell.loss.distance != "cross_entropy")


def _term(name: str) -> Callable[["Cell"], bool]:
    return lambda cell: any(term.name == name for term in METHODS[cell.method].terms)


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Stage 1. Momentum 0.9, weight decay 1e-4 and drops to a tenth are the paper's and have no keys."""

    network: str = _key("preact-164", "Network of the teacher.", PAPER, check=parse_network, active=_uses_teacher)
    seed: int = _key(0, "Seed of the teacher; unrelated to the runs' seeds.", METHOD, minimum=0, active=_uses_teacher)
    file: str = _key(
        "",
        "Backbone weights to use instead of training them (a state_dict); the attention sub-network is then trained on the frozen backbone.",
        METHOD,
        active=_uses_teacher,
    )
    backbone: str = _key(
        "joint",
        "joint: backbone and attention sub-network train together; shared: the backbone trains alone, then every connection's sub-network on it, frozen.",
        "joint in the paper",
        choices=("joint", "shared"),
        active=_trains_teacher_backbone,
    )
    epochs: int = _key(600, "Epochs of stage 1.", PAPER, minimum=1, active=_uses_teacher)
    batch_size: int = _key(64, "Images per batch.", PAPER, minimum=2, active=_uses_teacher)
    learning_rate: float = _key(0.1, "First learning rate.", PAPER, above=0, active=_uses_teacher)
    drops: tuple[float, ...] = _key(
        (0.4, 0.8), "Fractions of the epochs at which the learning rate drops to a tenth.", PAPER, above=0, below=1, increasing=True, active=_uses_teacher
    )
    warmup_epochs: int = _key(
        0, "Epochs over which the learning rate rises linearly from a small one; very deep teachers on few steps need 5.", PAPER, minimum=0, active=_uses_teacher
    )


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """The student and its optimisation in stage 2."""

    network: str = _key("preact-20", "Network of the student.", PAPER, check=parse_network)
    epochs: int = _key(600, "Epochs of stage 2.", PAPER, minimum=1)
    batch_size: int = _key(64, "Images per batch, over all workers.", PAPER, minimum=2)
    learning_rate: float = _key(0.1, "First learning rate.", PAPER, above=0)
    momentum: float = _key(0.9, "Momentum of SGD, of the discriminator's too.", PAPER, minimum=0, below=1)
    weight_decay: float = _key(1e-4, "Weight decay on all parameters, of the discriminator's too.", PAPER, minimum=0)
    drops: tuple[float, ...] = _key(
        (0.4, 0.8), "Fractions of the epochs at which both learning rates drop.", PAPER, above=0, below=1, increasing=True
    )
    drop_factor: float = _key(0.1, "What a drop multiplies the learning rates with.", PAPER, above=0, maximum=1)
    warmup_epochs: int = _key(0, "Epochs over which the learning rates rise linearly from a small one.", PAPER, minimum=0)
    steps: int = _key(1, "Student steps per batch.", PAPER, minimum=1)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """The discriminator's optimisation; its momentum, weight decay and schedule are the student's."""

    learning_rate: float = _key(1e-3, "First learning rate.", PAPER, above=0, active=_adversarial)
    steps: int = _key(1, "Discriminator steps per batch.", PAPER, minimum=1, active=_adversarial)


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """The task-driven attention sub-network of teacher and student, eqs. (1) and (2)."""

    connection: str = _key(
        "hierarchical",
        "What guides block i: hierarchical: the global descriptor and the squeezed vectors of all later blocks; original: the global descriptor alone (Jetley et al. 2018).",
        PAPER,
        choices=("hierarchical", "original"),
        active=_uses_teacher,
    )
    pool: str = _key(
        "sum",
        "How the attended positions are pooled: sum is the attention-weighted mean; avg divides by their number once more, which makes L_is vanish.",
        "avg is the paper's literal reading",
        choices=("sum", "avg"),
        active=_uses_teacher,
    )
    tap: str = _key(
        "bn_relu",
        "Where L_i is read: bn_relu: the stage's output after a BatchNorm of its own and ReLU; raw: the residual sum itself.",
        METHOD,
        choices=("bn_relu", "raw"),
        active=_uses_teacher,
    )
    width: str = _key(
        "auto",
        "Length of the squeezed vectors: auto: native where teacher and student agree, else student; student: the teacher's estimator projects to the student's widths; project: a linear map on the student's side, dropped afterwards.",
        METHOD,
        choices=("auto", "student", "project"),
        active=_uses_teacher,
    )


@dataclass(frozen=True, kw_only=True)
class KnowledgeConfig:
    """What the intermediate loss L_is transfers."""

    form: str = _key("squeezed", "Form of the transferred knowledge.", PAPER, choices=("squeezed",), active=_knowledge)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The weights and readings of the loss terms, eqs. (3) to (9)."""

    lambda_1: float = _key(1.0, "Weight of the backbone loss L_b.", PAPER, minimum=0, active=_term("backbone"))
    lambda_2: float = _key(1.0, "Weight of the adversarial loss L_adv.", PAPER, minimum=0, active=_term("adversarial"))
    lambda_3: float = _key(1.0, "Weight of the intermediate loss L_is.", PAPER, minimum=0, active=_term("knowledge"))
    mu: float = _key(
        1.0, "Weight of the discriminator's regulariser L_reg.", PAPER, minimum=0, active=lambda cell: _adversarial(cell) and cell.loss.regularizer
    )
    reduction: str = _key(
        "mean",
        "Reduction of the squared differences in L_b and L_is over their elements; the batch is always averaged.",
        "sum is the paper's literal reading; it diverges at learning rate 0.1",
        choices=("mean", "sum"),
        active=_mean_squares,
    )
    distance: str = _key("l2", "Distance of the squeezed vectors in L_is.", PAPER, choices=("l2", "l1", "cross_entropy"), active=_knowledge)
    gan: str = _key(
        "non_saturating",
        "The student's adversarial term: non_saturating: -log D; saturating: log(1 - D).",
        "saturating is the paper's literal reading",
        choices=("non_saturating", "saturating"),
        active=_adversarial,
    )
    category: bool = _key(True, "Whether the discriminator classifies too, L_adv^C of eq. (7).", PAPER, active=_adversarial)
    regularizer: bool = _key(True, "Whether the discriminator is regularised, L_reg of eq. (6).", PAPER, active=_adversarial)
    reg_reduction: str = _key(
        "mean",
        "Reduction of the weight norms in L_reg over the discriminator's parameters.",
        "sum is the paper's literal reading; at mu = 1 it drives the discriminator to a constant",
        choices=("mean", "sum"),
        active=_regularized,
    )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation: zero padding, a random crop of the original size, a horizontal flip."""

    padding: int = _key(4, "Width of the zero padding around the image before the crop.", PAPER, minimum=0, maximum=16)
    flip: bool = _key(True, "Whether half of the images are mirrored.", PAPER)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One configuration without the seed.

    `dataset_sha256` is no key of the user's: it fixes the content of a data set that has no published checksum
    (`folder`), and is empty for the others.
    """

    dataset: str = _key("digits", "Data set.", METHOD, choices=("digits", "mnist5k", "cifar10", "cifar100", "folder"))
    method: str = _key("hksanc", "Training method of the student.", PAPER, choices=tuple(METHODS))
    precision: str = _key(
        "float32", "Arithmetic: bfloat16 computes the forward pass in bfloat16 and keeps weights in float32.", METHOD, choices=("float32", "bfloat16", "float64")
    )
    teacher_table: str = _key("off", "off: the teacher runs live on every batch.", METHOD, choices=("off",), active=_uses_teacher)
    sync_batchnorm: bool = _key(
        True, "Whether BatchNorm takes its statistics over all workers; if not, the number of workers is part of the cell.", METHOD
    )
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    attention: AttentionConfig = AttentionConfig()
    knowledge: KnowledgeConfig = KnowledgeConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    dataset_sha256: str = ""

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each loss term that is computed, by the term's name: those above zero."""
        weights = {term.name: self._weight(term.weight) for term in METHODS[self.method].terms}
        return {name: weight for name, weight in weights.items() if weight > 0}

    def weight(self, term: str) -> float:
        """The weight of one loss term; 0.0 where the method does not have it."""
        return self.weights.get(term, 0.0)

    @property
    def uses_teacher(self) -> bool:
        """Whether any computed term compares the student with the teacher."""
        return any(term.uses_teacher and self._weight(term.weight) > 0 for term in METHODS[self.method].terms)

    def _weight(self, weight: str | float) -> float:
        return float(get_value(self, weight)) if isinstance(weight, str) else weight  # type: ignore[arg-type]

    @property
    def squeeze_widths(self) -> tuple[int, ...]:
        """Length of the squeezed vector of each block, as teacher and student compare them."""
        teacher, student = parse_network(self.teacher.network).widths, parse_network(self.student.network).widths
        return teacher if self.attention.width == "project" else student


# --- the keys ---------------------------------------------------------------------------------------------------


@functools.cache
def keys() -> dict[str, tuple[type, Value, KeyInfo]]:
    """All keys of a cell: dotted name -> (type, default, what is known of it), in the order of the docs."""
    found: dict[str, tuple[type, Value, KeyInfo]] = {}

    def collect(owner: type, prefix: str) -> None:
        hints = get_type_hints(owner)
        for spec in dataclasses.fields(owner):
            if dataclasses.is_dataclass(hints[spec.name]):
                collect(hints[spec.name], f"{prefix}{spec.name}.")
            elif "key" in spec.metadata:
                found[prefix + spec.name] = (hints[spec.name], spec.default, spec.metadata["key"])

    collect(Cell, "")
    return found


def get_value(cell: Cell, key: str) -> Value:
    """The value of a dotted key."""
    return functools.reduce(getattr, key.split("."), cell)  # type: ignore[return-value]


def describe_type(kind: type) -> str:
    """A type in words for messages and `hkrun keys`."""
    if get_origin(kind) is tuple:
        return "list of numbers"
    return {bool: "true or false", int: "integer", float: "number", str: "string"}[kind]


def describe_range(info: KeyInfo) -> str:
    """The allowed values in words; empty where any value of the type will do."""
    if info.choices:
        return "one of " + ", ".join(info.choices)
    if info.check is parse_network:
        return "a network such as preact-20, preact-8-w8, preact-bottleneck-164, wrn-16-2"
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in (("at least", info.minimum), ("above", info.above), ("at most", info.maximum), ("below", info.below))
        if bound is not None
    ]
    return " and ".join(bounds) + (", increasing" if info.increasing else "")


# --- checking -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value that somebody wrote for a key, and where: `file:line` or the argument."""

    key: str
    value: object
    where: str


def nearest(word: str, allowed: Iterable[str]) -> str:
    """'; did you mean ...?' with the nearest of the allowed words, or nothing where none is near."""
    match = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {match[0]!r}?" if match else ""


def _coerce(kind: type, value: object) -> Value | None:
    """The value as the key's type, or None where it is of another."""
    if get_origin(kind) is tuple:
        (item, _) = get_args(kind)
        if not isinstance(value, list | tuple):
            return None
        items = [_coerce(item, element) for element in value]
        return None if any(element is None for element in items) else tuple(items)  # type: ignore[arg-type]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if type(value) is kind else None  # type: ignore[return-value]


def check_setting(setting: Setting) -> tuple[Value | None, list[str]]:
    """Checks one setting against its key.

    Returns:
        The value in the key's type (None where it is wrong), and the problems found, each one line.
    """
    known = keys()
    if setting.key not in known:
        hint = nearest(setting.key, known)
        section = [key for key in known if key.startswith(setting.key + ".")]
        if section:
            hint = f"; it is a section, its keys are {', '.join(section)}"
        elif not hint:
            hint = "; `hkrun keys` lists them all"
        return None, [f"{setting.where}: {setting.key}: unknown key{hint}"]
    kind, _, info = known[setting.key]
    value = _coerce(kind, setting.value)
    if value is None:
        return None, [f"{setting.where}: {setting.key}: {setting.value!r} is not of type {describe_type(kind)}"]
    problems = []
    if info.choices and value not in info.choices:
        problems.append(f"{value!r} is not allowed; {describe_range(info)}{nearest(str(value), info.choices)}")
    if info.check is not None:
        try:
            info.check(str(value))
        except InputError as error:
            problems.append(error.message)
    numbers = value if isinstance(value, tuple) else (value,) if kind in (int, float) else ()
    if any(not _in_range(float(number), info) for number in numbers):
        problems.append(f"{setting.value} is out of range; {describe_range(info)}")
    elif info.increasing and isinstance(value, tuple) and any(b <= a for a, b in zip(value, value[1:], strict=False)):
        problems.append(f"{setting.value} must be strictly increasing")
    return value, [f"{setting.where}: {setting.key}: {problem}" for problem in problems]


def _in_range(number: float, info: KeyInfo) -> bool:
    return (
        math.isfinite(number)
        and (info.minimum is None or number >= info.minimum)
        and (info.above is None or number > info.above)
        and (info.maximum is None or number <= info.maximum)
        and (info.below is None or number < info.below)
    )


def build_cell(settings: Iterable[Setting]) -> Cell:
    """Builds a cell from settings, later ones over earlier ones.

    Raises:
        InputError: Every problem of every setting, and of the combination, one per line.
    """
    values: dict[str, Value] = {}
    problems: list[str] = []
    where: dict[str, str] = {}
    for setting in settings:
        value, found = check_setting(setting)
        problems += found
        if value is not None and not found:
            values[setting.key] = value
            where[setting.key] = setting.where
    if not problems:
        cell = cell_from_values(values)
        problems = [f"{where.get(key, 'default')}: {key}: {problem}" for key, problem in _conflicts(cell)]
    if problems:
        raise InputError("\n".join(dict.fromkeys(problems)))
    return cell


def _conflicts(cell: Cell) -> list[tuple[str, str]]:
    """What is wrong with the values together: (key, problem)."""
    found = []
    if not cell.weights:
        found.append(("loss.lambda_1", "every loss term has weight 0; at least one must be above 0"))
    if cell.student.warmup_epochs >= cell.student.epochs > 1:
        found.append(("student.warmup_epochs", f"must be below student.epochs = {cell.student.epochs}"))
    if cell.uses_teacher and cell.teacher.warmup_epochs >= cell.teacher.epochs > 1:
        found.append(("teacher.warmup_epochs", f"must be below teacher.epochs = {cell.teacher.epochs}"))
    if cell.uses_teacher and cell.teacher.file and not Path(cell.teacher.file).is_file():
        found.append(("teacher.file", f"{cell.teacher.file}: no such file"))
    return found


def cell_from_values(values: Mapping[str, Value]) -> Cell:
    """Builds a cell from checked values by dotted key; every other key has its default."""
    sections: dict[str, dict[str, Value]] = {}
    top: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        if section:
            sections.setdefault(section, {})[name] = value
        else:
            top[name] = value
    hints = get_type_hints(Cell)
    return Cell(**top, **{section: hints[section](**inner) for section, inner in sections.items()})


def cell_values(cell: Cell) -> dict[str, Value]:
    """All keys of a cell with their values; the inverse of `cell_from_values`."""
    return {key: get_value(cell, key) for key in keys()}


# --- identity -----------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _sha256(path: str, size: int, modified_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_sha256(path: str) -> str:
    """SHA-256 of a file's bytes in hex; remembered while size and time of change stay the same."""
    status = Path(path).stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


def canonical(cell: Cell, *, world_size: int = 1) -> dict[str, object]:
    """The canonical form of a cell: every key that can change its result, with its value.

    Left out are the keys that cannot: those of the teacher where no term uses one, those of a term of weight 0.
    A teacher file stands as its SHA-256. Without synchronised BatchNorm the number of workers enters.
    """
    form: dict[str, object] = {key: get_value(cell, key) for key, (_, _, info) in keys().items() if info.active(cell)}
    if "teacher.file" in form:
        form["teacher.file"] = file_sha256(cell.teacher.file) if cell.teacher.file else ""
    if "attention.width" in form:
        form["attention.width"] = _resolved_width(cell)
    if cell.dataset_sha256:
        form["dataset_sha256"] = cell.dataset_sha256
    if not cell.sync_batchnorm:
        form["world_size"] = world_size
    return form


def _resolved_width(cell: Cell) -> str:
    """Widths that agree need no projection on either side: all three values are one configuration then."""
    teacher, student = parse_network(cell.teacher.network).widths, parse_network(cell.student.network).widths
    if teacher == student:
        return "native"
    return "student" if cell.attention.width == "auto" else cell.attention.width


def canonical_json(cell: Cell, *, world_size: int = 1) -> str:
    """The canonical form as JSON: sorted keys, no spaces, floats in their shortest form."""
    return _dump(canonical(cell, world_size=world_size))


def cell_id(cell: Cell, *, world_size: int = 1) -> str:
    """The first 12 hex digits of the SHA-256 of the canonical JSON."""
    return _digest(canonical_json(cell, world_size=world_size))


def teacher_canonical(cell: Cell) -> dict[str, object]:
    """What decides the teacher's weights: its own keys, its sub-network, the data and their augmentation.

    Raises:
        ValueError: The cell uses no teacher.
    """
    if not cell.uses_teacher:
        raise ValueError("this cell uses no teacher")
    kept = ("teacher.", "attention.", "augment.")
    form = {
        key: value
        for key, value in canonical(cell).items()
        if key.startswith(kept) or key in ("dataset", "dataset_sha256", "precision")
    }
    width = form.pop("attention.width")
    # Only a projection inside the teacher's estimator changes the teacher: then its target widths do.
    form["squeeze_widths"] = list(cell.squeeze_widths) if width == "student" else "native"
    return form


def teacher_id(cell: Cell) -> str:
    """The first 12 hex digits of the SHA-256 of `teacher_canonical` as JSON."""
    return _digest(_dump(teacher_canonical(cell)))


def _dump(form: Mapping[str, object]) -> str:
    return json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
