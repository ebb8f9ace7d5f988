#!/usr/bin/env bash
# Guess: kaiming_normal_(mode="fan_out") keeps the variance of gradients, in a depthwise convolution too: each input feeds
#        the nine weights of its own channel.
# Truth: nn.init reads the fan off the weight's shape, [out, in / groups, kh, kw], and knows of no groups: fan_out is
#        out * kh * kw. A depthwise layer of 64 channels starts 8 times (sqrt(64)) too small. fan_in is right.
# Hurts: who builds MobileNets or packs networks into grouped convolutions: members start smaller than the networks alone.
. "$(dirname "$0")/isolated.bash"
packages torch==2.15.0 numpy==2.4.6

python -W ignore - <<'PYTHON'
import math

import torch
from torch import nn

print("torch", torch.__version__)
torch.manual_seed(0)
depthwise = nn.Conv2d(64, 64, 3, groups=64)
alone = [nn.Conv2d(1, 1, 3) for _ in range(64)]  # what it computes, a channel each
for layer in (depthwise, *alone):
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
together, apart = depthwise.weight.std().item(), torch.cat([layer.weight for layer in alone]).std().item()
print(f"standard deviation of the weights: 64 channels in one layer {together:.3f}, in 64 layers {apart:.3f}")
assert abs(together / math.sqrt(2 / (64 * 9)) - 1) < 0.2
assert abs(apart / math.sqrt(2 / 9) - 1) < 0.2
print("As described: fan_out ignores the groups.")
PYTHON
