#!/usr/bin/env bash
# Guess: the gradient of a tensor lies in memory as the tensor does, as that of a parameter.
# Truth: that is so of leaves alone. Within a graph a product is laid out as its first operand. The backward pass of a sum begins with
#        an expanded gradient; where that is a view of something transposed, so is all that is computed from it. An elementwise
#        step between two orders of memory then takes many times as long: a ReLU's backward pass here 5 to 20 times.
# Hurts: networks that keep an order of memory and sum over positions before they transpose: the forward pass is as fast as it
#        should be, the backward pass is not, and a profile names only operations whose shapes are as expected.
. "$(dirname "$0")/isolated.bash"
packages torch==2.15.0 numpy==2.4.6

python -W ignore - <<'PYTHON'
import statistics
import time

import torch

torch.set_num_threads(1)
print("torch", torch.__version__)


def gradient_of_relu(attended):
    """The gradient that reaches a ReLU's output [channels, positions, batch] through weighted sums over positions."""
    found = []
    before = torch.randn(64, 256, 64).requires_grad_()
    active = before.relu()
    active.register_hook(found.append)
    weights = torch.rand(1, 256, 64)
    vectors = attended((active * weights).sum(dim=1))  # [channels, batch], or the batch first
    torch.autograd.grad(vectors.square().sum(), before)
    assert active.is_contiguous()
    return found[0], active.detach()


def seconds(gradient, active):
    times = []
    for _ in range(9):
        began = time.perf_counter()
        torch.ops.aten.threshold_backward(gradient, active, 0)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


as_they_lie, transposed = gradient_of_relu(lambda v: v), gradient_of_relu(lambda v: v.t().contiguous())
for name, (gradient, active) in (("as they lie", as_they_lie), ("transposed", transposed)):
    ms = 1e3 * seconds(gradient, active)
    print(f"  vectors {name}: values {active.stride()}, their gradient {gradient.stride()}, ReLU backward {ms:.2f} ms")
assert as_they_lie[0].stride() == as_they_lie[1].stride()
assert transposed[0].stride() != transposed[1].stride()
assert seconds(*transposed) > 1.5 * seconds(*as_they_lie)
print("As described: what is done with the sum decides how the gradient of what was summed lies.")
PYTHON
