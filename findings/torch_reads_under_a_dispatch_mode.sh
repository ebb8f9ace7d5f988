#!/usr/bin/env bash
# Guess: a `TorchDispatchMode` sees every value that Python reads from a tensor: `item()`, `bool()` and printing show as
#        `_local_scalar_dense`, so the same count finds every wait for a device.
# Truth: `tolist()` reads past it, of one value as of many: no operator is seen.
# Hurts: who counts synchronisations, or forbids them in a part that is to be captured in a graph, with such a mode, or
#        with a fake tensor's: a `tolist()` per step goes unnoticed until it stalls or breaks the capture.
. "$(dirname "$0")/isolated.bash"
packages torch==2.15.0 numpy==2.4.6

python -W ignore - <<'PYTHON'
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operators = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.operators.append(str(operator))
        return operator(*args, **(kwargs or {}))


print("torch", torch.__version__)
values, one = torch.arange(3.0), torch.tensor(2.0)
reads = {
    "one.item()": one.item,
    "bool(one)": lambda: bool(one),
    "f'{one}'": lambda: f"{one}",
    "one.tolist()": one.tolist,
    "values.tolist()": values.tolist,
}
seen = {}
for name, read in reads.items():
    with Recorder() as recorder:
        read()
    seen[name] = "aten._local_scalar_dense.default" in recorder.operators
    print(f"  {name:16} {recorder.operators}")
assert seen == {
    "one.item()": True, "bool(one)": True, "f'{one}'": True, "one.tolist()": False, "values.tolist()": False
}
print("As described: tolist() is seen by no operator.")
PYTHON
