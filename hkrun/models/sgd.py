"""torch's SGD without torch's compiler."""

import inspect
from typing import Any

import torch


class SGD(torch.optim.SGD):
    """`torch.optim.SGD`; its methods tell the compiler nothing, for which torch would first import it.

    The import takes every process four seconds and more (measured 2026-11-22, 2 CPU cores, torch 2.15), and
    hkrun compiles nothing.
    """

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.SGD.zero_grad)
    state_dict = inspect.unwrap(torch.optim.SGD.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.SGD.load_state_dict)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Takes a step on the parameters' gradients; there is no closure."""
        assert closure is None
        _step(self)


_step: Any = inspect.unwrap(torch.optim.SGD.step)
