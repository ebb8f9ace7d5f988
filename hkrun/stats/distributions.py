"""Student's t by SciPy's special functions: `scipy.stats` gives the same numbers, but takes long to load.

Remembered, so that a report of what is known already does without these, too: they take 0.3 s to load.
"""

import scipy

from hkrun.stats.memory import remembered


@remembered()
def t_quantile(share: float, degrees: float) -> float:
    """Where the share of t values of so many degrees of freedom that lie below is this."""
    return float(scipy.special.stdtrit(degrees, share))


@remembered()
def t_tail(t: float, degrees: float) -> float:
    """The share of t values of so many degrees of freedom that lie above `t`."""
    return float(scipy.special.stdtr(degrees, -t))
