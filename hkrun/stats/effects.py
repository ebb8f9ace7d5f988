"""How large a paired difference is, and whether it is small enough to be none."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hkrun.stats.distributions import t_tail
from hkrun.stats.errors import LEVEL, Interval, finite_vector, t_interval
from hkrun.stats.memory import remembered
from hkrun.stats.noncentral import share_by_noncentrality
from hkrun.stats.roots import find_root

# A difference that varies by less than this share of its size only does so by rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class EffectSize:
    """Size of a paired difference in units of its own spread.

    Attributes:
        d_z: Cohen's d_z: mean of the differences over their standard deviation (ddof 1).
        ci95: Its 95 % interval, exact where the differences are normal.
    """

    d_z: float
    ci95: Interval


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """Whether a mean paired difference lies within a margin.

    Attributes:
        margin: The margin, in the unit of the differences.
        difference: Mean difference.
        ci90: Its 90 % t interval: within the margins exactly where the two one-sided tests reject at 5 %.
        p_above: One-sided p of the difference being at or below -margin: small where it is above.
        p_below: One-sided p of the difference being at or above margin: small where it is below.
        n: Number of pairs.
    """

    margin: float
    difference: float
    ci90: Interval
    p_above: float
    p_below: float
    n: int

    @property
    def p(self) -> float:
        """Of the two one-sided tests together (Schuirmann 1987): small where the two are equivalent."""
        return max(self.p_above, self.p_below)

    @property
    def p_beyond(self) -> float:
        """Two-sided p of lying within the margins: small where the two are not equivalent."""
        return min(1.0, 2 * min(1 - self.p_above, 1 - self.p_below))


@remembered(EffectSize)
def effect_size(differences: ArrayLike, *, level: float = LEVEL) -> EffectSize | None:
    """Cohen's d_z of paired differences.

    d_z is what the power of a paired test depends on; it is left uncorrected for small numbers of pairs
    (Hedges' factor is 0.96 at twenty), so that it equals t / sqrt(n). The interval inverts the noncentral t
    distribution.

    Args:
        differences: One per pair, shape [pairs].
        level: What the interval leaves out in all.

    Returns:
        The effect size; None with fewer than two pairs, or where the differences do not vary.

    Raises:
        ValueError: No difference, or one that is not finite.
    """
    values = finite_vector(differences)
    if len(values) < 2:
        return None
    mean, sd = float(values.mean()), float(values.std(ddof=1))
    if sd <= _ROUNDING * max(1.0, abs(mean)):
        return None
    root = float(np.sqrt(len(values)))
    t = mean / sd * root
    low, high = (_noncentrality(t, len(values) - 1, share) for share in (1 - level / 2, level / 2))
    return EffectSize(d_z=mean / sd, ci95=(low / root, high / root))


def _noncentrality(t: float, degrees: int, share: float) -> float:
    """The noncentrality with which `share` of the t values are at most `t`."""
    reach = 10.0
    while True:
        ends = t - reach, t + reach
        share_at = share_by_noncentrality(t, degrees, most=max(map(abs, ends)))
        shares = [share_at(end) for end in ends]
        if shares[0] > share > shares[1]:
            break
        reach *= 2
    return find_root(lambda end: share_at(end) - share, *ends)


def equivalence(differences: ArrayLike, *, margin: float, level: float = LEVEL) -> Equivalence:
    """Tests whether a mean paired difference lies within a margin: two one-sided t tests (TOST).

    Args:
        differences: One per pair, shape [pairs].
        margin: Above 0, in the unit of the differences.
        level: What the interval leaves out on each side.

    Raises:
        ValueError: Fewer than two differences, one that is not finite, or a margin that is not positive.
    """
    values = finite_vector(differences)
    if not margin > 0:
        raise ValueError(f"the margin is {margin}; it must be above 0")
    interval = t_interval(values, level=2 * level)
    if interval is None:
        raise ValueError("1 pair: equivalence needs the spread of at least 2")
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / np.sqrt(len(values))
    return Equivalence(
        margin=margin,
        difference=mean,
        ci90=interval,
        p_above=_one_sided(mean + margin, error, len(values) - 1),
        p_below=_one_sided(margin - mean, error, len(values) - 1),
        n=len(values),
    )


def _one_sided(distance: float, error: float, degrees: int) -> float:
    """Probability by chance alone of a distance this far above zero, the true one being zero."""
    if error <= _ROUNDING * max(1.0, abs(distance)):
        return 0.0 if distance > 0 else 1.0
    return t_tail(distance / error, degrees)
