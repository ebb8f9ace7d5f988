"""What a sweep says of a claim of the paper."""

from dataclasses import dataclass

from hkrun.report.comparison import Comparison
from hkrun.report.published import Claim


@dataclass(frozen=True, kw_only=True)
class PowerForecast:
    """How many seeds would decide a claim that is undecided, with a probability of 80 %.

    Attributes:
        fewest: So many, were the effects at that end of their 95 % intervals where it takes fewest; None
            where no number up to `limit` does, and where there is a `reason`.
        most: So many at the other end; None where that end decides nothing: the number is not foreseeable.
        limit: The largest number that counts.
        outcome: What `most` would decide: "reproduced" or "contradicted"; empty without it.
        reason: Why there is no number; empty where there is one.
    """

    fewest: int | None
    most: int | None
    limit: int
    outcome: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a sweep says of one claim of the paper.

    Attributes:
        outcome: "reproduced" where every comparison of the claim shows what it says, "contradicted" where one
            shows the contrary, "undecided", or "not judged" where the sweep has no runs for it.
        missing: Pairs of the claim that this sweep has no runs of.
        forecast: Of an undecided one that more seeds may decide.
        reservation: Why more seeds do not decide an undecided one: what its comparisons are withheld for.
        condition: Of one that diverged runs contradict: the learning rate at which they do, " at ...".
        divergence: Which runs those are, and their test.
    """

    claim: Claim
    outcome: str
    comparisons: tuple[Comparison, ...]
    missing: tuple[tuple[str, str], ...]
    forecast: PowerForecast | None
    reservation: str = ""
    condition: str = ""
    divergence: str = ""

    @property
    def statement(self) -> str:
        """What the claim says, and over which epochs it is judged here, but for all and for the last."""
        some = () if self.claim.epochs == "all" else self.comparisons
        epochs = dict.fromkeys(item.epochs for item in some if item.epochs)
        here = f"; here the {' or the '.join(epochs)}" if epochs else ""
        return f"{self.claim.statement}{here}"
