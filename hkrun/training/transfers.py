"""From the memory of the host to a device."""

import torch
from torch import Tensor


def move(tensor: Tensor, device: torch.device) -> Tensor:
    """Brings a tensor of the CPU to a device, without waiting until a GPU has read it."""
    if device.type != "cuda":
        return tensor.to(device)
    # Only pinned memory is read behind this process's back, and torch reuses it only after that.
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)
