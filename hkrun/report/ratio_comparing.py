"""Sets S2 and standard deviations over seeds of cells over those of the reference, as a table of tests."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from hkrun import stats
from hkrun.report.comparing import (
    common_seeds,
    identify_test,
    join_losses,
    lost_in_common,
    pair_curves,
    pair_windows,
    reserve_curves,
)
from hkrun.report.comparison import Comparison, Ratio, WithinFactor
from hkrun.report.families import Families
from hkrun.report.monitoring import Tested, factor_over_looks, ratio_over_looks
from hkrun.report.summary import CellSummary, Curve
from hkrun.spaces import Sweep

_WITHIN = "s2 within a factor"


def compare_ratios(
    measure: str,
    cells: Sequence[CellSummary],
    reference: CellSummary | None,
    sweep: Sweep,
    families: Families,
) -> tuple[Ratio, ...]:
    """Sets S2 ("s2") or the standard deviation over seeds ("deviation") of every cell over the reference's.

    All are one table of tests, and those of S2 within a factor, where the search space sets one, another; a
    pair without common data is left out. What holds of a comparison of S holds
    of these: nothing is concluded where a common seed has no result in one of the two.
    """
    if reference is None:
        return ()
    compare = _compare_s2 if measure == "s2" else _compare_deviations
    found = [ratio for cell in cells if (ratio := compare(cell, reference, sweep)) is not None]
    corrected = families.correct({(measure, *ratio.test): ratio.p for ratio in found})
    found = [replace(ratio, p_holm=corrected[measure, *ratio.test]) for ratio in found]
    return tuple(_correct_within(found, families))


def _correct_within(ratios: Sequence[Ratio], families: Families) -> Iterator[Ratio]:
    """The ratios with the tests of equivalence among them corrected as a table."""
    asked = {(_WITHIN, *ratio.test): ratio.within.p for ratio in ratios if ratio.within is not None}
    corrected = families.correct(asked) if asked else {}
    for ratio in ratios:
        within = ratio.within
        if within is not None:
            within = replace(within, p_holm=corrected[_WITHIN, *ratio.test])
        yield replace(ratio, within=within)


def _compare_s2(cell: CellSummary, other: CellSummary, sweep: Sweep) -> Ratio | None:
    pair = pair_windows(cell, other, sweep)
    if pair is None:
        return None
    ratio = _compare_windows(pair, cell, other, sweep)
    return replace(ratio, within=_equate_windows(pair, ratio, sweep))


def _equate_windows(pair: tuple[Curve, Curve], ratio: Ratio, sweep: Sweep) -> WithinFactor | None:
    """Whether S2 is equal within the search space's factor; None where it sets none."""
    factor = sweep.s2_factor
    if factor is None:
        return None
    ours, theirs = pair

    def equate(runs: int, level: float) -> stats.RatioEquivalence:
        return stats.equate_pair_stability(
            *(ours[:runs], theirs[:runs]), factor=factor, window=sweep.window, ddof=sweep.ddof, level=level
        )

    told = None if ratio.reservation else factor_over_looks(equate, ratio.n, ratio.looks)
    if told is None:
        return WithinFactor(factor=factor, ci90=None, p=1.0, p_holm=1.0)
    several = len(ratio.looks.counts) > 1
    return WithinFactor(
        factor=factor,
        ci90=told.ci,
        p=told.p,
        p_holm=told.p,
        p_nominal=told.p_nominal if several else None,
    )


def compare_s2(cell: CellSummary, other: CellSummary, sweep: Sweep) -> Comparison | None:
    """Compares S2 as a claim does, by the test of their ratio; None where there is no S2 on common seeds.

    Nothing is concluded where nothing is of S, and of fewer than three runs.
    """
    pair = pair_windows(cell, other, sweep)
    if pair is None:
        return None
    ratio = _compare_windows(pair, cell, other, sweep)
    ours, theirs = (
        stats.analyse_pair_stability(errors, window=sweep.window, ddof=sweep.ddof).s2 for errors in pair
    )
    return Comparison(
        measure="s2",
        cell=cell.name,
        reference=other.name,
        value=ours,
        reference_value=theirs,
        ci95=ratio.ci95,
        p=ratio.p,
        p_holm=ratio.p_holm,
        looks=ratio.looks,
        p_nominal=ratio.p_nominal,
        p_by_look=ratio.p_by_look,
        test=ratio.test,
        within=_equate_windows(pair, ratio, sweep),
        reservation=ratio.reservation,
        out_of_reach=lost_in_common(cell, other),
        n=ratio.n,
    )


def _compare_windows(pair: tuple[Curve, Curve], cell: CellSummary, other: CellSummary, sweep: Sweep) -> Ratio:
    ours, theirs = pair

    def compare(runs: int, level: float) -> stats.RatioComparison:
        return stats.compare_pair_stability(
            ours[:runs], theirs[:runs], window=sweep.window, ddof=sweep.ddof, level=level
        )

    return _make_ratio(compare, cell, other, reserve_curves("S2", cell, other, sweep))


def _compare_deviations(cell: CellSummary, other: CellSummary, _: Sweep) -> Ratio | None:
    ours, theirs = pair_curves(cell, other, last=1)
    if len(ours) < 2 or cell.cell_id == other.cell_id:
        return None

    def compare(runs: int, level: float) -> stats.RatioComparison:
        return stats.compare_deviation(ours[:runs, -1], theirs[:runs, -1], level=level)

    lost = join_losses(cell.loss, other.loss) if lost_in_common(cell, other) else ""
    return _make_ratio(compare, cell, other, lost)


def _make_ratio(
    compare: Callable[[int, float], stats.RatioComparison],
    cell: CellSummary,
    other: CellSummary,
    reservation: str,
) -> Ratio:
    """The ratio that `compare` finds in the first so many runs, with an interval that leaves out so much."""
    seeds = common_seeds(cell, other)
    looks = cell.monitoring.of_pairs(seeds)
    tested = ratio_over_looks(compare, len(seeds), looks)
    if tested is None:
        few = f"{len(seeds)} runs are too few" if len(seeds) < stats.LEAST_RUNS else "runs do not differ"
        reservation = join_losses(reservation, few)
    ratio = compare(len(seeds), stats.LEVEL).ratio
    if tested is not None and looks.sequential and not reservation and _is_outside(ratio, tested):
        reservation = f"looks at fewer seeds contradict the ratio of all {len(seeds)}, {ratio:.2g}"
    told = None if reservation else tested
    p = 1.0 if told is None else told.p
    return Ratio(
        cell=cell.name,
        reference=other.name,
        ratio=ratio,
        ci95=None if told is None else told.ci,
        p=p,
        p_holm=p,
        looks=looks,
        p_nominal=told.p_nominal if told is not None and len(looks.counts) > 1 else None,
        p_by_look=() if told is None else told.p_by_look,
        test=identify_test(cell.cell_id, other.cell_id),
        reservation=reservation,
        n=len(seeds),
    )


def _is_outside(ratio: float | None, tested: Tested) -> bool:
    """Whether an effect that some look showed is gone, or another, in all runs together."""
    if ratio is None or tested.p == 1:
        return False
    return tested.ci is None or not tested.ci[0] <= ratio <= tested.ci[1]
