#!/usr/bin/env bash
# Guess: an optimiser steps element by element, in whatever order parameter and momentum lie in memory; a state_dict
#        that was saved before a model became channels_last is as good as one from after.
# Truth: SGD(fused=True) on a CPU pairs parameter, gradient and momentum by their place in memory. A momentum buffer that is
#        contiguous beside a channels_last weight belongs to other elements: the step is another one, without a word.
#        The unfused step is right.
# Hurts: who resumes a channels_last network: the first steps after each restart push weights along others' momentum.
#        Shown with state that is put in by hand; `buffer.to(memory_format=...)` before the step mends it.
. "$(dirname "$0")/isolated.bash"
packages torch==2.15.0 numpy==2.4.6

python -W ignore - <<'PYTHON'
import torch

print("torch", torch.__version__)
torch.manual_seed(0)
weight, gradient, momentum = (torch.randn(16, 16, 3, 3) for _ in range(3))


def step(*, fused, layout):
    parameter = torch.nn.Parameter(weight.clone().to(memory_format=torch.channels_last))
    parameter.grad = gradient.clone().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, fused=fused)
    optimizer.state[parameter]["momentum_buffer"] = momentum.clone().to(memory_format=layout)
    optimizer.step()
    return parameter.detach()


expected = weight - 0.1 * (0.9 * momentum + gradient)
differ = {
    (fused, layout): (step(fused=fused, layout=layout) - expected).abs().max().item()
    for fused in (False, True)
    for layout in (torch.channels_last, torch.contiguous_format)
}
for (fused, layout), largest in differ.items():
    print(f"fused={fused!s:5} momentum {str(layout):24}: off by {largest:.1e} at most")
assert max(differ[False, layout] for layout in (torch.channels_last, torch.contiguous_format)) < 1e-6
assert differ[True, torch.channels_last] < 1e-6
assert differ[True, torch.contiguous_format] > 0.1
print("As described: the fused step takes the momentum of other elements.")
PYTHON
