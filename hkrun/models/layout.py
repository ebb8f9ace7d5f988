"""In which order of memory gradients lie."""

from functools import partial

import torch
from torch import Tensor


def lay_gradient(values: Tensor) -> Tensor:
    """Has the gradient of values lie in memory as they do, where these are contiguous or channels_last.

    What is spread over positions in the backward pass is else laid out as what it is computed from, which may
    be transposed. On a CPU, elementwise steps that read two orders of memory take many times as long.
    """
    if values.requires_grad and values.device.type == "cpu":
        orders = (torch.contiguous_format, torch.channels_last)[: 2 if values.dim() == 4 else 1]
        order = next((order for order in orders if values.is_contiguous(memory_format=order)), None)
        if order is not None:
            values.register_hook(partial(_lay, order=order))  # type: ignore[no-untyped-call]
    return values


def _lay(gradient: Tensor | None, *, order: torch.memory_format) -> Tensor | None:
    return None if gradient is None else gradient.contiguous(memory_format=order)
