"""Student's t by SciPy's special functions: `scipy.stats` gives the same numbers, but takes long to load."""

import math

import numpy as np
from scipy import special

# Midpoints of equal shares of a distribution: what an integral over it is a mean over.
_RANKS = (np.arange(20_000) + 0.5) / 20_000


def t_quantile(share: float, degrees: float) -> float:
    """Where the share of t values of so many degrees of freedom that lie below is this."""
    return float(special.stdtrit(degrees, share))


def t_tail(t: float, degrees: float) -> float:
    """The share of t values of so many degrees of freedom that lie above `t`."""
    return float(special.stdtr(degrees, -t))


def noncentral_share(t: float, degrees: float, noncentrality: float) -> float:
    """The share of a noncentral t distribution that is at most `t`.

    Far out SciPy's series gives NaN; there it is the mean, over the distribution of the spread, of the normal
    share given the spread.
    """
    share = float(special.nctdtr(degrees, noncentrality, t))
    if not math.isnan(share):
        return share
    spread = np.sqrt(2 * special.gammaincinv(degrees / 2, _RANKS) / degrees)
    return float(special.ndtr(t * spread - noncentrality).mean())
