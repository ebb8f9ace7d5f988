"""How steady each cell of a set of curves is, and which of two: by S, by S2, and by where runs end."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hkrun import stats
from hkrun.curve_files.matrices import Curves

# The subsets and permutations of runs behind intervals and tests of S: the same file gives the same ones.
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class CellAnalysis:
    """What the curves of one cell say.

    Attributes:
        s: S of eq. (10), in (percentage points) squared.
        s2: S2, its mean over pairs of runs.
        last: Standard deviation over runs of the last epoch's error, in percentage points.
        epochs: The first and the last epoch of the window.
    """

    s: stats.Stability
    s2: stats.PairStability
    last: stats.Deviation
    epochs: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A figure of a cell over that of another, and its p corrected for all pairs of cells.

    Attributes:
        p_holm: None where there is no test.
    """

    comparison: stats.RatioComparison
    p_holm: float | None

    @property
    def significant(self) -> bool:
        """Whether the two differ at 5 % after Holm's correction."""
        return self.p_holm is not None and self.p_holm <= stats.LEVEL

    @property
    def is_of_few(self) -> bool:
        """Whether one of the two has so few runs that the test may be too bold."""
        return min(self.comparison.n, self.comparison.n_reference) < stats.FEW_RUNS


@dataclass(frozen=True, kw_only=True)
class CellPair:
    """Two cells against each other.

    Attributes:
        s: Their S and the test of both being equally stable; None where seeds differ.
        s_p_holm: Its p corrected for all pairs that are tested.
        obstacle: Why S does not rank them; None where it does.
        s2: S2 of the cell over that of the reference.
        last: The same of the standard deviations over runs of the last epoch's error.
    """

    cell: str
    reference: str
    s: stats.StabilityComparison | None
    s_p_holm: float | None
    obstacle: str | None
    s2: Ratio
    last: Ratio


def analyse_cells(cells: Mapping[str, Curves], *, window: int, ddof: int) -> dict[str, CellAnalysis]:
    """S, S2 and the spread of the last errors of each cell."""
    return {
        cell: CellAnalysis(
            s=stats.analyse_stability(
                curves.error_pct, window=window, ddof=ddof, generator=np.random.default_rng(_SEED)
            ),
            s2=stats.analyse_pair_stability(curves.error_pct, window=window, ddof=ddof),
            last=stats.analyse_deviation(curves.error_pct[:, -1]),
            epochs=(curves.epochs[-window], curves.epochs[-1]),
        )
        for cell, curves in cells.items()
    }


def compare_cells(cells: Mapping[str, Curves], *, window: int, ddof: int) -> list[CellPair]:
    """All pairs of cells: paired where their seeds are the same.

    S of other seeds is not tested; S2 and the standard deviations are, as those of independent runs. The
    tests of one figure are one family.
    """
    pairs = list(combinations(cells, 2))
    paired = {pair: cells[pair[0]].seeds == cells[pair[1]].seeds for pair in pairs}
    tested = {
        (reference, cell): stats.compare_stability(
            cells[cell].error_pct,
            cells[reference].error_pct,
            window=window,
            ddof=ddof,
            generator=np.random.default_rng(_SEED),
        )
        for reference, cell in pairs
        if paired[reference, cell]
    }
    corrected = dict(zip(tested, stats.holm([each.p for each in tested.values()]), strict=True))
    by_s2 = _correct(
        stats.compare_pair_stability(
            cells[cell].error_pct,
            cells[reference].error_pct,
            window=window,
            ddof=ddof,
            paired=paired[reference, cell],
        )
        for reference, cell in pairs
    )
    by_last = _correct(
        stats.compare_deviation(
            cells[cell].error_pct[:, -1], cells[reference].error_pct[:, -1], paired=paired[reference, cell]
        )
        for reference, cell in pairs
    )
    return [
        CellPair(
            cell=cell,
            reference=reference,
            s=tested.get((reference, cell)),
            s_p_holm=corrected.get((reference, cell)),
            obstacle=_find_obstacle(
                tested.get((reference, cell)), corrected.get((reference, cell)), cells[cell], cells[reference]
            ),
            s2=s2,
            last=last,
        )
        for (reference, cell), s2, last in zip(pairs, by_s2, by_last, strict=True)
    ]


def doubt_verdicts(pairs: Sequence[CellPair]) -> list[str]:
    """What is to be said of verdicts on S2 and standard deviations that few runs gave."""
    return [
        doubt
        for ratios, doubt in (
            ([pair.s2 for pair in pairs], stats.S2_OF_FEW),
            ([pair.last for pair in pairs], stats.DEVIATION_OF_FEW),
        )
        if any(ratio.significant and ratio.is_of_few for ratio in ratios)
    ]


def _correct(comparisons: Iterable[stats.RatioComparison]) -> list[Ratio]:
    found = list(comparisons)
    corrected = iter(stats.holm([each.p for each in found if each.p is not None]))
    return [Ratio(comparison=each, p_holm=None if each.p is None else next(corrected)) for each in found]


def _find_obstacle(
    comparison: stats.StabilityComparison | None, p_holm: float | None, cell: Curves, reference: Curves
) -> str | None:
    if comparison is not None:
        return stats.ranking_obstacle(comparison, p_holm=p_holm)
    if len(cell.seeds) != len(reference.seeds):
        return "their numbers of runs differ"
    return "their seeds differ, so no test compares them"
