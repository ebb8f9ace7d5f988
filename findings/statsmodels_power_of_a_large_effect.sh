#!/usr/bin/env bash
# Guess: the power of a t test for a large effect is 1.
# Truth: statsmodels' TTestPower gives NaN for the two-sided test from a noncentrality of about 9 on, such as an effect of
#        2 with 20 pairs, and 1 again for still larger ones. Its one-sided power is right.
# Hurts: who draws a power curve or asks a grid of effects: it has a hole, and comparisons with NaN are False ("power is
#        not enough"). SciPy's `nct.sf` for both tails, `1 - nct.sf(-critical)` for the lower, is right everywhere.
. "$(dirname "$0")/isolated.bash"
packages statsmodels==0.15.0 scipy==1.17.1 numpy==2.4.6 pandas==3.1.1

python -W ignore - <<'PYTHON'
import math

import scipy
import statsmodels
from scipy.stats import nct, t
from statsmodels.stats.power import TTestPower

print("statsmodels", statsmodels.__version__, "scipy", scipy.__version__)
critical = t.ppf(0.975, 19)
for effect in (1.5, 2.0, 3.0, 5.0):
    noncentrality = effect * math.sqrt(20)
    found = TTestPower().power(effect, 20, 0.05, alternative="two-sided")
    one_sided = TTestPower().power(effect, 20, 0.05, alternative="larger")
    right = nct.sf(critical, 19, noncentrality) + 1 - nct.sf(-critical, 19, noncentrality)
    print(f"effect {effect}, 20 pairs: two-sided {found:.6f}, one-sided {one_sided:.6f}; by nct.sf {right:.6f}")
    assert math.isnan(found) == (effect in (2.0, 3.0))
    assert right > 0.9999
PYTHON
