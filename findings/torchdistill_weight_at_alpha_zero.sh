#!/usr/bin/env bash
# Guess: torchdistill's KDLoss and LogitStdKDLoss are alpha * cross-entropy + beta * T^2 * KL for every alpha, 0 included.
# Truth: at alpha = 0 they return the bare KL: beta and T^2 are dropped, so the loss jumps there. At T = 4 the last step
#        of a sweep of alpha trains with a sixteenth of the distillation, and with beta = 9 with a 144th.
# Hurts: who compares "distillation alone" with mixtures, or takes the labels away by alpha = 0: it looks like the
#        labels' doing. A very small alpha does what was meant.
. "$(dirname "$0")/isolated.bash"
packages torch==2.15.0 torchvision==0.29.2 torchdistill==1.1.5

python -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from torchdistill.losses.mid_level import KDLoss, LogitStdKDLoss

print("torch", torch.__version__, "torchdistill", importlib.metadata.version("torchdistill"))
torch.manual_seed(0)
student, teacher, labels = torch.randn(64, 10), torch.randn(64, 10), torch.arange(64) % 10
for kind in (KDLoss, LogitStdKDLoss):
    found = {}
    for alpha in (1e-3, 1e-6, 0.0):
        loss = kind(
            student_module_path="net", student_module_io="output",
            teacher_module_path="net", teacher_module_io="output",
            temperature=4.0, alpha=alpha, beta=9.0,
        )
        found[alpha] = loss({"net": {"output": student}}, {"net": {"output": teacher}}, labels)
        print(f"{kind.__name__}: alpha {alpha:g}, beta 9, T 4: loss {found[alpha]:.5f}")
    assert torch.isclose(found[1e-6] / found[0.0], torch.tensor(9.0 * 4.0**2), rtol=1e-3, atol=0.0)
print("As described: at alpha = 0 the weights beta and T^2 are dropped.")
PYTHON
