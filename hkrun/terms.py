"""The terms of the student's loss as facts: what each reads, what it learns, which keys change it.

All that is asked about a term follows from its declaration: which keys are part of a cell's identity, what a
teacher table holds, whether the student needs an attention sub-network, and what its function is given. A
term of the user's own is a `Term` too, see docs/own-parts.md.
"""

import keyword
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from types import MappingProxyType
from typing import Any

# What a term can read of a network's output. A teacher table holds the compact ones, a vector per view of an
# image; for the others, which are larger than the image, the teacher runs live.
COMPACT_PARTS = (
    "logits",  # [B, classes]
    "descriptor",  # the pooled features before the classifier, [B, C_N]
    "knowledge",  # the squeezed vectors of the attention sub-network, [B, K]
    "attention_maps",  # of each stage, [B, C, H_i, W_i] of any C: features with the same attention map
)
FEATURE_MAPS = (
    "stages",  # the output of each stage, [B, C_i, H_i, W_i]
    "stem_and_stages",  # the same, after the input of the first stage
)
# A key by which feature maps are read before a function gets them.
TAP = "knowledge.tap"
_KEY_NAME = re.compile(r"[a-z]\w*(\.[a-z]\w*)+", re.ASCII)


@dataclass(frozen=True)
class Key:
    """A key of a cell that a term or method of the user's own brings along.

    Attributes:
        name: Dotted, such as "similarity.power"; its section is none of hkrun's.
        default: Its value where none is set; its type is the key's: true or false, an integer, a number, a
            string, or a tuple of numbers.
        doc: One sentence, for `hkrun keys`.
        source: Where the default comes from.
        choices: The allowed values of a string, or none for any.
        minimum: Smallest allowed number; of a tuple, of each of its numbers.
        above: Numbers must be greater than this one.
        maximum: Largest allowed number.
        below: Numbers must be smaller than this one.

    Raises:
        ValueError: The name is none, or the default is of another type or out of the range.
    """

    name: str
    default: bool | int | float | str | tuple[float, ...]
    doc: str
    _: KW_ONLY
    source: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        last = self.name.rpartition(".")[2]
        if _KEY_NAME.fullmatch(self.name) is None or keyword.iskeyword(last):
            raise ValueError(
                f"{self.name!r} is no name of a key: it has a section and a name in lower case, such as "
                "'similarity.power'"
            )
        if not isinstance(self.default, bool | int | float | str | tuple):
            raise ValueError(
                f"{self.name}: the default must be True or False, a number, a string or a tuple of numbers; "
                f"it is of type {type(self.default).__name__}"
            )
        if isinstance(self.default, tuple):
            if not all(type(number) in (int, float) for number in self.default):
                raise ValueError(f"{self.name}: a tuple holds numbers; the default is {self.default!r}")
            object.__setattr__(self, "default", tuple(float(number) + 0.0 for number in self.default))
        elif isinstance(self.default, float):  # as for a value that is set: -0.0 becomes 0.0
            object.__setattr__(self, "default", self.default + 0.0)
        of_strings = isinstance(self.choices, tuple) and all(type(each) is str for each in self.choices)
        if not of_strings or (self.choices and not isinstance(self.default, str)):
            raise ValueError(f"{self.name}: choices are a tuple of strings, for a key whose default is one")
        numbers = self.default if isinstance(self.default, tuple) else (self.default,)
        if not all(self._allows(number) for number in numbers):
            raise ValueError(f"{self.name}: the default {self.default!r} is out of the key's own range")

    def _allows(self, value: bool | int | float | str) -> bool:
        if isinstance(value, str):
            return not self.choices or value in self.choices
        return isinstance(value, bool) or (
            math.isfinite(value)
            and (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
            and (self.below is None or value < self.below)
        )


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term of the student's loss.

    Attributes:
        summary: What it is, and its source.
        function: What computes it, a number for a batch of B images: a function or class at the top of a
            module, or its place, `package.module:name`. It takes the parts of the student's output, then
            those of the teacher's, then the labels and the index where it reads them; and by name the keys,
            each under the last part of its name. Of a term that learns it is a class of `torch.nn.Module`
            whose `forward` takes the parts; it is built from the width of each part (channels of the stages,
            the descriptor's width, the number of classes) and, by name, the keys.
        student: The parts of the student's output that it reads.
        teacher: The parts of the teacher's; empty where it needs none.
        labels: Whether it reads the labels, int64 [B].
        index: Whether it reads the number of each image among the training images, int64 [B].
        discriminator: Whether it judges by a discriminator, which reads the `tap` of the method's adversary.
        learns: Whether it has parameters or a state of its own, which are dropped after the stage.
        num_images: Whether it is built with `num_images`, the number of training images, too.
        random: Whether its function draws random numbers: it is given a `generator` of the CPU, by name, that
            derives from the run's seed and the epoch.
        by_stage: Whether it compares the networks stage by stage, so that they need equally many.
        over_batch: Whether an image's loss depends on the others of its batch: of several workers, each then
            evaluates it on the whole batch.
        packs: Whether `torch.vmap` can map it over the runs of a pack.
        keys: The keys that can change it: names of hkrun's own, and `Key`s. Its function is given those and
            no other, but for `knowledge.tap`, by which its feature maps are read.
        idle: Of some keys, the values of other keys at which they do not change it.
        is_form: Whether `knowledge.form` can name it.
        name: Its name among hkrun's own.

    Raises:
        ValueError: The declaration contradicts itself.
    """

    summary: str
    function: str | Callable[..., Any] = ""
    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    labels: bool = False
    index: bool = False
    discriminator: bool = False
    learns: bool = False
    num_images: bool = False
    random: bool = False
    by_stage: bool = False
    over_batch: bool = False
    packs: bool = True
    keys: tuple[str | Key, ...] = ()
    idle: Mapping[str, Mapping[str, object]] = field(default_factory=dict, hash=False)
    is_form: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        if callable(self.function):
            place = f"{self.function.__module__}:{getattr(self.function, '__qualname__', '')}"
            object.__setattr__(self, "function", place)
        if not self.discriminator and re.fullmatch(r"[\w.]+:\w+", str(self.function)) is None:
            raise ValueError(
                f"function must be a function or a class at the top of a module; it is {self.function!r}"
            )
        wrong = [
            name for name in ("student", "teacher", "keys") if not isinstance(getattr(self, name), tuple)
        ]
        if wrong:
            raise ValueError(f"{' and '.join(wrong)} must be tuples, such as ('logits',)")
        problems = [
            f"{side} names {part!r}; a term can read {', '.join((*COMPACT_PARTS, *FEATURE_MAPS))}"
            for side, parts in (("student", self.student), ("teacher", self.teacher))
            for part in parts
            if part not in (*COMPACT_PARTS, *FEATURE_MAPS)
        ]
        if not self.student and not self.discriminator:
            problems.append("student is empty: without something of the student's there is nothing to learn")
        if "attention_maps" in (*self.student, *self.teacher) and not self.name:
            # A table holds no more of them than hkrun's own term asks for: one channel, scaled to length 1.
            problems.append("attention_maps are for hkrun's own term; read stages")
        if self.num_images and not self.learns:
            problems.append("num_images is for terms that learn")
        last = [name.rpartition(".")[2] for name in self.key_names]
        last += ["num_images"] * self.num_images + ["generator"] * self.random
        problems += [f"two of its arguments are named {name!r}" for name in {*last} if last.count(name) > 1]
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of its keys."""
        return tuple(key.name if isinstance(key, Key) else key for key in self.keys)

    @property
    def own_keys(self) -> tuple[Key, ...]:
        """The keys that it brings along."""
        return tuple(key for key in self.keys if isinstance(key, Key))

    @property
    def source_modules(self) -> frozenset[str]:
        """The module that its function is in."""
        return frozenset({str(self.function).partition(":")[0]})

    @property
    def uses_teacher(self) -> bool:
        """Whether it compares the student with the teacher, itself or by the discriminator."""
        return bool(self.teacher) or self.discriminator


_REDUCTION = ("loss.reduction",)
_FEATURE_DISTANCE: Mapping[str, Any] = {
    "keys": (TAP, "knowledge.relative", "loss.reduction"),
    "idle": {"loss.reduction": {"knowledge.relative": True}},
}

_DECLARED = (
    Term(
        name="cross_entropy",
        summary="cross-entropy with the labels",
        function="hkrun.losses:cross_entropy",
        student=("logits",),
        labels=True,
    ),
    Term(
        name="backbone",
        summary="L_b, the squared difference of the logits; eq. (4) of the HKSANC paper",
        function="hkrun.losses:backbone_loss",
        student=("logits",),
        teacher=("logits",),
        keys=_REDUCTION,
    ),
    Term(
        name="logits_l1",
        summary="the absolute difference of the logits (Xu et al. 2018)",
        function="hkrun.losses:logits_l1_loss",
        student=("logits",),
        teacher=("logits",),
        keys=_REDUCTION,
    ),
    Term(
        name="kd",
        summary="the divergence of the softened classes (Hinton et al. 2015)",
        function="hkrun.losses:kd_loss",
        student=("logits",),
        teacher=("logits",),
        keys=("loss.temperature",),
    ),
    Term(
        name="adversarial",
        summary="L_adv, the discriminator's judgement; eqs. (5) to (7) of the HKSANC paper",
        labels=True,
        discriminator=True,
        keys=(
            "discriminator.learning_rate",
            "discriminator.steps",
            "loss.gan",
            "loss.regularizer",
            "loss.mu",
            "loss.reg_reduction",
        ),
        idle={
            "loss.mu": {"loss.regularizer": False},
            "loss.reg_reduction": {"loss.regularizer": False, "loss.mu": 0.0},
        },
    ),
    Term(
        name="squeezed",
        summary="the attention sub-networks' vectors; eq. (9) of the HKSANC paper",
        function="hkrun.losses:knowledge_loss",
        student=("knowledge",),
        teacher=("knowledge",),
        by_stage=True,
        keys=("loss.distance", "loss.reduction"),
        idle={"loss.reduction": {"loss.distance": "cross_entropy"}},
        is_form=True,
    ),
    Term(
        name="at",
        summary="attention maps (Zagoruyko and Komodakis 2017)",
        function="hkrun.losses:attention_transfer_loss",
        student=("stages",),
        teacher=("attention_maps",),
        by_stage=True,
        keys=(TAP,),
        is_form=True,
    ),
    Term(
        name="fsp",
        summary="flow of the solution procedure (Yim et al. 2017)",
        function="hkrun.losses:FlowLoss",
        student=("stem_and_stages",),
        teacher=("stem_and_stages",),
        by_stage=True,
        learns=True,
        is_form=True,
        **_FEATURE_DISTANCE,
    ),
    Term(
        name="nst",
        summary="neuron selectivity (Huang and Wang 2017)",
        function="hkrun.losses:nst_loss",
        student=("stages",),
        teacher=("stages",),
        by_stage=True,
        keys=(TAP,),
        is_form=True,
    ),
    Term(
        name="vid",
        summary="variational information (Ahn et al. 2019)",
        function="hkrun.losses:VariationalLoss",
        student=("stages",),
        teacher=("stages",),
        by_stage=True,
        learns=True,
        keys=(TAP,),
        is_form=True,
    ),
    Term(
        name="hint",
        summary="the middle stage's features (Romero et al. 2015)",
        function="hkrun.losses:HintLoss",
        student=("stages",),
        teacher=("stages",),
        by_stage=True,
        learns=True,
        **_FEATURE_DISTANCE,
    ),
)
TERMS: Mapping[str, Term] = MappingProxyType({term.name: term for term in _DECLARED})
FORMS = tuple(name for name, term in TERMS.items() if term.is_form)
