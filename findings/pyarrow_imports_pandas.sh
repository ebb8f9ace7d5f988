#!/usr/bin/env bash
# Guess: pandas is optional for pyarrow: what asks for no DataFrame, such as `pa.array([1.0])` or `to_numpy()`, does not
#        touch it.
# Truth: wherever pandas is installed the first `pa.array`, `to_numpy` or read column imports it, half of a start's time
#        and tens of megabytes. `np.from_dlpack` and `Array.from_buffers` do not.
# Hurts: command-line tools and workers that read a few numbers from Arrow files: they start slower in an environment that
#        has pandas than in one that has not, with the same code.
. "$(dirname "$0")/isolated.bash"
packages pyarrow==25.0.1 pandas==3.1.1 numpy==2.4.6

python - <<'PYTHON'
import subprocess
import sys

import numpy, pandas, pyarrow

print(f"pyarrow {pyarrow.__version__}, pandas {pandas.__version__}, numpy {numpy.__version__}")
one = "pa.Array.from_buffers(pa.float64(), 1, [None, pa.py_buffer(bytes(8))])"
asked = {
    "pass": False,
    "pa.array([1.0])": True,
    f"{one}.to_numpy()": True,
    one: False,
    f"np.from_dlpack({one})": False,
}
for statement, expected in asked.items():
    program = f"import sys, numpy as np, pyarrow as pa; {statement}; print('pandas' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    print(f"  {told.stdout.strip():5}  {statement}")
    assert told.stdout.strip() == str(expected)
print("As described: whoever makes or reads an array imports pandas.")
PYTHON
