"""What one cell is against another: in error, in S, and in figures whose ratio counts."""

from dataclasses import dataclass

from hkrun import stats
from hkrun.report.monitoring import ONE_LOOK, Interval, PairedLooks, margin_interval


@dataclass(frozen=True, kw_only=True)
class WithinFactor:
    """Whether the ratio of two figures is shown to lie within a factor.

    Attributes:
        factor: Above 1: between 1 / factor and factor.
        ci90: Interval of the ratio; None where there is none.
        p: Of the two one-sided tests together, over all looks; 1 where nothing may be concluded.
        p_holm: `p`, corrected for all such tests of its table.
        p_nominal: `p` of the present look alone; None where there is no other, and of a sequential study.
    """

    factor: float
    ci90: Interval | None
    p: float
    p_holm: float
    p_nominal: float | None = None

    @property
    def shown(self) -> bool:
        """Whether it stands at 5 % after Holm's correction."""
        return self.p_holm <= stats.LEVEL

    def __str__(self) -> str:
        return f"within a factor of {self.factor:g}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One thing against another, on seeds that both finished.

    Attributes:
        measure: "error": mean paired difference of the last epoch's error in percentage points, with its t
            interval and a sign-flip permutation test; "stability": difference of S in (percentage points)
            squared, with a test that permutes the two cells' labels within each seed; "s2": difference of S2,
            with the interval and the test of their ratio; "equivalence": the
            difference of errors with its 90 % interval and two one-sided t tests against the margin;
            "no worse": the same with the upper one alone.
        cell: Name of the cell, or "A over B" for the error of A minus that of B.
        reference: Name of the one it is compared with.
        value: Mean error, S or S2 of the cell on these seeds.
        reference_value: The same of the reference.
        by_seed: The paired differences of the error, in the order of the seeds.
        looks: After how many pairs they were looked at: p and intervals hold over all looks.
        p_nominal: `p` of the present look alone; None where there is no other, and of a sequential study.
        p_by_look: Of a sequential study, what `p` was at each look so far.
        ci95: Interval of the difference, of "s2" that of the ratio; None where there is none.
        effect: Size of the difference of the error; None where it has no spread.
        p: Two-sided, of no difference; of "equivalence" and "no worse", of not being so.
        p_holm: `p`, corrected for all comparisons of its table.
        p_against: Of "equivalence" and "no worse": of not being the contrary.
        p_against_holm: `p_against`, corrected likewise.
        margin: Of "equivalence" and "no worse": the margin in percentage points.
        within: Of "s2", where the search space asks for it: whether the two are equal within a factor.
        test: Identities of the two sides, in order: names that stand for one configuration share one test.
        epochs: Of which epochs the errors are means, as a sentence's part; empty where of the last alone.
        one_number: Name of the side that is one number and no runs, such as a teacher: a one-sample test.
        reservation: Why these runs do not stand for all, as a sentence's part: runs of either side that have
            no result, windows of S on different epochs, or differences that drift with the seeds. `p` is then
            the largest that any results of the lost runs would give, 1 where there is no such bound, and
            there is neither interval nor effect.
        out_of_reach: Whether lost runs keep all seeds that a plan has left, or ten more, from deciding it.
        n: Number of seeds.
    """

    measure: str
    cell: str
    reference: str
    value: float
    reference_value: float
    by_seed: tuple[float, ...] = ()
    looks: PairedLooks = ONE_LOOK
    p_nominal: float | None = None
    p_by_look: tuple[float, ...] = ()
    ci95: Interval | None = None
    effect: stats.EffectSize | None = None
    p: float
    p_holm: float
    p_against: float = 1.0
    p_against_holm: float = 1.0
    margin: float | None = None
    within: WithinFactor | None = None
    test: tuple[str, ...]
    epochs: str = ""
    one_number: str = ""
    reservation: str = ""
    out_of_reach: bool = False
    n: int

    @property
    def difference(self) -> float:
        """Cell minus reference."""
        return self.value - self.reference_value

    @property
    def ratio(self) -> float | None:
        """Cell over reference; None of a reference of 0."""
        return self.value / self.reference_value if self.reference_value else None

    @property
    def within_pp(self) -> float | None:
        """The smallest margin within which the errors are shown to be equivalent at 5 %.

        It is the end of the 90 % interval of their difference that is farther from 0 (Schuirmann 1987); None
        where there is no interval.
        """
        if self.measure != "error" or self.reservation:
            return None
        interval = margin_interval(self.by_seed, self.looks)
        return max(map(abs, interval)) if interval is not None else None

    @property
    def obstacle(self) -> str | None:
        """Why the two S must not be ranked, as part of a sentence; None where they may be."""
        if self.reservation:
            return self.reservation
        pair = stats.StabilityComparison(
            s=self.value, s_reference=self.reference_value, p=self.p, runs=self.n
        )
        return stats.ranking_obstacle(pair, p_holm=self.p_holm)

    @property
    def significant(self) -> bool:
        """Whether what is tested stands at 5 % after Holm's correction."""
        return self.p_holm <= stats.LEVEL

    @property
    def supports(self) -> bool:
        """Whether it shows that the cell is better, or as good where that is the question."""
        return self.significant and (self.margin is not None or self.difference < 0)

    @property
    def opposes(self) -> bool:
        """Whether it shows the contrary."""
        if self.margin is not None:
            return self.p_against_holm <= stats.LEVEL
        return self.significant and self.difference > 0

    @property
    def decided_after(self) -> int | None:
        """Of a sequential study: the seeds after which a difference stood; None where none stands."""
        return self.looks.decided_after(self.p_by_look, self.p, self.p_holm)

    @property
    def withheld(self) -> bool:
        """Whether there is no verdict, because what is missing could turn it."""
        return bool(self.reservation) and not (self.significant or self.opposes)


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
        looks: After how many pairs they were looked at: p and interval hold over all looks.
        p_nominal: `p` of the present look alone; None where there is no other, and of a sequential study.
        p_by_look: Of a sequential study, what `p` was at each look so far.
        within: Of S2, where the search space asks for it: whether the two are equal within a factor.
        test: Identities of the two sides, in order: names that stand for one configuration share one test.
        reservation: Why nothing may be concluded, as a sentence's part: runs of either side that have no
            result, windows on different epochs, too few runs, looks that contradict the ratio; empty
            where it may.
        n: Number of seeds.
    """

    cell: str
    reference: str
    ratio: float | None
    ci95: Interval | None
    p: float
    p_holm: float
    looks: PairedLooks = ONE_LOOK
    p_nominal: float | None = None
    p_by_look: tuple[float, ...] = ()
    within: WithinFactor | None = None
    test: tuple[str, ...]
    reservation: str
    n: int

    @property
    def significant(self) -> bool:
        """Whether the two differ at 5 % after Holm's correction."""
        return self.p_holm <= stats.LEVEL

    @property
    def steadiness(self) -> str:
        """What S2 says of the cell, in a few words; empty where it leaves it open."""
        if not self.significant or self.ratio is None:
            return ""
        return "steadier" if self.ratio < 1 else "less steady"

    @property
    def verdict(self) -> str:
        """`steadiness`, or that the two are equal within the factor; empty where neither is shown."""
        equal = self.within is not None and self.within.shown
        return self.steadiness or (f"as steady {self.within}" if equal else "")

    @property
    def decided_after(self) -> int | None:
        """Of a sequential study: the seeds after which a difference stood; None where none stands."""
        return self.looks.decided_after(self.p_by_look, self.p, self.p_holm)


@dataclass(frozen=True, kw_only=True)
class RateComparison:
    """How many runs of a cell diverged, and of the reference, on seeds that ended in both.

    Attributes:
        cell: Name of the cell.
        reference: Name of the reference.
        diverged: How many of its runs did.
        reference_diverged: How many of the reference's.
        n: Number of seeds that finished or diverged in both.
        p_holm: Two-sided p of the exact paired test, corrected over all cells that are compared.
        tests: How many these are.
        out_of_reach: Of a sequential study: whether the seeds that its plan has left cannot tell the rates
            apart, were runs to diverge as often in them.
    """

    cell: str
    reference: str
    diverged: int
    reference_diverged: int
    n: int
    p_holm: float
    tests: int
    out_of_reach: bool = False
