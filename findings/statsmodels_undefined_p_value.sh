#!/usr/bin/env bash
# Guess: a comparison without a p value (NaN) is left out of a correction for multiple testing, or refused.
# Truth: statsmodels' multipletests counts it as a test. With fdr_bh it makes every corrected p NaN, while the
#        decisions beside them stay True; Holm gives numbers, corrected for one test too many.
# Hurts: who corrects over cells of which one could not be compared: the table is empty, or the tests too strict.
. "$(dirname "$0")/isolated.bash"
packages statsmodels==0.15.0 scipy==1.17.1 numpy==2.4.6 pandas==3.1.1

python -W ignore - <<'PYTHON'
import numpy as np
import statsmodels
from statsmodels.stats.multitest import multipletests

p = np.array([0.01, np.nan, 0.03])
print(f"statsmodels {statsmodels.__version__}, p = {p.tolist()}")
for method in ("fdr_bh", "holm"):
    rejected, corrected = multipletests(p, method=method)[:2]
    without = multipletests(p[[0, 2]], method=method)[1]
    print(f"{method}: rejected {rejected.tolist()}, corrected {corrected.tolist()}")
    print(f"  without the NaN {without.tolist()}")
    if method == "fdr_bh":
        assert np.isnan(corrected).all()
        assert rejected.tolist() == [True, False, True]
    else:
        assert np.allclose(corrected[[0, 2]], [0.03, 0.06])
        assert np.allclose(without, [0.02, 0.03])
PYTHON
