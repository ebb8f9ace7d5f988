"""The methods as data: in which stages the student trains, on which loss terms, and with which weights.

A method of the user's own is a `Method` too, see docs/own-parts.md.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from hkrun.errors import InputError
from hkrun.terms import FORMS, TERMS, Key, Term
from hkrun.user_parts import is_own, load_attribute

# Columns of the curves that a term's would be taken for.
_TAKEN = ("total", "discriminator", "regularizer", "judged")
_COLUMN = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class WeightedTerm:
    """A term with its weight in the loss of a stage.

    Attributes:
        name: Its name in the loop and in the curves' columns.
        weight: The key of a cell that holds its weight, or a constant.
        complement: Whether the weight is one minus that.
        term: What it is; without it, the one of hkrun's own that has the same name.
        form_key: The key of a cell that names the term instead.
        warmup: The key of a cell that holds over how many epochs of the stage the weight rises evenly; empty
            where it is whole from the first.

    Raises:
        ValueError: It is no term, the name cannot be a column's, or the weight is none.
    """

    name: str
    weight: str | float = 1.0
    complement: bool = False
    term: Term | None = None
    form_key: str = ""
    warmup: str = ""

    def __post_init__(self) -> None:
        if _COLUMN.fullmatch(self.name) is None or self.name in _TAKEN:
            raise ValueError(
                f"{self.name!r} cannot name a term: its column in the curves is loss_NAME, of lower-case "
                f"letters, digits and _; taken are {', '.join(_TAKEN)}"
            )
        if self.term is None and not self.form_key and self.name not in TERMS:
            raise ValueError(
                f"no term is named {self.name!r}; give it as term=, or name one of {', '.join(TERMS)}"
            )
        names_key = isinstance(self.weight, str) and bool(self.weight)
        if not names_key and type(self.weight) not in (int, float):
            raise ValueError(
                f"{self.name}: the weight must be a number or the name of a key; it is {self.weight!r}"
            )
        if not isinstance(self.weight, str) and not 0 <= self.weight < math.inf:
            raise ValueError(f"{self.name}: the weight must be at least 0; it is {self.weight}")
        if not isinstance(self.weight, str) and self.complement and self.weight > 1:
            raise ValueError(f"{self.name}: the weight must be at most 1 for its complement")
        if not isinstance(self.warmup, str):
            raise ValueError(f"{self.name}: warmup must be the name of a key; it is {self.warmup!r}")
        if self.form_key not in ("", "knowledge.form"):
            raise ValueError(f"{self.name}: form_key must be 'knowledge.form'; it is {self.form_key!r}")
        given = self.term is not None or bool(self.form_key)
        if (self.term is not None and self.term.discriminator) or (self.name == "adversarial" and given):
            raise ValueError("the adversarial term has no term=: its name and the method's adversary say it")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the student's training, with a schedule and an optimiser of its own.

    Attributes:
        terms: The terms of its loss; a term of weight 0 is not computed.
        quantizer: How the student's weights are quantised in it; empty for full precision.

    Raises:
        ValueError: It has no terms, or two of one name.
    """

    terms: tuple[WeightedTerm, ...]
    quantizer: str = ""

    def __post_init__(self) -> None:
        names = [term.name for term in self.terms]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a stage needs terms, each of a name of its own; it has {names or 'none'}")


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """What the discriminator of a method is.

    Attributes:
        tap: What it judges: the "logits", or the "descriptor" (the pooled features before the classifier).
        hidden: Widths of its hidden layers; empty for two of the width of what it judges.
        category: Whether it can classify too, and with the key `loss.category` does.
        dropout: Whether the student's side passes a dropout before it is judged.
    """

    tap: str = "logits"
    hidden: tuple[int, ...] = ()
    category: bool = True
    dropout: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that change this discriminator, beside those of the adversarial term."""
        return ("loss.category",) * self.category + ("discriminator.dropout",) * self.dropout


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to train the student.

    Attributes:
        stages: One, or two of which the first takes `student.first_stage` times `student.epochs`.
        adversary: The discriminator of its adversarial term, if it has one.
        summary: One line for `hkrun keys`.
        keys: The keys that it brings along for the weights of its terms and their warm-ups.

    Raises:
        ValueError: It has another number of stages, only one of adversary and adversarial term, or keys that
            weigh nothing.
    """

    stages: tuple[Stage, ...]
    adversary: Adversary | None = None
    summary: str
    keys: tuple[Key, ...] = ()

    def __post_init__(self) -> None:
        weighted = [term for stage in self.stages for term in stage.terms]
        if len(self.stages) not in (1, 2):
            raise ValueError(f"a method has one stage or two; it has {len(self.stages)}")
        if (self.adversary is not None) != any(term.name == "adversarial" for term in weighted):
            raise ValueError("a method has an adversary and a term named 'adversarial', or neither")
        read = {key for term in weighted for key in (term.weight, term.warmup)}
        idle = [key.name for key in self.keys if key.name not in read]
        if idle:
            raise ValueError(
                f"no term has the weight {' or '.join(idle)}; a term's own keys are its to declare"
            )

    @property
    def own_terms(self) -> tuple[Term, ...]:
        """The terms that it holds, beside those that it names."""
        return tuple(term.term for stage in self.stages for term in stage.terms if term.term is not None)

    @property
    def own_keys(self) -> tuple[Key, ...]:
        """The keys that it brings along, for weights and in its terms."""
        return tuple(dict.fromkeys([*self.keys, *(key for term in self.own_terms for key in term.own_keys)]))

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the keys that it reads, for weights and in its own terms."""
        weights = [
            key for stage in self.stages for term in stage.terms for key in (term.weight, term.warmup) if key
        ]
        held = [key for term in self.own_terms for key in term.key_names]
        return tuple(dict.fromkeys([*(key for key in weights if isinstance(key, str)), *held]))

    @property
    def source_modules(self) -> frozenset[str]:
        """The modules that the functions of its terms are in."""
        return frozenset(module for term in self.own_terms for module in term.source_modules)


CROSS_ENTROPY = WeightedTerm(name="cross_entropy")
KD = (
    WeightedTerm(name="cross_entropy", weight="loss.alpha", complement=True),
    WeightedTerm(name="kd", weight="loss.alpha"),
)


def _quantized(quantizer: str) -> Stage:
    return Stage(terms=(CROSS_ENTROPY,), quantizer=quantizer)


METHODS = MappingProxyType(
    {
        "hksanc": Method(
            summary="lambda_1 L_b + lambda_2 L_adv + lambda_3 L_is, eq. (3) of the HKSANC paper; L2-Ba is "
            "L_b alone (lambda_2 = lambda_3 = 0)",
            stages=(
                Stage(
                    terms=(
                        WeightedTerm(name="backbone", weight="loss.lambda_1"),
                        WeightedTerm(name="adversarial", weight="loss.lambda_2"),
                        WeightedTerm(name="knowledge", weight="loss.lambda_3", form_key="knowledge.form"),
                        WeightedTerm(name="cross_entropy", weight="loss.cross_entropy"),
                        WeightedTerm(name="kd", weight="loss.kd"),
                    )
                ),
            ),
            adversary=Adversary(),
        ),
        "supervised": Method(
            summary="cross-entropy with the labels; no teacher", stages=(Stage(terms=(CROSS_ENTROPY,)),)
        ),
        "kd": Method(
            summary="cross-entropy and the teacher's softened classes (Hinton et al. 2015)",
            stages=(Stage(terms=KD),),
        ),
        "fitnets": Method(
            summary="first the middle stage's features, then kd (Romero et al. 2015)",
            stages=(Stage(terms=(WeightedTerm(name="hint"),)), Stage(terms=KD)),
        ),
        "fsp": Method(
            summary="first the flow between a stage's input and output, then cross-entropy (Yim et al. 2017)",
            stages=(Stage(terms=(WeightedTerm(name="fsp"),)), Stage(terms=(CROSS_ENTROPY,))),
        ),
        "anc": Method(
            summary="lambda_1 L_b + lambda_2 adversarial on the penultimate features, no labels "
            "(Belagiannis et al. 2018)",
            stages=(
                Stage(
                    terms=(
                        WeightedTerm(name="backbone", weight="loss.lambda_1"),
                        WeightedTerm(name="adversarial", weight="loss.lambda_2"),
                    )
                ),
            ),
            adversary=Adversary(tap="descriptor", hidden=(128, 256, 128), category=False, dropout=True),
        ),
        "tscan": Method(
            summary="lambda_1 |l_S - l_T|_1 + lambda_2 adversarial with class outputs (Xu et al. 2018)",
            stages=(
                Stage(
                    terms=(
                        WeightedTerm(name="logits_l1", weight="loss.lambda_1"),
                        WeightedTerm(name="adversarial", weight="loss.lambda_2"),
                    )
                ),
            ),
            adversary=Adversary(),
        ),
        "binary_connect": Method(
            summary="cross-entropy; weights are their signs (Courbariaux et al. 2015)",
            stages=(_quantized("binary_connect"),),
        ),
        "ttq": Method(
            summary="cross-entropy in full precision, then with ternary weights (Zhu et al. 2017)",
            stages=(Stage(terms=(CROSS_ENTROPY,)), _quantized("ttq")),
        ),
        "bwn": Method(
            summary="cross-entropy; weights are scaled signs (Rastegari et al. 2016)",
            stages=(_quantized("bwn"),),
        ),
        "xnor": Method(
            summary="cross-entropy; weights are scaled signs, inputs are signs (Rastegari et al. 2016)",
            stages=(_quantized("xnor"),),
        ),
    }
)

# The methods and forms of knowledge that come with hkrun as files like those of users: by short name, where
# they are. They are imported when they are used.
SHIPPED = ("dkd", "dist", "lskd", "sp", "rkd", "pkt", "cc", "crd", "reviewkd")
SHIPPED_METHODS: Mapping[str, str] = MappingProxyType(
    {name: f"hkrun.modern.{name}:METHOD" for name in SHIPPED}
)
SHIPPED_FORMS: Mapping[str, str] = MappingProxyType({name: f"hkrun.modern.{name}:FORM" for name in SHIPPED})
# Either name is one configuration, whose identity has the short one.
SHORT_NAMES: Mapping[str, str] = MappingProxyType(
    {place: name for names in (SHIPPED_METHODS, SHIPPED_FORMS) for name, place in names.items()}
)

# The keys that weigh a term, name it or change it: which of them change a cell, its terms say.
TERM_KEYS = frozenset(
    [key for term in TERMS.values() for key in term.key_names]
    + [key for method in METHODS.values() if method.adversary for key in method.adversary.keys]
    + [
        key
        for method in METHODS.values()
        for stage in method.stages
        for term in stage.terms
        for key in (term.weight, term.form_key)
        if isinstance(key, str) and key
    ]
)

Declared = TypeVar("Declared", Method, Term)


def find_method(name: str) -> Method:
    """A method by its name: one of hkrun's, or `package.module:name`.

    Raises:
        InputError: There is none.
    """
    return METHODS[name] if name in METHODS else _load(name, SHIPPED_METHODS, Method)


def find_form(name: str) -> Term:
    """A form of knowledge, likewise.

    Raises:
        InputError: There is none.
    """
    return TERMS[name] if name in FORMS else _load(name, SHIPPED_FORMS, Term)


# The keys that can name a part of the user's own that is declared, and what finds it.
DECLARING: Mapping[str, Callable[[str], Method | Term]] = MappingProxyType(
    {"method": find_method, "knowledge.form": find_form}
)


def find_declared(name: str) -> Method | Term:
    """What is declared under a short name of `SHIPPED_METHODS` or `SHIPPED_FORMS`, or `package.module:name`.

    Raises:
        InputError: There is none.
    """
    place = {**SHIPPED_FORMS, **SHIPPED_METHODS}.get(name, name)
    found = load_attribute(place)
    return find_form(place) if isinstance(found, Term) else find_method(place)


def _load(name: str, shipped: Mapping[str, str], kind: type[Declared]) -> Declared:
    place = shipped.get(name, name)
    what = f"hkrun.{'methods' if kind is Method else 'terms'}.{kind.__name__}"
    if not is_own(place):
        raise InputError(f"{name!r}: there is no such {'method' if kind is Method else 'form of knowledge'}")
    found = load_attribute(place)
    if not isinstance(found, kind):
        raise InputError(f"{name}: must be a {what}; it is of type {type(found).__name__}")
    if isinstance(found, Method) and any(stage.quantizer for stage in found.stages):
        raise InputError(f"{name}: quantizer: only methods of hkrun's own quantise")
    if isinstance(found, Term) and found.discriminator:
        raise InputError(
            f"{name}: discriminator: a form of knowledge has none; a method's term 'adversarial' does"
        )
    return found


def declaration_document(found: Method | Term) -> dict[str, object]:
    """A declaration as JSON holds it; `restore_declaration` is the inverse."""
    return dataclasses.asdict(found)


def restore_declaration(document: Mapping[str, Any]) -> Method | Term:
    """A method or term from its document, without its module."""
    return _restore_method(document) if "stages" in document else _restore_term(document)


def _restore_method(document: Mapping[str, Any]) -> Method:
    stages = tuple(
        Stage(**{**stage, "terms": tuple(_restore_weighted(term) for term in stage["terms"])})
        for stage in document["stages"]
    )
    adversary = document["adversary"]
    restored = {
        "stages": stages,
        "adversary": None if adversary is None else Adversary(**_freeze(adversary)),
        "keys": tuple(Key(**_freeze(key)) for key in document["keys"]),
    }
    return Method(**{**document, **restored})


def _restore_weighted(document: Mapping[str, Any]) -> WeightedTerm:
    term = document["term"]
    return WeightedTerm(**{**document, "term": None if term is None else _restore_term(term)})


def _restore_term(document: Mapping[str, Any]) -> Term:
    keys = tuple(key if isinstance(key, str) else Key(**_freeze(key)) for key in document["keys"])
    return Term(**{**_freeze(document), "keys": keys})


def _freeze(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in document.items()}
