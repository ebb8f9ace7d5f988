"""The terms of the student's loss as facts: what each reads, what it learns, and which keys change it.

All that is asked about a term follows from its declaration here: which keys are part of a cell's identity,
what a teacher table holds, whether the student needs an attention sub-network, and what the term's function
is given. The functions are in `hkrun.losses.FUNCTIONS`, under the same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

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


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term of the student's loss.

    Attributes:
        name: Its name.
        summary: What it is, and its source.
        student: The parts of the student's output that it reads.
        teacher: The parts of the teacher's; empty where it needs none.
        labels: Whether it reads the labels.
        discriminator: Whether it judges by a discriminator, which reads the `tap` of the method's adversary.
        learns: Whether it has parameters of its own, which are trained with the student and then dropped.
        keys: The keys that can change it; with each, the values of other keys at which it does not. Its
            function is given those and no other, but for `knowledge.tap`, by which its feature maps are read.
        is_form: Whether `knowledge.form` can name it.
    """

    name: str
    summary: str
    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    labels: bool = False
    discriminator: bool = False
    learns: bool = False
    keys: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    is_form: bool = False

    @property
    def uses_teacher(self) -> bool:
        """Whether it compares the student with the teacher, itself or by the discriminator."""
        return bool(self.teacher) or self.discriminator

    @property
    def by_stage(self) -> bool:
        """Whether it compares the networks stage by stage."""
        return not {"knowledge", *FEATURE_MAPS}.isdisjoint(self.student)


_ALWAYS: Mapping[str, object] = MappingProxyType({})
_REDUCTION = {"loss.reduction": _ALWAYS}
_TAP = {"knowledge.tap": _ALWAYS}
_FEATURE_DISTANCE = {
    **_TAP,
    "knowledge.relative": _ALWAYS,
    "loss.reduction": {"knowledge.relative": True},
}

_DECLARED = (
    Term(name="cross_entropy", summary="cross-entropy with the labels", student=("logits",), labels=True),
    Term(
        name="backbone",
        summary="L_b, the squared difference of the logits; eq. (4) of the HKSANC paper",
        student=("logits",),
        teacher=("logits",),
        keys=_REDUCTION,
    ),
    Term(
        name="logits_l1",
        summary="the absolute difference of the logits (Xu et al. 2018)",
        student=("logits",),
        teacher=("logits",),
        keys=_REDUCTION,
    ),
    Term(
        name="kd",
        summary="the divergence of the softened classes (Hinton et al. 2015)",
        student=("logits",),
        teacher=("logits",),
        keys={"loss.temperature": _ALWAYS},
    ),
    Term(
        name="adversarial",
        summary="L_adv, the discriminator's judgement; eqs. (5) to (7) of the HKSANC paper",
        labels=True,
        discriminator=True,
        keys={
            "discriminator.learning_rate": _ALWAYS,
            "discriminator.steps": _ALWAYS,
            "loss.gan": _ALWAYS,
            "loss.regularizer": _ALWAYS,
            "loss.mu": {"loss.regularizer": False},
            "loss.reg_reduction": {"loss.regularizer": False, "loss.mu": 0.0},
        },
    ),
    Term(
        name="squeezed",
        summary="the attention sub-networks' vectors; eq. (9) of the HKSANC paper",
        student=("knowledge",),
        teacher=("knowledge",),
        keys={"loss.distance": _ALWAYS, "loss.reduction": {"loss.distance": "cross_entropy"}},
        is_form=True,
    ),
    Term(
        name="at",
        summary="attention maps (Zagoruyko and Komodakis 2017)",
        student=("stages",),
        teacher=("attention_maps",),
        keys=_TAP,
        is_form=True,
    ),
    Term(
        name="fsp",
        summary="flow of the solution procedure (Yim et al. 2017)",
        student=("stem_and_stages",),
        teacher=("stem_and_stages",),
        learns=True,
        keys=_FEATURE_DISTANCE,
        is_form=True,
    ),
    Term(
        name="nst",
        summary="neuron selectivity (Huang and Wang 2017)",
        student=("stages",),
        teacher=("stages",),
        keys=_TAP,
        is_form=True,
    ),
    Term(
        name="vid",
        summary="variational information (Ahn et al. 2019)",
        student=("stages",),
        teacher=("stages",),
        learns=True,
        keys=_TAP,
        is_form=True,
    ),
    Term(
        name="hint",
        summary="the middle stage's features (Romero et al. 2015)",
        student=("stages",),
        teacher=("stages",),
        learns=True,
        keys=_FEATURE_DISTANCE,
    ),
)
TERMS: Mapping[str, Term] = MappingProxyType({term.name: term for term in _DECLARED})
FORMS = tuple(name for name, term in TERMS.items() if term.is_form)


def find_term(name: str) -> Term:
    """The declaration of a term.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in TERMS:
        raise ValueError(f"no term is named {name!r}; the terms are {', '.join(TERMS)}")
    return TERMS[name]
