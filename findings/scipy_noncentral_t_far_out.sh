#!/usr/bin/env bash
# Guess: where the noncentral t distribution has a survival function, it has a distribution function: their sum is 1.
# Truth: for a large statistic and a large noncentrality of the other sign, `nct.cdf` is NaN and `nct.sf` 0. The NaN is
#        an island: nearer and farther from it both are right.
# Hurts: who inverts `nct.cdf` for the confidence interval of an effect size (Cohen's d of paired, almost equal
#        differences has a large t): the root finder meets NaN at the end of a symmetric bracket. `1 - nct.sf` does not.
. "$(dirname "$0")/isolated.bash"
packages scipy==1.17.1 numpy==2.4.6

python -W ignore - <<'PYTHON'
import math

import scipy
from scipy.optimize import brentq
from scipy.stats import nct

print("scipy", scipy.__version__)
for noncentrality in (-60, -50, -20, 50):
    below, above = (float(part(50, 19, noncentrality)) for part in (nct.cdf, nct.sf))
    print(f"t = 50, 19 degrees, noncentrality {noncentrality}: cdf {below:.3g}, sf {above:.3g}")
    if noncentrality == -50:
        assert math.isnan(below)
        assert above == 0
    else:
        assert abs(below + above - 1) < 1e-9


def upper_end(distribution):
    """The noncentrality under which 2.5 % of the statistics are below 50."""
    return brentq(lambda noncentrality: distribution(noncentrality) - 0.025, -50, 150)


try:
    told = upper_end(lambda noncentrality: nct.cdf(50, 19, noncentrality))
except ValueError as error:
    told = str(error)
found = upper_end(lambda noncentrality: 1 - nct.sf(50, 19, noncentrality))
print("upper end of the interval by cdf:   ", told)
print("upper end of the interval by 1 - sf:", round(found, 2))
assert "NaN" in str(told)
assert 65 < found < 66.5
PYTHON
