#!/usr/bin/env bash
# Guess: torchdistill's CCKDLoss with reduction "batchmean" is correlation congruence (Peng et al. 2019): the squared
#        distance of the two matrices of correlations over B^2, with a Gaussian kernel.
# Truth: The distance is not squared, and the features are not scaled to length 1, which the series of the Gaussian
#        kernel needs: "correlations" are above 1.
# Hurts: Who compares methods with it. The gradient has one size however near the student is, and the weight means
#        something else at every size of the batch and of the features.
. "$(dirname "$0")/isolated.bash"
packages torch==2.15.0 torchvision==0.29.2 torchdistill==1.1.5

python -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from torchdistill.losses.mid_level import CCKDLoss

loss = CCKDLoss(
    student_linear_path="net",
    teacher_linear_path="net",
    kernel_config={"type": "gaussian", "gamma": 0.4, "max_p": 2},
    reduction="batchmean",
)
torch.manual_seed(0)
teacher = torch.nn.functional.normalize(torch.randn(16, 8, dtype=torch.float64))
direction = torch.randn(16, 8, dtype=torch.float64)
print("torch", torch.__version__, "torchdistill", importlib.metadata.version("torchdistill"))
sizes = []
for step in (1e-2, 1e-4, 1e-6):
    student = (teacher + step * direction).requires_grad_()
    found = loss({"net": {"output": student}}, {"net": {"output": teacher}})
    found.backward()
    sizes.append(student.grad.norm().item())
    print(f"student {step:.0e} from the teacher: loss {found.item():.1e}, gradient {sizes[-1]:.4f}")
kernel = loss.compute_cc_mat_by_gaussian_rbf(10 * teacher)
print(f"largest 'Gaussian kernel' of features of length 10: {kernel.max():.0f}")
assert max(sizes) / min(sizes) < 1.5  # of a squared distance, the gradient would vanish with the step
assert kernel.max() > 1
print("As described: a distance, not its square, of a kernel that is not Gaussian.")
PYTHON
