"""Student's t by SciPy's special functions: `scipy.stats` gives the same numbers, but takes long to load."""

import math

import scipy
from scipy import special


def t_quantile(share: float, degrees: float) -> float:
    """Where the share of t values of so many degrees of freedom that lie below is this."""
    return float(special.stdtrit(degrees, share))


def t_tail(t: float, degrees: float) -> float:
    """The share of t values of so many degrees of freedom that lie above `t`."""
    return float(special.stdtr(degrees, -t))


def noncentral_tail(t: float, degrees: float, noncentrality: float) -> float:
    """The share of values of a noncentral t that lie above `t`.

    The special function gives NaN for some that are far out; `scipy.stats` does not.
    """
    below = float(special.nctdtr(degrees, noncentrality, t))
    return float(scipy.stats.nct.sf(t, degrees, noncentrality)) if math.isnan(below) else 1 - below
