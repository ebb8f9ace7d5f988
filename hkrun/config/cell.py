"""The keys of a cell: one dataclass per section, and what is known of each key."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hkrun.methods import FORMS, METHODS, Term
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
        own: Whether a part of the user's own, `package.module:name`, is allowed beside the choices.
        check: Further check of a value; raises InputError.
        active: Whether the key can change the result of a cell; if not, it is left out of the canonical form.
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
    check: Callable[[str], object] | None = None
    active: Callable[["Cell"], bool] = lambda _: True


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


def _squeezed(cell: "Cell") -> bool:
    return cell.knowledge_form == "squeezed"


def _reads_stages(cell: "Cell") -> bool:
    return cell.knowledge_form not in ("", "squeezed")


def _measures_features(cell: "Cell") -> bool:
    return cell.knowledge_form in ("hint", "fsp")


def _category(cell: "Cell") -> bool:
    adversary = METHODS[cell.method].adversary
    return _adversarial(cell) and adversary is not None and adversary.category


def _dropout(cell: "Cell") -> bool:
    adversary = METHODS[cell.method].adversary
    return _adversarial(cell) and adversary is not None and adversary.dropout


def _reduces_elements(cell: "Cell") -> bool:
    return (
        any(cell.weight(term) > 0 for term in ("backbone", "logits_l1"))
        or (_measures_features(cell) and not cell.knowledge.relative)
        or (_squeezed(cell) and cell.loss.distance != "cross_entropy")
    )


def _weighs(key: str) -> Callable[["Cell"], bool]:
    return lambda cell: any(
        term.weight == key for stage in METHODS[cell.method].stages for term in stage.terms
    )


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Stage 1. Momentum 0.9, weight decay 1e-4 and drops to a tenth are the paper's and have no keys."""

    network: str = _key(
        "preact-164", "Network of the teacher.", PAPER, check=parse_network, active=_uses_teacher
    )
    seed: int = _key(
        0, "Seed of the teacher; unrelated to the runs' seeds.", METHOD, minimum=0, active=_uses_teacher
    )
    file: str = _key(
        "",
        "Backbone weights to use instead of training them: a file with a state_dict, or torchvision for those"
        " it has of ImageNet; the attention sub-network is then trained on the frozen backbone.",
        METHOD,
        active=_uses_teacher,
    )
    backbone: str = _key(
        "joint",
        "joint: backbone and attention sub-network train together; shared: the backbone trains alone, then "
        "every connection's sub-network on it, frozen.",
        "joint in the paper",
        choices=("joint", "shared"),
        active=_trains_teacher_backbone,
    )
    epochs: int = _key(600, "Epochs of stage 1.", PAPER, minimum=1, active=_uses_teacher)
    batch_size: int = _key(64, "Images per batch.", PAPER, minimum=2, active=_uses_teacher)
    learning_rate: float = _key(0.1, "First learning rate.", PAPER, above=0, active=_uses_teacher)
    drops: tuple[float, ...] = _key(
        (0.4, 0.8),
        "Fractions of the epochs at which the learning rate drops to a tenth.",
        PAPER,
        above=0,
        below=1,
        increasing=True,
        active=_uses_teacher,
    )
    warmup_epochs: int = _key(
        0,
        "Epochs over which the learning rate rises linearly from a small one; very deep teachers on few "
        "steps need 5.",
        PAPER,
        minimum=0,
        active=_uses_teacher,
    )


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """The student and its optimisation in stage 2."""

    network: str = _key("preact-20", "Network of the student.", PAPER, check=parse_network)
    epochs: int = _key(600, "Epochs of stage 2.", PAPER, minimum=1)
    batch_size: int = _key(64, "Images per batch, over all workers.", PAPER, minimum=2)
    learning_rate: float = _key(0.1, "First learning rate.", PAPER, above=0)
    momentum: float = _key(0.9, "Momentum of SGD, of the discriminator's too.", PAPER, minimum=0, below=1)
    weight_decay: float = _key(
        1e-4, "Weight decay on all parameters, of the discriminator's too.", PAPER, minimum=0
    )
    drops: tuple[float, ...] = _key(
        (0.4, 0.8),
        "Fractions of the epochs at which both learning rates drop.",
        PAPER,
        above=0,
        below=1,
        increasing=True,
    )
    drop_factor: float = _key(
        0.1, "What a drop multiplies the learning rates with.", PAPER, above=0, maximum=1
    )
    warmup_epochs: int = _key(
        0, "Epochs over which the learning rates rise linearly from a small one.", PAPER, minimum=0
    )
    steps: int = _key(1, "Student steps per batch.", PAPER, minimum=1)
    first_stage: float = _key(
        0.33,
        "Epochs of the first stage of a two-stage method, as a fraction of student.epochs; they come before "
        "those.",
        "FSP's 21,000 of 64,000 iterations",
        above=0,
        maximum=10,
        active=lambda cell: len(METHODS[cell.method].stages) > 1,
    )


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """The discriminator's optimisation; its momentum, weight decay and schedule are the student's."""

    learning_rate: float = _key(1e-3, "First learning rate.", PAPER, above=0, active=_adversarial)
    steps: int = _key(1, "Discriminator steps per batch.", PAPER, minimum=1, active=_adversarial)
    dropout: float = _key(
        0.5,
        "Share of the student's features that the discriminator of anc does not see.",
        METHOD,
        minimum=0,
        below=1,
        active=_dropout,
    )


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """The task-driven attention sub-network of teacher and student, eqs. (1) and (2)."""

    connection: str = _key(
        "hierarchical",
        "What guides block i: hierarchical: the global descriptor and the squeezed vectors of all later "
        "blocks; original: the global descriptor alone (Jetley et al. 2018).",
        PAPER,
        choices=("hierarchical", "original"),
        active=_uses_teacher,
    )
    pool: str = _key(
        "sum",
        "How the attended positions are pooled: sum is the attention-weighted mean; avg divides by their "
        "number once more, which makes L_is vanish.",
        "avg is the paper's literal reading",
        choices=("sum", "avg"),
        active=_uses_teacher,
    )
    tap: str = _key(
        "bn_relu",
        "Where L_i is read: bn_relu: the stage's output after a BatchNorm of its own and ReLU; raw: the "
        "residual sum itself.",
        METHOD,
        choices=("bn_relu", "raw"),
        active=_uses_teacher,
    )
    width: str = _key(
        "auto",
        "Length of the squeezed vectors: auto: native where teacher and student agree, else student; "
        "student: the teacher's estimator projects to the student's widths; project: a linear map on the "
        "student's side, dropped afterwards.",
        METHOD,
        choices=("auto", "student", "project"),
        active=_uses_teacher,
    )


@dataclass(frozen=True, kw_only=True)
class KnowledgeConfig:
    """What the intermediate loss L_is transfers."""

    form: str = _key(
        "squeezed",
        "Form of the transferred knowledge: squeezed: the attention sub-networks' vectors; at: attention "
        "maps; fsp: flow of the solution procedure; nst: neuron selectivity; vid: variational information.",
        PAPER,
        choices=FORMS,
        active=_knowledge,
    )
    tap: str = _key(
        "raw",
        "Where at, fsp, nst, vid and the methods fitnets and fsp read a stage: raw: the residual sum itself; "
        "relu: after a ReLU.",
        METHOD,
        choices=("raw", "relu"),
        active=_reads_stages,
    )
    relative: bool = _key(
        True,
        "Whether the squared distances of FSP's flows and of FitNets' hint are taken relative to the "
        "teacher's own squares; if not, as loss.reduction says.",
        "false is the papers'; it diverges with deep teachers at learning rate 0.1",
        active=_measures_features,
    )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The weights and readings of the loss terms, eqs. (3) to (9)."""

    lambda_1: float = _key(
        1.0,
        "Weight of the backbone loss L_b; in tscan, of |l_S - l_T|_1.",
        PAPER,
        minimum=0,
        active=_weighs("loss.lambda_1"),
    )
    lambda_2: float = _key(
        1.0, "Weight of the adversarial loss L_adv.", PAPER, minimum=0, active=_weighs("loss.lambda_2")
    )
    lambda_3: float = _key(
        1.0, "Weight of the intermediate loss L_is.", PAPER, minimum=0, active=_weighs("loss.lambda_3")
    )
    mu: float = _key(
        1.0,
        "Weight of the discriminator's regulariser L_reg.",
        PAPER,
        minimum=0,
        active=lambda cell: _adversarial(cell) and cell.loss.regularizer,
    )
    reduction: str = _key(
        "mean",
        "Reduction of the differences in L_b, |l_S - l_T|_1, L_is, FSP's matrices and FitNets' hint over "
        "their elements; the batch is always averaged.",
        "sum is the paper's literal reading; it diverges at learning rate 0.1",
        choices=("mean", "sum"),
        active=_reduces_elements,
    )
    distance: str = _key(
        "l2",
        "Distance of the squeezed vectors in L_is.",
        PAPER,
        choices=("l2", "l1", "cross_entropy"),
        active=_squeezed,
    )
    gan: str = _key(
        "non_saturating",
        "The student's adversarial term: non_saturating: -log D; saturating: log(1 - D).",
        "saturating is the paper's literal reading",
        choices=("non_saturating", "saturating"),
        active=_adversarial,
    )
    category: bool = _key(
        True, "Whether the discriminator classifies too, L_adv^C of eq. (7).", PAPER, active=_category
    )
    regularizer: bool = _key(
        True, "Whether the discriminator is regularised, L_reg of eq. (6).", PAPER, active=_adversarial
    )
    reg_reduction: str = _key(
        "mean",
        "Reduction of the weight norms in L_reg over the discriminator's parameters.",
        "sum is the paper's literal reading; at mu = 1 it drives the discriminator to a constant",
        choices=("mean", "sum"),
        active=_regularized,
    )
    alpha: float = _key(
        0.9,
        "Weight of the softened classes in kd; the cross-entropy with the labels has one minus this.",
        "Hinton et al. 2015, as usually set",
        minimum=0,
        maximum=1,
        active=_weighs("loss.alpha"),
    )
    temperature: float = _key(
        4.0,
        "Temperature of the softened classes in kd.",
        "Hinton et al. 2015, as usually set",
        above=0,
        active=lambda cell: cell.weight("kd") > 0,
    )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation: zero padding, a random crop of the original size, a horizontal flip.

    On ImageNet: a random part of the image, resized, instead of padding and crop.
    """

    padding: int = _key(
        4,
        "Width of the zero padding around the image before the crop; imagenet has none.",
        PAPER,
        minimum=0,
        maximum=16,
        active=lambda cell: cell.dataset != "imagenet",
    )
    flip: bool = _key(True, "Whether half of the images are mirrored.", PAPER)
    size: int = _key(
        224,
        "Side of the images of imagenet, in pixels: of the random part in training, of the centre in tests.",
        "as ImageNet is usually trained on",
        minimum=16,
        maximum=1024,
        active=lambda cell: cell.dataset == "imagenet",
    )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One configuration without the seed.

    `dataset_sha256` is no key of the user's: it fixes the content of a data set that has no published
    checksum (`folder`, `imagenet`), and is empty for the others. Nor are the fields after it, which fix what
    the user's own files were when the cell was built, so that its ids never depend on files that change or
    are elsewhere: `sources` has, for each key that names a part of the user's own, the key and the SHA-256 of
    that part's source, `own_widths` the key and the stage widths of each such network, and
    `teacher_file_sha256` what `teacher.file` held.
    """

    dataset: str = _key(
        "digits",
        "Data set.",
        METHOD,
        choices=("digits", "mnist5k", "cifar10", "cifar100", "folder", "imagenet"),
        own=True,
    )
    method: str = _key("hksanc", "Training method of the student.", PAPER, choices=tuple(METHODS))
    precision: str = _key(
        "float32",
        "Arithmetic: bfloat16 computes the forward pass in bfloat16 and keeps weights in float32.",
        METHOD,
        choices=("float32", "bfloat16", "float64"),
    )
    teacher_table: str = _key(
        "float32",
        "What the teacher says of every view of every training image is computed once, kept in the store and "
        "looked up by all runs: float32: in full; float16: in half the space, rounded; off: the teacher runs "
        "live on every batch. FSP, NST, VID, FitNets and imagenet have no table.",
        METHOD,
        choices=("off", "float32", "float16"),
        active=_uses_teacher,
    )
    sync_batchnorm: bool = _key(
        True,
        "Whether BatchNorm takes its statistics over all workers; if not, the number of workers is part of "
        "the cell.",
        METHOD,
    )
    teacher: TeacherConfig = TeacherConfig()
    student: StudentConfig = StudentConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    attention: AttentionConfig = AttentionConfig()
    knowledge: KnowledgeConfig = KnowledgeConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    dataset_sha256: str = ""
    sources: tuple[tuple[str, str], ...] = ()
    own_widths: tuple[tuple[str, tuple[int, ...]], ...] = ()
    teacher_file_sha256: str = ""

    @property
    def own_parts(self) -> dict[str, str]:
        """The parts of the user's own by name, and the SHA-256 of their sources."""
        return {str(get_value(self, key)): sha256 for key, sha256 in self.sources}

    @property
    def stage_weights(self) -> tuple[dict[str, float], ...]:
        """For each stage of the method, the weights above zero by the term's name: what is computed."""
        stages = METHODS[self.method].stages
        every = [{term.name: self._weight(term) for term in stage.terms} for stage in stages]
        return tuple({name: weight for name, weight in stage.items() if weight > 0} for stage in every)

    def weight(self, term: str) -> float:
        """The weight of one loss term in the last stage that computes it; 0.0 where none does."""
        return next((stage[term] for stage in reversed(self.stage_weights) if term in stage), 0.0)

    @property
    def stage_epochs(self) -> tuple[int, ...]:
        """Epochs of each stage of the method."""
        epochs = self.student.epochs
        if len(METHODS[self.method].stages) == 1:
            return (epochs,)
        return (max(1, round(self.student.first_stage * epochs)), epochs)

    @property
    def uses_teacher(self) -> bool:
        """Whether any computed term compares the student with the teacher."""
        return any(self.stage_uses_teacher(stage) for stage in range(len(METHODS[self.method].stages)))

    def stage_uses_teacher(self, stage: int) -> bool:
        """The same of the terms of one stage, from 0."""
        terms = METHODS[self.method].stages[stage].terms
        return any(term.uses_teacher and self._weight(term) > 0 for term in terms)

    @property
    def knowledge_form(self) -> str:
        """The form of intermediate knowledge that some stage transfers; empty where none does."""
        if self.weight("knowledge") > 0:
            return self.knowledge.form
        return next((form for form in ("hint", "fsp") if self.weight(form) > 0), "")

    @property
    def table_parts(self) -> tuple[str, ...]:
        """What of the teacher's output the terms compare, where a teacher table can hold all of it.

        Empty where no term uses the teacher; where one compares whole feature maps, which are larger than the
        images; and where the training images are streamed, so that their views have no number.
        """
        form = self.knowledge_form
        if not self.uses_teacher or self.dataset == "imagenet" or form not in ("", "squeezed", "at"):
            return ()
        parts = ["logits"]
        adversary = METHODS[self.method].adversary
        if _adversarial(self) and adversary is not None and adversary.tap == "descriptor":
            parts.append("descriptor")
        if form:
            parts.append("knowledge" if form == "squeezed" else "attention_maps")
        return tuple(parts)

    @property
    def classifies_source(self) -> bool:
        """Whether the discriminator also names the class, L_adv^C."""
        return _category(self) and self.loss.category

    def _weight(self, term: Term) -> float:
        weight = term.weight
        value = float(get_value(self, weight)) if isinstance(weight, str) else weight  # type: ignore[arg-type]
        return 1.0 - value if term.complement else value

    @property
    def squeeze_widths(self) -> tuple[int, ...]:
        """Length of the squeezed vector of each block, as teacher and student compare them."""
        return self.teacher_widths if self.attention.width == "project" else self.student_widths

    @property
    def teacher_widths(self) -> tuple[int, ...]:
        """Output channels of the teacher's stages."""
        return dict(self.own_widths).get("teacher.network") or parse_network(self.teacher.network).widths

    @property
    def student_widths(self) -> tuple[int, ...]:
        """Output channels of the student's stages."""
        return dict(self.own_widths).get("student.network") or parse_network(self.student.network).widths


def get_value(cell: Cell, key: str) -> Value:
    """The value of a dotted key."""
    return functools.reduce(getattr, key.split("."), cell)  # type: ignore[return-value]
