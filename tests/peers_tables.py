"""Prints how often hkrun and its peers are right on the same simulated runs: part of `make statistics`.

rliable itself is in no environment of this project. Its intervals, percentiles of bootstraps, are computed
here as it computes them; tests/test_stats_peers.py holds that against its own figures.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats
from curve_models import MODELS
from statistics_tables import STUDIES, print_table, s2_of, share

from hkrun.stats import (
    LEVEL,
    Floats,
    analyse_deviation,
    analyse_pair_stability,
    compare_deviation,
    paired_difference,
    summarise_errors,
)

_SEED = 0
_RESAMPLES = 1_000
_PERMUTATIONS = 999
RUNS = (5, 10, 20)
Ends = tuple[float, float]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]

# Standardised: mean 0, standard deviation 1.
SHAPES: dict[str, Draw] = {
    "normal": lambda generator, shape: generator.standard_normal(shape),
    "exponential": lambda generator, shape: generator.exponential(1, shape) - 1,
}


def weigh(runs: int, generator: np.random.Generator) -> Floats:
    """How often each resample of a bootstrap has each run: [resamples, runs]."""
    return generator.multinomial(runs, np.full(runs, 1 / runs), _RESAMPLES).astype(np.float64)


def percentiles(values: Floats) -> Ends:
    """The middle 95 %."""
    low, high = np.quantile(values, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def holding(intervals: Sequence[Ends | None], truth: float) -> str:
    """How many intervals hold the truth, in %."""
    return share(ends is not None and ends[0] <= truth <= ends[1] for ends in intervals)


def bca(values: Floats, figure: Callable[..., Floats], generator: np.random.Generator) -> Ends:
    """SciPy's own choice of an interval."""
    found = scipy.stats.bootstrap((values,), figure, n_resamples=_RESAMPLES, rng=generator)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def sd_of(values: Floats, axis: int = -1) -> Floats:
    """Standard deviation with ddof 1."""
    return values.std(axis=axis, ddof=1)


def cover_means(shape: str, runs: int) -> list[str]:
    """Intervals of the mean of a cell."""
    generator = np.random.default_rng(_SEED)
    studies = SHAPES[shape](generator, (STUDIES, runs))
    return [
        shape,
        str(runs),
        holding([summarise_errors(errors).ci95 for errors in studies], 0.0),
        holding([percentiles(weigh(runs, generator) @ errors / runs) for errors in studies], 0.0),
        holding([bca(errors, np.mean, generator) for errors in studies[: STUDIES // 2]], 0.0),
    ]


def cover_deviations(shape: str, runs: int) -> list[str]:
    """Intervals of the standard deviation over runs."""
    generator = np.random.default_rng(_SEED)
    studies = SHAPES[shape](generator, (STUDIES, runs))
    chi_square = np.sqrt((runs - 1) / scipy.stats.chi2.ppf([1 - LEVEL / 2, LEVEL / 2], runs - 1))
    return [
        shape,
        str(runs),
        holding([analyse_deviation(errors).ci95 for errors in studies], 1.0),
        holding([tuple(errors.std(ddof=1) * chi_square) for errors in studies], 1.0),
        holding([bca(errors, sd_of, generator) for errors in studies[: STUDIES // 2]], 1.0),
    ]


def cover_s2(name: str, runs: int) -> list[str]:
    """Intervals of S2, over 20 epochs."""
    generator = np.random.default_rng(_SEED)
    expected = float(s2_of(MODELS[name].draw((3 * STUDIES, 6, 20), generator)).mean())
    studies = MODELS[name].draw((STUDIES, runs, 20), generator)
    return [
        name,
        str(runs),
        holding([analyse_pair_stability(errors, window=20).ci95 for errors in studies], expected),
        holding([percentiles(resample_s2(errors, generator)) for errors in studies], expected),
    ]


def resample_s2(errors: Floats, generator: np.random.Generator) -> Floats:
    """S2 of each resample of the runs; a run that is drawn twice makes pairs with itself."""
    variances = np.abs(errors[:, None] - errors).var(axis=2)
    drawn = weigh(len(errors), generator)
    pairs = len(errors) * (len(errors) - 1)
    return np.einsum("ri,ij,rj->r", drawn, variances, drawn) / pairs


def differ(d_z: float, runs: int) -> list[str]:
    """Tests of equal errors on common seeds, whose variance is half of that of a run."""
    generator = np.random.default_rng(_SEED)
    seeds = generator.standard_normal((STUDIES, 1, runs))
    pairs = (seeds + generator.standard_normal((STUDIES, 2, runs))) / np.sqrt(2)
    pairs[:, 0] += d_z  # the differences have a standard deviation of 1
    return [
        f"{d_z:g}",
        str(runs),
        share(
            paired_difference(*pair, permutations=_PERMUTATIONS, generator=generator).p <= LEVEL
            for pair in pairs
        ),
        share(scipy.stats.ttest_rel(*pair).pvalue <= LEVEL for pair in pairs),
        share(scipy.stats.wilcoxon(*pair).pvalue <= LEVEL for pair in pairs),
        share(not low <= 0.5 <= high for low, high in (improve(*pair, generator) for pair in pairs)),
    ]


def improve(first: Floats, second: Floats, generator: np.random.Generator) -> Ends:
    """rliable's interval of its probability of improvement, which leaves the pairing out."""
    below = (first[:, None] < second).astype(np.float64)
    ones, others = (weigh(len(first), generator) for _ in range(2))
    return percentiles(np.einsum("ri,ij,rj->r", ones, below, others) / below.size)


def spread(shape: str, ratio: float, runs: int) -> list[str]:
    """Tests of equal standard deviations over runs."""
    generator = np.random.default_rng(_SEED)
    pairs = SHAPES[shape](generator, (STUDIES, 2, runs)) * np.array([ratio, 1.0])[:, None]
    ours = [compare_deviation(*pair).p for pair in pairs]
    return [
        shape,
        f"{ratio:g}",
        str(runs),
        share(p is not None and p <= LEVEL for p in ours),
        share(scipy.stats.levene(*pair).pvalue <= LEVEL for pair in pairs),
        share(scipy.stats.bartlett(*pair).pvalue <= LEVEL for pair in pairs),
    ]


def main() -> None:
    """Prints all tables."""
    bootstrap, own = "percentile bootstrap (rliable)", "BCa bootstrap (SciPy)"
    shapes = [(shape, runs) for shape in SHAPES for runs in RUNS]
    print_table(
        "95 % intervals of the mean that hold it, %",
        ["errors", "runs", "hkrun: t (statsmodels, SciPy)", bootstrap, own],
        (cover_means(*row) for row in shapes),
    )
    print_table(
        "95 % intervals of the standard deviation over runs that hold it, %",
        ["errors", "runs", "hkrun: jackknife", "chi-square", own],
        (cover_deviations(*row) for row in shapes),
    )
    print_table(
        "95 % intervals of S2 that hold it, %",
        ["model", "runs", "hkrun: jackknife", bootstrap],
        (cover_s2(name, runs) for name in ("digits", "CIFAR-10 of table 5", "uneven noise") for runs in RUNS),
    )
    print_table(
        "Differences that are found at 5 %, %",
        ["d_z", "runs", "hkrun: sign flips", "t (SciPy)", "Wilcoxon (SciPy)", "P(improvement) (rliable)"],
        (differ(d_z, runs) for d_z in (0.0, 1.0) for runs in (6, 10, 20)),
    )
    print_table(
        "Standard deviations called different at 5 %, %",
        ["errors", "ratio", "runs", "hkrun: jackknife", "Levene (SciPy)", "Bartlett (SciPy)"],
        (spread(shape, ratio, runs) for shape in SHAPES for ratio in (1.0, 2.0) for runs in RUNS),
    )


if __name__ == "__main__":
    main()
