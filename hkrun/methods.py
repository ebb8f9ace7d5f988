"""The methods as data: in which stages the student trains, on which loss terms, and with which weights."""

from dataclasses import dataclass
from types import MappingProxyType

from hkrun.terms import TERMS


@dataclass(frozen=True, kw_only=True)
class WeightedTerm:
    """A term with its weight in the loss of a stage.

    Attributes:
        name: Its name in the loop and in the curves' columns.
        weight: The key of a cell that holds its weight, or a constant.
        complement: Whether the weight is one minus that.
        form_key: The key of a cell that names the term of `hkrun.terms`; empty where that has the same name.
    """

    name: str
    weight: str | float = 1.0
    complement: bool = False
    form_key: str = ""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the student's training, with a schedule and an optimiser of its own.

    Attributes:
        terms: The terms of its loss; a term of weight 0 is not computed.
        quantizer: How the student's weights are quantised in it; empty for full precision.
    """

    terms: tuple[WeightedTerm, ...]
    quantizer: str = ""


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
    """

    stages: tuple[Stage, ...]
    adversary: Adversary | None = None
    summary: str


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

# The keys that weigh a term, name it or change it: which of them change a cell, its terms say.
TERM_KEYS = frozenset(
    [key for term in TERMS.values() for key in term.keys]
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
