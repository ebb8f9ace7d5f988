"""The loss that these methods' papers minimise: cross-entropy, maybe KD, and their own term beside it."""

from hkrun.methods import Method, Stage, WeightedTerm
from hkrun.terms import Key, Term


def with_labels(
    name: str,
    term: Term,
    *,
    weight: float,
    source: str,
    cross_entropy: float = 1.0,
    kd: bool = False,
    warmup: int | None = None,
) -> Method:
    """NAME.cross_entropy CE + NAME.kd KD + NAME.weight L, each a key of the method.

    Args:
        name: The method's name, and its section of keys.
        term: L.
        weight: What its authors give it.
        source: Where they do.
        cross_entropy: Likewise of the cross-entropy.
        kd: Whether KD may stand beside it; its weight is 0 unless set.
        warmup: Over how many epochs its authors let the weight of L rise; None where they do not.
    """
    weights = [
        Key(f"{name}.cross_entropy", cross_entropy, "Weight of the cross-entropy.", source=source, minimum=0),
        Key(f"{name}.weight", weight, f"Weight of the loss of {name}.", source=source, minimum=0),
    ]
    terms = [WeightedTerm(name="cross_entropy", weight=f"{name}.cross_entropy")]
    own = WeightedTerm(name=name, weight=f"{name}.weight", term=term)
    if warmup is not None:
        doc = "Epochs over which the weight rises evenly; 0: it is whole from the first."
        weights.append(Key(f"{name}.warmup", warmup, doc, source=source, minimum=0))
        own = WeightedTerm(name=name, weight=f"{name}.weight", term=term, warmup=f"{name}.warmup")
    if kd:
        doc = "Weight of KD beside it, see loss.temperature."
        weights.append(
            Key(f"{name}.kd", 0.0, doc, source="RepDistiller's scripts; 1 in its CRD+KD", minimum=0)
        )
        terms.append(WeightedTerm(name="kd", weight=f"{name}.kd"))
    return Method(
        summary=f"cross-entropy and {term.summary}", stages=(Stage(terms=(*terms, own)),), keys=tuple(weights)
    )
