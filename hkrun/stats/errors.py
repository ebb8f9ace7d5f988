"""Errors of runs: means with intervals, and differences that are paired by seed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hkrun.stats.distributions import t_quantile, t_tail
from hkrun.stats.memory import remembered
from hkrun.stats.permutations import PERMUTATIONS, Floats, p_value, swaps

Interval = tuple[float, float]

LEVEL = 0.05
# Values that vary by less than this share of their difference only do so by rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class ErrorSummary:
    """Errors of the runs of one configuration.

    Attributes:
        mean: Mean, in the unit of the values.
        sd: Standard deviation with ddof = 1; None with one value.
        n: Number of values.
        ci95: 95 % t interval of the mean, within its bounds; None with one value.
    """

    mean: float
    sd: float | None
    n: int
    ci95: Interval | None


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Differences of paired runs, value minus reference.

    Attributes:
        difference: Mean difference, in the unit of the values.
        ci95: 95 % t interval of it; None with one pair.
        p: Two-sided sign-flip permutation p of no difference.
        n: Number of pairs.
    """

    difference: float
    ci95: Interval | None
    p: float
    n: int


@dataclass(frozen=True, kw_only=True)
class UnpairedDifference:
    """Difference of the means of runs that share nothing, value minus reference.

    Attributes:
        difference: Of the means, in the unit of the values.
        ci95: 95 % interval of it by Welch's t; None where one side has a single value, or neither varies.
        p: Two-sided, of no difference; None likewise.
        n: Number of values.
        n_reference: Number of values of the reference.
    """

    difference: float
    ci95: Interval | None
    p: float | None
    n: int
    n_reference: int


def summarise_errors(values: ArrayLike, *, bounds: Interval | None = None) -> ErrorSummary:
    """Mean, standard deviation and 95 % t interval of the errors of one configuration's runs.

    With two runs the t interval is 12.7 standard errors wide on either side, and may leave the range of
    errors. What lies outside is cut off: no mean is there, so the interval holds the true one as often as
    before.

    Args:
        values: One error per run, shape [runs].
        bounds: Between which values an error, and so its mean, can be.

    Raises:
        ValueError: No value, or one that is not finite.
    """
    errors = finite_vector(values)
    sd = float(errors.std(ddof=1)) if len(errors) > 1 else None
    ci95 = t_interval(errors)
    if ci95 is not None and bounds is not None:
        ci95 = max(ci95[0], bounds[0]), min(ci95[1], bounds[1])
    return ErrorSummary(mean=float(errors.mean()), sd=sd, n=len(errors), ci95=ci95)


@remembered(PairedDifference)
def paired_difference(
    values: ArrayLike,
    reference_values: ArrayLike,
    *,
    permutations: int = PERMUTATIONS,
    generator: np.random.Generator,
    level: float = LEVEL,
) -> PairedDifference:
    """Compares the errors of two configurations whose runs are paired by seed.

    Args:
        values: One error per run, shape [runs].
        reference_values: The same of the reference, seed for seed.
        permutations: Number m of random sign flips; p = (b + 1) / (m + 1) with b of them as extreme as the
            data. Where there are no more than m (2^runs), all are taken, and p is their exact share.
        generator: Draws the flips where they are not all taken.
        level: What the interval leaves out in all.

    Raises:
        ValueError: Lengths that differ, no value, or one that is not finite.
    """
    first, second = finite_vector(values), finite_vector(reference_values)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values and {len(second)} reference values are not paired")
    differences = first - second
    flipped, all_taken = swaps(len(differences), permutations, generator)
    turned = np.concatenate([part @ differences for part in flipped])
    means = (differences.sum() - 2 * turned) / len(differences)
    p = p_value(np.abs(means), abs(float(differences.mean())), all_taken)
    return PairedDifference(
        difference=float(differences.mean()),
        ci95=t_interval(differences, level=level),
        p=p,
        n=len(differences),
    )


def unpaired_difference(values: ArrayLike, reference_values: ArrayLike) -> UnpairedDifference:
    """Compares the errors of two configurations whose runs have nothing in common: Welch's t test (1947).

    The degrees of freedom are those of Welch and Satterthwaite: the variances may differ. Values that do not
    vary on either side, such as two equal counts of wrong images, tell nothing of the error of their means.

    Args:
        values: One error per run, shape [runs].
        reference_values: The same of the reference, shape [reference runs].

    Raises:
        ValueError: No value, or one that is not finite.
    """
    first, second = finite_vector(values), finite_vector(reference_values)
    difference, ci95, p = float(first.mean() - second.mean()), None, None
    if min(len(first), len(second)) > 1:
        shares = [float(side.var(ddof=1)) / len(side) for side in (first, second)]
        error = float(np.sqrt(sum(shares)))
        if error > _ROUNDING * max(1.0, abs(difference)):
            degrees = sum(shares) ** 2 / (
                shares[0] ** 2 / (len(first) - 1) + shares[1] ** 2 / (len(second) - 1)
            )
            half = t_quantile(1 - LEVEL / 2, degrees) * error
            ci95 = difference - half, difference + half
            p = 2 * t_tail(abs(difference) / error, degrees)
    return UnpairedDifference(difference=difference, ci95=ci95, p=p, n=len(first), n_reference=len(second))


def largest_p(
    differences: ArrayLike,
    bounds: ArrayLike,
    *,
    permutations: int = PERMUTATIONS,
    generator: np.random.Generator,
) -> float:
    """The largest p of paired differences of which some are unknown, whatever these are within their bounds.

    A sign flip is as extreme as the data where the differences that it flips sum to no less than 0, for a
    mean below 0. No difference that rises makes such flips fewer, so p is largest with all of them at the
    bound that speaks against the measured mean; and where the mean changes its sign there, p is 1 in between.

    Args:
        differences: Those that are known, shape [pairs].
        bounds: The lowest and the highest value of each that is not, shape [lost pairs, 2].
        permutations: As `paired_difference`.
        generator: Likewise.

    Raises:
        ValueError: No known difference, one that is not finite, or bounds of another shape.
    """
    known, ends = finite_vector(differences), np.asarray(bounds, dtype=np.float64)
    if ends.ndim != 2 or ends.shape[1] != 2:
        raise ValueError(f"bounds have shape {ends.shape}; a lowest and a highest value each are needed")
    side = np.sign(known.mean())
    worst = np.concatenate([known, ends.max(axis=1) if side < 0 else ends.min(axis=1)])
    if side == 0 or np.sign(worst.mean()) != side:
        return 1.0
    zeros = np.zeros_like(worst)
    return paired_difference(worst, zeros, permutations=permutations, generator=generator).p


def finite_vector(values: ArrayLike) -> Floats:
    """Checked values, one per run.

    Raises:
        ValueError: No value, or one that is not finite.
    """
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not len(vector):
        raise ValueError(f"values have shape {vector.shape}; one per run is needed, at least one")
    if not np.isfinite(vector).all():
        raise ValueError(
            f"values of rows {np.flatnonzero(~np.isfinite(vector)).tolist()} are missing or not finite"
        )
    return vector


def t_interval(values: Floats, *, level: float = LEVEL) -> Interval | None:
    """The interval of the mean that leaves out `level` in all; None with one value."""
    if len(values) < 2:
        return None
    mean = float(values.mean())
    half = float(t_quantile(1 - level / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean - half, mean + half


def spread_behind(ends: Interval, *, n: int, level: float = LEVEL) -> float:
    """The standard deviation of n values of whose mean a t interval leaves out `level` in all."""
    quantile = t_quantile(1 - level / 2, n - 1)
    return (ends[1] - ends[0]) / 2 / quantile * float(np.sqrt(n))
