"""The keys of a cell by section, and what is known of each key."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hkrun.datasets import find_dataset
from hkrun.methods import SHIPPED_FORMS
from hkrun.networks import parse_network
from hkrun.terms import FORMS

if TYPE_CHECKING:
    from hkrun.config.cell import Cell

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
        own: Whether a part of the user's own, `package.module:name`, is allowed beside the choices.
        check: Further check of a value; raises InputError.
        earlier: Of a key that stores are older than, the value that its absence there stands for: with it the
            key is no part of a cell's identity.
        active: Whether the key can change the result of a cell; of a term's keys, the terms say it.
    """

    doc: str
    source: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    increasing: bool = False
    own: bool = False
    earlier: Value | None = None
    check: Callable[[str], object] | None = None
    active: Callable[["Cell"], bool] = lambda _: True


def define_key(default: Value, doc: str, source: str, **limits: Any) -> Any:
    """A field of a section that is a key; `limits` are the other attributes of its `KeyInfo`."""
    return field(default=default, metadata={"key": KeyInfo(doc=doc, source=source, **limits)})


def uses_teacher(cell: "Cell") -> bool:
    """Whether any computed term compares the student with the teacher."""
    return cell.uses_teacher


def _has_two_stages(cell: "Cell") -> bool:
    return len(cell.stage_epochs) > 1


def _has_teachers(cell: "Cell") -> bool:
    return cell.has_teachers


def _trains_teacher_backbone(cell: "Cell") -> bool:
    return cell.uses_teacher and not cell.teacher.file


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Stage 1. Momentum 0.9, weight decay 1e-4 and drops to a tenth are the paper's and have no keys."""

    network: str = define_key(
        "preact-164", "Network of the teacher.", PAPER, check=parse_network, active=uses_teacher
    )
    seed: int = define_key(
        0,
        "Seed of the teacher; where there are several, of the first. Its streams are unrelated to the runs'.",
        METHOD,
        minimum=0,
        active=uses_teacher,
    )
    seeds: str = define_key(
        "one",
        "Which teacher a run learns from: one: all seeds from the same; paired: seed k from a teacher of its "
        "own, trained with seed teacher.seed + k.",
        "one in the paper",
        choices=("one", "paired"),
        earlier="one",
        active=uses_teacher,
    )
    students: int = define_key(
        1,
        "Students of each teacher where teacher.seeds = paired: seed k learns from teacher k // students, so "
        "that the spread of students is told from that of teachers.",
        METHOD,
        minimum=1,
        earlier=1,
        active=_has_teachers,
    )
    file: str = define_key(
        "",
        "Backbone weights to use instead of training them: a file with a state_dict or a checkpoint that has "
        "one (torch or safetensors), or torchvision for those it has of ImageNet; the attention sub-network "
        "is then trained on the frozen backbone.",
        METHOD,
        active=uses_teacher,
    )
    backbone: str = define_key(
        "joint",
        "joint: backbone and attention sub-network train together; shared: the backbone trains alone, then "
        "every connection's sub-network on it, frozen.",
        "joint in the paper",
        choices=("joint", "shared"),
        active=_trains_teacher_backbone,
    )
    epochs: int = define_key(600, "Epochs of stage 1.", PAPER, minimum=1, active=uses_teacher)
    batch_size: int = define_key(64, "Images per batch.", PAPER, minimum=2, active=uses_teacher)
    learning_rate: float = define_key(0.1, "First learning rate.", PAPER, above=0, active=uses_teacher)
    drops: tuple[float, ...] = define_key(
        (0.4, 0.8),
        "Fractions of the epochs at which the learning rate drops to a tenth.",
        PAPER,
        above=0,
        below=1,
        increasing=True,
        active=uses_teacher,
    )
    warmup_epochs: int = define_key(
        0,
        "Epochs over which the learning rate rises linearly from a small one; very deep teachers on few "
        "steps need 5.",
        PAPER,
        minimum=0,
        active=uses_teacher,
    )


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """The student and its optimisation in stage 2."""

    network: str = define_key("preact-20", "Network of the student.", PAPER, check=parse_network)
    file: str = define_key(
        "",
        "Weights that every run starts from instead of initial ones of its seed: a file or torchvision, as "
        "for teacher.file.",
        METHOD,
        active=lambda cell: bool(cell.student.file),
    )
    epochs: int = define_key(600, "Epochs of stage 2.", PAPER, minimum=1)
    batch_size: int = define_key(64, "Images per batch, over all workers.", PAPER, minimum=2)
    learning_rate: float = define_key(0.1, "First learning rate.", PAPER, above=0)
    momentum: float = define_key(
        0.9, "Momentum of SGD, of the discriminator's too.", PAPER, minimum=0, below=1
    )
    weight_decay: float = define_key(
        1e-4, "Weight decay on all parameters, of the discriminator's too.", PAPER, minimum=0
    )
    drops: tuple[float, ...] = define_key(
        (0.4, 0.8),
        "Fractions of the epochs at which both learning rates drop.",
        PAPER,
        above=0,
        below=1,
        increasing=True,
    )
    drop_factor: float = define_key(
        0.1, "What a drop multiplies the learning rates with.", PAPER, above=0, maximum=1
    )
    warmup_epochs: int = define_key(
        0, "Epochs over which the learning rates rise linearly from a small one.", PAPER, minimum=0
    )
    steps: int = define_key(1, "Student steps per batch.", PAPER, minimum=1)
    first_stage: float = define_key(
        0.33,
        "Epochs of the first stage of a two-stage method, as a fraction of student.epochs; they come before "
        "those.",
        "FSP's 21,000 of 64,000 iterations",
        above=0,
        maximum=10,
        active=_has_two_stages,
    )
    first_stage_learning_rate: float = define_key(
        0.0,
        "First learning rate of the first stage of a two-stage method; 0: student.learning_rate.",
        METHOD,
        minimum=0,
        earlier=0.0,
        active=lambda cell: (
            _has_two_stages(cell) and cell.student.first_stage_learning_rate != cell.student.learning_rate
        ),
    )


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """The discriminator's optimisation; its momentum, weight decay and schedule are the student's."""

    learning_rate: float = define_key(1e-3, "First learning rate.", PAPER, above=0)
    steps: int = define_key(1, "Discriminator steps per batch.", PAPER, minimum=1)
    dropout: float = define_key(
        0.5,
        "Share of the student's features that a discriminator of features does not see.",
        METHOD,
        minimum=0,
        below=1,
    )


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """The task-driven attention sub-network of teacher and student, eqs. (1) and (2)."""

    connection: str = define_key(
        "hierarchical",
        "What guides block i: hierarchical: the global descriptor and the squeezed vectors of all later "
        "blocks; original: the global descriptor alone (Jetley et al. 2018).",
        PAPER,
        choices=("hierarchical", "original"),
        active=uses_teacher,
    )
    pool: str = define_key(
        "sum",
        "How the attended positions are pooled: sum is the attention-weighted mean; avg divides by their "
        "number once more, which makes L_is vanish.",
        "avg is the paper's literal reading",
        choices=("sum", "avg"),
        active=uses_teacher,
    )
    tap: str = define_key(
        "bn_relu",
        "Where L_i is read: bn_relu: the stage's output after a BatchNorm of its own and ReLU; raw: the "
        "residual sum itself.",
        METHOD,
        choices=("bn_relu", "raw"),
        active=uses_teacher,
    )
    width: str = define_key(
        "auto",
        "Length of the squeezed vectors: auto: native where teacher and student agree, else student; "
        "student: the teacher's estimator projects to the student's widths; project: a linear map on the "
        "student's side, dropped afterwards.",
        METHOD,
        choices=("auto", "student", "project"),
        active=uses_teacher,
    )


@dataclass(frozen=True, kw_only=True)
class KnowledgeConfig:
    """What the intermediate loss L_is transfers."""

    form: str = define_key(
        "squeezed",
        "Form of the transferred knowledge.",
        PAPER,
        choices=(*FORMS, *SHIPPED_FORMS),
        own=True,
    )
    tap: str = define_key(
        "raw",
        "Where a stage's features are read: raw: the residual sum itself; relu: after a ReLU.",
        METHOD,
        choices=("raw", "relu"),
    )
    relative: bool = define_key(
        True,
        "Whether the squared distances of FSP's flows and of FitNets' hint are taken relative to the "
        "teacher's own squares; if not, as loss.reduction says.",
        "false is the papers'; it diverges with deep teachers at learning rate 0.1",
    )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The weights and readings of the loss terms, eqs. (3) to (9)."""

    lambda_1: float = define_key(
        1.0,
        "Weight of the backbone loss L_b; in tscan, of |l_S - l_T|_1.",
        PAPER,
        minimum=0,
    )
    lambda_2: float = define_key(1.0, "Weight of the adversarial loss L_adv.", PAPER, minimum=0)
    lambda_3: float = define_key(1.0, "Weight of the intermediate loss L_is.", PAPER, minimum=0)
    cross_entropy: float = define_key(
        0.0, "Weight of the cross-entropy with the labels in hksanc.", METHOD, minimum=0, earlier=0.0
    )
    kd: float = define_key(
        0.0,
        "Weight of the softened classes in hksanc, see loss.temperature.",
        METHOD,
        minimum=0,
        earlier=0.0,
    )
    mu: float = define_key(
        1.0,
        "Weight of the discriminator's regulariser L_reg.",
        PAPER,
        minimum=0,
    )
    reduction: str = define_key(
        "mean",
        "Reduction of the differences in L_b, |l_S - l_T|_1, L_is, FSP's matrices and FitNets' hint over "
        "their elements; the batch is always averaged.",
        "sum is the paper's literal reading; it diverges at learning rate 0.1",
        choices=("mean", "sum"),
    )
    distance: str = define_key(
        "l2",
        "Distance of the squeezed vectors in L_is.",
        PAPER,
        choices=("l2", "l1", "cross_entropy"),
    )
    gan: str = define_key(
        "non_saturating",
        "The student's adversarial term: non_saturating: -log D; saturating: log(1 - D).",
        "saturating is the paper's literal reading",
        choices=("non_saturating", "saturating"),
    )
    category: bool = define_key(True, "Whether the discriminator classifies too, L_adv^C of eq. (7).", PAPER)
    regularizer: bool = define_key(True, "Whether the discriminator is regularised, L_reg of eq. (6).", PAPER)
    reg_reduction: str = define_key(
        "mean",
        "Reduction of the weight norms in L_reg over the discriminator's parameters.",
        "sum is the paper's literal reading; at mu = 1 it drives the discriminator to a constant",
        choices=("mean", "sum"),
    )
    alpha: float = define_key(
        0.9,
        "Weight of the softened classes in kd; the cross-entropy with the labels has one minus this.",
        "Hinton et al. 2015, as usually set",
        minimum=0,
        maximum=1,
    )
    temperature: float = define_key(
        4.0,
        "Temperature of the softened classes.",
        "Hinton et al. 2015, as usually set",
        above=0,
    )


def _scales_signs(cell: "Cell") -> bool:
    return cell.quantizes_as("bwn", "xnor")


def _takes_signs(cell: "Cell") -> bool:
    return cell.quantizes_as("binary_connect")


@dataclass(frozen=True, kw_only=True)
class QuantizationConfig:
    """How the real weights of one-bit layers are trained: as their authors do, or as their formulas say."""

    scale_gradient: bool = define_key(
        True,
        "BWN and XNOR: whether the gradient of a filter's n weights on c input channels is multiplied with "
        "n (1 - 1/c).",
        "the authors' code under SGD; false is the paper's gradient",
        earlier=False,
        active=_scales_signs,
    )
    center: bool = define_key(
        True,
        "BWN and XNOR: whether, before each step, the mean over a filter's input channels is taken from its "
        "real weights.",
        "the authors' code; not in the paper",
        earlier=False,
        active=_scales_signs,
    )
    clamp: bool = define_key(
        True,
        "BWN and XNOR: whether, before each step, the real weights are clamped to [-1, 1], once centred.",
        "the authors' code; not in the paper",
        earlier=False,
        active=_scales_signs,
    )
    scale_rate: bool = define_key(
        True,
        "Binary-Connect: whether a layer's learning rate is multiplied with (fan in + fan out) / 1.5, one "
        "over the square of Glorot's coefficient; the weight decay stays as it is.",
        "the paper's tricks, for SGD; false is its algorithm alone",
        earlier=False,
        active=_takes_signs,
    )
    uniform_start: bool = define_key(
        True,
        "Binary-Connect: whether the real weights start uniform in [-1, 1]; if not, as those of all other "
        "methods. student.file replaces both.",
        "the authors' code; the paper is silent",
        earlier=False,
        active=lambda cell: _takes_signs(cell) and not cell.student.file,
    )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation: zero padding, a random crop of the original size, a horizontal flip.

    On ImageNet: a random part of the image, resized, instead of padding and crop.
    """

    padding: int = define_key(
        4,
        "Width of the zero padding around the image before the crop; imagenet has none.",
        PAPER,
        minimum=0,
        maximum=16,
        active=lambda cell: not find_dataset(cell.dataset).streamed,
    )
    flip: bool = define_key(True, "Whether half of the images are mirrored.", PAPER)
    size: int = define_key(
        224,
        "Side of the images of imagenet, in pixels: of the random part in training, of the centre in tests.",
        "as ImageNet is usually trained on",
        minimum=16,
        maximum=1024,
        active=lambda cell: find_dataset(cell.dataset).streamed,
    )
