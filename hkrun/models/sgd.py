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

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over a state, its momentum laid out as the parameters are."""
        _load(self, state_dict)
        self.lay_out()

    def lay_out(self) -> None:
        """Lays the momentum in memory as its parameter lies there; the values stay.

        torch's fused step goes through both in the order of memory, and takes them for laid out alike.
        """
        for parameter, state in self.state.items():
            momentum = state.get("momentum_buffer")
            if momentum is not None and momentum.stride() != parameter.stride():
                state["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Takes a step on the parameters' gradients; there is no closure."""
        assert closure is None
        _step(self)


_load: Any = inspect.unwrap(torch.optim.SGD.load_state_dict)
_step: Any = inspect.unwrap(torch.optim.SGD.step)
