"""Student's t by SciPy's special functions: `scipy.stats` gives the same numbers, but takes long to load."""

import scipy


def t_quantile(share: float, degrees: float) -> float:
    """Where the share of t values of so many degrees of freedom that lie below is this."""
    return float(scipy.special.stdtrit(degrees, share))


def t_tail(t: float, degrees: float) -> float:
    """The share of t values of so many degrees of freedom that lie above `t`."""
    return float(scipy.special.stdtr(degrees, -t))
