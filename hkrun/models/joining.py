"""Parameters, buffers and optimisers of k modules as one, [k, ...], of which each module has its own part."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hkrun.models.sgd import SGD


class Join(NamedTuple):
    """A parameter of a pack, [k, ...], and the members' own that are views of it."""

    packed: nn.Parameter
    own: tuple[nn.Parameter, ...]


@torch.no_grad()
def join_parameters(own: Sequence[Tensor], joins: list[Join]) -> nn.Parameter:
    """Lays the members' values of one parameter together, and makes each member's own a view of them."""
    values = _lay_together(own)
    parameters = []
    for parameter, view in zip(own, values, strict=True):
        assert isinstance(parameter, nn.Parameter)
        parameter.data = view
        parameters.append(parameter)
    packed = nn.Parameter(values)
    joins.append(Join(packed, tuple(parameters)))
    return packed


def join_buffers(members: Sequence[nn.Module], name: str) -> Tensor:
    """The same of a buffer."""
    values = _lay_together([member.get_buffer(name) for member in members])
    for member, view in zip(members, values, strict=True):
        setattr(member, name, view)
    return values


def _lay_together(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors in new memory, [k, ...]; a pack's weights of convolutions are channels_last."""
    if tensors[0].dim() < 4:
        return torch.stack([tensor.detach() for tensor in tensors])
    joined = torch.cat([tensor.detach() for tensor in tensors])
    joined = joined.contiguous(memory_format=torch.channels_last)
    return joined.view(len(tensors), *tensors[0].shape)


def join_optimizers(optimizers: Sequence[SGD], joins: Sequence[Join]) -> SGD:
    """One optimiser of a pack's parameters that goes on where the members' own are; they stay up to date.

    Args:
        optimizers: One per member, of the same settings.
        joins: The pack's parameters.
    """
    joined = SGD([join.packed for join in joins], **optimizers[0].defaults)
    if not joined.defaults["momentum"]:
        return joined
    for packed, own in joins:
        # A first step without a buffer is one with a buffer of zeros.
        buffer = torch.zeros_like(packed)
        for place, optimizer, parameter in zip(buffer, optimizers, own, strict=True):
            before = optimizer.state[parameter].get("momentum_buffer")
            if before is not None:
                place.copy_(before)
            optimizer.state[parameter]["momentum_buffer"] = place
        joined.state[packed]["momentum_buffer"] = buffer
    return joined


def copy_tensor(value: object) -> object:
    """A tensor in memory of its own, as a checkpoint holds it; anything else as it is."""
    return value.clone(memory_format=torch.contiguous_format) if isinstance(value, Tensor) else value
