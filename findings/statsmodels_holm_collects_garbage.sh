#!/usr/bin/env bash
# Guess: `multipletests(p, method="holm")` costs what sorting p costs, however large the process is that calls it.
# Truth: each call runs a whole collection of Python's garbage: milliseconds in a bare process, a second in one that holds
#        some millions of objects, for three p values.
# Hurts: simulations of studies in a loop, and test suites; `gc.freeze()` before, or Holm in two lines of NumPy, is a
#        thousand times as fast.
. "$(dirname "$0")/isolated.bash"
packages statsmodels==0.14.6 pandas==2.3.3 scipy==1.16.3

python -W ignore - <<'PYTHON'
import gc
import time

import statsmodels
from statsmodels.stats.multitest import multipletests


def call():
    began = time.perf_counter()
    multipletests([0.01, 0.02, 0.03], method="holm")
    return 1e3 * (time.perf_counter() - began)


collected = []
gc.callbacks.append(lambda phase, info: collected.append(info["generation"]) if phase == "start" else None)
print("statsmodels", statsmodels.__version__)
call()
whole = collected.count(2)
bare = min(call() for _ in range(5))
held = [[] for _ in range(3_000_000)]
large = min(call() for _ in range(5))
gc.freeze()
frozen = min(call() for _ in range(5))
print(f"  whole collections in one call: {whole}")
print(f"  ms per call: {bare:.1f} in a bare process, {large:.1f} with 3 million lists, {frozen:.1f} with these frozen")
assert whole == 1 and large > 3 * bare and frozen < large / 3
print("As described: each call collects all garbage.")
PYTHON
