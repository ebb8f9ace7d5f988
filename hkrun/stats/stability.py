"""Convergence stability S of HKSANC, eq. (10): its value, its interval, and when two may be ranked."""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hkrun.stats.distributions import t_quantile
from hkrun.stats.errors import LEVEL, Interval
from hkrun.stats.memory import remembered
from hkrun.stats.permutations import PERMUTATIONS, Floats, p_value, smallest_runs, swaps

RESAMPLES = 2_000

# Percentage points: a range that varies by less only does so by rounding (30.1 - 29.3 and 10.1 - 9.3 differ).
_ROUNDING_PCT = 1e-12
# Of so many largest values, a choice of at least half of the rows at random nearly always holds one.
_LARGEST = 64
_CODED = 8  # of which a byte says whether a choice has them
_LOWEST_BIT = np.array([0] + [(code & -code).bit_length() - 1 for code in range(1, 1 << _CODED)])


@dataclass(frozen=True, kw_only=True)
class Stability:
    """Convergence stability of one configuration, with what is needed to judge it.

    A constant wide range gives S = 0 as well: read S beside `mean_range` and `within_run_sd`.

    Attributes:
        s: S of eq. (10), in (percentage points) squared, with `ddof`.
        ddof: Delta degrees of freedom of `s` and of `within_run_sd`.
        s_ddof1: S with ddof = 1, which is s * window / (window - 1) where ddof = 0.
        window: Number of last epochs that counted.
        runs: Number of runs. S of different numbers of runs must not be compared: the range grows with them.
        mean_range: Mean over the window of the range across runs, in percentage points.
        within_run_sd: Mean over runs of the standard deviation over the window, in percentage points.
        extreme_runs: Number of runs that S is made of: without all others it would be the same.
        ci95: Approximate 95 % interval, see `analyse_stability`; None with two runs or where S = 0.
        quantum_pct: Step of the error, 100 / number of test images, in percentage points; it inflates S.
    """

    s: float
    ddof: int
    s_ddof1: float
    window: int
    runs: int
    mean_range: float
    within_run_sd: float
    extreme_runs: int
    ci95: Interval | None
    quantum_pct: float | None = None


@dataclass(frozen=True, kw_only=True)
class StabilityComparison:
    """Two S of paired runs, and how often chance alone sets them as far apart.

    Attributes:
        s: S of the first configuration, in (percentage points) squared.
        s_reference: S of the second.
        p: Two-sided permutation p of both being equally stable.
        runs: Number of paired runs.
    """

    s: float
    s_reference: float
    p: float
    runs: int


def stability(error_pct: ArrayLike, *, window: int = 100, ddof: int = 0) -> float:
    """Convergence stability S of HKSANC, eq. (10): the variance over epochs of the error range across runs.

    Args:
        error_pct: Test error in percent, shape [runs, epochs], complete.
        window: Number of last epochs that count.
        ddof: Delta degrees of freedom of the variance, 0 or 1; the paper does not state its own.

    Returns:
        S in (percentage points) squared.

    Raises:
        ValueError: Fewer than two runs, fewer epochs than the window, a window below two, or a value missing.
    """
    errors = last_epochs(error_pct, window=window, ddof=ddof)
    return float(_variance(np.ptp(errors, axis=0)[None], ddof)[0])


@remembered(Stability)
def analyse_stability(
    error_pct: ArrayLike,
    *,
    window: int = 100,
    ddof: int = 0,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
    quantum_pct: float | None = None,
) -> Stability:
    """S with its approximate interval and the figures it must be read with.

    The interval is for the expected S of as many fresh runs. It resamples whole runs as a delete-d jackknife
    does (Shao and Wu 1989): S of subsets without a third of the runs, whose standard deviation times
    sqrt((R - d) / d) is the standard error with R runs; then the log-normal of that relative error, with
    t quantiles of R - 1 degrees of freedom. A bootstrap repeats runs, so its ranges are those of fewer runs:
    that does not do here.

    Measured (2026-11-21, 2 CPU cores) on simulated curves of table 5's magnitudes, 1,000 studies each of
    eight kinds, with 3 to 30 runs and windows of 20 to 100: 91 to 99 % of the intervals hold the expected S,
    fewest where runs have levels with heavy tails and noise of their own. Of percentile bootstrap intervals
    84 to 98 % do, of basic ones 43 to 66 % (400 studies, 5 to 20 runs). No interval knows of a kind of run
    that it has not seen: where one run in twenty collapses, 63 % of the intervals from twenty runs hold.

    Args:
        error_pct: Test error in percent, shape [runs, epochs], complete.
        window: Number of last epochs that count.
        ddof: Delta degrees of freedom of the variances, 0 or 1.
        generator: Draws the subsets where there are too many to take all; unused otherwise.
        resamples: Number of subsets at most.
        quantum_pct: Step of the error, 100 / number of test images, kept for the report.

    Raises:
        ValueError: As `stability`.
    """
    errors = last_epochs(error_pct, window=window, ddof=ddof)
    runs = len(errors)
    s = stability(errors, window=window, ddof=ddof)
    return Stability(
        s=s,
        ddof=ddof,
        s_ddof1=stability(errors, window=window, ddof=1),
        window=window,
        runs=runs,
        mean_range=float(np.ptp(errors, axis=0).mean()),
        within_run_sd=float(errors.std(axis=1, ddof=ddof).mean()),
        extreme_runs=len({*errors.argmax(axis=0).tolist(), *errors.argmin(axis=0).tolist()}),
        ci95=_stability_interval(errors, s=s, ddof=ddof, resamples=resamples, generator=generator),
        quantum_pct=quantum_pct,
    )


@remembered(StabilityComparison)
def compare_stability(
    error_pct: ArrayLike,
    reference_pct: ArrayLike,
    *,
    window: int = 100,
    ddof: int = 0,
    permutations: int = PERMUTATIONS,
    generator: np.random.Generator,
) -> StabilityComparison:
    """Tests whether two configurations are equally stable, by swapping their labels within each seed.

    The statistic is |S_1 - S_2| / (S_1 + S_2), which orders as |log(S_1 / S_2)| does and has no pole. S does
    not see a curve that all runs of a configuration share, but permutations would mix two of them: so each
    configuration's median curve is taken off first.

    Measured (2026-11-21, 2 CPU cores) on simulated curves whose levels differ, 500 to 1,000 studies each:
    equal S are told apart at p <= 0.05 in 1 to 7 % of the studies with 6 to 20 runs (without taking the
    median curves off: in 7 to 10 % where the levels are 0.7 points apart). With twenty runs, twice the S is
    seen in 19 % of the studies and four times in 49 % where the runs' levels decide who is extreme, as on
    CIFAR in table 5; in 61 % and all where noise does.

    Args:
        error_pct: Test error in percent, shape [runs, epochs], complete.
        reference_pct: The same of the other configuration, row for row with the same seeds.
        window: Number of last epochs that count.
        ddof: Delta degrees of freedom of the variance, 0 or 1.
        permutations: Number m of random permutations; p = (b + 1) / (m + 1) with b of them as extreme as the
            data. Where there are no more than m (2^runs), all are taken, and p is their exact share.
        generator: Draws the permutations where they are not all taken.

    Raises:
        ValueError: As `stability`, or shapes that differ.
    """
    first = last_epochs(error_pct, window=window, ddof=ddof)
    second = last_epochs(reference_pct, window=window, ddof=ddof)
    if first.shape != second.shape:
        raise ValueError(
            f"{len(first)} and {len(second)} runs: S compares the same seeds in both configurations"
        )
    runs = len(first)
    ranges = _Ranges(np.concatenate([first - np.median(first, axis=0), second - np.median(second, axis=0)]))
    swapped, all_taken = swaps(runs, permutations, generator)
    permuted = []
    for part in swapped:
        both = ranges.of_both(np.concatenate([~part, part], axis=1))
        permuted.append([_variance(side, ddof) for side in both])
    ones, others = map(np.concatenate, zip(*permuted, strict=True))
    s, s_reference = stability(first, window=window, ddof=ddof), stability(second, window=window, ddof=ddof)
    p = p_value(_contrast(ones, others), float(_contrast(np.float64(s), np.float64(s_reference))), all_taken)
    return StabilityComparison(s=s, s_reference=s_reference, p=p, runs=runs)


def ranking_obstacle(comparison: StabilityComparison, *, p_holm: float | None = None) -> str | None:
    """Says why two S must not be ranked, or nothing where they may be.

    Intervals are not asked: two of them may overlap where the paired test tells their S apart.

    Args:
        comparison: The two S.
        p_holm: The corrected p where a table compares several pairs (`holm`).

    Returns:
        The reason as part of a sentence, or None.
    """
    smallest = 2.0 ** (1 - comparison.runs)
    if smallest > LEVEL:
        needed = smallest_runs(LEVEL)
        return f"{comparison.runs} runs are too few: p cannot be below {smallest:.2g}; {needed} are needed"
    name, p = ("permutation p", comparison.p) if p_holm is None else ("Holm p", p_holm)
    return f"{comparison.runs} runs cannot tell them apart ({name} = {p:.2g})" if p > LEVEL else None


def last_epochs(error_pct: ArrayLike, *, window: int, ddof: int) -> Floats:
    """The checked matrix, cut to the window: [runs, window]."""
    errors = np.asarray(error_pct, dtype=np.float64)
    if errors.ndim != 2:
        raise ValueError(f"errors have shape {errors.shape}; S needs [runs, epochs]")
    runs, epochs = errors.shape
    if ddof not in (0, 1):
        raise ValueError(f"ddof is {ddof}; 0 and 1 are allowed")
    if runs < 2:
        raise ValueError(f"{runs} run: S is the variance of a range across runs and needs at least 2")
    if window < 2:
        raise ValueError(f"the window is {window}; S is a variance over epochs and needs at least 2")
    if epochs < window:
        raise ValueError(f"{epochs} epochs are fewer than the window of {window}")
    missing = np.argwhere(~np.isfinite(errors))
    if len(missing):
        row, column = missing[0]
        raise ValueError(
            f"{len(missing)} values are missing or not finite, the first in row {row}, column {column}; "
            "leave a run out whole where it is incomplete"
        )
    return errors[:, -window:]


def _variance(ranges: Floats, ddof: int) -> Floats:
    s = ranges.var(axis=1, ddof=ddof)
    return np.where(s < _ROUNDING_PCT**2, 0.0, s)


class _Ranges:
    """The ranges over choices of rows: errors of shape [rows, window]."""

    def __init__(self, errors: Floats) -> None:
        self._sides = _Ranking(errors), _Ranking(-errors)

    def of(self, taken: NDArray[np.bool_]) -> Floats:
        """Of each choice at each epoch: taken of shape [choices, rows] -> [choices, window]."""
        largest, smallest = (side.largest(taken) for side in self._sides)
        return largest + smallest

    def of_both(self, taken: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """As `of`, and the same of the rows that each choice leaves."""
        largest, smallest = (side.largest_of_both(taken) for side in self._sides)
        return largest[0] + smallest[0], largest[1] + smallest[1]


class _Ranking:
    """The rows of the largest values at each epoch, from the largest on.

    As a choice of rows has a good part of them, its own largest comes soon: the time to find it hardly
    depends on the number of rows.

    Args:
        values: Shape [rows, window].
    """

    def __init__(self, values: Floats) -> None:
        few = min(len(values), _LARGEST)
        largest = np.argpartition(-values, few - 1, axis=0)[:few]
        order = np.argsort(-np.take_along_axis(values, largest, axis=0), axis=0)
        self._values = values
        self._rows = np.take_along_axis(largest, order, axis=0)
        first = np.take_along_axis(values, self._rows[:_CODED], axis=0)
        self._all = np.uint8((1 << len(first)) - 1)
        self._by_code = first[_LOWEST_BIT[: 1 << len(first)]]  # [codes, window]
        self._epochs = np.arange(values.shape[1])

    def largest(self, taken: NDArray[np.bool_]) -> Floats:
        """The largest value at each epoch of each choice of rows.

        Args:
            taken: Which rows each choice has, at least one each; shape [choices, rows].

        Returns:
            Shape [choices, window].
        """
        return self._find(taken, self._code(taken))

    def largest_of_both(self, taken: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """As `largest`, and the same of the rows that each choice leaves, at least one each."""
        codes = self._code(taken)
        return self._find(taken, codes), self._find(~taken, codes ^ self._all)

    def _code(self, taken: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Bit r: the choice has the row of rank r; shape [choices, window]."""
        has = taken.view(np.uint8)
        codes = np.zeros((len(taken), len(self._epochs)), dtype=np.uint8)
        for rank, rows in enumerate(self._rows[:_CODED]):
            codes |= np.take(has, rows, axis=1) << np.uint8(rank)
        return codes

    def _find(self, taken: NDArray[np.bool_], codes: NDArray[np.uint8]) -> Floats:
        # `self._by_code[codes, epochs]`, in half the time.
        places = np.multiply(codes, codes.shape[1], dtype=np.intp)
        places += self._epochs
        found: Floats = np.take(self._by_code, places)
        choices, epochs = np.divmod(np.flatnonzero(codes == 0), codes.shape[1])
        for rows in self._rows[_CODED:]:
            if not len(epochs):
                return found
            mine = rows[epochs]
            found[choices, epochs] = self._values[mine, epochs]
            waiting = ~taken[choices, mine]
            choices, epochs = choices[waiting], epochs[waiting]
        for choice, epoch in zip(choices, epochs, strict=True):  # it has none of the largest
            found[choice, epoch] = self._values[taken[choice], epoch].max()
        return found


def _stability_interval(
    errors: Floats, *, s: float, ddof: int, resamples: int, generator: np.random.Generator
) -> Interval | None:
    runs = len(errors)
    if runs < 3 or s == 0:
        return None
    left_out = runs // 3
    subsets = _subsets(runs, runs - left_out, resamples, generator)
    of_subsets = _variance(_Ranges(errors).of(subsets), ddof)
    standard_error = float(of_subsets.std()) * np.sqrt((runs - left_out) / left_out)
    # The log-normal whose standard deviation is this share of its mean: for small shares the share itself.
    log_sd = np.sqrt(np.log1p((standard_error / s) ** 2))
    factor = float(np.exp(t_quantile(1 - LEVEL / 2, runs - 1) * log_sd))
    return s / factor, s * factor


def _subsets(runs: int, size: int, count: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """All subsets of `size` runs, or `count` random ones where there are more: [subsets, runs]."""
    if comb(runs, size) <= count:
        members = np.array(list(combinations(range(runs), size)))
        taken = np.zeros((len(members), runs), dtype=np.bool_)
        np.put_along_axis(taken, members, values=True, axis=1)
        return taken
    taken = np.zeros((count, runs), dtype=np.bool_)
    for subset in taken:  # one after another: of thousands of runs the most of a report's memory else
        subset[generator.permutation(runs)[:size]] = True
    return taken


def _contrast(first: Floats | np.float64, second: Floats | np.float64) -> Floats:
    total = np.asarray(first + second)
    return np.divide(np.abs(first - second), total, out=np.zeros_like(total), where=total > 0)
