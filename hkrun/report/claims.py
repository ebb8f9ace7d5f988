"""Judges the paper's claims on a sweep: reproduced, contradicted, or undecided and by how much."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from hkrun import stats
from hkrun.report import comparing
from hkrun.report.comparing import Side
from hkrun.report.comparison import Comparison
from hkrun.report.divergence import compare_rates, find_diverged, identify_rates
from hkrun.report.families import Families, Test
from hkrun.report.forecasts import foresee
from hkrun.report.published import Claim, Published
from hkrun.report.ratio_comparing import compare_s2
from hkrun.report.summary import CellSummary, Scan, Teacher
from hkrun.report.verdict import Verdict
from hkrun.spaces import Sweep

Pair = tuple[str, str]


def judge_claims(
    published: Published,
    sweep: Sweep,
    cells: Mapping[str, CellSummary],
    teachers: Sequence[Teacher],
    scans: Sequence[Scan],
    families: Families,
) -> tuple[Verdict, ...]:
    """Judges the claims of the sweep's tables and those that it names.

    The claims of one kind on one table are one family, see `correct_claims`; a claim that belongs to no table
    is a family of its own. `cells` holds those of other data sets as "NAME on DATASET".

    Returns:
        The verdicts on the claims as published, and after them those on S2.
    """
    claims = [*published.claims_on(sweep), *published.claims_on_s2(sweep)]
    judge = ClaimJudge(published, sweep, cells, teachers, scans, families)
    verdicts: dict[tuple[str, str], Verdict] = {}
    for family in dict.fromkeys((claim.family, claim.kind) for claim in claims):
        judged = judge.judge_family([claim for claim in claims if (claim.family, claim.kind) == family])
        verdicts |= {(name, family[1]): verdict for name, verdict in judged.items()}
    return tuple(verdicts[claim.id, claim.kind] for claim in claims)


class ClaimJudge:
    """Judges claims on the results of one sweep."""

    def __init__(
        self,
        published: Published,
        sweep: Sweep,
        cells: Mapping[str, CellSummary],
        teachers: Sequence[Teacher],
        scans: Sequence[Scan],
        families: Families,
    ) -> None:
        self._families = families
        self._published, self._sweep, self._cells = published, sweep, cells
        self._teachers, self._scans = teachers, scans
        points = [point.difference for scan in scans for point in scan.points]
        self._differences = [difference for difference in points if difference is not None]

    def judge_family(self, family: Sequence[Claim]) -> dict[str, Verdict]:
        """The verdicts on claims whose tests are corrected together, by the claims' ids."""
        wanted = {(claim.id, pair): found for claim in family for pair, found in self._compare(claim)}
        found = {key: comparison for key, comparison in wanted.items() if comparison is not None}
        tests = comparing.bound_by(self._differences, correct_claims(found, self._families))
        corrected = dict(zip(found, tests, strict=True))
        num_claims = self._families.size(len({name for name, _ in found}))
        num_tests = self._families.size(len({comparison.test for comparison in found.values()}))
        verdicts = {}
        for claim in family:
            comparisons = tuple(item for (name, _), item in corrected.items() if name == claim.id)
            missing = tuple(pair for name, pair in wanted if name == claim.id and (name, pair) not in found)
            outcome = decide(comparisons, complete=not missing)
            reservation = self._withhold(claim, comparisons, missing) if outcome != "reproduced" else ""
            condition, divergence = self._find_divergence(claim)
            if divergence:
                outcome = "contradicted"
            verdicts[claim.id] = Verdict(
                claim=claim,
                outcome=outcome,
                condition=condition,
                divergence=divergence,
                comparisons=comparisons,
                missing=missing,
                forecast=foresee(
                    comparisons, num_claims=num_claims, num_tests=num_tests, complete=not missing
                )
                if outcome == "undecided" and not reservation
                else None,
                reservation=reservation if outcome in ("undecided", "not judged") else "",
            )
        return verdicts

    def _compare(self, claim: Claim) -> Iterator[tuple[Pair, Comparison | None]]:
        if claim.kind == "equivalence":
            yield from self._compare_scans(claim)
        for better, worse in claim.pairs:
            if claim.kind in ("stability", "s2"):
                compare = comparing.compare_stability if claim.kind == "stability" else compare_s2
                cell, other = self._cells.get(better), self._cells.get(worse)
                both = compare(cell, other, self._sweep) if cell and other else None
                yield (better, worse), both
            else:
                side, against = self._side(claim, better, worse), self._side(claim, worse, better)
                yield (better, worse), comparing.compare_errors(side, against) if side and against else None

    def _side(self, claim: Claim, name: str, against: str) -> Side | None:
        """The cell of this name, else the teacher that the row stands for, or the gain of A over B."""
        if name in self._cells:
            return comparing.curve_side(self._cells[name], claim.epochs)
        if claim.kind == "error-gain":
            if comparing.OVER not in name:
                return None
            first, second = (self._cells.get(part) for part in name.split(comparing.OVER))
            if first is None or second is None:
                return None
            return comparing.gain_side(name, comparing.cell_side(first), comparing.cell_side(second))
        rows = self._published.tables[claim.table].rows if claim.table in self._published.tables else ()
        student = self._cells.get(against)
        if student is not None and any(row.name == name and row.is_teacher for row in rows):
            found = find_teachers([student], self._teachers)
            return comparing.teacher_side(name, found[0]) if len(found) == 1 else None
        return None

    def _compare_scans(self, claim: Claim) -> Iterator[tuple[Pair, Comparison | None]]:
        """The points of each curve over one of the claim's keys against the point of the default."""
        for point, reference in self._find_points(claim):
            # One-sided: the default is asked whether it is no worse than the other.
            cells = (reference, point) if claim.one_sided else (point, reference)
            comparison = comparing.compare_equivalence(
                *map(comparing.cell_side, cells), margin=self._sweep.margin, one_sided=claim.one_sided
            )
            yield (cells[0].name, cells[1].name), comparison

    def _find_points(self, claim: Claim) -> Iterator[tuple[CellSummary, CellSummary]]:
        """Each point that an equivalence is about, with the point of the default."""
        low, high = claim.between
        for scan in self._scans:
            reference = scan.reference
            if len(scan.keys) > 1 or scan.keys[0] not in claim.keys or reference is None:
                continue
            for point in scan.points:
                (value,) = point.values
                within = isinstance(value, int | float) and low <= value <= high
                if within and point.cell.cell_id != reference.cell_id:
                    yield point.cell, reference

    def _find_divergence(self, claim: Claim) -> tuple[str, str]:
        """Whether runs diverge at a value that is said not to matter, and not at the default: a sign test.

        A seed counts that diverged at one of the two and finished at the other. Without a difference each is
        as likely at either. The p is corrected over the points of the claim by Holm's method.

        Returns:
            The learning rate as a condition, and the runs with their p; empty where they show nothing.
        """
        if claim.kind != "equivalence":
            return "", ""
        pairs = [(r, p) if claim.one_sided else (p, r) for p, r in self._find_points(claim)]
        tests = {identify_rates(*pair): compare_rates(*pair) for pair in pairs}
        corrected = self._families.correct(tests)
        found, rates = [], []
        for cell, other in pairs:
            ours, theirs = find_diverged(cell, other)
            p = corrected[identify_rates(cell, other)]
            if len(ours) > len(theirs) and p <= stats.LEVEL:
                found.append(f"{cell.loss}, and not so with {other.label} (sign test, corrected p = {p:.2g})")
                rates.append(f"{cell.cell.student.learning_rate:g}")
        if not found:
            return "", ""
        return f" at learning rate {' and '.join(dict.fromkeys(rates))}", "; ".join(found)

    def _withhold(self, claim: Claim, comparisons: Sequence[Comparison], missing: Sequence[Pair]) -> str:
        """Why more seeds would not decide: lost runs, windows on different epochs, no drop of the rate."""
        reasons = [comparison.reservation for comparison in comparisons if comparison.withheld]
        names = (part for pair in missing for name in pair for part in name.split(comparing.OVER))
        for cell in (self._cells[name] for name in names if name in self._cells):
            reasons.append(cell.loss)
            if comparing.curve_side(cell, claim.epochs) is None:
                reasons.append(f"the learning rate of {cell.label} never drops")
        return "; ".join(dict.fromkeys(filter(None, reasons)))


def find_teachers(cells: Sequence[CellSummary], teachers: Sequence[Teacher]) -> tuple[Teacher, ...]:
    """The teachers of these cells that the store has, one of each error.

    One pretrained network with attention sub-networks of several widths is several teachers, but one row of a
    table.
    """
    hashes = {record.teacher_hash for cell in cells for record in cell.records if record.teacher_hash}
    first: dict[tuple[float, ...], Teacher] = {}
    for teacher in teachers:
        used = any(trained.hash in hashes for trained in teacher.trained)
        if used and teacher.records:
            first.setdefault(tuple(record.error_pct for record in teacher.records), teacher)
    return tuple(first.values())


def correct_claims(found: Mapping[tuple[str, Pair], Comparison], families: Families) -> list[Comparison]:
    """Corrects the comparisons of a family of claims, by the id of the claim and the pair.

    A claim is reproduced where *all* of its comparisons show what it says. Then the largest of their p is the
    claim's own and needs no correction for their number (intersection-union test, Berger 1982); over several
    claims it is corrected by Holm's method. One that points the other way counts as 1 there, except in a
    claim of one comparison, which is tested two-sided. A claim is contradicted where *any* comparison shows
    the contrary: that is corrected over all tests of the family.

    Returns:
        The comparisons in the same order. Each has the p of what it shows: where that is what the claim says,
        the p that it gives its claim were it the largest, else the one of a contradiction.
    """
    several = {claim for claim, number in Counter(claim for claim, _ in found).items() if number > 1}
    # The only test of a claim is the claim's, so that a study counts it once.
    tests: dict[str, Test] = {
        claim: (item.measure, "claim", claim) if claim in several else (item.measure, *item.test)
        for (claim, _), item in found.items()
    }
    claims: dict[Test, float] = {}
    for (claim, _), item in found.items():
        p = 1.0 if claim in several and _is_contrary(item) else item.p
        claims[tests[claim]] = max(claims.get(tests[claim], 0.0), p)
    families.correct(claims)
    tested = zip(found, families.correct_comparisons(list(found.values())), strict=True)
    return [
        item if _is_contrary(item) else replace(item, p_holm=families.place(claims, tests[claim], item.p))
        for (claim, _), item in tested
    ]


def _is_contrary(comparison: Comparison) -> bool:
    """Whether what was measured can only speak against the claim."""
    return comparison.margin is None and comparison.difference >= 0


def decide(comparisons: Sequence[Comparison], *, complete: bool) -> str:
    """What comparisons say of their claim; without all of its pairs it is never reproduced."""
    if not comparisons:
        return "not judged"
    if any(comparison.opposes for comparison in comparisons):
        return "contradicted"
    reproduced = complete and all(comparison.supports for comparison in comparisons)
    return "reproduced" if reproduced else "undecided"
