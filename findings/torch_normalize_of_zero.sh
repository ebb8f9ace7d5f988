#!/usr/bin/env bash
# Guess: `torch.nn.functional.normalize` is safe for vectors of zeros: it has an eps, and returns zeros.
# Truth: So the value is; the gradient is multiplied with 1 / eps = 1e12. The usual guard of a division bounds the
#        value and not the slope.
# Hurts: Losses on directions of features after a ReLU, such as contrastive and relational ones: one image whose
#        features are all 0, or twice the same image where differences are scaled, ends a training with one step;
#        no value was NaN or large before.
. "$(dirname "$0")/isolated.bash"
packages torch==2.15.0

python -W ignore - <<'PYTHON'
import torch
from torch.nn.functional import normalize

print("torch", torch.__version__)
features = torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]], requires_grad=True)
target = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.0, 0.8]])
loss = 1 - (normalize(features, dim=1) * target).sum(dim=1).mean()
loss.backward()
print("loss    ", loss.item())
print("gradient of the row of zeros", features.grad[0].tolist())
print("gradient of the other row   ", features.grad[1].tolist())
assert 0 < loss.item() < 1
assert features.grad[0].abs().max().item() > 1e11
assert features.grad[1].abs().max().item() < 1
print("As described: a gradient 1e12 times as large.")
PYTHON
