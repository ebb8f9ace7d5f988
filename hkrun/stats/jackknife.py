"""Intervals and tests of figures above zero, from what they are without each run in turn.

A figure such as a variance is skewed, and its standard error follows its size: so all is done with
logarithms. The pseudo-values n log(figure) - (n - 1) log(figure without run i) are taken for independent
values of which the logarithm is the mean (Miller 1968, 1974).
"""

from dataclasses import dataclass

import numpy as np

from hkrun.stats.distributions import t_quantile, t_tail
from hkrun.stats.errors import LEVEL, Interval
from hkrun.stats.permutations import Floats

LEAST_RUNS = 3  # a figure of pairs needs two runs when one is left out
FEW_RUNS = 10  # with fewer the tests are too bold where runs are unequal, or errors skewed
# Logarithms that vary by less only do so by rounding.
_ROUNDING = 1e-10


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """A figure of several runs, and the same without each of them.

    Attributes:
        whole: The figure, at least 0.
        without: The figure without the run of each row, shape [runs]; NaN where one run is no figure.
    """

    whole: float
    without: Floats

    @property
    def has_logarithms(self) -> bool:
        """Whether the figure and all of `without` are above 0 and of enough runs."""
        return len(self.without) >= LEAST_RUNS and self.whole > 0 and bool((self.without > 0).all())


@dataclass(frozen=True, kw_only=True)
class RatioComparison:
    """A figure of one configuration over that of another.

    Attributes:
        ratio: First over second; None where the second is 0.
        ci95: Interval of the ratio, of 95 % or the level asked for; None where a logarithm does not exist.
        p: Two-sided p of a ratio of 1; below the interval's level exactly where that leaves 1 out, None where
            there is none.
        n: Number of runs of the first.
        n_reference: Number of runs of the second.
        paired: Whether the runs are paired by seed.
    """

    ratio: float | None
    ci95: Interval | None
    p: float | None
    n: int
    n_reference: int
    paired: bool


@dataclass(frozen=True, kw_only=True)
class RatioEquivalence:
    """Whether the ratio of two figures lies within a factor.

    Attributes:
        factor: Above 1: the ratio may lie between 1 / factor and factor.
        ci90: Interval of the ratio, of 90 % or the level asked for: within these bounds exactly where the two
            one-sided tests reject; None where a logarithm does not exist.
        p_above: One-sided p of a ratio of 1 / factor or less: small where it is above; None where there is no
            interval.
        p_below: One-sided p of a ratio of `factor` or more: small where it is below; None likewise.
    """

    factor: float
    ci90: Interval | None
    p_above: float | None
    p_below: float | None


@dataclass(frozen=True, kw_only=True)
class _Estimate:
    """A sum of means of pseudo-values, and how it is distributed.

    Attributes:
        value: The logarithm that it stands for.
        error: Its standard error.
        skew: Its skewness, that of the pseudo-values over the root of their number.
        degrees: Degrees of freedom of its t value.
    """

    value: float
    error: float
    skew: float
    degrees: float


def log_interval(figure: LeaveOneOut) -> Interval | None:
    """95 % interval of a figure; None where a logarithm does not exist."""
    if not figure.has_logarithms:
        return None
    low, high = _interval(_estimate(float(np.log(figure.whole)), np.log(figure.without)))
    return float(np.exp(low)), float(np.exp(high))


def compare_ratio(
    first: LeaveOneOut, second: LeaveOneOut, *, paired: bool = True, level: float = LEVEL
) -> RatioComparison:
    """Tests whether two figures are equal, by the jackknife of their log-ratio.

    The t test of the pseudo-values is too bold where a few runs of one configuration make most of its figure:
    the pseudo-values are skewed then. So its quantiles are widened for skewness, on the side that needs it.

    Args:
        first: Of one configuration.
        second: Of the other.
        paired: Whether the runs of both are those of the same seeds, row for row: a pair is left out of both
            then. Else the two are independent, and the t value has Welch's degrees of freedom.
        level: What the interval leaves out in all.

    Raises:
        ValueError: Paired numbers of runs that differ.
    """
    estimate = _log_ratio(first, second, paired=paired)
    return RatioComparison(
        ratio=first.whole / second.whole if second.whole > 0 else None,
        ci95=None if estimate is None else _exponentials(_interval(estimate, level)),
        p=None if estimate is None else _p_of_zero(estimate),
        n=len(first.without),
        n_reference=len(second.without),
        paired=paired,
    )


def equate_ratio(
    first: LeaveOneOut, second: LeaveOneOut, *, factor: float, paired: bool = True, level: float = LEVEL
) -> RatioEquivalence:
    """Tests whether two figures are equal within a factor: two one-sided tests of their log-ratio.

    They are those of `compare_ratio` at the two ends (Schuirmann 1987), widened for skewness as there.

    Args:
        first: Of one configuration.
        second: Of the other.
        factor: Above 1.
        paired: As of `compare_ratio`.
        level: What the interval leaves out on each side.

    Raises:
        ValueError: A factor of 1 or less, or paired numbers of runs that differ.
    """
    if not factor > 1:
        raise ValueError(f"the factor is {factor}; it must be above 1")
    estimate = _log_ratio(first, second, paired=paired)
    if estimate is None:
        return RatioEquivalence(factor=factor, ci90=None, p_above=None, p_below=None)
    end = float(np.log(factor))
    return RatioEquivalence(
        factor=factor,
        ci90=_exponentials(_interval(estimate, 2 * level)),
        p_above=_p_above(estimate, -end),
        p_below=_p_below(estimate, end),
    )


def _log_ratio(first: LeaveOneOut, second: LeaveOneOut, *, paired: bool) -> _Estimate | None:
    """The logarithm of the ratio; None where one of the figures has none."""
    runs = len(first.without), len(second.without)
    if paired and runs[0] != runs[1]:
        raise ValueError(f"{runs[0]} and {runs[1]} runs are not paired")
    if not (first.has_logarithms and second.has_logarithms):
        return None
    wholes = [float(np.log(figure.whole)) for figure in (first, second)]
    withouts = [np.log(figure.without) for figure in (first, second)]
    if paired:
        return _estimate(wholes[0] - wholes[1], withouts[0] - withouts[1])
    return _difference(*map(_estimate, wholes, withouts))


def _exponentials(interval: Interval) -> Interval:
    low, high = interval
    return float(np.exp(low)), float(np.exp(high))


def _estimate(whole: float, without: Floats) -> _Estimate:
    runs = len(without)
    pseudo = runs * whole - (runs - 1) * without
    centred = pseudo - pseudo.mean()
    variance = float((centred**2).mean())
    if variance <= _ROUNDING**2:
        return _Estimate(value=whole, error=0.0, skew=0.0, degrees=runs - 1)
    skewness = float((centred**3).mean()) / variance**1.5
    return _Estimate(
        value=whole,
        error=float(np.sqrt(variance / (runs - 1))),
        skew=skewness / float(np.sqrt(runs)),
        degrees=runs - 1,
    )


def _difference(first: _Estimate, second: _Estimate) -> _Estimate:
    """Of two independent estimates: squares and cubes add up; degrees of freedom as Welch (1947)."""
    squares = first.error**2, second.error**2
    error = float(np.sqrt(sum(squares)))
    if error == 0:
        return _Estimate(value=first.value - second.value, error=0.0, skew=0.0, degrees=first.degrees)
    cubes = first.skew * first.error**3 - second.skew * second.error**3
    return _Estimate(
        value=first.value - second.value,
        error=error,
        skew=cubes / error**3,
        degrees=error**4 / (squares[0] ** 2 / first.degrees + squares[1] ** 2 / second.degrees),
    )


def _p_of_zero(estimate: _Estimate) -> float:
    if estimate.error == 0:
        return 1.0 if abs(estimate.value) <= _ROUNDING else 0.0
    return 2 * t_tail(abs(_quantile(estimate, 0.0)), estimate.degrees)


def _p_above(estimate: _Estimate, null: float) -> float:
    """One-sided p of the value being at or below `null`."""
    if estimate.error == 0:
        return 0.0 if estimate.value > null + _ROUNDING else 1.0
    return t_tail(_quantile(estimate, null), estimate.degrees)


def _p_below(estimate: _Estimate, null: float) -> float:
    """One-sided p of the value being at or above `null`."""
    if estimate.error == 0:
        return 0.0 if estimate.value < null - _ROUNDING else 1.0
    return t_tail(-_quantile(estimate, null), estimate.degrees)


def _quantile(estimate: _Estimate, null: float) -> float:
    """The t value of the distance from `null`, nearer to 0 where skewness makes such values large."""
    t = (estimate.value - null) / estimate.error
    return float(np.copysign(_narrow(abs(t), estimate.skew if t < 0 else -estimate.skew), t))


def _interval(estimate: _Estimate, level: float = LEVEL) -> Interval:
    quantile = t_quantile(1 - level / 2, estimate.degrees)
    below = _widen(quantile, -estimate.skew) * estimate.error
    above = _widen(quantile, estimate.skew) * estimate.error
    return estimate.value - below, estimate.value + above


def _widen(quantile: float, skew: float) -> float:
    """The quantile of |t| on the side where skewness makes t values large, else as it is.

    Where values are skewed to the right, means that happen to be low have low standard errors too: so t is
    skewed to the left. This is the first term of the Cornish-Fisher expansion of its quantiles (Johnson
    1978).
    """
    return quantile + max(0.0, skew) * (1 + 2 * quantile**2) / 6


def _narrow(t: float, skew: float) -> float:
    """The quantile that `_widen` takes to a t value, both at least 0."""
    if skew < 1e-9:
        return t
    if t <= skew / 6:
        return 0.0
    share = 2 * skew / 3
    return float((np.sqrt(1 + 2 * share * (t - skew / 6)) - 1) / share)
