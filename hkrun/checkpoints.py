"""A run's full state while it trains, to and from the store.

The newest two checkpoints are kept, so that a damaged newest one costs the epochs since the one before, not
the run. They are read back with `weights_only=True`: a checkpoint can hold no code.
"""

import io
import logging
import pickle
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch

from hkrun.store import DamagedError, NotCommittedError, Store, checkpoint_name, read_epoch

KEPT = 2
FORMAT = 2  # grows when a state holds other things than before; checkpoints of other formats are passed over
_PLAIN = (bool, int, float, str, type(None))

log = logging.getLogger("hkrun")
K = TypeVar("K")  # a seed, or the id of a teacher


def save_checkpoint(store: Store, cell_id: str, seed: int, *, epoch: int, state: Mapping[str, Any]) -> None:
    """Keeps the state of a run after an epoch, and of the earlier ones the newest.

    The state holds tensors, numbers, strings, None, and lists, tuples and dicts of them.

    Raises:
        TypeError: Something in the state is of another type.
        StoreError: The store cannot be written; what was saved before is still there.
    """
    _save(store, f"{store.run_folder(cell_id, seed)}/checkpoints", epoch, state)


def load_checkpoints(
    store: Store, cell_id: str, seeds: Sequence[int]
) -> dict[int, tuple[int, dict[str, Any]]]:
    """The newest states of runs with their epochs, by seed: all of one epoch wherever there is such.

    Runs that train together are saved one after the other: a kill in between leaves some an epoch behind. Two
    are kept of each, so the one before is there of all.
    """
    return _load_together(store, {seed: f"{store.run_folder(cell_id, seed)}/checkpoints" for seed in seeds})


def _load_together(store: Store, folders: Mapping[K, str]) -> dict[K, tuple[int, dict[str, Any]]]:
    saved = {key: dict(_saved(store, folder)) for key, folder in folders.items()}
    for epoch in sorted(set.intersection(*map(set, saved.values())), reverse=True):
        states = {key: _try(store, folder, saved[key][epoch]) for key, folder in folders.items()}
        if all(state is not None for state in states.values()):
            return {key: (epoch, state) for key, state in states.items() if state is not None}
    newest = {key: _load(store, folder) for key, folder in folders.items()}
    return {key: found for key, found in newest.items() if found is not None}


def count_checkpoints(store: Store, cell_id: str, seed: int) -> int:
    """How many states of a run are saved, damaged or not."""
    return len(_saved(store, f"{store.run_folder(cell_id, seed)}/checkpoints"))


def save_teacher_checkpoint(store: Store, teacher_id: str, *, epoch: int, state: Mapping[str, Any]) -> None:
    """Keeps the state of a teacher in training; see `save_checkpoint`."""
    _save(store, f"{store.teacher_folder(teacher_id)}/checkpoints", epoch, state)


def load_teacher_checkpoints(
    store: Store, teacher_ids: Sequence[str]
) -> dict[str, tuple[int, dict[str, Any]]]:
    """The newest states of teachers with their epochs, by id; see `load_checkpoints`."""
    return _load_together(
        store, {identity: f"{store.teacher_folder(identity)}/checkpoints" for identity in teacher_ids}
    )


def count_teacher_checkpoints(store: Store, teacher_id: str) -> int:
    """How many states of a teacher are saved, damaged or not."""
    return len(_saved(store, f"{store.teacher_folder(teacher_id)}/checkpoints"))


def is_part_of_first(
    found: Mapping[K, tuple[int, Mapping[str, Any]]], saved: Mapping[K, int], pack: tuple[int, ...]
) -> bool:
    """Whether a kill cut off the first saving of a pack, so that all begin anew.

    Going on from some first checkpoints would part the pack for an epoch, and give other bits.

    Args:
        found: The states that were loaded.
        saved: How many each member has.
        pack: Seeds of those that train together.
    """
    cut_off = min(saved.values()) == 0 < max(saved.values()) == 1
    return cut_off and all(state["ledger"]["pack"] == pack for _, state in found.values())


def _save(store: Store, folder: str, epoch: int, state: Mapping[str, Any]) -> None:
    _check(state, "state")
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "state": state}, buffer)
    earlier = [name for known, name in _saved(store, folder) if known < epoch]
    store.commit(folder, {checkpoint_name(epoch): buffer.getvalue()}, keep=earlier[: KEPT - 1], tidy=True)


def _load(store: Store, folder: str) -> tuple[int, dict[str, Any]] | None:
    saved = _saved(store, folder)
    for epoch, name in saved:
        if (state := _try(store, folder, name)) is not None:
            return epoch, state
    if saved:
        log.warning("%s/%s holds no checkpoint that can be read: the run starts anew", store.place, folder)
    return None


def _try(store: Store, folder: str, name: str) -> dict[str, Any] | None:
    try:
        return _read(store, folder, name)
    except (DamagedError, NotCommittedError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())
        log.warning("%s/%s/%s is passed over: %s", store.place, folder, name, reason)
        return None


def _read(store: Store, folder: str, name: str) -> dict[str, Any]:
    content = torch.load(io.BytesIO(store.read(folder, name)), weights_only=True, map_location="cpu")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise pickle.UnpicklingError("it is of another version of hkrun")
    state: dict[str, Any] = content["state"]
    return state


def _saved(store: Store, folder: str) -> list[tuple[int, str]]:
    """Epoch and name of the checkpoints in a folder, newest first; none where its manifest is damaged."""
    try:
        names = store.names(folder)
    except DamagedError as error:
        log.warning("all checkpoints are passed over: %s", error.message)
        return []
    numbered = ((epoch, name) for name in names if (epoch := read_epoch(name)) is not None)
    return sorted(numbered, reverse=True)


def _check(value: object, where: str) -> None:
    """Refuses when saving what could not be loaded: a NumPy number is a float by inheritance only."""
    if isinstance(value, torch.Tensor) or type(value) in _PLAIN:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check(key, f"a key of {where}")
            _check(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):  # type: ignore[arg-type]
            _check(item, f"{where}[{index}]")
    else:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(f"{where} is a {kind}, which a checkpoint cannot hold")
