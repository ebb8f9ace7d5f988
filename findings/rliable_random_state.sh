#!/usr/bin/env bash
# Guess: rliable's `random_state` makes its intervals repeatable, as the docstring says.
# Truth: Its bootstraps draw from NumPy's global generator and never look at it: only `numpy.random.seed` does.
# Hurts: who publishes intervals and gives a state to be able to repeat them: each call gives others, while the global
#        state of the caller's own program is moved on.
. "$(dirname "$0")/isolated.bash"
without_wheel=rliable
packages rliable==1.2.0 arch==7.2.0 numpy==2.4.6 scipy==1.17.1 pandas==2.3.3

python -W ignore - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from rliable import library, metrics

print("rliable", version("rliable"), "arch", version("arch"), "numpy", np.__version__)
scores = np.random.default_rng(0).normal(5, 1, (20, 4))


def interval(**options):
    """Of the interquartile mean."""
    found = library.get_interval_estimates(
        {"a": scores}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=500, **options
    )
    return found[1]["a"].ravel().tolist()


with_state = [interval(random_state=np.random.RandomState(1)) for _ in range(2)]
print("random_state=RandomState(1), twice:", *with_state, sep="\n  ")
globally = []
for _ in range(2):
    np.random.seed(1)
    globally.append(interval())
print("numpy.random.seed(1), twice:", *globally, sep="\n  ")
assert with_state[0] != with_state[1]
assert globally[0] == globally[1]
PYTHON
