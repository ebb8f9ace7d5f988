"""BatchNorm whose training statistics can be those of all workers' images together, on CPU (gloo) and GPU.

torch's SyncBatchNorm needs a GPU. This one reduces the mean first and the centred squares after it: the
difference of two sums of squares would lose the variance of features whose mean is large.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hkrun.models.collective import all_reduce


class BatchNorm2d(nn.BatchNorm2d):
    """torch's BatchNorm2d, until `synchronise` makes it normalise over all workers of the process group."""

    synchronised = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalises [B, C, H, W]; every worker must call it, with any number of images each."""
        if not (self.synchronised and self.training):
            return super().forward(input)
        return self._forward_synchronised(input)

    def _forward_synchronised(self, images: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        # Under autocast the input has 8 bits of mantissa: too few for sums over a batch.
        values = images.to(self.weight.dtype)
        local_count = values.new_full((1,), values.numel() // values.shape[1])
        totals = all_reduce_sum(torch.cat([values.sum(dim=(0, 2, 3)), local_count]))
        sums, count = totals[:-1], totals[-1]
        mean = sums / count
        centred = values - mean[:, None, None]
        variance = all_reduce_sum(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalised = centred * scale[:, None, None] + self.bias[:, None, None]
        return normalised.to(images.dtype)


def synchronise(module: nn.Module) -> None:
    """Makes a module's BatchNorm layers take training statistics over the default process group.

    Gradients are then those of the sum of all workers' losses. A parameter's gradient on one worker is what
    passes through that worker's images: the workers' gradients are to be summed.
    """
    for layer in module.modules():
        if isinstance(layer, BatchNorm2d):
            layer.synchronised = True


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004 - nothing to keep
        total = tensor.contiguous().clone()
        all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        # Each worker's input reaches every worker's output with weight 1: the sum is its own adjoint.
        return all_reduce_sum(gradient)


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sums a tensor over the workers, differentiably: the gradient is that of the sum of all workers' losses.

    Args:
        tensor: Of one shape on all workers; left as it is.
    """
    result: Tensor = _AllReduceSum.apply(tensor)
    return result
