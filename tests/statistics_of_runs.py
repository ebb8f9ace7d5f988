"""Prints what disjoint studies of real runs say, beside the study of them all: `make statistics-of-runs`.

    PYTHONPATH=.:tests python tests/statistics_of_runs.py --store STORE [--study NAME] [--size N]

The study's seeds are cut into studies of --size seeds in their order, and each is analysed as if there were
no other.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from statistics_tables import print_table

from hkrun.errors import HkrunError, InputError
from hkrun.plans import find_plan
from hkrun.report import Summary, summarise
from hkrun.stats import (
    LEVEL,
    Floats,
    PairStability,
    RatioComparison,
    StabilityComparison,
    analyse_pair_stability,
    compare_deviation,
    compare_pair_stability,
    compare_stability,
    holm,
    paired_difference,
    stability,
)
from hkrun.stats.errors import PairedDifference
from hkrun.store import open_store

_SEED = 0
Comparison = PairedDifference | RatioComparison | StabilityComparison


@dataclass(frozen=True)
class Runs:
    """Error curves of all cells of a study, in percent, on the seeds that finished in every cell.

    Attributes:
        errors: By cell, shape [seeds, epochs].
        window: Number of last epochs that count.
        ddof: Of the variances over epochs.
        verdicts: What the study finds of each claim of the paper, by its statement.
    """

    errors: dict[str, Floats]
    window: int
    ddof: int
    verdicts: dict[str, str]

    @property
    def seeds(self) -> int:
        """How many."""
        return len(next(iter(self.errors.values())))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every cell with each of those before it, which comes second."""
        return [(cell, reference) for reference, cell in combinations(self.errors, 2)]


def read_studies(place: str, name: str, dataset: str | None, *, size: int | None = None) -> list[Summary]:
    """A stored study, and the disjoint ones of so many of its seeds; what is left over is in none."""
    store = open_store(place, create=False)
    found = find_plan(store, name, dataset)
    sweep, workers = found.sweep, found.workers
    parts: list[tuple[int, ...]] = []
    if size is not None:
        parts = [sweep.seeds[first : first + size] for first in range(0, len(sweep.seeds) - size + 1, size)]
        if size < 2 or len(parts) < 2:
            raise InputError(f"--size {size}: {len(sweep.seeds)} seeds do not make two studies of 2 at least")
    return [
        summarise(replace(sweep, seeds=seeds), store, world_size=workers.world_size)
        for seeds in (sweep.seeds, *parts)
    ]


def collect(summary: Summary) -> Runs:
    """The runs of a study, and what it says of claims."""
    common = sorted(set.intersection(*(set(cell.seeds) for cell in summary.cells)))
    return Runs(
        errors={
            cell.label: cell.error_pct[[cell.seeds.index(seed) for seed in common]] for cell in summary.cells
        },
        window=summary.sweep.window,
        ddof=summary.sweep.ddof,
        verdicts={verdict.claim.statement: verdict.outcome for verdict in summary.verdicts},
    )


# --- what a study says of its cells ----------------------------------------------------------------------


def s_of(runs: Runs, cell: str) -> float:
    """S."""
    return stability(runs.errors[cell], window=runs.window, ddof=runs.ddof)


def s2_of(runs: Runs, cell: str) -> PairStability:
    """S2 with its interval."""
    return analyse_pair_stability(runs.errors[cell], window=runs.window, ddof=runs.ddof)


def print_cells(runs: Runs, parts: Sequence[Runs]) -> None:
    """S and S2 of each cell, of all seeds and of each part."""
    rows = []
    for cell in runs.errors:
        found, whole = [s2_of(part, cell) for part in parts], s2_of(runs, cell)
        within = sum(each.ci95[0] <= whole.s2 <= each.ci95[1] for each in found if each.ci95)
        values = [s_of(part, cell) for part in parts], [each.s2 for each in found]
        rows.append(
            [
                cell,
                f"{s_of(runs, cell):.3g}",
                listed(values[0]),
                f"{spread(values[0]):.2f}",
                f"{whole.s2:.4f}{interval(whole.ci95, 4)}",
                listed(values[1]),
                f"{spread(values[1]):.2f}",
                f"{within} of {len(parts)}",
            ]
        )
    n = runs.seeds
    print_table(
        f"Cells: {len(parts)} studies of {parts[0].seeds} seeds and one of {n}; cv: sd over mean",
        ["cell", f"S of {n}", "S", "cv", f"S2 of {n}", "S2", "cv", f"intervals that hold S2 of {n}"],
        rows,
    )


# --- what a study says of pairs of cells -----------------------------------------------------------------


def error(runs: Runs, cell: str, reference: str) -> PairedDifference:
    """The paired difference of the last errors."""
    last = (runs.errors[name][:, -1] for name in (cell, reference))
    return paired_difference(*last, generator=np.random.default_rng(_SEED))


def s(runs: Runs, cell: str, reference: str) -> StabilityComparison:
    """The two S."""
    pair = runs.errors[cell], runs.errors[reference]
    generator = np.random.default_rng(_SEED)
    return compare_stability(*pair, window=runs.window, ddof=runs.ddof, generator=generator)


def s2(runs: Runs, cell: str, reference: str) -> RatioComparison:
    """The ratio of the two S2."""
    pair = runs.errors[cell], runs.errors[reference]
    return compare_pair_stability(*pair, window=runs.window, ddof=runs.ddof)


def deviation(runs: Runs, cell: str, reference: str) -> RatioComparison:
    """The ratio of the standard deviations of the last errors."""
    return compare_deviation(runs.errors[cell][:, -1], runs.errors[reference][:, -1])


MEASURES: dict[str, Callable[[Runs, str, str], Comparison]] = {
    "error": error,
    "S": s,
    "S2": s2,
    "sd over seeds": deviation,
}


def print_pairs(measure: str, runs: Runs, parts: Sequence[Runs]) -> list[str]:
    """What each study says of each pair of cells by one measure; its pairs are one family (Holm).

    Returns:
        The measure, how many comparisons the parts make, and how many of them have a p up to 5 %, before and
        after the correction.
    """
    compare = MEASURES[measure]
    studies = [[compare(study, *pair) for pair in runs.pairs] for study in (runs, *parts)]
    p_values = [[1.0 if each.p is None else each.p for each in study] for study in studies]
    corrected = [holm(study) for study in p_values]
    rows = []
    for index, (cell, reference) in enumerate(runs.pairs):
        found = [study[index] for study in studies]
        p_holm = [study[index] for study in corrected]
        rows.append(
            [
                f"{cell} against {reference}",
                describe(found[0]),
                p_text(p_holm[0]),
                ", ".join(f"{value(each):.3g}" for each in found[1:]),
                ", ".join(map(p_text, p_holm[1:])),
                " ".join(map(verdict, found[1:], p_holm[1:])),
                held(found),
            ]
        )
    print_table(
        f"Pairs by {measure}: all p after Holm's correction over {len(runs.pairs)} pairs; the last column "
        "but one says what each study concludes, < or > at 5 %, else .; the last, how many of their 95 % "
        f"intervals hold what {runs.seeds} seeds measured",
        ["pair", f"{runs.seeds} seeds", "p", f"{parts[0].seeds} seeds each", "p", "concludes", "hold"],
        rows,
    )
    found = [sum(p <= LEVEL for study in family[1:] for p in study) for family in (p_values, corrected)]
    return [measure, str(len(parts) * len(runs.pairs)), *map(str, found)]


def value(found: Comparison) -> float:
    """The difference or the ratio."""
    if isinstance(found, PairedDifference):
        return found.difference
    if isinstance(found, StabilityComparison):
        return found.s / found.s_reference if found.s_reference else float("nan")
    return float("nan") if found.ratio is None else found.ratio


def describe(found: Comparison) -> str:
    """The difference or the ratio with its interval."""
    if isinstance(found, PairedDifference):
        return f"{found.difference:+.2f} pp{interval(found.ci95, 2)}"
    return f"{value(found):.2f}{interval(interval_of(found), 2)}"


def interval_of(found: Comparison) -> tuple[float, float] | None:
    """Of the difference or the ratio."""
    return None if isinstance(found, StabilityComparison) else found.ci95


def held(found: Sequence[Comparison]) -> str:
    """How many intervals of the studies after the first hold what the first measured."""
    ends = [interval_of(each) for each in found[1:]]
    known = [each for each in ends if each]
    within = sum(low <= value(found[0]) <= high for low, high in known)
    return f"{within} of {len(known)}" if known else ""


def verdict(found: Comparison, p_holm: float) -> str:
    """What a study concludes of a pair."""
    if p_holm > LEVEL:
        return "."
    return "<" if value(found) < (0 if isinstance(found, PairedDifference) else 1) else ">"


def print_verdicts(runs: Runs, parts: Sequence[Runs]) -> None:
    """What each study finds of the paper's claims."""
    print_table(
        "Claims of the paper",
        ["claim", f"{runs.seeds} seeds", f"{parts[0].seeds} seeds each"],
        [
            [claim, outcome, ", ".join(part.verdicts[claim] for part in parts)]
            for claim, outcome in runs.verdicts.items()
        ],
    )


# --- numbers as text -------------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> float:
    """Coefficient of variation."""
    return float(np.std(values, ddof=1) / np.mean(values))


def listed(values: Sequence[float]) -> str:
    """Two digits each."""
    return ", ".join(f"{each:.2g}" for each in values)


def interval(ends: tuple[float, float] | None, digits: int) -> str:
    """The ends in brackets, or nothing."""
    return f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]" if ends else ""


def p_text(p: float) -> str:
    """Two digits, and no more noughts than say something."""
    return "<0.001" if p < 0.001 else f"{p:.2g}"


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Which study is meant."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=layout)
    parser.add_argument("--store", required=True, help="where the runs are")
    parser.add_argument("--study", default="stability", help="which study's (default: %(default)s)")
    parser.add_argument("--dataset", help="on which, where it ran on several")
    return parser


def main() -> None:
    """Prints all tables."""
    parser = make_parser(__doc__)
    parser.add_argument("--size", type=int, default=20, help="seeds of each study (default: %(default)s)")
    given = parser.parse_args()
    try:
        runs, *parts = map(collect, read_studies(given.store, given.study, given.dataset, size=given.size))
    except HkrunError as error:
        parser.error(str(error))
    print_cells(runs, parts)
    counts = [print_pairs(measure, runs, parts) for measure in MEASURES]
    headings = ["by", "made", "p up to 5 %", "after Holm"]
    print_table(f"Comparisons of {parts[0].seeds} seeds", headings, counts)
    print_verdicts(runs, parts)


if __name__ == "__main__":
    main()
