"""The arithmetic of a cell."""

from contextlib import AbstractContextManager

import torch


def resolve_dtype(precision: str) -> torch.dtype:
    """The type of parameters and images; bfloat16 keeps both in float32."""
    return torch.float64 if precision == "float64" else torch.float32


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass at this precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
