"""Any function of k small modules of one architecture, evaluated at once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from hkrun.models.joining import Join, join_buffers, join_parameters

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Stacked(nn.Module):
    """k small modules of one architecture, on which any function of one of them is evaluated at once.

    Args:
        members: The modules. What they change in place of their buffers is each member's own.

    Attributes:
        joins: Its parameters, and what they are of each member.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.joins: list[Join] = []
        self._first = (members[0],)  # in a tuple: its parameters are not to be found as this module's own
        self._normalises = any(isinstance(layer, _NORMS) for layer in members[0].modules())
        self._slots: list[tuple[dict[str, Any], str]] = []
        for name, _ in members[0].named_parameters():
            join_parameters([member.get_parameter(name) for member in members], self.joins)
            path, _, own_name = name.rpartition(".")
            self._slots.append((members[0].get_submodule(path)._parameters, own_name))
        self._values = nn.ParameterList(join.packed for join in self.joins)
        for number, (name, _) in enumerate(members[0].named_buffers()):
            path, _, own_name = name.rpartition(".")
            joined = join_buffers([member.get_submodule(path) for member in members], own_name)
            self.register_buffer(f"state_{number}", joined)
            self._slots.append((members[0].get_submodule(path)._buffers, own_name))

    def each(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(member, *args of its own)` of every member; what goes in and comes out has a leading k.

        Args:
            function: Takes a member, with any of its methods, and returns tensors.
            args: Tensors with a leading k, None, and named tuples of them.

        Raises:
            RuntimeError: A buffer was replaced: what was to be kept would be lost.
        """
        # Taken apart here, once: vmap does it again and again, which takes long where tuples are nested.
        leaves, tree = tree_flatten(args)
        values = [*self._values, *self.buffers()]

        def one(*tensors: Tensor) -> Any:
            own = iter(tensors[len(values) :])
            parts = [next(own) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            with _replaced(self._slots, tensors[: len(values)]):
                return function(self._first[0], *tree_unflatten(parts, tree))

        with _without_cudnn() if self._normalises else nullcontext():
            return vmap(one)(*values, *(leaf for leaf in leaves if isinstance(leaf, Tensor)))


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """Keeps out cuDNN's BatchNorm: it asks for a memory order that vmap refuses to tell (torch 2.11)."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


def each_of(members: nn.Module, function: Callable[..., Any], *args: Any) -> Any:
    """`function(member, *args)` of a pack's members, or of one alone; what goes in and comes out has a lead.

    See `Stacked.each`.
    """
    if isinstance(members, Stacked):
        return members.each(function, *args)
    own = tree_map(lambda value: value[0] if isinstance(value, Tensor) else value, args)
    return lead(function(members, *own))


def lead(values: Any) -> Any:
    """The same values with a leading dimension of 1."""
    return tree_map(lambda value: value[None] if isinstance(value, Tensor) else value, values)


@contextmanager
def _replaced(slots: Sequence[tuple[dict[str, Any], str]], values: Sequence[Tensor]) -> Iterator[None]:
    """Lets modules compute with other tensors than their parameters and buffers."""
    own = [held[name] for held, name in slots]
    try:
        for (held, name), value in zip(slots, values, strict=True):
            held[name] = value
        yield
        lost = [name for (held, name), value in zip(slots, values, strict=True) if held[name] is not value]
        if lost:
            raise RuntimeError(f"{', '.join(lost)}: was replaced; change a buffer in place, as copy_() does")
    finally:
        for (held, name), value in zip(slots, own, strict=True):
            held[name] = value
