"""The methods as data: which loss terms the student minimises, and with which weights."""

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term of the student's loss.

    Attributes:
        name: Its name in the loop and in the curves' columns.
        weight: The key of a cell that holds its weight, or a constant.
        uses_teacher: Whether the term compares the student with the teacher.
    """

    name: str
    weight: str | float
    uses_teacher: bool = True


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to train the student.

    Attributes:
        terms: The terms of its loss; a term of weight 0 is not computed.
        summary: One line for `hkrun keys`.
    """

    terms: tuple[Term, ...]
    summary: str


METHODS = MappingProxyType(
    {
        "hksanc": Method(
            summary="lambda_1 L_b + lambda_2 L_adv + lambda_3 L_is, eq. (3) of the HKSANC paper",
            terms=(
                Term(name="backbone", weight="loss.lambda_1"),
                Term(name="adversarial", weight="loss.lambda_2"),
                Term(name="knowledge", weight="loss.lambda_3"),
            ),
        ),
        "supervised": Method(
            summary="cross-entropy with the labels; no teacher",
            terms=(Term(name="cross_entropy", weight=1.0, uses_teacher=False),),
        ),
    }
)
