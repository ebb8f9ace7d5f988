"""A figure of a cell over that of the reference, as reports have it."""

from dataclasses import dataclass

from hkrun import stats

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """S2, or a standard deviation over seeds, of a cell over that of another, on seeds that both finished.

    Attributes:
        cell: Name of the cell.
        reference: Name of the other.
        ratio: Below 1 where the cell is steadier, or its runs end closer together; None of a reference of 0.
        ci95: Interval of the ratio; None where there is none.
        p: Two-sided, of a ratio of 1; 1 where nothing may be concluded.
        p_holm: `p`, corrected for all comparisons of its table.
        test: Identities of the two sides, in order: names that stand for one configuration share one test.
        reservation: Why nothing may be concluded, as a sentence's part: runs of either side that have no
            result, windows on different epochs, too few runs; empty where it may.
        n: Number of seeds.
    """

    cell: str
    reference: str
    ratio: float | None
    ci95: Interval | None
    p: float
    p_holm: float
    test: tuple[str, ...]
    reservation: str
    n: int

    @property
    def significant(self) -> bool:
        """Whether the two differ at 5 % after Holm's correction."""
        return self.p_holm <= stats.LEVEL
