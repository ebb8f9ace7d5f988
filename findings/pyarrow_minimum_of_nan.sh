#!/usr/bin/env bash
# Guess: pyarrow.compute treats NaN alike: it runs through min as it runs through mean, and as in numpy.
# Truth: min, max and min_max pass over NaN, in group_by too, while mean, sum and stddev give NaN; only a column
#        of nothing else has NaN as its minimum. And a table with a NaN does not equal itself.
# Hurts: who takes a run's best error from its curve: one that went to NaN looks as if it had finished.
. "$(dirname "$0")/isolated.bash"
packages pyarrow==25.0.1 numpy==2.4.6

python - <<'PYTHON'
import math

import numpy as np
import pyarrow as pa
from pyarrow import compute as pc

curve = pa.table({"run": ["a"] * 3, "error": [9.0, 4.0, math.nan]})
best, mean = pc.min(curve["error"]).as_py(), pc.mean(curve["error"]).as_py()
grouped = curve.group_by("run").aggregate([("error", "min"), ("error", "mean")]).to_pydict()
print(f"pyarrow {pa.__version__}, {curve['error'].to_pylist()}: min {best}, mean {mean}")
print(f"numpy {np.__version__}: min {np.min(curve['error'])}")
print(f"group_by: {grouped}")
assert best == grouped["error_min"][0] == 4.0
assert math.isnan(mean) and math.isnan(grouped["error_mean"][0]) and math.isnan(np.min(curve["error"]))
assert math.isnan(pc.min(pa.array([math.nan])).as_py())
print(f"the table equals itself: {curve.equals(curve)}")
assert not curve.equals(curve)
PYTHON
