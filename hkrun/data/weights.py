"""Weights from files: what `teacher.file` and `student.file` mean.

A file is a state_dict of the network, alone or in a checkpoint as training code of the field saves it, in
torch's format or as safetensors. It is read without running code from it.
"""

import itertools
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from hkrun.config import Cell, check_weight_file, get_value
from hkrun.data.fetching import fetch_weights
from hkrun.errors import InputError
from hkrun.networks import FROM_TORCHVISION

# Where a checkpoint has its state_dict, besides an epoch, an optimiser and the like.
_HOLDERS = ("state_dict", "model_state_dict", "model", "net")
# What torch.nn.DataParallel, DistributedDataParallel and torch.compile put before every key.
_WRAPPERS = ("module.", "_orig_mod.")
# In the keys of torchvision's DenseNets is one dot less than in its files of their weights.
_DENSE_LAYER = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)")
# Of all keys that differ, so many are named.
_NAMED = 3

State = Mapping[str, Tensor]


def load_weights(backbone: nn.Module, cell: Cell, section: str) -> None:
    """Loads `teacher.file` or `student.file` into its network.

    Args:
        backbone: The network of that section.
        cell: The configuration.
        section: "teacher" or "student".

    Raises:
        InputError: The file is not there or no longer what it was, or is no state_dict of this network.
        DataError: torchvision's weights are wanted and cannot be had.
    """
    key = f"{section}.file"
    path = str(get_value(cell, key))
    if path == FROM_TORCHVISION:
        content: object = fetch_weights(str(get_value(cell, f"{section}.network")), key=key)
    else:
        check_weight_file(cell, key)
    try:
        if path != FROM_TORCHVISION:
            content = _read(path)
        _assign(backbone, _find_state(content))
    except _NotWeightsError as error:
        raise InputError(f"{key}: {path}: not weights of this {section}.network: {error}") from None


class _NotWeightsError(Exception):
    """Why a file's content cannot be the network's weights."""


def _read(path: str) -> object:
    """What a file holds, in either format."""
    with Path(path).open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # the length of a JSON header in 8 bytes, then the header
        return _read_safetensors(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if (found := re.search(r"GLOBAL (\S+)", str(error))) is not None:
            raise _NotWeightsError(
                f"it holds an object of {found[1]}, which cannot be read without running code from the file; "
                "save its state_dict alone"
            ) from None
        raise _NotWeightsError(_shorten(error)) from None
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, EOFError, OSError) as error:
        raise _NotWeightsError(_shorten(error)) from None


def _read_safetensors(path: str) -> object:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError:
        raise _NotWeightsError(
            "a safetensors file needs the package safetensors; run: pip install safetensors"
        ) from None
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _NotWeightsError(_shorten(error)) from None


def _find_state(content: object) -> State:
    """The state_dict in what a file holds, without the prefixes of wrappers."""
    holders = [content, *(content.get(name) for name in _HOLDERS)] if isinstance(content, Mapping) else []
    for state in holders:
        if (
            isinstance(state, Mapping)
            and state
            and all(isinstance(value, Tensor) for value in state.values())
        ):
            return {_DENSE_LAYER.sub(r"\1\2", str(name)): value for name, value in state.items()}
    if isinstance(content, Mapping):
        found = ", ".join(map(repr, itertools.islice(content, 8))) or "nothing"
        raise _NotWeightsError(f"no state_dict in it, nor under {', '.join(_HOLDERS)}; its keys are {found}")
    raise _NotWeightsError(f"it holds a {type(content).__name__}, no state_dict")


def _assign(network: nn.Module, state: State) -> None:
    expected = network.state_dict()
    state = _unwrap(state, expected)
    differences = list(_compare(expected, state))
    if differences:
        rest = len(differences) - _NAMED
        more = f"; and {rest} more" if rest > 0 else ""
        raise _NotWeightsError("; ".join(differences[:_NAMED]) + more)
    network.load_state_dict(state)


def _unwrap(state: State, expected: State) -> State:
    """The state without prefixes that all of its keys have and the network's keys have not."""
    while True:
        found = [
            prefix
            for prefix in _WRAPPERS
            if all(name.startswith(prefix) for name in state)
            and not all(name.startswith(prefix) for name in expected)
        ]
        if not found:
            return state
        state = {name.removeprefix(found[0]): value for name, value in state.items()}


def _compare(expected: State, found: State) -> Iterator[str]:
    """Each key that differs, in the network's order, then what only the file has."""
    for name, tensor in expected.items():
        shape = tuple(tensor.shape)
        if name in found:
            if tuple(found[name].shape) != shape:
                yield f"{name} has shape {tuple(found[name].shape)} in the file and {shape} in the network"
        # Files of torch before 0.4.1 have no such counter; load_state_dict leaves the network's own.
        elif not name.endswith("num_batches_tracked"):
            yield f"{name} {shape} is not in the file"
    for name, tensor in found.items():
        if name not in expected:
            yield f"{name} {tuple(tensor.shape)} of the file is not in the network"


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
