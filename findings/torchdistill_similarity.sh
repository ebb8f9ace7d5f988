#!/usr/bin/env bash
# Guess: torchdistill's SPKDLoss is similarity-preserving distillation (Tung and Mori 2019): the rows of the batch's
#        similarity matrix are scaled to Euclidean length 1 before they are compared.
# Truth: It calls `torch.nn.functional.normalize(rows, 1)`. The second argument is the norm's p, not the dimension:
#        a row's absolute values sum to 1. The loss is smaller, by a factor that grows with the batch.
# Hurts: Who compares methods with it, or takes the paper's weight of 3000 for it: at 64 images that weight is
#        worth dozens of times less.
. "$(dirname "$0")/isolated.bash"
packages torch==2.15.0 torchvision==0.29.2 torchdistill==1.1.5

python -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from torch.nn.functional import normalize
from torchdistill.losses.mid_level import SPKDLoss

loss = SPKDLoss(student_output_path="net", teacher_output_path="net", reduction="batchmean")
print("torch", torch.__version__, "torchdistill", importlib.metadata.version("torchdistill"))
for size in (8, 64, 256):
    torch.manual_seed(0)
    student, teacher = torch.randn(size, 32), torch.randn(size, 32)
    found = loss({"net": {"output": student}}, {"net": {"output": teacher}})
    euclidean, absolute = (
        (normalize(student @ student.T, p=p, dim=1) - normalize(teacher @ teacher.T, p=p, dim=1)).square().mean()
        for p in (2, 1)
    )
    print(f"batch {size:3}: paper {euclidean:.2e}, torchdistill {found:.2e}, ratio {euclidean / found:.1f}")
    torch.testing.assert_close(found, absolute)
    assert euclidean / found > size / 8
print("As described: rows are scaled to a sum of absolute values of 1.")
PYTHON
