#!/usr/bin/env bash
# Guess: numpy.save refuses ml_dtypes' bfloat16, or numpy.load gives it back where ml_dtypes is imported.
# Truth: the file is written without a word, and reads as raw two-byte values (dtype V2) that know no type: two
#        files of bfloat16 and float8 cannot be told apart from any others of their width. A view brings them back.
# Hurts: who keeps bfloat16 weights or logits as .npy or .npz: nothing says what they were.
. "$(dirname "$0")/isolated.bash"
packages numpy==2.4.6 ml_dtypes==0.6.0

python - <<'PYTHON'
import ml_dtypes
import numpy as np

values = np.array([1.5, -2.0], ml_dtypes.bfloat16)
np.save("values.npy", values)
np.savez("values.npz", values=values)
found = np.load("values.npy")
print(f"numpy {np.__version__}, ml_dtypes {ml_dtypes.__version__}")
print(f"saved {values.dtype}, loaded {found.dtype}: {found.tolist()}")
assert found.dtype == np.load("values.npz")["values"].dtype == np.dtype("V2")
again = found.view(ml_dtypes.bfloat16)
print(f"viewed as bfloat16: {again.tolist()}")
assert again.tolist() == values.tolist()
PYTHON
